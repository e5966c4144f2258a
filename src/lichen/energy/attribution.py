"""Whose processor seconds: the account of one process tree, short children and daemons included.

Four means, each for what the one before it misses:

1. A control group of one's own, where delegated: exact for everything.
2. ``wait4`` over every child, with this process as *child subreaper*: each ended child brings its own account and that
   of all it has waited for; orphans and daemons are adopted, so their accounts arrive here too.
3. Polling ``/proc``: processes still alive at the end, and children of processes that ignore SIGCHLD, whose accounts
   the kernel throws away when they end.
4. The machine's own busy time, as an upper bound on everything.

Rules upheld here:

* No process is counted twice: an account that arrived by ``wait4`` replaces every earlier estimate of that process.
* What is only estimated widens ``cpu_seconds_low`` to ``cpu_seconds_high``; what is exact does not.
* Polling pays for itself: a scan that took time ``c`` is followed by a pause of at least ``c / POLL_SHARE_MAX``.

The estimate for children nobody waits for is time sampling: each scan credits the processor rate of those then alive
for the time since the scan before. That is unbiased whether they live for milliseconds or hours, because the ones
missed between scans are made up for by those that were seen; its spread shrinks with the square root of the scans.

Source: wait4(2), PR_SET_CHILD_SUBREAPER in prctl(2), sigaction(2) on SA_NOCLDWAIT.
"""

from __future__ import annotations

import ctypes
import math
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lichen.energy import process_table
from lichen.energy.cgroup import ControlGroup
from lichen.energy.process_table import TICK_SECONDS, ProcessStat

__all__ = ["SelfAccount", "TreeAccount", "TreeUsage"]

POLL_SHARE_MAX: Final = 0.002  # processor share that scanning may cost
UNSEEN_SCANS: Final = 3.0  # rule of three: what no scan saw is, with 95 %, less than three scan intervals
_BLOCK_BYTES: Final = 512  # unit of ru_inblock and ru_oublock
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_GET_CHILD_SUBREAPER: Final = 37
_RSS_UNIT_BYTES: Final = 1 if sys.platform == "darwin" else 1024


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


@dataclass(slots=True)
class _Seen:
    """What scans know of one process."""

    stat: ProcessStat
    total_seconds: float
    dropped: bool  # its parent ignores SIGCHLD: its account will be thrown away
    credit_seconds: float = 0.0
    variance: float = 0.0


