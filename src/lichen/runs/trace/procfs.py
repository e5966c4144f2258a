"""Files that live processes hold open or have in memory, looked at now and then.

Short-lived opens escape it; it is a net below the other means where the preload library is missing.
"""

# Paths are the run's own strings.
# ruff: noqa: PTH115, PTH116, PTH123, PTH208

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from lichen.runs.trace.agent_log import Flag, Kind, Record
from lichen.runs.trace.trace import StatKey

__all__ = ["ProcessLook", "descendants", "is_running"]

_PROCESSES_MAX = 64
_MAPS_SECONDS = 1.0
_STANDARD_STREAMS = ("0", "1", "2")


@dataclass
class ProcessLook:
    """Looks at the descendants of this process.

    Attributes:
        opened: File -> record of its first sighting.
        mapped: Files in memory.
    """

    opened: dict[str, Record] = field(default_factory=dict)
    mapped: set[str] = field(default_factory=set)
    _maps_next: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """Take in what is open now; at most 64 processes per call."""
        for pid in descendants(os.getpid())[:_PROCESSES_MAX]:
            self._look_at_descriptors(pid)
            now = time.monotonic()
            if now >= self._maps_next.get(pid, 0):
                self._maps_next[pid] = now + _MAPS_SECONDS
                self._look_at_maps(pid)

    def _look_at_descriptors(self, pid: int) -> None:
        folder = f"/proc/{pid}/fd"
        try:
            numbers = os.listdir(folder)
        except OSError:
            return
        for number in numbers:
            if number in _STANDARD_STREAMS:
                continue  # given to the run, not opened by it
            try:
                path = os.readlink(f"{folder}/{number}")
                if (
                    not path.startswith("/")
                    or path in self.opened
                    or path.startswith(("/dev/", "/proc/", "/sys/"))
                ):
                    continue
                status = os.stat(f"{folder}/{number}")
                flags = _flags(pid, number)
            except OSError:
                continue
            self.opened[path] = Record(
                time.monotonic_ns(),
                Kind.OPEN,
                path,
                status.st_mode >> 12,
                flags & Flag.ACCESS | (Flag.APPEND if flags & os.O_APPEND else 0),
                StatKey.of(status),
                "",
                "proc",
            )

    def _look_at_maps(self, pid: int) -> None:
        try:
            with open(f"/proc/{pid}/maps", "rb") as file:
                lines = file.read().splitlines()
        except OSError:
            return
        for line in lines:
            if line[73:74] == b"/":
                self.mapped.add(os.fsdecode(line[73:]))


def _flags(pid: int, number: str) -> int:
    with open(f"/proc/{pid}/fdinfo/{number}", encoding="ascii") as file:
        for line in file:
            if line.startswith("flags:"):
                return int(line.split()[1], 8)
    return 0


def descendants(pid: int) -> list[int]:
    """List the live descendants of a process; empty where the kernel does not tell."""
    found: list[int] = []
    pending = [pid]
    while pending:
        current = pending.pop()
        try:
            for task in os.listdir(f"/proc/{current}/task"):
                with open(f"/proc/{current}/task/{task}/children", encoding="ascii") as file:
                    children = [int(child) for child in file.read().split()]
                found += children
                pending += children
        except (OSError, ValueError):
            continue
    return found


def is_running(pid: int, since_ns: int) -> bool:
    """Say whether a process that was there at a monotonic time still runs.

    Args:
        pid: Its number.
        since_ns: Monotonic time at which it was known to run, nanoseconds; a number given to a later process does not count.
    """
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return False
    fields = text.rpartition(b")")[2].split()
    if not fields or fields[0] in (b"Z", b"X"):
        return False
    started_seconds = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    awake_ns = time.monotonic_ns()
    return started_seconds * 1e9 <= since_ns + (boot_ns - awake_ns) + 2e7
