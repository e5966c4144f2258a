"""What Linux tells about processes: descendants, processor seconds, memory, ignored signals, machine load.

Rules upheld here:

* Reading only. A process that ends while it is being read is simply absent from the answer.
* Processor seconds of a process are its own; those of children it has waited for are kept beside them.
* On systems without ``/proc`` every answer is empty or None; nothing raises.

Source: proc_pid_stat(5), proc_pid_io(5), proc_stat(5), proc_tid_children(5).
"""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = [
    "ProcessStat",
    "descendants",
    "read_busy_seconds",
    "read_io_bytes",
    "read_memory_bytes",
    "read_scheduled_seconds",
    "read_stat",
]

PROC: Final = "/proc"
_TICKS: Final = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
TICK_SECONDS: Final = 1 / _TICKS
_SIGCHLD_BIT: Final = 1 << (signal.SIGCHLD - 1)
_READ_BYTES: Final = 2048  # a stat line has at most 52 numbers of 20 digits and a 64-byte name


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """One line of ``/proc/PID/stat``, in seconds and bytes.

    Args:
        pid: Process id.
        parent: Process id of the parent now (a subreaper, when the first parent is gone).
        state: One letter; ``Z`` has ended and waits to be reaped.
        started_ticks: Clock ticks between boot and start; with ``pid`` it names the process for ever.
        own_seconds: Processor time of all its threads, user and system, cut to clock ticks.
        children_seconds: Processor time of descendants it has waited for.
        thread_count: Threads now.
        resident_bytes: Memory in RAM, shared pages included.
        ignores_children: True when SIGCHLD is ignored, so that the kernel drops its children's accounts.
    """

    pid: int
    parent: int
    state: str
    started_ticks: int
    own_seconds: float
    children_seconds: float
    thread_count: int
    resident_bytes: int
    ignores_children: bool

    @property
    def total_seconds(self) -> float:
        """Own processor time and that of children it has waited for."""
        return self.own_seconds + self.children_seconds


def _read(path: str, size_bytes: int = _READ_BYTES) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return os.read(descriptor, size_bytes)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def read_stat(pid: int) -> ProcessStat | None:
    """Return the account of one process, or None when it is gone."""
    line = _read(f"{PROC}/{pid}/stat")
    if not line:
        return None
    fields = line[line.rfind(b")") + 2 :].split()
    if len(fields) < 31:
        return None
    return ProcessStat(
        pid=pid,
        parent=int(fields[1]),
        state=fields[0].decode("ascii", "replace"),
        started_ticks=int(fields[19]),
        own_seconds=(int(fields[11]) + int(fields[12])) / _TICKS,
        children_seconds=(int(fields[13]) + int(fields[14])) / _TICKS,
        thread_count=int(fields[17]),
        resident_bytes=int(fields[21]) * _PAGE_BYTES,
        ignores_children=bool(int(fields[30]) & _SIGCHLD_BIT),
    )


def read_scheduled_seconds(pid: int) -> float | None:
    """Return the processor seconds of a process's first thread in nanosecond resolution, or None."""
    line = _read(f"{PROC}/{pid}/schedstat")
    return int(line.split()[0]) / 1e9 if line else None


def read_io_bytes(pid: int) -> tuple[int, int] | None:
    """Return bytes read from and written to storage by a process and the children it has waited for, or None."""
    text = _read(f"{PROC}/{pid}/io")
    if not text:
        return None
    values = dict(line.split(b": ", 1) for line in text.splitlines() if b": " in line)
    try:
        return int(values[b"read_bytes"]), int(values[b"write_bytes"])
    except (KeyError, ValueError):
        return None


def read_busy_seconds() -> float | None:
    """Return the processor seconds that the whole machine has spent busy since boot, or None.

    Idle and waiting for storage do not count; time stolen by a hypervisor does not either, for no guest ran in it.
    """
    line = _read(f"{PROC}/stat")
    if not line or not line.startswith(b"cpu "):
        return None
    fields = [int(field) for field in line.split(b"\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _wait, interrupt, soft_interrupt = fields[:7]
    return (user + nice + system + interrupt + soft_interrupt) / _TICKS


def read_memory_bytes() -> int | None:
    """Return the memory of the machine, or None."""
    line = _read(f"{PROC}/meminfo")
    return int(line.split(b"\n", 1)[0].split()[1]) * 1024 if line and line.startswith(b"MemTotal:") else None


def _children(pid: int, thread_count: int) -> list[int] | None:
    """Return the children that any thread of a process has now; None where the kernel does not list them."""
    if thread_count <= 1:
        line = _read(f"{PROC}/{pid}/task/{pid}/children", 1 << 16)
        return None if line is None else [int(child) for child in line.split()]
    found: list[int] = []
    try:
        threads = os.listdir(f"{PROC}/{pid}/task")  # noqa: PTH208 - names only, in the hot path of every poll
    except OSError:
        return None
    for thread in threads:
        found.extend(
            int(child) for child in (_read(f"{PROC}/{pid}/task/{thread}/children", 1 << 16) or b"").split()
        )
    return found


def descendants(root: int) -> dict[int, ProcessStat]:
    """Return every process below ``root``, which itself is left out.

    The kernel's lists of children are walked where it keeps them (CONFIG_PROC_CHILDREN); otherwise all of ``/proc`` is
    read once. Either way a process forked during the walk may be missed; the next walk finds it.
    """
    if not Path(f"{PROC}/{root}/task/{root}/children").exists():
        return _descendants_by_table(root)
    found: dict[int, ProcessStat] = {}
    pending = _children(root, 2) or []
    while pending:
        pid = pending.pop()
        if pid in found or pid == root:
            continue
        stat = read_stat(pid)
        if stat is None:
            continue
        found[pid] = stat
        pending.extend(_children(pid, stat.thread_count) or [])
    return found


def _descendants_by_table(root: int) -> dict[int, ProcessStat]:
    try:
        names = os.listdir(PROC)  # noqa: PTH208 - names only
    except OSError:
        return {}
    stats = {stat.pid: stat for name in names if name.isdigit() if (stat := read_stat(int(name)))}
    below: dict[int, list[int]] = {}
    for stat in stats.values():
        below.setdefault(stat.parent, []).append(stat.pid)
    found: dict[int, ProcessStat] = {}
    pending = list(below.get(root, ()))
    while pending:
        pid = pending.pop()
        if pid not in found and pid != root:
            found[pid] = stats[pid]
            pending.extend(below.get(pid, ()))
    return found
