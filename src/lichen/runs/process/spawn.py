"""Start a command as a shell would: same search, same inheritance, same exit status when it cannot be started.

Rules upheld: descriptors that Lichen inherited are passed on (``<(…)``, a make job server); signal dispositions and
the signal mask are those Lichen itself was started with; a script without ``#!`` line is given to ``/bin/sh``.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import struct
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from lichen.errors import UsageError

__all__ = ["NOT_EXECUTABLE", "NOT_FOUND", "Launch", "Redirections", "StartError", "start"]

NOT_FOUND = 127  # exit status of a shell for a command that does not exist
NOT_EXECUTABLE = 126  # and for one that exists and cannot be run
_FAILURE = struct.Struct("=ii")  # errno and stage, sent by a child that could not become the command
_STAGE_SETUP, _STAGE_DIRECTORY, _STAGE_EXEC = range(3)


class StartError(Exception):
    """The command could not be started; carries the exit status that a shell gives.

    It never leaves ``supervise``, which turns it into an outcome: a command that is not there is a result.
    """

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.message = message
        self.exit_status = exit_status


@dataclass(frozen=True)
class Redirections:
    """Descriptors that become the child's 0, 1 and 2; None leaves the inherited one."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None

    def pairs(self) -> list[tuple[int, int]]:
        """Descriptor of ours and number in the child, for those that change."""
        given = (self.stdin, self.stdout, self.stderr)
        return [(source, number) for number, source in enumerate(given) if source is not None]


@dataclass(frozen=True)
class Launch:
    """All that is needed to start a command.

    Args:
        command: Name or path, and arguments.
        environment: All variables of the command.
        directory: Its working directory; None keeps ours.
        redirections: What its standard descriptors become.
        mask: Signals that stay blocked in the command.
        ignored: Signals that the command finds ignored.
        defaults: Signals whose handler in this process must not run in the child.
        child_setup: Called in the child just before it becomes the command; what it raises is swallowed, since
            metering must not keep a command from running.
    """

    command: Sequence[str]
    environment: Mapping[str, str]
    directory: Path | None = None
    redirections: Redirections = field(default_factory=Redirections)
    mask: Collection[int] = ()
    ignored: Collection[int] = ()
    defaults: Collection[int] = ()
    child_setup: Callable[[], object] | None = None

    def candidates(self) -> list[str]:
        """Paths to try, in order, as ``execvp`` does.

        Raises:
            UsageError: The command is empty or holds a NUL byte.
        """
        if not self.command:
            raise UsageError(
                "no command was given", remedy="Write it after two dashes: lichen run -- python train.py"
            )
        if any("\0" in word for word in self.command):
            raise UsageError(
                f"the command {self.command[0]!r} holds a NUL byte, which no program can be given"
            )
        name = self.command[0]
        if "/" in name or not name:
            return [name]
        path = self.environment.get("PATH", os.defpath)
        return [f"{entry}/{name}" if entry else f"./{name}" for entry in path.split(":")]


def start(launch: Launch) -> int:
    """Fork and become the command.

    Returns:
        Process id.

    Raises:
        StartError: Not found, not executable, or the system is out of processes or descriptors.
        UsageError: The working directory cannot be entered, the command is empty or holds a NUL byte.
    """
    name, candidates = launch.command[0] if launch.command else "", launch.candidates()
    try:
        failure_read, failure_write = os.pipe()
        try:
            pid = _fork()
            if pid == 0:
                _become(launch, candidates, failure_write)
            os.close(failure_write)
            report = os.read(failure_read, _FAILURE.size)
        finally:
            os.close(failure_read)
    except OSError as error:
        raise StartError(f"{name}: cannot start a process: {error.strerror}", NOT_EXECUTABLE) from error
    if len(report) < _FAILURE.size:  # closed by a successful exec
        return pid
    os.waitpid(pid, 0)
    number, stage = _FAILURE.unpack(report)
    if stage == _STAGE_DIRECTORY:
        raise UsageError(
            f"working directory {launch.directory}: {os.strerror(number)}",
            remedy="Name a directory that exists and can be entered.",
        )
    raise _start_error(name, candidates, launch.directory, number)


