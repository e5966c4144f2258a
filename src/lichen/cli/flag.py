"""`lichen flag` and `lichen withdraw`: what is wrong with an entry, said by others or by its author."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.runs.records.appending import Recorded
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["flag_command", "withdraw_command"]


@click.command(
    "flag",
    epilog=examples(
        "lichen flag model.pkl --error 'misses every patient under 20' --severity high",
        "lichen flag @last --error 'wrong units in column 3' --data measurements.csv",
    ),
)
@click.argument("reference")
@click.option("--error", required=True, metavar="TEXT", help="What went wrong, in at most 500 characters.")
@click.option(
    "--severity",
    type=click.Choice(["low", "medium", "high"]),
    default="medium",
    show_default=True,
    help="How bad it is.",
)
@click.option(
    "--data", multiple=True, metavar="FILE", help="File on which it erred, or which you suspect. Repeatable."
)
@ledger_option
@json_option
@pass_invocation
def flag_command(
    invocation: Invocation,
    /,
    reference: str,
    *,
    error: str,
    severity: str,
    data: tuple[str, ...],
    ledger: str | None,
) -> None:
    """Report an error of a model or of data.

    REFERENCE is an index, @last (the newest run), a CID, a digest, or the file itself: then the newest data, model or run that has
    this content, and never an evaluation of it. The flag stays on record beside it; `lichen lineage` marks
    what descends from it and ranks the data behind it.
    """
    from lichen.cli.sentences import describe_entry
    from lichen.runs.queries.reference import resolve
    from lichen.runs.queries.show import summary
    from lichen.runs.records.flags import flag

    with invocation.workspace(ledger) as workspace:
        invocation.send_waiting(workspace)
        target = resolve(workspace, reference)
        what = describe_entry(summary(workspace, target))
        recorded = flag(
            workspace, str(target), error, severity=severity, data=tuple(Path(each) for each in data)
        )
    if invocation.as_json:
        invocation.output.json({"of": target, "severity": severity, **told_of(recorded)})
    elif recorded.index is None:
        tell_waiting(invocation, recorded, f"the flag against entry {target}, {what}, waits")
    else:
        invocation.output.line(f"flagged entry {target}, {what}, as entry {recorded.index}")
        invocation.output.line(f"next: lichen lineage {target}")


@click.command(
    "withdraw",
    epilog=examples(
        "lichen withdraw model.pkl --reason 'trained on the wrong labels'",
        "lichen withdraw model.pkl --yes",
    ),
)
@click.argument("reference")
@click.option("--reason", metavar="TEXT", help="Why; it is published with the withdrawal.")
@click.option("-y", "--yes", is_flag=True, help="Ask nothing, and take @last for the newest run in any case.")
@ledger_option
@json_option
@pass_invocation
def withdraw_command(
    invocation: Invocation, /, reference: str, *, reason: str | None, yes: bool, ledger: str | None
) -> None:
    """Withdraw something you published.

    REFERENCE is an index, a CID, a digest, or the file itself: then the newest data, model or run that has this content, and never an
    evaluation of it. @last is the newest run, and is refused when something was published since. The entry stays on record, and
    answers no request any more. On a terminal you are shown what it is and asked first; elsewhere nothing is asked.
    """
    from lichen.cli.errors import STATUS_INTERRUPTED
    from lichen.cli.sentences import describe_entry
    from lichen.runs.queries.reference import resolve
    from lichen.runs.queries.show import summary
    from lichen.runs.records.flags import withdraw

    with invocation.workspace(ledger) as workspace:
        invocation.send_waiting(workspace)
        target = resolve(workspace, reference)
        what = describe_entry(summary(workspace, target))
        if not yes:
            _check_meant(workspace, reference, target, what)
            if (
                not invocation.as_json
                and _has_terminal()
                and not click.confirm(f"withdraw entry {target}, {what}, for good?", err=True)
            ):
                invocation.output.note("nothing was withdrawn")
                click.get_current_context().exit(STATUS_INTERRUPTED)
        recorded = withdraw(workspace, str(target), reason)
    if invocation.as_json:
        invocation.output.json({"of": target, **told_of(recorded)})
    elif recorded.index is None:
        tell_waiting(
            invocation,
            recorded,
            f"the withdrawal of entry {target}, {what}, waits; until it is sent the entry goes on answering",
        )
    else:
        invocation.output.line(
            f"withdrew entry {target}, {what}, as entry {recorded.index}; it stays on record and answers no request any more"
        )


def told_of(recorded: Recorded) -> dict[str, Any]:
    """Return where a record stands, or waits, as a table for JSON."""
    return {"index": recorded.index, "waits_in": recorded.waits_in}


def tell_waiting(invocation: Invocation, recorded: Recorded, what: str) -> None:
    """Say that a record waits for the server."""
    from lichen.runs.records.appending import waiting_line

    invocation.output.note(f"warning: {waiting_line(recorded.reason, str(recorded.waits_in))}")
    invocation.output.line(what)


def _check_meant(workspace: Workspace, reference: str, target: int, what: str) -> None:
    """Refuse ``@last`` where the last thing that somebody put on record is no run: a withdrawal cannot be taken back.

    Raises:
        UsageError: Something was published since.
    """
    from lichen.cli.sentences import describe_entry
    from lichen.errors import UsageError
    from lichen.runs.queries.reference import published_since
    from lichen.runs.queries.show import summary

    if reference.strip() != "@last" or (since := published_since(workspace, target)) is None:
        return
    newer = describe_entry(summary(workspace, since))
    raise UsageError(
        f"@last is the newest run, entry {target}, {what}; entry {since}, {newer}, is newer, so it is not certain which you mean",
        remedy=f"Name it: lichen withdraw {since}, or lichen withdraw {target}.",
    )


def _has_terminal() -> bool:
    """Say whether somebody sits there who can read a question and answer it."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))
