"""Does anybody want to read? Asked before piped standard input is taken from its pipe.

A pipe that is read ahead is lost to whoever comes next: the rest of a loop (``seq 9 | while read n; do lichen run …``), or the
rest of the very script, when a job runner feeds it to a shell. So input is left where it is until a process of the
command waits for it: one of its threads sits in a system call that reads from, or waits for, our pipe. The kernel
says so in ``/proc/PID/task/TID/syscall``.

A wrong *no* would hang the command, so every doubt counts as *yes*: a process that may not be looked at, an unknown
machine, a 32-bit program, ``io_uring``, a reader that made the pipe non-blocking.

Source: proc_pid_syscall(5), proc_pid_fdinfo(5); numbers from the kernel's system call tables for x86-64 and the generic one.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from lichen.energy import process_table

__all__ = ["InputDemand"]

# System call number to the position of the descriptor it reads from.
_READS: Final = {
    "x86_64": {0: 0, 17: 0, 19: 0, 45: 0, 275: 0, 276: 0, 295: 0, 326: 0, 327: 0, 40: 1},
    "aarch64": {63: 0, 65: 0, 67: 0, 69: 0, 71: 1, 76: 0, 77: 0, 207: 0, 285: 0, 286: 0},
}
_POLLS: Final = {"x86_64": {7, 271}, "aarch64": {73}}  # poll, ppoll
_SELECTS: Final = {"x86_64": {23, 270}, "aarch64": {72}}  # select, pselect6
_EPOLLS: Final = {"x86_64": {232, 281, 441}, "aarch64": {22, 441}}  # epoll_wait, epoll_pwait, epoll_pwait2
_RING_ENTER: Final = 426  # io_uring_enter, the same everywhere
_POLL_ENTRY: Final = struct.Struct("=ihh")  # descriptor, events, returned events
_POLL_INPUT: Final = 0x1 | 0x40 | 0x80  # POLLIN, POLLRDNORM, POLLRDBAND
_DESCRIPTORS_MAX: Final = 4096  # looked at in one poll or select
_ELF_CLASS_32: Final = b"\x7fELF\x01"


class InputDemand:
    """Looks whether a process below this one waits for a pipe.

    Args:
        pipe: A descriptor of the pipe, either end.
    """

    def __init__(self, pipe: int) -> None:
        self._link = f"pipe:[{os.fstat(pipe).st_ino}]"
        machine = platform.machine()
        self._reads = _READS.get(machine, {})
        self._polls = _POLLS.get(machine, set())
        self._selects = _SELECTS.get(machine, set())
        self._epolls = _EPOLLS.get(machine, set())
        self._is_usable = bool(self._reads) and Path("/proc/self/syscall").exists()

    def is_there(self) -> bool:
        """Whether anybody waits for the pipe, or it cannot be known."""
        if not self._is_usable:
            return True
        return any(
            self._wants(stat.pid)
            for stat in process_table.descendants(os.getpid()).values()
            if stat.state != "Z"
        )

    def _wants(self, pid: int) -> bool:
        try:
            if self._is_nonblocking_reader(pid):
                return True
            for thread in _names(f"/proc/{pid}/task"):
                call = _text(f"/proc/{pid}/task/{thread}/syscall").split()
                if len(call) >= 8 and self._is_waiting(
                    pid, int(call[0]), [int(word, 16) for word in call[1:7]]
                ):
                    return True
        except PermissionError:
            return True
        except (OSError, ValueError):
            return False  # it has ended meanwhile
        return False

    def _is_nonblocking_reader(self, pid: int) -> bool:
        """Whether its standard input is our pipe and cannot be judged by what it waits in."""
        try:
            if os.readlink(f"/proc/{pid}/fd/0") != self._link:  # noqa: PTH115 - no path, a name of the kernel's
                return False
        except FileNotFoundError:
            return False
        for line in _text(f"/proc/{pid}/fdinfo/0").splitlines():
            if line.startswith("flags:") and int(line.split()[1], 8) & os.O_NONBLOCK:
                return True
        with open(f"/proc/{pid}/exe", "rb") as program:  # noqa: PTH123 - a kernel interface, not a file
            return program.read(len(_ELF_CLASS_32)) == _ELF_CLASS_32

    def _is_waiting(self, pid: int, number: int, arguments: list[int]) -> bool:
        """Whether a system call reads from our pipe or waits for it."""
        if number in self._reads:
            return self._is_ours(pid, arguments[self._reads[number]])
        if number in self._polls:
            return any(self._is_ours(pid, fd) for fd in _polled(pid, arguments[0], arguments[1]))
        if number in self._selects:
            return any(self._is_ours(pid, fd) for fd in _selected(pid, arguments[0], arguments[1]))
        if number in self._epolls:
            return any(self._is_ours(pid, fd) for fd in _watched(pid, arguments[0]))
        return number == _RING_ENTER and self._is_ours(pid, 0)

    def _is_ours(self, pid: int, descriptor: int) -> bool:
        try:
            return os.readlink(f"/proc/{pid}/fd/{descriptor}") == self._link  # noqa: PTH115 - as above
        except (FileNotFoundError, ValueError):
            return False


def _polled(pid: int, address: int, count: int) -> Iterable[int]:
    """Descriptors that a poll waits for input on."""
    data = _memory(pid, address, min(count, _DESCRIPTORS_MAX) * _POLL_ENTRY.size)
    whole = len(data) // _POLL_ENTRY.size * _POLL_ENTRY.size
    for descriptor, events, _ in _POLL_ENTRY.iter_unpack(data[:whole]):
        if events & _POLL_INPUT:
            yield descriptor


def _selected(pid: int, count: int, address: int) -> Iterable[int]:
    """Descriptors that a select waits for input on."""
    if address == 0:
        return
    bits = int.from_bytes(_memory(pid, address, (min(count, _DESCRIPTORS_MAX) + 7) // 8), "little")
    for descriptor in range(min(count, _DESCRIPTORS_MAX)):
        if bits >> descriptor & 1:
            yield descriptor


def _watched(pid: int, epoll: int) -> Iterable[int]:
    """Descriptors registered with an epoll."""
    for line in _text(f"/proc/{pid}/fdinfo/{epoll}").splitlines():
        if line.startswith("tfd:"):
            yield int(line.split()[1])


def _memory(pid: int, address: int, size: int) -> bytes:
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(descriptor, size, address)
    finally:
        os.close(descriptor)


def _text(path: str) -> str:
    return Path(path).read_text(encoding="ascii", errors="replace")


def _names(path: str) -> list[str]:
    return os.listdir(path)  # noqa: PTH208 - names only
