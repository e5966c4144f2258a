"""`lichen find`: earlier work by fingerprint, data, metric, file, author or words; or a proof that there is none."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.cli.output import Painted
    from lichen.runs.queries.find import Found, Query

__all__ = ["find_command"]


@click.command(
    "find",
    epilog=examples(
        "lichen find train.py",
        "lichen find --data measurements.csv --metric 'accuracy>=0.9' --order energy",
        "lichen find --file model.pkl",
        "lichen find --kind model",
        "lichen find --prove stands.receipt --withdrawn @last",
        "lichen find --prove published.receipt --file model.pkl",
    ),
)
@click.argument("words", nargs=-1)
@click.option(
    "--data", metavar="PATH", help="Work that read this file, or the largest file of this directory."
)
@click.option(
    "--metric",
    metavar="NAME[>=NUMBER]",
    help="Work that reported this metric, with a bound if you like: 'accuracy>=0.9', 'loss<0.1', 'depth=4'. Comparisons: > >= < <= =.",
)
@click.option(
    "--file",
    metavar="FILE",
    help="Work that made this file, or published it; a SHA-256 in hexadecimal will do.",
)
@click.option("--fingerprint", metavar="HEX", help="Work with this fingerprint, or its beginning.")
@click.option("--member", metavar="ID", help="Work of this author.")
@click.option(
    "--kind", type=click.Choice(["run", "data", "model", "evaluation"]), help="Only entries of this kind."
)
@click.option(
    "--order",
    type=click.Choice(["newest", "energy", "metric"]),
    default="newest",
    show_default=True,
    help="Newest first, cheapest first, or best first.",
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="COUNT",
    help="Most results.",
)
@click.option("--failed", is_flag=True, help="Failed and interrupted runs too.")
@click.option(
    "--prove",
    metavar="FILE",
    help="Answer yes or no, and write a receipt that proves it to FILE; with one of --fingerprint, --file, --withdrawn, --flagged.",
)
@click.option(
    "--level",
    type=click.Choice(["exact", "same-work"]),
    help="Class of the fingerprint to prove; both when not given.",
)
@click.option("--withdrawn", metavar="ENTRY", help="With --prove: was this entry withdrawn?")
@click.option("--flagged", metavar="ENTRY", help="With --prove: was this entry flagged?")
@ledger_option
@json_option
@pass_invocation
def find_command(invocation: Invocation, /, words: tuple[str, ...], **options: Any) -> None:
    """Find earlier work.

    WORDS are looked for in command lines. All conditions must hold.

    With --prove the answer is a yes or a no that others can check: a receipt over the state that the newest seal commits to. Without
    the whole ledger, a no rests on the sealer's word; `lichen audit` replays the entries and exposes a false one.
    """
    from lichen.cli.proving import asked_claims, check_options, tell_proved
    from lichen.runs.queries.find import find

    check_options(words, options)
    if options["prove"] is not None:
        from lichen.runs.queries.prove import prove, standing_notes

        with invocation.workspace(options["ledger"]) as workspace:
            proved = prove(workspace, asked_claims(workspace, options))
            tell_proved(invocation, proved, Path(options["prove"]), standing_notes(workspace, proved))
        return
    query = _query(words, options)
    with invocation.workspace(options["ledger"]) as workspace:
        found = find(workspace, query)
    if invocation.as_json:
        invocation.output.json([item.to_json() for item in found])
    elif found:
        columns = ("entry", "kind", "work", "metrics", "energy", "by", "")
        invocation.output.table(columns, [_row(item) for item in found], right=(0,))
        if len(found) == query.limit:
            invocation.output.note(f"the first {query.limit}; --limit shows more")
    else:
        invocation.output.note("nothing on record fits")


def _query(words: tuple[str, ...], options: dict[str, Any]) -> Query:
    from lichen.runs.queries.find import Query, parse_metric_bound

    metric = options["metric"]
    return Query(
        fingerprint=options["fingerprint"],
        data=Path(options["data"]) if options["data"] is not None else None,
        metric=parse_metric_bound(metric) if metric is not None else None,
        file=options["file"],
        member=options["member"],
        words=" ".join(words) or None,
        kind=options["kind"],
        order=options["order"],
        limit=options["limit"],
        with_failed=options["failed"],
    )


def _row(item: Found) -> list[str | Painted]:
    from lichen.cli.output import Painted
    from lichen.cli.sentences import describe_metrics, describe_title
    from lichen.units import format_energy

    energy = "" if item.energy_joules is None else format_energy(item.energy_joules, item.energy_relative_u95)
    if item.method == "declared" and energy:
        energy += " declared"
    return [str(item.index), item.kind, describe_title(item.title), describe_metrics(item.metrics, 2), energy, item.member,
            Painted(_marks(item), "warn")]  # fmt: skip


def _marks(item: Found) -> str:
    marks = [item.status] if item.status not in (None, "trained") else []
    if item.reusable is False:
        marks.append("not reusable")
    if item.withdrawn:
        marks.append("withdrawn")
    if item.flag_count:
        marks.append(f"flagged {item.flag_count}x")
    return ", ".join(mark for mark in marks if mark)
