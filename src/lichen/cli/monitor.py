"""`lichen monitor`: what the witnesses of a ledger saw, compared; and what this machine saw before."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.ledger.policy import Policy
    from lichen.net.witness.monitor import Report
    from lichen.net.witness.odd_times import SealTime
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["monitor_command"]


@click.command("monitor", epilog=examples("lichen monitor", "lichen monitor --policy witness.policy --json"))
@click.option(
    "--policy",
    "policy_file",
    metavar="FILE",
    help="Policy whose witnesses are asked; that of the ledger when not given. Without a ledger, it names the log too.",
)
@click.option(
    "--evidence",
    default=".",
    show_default=True,
    metavar="DIR",
    help="Where to put the evidence of a split view.",
)
@click.option(
    "--checkpoint",
    "checkpoints",
    multiple=True,
    metavar="FILE",
    help="A checkpoint that somebody else was shown, to be compared too.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for each witness.",
)
@ledger_option
@json_option
@pass_invocation
def monitor_command(
    invocation: Invocation,
    /,
    *,
    policy_file: str | None,
    evidence: str,
    checkpoints: tuple[str, ...],
    timeout: float,
    ledger: str | None,
) -> int:
    """Compare what witnesses saw of a ledger.

    Asks each witness for the checkpoint it cosigned last, and compares them with each other, with the ledger here, and with what this
    machine saw before. Two that exclude each other are a split view: the evidence is written to a file that `lichen verify` confirms to
    anyone, and the status is 9. Times of the log or of a witness that cannot be right are told, and the status is 3: more than a day ahead
    of this clock, a minute earlier than at a smaller size, or more than a day before the seal. It is 7 when something could not be compared, and 0
    when all agree.
    """
    from lichen.errors import NetworkError, NotALedgerError, SplitViewError, VerificationError
    from lichen.net.witness.monitor import write_evidence

    with contextlib.ExitStack() as opened:
        workspace = None
        with contextlib.suppress(*(() if ledger is not None else (NotALedgerError,))):
            workspace = opened.enter_context(invocation.workspace(ledger, read_only=True))
        report = _watch(workspace, _policy_of(workspace, policy_file), checkpoints, timeout)
    paths = write_evidence(Path(evidence), report)
    if invocation.as_json:
        invocation.output.json({**report.to_json(), "evidence": [str(path) for path in paths]})
    else:
        _tell(invocation, report, paths)
    if report.split_views:
        return SplitViewError.exit_status
    if report.odd_times:
        return VerificationError.exit_status
    return NetworkError.exit_status if report.open_pairs or report.problems else 0


def _policy_of(workspace: Workspace | None, policy_file: str | None) -> Policy:
    from lichen.errors import UsageError
    from lichen.ledger.cosigned import read_ledger_policy, read_policy

    if policy_file is not None:
        return read_policy(Path(policy_file))
    policy = None if workspace is None else read_ledger_policy(workspace.directory)
    if policy is None:
        raise UsageError(
            "nothing says which witnesses to ask",
            remedy="Name a policy with --policy FILE, or give the ledger one: lichen witness use FILE",
        )
    return policy


def _watch(
    workspace: Workspace | None, policy: Policy, checkpoints: tuple[str, ...], timeout_seconds: float
) -> Report:
    from lichen.errors import UsageError
    from lichen.net.witness.monitor import Memory, compare_sightings, gather_sightings
    from lichen.net.witness.odd_times import odd_times
    from lichen.runs.workspace.config import lichen_home

    if workspace is not None:
        origin, log_keys = workspace.ledger.origin, list(workspace.ledger.log_keys)
    elif len(policy.logs) == 1:
        origin, log_keys = policy.logs[0].key.name, [policy.logs[0].key.ed25519]
    else:
        raise UsageError(
            f"nothing says which log to watch: no ledger is here, and the policy lists {len(policy.logs)}",
            remedy="Name a ledger with --ledger DIR, or a policy with one log line.",
        )
    memory = Memory(lichen_home(), origin)
    others = [("this machine before", note) for note in memory.notes()]
    others += [(f"the checkpoint {path}", _read(path)) for path in checkpoints]
    sightings, problems = gather_sightings(origin, log_keys, policy, others, timeout_seconds=timeout_seconds)
    logs = []
    if (
        workspace is not None
    ):  # read after the witnesses, so that it is not behind what they were just asked to sign
        own, _ = gather_sightings(
            origin, log_keys, _nobody(policy), [("the ledger here", workspace.ledger.checkpoint())]
        )
        sightings += own
        logs.append(workspace.ledger)
    genesis = None if workspace is None else workspace.ledger.entry(0)
    report = compare_sightings(origin, log_keys, sightings, logs, genesis=genesis, problems=problems)
    seal_time = (lambda _index: None) if workspace is None else _seal_times(workspace)
    odd = odd_times(sightings, policy, int(time.time()), seal_time)
    report = dataclasses.replace(report, odd_times=odd)
    memory.keep(report)
    return report


def _seal_times(workspace: Workspace) -> SealTime:
    """Tell when the seals of a ledger were made."""
    from lichen.encoding.statement import Statement
    from lichen.errors import LichenError
    from lichen.ledger.seal import Seal

    def seal_time(index: int) -> int | None:
        try:
            seal = Seal.from_statement(Statement.from_bytes(workspace.ledger.entry(index).payload))
        except LichenError:
            return None  # this ledger is not that long, or is another
        return seal.time_unix_ms // 1_000

    return seal_time


def _nobody(policy: Policy) -> Policy:
    return dataclasses.replace(policy, witnesses=())


def _read(path: str) -> str:
    from lichen.errors import UsageError

    try:
        with Path(path).open("rb") as file:
            return file.read(1_000_001).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the checkpoint {path}: {error}") from error


def _tell(invocation: Invocation, report: Report, paths: list[Path]) -> None:
    from lichen.cli.output import Painted

    say = invocation.output.line
    for each in report.sightings:
        say(f"{each.source}: {each.checkpoint.tree_size:,} entries, root {each.checkpoint.root.hex()[:16]}…")
    for source, error in report.problems:
        told = error.message if error.message.startswith(source) else f"{source}: {error.message}"
        say(Painted("no answer: ", "warn"), told)
    for (first, second, _), path in zip(report.split_views, paths, strict=True):
        say(
            Painted("split view: ", "bad"),
            f"{first} and {second} exclude each other, and the log signed both",
        )
        say(f"  evidence: {path} (lichen verify {path})")
    for first, second in report.open_pairs:
        say(
            Painted("not compared: ", "warn"),
            f"{first}, and {second}: nobody here has the log to connect them",
        )
    for odd in report.odd_times:
        say(Painted("odd time: ", "bad"), odd.describe())
    if report.split_views:
        say("keep the evidence, hand it on, and append nothing more to this ledger until it is explained")
    elif report.odd_times:
        say("do not rely on these times; compare the clocks of this machine, of the log and of the witness")
    elif not report.open_pairs and len(report.sightings) > 1:
        say(Painted("all agree: ", "good"), "one log that only grew")
