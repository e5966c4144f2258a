"""Which process is which: identities that outlive a process id, ancestors, whether one still runs.

A process id is reused; together with the time the process started, the boot and the process namespace it is not.

Source: proc_pid_stat(5), fields 3 (state), 4 (parent) and 22 (start time in clock ticks since boot).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["ProcessIdentity", "ancestors", "this_process"]

_ANCESTORS_MAX: Final = 256
_STATE, _PARENT, _START = 0, 1, 19  # positions after the command name


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, anywhere.

    Args:
        host: Host name, for people.
        place: Boot and process namespace it lives in; only within the same place can it be looked at.
        pid: Process id there.
        start_ticks: When it started, in clock ticks since boot.
    """

    host: str
    place: str
    pid: int
    start_ticks: int

    def is_here(self) -> bool:
        """Whether it can be looked at from this process."""
        return bool(self.place) and self.place == _place()

    def is_running(self) -> bool:
        """Whether it still runs; only meaningful when ``is_here``."""
        fields = _stat(self.pid)
        return (
            fields is not None
            and int(fields[_START]) == self.start_ticks
            and fields[_STATE] not in {"Z", "X"}
        )

    def is_stopped(self) -> bool:
        """Whether it is suspended, as by Ctrl-Z; only meaningful when ``is_here``."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[_START]) == self.start_ticks and fields[_STATE] in {"T", "t"}


def this_process() -> ProcessIdentity:
    """The identity of the calling process."""
    fields = _stat(os.getpid())
    return ProcessIdentity(socket.gethostname(), _place(), os.getpid(), int(fields[_START]) if fields else 0)


def ancestors(pid: int | None = None) -> Iterator[int]:
    """The process and its parents, nearest first, as far as they can be seen.

    Args:
        pid: Where to begin; this process by default.
    """
    current = os.getpid() if pid is None else pid
    for _ in range(_ANCESTORS_MAX):
        if current <= 0:
            return
        yield current
        fields = _stat(current)
        if fields is None:
            return
        current = int(fields[_PARENT])


def _stat(pid: int) -> list[str] | None:
    """Fields of a process after its command name, which may itself hold spaces and parentheses."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return fields if len(fields) > _START else None


@cache
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - a kernel interface, not a file
    except OSError:
        return ""
    return f"{boot} {namespace}"
