"""`lichen audit`: derive the whole ledger again from its entries, on all processors, and hash its artefacts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.ledger.audit import AuditReport
    from lichen.runs.keeping.audit import ArtefactReport

__all__ = ["audit_command", "tell_ledger"]

MISSING_SHOWN_MAX = 5


@click.command(
    "audit",
    epilog=examples("lichen audit", "lichen audit --from-scratch", "lichen audit --no-artefacts --json"),
)
@click.option(
    "--from-scratch", is_flag=True, help="Believe no earlier audit: check every signature and rule again."
)
@click.option(
    "--processes",
    type=click.IntRange(min=0, max=256),
    metavar="COUNT",
    help="Processes beside this one; as many as there are processors when not given, none for a small ledger.",
)
@click.option("--no-artefacts", is_flag=True, help="Leave out the artefacts in the store.")
@ledger_option
@json_option
@pass_invocation
def audit_command(
    invocation: Invocation,
    /,
    *,
    from_scratch: bool,
    processes: int | None,
    no_artefacts: bool,
    ledger: str | None,
) -> int:
    """Derive the whole ledger again, and say whether it holds.

    Signatures, rules, tree, state and seals are computed from the entries alone; then everything stored beside them is compared: hash
    tiles, state, views, pages, and each artefact with its CID. The first entry at which something does not hold is named, and why.

    What an audit derives is kept beside your keys. One that was interrupted goes on, and the next one checks signatures and rules of new
    entries only, after hashing the others again.
    """
    from lichen.errors import VerificationError
    from lichen.runs.keeping.audit import audit_ledger

    output = invocation.output
    with (
        invocation.workspace(ledger, read_only=True) as workspace,
        output.progress("audited") as progress,
        output.progress("hashed artefacts:") as artefact_progress,
    ):
        found = audit_ledger(
            workspace,
            progress=progress,
            artefact_progress=artefact_progress,
            from_scratch=from_scratch,
            worker_count=processes,
            with_artefacts=not no_artefacts,
        )
    if invocation.as_json:
        output.json(found.to_json())
    else:
        tell_ledger(invocation, found.ledger)
        if found.artefacts is not None:
            _tell_artefacts(invocation, found.artefacts)
    return 0 if found.is_sound else VerificationError.exit_status


def tell_ledger(invocation: Invocation, report: AuditReport) -> None:
    """Tell what was found of a ledger."""
    from lichen.cli.output import Painted
    from lichen.cli.sentences import plural

    say = invocation.output.line
    if report.problem is not None:
        where = "" if report.problem.index is None else f" at entry {report.problem.index}"
        say(Painted(f"does not hold{where}: ", "bad"), f"{report.problem.message} ({report.problem.code})")
        say(f"ledger: {report.path}, {plural(report.size, 'entry')} checked before that")
        say(
            report.problem.remedy
            or "keep a copy of it, and go on from a backup: lichen init --fork-from BACKUP"
        )
        return
    say(
        Painted("holds: ", "good"), f"{plural(report.size, 'entry')}, ledger {(report.ledger_id or '')[:16]}…"
    )
    kinds = ", ".join(
        f"{count:,} {kind}" for kind, count in sorted(report.kinds.items(), key=lambda item: -item[1])
    )
    say(f"entries: {kinds}; keys in the state: {report.key_count:,}")
    say(f"signed checkpoint over {plural(report.sealed_size, 'entry')}, root {(report.root or 'none')[:16]}…")
    if report.resumed_from:
        say(
            f"signatures and rules of the first {plural(report.resumed_from, 'entry')} were checked by an earlier audit; they are the same"
        )
    if report.views:
        say(f"views compared with the entries: {', '.join(sorted(report.views))}")
    if report.unchecked_views:
        say(f"views this program cannot compare: {', '.join(sorted(report.unchecked_views))}")
    if report.discredited:
        say(
            f"on record but not believed, since their key was compromised: {plural(len(report.discredited), 'entry')}"
        )
    say(
        "it shows that the ledger is what its entries make of it; whether its authors told the truth, it cannot show"
    )


def _tell_artefacts(invocation: Invocation, report: ArtefactReport) -> None:
    from lichen.cli.output import Painted
    from lichen.cli.sentences import plural

    say = invocation.output.line
    if report.damaged:
        say(Painted("damaged: ", "bad"), f"{plural(len(report.damaged), 'artefact')} in the store")
        for cid in report.damaged[:20]:
            say(f"  {cid}")
    else:
        say(f"artefacts: {report.count:,} hashed, {report.size_bytes:,} bytes, each is what its CID says")
    if report.missing:
        say(f"named by entries and not in this store: {plural(len(report.missing), 'artefact')}")
        for each in report.missing[:MISSING_SHOWN_MAX]:
            path = f" ({each['path']})" if "path" in each else ""
            say(f"  {each['cid']}{path}, of entry {each['index']}")
        if (rest := len(report.missing) - MISSING_SHOWN_MAX) > 0:
            say(f"  and {rest:,} more; --json names all")