class TreeAccount:
    """Accounts for one child and everything it starts.

    Call in this order: :meth:`prepare`; fork, running :meth:`child_setup`'s callable in the child; :meth:`started`;
    :meth:`poll` and :meth:`reap` again and again; :meth:`finish` once. While it is open, every child of this process
    counts as part of the tree, except those that existed at :meth:`prepare` or were named to :meth:`ignore`.

    Args:
        use_cgroup: False leaves control groups alone.
    """

    def __init__(self, *, use_cgroup: bool = True) -> None:
        self._use_cgroup = use_cgroup
        self._group: ControlGroup | None = None
        self._foreign: set[int] = set()
        self._seen: dict[tuple[int, int], _Seen] = {}
        self._current: dict[int, tuple[int, int]] = {}
        self._known_count = 0
        self._reaped_pids = 0
        self._reaped_seconds = 0.0
        self._dropped_seconds = 0.0
        self._dropped_certain = 0.0
        self._dropped_variance = 0.0
        self._dropped_span = 0.0
        self._droppers = False
        self._scan_count = 0
        self._rss_peak = 0
        self._rss_seconds = 0.0
        self._rss_span = 0.0
        self._read_bytes = 0
        self._write_bytes = 0
        self._started = 0.0
        self._last_scan = 0.0
        self._next_scan = 0.0
        self._busy_start: float | None = None
        self._was_subreaper = False
        self._sigchld_ignored = False
        self._linux = sys.platform == "linux"

    def prepare(self) -> None:
        """Get ready to fork: become the reaper of orphans and, where permitted, make a control group."""
        if (
            signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
            and threading.current_thread() is threading.main_thread()
        ):
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._sigchld_ignored = True
        if self._linux:
            self._foreign = set(process_table.descendants(os.getpid()))
            self._was_subreaper = _is_subreaper()
            _set_subreaper(True)
            if self._use_cgroup:
                self._group = ControlGroup.create()
        self._busy_start = process_table.read_busy_seconds()
        self._started = self._last_scan = time.monotonic()

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
        now = time.monotonic()
        if self._linux and now >= self._next_scan:
            self._scan(now)

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
        self._reaped_pids += 1
        self._reaped_seconds += usage.ru_utime + usage.ru_stime
        self._read_bytes += usage.ru_inblock * _BLOCK_BYTES
        self._write_bytes += usage.ru_oublock * _BLOCK_BYTES
        self._rss_peak = max(self._rss_peak, usage.ru_maxrss * _RSS_UNIT_BYTES)
        key = self._current.pop(pid, None)
        if key is None:
            self._known_count += 1
        else:
            self._seen.pop(key, None)
        return pid, status

    def finish(self) -> TreeUsage:
        """Close the account and return it; the tree's processes that live on are counted up to now."""
        self.reap()
        if self._linux:
            self._scan(time.monotonic())
            self.reap()
        alive = list(self._seen.values())
        cpu = self._reaped_seconds + math.fsum(seen.total_seconds for seen in alive)
        low, high = cpu, cpu + len(alive) * 2 * TICK_SECONDS
        if self._droppers or self._dropped_seconds:
            low += self._dropped_certain
            spread = 1.96 * math.sqrt(self._dropped_variance)
            unseen = UNSEEN_SCANS * self._dropped_span / max(self._scan_count, 1) if self._droppers else 0.0
            high += max(self._dropped_seconds, self._dropped_certain) + spread + unseen
            cpu += max(self._dropped_seconds, self._dropped_certain)
            low = max(low, min(cpu, cpu - spread))
            busy = process_table.read_busy_seconds()
            if busy is not None and self._busy_start is not None:
                high = max(cpu, min(high, (busy - self._busy_start) * 1.01 + 2 * TICK_SECONDS))
        method = "wait4+polling" if self._linux else "wait4"
        if self._group is not None:
            counted = self._group.cpu_seconds()
            if counted is not None and counted >= low * 0.98 - TICK_SECONDS:
                cpu = low = high = counted
                method = "cgroup"
            self._group.remove()
            self._group = None
        self._restore()
        return TreeUsage(
            cpu_seconds=cpu,
            cpu_seconds_low=low,
            cpu_seconds_high=high,
            process_count=self._known_count,
            peak_rss_bytes=self._rss_peak,
            mean_rss_bytes=self._rss_seconds / self._rss_span if self._rss_span > 0 else None,
            read_bytes=self._read_bytes + sum(io[0] for io in self._alive_io(alive)),
            write_bytes=self._write_bytes + sum(io[1] for io in self._alive_io(alive)),
            method=method,
            still_running=tuple(sorted(seen.stat.pid for seen in alive if seen.stat.state not in "ZX")),
        )

    @staticmethod
    def _alive_io(alive: list[_Seen]) -> list[tuple[int, int]]:
        return [io for seen in alive if (io := process_table.read_io_bytes(seen.stat.pid)) is not None]

    def _restore(self) -> None:
        if self._linux and not self._was_subreaper:
            _set_subreaper(False)
        if self._sigchld_ignored and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    # Scanning

    def _scan(self, now: float) -> None:
        spent = time.thread_time()
        elapsed = now - self._last_scan
        self._last_scan = now
        self._scan_count += 1
        alive = self._snapshot()
        self._notice_gone(alive)
        for stat in alive.values():
            self._notice_alive(stat, alive, elapsed)
        if any(stat.ignores_children for stat in alive.values()):
            self._droppers = True
            self._dropped_span += elapsed
        rss = sum(stat.resident_bytes for stat in alive.values())
        self._rss_peak = max(self._rss_peak, rss)
        self._rss_seconds += rss * elapsed
        self._rss_span += elapsed
        self._next_scan = now + (time.thread_time() - spent) / POLL_SHARE_MAX

    def _snapshot(self) -> dict[int, ProcessStat]:
        alive = process_table.descendants(os.getpid())
        if self._foreign:
            for pid in self._foreign & set(alive):
                _prune(alive, pid)
        return alive

    def _notice_alive(self, stat: ProcessStat, alive: dict[int, ProcessStat], elapsed: float) -> None:
        key = (stat.pid, stat.started_ticks)
        parent = alive.get(stat.parent)
        dropped = parent is not None and parent.ignores_children
        total = stat.total_seconds
        if dropped and stat.thread_count == 1:
            total = max(
                total, (process_table.read_scheduled_seconds(stat.pid) or 0.0) + stat.children_seconds
            )
        before = self._seen.get(key)
        if before is None:
            self._known_count += 1
            self._current[stat.pid] = key
            before = self._seen[key] = _Seen(stat, total, dropped)
            if dropped:
                self._credit_first(before, elapsed)
        else:
            if dropped and not before.dropped:
                before.credit_seconds = total
            elif dropped:
                before.credit_seconds += max(0.0, total - before.total_seconds)
            before.stat, before.total_seconds, before.dropped = stat, total, dropped

    @staticmethod
    def _credit_first(seen: _Seen, elapsed: float) -> None:
        """Credit a process seen for the first time with its processor rate over the time since the last scan."""
        age = max(
            _boot_seconds() - seen.stat.started_ticks * TICK_SECONDS,
            TICK_SECONDS / 2,
            seen.total_seconds / 64,
        )
        rate = min(seen.total_seconds / age, float(max(seen.stat.thread_count, 1)))
        seen.credit_seconds = seen.total_seconds if age >= elapsed else max(rate * elapsed, 0.0)
        seen.variance = (max(rate, 0.1) * elapsed) ** 2

    def _notice_gone(self, alive: dict[int, ProcessStat]) -> None:
        """Book what ended without being reaped here: dropped by the kernel, or waited for by its own parent."""
        gone = [key for key in self._seen if key[0] not in alive or alive[key[0]].started_ticks != key[1]]
        waited: dict[tuple[int, int], list[_Seen]] = {}
        for key in gone:
            seen = self._seen.pop(key)
            if self._current.get(key[0]) == key:
                del self._current[key[0]]
            if seen.dropped:
                self._book_dropped(seen)
            elif (parent := self._current.get(seen.stat.parent)) is not None:
                waited.setdefault(parent, []).append(seen)
        for parent_key, ended in waited.items():
            known = self._seen.get(parent_key)
            now = alive.get(parent_key[0])
            if known is None or now is None:
                continue
            growth = now.children_seconds - known.stat.children_seconds
            expected = math.fsum(seen.total_seconds for seen in ended)
            if expected - growth > (2 + len(ended)) * 2 * TICK_SECONDS:
                self._droppers = True
                for seen in ended:
                    seen.credit_seconds = seen.total_seconds
                    self._book_dropped(seen)

    def _book_dropped(self, seen: _Seen) -> None:
        self._dropped_seconds += seen.credit_seconds
        self._dropped_certain += seen.total_seconds
        self._dropped_variance += seen.variance


