"""Whose processor seconds: the account of one process tree, short children and daemons included.

Four means, each for what the one before it misses:

1. A control group of one's own, where delegated: exact for everything.
2. ``wait4`` over every child, with this process as *child subreaper*: each ended child brings its own account and that
   of all it has waited for; orphans and daemons are adopted, so their accounts arrive here too.
3. Scans of ``/proc``: processes still alive at the end, and children of processes that ignore SIGCHLD, whose accounts
   the kernel throws away when they end.
4. The machine's own busy time, as an upper bound on everything.

Rules upheld here:

* No process is counted twice: an account that arrived by ``wait4`` replaces every earlier estimate of that process.
* What is only estimated widens ``cpu_seconds_low`` to ``cpu_seconds_high``; what is exact does not. These are bounds of
  95 %, as those of every measurement; ``cpu_seconds_certain`` and ``cpu_seconds_possible`` hold always.
* Children of this process that are not part of the work are neither counted nor reaped.

Source: wait4(2), waitid(2), PR_SET_CHILD_SUBREAPER in prctl(2).
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from lichen.energy import process_table
from lichen.energy.cgroup import ControlGroup
from lichen.energy.process_table import TICK_SECONDS
from lichen.energy.tree_scan import TreeScan

__all__ = ["SelfAccount", "TreeAccount", "TreeUsage"]

GROUP_SHORTFALL_MAX: Final = (
    0.02  # a control group that counted less than this below the rest has lost processes
)
_BLOCK_BYTES: Final = 512  # unit of ru_inblock and ru_oublock
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37
_RSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024
_LINUX: Final = sys.platform == "linux"


@dataclass(frozen=True, slots=True)
class TreeUsage:
    """What a process tree used.

    Args:
        cpu_seconds: Processor seconds of all processes, user and system.
        cpu_seconds_low: Lower end of the 95 % interval.
        cpu_seconds_high: Upper end of the 95 % interval.
        process_count: Processes seen; short ones that their parent waited for may be missing from the count, never
            from the seconds.
        peak_rss_bytes: Largest resident memory seen of the tree at one time, or of one process if that is more.
        mean_rss_bytes: Resident memory of the tree averaged over time; None when it was never polled.
        read_bytes: Read from storage.
        write_bytes: Written to storage.
        method: ``cgroup``, ``wait4+polling``, ``wait4`` (nothing but ended children) or ``self``.
        still_running: Processes of the tree alive at the end; their use up to then is counted.
        cpu_seconds_certain: Used without any doubt, whatever was dropped; ``cpu_seconds_low`` when None.
        cpu_seconds_possible: More cannot have been used; ``cpu_seconds_high`` when None.
    """

    cpu_seconds: float
    cpu_seconds_low: float
    cpu_seconds_high: float
    process_count: int
    peak_rss_bytes: int
    mean_rss_bytes: float | None
    read_bytes: int
    write_bytes: int
    method: str
    still_running: tuple[int, ...] = ()
    cpu_seconds_certain: float | None = None
    cpu_seconds_possible: float | None = None


class _Bounds(NamedTuple):
    """Processor seconds: the estimate, its interval of 95 %, and what holds always."""

    cpu: float
    low: float
    high: float
    certain: float
    possible: float


class TreeAccount:
    """Accounts for one child and everything it starts.

    Call in this order: :meth:`prepare`; fork, running :meth:`child_setup`'s callable in the child; :meth:`started`;
    :meth:`poll` and :meth:`reap` again and again; :meth:`finish` once. While it is open, every child of this process
    counts as part of the tree, except those that existed at :meth:`prepare` or were named to :meth:`ignore`.

    Args:
        use_cgroup: False leaves control groups alone.
        on_poll: Called at every :meth:`poll`, such as ``Meter.poll``, so that one loop serves both.
    """

    def __init__(self, *, use_cgroup: bool = True, on_poll: Callable[[], None] | None = None) -> None:
        self._use_cgroup = use_cgroup
        self._on_poll = on_poll
        self._group: ControlGroup | None = None
        self._scan: TreeScan | None = None
        self._foreign: set[int] = set()
        self._reaped_count = 0
        self._reaped_seconds = 0.0
        self._largest_rss_bytes = 0
        self._read_bytes = 0
        self._write_bytes = 0
        self._busy_start: float | None = None
        self._was_subreaper = False
        self._sigchld_ignored = False

    def prepare(self) -> None:
        """Get ready to fork: become the reaper of orphans and, where permitted, make a control group.

        A process that was itself started with SIGCHLD ignored would never learn of its children's end; that is undone
        here (in the main thread only) and given back to the child.
        """
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN and _is_main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._sigchld_ignored = True
        if _LINUX:
            self._foreign |= set(process_table.descendants(os.getpid()))
            self._was_subreaper = _is_subreaper()
            _set_subreaper(True)
            if self._use_cgroup:
                self._group = ControlGroup.create()
            self._scan = TreeScan(self._foreign)
        self._busy_start = process_table.read_busy_seconds()

    def child_setup(self) -> Callable[[], None] | None:
        """Return what the child must run between fork and exec, or None when there is nothing to do."""
        group, ignore = self._group, self._sigchld_ignored
        if group is None and not ignore:
            return None

        def setup() -> None:
            if ignore:
                signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            if group is not None:
                group.join()

        return setup

    def started(self, pid: int) -> None:
        """Name the child that was forked; it joins the control group here if it did not itself."""
        if self._group is not None and pid not in self._group.pids() and not self._group.add(pid):
            self._group.remove()
            self._group = None

    def ignore(self, pid: int) -> None:
        """Leave a child of this process, and what it starts, out of the account and do not reap it."""
        self._foreign.add(pid)

    def poll(self) -> None:
        """Scan the tree if it is time to; cheap when it is not. To be called every 50 to 100 ms."""
        if self._on_poll is not None:
            self._on_poll()
        if self._scan is not None:
            self._scan.poll()

    def reap(self) -> list[tuple[int, int]]:
        """Collect every ended child, adopted orphans included.

        Returns:
            Pairs of process id and raw wait status, as ``os.waitstatus_to_exitcode`` takes it.
        """
        ended: list[tuple[int, int]] = []
        while True:
            try:
                waiting = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return ended
            if waiting is None:
                return ended
            if waiting.si_pid in self._foreign:
                return ended + self._reap_beside_foreign()
            collected = self._collect(waiting.si_pid)
            if collected is not None:
                ended.append(collected)

    def _reap_beside_foreign(self) -> list[tuple[int, int]]:
        """Collect our ended children one by one, because one that is not ours stands first in the queue."""
        own = os.getpid()
        candidates = [
            stat.pid
            for stat in process_table.descendants(own).values()
            if stat.state == "Z" and stat.parent == own and stat.pid not in self._foreign
        ]
        return [pair for pid in candidates if (pair := self._collect(pid)) is not None]

    def _collect(self, pid: int) -> tuple[int, int] | None:
        try:
            ended, status, usage = os.wait4(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if ended == 0:
            return None
        self._reaped_count += 1
        self._reaped_seconds += _seconds(usage)
        self._read_bytes += usage.ru_inblock * _BLOCK_BYTES
        self._write_bytes += usage.ru_oublock * _BLOCK_BYTES
        self._largest_rss_bytes = max(self._largest_rss_bytes, usage.ru_maxrss * _RSS_UNIT_BYTES)
        if self._scan is not None:
            self._scan.forget_reaped(pid, _seconds(usage))
        return pid, status

    def finish(self) -> TreeUsage:
        """Close the account and return it; the tree's processes that live on are counted up to now.

        Children that end during the call are reaped; call :meth:`reap` before to learn their status.
        """
        self.reap()
        if self._scan is not None:
            self._scan.scan()
            self.reap()
        alive = self._scan.alive if self._scan is not None else []
        cpu, low, high, certain, possible = self._bounds()
        method = "wait4" if self._scan is None else "wait4+polling"
        if self._group is not None:
            counted = self._group.cpu_seconds()
            if counted is not None and counted >= low * (1 - GROUP_SHORTFALL_MAX) - TICK_SECONDS:
                cpu = low = high = certain = possible = counted
                method = "cgroup"
            self._group.remove()
            self._group = None
        self._restore()
        io = [pair for seen in alive if (pair := process_table.read_io_bytes(seen.stat.pid)) is not None]
        scanned_rss = self._scan.peak_rss_bytes if self._scan is not None else 0
        return TreeUsage(
            cpu_seconds=cpu,
            cpu_seconds_low=low,
            cpu_seconds_high=high,
            process_count=self._scan.process_count if self._scan is not None else self._reaped_count,
            peak_rss_bytes=max(self._largest_rss_bytes, scanned_rss),
            mean_rss_bytes=self._scan.mean_rss_bytes if self._scan is not None else None,
            read_bytes=self._read_bytes + sum(read for read, _ in io),
            write_bytes=self._write_bytes + sum(written for _, written in io),
            method=method,
            still_running=tuple(sorted(seen.stat.pid for seen in alive if seen.stat.state not in "ZX")),
            cpu_seconds_certain=certain,
            cpu_seconds_possible=possible,
        )

    def _bounds(self) -> _Bounds:
        """Return processor seconds with their bounds from everything but the control group."""
        alive = self._scan.alive if self._scan is not None else []
        cpu = self._reaped_seconds + math.fsum(seen.total_seconds for seen in alive)
        high = cpu + len(alive) * 2 * TICK_SECONDS
        dropped = self._scan.dropped_time() if self._scan is not None else None
        if dropped is None:
            return _Bounds(cpu, cpu, high, cpu, high)
        bounds = _Bounds(
            cpu + dropped.seconds,
            cpu + dropped.low_seconds,
            high + dropped.high_seconds,
            cpu + dropped.certain_seconds,
            high + dropped.possible_seconds,
        )
        busy = process_table.read_busy_seconds()
        if busy is not None and self._busy_start is not None:
            machine = (busy - self._busy_start) * 1.01 + 2 * TICK_SECONDS
            bounds = bounds._replace(high=max(bounds.cpu, min(bounds.high, machine)))
        return bounds

    def _restore(self) -> None:
        if _LINUX and not self._was_subreaper:
            _set_subreaper(False)
        if self._sigchld_ignored and _is_main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)


class SelfAccount:
    """Accounts for this very process, from construction to :meth:`finish`, children it waited for included."""

    def __init__(self) -> None:
        self._children_start = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._start = resource.getrusage(resource.RUSAGE_SELF)
        self._before = {(s.pid, s.started_ticks): s for s in process_table.descendants(os.getpid()).values()}
        own = process_table.read_stat(os.getpid())
        self._rss_start = own.resident_bytes if own is not None else None

    def finish(self) -> TreeUsage:
        """Return what this process and its children used since construction; may be called again later.

        Children that were alive at construction count from then on; one of them that ended and was waited for since
        brings the time it used before, too, for the kernel keeps no date with it.
        """
        own = resource.getrusage(resource.RUSAGE_SELF)
        waited = resource.getrusage(resource.RUSAGE_CHILDREN)
        alive = list(process_table.descendants(os.getpid()).values())
        cpu = _seconds(own) - _seconds(self._start) + _seconds(waited) - _seconds(self._children_start)
        for stat in alive:
            before = self._before.get((stat.pid, stat.started_ticks))
            cpu += stat.total_seconds - (before.total_seconds if before else 0.0)
        cpu = max(cpu, 0.0)
        now = process_table.read_stat(os.getpid())
        mean_rss = (
            None if now is None or self._rss_start is None else (now.resident_bytes + self._rss_start) / 2
        )
        # The kernel adds up the mark and the present size at different times, from counters that lag: the mark may
        # read less than a size that was seen.
        seen = max(self._rss_start or 0, now.resident_bytes if now is not None else 0)
        pairs = ((own, self._start), (waited, self._children_start))
        return TreeUsage(
            cpu_seconds=cpu,
            cpu_seconds_low=cpu,
            cpu_seconds_high=cpu + len(alive) * 2 * TICK_SECONDS,
            process_count=1 + len(alive),
            peak_rss_bytes=max(max(own.ru_maxrss, waited.ru_maxrss) * _RSS_UNIT_BYTES, seen),
            mean_rss_bytes=mean_rss,
            read_bytes=sum(end.ru_inblock - start.ru_inblock for end, start in pairs) * _BLOCK_BYTES,
            write_bytes=sum(end.ru_oublock - start.ru_oublock for end, start in pairs) * _BLOCK_BYTES,
            method="self",
            still_running=tuple(sorted(stat.pid for stat in alive if stat.state not in "ZX")),
        )


def _seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _prctl() -> Callable[..., int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):
        return None
    function.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
    function.restype = ctypes.c_int
    return function


def _set_subreaper(on: bool) -> bool:
    prctl = _prctl()
    return prctl is not None and prctl(_PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0) == 0


def _is_subreaper() -> bool:
    prctl = _prctl()
    flag = ctypes.c_int(0)
    asked = prctl is not None and prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(flag), 0, 0, 0) == 0
    return asked and flag.value == 1
