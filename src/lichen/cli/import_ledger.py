"""`lichen import`: records of a ledger of one's own become records of the team's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.runs.keeping.importing import ImportReport

__all__ = ["import_command"]

MISSING_SHOWN_MAX = 5


@click.command(
    "import",
    epilog=examples(
        "lichen import own-ledger --dry-run",
        "lichen import own-ledger",
        "lichen import own-ledger --vouch-for hospital-b",
    ),
)
@click.argument("directory", required=False)
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would be imported.")
@click.option(
    "--vouch-for",
    metavar="MEMBER",
    multiple=True,
    help="Import this member's records too, signed by you. May be given several times.",
)
@click.option("--reveal", is_flag=True, help="Import from a private ledger into a public one.")
@click.option(
    "--check",
    "check",
    metavar="ENTRY",
    help="Import nothing: check the evidence that this entry names; its index is told by the import, and 5 and #5 mean the same.",
)
@ledger_option
@json_option
@pass_invocation
def import_command(
    invocation: Invocation,
    /,
    directory: str | None,
    *,
    dry_run: bool,
    vouch_for: tuple[str, ...],
    reveal: bool,
    check: str | None,
    ledger: str | None,
) -> None:
    """Take the records of another ledger over into this one.

    DIRECTORY holds the other ledger. It is checked as a whole first. Your records are signed again, with what they claimed and the
    time they claimed it; a receipt of each goes along, so that who said it first, and when, stays provable. Equal work is not
    recorded twice. Doing it again imports only what is new.
    """
    from lichen.errors import UsageError
    from lichen.runs.keeping.importing import import_ledger, source_workspace

    if (directory is None) == (check is None):
        raise UsageError("name the ledger to import, or an entry with --check", remedy="lichen import --help")
    if directory is None or check is not None:
        _check(invocation, ledger, check or "")
        return
    with (
        invocation.workspace(ledger) as target,
        source_workspace(Path(directory), target) as source,
        invocation.output.progress("imported") as progress,
    ):
        report = import_ledger(
            source, target, vouch_for=vouch_for, reveal=reveal, is_dry=dry_run, progress=progress
        )
    if invocation.as_json:
        invocation.output.json(report.to_json())
        return
    _tell(invocation, report)


def _check(invocation: Invocation, ledger: str | None, reference: str) -> None:
    from lichen.cli.sentences import plural
    from lichen.runs.keeping.importing import verify_evidence
    from lichen.runs.queries.reference import resolve

    with invocation.workspace(ledger, read_only=True) as workspace:
        found = verify_evidence(workspace, resolve(workspace, reference))
    if invocation.as_json:
        invocation.output.json({name: getattr(found, name) for name in type(found).__slots__})
        return
    said = ", ".join(f"{count:,} by {member}" for member, count in sorted(found.authors.items()))
    invocation.output.line(
        f"holds: {plural(found.record_count, 'record')} from ledger {found.source_id[:16]}…: {said}"
    )
    invocation.output.line(f"checked against the log key {found.log_key}")


def _tell(invocation: Invocation, report: ImportReport) -> None:
    from lichen.cli.sentences import plural

    say, note = invocation.output.line, invocation.output.note
    count = sum(report.imported.values())
    kinds = ", ".join(f"{number:,} {kind}" for kind, number in report.imported.most_common())
    verb = "would be imported" if report.is_dry else "imported"
    say(
        f"{plural(count, 'record')} {verb} from ledger {report.source_id[:16]}…{': ' + kinds if kinds else ''}"
    )
    if report.known:
        say(f"{plural(report.known, 'record')} on record here already")
    if report.artefact_count:
        say(
            f"artefacts: {report.artefact_count:,} {'would be ' if report.is_dry else ''}copied, or sealed for this ledger"
        )
    if report.evidence is not None:
        say(f"evidence, with a receipt of each: entry {report.evidence}")
    for reason, number in report.left.most_common():
        note(f"left behind: {plural(number, 'record')}: {reason}")
    if report.unsealed_count:
        note(
            f"left behind: {plural(report.unsealed_count, 'entry')} that no seal covers: nothing could prove them"
        )
    if report.missing:
        shown = ", ".join(report.missing[:MISSING_SHOWN_MAX])
        more = (
            f" and {len(report.missing) - MISSING_SHOWN_MAX:,} more"
            if len(report.missing) > MISSING_SHOWN_MAX
            else ""
        )
        note(f"not in the other store, so not copied: {shown}{more}")