class SelfAccount:
    """Accounts for this very process, from construction to :meth:`finish`, children it waited for included."""

    def __init__(self) -> None:
        self._children_start = resource.getrusage(resource.RUSAGE_CHILDREN)
        self._start = resource.getrusage(resource.RUSAGE_SELF)
        self._before = {(s.pid, s.started_ticks): s for s in process_table.descendants(os.getpid()).values()}

    def finish(self) -> TreeUsage:
        """Return what this process and its children used since construction; may be called again later."""
        own = resource.getrusage(resource.RUSAGE_SELF)
        waited = resource.getrusage(resource.RUSAGE_CHILDREN)
        alive = process_table.descendants(os.getpid()).values()
        cpu = _seconds(own) - _seconds(self._start) + _seconds(waited) - _seconds(self._children_start)
        for stat in alive:
            before = self._before.get((stat.pid, stat.started_ticks))
            cpu += stat.total_seconds - (before.total_seconds if before else 0.0)
        blocks = [(now, then) for now, then in ((own, self._start), (waited, self._children_start))]
        return TreeUsage(
            cpu_seconds=max(cpu, 0.0),
            cpu_seconds_low=max(cpu, 0.0),
            cpu_seconds_high=max(cpu, 0.0) + len(alive) * 2 * TICK_SECONDS,
            process_count=1 + len(alive),
            peak_rss_bytes=max(own.ru_maxrss, waited.ru_maxrss) * _RSS_UNIT_BYTES,
            mean_rss_bytes=None,
            read_bytes=sum(now.ru_inblock - then.ru_inblock for now, then in blocks) * _BLOCK_BYTES,
            write_bytes=sum(now.ru_oublock - then.ru_oublock for now, then in blocks) * _BLOCK_BYTES,
            method="self",
            still_running=tuple(sorted(stat.pid for stat in alive if stat.state not in "ZX")),
        )


def _seconds(usage: resource.struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def _boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _prune(alive: dict[int, ProcessStat], pid: int) -> None:
    """Take a process and all below it out of a snapshot."""
    if alive.pop(pid, None) is not None:
        for child in [stat.pid for stat in alive.values() if stat.parent == pid]:
            _prune(alive, child)


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
    return (
        prctl is not None
        and prctl(_PR_GET_CHILD_SUBREAPER, ctypes.addressof(flag), 0, 0, 0) == 0
        and flag.value == 1
    )
