"""A mark of the process that writes a file, so that others on this machine see at once when it is gone.

The mark names the machine as it runs now, the name space of process ids, the process and when it started: an id given anew to
another process is not taken for the same, and a process that cannot be looked up from here is never taken for gone.
"""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

__all__ = ["is_gone", "mark_of_this_process"]

_START_FIELD = 19  # of what follows the name in /proc/PID/stat, proc_pid_stat(5) field 22


def mark_of_this_process() -> str:
    """Return the mark: place, process id and start, parted by dashes; empty where the system does not tell."""
    place, started = _place(), _started(os.getpid())
    return f"{place}-{os.getpid()}-{started}" if place and started else ""


def is_gone(mark: str) -> bool:
    """Whether the process of a mark certainly does not run any more; False where that cannot be told."""
    place, _, rest = mark.partition("-")
    process, _, started = rest.partition("-")
    if not place or place != _place() or not process.isdigit() or not started:
        return False
    return _started(int(process)) != started


@lru_cache(maxsize=1)
def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii")
        inside = os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not the path of a file
    except OSError:
        return ""
    return hashlib.sha256(f"{boot}{inside}".encode()).hexdigest()[:12]


def _started(process: int) -> str:
    """Clock ticks from boot to the start of a process; empty when there is none."""
    try:
        told = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
    except OSError:
        return ""
    fields = told.rpartition(")")[2].split()
    return fields[_START_FIELD] if len(fields) > _START_FIELD else ""