def _fork() -> int:
    with warnings.catch_warnings():
        # The child calls nothing but system calls before it becomes the command.
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def _become(launch: Launch, candidates: Sequence[str], failure_write: int) -> NoReturn:
    """In the child: set up, become the command, or report why not."""
    stage, number = _STAGE_SETUP, errno.EIO
    try:
        for signal_number in (*launch.defaults, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(signal_number, signal.SIG_DFL)
        for signal_number in launch.ignored:
            signal.signal(signal_number, signal.SIG_IGN)
        if launch.child_setup is not None:
            with contextlib.suppress(Exception):
                launch.child_setup()
        failure_write = _install(launch.redirections, failure_write)
        stage = _STAGE_DIRECTORY
        if launch.directory is not None:
            os.chdir(launch.directory)
        stage = _STAGE_EXEC
        signal.pthread_sigmask(signal.SIG_SETMASK, launch.mask)
        number = _exec_first(launch.command, candidates, launch.environment)
    except OSError as error:
        number = error.errno or errno.EIO
    finally:  # whatever happened, a forked child must not go on in its parent's code
        with contextlib.suppress(BaseException):
            os.write(failure_write, _FAILURE.pack(number, stage))
        os._exit(NOT_FOUND)


def _install(redirections: Redirections, failure_write: int) -> int:
    """Move descriptors to 0, 1 and 2 without one overwriting another; return where the report goes now."""
    pairs = redirections.pairs()
    # A source may itself lie at 0, 1 or 2 when Lichen was started with one of them closed.
    copies = [(_above_standard(source), number) for source, number in pairs]
    failure_write = _above_standard(failure_write)
    for source, number in copies:
        os.dup2(source, number, inheritable=True)
    return failure_write


def _above_standard(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3) if descriptor <= 2 else descriptor


def _exec_first(command: Sequence[str], candidates: Sequence[str], environment: Mapping[str, str]) -> int:
    """Try each candidate; return the errno to report, as ``execvp`` chooses it."""
    denied = 0
    last = errno.ENOENT
    for path in candidates:
        try:
            os.execve(path, list(command), dict(environment))  # noqa: S606 - as typed, no shell
        except OSError as error:
            last = error.errno or errno.EIO
            if last == errno.ENOEXEC and not _is_binary(path):
                os.execve("/bin/sh", ["sh", path, *command[1:]], dict(environment))  # noqa: S606 - as a shell would
            if last == errno.EACCES:
                denied = last
            elif last not in {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENODEV, errno.ETIMEDOUT}:
                return last
    return denied or last


def _is_binary(path: str) -> bool:
    with open(path, "rb") as file:  # noqa: PTH123 - in a forked child, as little as possible
        return b"\0" in file.read(80)


def _start_error(name: str, candidates: Sequence[str], directory: Path | None, number: int) -> StartError:
    """Say it as a shell would, with its exit status."""
    if number in {errno.ENOENT, errno.ENOTDIR}:
        if "/" not in name:
            return StartError(f"{name}: command not found", NOT_FOUND)
        path = Path(directory or ".") / name
        if path.is_file():
            return StartError(
                f"{name}: {_interpreter_of(path)}: bad interpreter: {os.strerror(number)}", NOT_EXECUTABLE
            )
        return StartError(f"{name}: {os.strerror(number)}", NOT_FOUND)
    if number == errno.EACCES:
        for candidate in candidates:
            with contextlib.suppress(OSError):
                if stat.S_ISDIR((Path(directory or ".") / candidate).stat().st_mode):
                    return StartError(f"{name}: Is a directory", NOT_EXECUTABLE)
    if number == errno.ENOEXEC:
        return StartError(f"{name}: cannot execute binary file: {os.strerror(number)}", NOT_EXECUTABLE)
    return StartError(f"{name}: {os.strerror(number)}", NOT_EXECUTABLE)


def _interpreter_of(path: Path) -> str:
    try:
        with path.open("rb") as file:
            first = file.readline(256)
    except OSError:
        return "?"
    return os.fsdecode(first[2:].strip()) if first.startswith(b"#!") else "program loader"
