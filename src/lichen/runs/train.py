"""Do the work: run the command under trace and meter, describe it, write it down.

Nothing that fails here changes what the command did: its output is out, its files stand, its exit status is kept. A record that
the ledger or the store cannot take now is spooled and written later.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.encoding.base import b64u
from lichen.errors import LichenError
from lichen.runs.distributed.nested import mark, nested_runs, own_share
from lichen.runs.process.late_signals import LateSignals
from lichen.runs.records.metrics import collect_metrics, misses_target
from lichen.runs.records.recording import write_down
from lichen.runs.request import RunResult
from lichen.runs.reuse.hit import absolute_paths
from lichen.runs.work.collector import without_collector
from lichen.runs.work.observe import Observation, observe
from lichen.runs.work.secrets import mask_secrets
from lichen.runs.work.surroundings import STDIN

if TYPE_CHECKING:
    from lichen.energy.measurement import Measurement
    from lichen.runs.distributed.ranked import Meeting
    from lichen.runs.process.standard_input import StandardInput
    from lichen.runs.process.supervise import Outcome
    from lichen.runs.request import Narrator, RunRequest
    from lichen.runs.reuse.lease import Held
    from lichen.runs.trace.trace import Trace
    from lichen.runs.work.command import Command
    from lichen.runs.work.surroundings import Surroundings
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Watched", "run_unrecorded", "train"]

_ENDING_SECONDS_MAX = 0.3
_STDOUT_KEPT_BYTES = 4 * 1024 * 1024


@dataclass
class Watched:
    """What was seen of a command from outside."""

    outcome: Outcome
    trace: Trace
    measurement: Measurement | None
    warnings: list[str]
    with_inner_runs: Measurement | None = None
    is_still_running: bool = False


def train(
    workspace: Workspace,
    request: RunRequest,
    command: Command,
    surroundings: Surroundings,
    narrator: Narrator,
    *,
    stdin: int | None = None,
    parent: str | None = None,
    lease: Held | None = None,
    meeting: Meeting | None = None,
) -> RunResult:
    """Run a command and record it.

    Args:
        workspace: Ledger, store, identity.
        request: Options.
        command: The command, understood.
        surroundings: Shared with the look-up, so that nothing is hashed twice.
        narrator: Hears warnings and, if asked for, the record.
        stdin: Descriptor to use as the command's input; its own standard input when None.
        parent: Id of the run this one is nested in.
        lease: Lease held meanwhile; runs inside must not wait for it.
        meeting: The other processes of a distributed run; only rank 0 records.

    Returns:
        How it ended; ``outcome`` is set, and the caller leaves as the command left. A stop signal that came when the command
        had ended has waited for the record; ``outcome.signal`` is that one then.
    """
    with LateSignals() as late:
        result = _watch_and_record(
            workspace, request, command, surroundings, narrator, stdin, parent, lease, meeting, late
        )
    if late.number is not None and result.outcome is not None:
        result.outcome = replace(result.outcome, signal=late.number)
    return result


def _watch_and_record(
    workspace: Workspace,
    request: RunRequest,
    command: Command,
    surroundings: Surroundings,
    narrator: Narrator,
    stdin: int | None,
    parent: str | None,
    lease: Held | None,
    meeting: Meeting | None,
    late: LateSignals,
) -> RunResult:
    """Do what `train` says, with stop signals kept once the command has ended."""
    with _scratch(workspace) as scratch:
        watched = _watch(workspace, request, command, scratch, stdin, lease, late)
        for warning in watched.warnings:
            narrator.warning(warning)
        joined = None
        if meeting is not None:
            try:
                if not meeting.rank.is_first:
                    meeting.leave(watched)
                    return _unrecorded(request, watched)
                watched, joined = meeting.join(watched)
            except (LichenError, OSError) as error:
                narrator.warning(f"the other ranks of this run are not in its record: {error}")
                if not meeting.rank.is_first:
                    return _unrecorded(request, watched)
                reasons = (
                    *watched.trace.reasons,
                    "rank-missing: the parts of the other ranks cannot be read",
                )
                watched = replace(watched, trace=replace(watched.trace, complete=False, reasons=reasons))
        if watched.outcome.start_error is not None:
            narrator.warning(watched.outcome.start_error)
            return RunResult("failed", watched.outcome.exit_status, outcome=watched.outcome)
        try:
            ranks = meeting.rank.count if meeting is not None else None
            with without_collector():
                result = _describe(
                    workspace, request, command, surroundings, narrator, watched, parent, ranks
                )
            if meeting is not None and joined is not None:
                meeting.close(scratch.name, joined)
            return result
        except KeyboardInterrupt:
            narrator.warning(
                "this run was not recorded: you interrupted Lichen while it was describing what the command had done"
            )
            raise
        except Exception as error:  # whatever it is, the command has ended well or badly on its own
            narrator.warning(f"this run was not recorded: {_in_words(error)}")
            return _unrecorded(request, watched)


def run_unrecorded(request: RunRequest) -> RunResult:
    """Run a command of which nothing can be recorded."""
    from lichen.runs.process.supervise import supervise
    from lichen.runs.trace.trace import Trace

    return _unrecorded(request, Watched(supervise(request.argv), Trace(), None, []))


def _unrecorded(request: RunRequest, watched: Watched) -> RunResult:
    """Return how a command ended that this process does not record."""
    return RunResult(
        _status(request, watched.outcome, {})[0],
        watched.outcome.exit_status,
        measurement=watched.measurement,
        duration_seconds=watched.outcome.duration_seconds,
        outcome=watched.outcome,
    )


def _in_words(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "not enough memory"
    expected = isinstance(error, LichenError | OSError)
    return str(error) if expected else f"{type(error).__name__}: {error}, which is a bug in Lichen"


@contextlib.contextmanager
def _scratch(workspace: Workspace) -> Iterator[Path]:
    """Make the run's own directory, beside the ledger when that can be written."""
    base = workspace.cache_directory / "runs"
    try:
        base.mkdir(parents=True, exist_ok=True)
        directory = Path(tempfile.mkdtemp(dir=base))
    except OSError:
        directory = Path(tempfile.mkdtemp(prefix="lichen-run-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _watch(
    workspace: Workspace,
    request: RunRequest,
    command: Command,
    scratch: Path,
    stdin: int | None,
    lease: Held | None,
    late: LateSignals,
) -> Watched:
    """Run the command; tracing and metering may fail without it noticing."""
    from lichen.energy.attribution import TreeAccount
    from lichen.energy.meter import Meter
    from lichen.runs.process.signal_relay import withheld_signals
    from lichen.runs.process.supervise import supervise
    from lichen.runs.trace.trace import Trace
    from lichen.runs.trace.tracer import Tracer

    warnings: list[str] = []
    project = workspace.project
    watch_directories = _directories(absolute_paths((*request.data, *project.config.data), project.root))
    tracer = Tracer(
        project.root,
        watch_directories,
        means=_means(request.trace or project.config.trace),
        scratch_directory=scratch,
        command=command.argv,
    )
    environment = dict(os.environ)
    if lease is not None:
        lease.mark(environment)
    try:
        environment = tracer.environment(environment)
        mark(environment, scratch.name, tracer.run_directory)
        with withheld_signals():  # threads it may start must not take signals that are the command's
            tracer.start()
    except Exception as error:  # whatever it is, the command must run
        warnings.append(f"the run is not traced: {_in_words(error)}")
    meter = None
    try:
        meter = Meter(
            zone=request.zone or project.config.zone or workspace.user.get_text("energy.zone"),
            background=False,
        ).start()
    except Exception as error:
        warnings.append(f"the run is not metered: {_in_words(error)}")
    outcome = supervise(
        tracer.wrap(command.argv),
        environment=environment,
        account=TreeAccount(on_poll=meter.poll if meter is not None else None),
        tracer=tracer,
        capture_directory=scratch,
        stdin="auto" if stdin is None else stdin,
        late=late,
    )
    measurement = total = None
    try:
        if meter is not None:
            total = meter.stop(outcome.usage)
            measurement = own_share(total, nested_runs(tracer.run_directory))
    except Exception as error:  # whatever it is, the command has ended well or badly on its own
        warnings.append(f"the run is not metered: {_in_words(error)}")
    lives_on = _outlives(outcome.usage.still_running if outcome.usage is not None else ())
    try:
        trace = tracer.finish()
    except Exception as error:
        trace = Trace(complete=False, reasons=(f"tracer: {_in_words(error)}",))
    return Watched(outcome, trace, measurement, [*warnings, *outcome.warnings], total, lives_on)


def _outlives(pids: Sequence[int]) -> bool:
    """Say whether a process goes on after its run; helpers of multiprocessing end a moment after their master."""
    if not pids:
        return False
    from lichen.runs.trace.procfs import is_running

    since_ns = time.monotonic_ns()
    while any(is_running(pid, since_ns) for pid in pids):
        if time.monotonic_ns() - since_ns > _ENDING_SECONDS_MAX * 1e9:
            return True
        time.sleep(0.02)
    return False


def _means(text: str | None) -> tuple[str, ...] | None:
    """Read ``audit,inotify``; None lets the tracer take the best available."""
    return tuple(part.strip() for part in text.split(",") if part.strip()) if text else None


def _directories(paths: tuple[str, ...]) -> list[Path]:
    return [Path(path) if Path(path).is_dir() else Path(path).parent for path in paths]


def _status(request: RunRequest, outcome: Outcome, metrics: Mapping[str, float]) -> tuple[str, str | None]:
    """Return the status of a finished command, and which target it missed."""
    if outcome.interrupted:
        return "interrupted", None
    if outcome.exit_status != 0 and not request.exit_ok:
        return "failed", None
    missed = misses_target(metrics, request.target)
    return ("missed", missed) if missed else ("trained", None)


def _describe(
    workspace: Workspace,
    request: RunRequest,
    command: Command,
    surroundings: Surroundings,
    narrator: Narrator,
    watched: Watched,
    parent: str | None,
    rank_count: int | None,
) -> RunResult:
    outcome = watched.outcome
    surroundings = (
        surroundings.afresh()
    )  # what was looked at before the run may have changed before it was read
    if outcome.stdin.sha256 is not None and outcome.stdin.complete:
        surroundings.stdin_digest = outcome.stdin.sha256
    observation = observe(
        workspace,
        command,
        surroundings,
        watched.trace,
        started_ns=outcome.started_ns,
    )
    stdout = outcome.stdout_capture.read_bytes()
    metrics = _metrics(request, watched, stdout, narrator)
    status, missed = _status(request, outcome, metrics)
    _judge(observation, status, watched)
    _judge_input_file(workspace, observation, surroundings, outcome.stdin)
    stdout, stderr = _kept_output(workspace, request, observation, outcome, stdout)
    reasons = [(reason.code, reason.text) for reason in observation.reasons]
    result = RunResult(
        status=status,
        exit_status=outcome.exit_status,
        reusable=observation.reusable,
        reasons=reasons,
        measurement=watched.measurement,
        duration_seconds=outcome.duration_seconds,
        metrics=metrics,
        author=workspace.member,
        outputs=[output.name for output in observation.manifest.outputs],
        missed_target=missed,
        outcome=outcome,
        with_inner_runs=watched.with_inner_runs,
    )
    if watched.measurement is None:
        narrator.warning("this run was not recorded: a record without its energy is not written")
        return result
    detail = _detail(request, observation, watched, stdout, stderr)
    write_down(
        workspace, request, observation, detail, result, narrator, parent=parent, rank_count=rank_count
    )
    return result


def _metrics(request: RunRequest, watched: Watched, stdout: bytes, narrator: Narrator) -> dict[str, float]:
    """Gather the metrics; whatever is wrong with them, the run they belong to is recorded."""
    try:
        metrics, warnings = collect_metrics(
            watched.trace.metrics, request.metrics_file, request.patterns, stdout.decode("utf-8", "replace")
        )
    except Exception as error:
        metrics, warnings = {}, [f"the metrics are left out: {_in_words(error)}"]
    for warning in warnings:
        narrator.warning(warning)
    return metrics


def _judge(observation: Observation, status: str, watched: Watched) -> None:
    """Add the reasons that do not come from the trace alone."""
    from lichen.runs.work.observe import Reason

    outcome = watched.outcome
    if status == "failed":
        observation.reasons.insert(
            0, Reason("exit-status", f"the command ended with status {outcome.exit_status}")
        )
    if status == "interrupted":
        observation.reasons.insert(0, Reason("interrupted", "the run was interrupted"))
    if watched.is_still_running:
        observation.reasons.append(Reason("still-running", "a process of the run is still running"))
    if outcome.stdin.kind == "pipe" and outcome.stdin.size_bytes and not outcome.stdin.complete:
        observation.reasons.append(Reason("partial", "standard input was not read to its end"))
    unseen = {
        "terminal": "somebody at the terminal was asked for input",
        "file": "standard input was a file that has no name any more",
    }.get(outcome.stdin.kind)
    if watched.trace.stdin_used and unseen is not None and STDIN not in observation.manifest.data:
        observation.reasons.append(Reason("partial", unseen))


def _kept_output(
    workspace: Workspace, request: RunRequest, observation: Observation, outcome: Outcome, stdout: bytes
) -> tuple[bytes, bytes]:
    """Return what is kept of both streams: all, or in a public ledger all but the secrets that are known."""
    stderr = outcome.stderr_capture.read_bytes()
    if workspace.group_key is not None:
        return stdout, stderr
    from lichen.runs.work.observe import Reason
    from lichen.runs.work.printed import known_secrets, mask_printed

    secrets = known_secrets(request.argv, os.environ)
    stdout, printed = mask_printed(stdout, secrets)
    stderr, complained = mask_printed(stderr, secrets)
    for where in dict.fromkeys((*printed, *complained)):
        observation.reasons.append(
            Reason(
                "secret", f"the command printed the secret in {where}, which a public ledger does not keep"
            )
        )
    return stdout, stderr


def _judge_input_file(
    workspace: Workspace, observation: Observation, surroundings: Surroundings, stdin: StandardInput
) -> None:
    """Blame a file on standard input that is not what it was when the ledger was asked about it."""
    from lichen.runs.work.observe import Reason

    if STDIN not in observation.manifest.data or stdin.kind != "file" or stdin.path is None:
        return
    try:
        now = stdin.digest(workspace.digests.digest_file)
    except LichenError:
        now = None
    if now != surroundings.stdin_digest:
        observation.reasons.append(
            Reason("inputs-changed", f"{stdin.path}, on standard input, changed during the run")
        )


def _detail(
    request: RunRequest, observation: Observation, watched: Watched, stdout: bytes, stderr: bytes
) -> bytes:
    """Return the deletable detail: what people want to see and nobody needs for a proof."""
    outcome = watched.outcome
    masked, _ = mask_secrets(request.argv)
    value = {
        "detail": 1,
        "argv": list(masked),
        "host": socket.gethostname(),
        "started_unix_ms": outcome.started_ns // 1_000_000,
        "stdout": b64u(stdout[:_STDOUT_KEPT_BYTES]),
        "stderr": b64u(stderr[:_STDOUT_KEPT_BYTES]),
        "truncated": outcome.truncated,
        "reasons": [{"code": reason.code, "text": reason.text} for reason in observation.reasons],
        "metrics": list(watched.trace.metrics)[-10_000:],
        "processes": watched.trace.process_count,
        "written_unix_ms": time.time_ns() // 1_000_000,
    }
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, default=str).encode()
