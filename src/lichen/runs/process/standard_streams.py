"""The three standard streams of a command: what each is connected to, and who carries it.

| ours is | the command gets |
|---|---|
| a terminal (output) | a pseudo-terminal of our own, see ``pseudo_terminal`` |
| anything else open (output) | a pipe |
| closed | closed |
| the same for standard output and error | one stream for both, so that their order is kept |
| a pipe or socket (input) | a pipe, see ``standard_input`` |
| anything else (input) | the same, inherited |

What cannot be set up is inherited instead and noted: then nothing is recorded of that stream, and the command runs.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from lichen.runs.process.capture import Capture
from lichen.runs.process.output import OutputStream
from lichen.runs.process.pseudo_terminal import OutputTerminal
from lichen.runs.process.signal_relay import withheld_signals
from lichen.runs.process.spawn import Redirections
from lichen.runs.process.standard_input import InputForwarder, describe_standard_input

__all__ = ["StandardStreams"]

_STDIN, _STDOUT, _STDERR = range(3)
_JOIN_SECONDS = 0.02


class StandardStreams:
    """Connections of one command.

    Args:
        limit_bytes: Bytes kept of each output stream.
        directory: Where kept output lies; None for the system's temporary directory.
        stdin: ``auto``, ``inherit`` or a descriptor, see ``supervise``.
    """

    def __init__(
        self, limit_bytes: int, directory: Path | None, stdin: Literal["auto", "inherit"] | int
    ) -> None:
        self.stdout_capture = Capture(limit_bytes, directory)
        self.stderr_capture = Capture(limit_bytes, directory)
        self.merged = _is_same_place(_STDOUT, _STDERR)
        self._failures: list[str] = []
        self._terminals: list[OutputTerminal] = []
        self._outputs: list[OutputStream] = []
        self._child_ends: list[int] = []
        self._forwarder: InputForwarder | None = None
        child_stdin = self._connect_input(stdin)
        child_stdout = self._connect_output("stdout", _STDOUT, self.stdout_capture)
        child_stderr = (
            child_stdout if self.merged else self._connect_output("stderr", _STDERR, self.stderr_capture)
        )
        self.redirections = Redirections(child_stdin, child_stdout, child_stderr)

    def begin(self) -> None:
        """Carry from now on; the child's ends are the child's alone."""
        for descriptor in self._child_ends:
            os.close(descriptor)
        self._child_ends.clear()
        if self._forwarder is not None:
            self._forwarder.start()
        for output in self._outputs:
            output.start()

    def settle(self, seconds_max: float) -> None:
        """Let what has been written reach the terminal, before we are suspended."""
        end = time.monotonic() + seconds_max
        while time.monotonic() < end and not all(output.is_empty() for output in self._outputs):
            time.sleep(0.005)
        for terminal in self._terminals:
            terminal.copy_modes()

    def resume(self) -> None:
        """Catch up with what the terminal became while we were suspended."""
        for terminal in self._terminals:
            terminal.copy_window_size()
            terminal.copy_modes(again=True)

    def copy_window_size(self) -> bool:
        """Give our terminals the real size; return whether any changed."""
        changed = [
            terminal.copy_window_size() for terminal in self._terminals
        ]  # each of them, even after a change
        return any(changed)

    def finish(self, give_up: Callable[[], bool]) -> None:
        """Pass on what is left, stop carrying and put the terminal right."""
        for output in self._outputs:
            output.note_end()
        while waiting := [output for output in self._outputs if not output.is_finished()]:
            if give_up():
                break
            waiting[0].join(_JOIN_SECONDS)
        for output in self._outputs:
            output.stop()
        if self._forwarder is not None:
            self.stdin = self._forwarder.stop()
        for terminal in self._terminals:
            terminal.copy_modes()
            terminal.restore()

    def warnings(self) -> list[str]:
        """What went wrong with carrying or keeping, one line each."""
        captures = (("stdout", self.stdout_capture), ("stderr", self.stderr_capture))
        kept = [f"{name}: {capture.failure}" for name, capture in captures if capture.failure]
        return [*self._failures, *(output.failure for output in self._outputs if output.failure), *kept]

    def _connect_input(self, stdin: Literal["auto", "inherit"] | int) -> int | None:
        """Choose what becomes the child's descriptor 0; None when it inherits ours."""
        source = stdin if isinstance(stdin, int) else _STDIN
        self.stdin = describe_standard_input(source)
        if self.stdin.kind == "pipe" and stdin != "inherit":
            try:
                _check_threads()
                self._forwarder = InputForwarder(source)
            except (OSError, RuntimeError) as error:
                self._failures.append(f"standard input could not be recorded: {error}")
            else:
                self._child_ends.append(self._forwarder.child_end)
                return self._forwarder.child_end
        return source if source != _STDIN else None

    def _connect_output(self, name: str, sink: int, capture: Capture) -> int | None:
        """Make the child's end of an output stream; None when it inherits ours."""
        if _is_closed(sink):
            return None
        try:
            _check_threads()
            if os.isatty(sink):
                terminal = OutputTerminal(sink)
                output = OutputStream(name, terminal.controller, sink, capture, terminal.copy_modes)
                self._terminals.append(terminal)
                child_end = terminal.child_end
            else:
                source, child_end = os.pipe()
                output = OutputStream(name, source, sink, capture)
        except Exception as error:  # whatever it is, the command must run
            self._failures.append(f"{name} could not be recorded: {type(error).__name__}: {error}")
            return None
        self._outputs.append(output)
        self._child_ends.append(child_end)
        return child_end


def _is_same_place(first: int, second: int) -> bool:
    """Whether two descriptors lead to the same pipe, file or terminal, where the order of writes can be seen."""
    try:
        one, other = os.fstat(first), os.fstat(second)
    except OSError:
        return False
    is_device = stat.S_ISCHR(one.st_mode) and not os.isatty(first)  # /dev/null shows no order
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino) and not is_device


def _is_closed(descriptor: int) -> bool:
    """Whether the command is to find a stream closed, as one is that Lichen itself was started without."""
    try:
        return not os.get_inheritable(descriptor)
    except OSError:
        return True


def _check_threads() -> None:
    """Make sure, before the command is started, that a thread can carry its streams.

    Raises:
        RuntimeError: There is no room for one.
    """
    probe = threading.Thread(target=bool, daemon=True)
    with withheld_signals():
        probe.start()
    probe.join()
