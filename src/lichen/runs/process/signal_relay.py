"""Signals that reach Lichen reach the command, exactly once.

The command shares Lichen's session and process group, so what the terminal sends (Ctrl-C, Ctrl-backslash, Ctrl-Z, a
new window size) the kernel gives to both, and Lichen must not send it again. What somebody sends to Lichen's own
process id must be passed on. The kernel tells one from the other in ``si_code``, which only ``signalfd`` (or a
handler written in C) can see. A signal that the command or one of its children sends to its whole group is not sent
back either.

Signals that Lichen was started with as ignored (``nohup``, a background job of a plain shell) stay ignored by both.

A thread that was started before with these signals open can be given them instead, and then nobody learns who sent
them: start threads inside ``withheld_signals()``. Without that, what a keyboard can send is taken to come from it
while we are in the foreground.

Limit: a signal sent with ``kill -- -GROUP`` from outside looks like one sent to Lichen alone, so the command gets it
twice, unless the two coincide. ``sudo`` behaves the same way.

Source: signalfd(2), sigaction(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Final

from lichen.runs.process.processes import ancestors

if TYPE_CHECKING:
    from lichen.runs.process.late_signals import LateSignals

__all__ = [
    "RELAYED",
    "STOP_SIGNALS",
    "Arrival",
    "SignalRelay",
    "descends_from",
    "must_pass_on",
    "withheld_signals",
]

RELAYED: Final = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTSTP,
    signal.SIGCONT,
    signal.SIGWINCH,
)
_FROM_KEYBOARD: Final = frozenset({signal.SIGINT, signal.SIGQUIT, signal.SIGTSTP, signal.SIGWINCH})
STOP_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
_SI_USER = 0  # of kill(2); positive codes are the kernel's own, negative ones sigqueue(3) and the like
_SIGNALFD_INFO_BYTES: Final = 128
_SFD_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_SIGSET_BYTES: Final = 128  # (= 1024 bits) glibc's sigset_t; musl's is no larger

_Handler = Callable[[int, FrameType | None], object] | int | signal.Handlers | None


@dataclass(frozen=True)
class Arrival:
    """A signal that reached Lichen.

    Args:
        number: The signal.
        by_kernel: Whether the kernel sent it, for a terminal; None when that cannot be known.
        sender: Process id of the sender; 0 when there is none or it lives outside our process namespace.
    """

    number: int
    by_kernel: bool | None
    sender: int = 0


class SignalRelay:
    """Collects the signals that reach Lichen while a command runs; a context manager.

    Used from the main thread it takes signals over; from another thread Python allows no handlers, so signals stay
    with whoever has them and ``active`` is False.

    Args:
        late: Takes the stop signals over when the command has ended; None gives them back to whoever had them.
    """

    def __init__(self, late: LateSignals | None = None) -> None:
        self._late = late
        self.active = threading.current_thread() is threading.main_thread()
        self._signalfd: int | None = None
        self._wake: tuple[int, int] | None = None
        self._old_wake = -1
        self.mask: set[int] = set()
        self.ignored: set[int] = set()
        self.taken: set[int] = set()
        self._arrivals: deque[Arrival] = deque()
        self._handlers: dict[int, _Handler] = {}

    def __enter__(self) -> SignalRelay:
        self.mask = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())}
        if not self.active:
            return self
        number: int
        for number in (*RELAYED, signal.SIGCHLD):
            if signal.getsignal(number) is signal.SIG_IGN:
                self.ignored.add(number)
            else:
                self.taken.add(number)
        # Without this the kernel would reap the command before anyone could ask how it ended.
        self.taken.add(signal.SIGCHLD)
        signal.pthread_sigmask(signal.SIG_BLOCK, self.taken)
        self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_wake = signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        self._signalfd = _open_signalfd(self.taken)
        for number in self.taken - self._without_handler():
            self._handlers[number] = signal.signal(number, self._handle)
        if self._signalfd is None:
            signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.active:
            return
        self.arrivals()  # what arrived too late to be relayed must not fire when unblocked
        signal.set_wakeup_fd(self._old_wake)
        for number, handler in self._handlers.items():
            with contextlib.suppress(TypeError, ValueError):  # a handler set outside Python cannot be named
                signal.signal(number, handler)
        if self._late is not None:
            self._late.take_over()
        for descriptor in self.descriptors():
            os.close(descriptor)
        if self._wake is not None:
            os.close(self._wake[1])
        self._signalfd = self._wake = None
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)

    def _without_handler(self) -> set[int]:
        """Signals that signalfd brings, and that need no way in besides.

        A child's end may be told to another thread, again and again; when that falls between Python's last look and the change
        back to no handler, Python complains of a race in whatever runs next. Supervision looks for ended children now and then
        in any case.
        """
        is_ignored = signal.SIGCHLD in self.ignored
        return set() if self._signalfd is None or is_ignored else {signal.SIGCHLD}

    def descriptors(self) -> list[int]:
        """Descriptors that become readable when a signal has come."""
        found = [] if self._wake is None else [self._wake[0]]
        return found if self._signalfd is None else [*found, self._signalfd]

    def arrivals(self) -> list[Arrival]:
        """The signals that came since the last call, oldest first."""
        for descriptor in self.descriptors():
            while data := _read_now(descriptor):
                if descriptor != self._signalfd:
                    continue  # only wakes us: the handler has noted the signal itself
                for start in range(0, len(data), _SIGNALFD_INFO_BYTES):
                    number, _, code, pid = struct.unpack_from("=IiiI", data, start)
                    by_kernel = code > _SI_USER
                    self._arrivals.append(Arrival(number, by_kernel, 0 if by_kernel else pid))
        seen = list(self._arrivals)
        self._arrivals.clear()
        return seen

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        """Python's own way in: when another thread was given the signal, or signalfd is missing."""
        self._arrivals.append(Arrival(number, None))


@contextlib.contextmanager
def withheld_signals() -> Iterator[None]:
    """Keep signals from this thread and from threads started here; they arrive afterwards, in the main thread."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _read_now(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _SIGNALFD_INFO_BYTES * 16)
    except BlockingIOError:
        return b""


def must_pass_on(arrival: Arrival, child: int) -> bool:
    """Whether the command has not had this signal yet.

    Args:
        arrival: What reached Lichen.
        child: Process id of the command.
    """
    if arrival.number == signal.SIGCHLD:
        return False
    if arrival.number == signal.SIGHUP and arrival.by_kernel and os.getsid(0) == os.getpid():
        return True  # of a terminal that went away the kernel tells the session leader only
    if arrival.by_kernel is None:
        return arrival.number not in _FROM_KEYBOARD or not _is_foreground()
    return not arrival.by_kernel and not descends_from(arrival.sender, child)


def _is_foreground() -> bool:
    """Whether a terminal could have sent a signal to our process group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def descends_from(pid: int, ancestor: int) -> bool:
    """Whether a process is another, or a child of it, or a child of such."""
    return ancestor in ancestors(pid)


def _open_signalfd(numbers: set[int]) -> int | None:
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        mask = ctypes.create_string_buffer(_SIGSET_BYTES)
        libc.sigemptyset(mask)
        for number in numbers:
            libc.sigaddset(mask, number)
        descriptor: int = libc.signalfd(-1, mask, _SFD_NONBLOCK_CLOEXEC)
    except (OSError, AttributeError):
        return None
    return descriptor if descriptor >= 0 else None
