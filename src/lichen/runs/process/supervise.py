"""Run a command so that it cannot tell the difference, and watch what it costs and touches.

::

    outcome = supervise(["python", "train.py"], environment=tracer.environment(os.environ), account=TreeAccount(),
                        tracer=tracer)
    outcome.exit_status        # as a shell reports it; 127/126 with outcome.start_error when it could not be started
    outcome.stdout_capture.read_bytes()

    supervise(command, *, environment=None, directory=None, account=None, tracer=None,
              capture_limit_bytes=4 MiB, capture_directory=None, stdin="auto") -> Outcome
    end_as(outcome) -> NoReturn       leave the process the way the command ended, for the command line to call last

The caller starts and finishes the tracer and gives its variables in ``environment``; here it is only polled. The
account is prepared, polled and finished here. Call from the main thread, since Python handles signals nowhere else, and
start other threads inside ``signal_relay.withheld_signals()``.

Rules upheld:

* output goes where it went, through a pseudo-terminal where that is a terminal and a pipe otherwise; where standard
  output and standard error are one and the same thing, they stay one stream in their order, and ``merged`` says so;
* signals, job control, inherited descriptors, working directory and exit status are the command's own (see
  ``signal_relay``, ``spawn``, ``pseudo_terminal``);
* the command's status is read from the kernel here, before the account may reap it. Account, tracer and capture can
  fail in any way they like: that is noted in ``Outcome.warnings`` and changes nothing else;
* when Lichen itself is killed, the command is not: it lives on as it would have without Lichen, though what it writes
  from then on has no reader;
* a process the command leaves behind is not waited for.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NoReturn, Protocol, TypeVar

from lichen.runs.process.capture import CAPTURE_LIMIT_BYTES, Capture
from lichen.runs.process.signal_relay import STOP_SIGNALS, SignalRelay, descends_from, must_pass_on
from lichen.runs.process.spawn import Launch, StartError, start
from lichen.runs.process.standard_input import StandardInput
from lichen.runs.process.standard_streams import StandardStreams

if TYPE_CHECKING:
    from lichen.energy.attribution import TreeUsage
    from lichen.runs.process.late_signals import LateSignals

__all__ = ["Account", "Outcome", "Poller", "end_as", "supervise"]

_TICK_SECONDS: Final = 0.1  # between two looks at the process tree
_FIRST_TICK_SECONDS: Final = 0.02  # while the tree is being built
_TICK_SECONDS_MAX: Final = 1.0
_LOAD_MAX: Final = 0.003  # share of one core that watching may take
_STOPPED_BY_TERMINAL: Final = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_SETTLE_SECONDS_MAX: Final = 0.2

_Result = TypeVar("_Result")


class Account(Protocol):
    """What is asked of the accounting of a process tree."""

    def prepare(self) -> None:
        """Get ready, before the command is started."""

    def child_setup(self) -> Callable[[], object] | None:
        """What the child must call before it becomes the command."""

    def started(self, pid: int) -> None:
        """The command runs under this process id."""

    def poll(self) -> None:
        """Look at the tree; called often."""

    def reap(self) -> Iterable[tuple[int, int]]:
        """Collect children that have ended, with their wait statuses."""

    def finish(self) -> TreeUsage:
        """The total."""


class Poller(Protocol):
    """What is asked of a tracer while the command runs."""

    def poll(self) -> object:
        """Take in what has been observed so far; called often."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it left.

    Args:
        exit_status: As a shell reports it, 0 to 255: the command's own, 128 + n when signal n ended it, 127 when it
            was not found, 126 when it could not be run.
        signal: The signal that ended it, or None.
        interrupted: Somebody asked it to stop, whatever it made of that: a stop signal reached Lichen, or ended it.
        start_error: Why it could not be started, in a shell's words; None when it was.
        stdout_capture: What it wrote to standard output, as far as kept.
        stderr_capture: The same for standard error; empty when ``merged``.
        merged: Standard error went to the same place as standard output, so both are in ``stdout_capture``.
        stdin: What stood at its standard input; with size and digest for a pipe.
        started_ns: Wall clock at the start, nanoseconds since 1970.
        ended_ns: Wall clock at the end.
        duration_seconds: Between the two by a clock that nobody sets.
        usage: What the process tree used; None when nobody counted or counting failed.
        warnings: What went wrong beside the command: one line each.
    """

    exit_status: int
    signal: int | None
    interrupted: bool
    start_error: str | None
    stdout_capture: Capture
    stderr_capture: Capture
    merged: bool
    stdin: StandardInput
    started_ns: int
    ended_ns: int
    duration_seconds: float
    usage: TreeUsage | None
    warnings: tuple[str, ...] = ()

    @property
    def truncated(self) -> bool:
        """Whether a part of the output was not kept."""
        return self.stdout_capture.truncated or self.stderr_capture.truncated

    def close(self) -> None:
        """Give back the disk space of the captures."""
        self.stdout_capture.close()
        self.stderr_capture.close()


def supervise(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path | None = None,
    account: Account | None = None,
    tracer: Poller | None = None,
    capture_limit_bytes: int = CAPTURE_LIMIT_BYTES,
    capture_directory: Path | None = None,
    stdin: Literal["auto", "inherit"] | int = "auto",
    late: LateSignals | None = None,
) -> Outcome:
    """Run a command to its end.

    Args:
        command: Name or path, and arguments; searched for in the ``PATH`` of ``environment``.
        environment: All its variables; ours by default.
        directory: Its working directory; ours by default.
        account: Counts what its process tree uses; None counts nothing.
        tracer: Polled while it runs.
        capture_limit_bytes: Bytes kept of each output stream; 0 keeps nothing.
        capture_directory: Where kept output lies meanwhile; the system's temporary directory by default.
        stdin: ``auto`` forwards and hashes a pipe and leaves anything else alone, ``inherit`` always leaves it alone,
            a number is a descriptor to be the command's input (a pipe is forwarded and hashed).
        late: Takes over the stop signals that come once the command has ended.

    Returns:
        Outcome. A command that cannot be started is an outcome too.

    Raises:
        UsageError: No command, a NUL byte in it, or a working directory that cannot be entered.
    """
    watch = _Watch(account, tracer)
    streams = StandardStreams(capture_limit_bytes, capture_directory, stdin)
    with SignalRelay(late) as relay:
        run = _Run(relay, streams, watch)
        started_ns, started = time.time_ns(), time.monotonic()
        try:
            run.start(command, os.environ if environment is None else environment, directory)
            run.wait()
        finally:
            ended_ns, ended = time.time_ns(), time.monotonic()
            streams.finish(run.is_given_up)
        usage = run.finish()
    return Outcome(
        exit_status=run.exit_status,
        signal=run.signal,
        interrupted=run.stop_requested or run.signal in STOP_SIGNALS,
        start_error=run.start_error,
        stdout_capture=streams.stdout_capture,
        stderr_capture=streams.stderr_capture,
        merged=streams.merged,
        stdin=streams.stdin,
        started_ns=started_ns,
        ended_ns=ended_ns,
        duration_seconds=ended - started,
        usage=usage,
        warnings=(*streams.warnings(), *watch.warnings),
    )


def end_as(outcome: Outcome) -> NoReturn:
    """Leave this process as the command left: by the same signal, or with the same status.

    A shell script that starts Lichen and is interrupted stops only if it sees that Lichen died of the interrupt.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if outcome.signal is not None:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the command has dumped its own core already
            if outcome.signal not in {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(outcome.signal, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {outcome.signal})
            os.kill(os.getpid(), outcome.signal)
    os._exit(outcome.exit_status)


@dataclass
class _Watch:
    """Calls account and tracer so that nothing they do reaches the command."""

    account: Account | None
    tracer: Poller | None
    warnings: list[str] = field(default_factory=list)

    def meter(self, function: Callable[[Account], _Result]) -> _Result | None:
        """Ask the account; when it fails, note that and never ask it again."""
        if self.account is None:
            return None
        try:
            return function(self.account)
        except Exception as error:  # whatever it is, the command must not notice
            self.account = None
            self.warnings.append(f"the meter failed, so the energy is not known: {_describe(error)}")
            return None

    def trace(self) -> None:
        """Let the tracer look; when it fails, note that and never ask it again."""
        if self.tracer is None:
            return
        try:
            self.tracer.poll()
        except Exception as error:  # whatever it is, the command must not notice
            self.tracer = None
            self.warnings.append(f"the tracer failed, so the trace is not complete: {_describe(error)}")


class _Run:
    """One command from its start to its end."""

    def __init__(self, relay: SignalRelay, streams: StandardStreams, watch: _Watch) -> None:
        self.exit_status = 0
        self.signal: int | None = None
        self.start_error: str | None = None
        self.stop_requested = False
        self._pid = 0
        self._has_ended = False
        self._relay = relay
        self._streams = streams
        self._watch = watch
        self._tick_seconds = _FIRST_TICK_SECONDS

    def start(self, command: Sequence[str], environment: Mapping[str, str], directory: Path | None) -> None:
        """Start the command; what keeps it from starting becomes its result."""
        self._watch.meter(lambda account: account.prepare())
        try:
            self._pid = start(
                Launch(
                    command,
                    environment,
                    directory,
                    self._streams.redirections,
                    mask=self._relay.mask,
                    ignored=self._relay.ignored,
                    defaults=self._relay.taken,
                    child_setup=self._watch.meter(lambda account: account.child_setup()),
                )
            )
        except StartError as error:
            self.start_error = error.message
            self._end(error.exit_status, None)
        finally:
            self._streams.begin()
        if not self._has_ended:
            self._watch.meter(lambda account: account.started(self._pid))

    def wait(self) -> None:
        """Relay signals and let account and tracer look until the command has ended."""
        events = select.poll()
        for descriptor in self._relay.descriptors():
            events.register(descriptor, select.POLLIN)
        with _process_descriptor(self._pid) as process:
            if process is not None:
                events.register(process, select.POLLIN)
            next_look = time.monotonic()
            while not self._has_ended:
                self._handle_signals()
                if self._look_for_end():
                    break
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + self._look()
                events.poll(max(next_look - time.monotonic(), 0) * 1000)

    def finish(self) -> TreeUsage | None:
        """Take the total and leave no zombie behind."""
        self._watch.trace()
        self._watch.meter(lambda account: account.reap())
        usage = self._watch.meter(lambda account: account.finish())
        if self._pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, os.WNOHANG)
        return usage

    def is_given_up(self) -> bool:
        """Whether somebody asks us to stop while the last output is passed on."""
        arrivals = self._relay.arrivals()
        if any(arrival.number in STOP_SIGNALS for arrival in arrivals):
            self.stop_requested = True
            return True
        return False

    def _look(self) -> float:
        """Let account and tracer look; return the seconds until they should look again."""
        before = time.thread_time()
        self._watch.trace()
        self._watch.meter(lambda account: account.poll())
        self._reap()
        cost_seconds = time.thread_time() - before
        if self._watch.account is None and self._watch.tracer is None:
            return _TICK_SECONDS_MAX  # nobody looks; signals and the end of the command wake us
        self._tick_seconds = min(self._tick_seconds * 1.25, _TICK_SECONDS)
        return min(max(self._tick_seconds, cost_seconds / _LOAD_MAX), _TICK_SECONDS_MAX)

    def _reap(self) -> None:
        """Let the account collect what has ended; the command may be among it."""
        for pid, status in self._watch.meter(lambda account: account.reap()) or ():
            if pid == self._pid and not self._has_ended:
                code = os.waitstatus_to_exitcode(status)
                self._end(128 - code if code < 0 else code, -code if code < 0 else None)

    def _look_for_end(self) -> bool:
        """Ask the kernel whether the command has ended or was stopped, without reaping it."""
        if self._has_ended:
            return True
        try:
            result = os.waitid(os.P_PID, self._pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            self._watch.warnings.append(
                "the exit status of the command was taken by somebody else and is not known"
            )
            self._end(1, None)
            return True
        if result is None:
            return False
        if result.si_code == os.CLD_EXITED:
            self._end(result.si_status & 0xFF, None)
        elif result.si_code in {os.CLD_KILLED, os.CLD_DUMPED}:
            self._end(128 + result.si_status, result.si_status)
        elif result.si_code in {os.CLD_STOPPED, os.CLD_TRAPPED}:
            self._follow_stop(result.si_status)
        return self._has_ended

    def _end(self, exit_status: int, signal_number: int | None) -> None:
        self.exit_status, self.signal, self._has_ended = exit_status, signal_number, True

    def _follow_stop(self, number: int) -> None:
        """Let ourselves be suspended when the terminal suspended the command, so that the shell sees it.

        A command stopped with SIGSTOP is being held by somebody who will let it go again; the shell was not asked.
        """
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._pid, os.WSTOPPED | os.WNOHANG)  # seen, so that it is not reported again
        if number not in _STOPPED_BY_TERMINAL:
            return
        self._streams.settle(_SETTLE_SECONDS_MAX)
        os.kill(os.getpid(), signal.SIGSTOP)
        self._streams.resume()

    def _handle_signals(self) -> None:
        for arrival in self._relay.arrivals():
            if arrival.number == signal.SIGCHLD or (
                arrival.number == signal.SIGWINCH and arrival.sender == os.getpid()
            ):
                continue
            if arrival.number == signal.SIGWINCH and self._streams.copy_window_size():
                # The terminal told the command before we could tell our own terminal its new size.
                os.killpg(os.getpgrp(), signal.SIGWINCH)
                continue
            is_from_inside = arrival.sender > 0 and descends_from(arrival.sender, self._pid)
            if arrival.number in STOP_SIGNALS and not is_from_inside:
                self.stop_requested = True
            if must_pass_on(arrival, self._pid):
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(self._pid, arrival.number)


@contextlib.contextmanager
def _process_descriptor(pid: int) -> Iterator[int | None]:
    """A descriptor that becomes readable when the process ends; None on kernels without."""
    try:
        descriptor = os.pidfd_open(pid)
    except (OSError, AttributeError):
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
