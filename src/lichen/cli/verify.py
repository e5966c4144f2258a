"""`lichen verify`: a receipt, offline; or the whole ledger, re-derived from its entries."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.ledger.policy import Policy
    from lichen.ledger.split_view import VerifiedSplitView
    from lichen.runs.keeping.verify import ReceiptReport

__all__ = ["verify_command"]


@click.command(
    "verify",
    epilog=examples(
        "lichen verify",
        "lichen verify run.receipt",
        "lichen verify run.receipt --log-key $(lichen key show --log)",
        "lichen verify witnessed.receipt --policy witness.policy",
    ),
)
@click.argument("receipt", required=False)
@click.option(
    "--log-key",
    metavar="KEY",
    help="Public key of the log, as `lichen key show` prints it; then no ledger is needed.",
)
@click.option(
    "--policy",
    "policy_file",
    metavar="FILE",
    help="Policy that says which witnesses must have cosigned; the log's key may stand in it, too.",
)
@click.option(
    "--faulty",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="COUNT",
    help="How many witnesses of the policy may lie; it is refused when two quorums could do without an honest one in common.",
)
@click.option(
    "--now",
    "now_unix_seconds",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    help="Time to judge cosignatures by, in seconds since 1970; this machine's clock when not given.",
)
@ledger_option
@json_option
@pass_invocation
def verify_command(
    invocation: Invocation,
    /,
    receipt: str | None,
    *,
    log_key: str | None,
    policy_file: str | None,
    faulty: int,
    now_unix_seconds: int | None,
    ledger: str | None,
) -> int:
    """Verify a receipt, evidence, or the whole ledger.

    RECEIPT is a file that `lichen show --receipt` or `lichen find --prove` wrote. It is checked offline: signature, place in the log, and the log's signed
    checkpoint; with --policy also that enough witnesses cosigned it. It may also be evidence of a split view, as `lichen monitor` writes
    it. Without RECEIPT, everything in the ledger is derived again from its entries: signatures, rules, tree, state, seals, checkpoint.
    """
    if receipt is None:
        return _verify_ledger(invocation, ledger)
    from lichen.errors import NotALedgerError
    from lichen.runs.keeping.verify import is_evidence, verify_evidence, verify_receipts

    policy = None if policy_file is None else _read_policy(policy_file, faulty)
    evidence = is_evidence(Path(receipt))
    with contextlib.ExitStack() as opened:
        workspace = None
        if log_key is None:
            with contextlib.suppress(*(() if ledger is not None else (NotALedgerError,))):
                workspace = opened.enter_context(invocation.workspace(ledger, read_only=True))
        if evidence:
            return _tell_evidence(
                invocation, *verify_evidence(Path(receipt), log_key=log_key, workspace=workspace)
            )
        reports = verify_receipts(
            Path(receipt),
            log_key=log_key,
            workspace=workspace,
            policy=policy,
            now_unix_seconds=now_unix_seconds,
        )
    if invocation.as_json:
        told = [report.to_json() for report in reports]
        invocation.output.json(told[0] if len(told) == 1 else told)
        return 0
    for report in reports:
        _tell_receipt(invocation, report)
    return 0


def _read_policy(path: str, faulty_count: int) -> Policy:
    """Read a policy; one that asks for witnesses must be one under which they protect."""
    from lichen.ledger.cosigned import read_policy
    from lichen.ledger.quorums import check_quorums_intersect

    policy = read_policy(Path(path))
    if policy.quorum is not None:
        check_quorums_intersect(policy, faulty_count)
    return policy


def _tell_evidence(invocation: Invocation, found: VerifiedSplitView, source: str) -> int:
    from lichen.cli.output import Painted

    if invocation.as_json:
        invocation.output.json(
            {
                "ledger_id": found.origin.rpartition("/")[2],
                "first": {"tree_size": found.first.tree_size, "root": found.first.root.hex()},
                "second": {"tree_size": found.second.tree_size, "root": found.second.root.hex()},
                "proves": list(found.proves),
                "does_not_prove": list(found.does_not_prove),
                "log_key_from": source,
            }
        )
        return 0
    say = invocation.output.line
    say(Painted("holds: ", "good"), f"a split view of {found.origin}")
    for each in (found.first, found.second):
        say(f"signed: {each.tree_size:,} entries, root {each.root.hex()}")
    say(f"checked against the log key from: {source}")
    for title, sentences in (("it proves", found.proves), ("it does not prove", found.does_not_prove)):
        say(title)
        for sentence in sentences:
            say(f"  - {sentence}")
    return 0


def _verify_ledger(invocation: Invocation, ledger: str | None) -> int:
    """Audit the ledger; a problem is a result, told like one, and the status says that it is there."""
    from lichen.cli.audit import tell_ledger
    from lichen.errors import VerificationError
    from lichen.runs.keeping.verify import verify_ledger

    with (
        invocation.workspace(ledger, read_only=True) as workspace,
        invocation.output.progress("verified") as progress,
    ):
        report = verify_ledger(workspace, progress)
    if invocation.as_json:
        invocation.output.json(report.to_json())
    else:
        tell_ledger(invocation, report)
    return 0 if report.is_sound else VerificationError.exit_status


def _tell_receipt(invocation: Invocation, report: ReceiptReport) -> None:
    from lichen.cli.output import Painted

    say = invocation.output.line
    if report.answer is not None:
        say(Painted("holds: ", "good"), f"{report.answer}; ledger {report.ledger_id[:16]}…, {report.state}")
    else:
        say(
            Painted("holds: ", "good"),
            f"entry {report.index} ({report.kind}) by {report.member}, ledger {report.ledger_id[:16]}…, {report.state}",
        )
    say(f"checked against the log key from: {report.log_key_from}")
    for title, sentences in (("it proves", report.proves), ("it does not prove", report.does_not_prove)):
        if sentences:
            say(title)
            for sentence in sentences:
                say(f"  - {sentence}")
