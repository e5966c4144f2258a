"""`lichen publish`: data, models and evaluations, with what they cost as far as it is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, numbers, pass_invocation

if TYPE_CHECKING:
    from lichen.runs.records.publish import DeclaredEnergy, Published

__all__ = ["publish_command"]


@click.group("publish", no_args_is_help=True)
def publish_command() -> None:
    """Publish data, a model or an evaluation.

    The file goes into the store beside the ledger under its CID; the ledger keeps a signed entry of about a kilobyte.
    """


def _energy_options(function: Any) -> Any:
    options = (
        click.option("--energy", metavar="AMOUNT", help="What making it cost, with a unit, such as '1.2 kWh'; recorded as declared."),
        click.option("--energy-u95", type=click.FloatRange(min=0, max=100), default=0.5, show_default=True, metavar="SHARE", help="Uncertainty of that at 95 %, as a share of it."),
        click.option("--duration", metavar="TIME", help="How long making it took, with a unit, such as '2 h'."),
        click.option("--device", metavar="TEXT", default="declared elsewhere", show_default=True, help="What did the work."),
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _artefact_options(function: Any) -> Any:
    options = (
        click.option("--title", metavar="TEXT", help="What to call it. In a private ledger no other name is published."),
        click.option("--licence", metavar="TEXT", help="Licence, best as an SPDX expression."),
        click.option("--data", multiple=True, metavar="PATH", help="File or directory it was made from. Repeatable."),
        click.option("--receipt", metavar="FILE", help="Write the receipt to a file."),
        click.option("--force", is_flag=True, help="Publish an implausible claim, marked as such."),
        click.option("--again", is_flag=True, help="Write another entry even when one of yours says the same already."),
        ledger_option,
        json_option,
    )  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


@publish_command.command(
    "data", epilog=examples("lichen publish data measurements.csv --title 'clinic A, 2024'")
)
@click.argument("path")
@_artefact_options
@_energy_options
@pass_invocation
def data_command(invocation: Invocation, /, path: str, **options: Any) -> None:
    """Publish a file or a directory of data."""
    _publish(invocation, "data", path, options, run=None, metrics={})


@publish_command.command(
    "model",
    epilog=examples(
        "lichen publish model model.pkl --title 'trees, depth 4'",
        "lichen publish model model.pkl --metric accuracy=0.93 --energy '310 J' --duration '8 s'",
    ),
)
@click.argument("path")
@click.option(
    "--metric",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Declared quality, such as accuracy=0.93. Repeatable.",
)
@click.option(
    "--run",
    type=click.IntRange(min=0),
    metavar="INDEX",
    help="Recorded run that made it; found by content when not given.",
)
@_artefact_options
@_energy_options
@pass_invocation
def model_command(
    invocation: Invocation, /, path: str, *, metric: tuple[str, ...], run: int | None, **options: Any
) -> None:
    """Publish a model.

    A model that a recorded run made points to that run, and its cost is the run's. For a model made elsewhere, quality and
    cost can only be declared: they go through a plausibility check and stay marked as declared.
    """
    _publish(
        invocation, "model", path, options, run=run, metrics=numbers(metric, "--metric", "accuracy=0.93")
    )


def _publish(
    invocation: Invocation,
    kind: str,
    path: str,
    options: dict[str, Any],
    *,
    run: int | None,
    metrics: dict[str, float],
) -> None:
    from lichen.runs.records.publish import publish

    energy = _declared(options)
    with invocation.workspace(options["ledger"]) as workspace:
        invocation.send_waiting(workspace)
        published = publish(
            workspace,
            kind,
            Path(path),
            title=options["title"],
            licence=options["licence"],
            metrics=metrics,
            energy=energy,
            run=run,
            data=tuple(Path(each) for each in options["data"]),
            force=options["force"],
            again=options["again"],
        )
    _tell(invocation, published, options["receipt"])


@publish_command.command(
    "evaluation",
    epilog=examples("lichen publish evaluation model.pkl --metric accuracy=0.91 --data measurements.csv"),
)
@click.argument("reference")
@click.option(
    "--metric",
    multiple=True,
    required=True,
    metavar="NAME=NUMBER",
    help="What came out, such as accuracy=0.91. Repeatable.",
)
@click.option("--title", metavar="TEXT", help="What to call the evaluation.")
@click.option(
    "--data", multiple=True, metavar="PATH", help="File or directory it was evaluated on. Repeatable."
)
@click.option("--receipt", metavar="FILE", help="Write the receipt to a file.")
@click.option("--force", is_flag=True, help="Publish an implausible claim all the same.")
@_energy_options
@ledger_option
@json_option
@pass_invocation
def evaluation_command(
    invocation: Invocation, /, reference: str, *, metric: tuple[str, ...], **options: Any
) -> None:
    """Publish how good a model or a run is on some data.

    REFERENCE is an index, @last, a CID, a digest, or the model's file.
    """
    from lichen.runs.queries.reference import resolve
    from lichen.runs.records.publish import evaluate

    metrics, energy = numbers(metric, "--metric", "accuracy=0.93"), _declared(options)
    with invocation.workspace(options["ledger"]) as workspace:
        invocation.send_waiting(workspace)
        published = evaluate(
            workspace,
            resolve(workspace, reference),
            metrics,
            data=tuple(Path(each) for each in options["data"]),
            title=options["title"],
            energy=energy,
            force=options["force"],
        )
    _tell(invocation, published, options["receipt"])


def _declared(options: dict[str, Any]) -> DeclaredEnergy | None:
    from lichen.runs.records.publish import DeclaredEnergy
    from lichen.units import parse_duration, parse_energy

    if options["energy"] is None:
        return None
    return DeclaredEnergy(
        parse_energy(options["energy"]),
        options["energy_u95"],
        parse_duration(options["duration"]) if options["duration"] is not None else 0.0,
        options["device"],
    )


def _tell(invocation: Invocation, published: Published, receipt: str | None) -> None:
    from lichen.units import format_size

    if receipt is not None and published.receipt is not None:
        write_text(receipt, published.receipt)
    if invocation.as_json:
        invocation.output.json(published.to_json())
        return
    for warning in published.warnings:
        invocation.output.note(f"warning: {warning}")
    if receipt is not None and published.receipt is None:
        invocation.output.note(
            f"warning: {receipt} was not written: there is a receipt when the record was sent"
        )
    say: Callable[..., None] = invocation.output.line
    if published.cid is None:
        stands = "waits" if published.index is None else f"published as entry {published.index}"
        say(f"{stands}: {published.title}")
        return
    what = f"{published.kind} {published.title!r}, {format_size(published.size_bytes)}"
    if published.index is None:
        say(
            f"waits{'' if published.is_new else ' already'}: {what}; it is in the store, and its record is sent later"
        )
    elif published.is_new:
        say(f"published as entry {published.index}: {what}")
    else:
        say(
            f"published already, as entry {published.index}: {what}; nothing was written (--again writes another)"
        )
    if not published.is_named:
        say("  name    none: the ledger is private, and no --title was given")
    say(f"  cid     {published.cid}")
    say(f"  sha256  {published.sha256}")
    if published.run is not None:
        say(f"  made by entry {published.run}, whose measured energy is its cost")


def write_text(path: str, text: str) -> None:
    """Write a text to a file the user named, whole or not at all."""
    target = Path(path)
    partial = target.with_name(f".{target.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(target)
