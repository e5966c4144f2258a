"""Scans of a process tree: who is alive, who ended unaccounted, how much memory was held.

Rules upheld here:

* A process that vanished between scans is asked for once more before it counts as gone: a walk of a changing tree can
  miss a process that is being handed to a new parent.
* A process whose parent ignores SIGCHLD is *dropped* by the kernel when it ends: nobody ever gets its account. So is
  one whose parent's account of waited-for children did not grow when it ended (SA_NOCLDWAIT); from then on all
  children of that parent count as dropped.
* Dropped time is estimated by time sampling: each scan credits the processor rate of the processes seen for the time
  since the scan before. Short ones that no scan saw are made up for by those that were seen. The interval of 95 % holds the
  spread of such sampling and what the kernel's coarse accounts leave open; beside it stand what is certain and what is
  possible, which hold always.

Source: sigaction(2), notes on SIGCHLD and SA_NOCLDWAIT; proc_pid_stat(5).
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from typing import Final, Protocol

from lichen.energy import process_table
from lichen.energy.process_table import TICK_SECONDS, ProcessStat

__all__ = ["DroppedTime", "TreeScan"]

SCAN_SHARE_MAX: Final = 0.002  # processor share that scanning may cost
SCAN_SHARE_DROPPING_MAX: Final = (
    0.008  # while a process lives that drops its children: each scan is a sample then
)
UNSEEN_SCANS: Final = 3.0  # rule of three: what no scan saw is, with 95 %, less than three scan intervals
RATE_SPREAD_MIN: Final = 0.1  # spread assumed for a process that was just forked and has not run yet
ACCOUNT_LAG_SECONDS: Final = (
    0.002  # by which the account of a running process lags on average, at 250 updates a second
)
ACCOUNT_LAG_MAX_SECONDS: Final = (
    0.01  # the same at most: no kernel updates less often than 100 times a second
)


class ProcessTable(Protocol):
    """Where processes are looked up; the module ``process_table`` is one."""

    def descendants(self, root: int) -> dict[int, ProcessStat]:
        """Return every process below one."""

    def read_stat(self, pid: int) -> ProcessStat | None:
        """Return the account of one process."""

    def read_scheduled_seconds(self, pid: int) -> float | None:
        """Return the processor seconds of a process's first thread, finely resolved."""


class Clock(Protocol):
    """Where the time is asked for; the module ``time`` is one."""

    def monotonic(self) -> float:
        """Return seconds that never go back."""

    def thread_time(self) -> float:
        """Return processor seconds of this thread."""

    def clock_gettime(self, clk_id: int, /) -> float:
        """Return the seconds of one of the system's clocks."""


@dataclass(slots=True)
class SeenProcess:
    """What scans know of one process.

    Args:
        stat: Its last account.
        total_seconds: Processor time of its own and of children it waited for, at the last scan.
        dropped: Its parent ignores SIGCHLD.
        credit_seconds: Estimated processor time, when dropped.
        variance: Squared spread of the estimate, due to when the scans happened to be.
        too_little_seconds: By which its rate may have been taken too low.
        too_much_seconds: By which its rate may have been taken too high.
    """

    stat: ProcessStat
    total_seconds: float
    dropped: bool
    credit_seconds: float = 0.0
    variance: float = 0.0
    too_little_seconds: float = 0.0
    too_much_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class DroppedTime:
    """Processor seconds that the kernel threw away, estimated.

    Args:
        seconds: Best estimate.
        low_seconds: Lower end of the 95 % interval.
        high_seconds: Upper end of the 95 % interval.
        certain_seconds: Used without any doubt: what scans saw in the accounts.
        possible_seconds: More cannot have been used: what was seen, and every processor all the while accounts were dropped.
    """

    seconds: float
    low_seconds: float
    high_seconds: float
    certain_seconds: float
    possible_seconds: float


class TreeScan:
    """Everything learnt about the tree below this process by looking at it again and again.

    Args:
        foreign: Children of this process that are not part of the tree.
        processes: What is known of processes.
        clock: What time it is.
    """

    def __init__(
        self, foreign: set[int], *, processes: ProcessTable = process_table, clock: Clock = time
    ) -> None:
        self.foreign = foreign
        self._processes = processes
        self._clock = clock
        self.process_count = 0
        self.peak_rss_bytes = 0
        self._seen: dict[tuple[int, int], SeenProcess] = {}
        self._current: dict[int, tuple[int, int]] = {}
        self._droppers: set[tuple[int, int]] = set()
        self._growth_of_reaped: dict[int, float] = {}
        self._dropped_seconds = 0.0
        self._dropped_certain = 0.0
        self._dropped_variance = 0.0
        self._too_little_seconds = 0.0
        self._too_much_seconds = 0.0
        self._processor_count = os.cpu_count() or 1
        self._dropping = False
        self._dropping_span = 0.0
        self._scan_count = 0
        self._rss_seconds = 0.0
        self._rss_span = 0.0
        self._last = self._clock.monotonic()
        self._next = 0.0

    @property
    def alive(self) -> list[SeenProcess]:
        """Processes that the last scan found and nobody reaped since."""
        return list(self._seen.values())

    @property
    def mean_rss_bytes(self) -> float | None:
        """Resident memory of the tree averaged over time; None before the second scan."""
        return self._rss_seconds / self._rss_span if self._rss_span > 0 else None

    def poll(self) -> None:
        """Scan when the last scan has been paid for; otherwise return at once."""
        now = self._clock.monotonic()
        if now < self._next:
            return
        spent = self._clock.thread_time()
        dropping = self.scan()
        share = SCAN_SHARE_DROPPING_MAX if dropping else SCAN_SHARE_MAX
        self._next = now + (self._clock.thread_time() - spent) / share

    def scan(self) -> bool:
        """Look at the tree now and say whether a process in it drops its children."""
        now = self._clock.monotonic()
        elapsed = now - self._last
        self._last = now
        self._scan_count += 1
        alive = self._snapshot()
        self._notice_gone(alive, elapsed)
        for stat in alive.values():
            self._notice_alive(stat, alive, elapsed)
        dropping = any(self._drops(stat) for stat in alive.values())
        if dropping:
            self._dropping = True
            self._dropping_span += elapsed
        rss = sum(stat.resident_bytes for stat in alive.values())
        self.peak_rss_bytes = max(self.peak_rss_bytes, rss)
        self._rss_seconds += rss * elapsed
        self._rss_span += elapsed
        return dropping

    def forget_reaped(self, pid: int, seconds: float) -> None:
        """Forget a process whose account arrived; everything estimated about it is void.

        Args:
            pid: Process id.
            seconds: Processor time in its account, of children it waited for included.
        """
        key = self._current.pop(pid, None)
        if key is None:
            self.process_count += 1
        elif (seen := self._seen.pop(key, None)) is not None:
            self._growth_of_reaped[pid] = seconds - seen.stat.total_seconds

    def dropped_time(self) -> DroppedTime | None:
        """Return the estimate of what the kernel threw away, or None when nothing suggests that it did."""
        alive = [seen for seen in self._seen.values() if seen.dropped]
        if not self._dropping and not self._dropped_seconds:
            return None
        certain = self._dropped_certain
        possible = certain + self._processor_count * self._dropping_span
        estimate = min(max(self._dropped_seconds, certain), possible)
        spread = 1.96 * math.sqrt(self._dropped_variance + math.fsum(seen.variance for seen in alive))
        unseen = UNSEEN_SCANS * self._dropping_span / max(self._scan_count, 1)
        low = max(certain, estimate - spread - self._too_much_seconds)
        high = min(possible, estimate + spread + self._too_little_seconds + unseen)
        return DroppedTime(estimate, low, high, certain, possible)

    def _drops(self, stat: ProcessStat) -> bool:
        """Whether the kernel throws the accounts of a process's children away."""
        return stat.ignores_children or (stat.pid, stat.started_ticks) in self._droppers

    def _snapshot(self) -> dict[int, ProcessStat]:
        alive = self._processes.descendants(os.getpid())
        for pid in self.foreign & set(alive):
            _prune(alive, pid)
        return alive

    def _notice_alive(self, stat: ProcessStat, alive: dict[int, ProcessStat], elapsed: float) -> None:
        key = (stat.pid, stat.started_ticks)
        parent = alive.get(stat.parent)
        dropped = parent is not None and self._drops(parent)
        total = stat.total_seconds
        if dropped and stat.thread_count == 1:
            total = max(
                total, (self._processes.read_scheduled_seconds(stat.pid) or 0.0) + stat.children_seconds
            )
        before = self._seen.get(key)
        if before is None:
            self.process_count += 1
            self._current[stat.pid] = key
            self._seen[key] = seen = SeenProcess(stat, total, dropped)
            if dropped:
                _credit_first(seen, elapsed, self._clock.clock_gettime(time.CLOCK_BOOTTIME))
            return
        if dropped:
            before.credit_seconds += max(0.0, total - before.total_seconds) if before.dropped else total
        before.stat, before.total_seconds, before.dropped = stat, total, dropped

    def _notice_gone(self, alive: dict[int, ProcessStat], elapsed: float) -> None:
        """Book what ended without being reaped here: dropped by the kernel, or waited for by its own parent."""
        waited: dict[int, list[SeenProcess]] = {}
        for key in [
            key for key in self._seen if key[0] not in alive or alive[key[0]].started_ticks != key[1]
        ]:
            again = self._processes.read_stat(key[0])
            if again is not None and again.started_ticks == key[1] and key[0] not in self.foreign:
                alive[key[0]] = again
                continue
            seen = self._seen.pop(key)
            if self._current.get(key[0]) == key:
                del self._current[key[0]]
            if seen.dropped:
                self._book_dropped(seen)
            else:
                waited.setdefault(seen.stat.parent, []).append(seen)
        for parent, ended in waited.items():
            self._check_waited(parent, ended, elapsed)
        self._growth_of_reaped.clear()

    def _check_waited(self, parent: int, ended: list[SeenProcess], elapsed: float) -> None:
        """Book children as dropped whose time did not arrive in their parent's account."""
        growth = self._growth(parent)
        expected = math.fsum(seen.total_seconds for seen in ended)
        if growth is None or expected - growth <= (2 + len(ended)) * 2 * TICK_SECONDS:
            return
        if (key := self._current.get(parent)) is not None:
            self._droppers.add(key)
        self._dropping = True
        self._dropping_span += elapsed
        for seen in ended:
            seen.credit_seconds = seen.total_seconds
            seen.variance = elapsed**2
            self._book_dropped(seen)

    def _growth(self, parent: int) -> float | None:
        """Return by how much a process's account of its children grew since the last scan, at most; None when unknown."""
        key = self._current.get(parent)
        if key is None:
            return self._growth_of_reaped.get(parent)
        now = self._processes.read_stat(parent)
        if now is None or now.started_ticks != key[1]:
            return None
        return now.children_seconds - self._seen[key].stat.children_seconds

    def _book_dropped(self, seen: SeenProcess) -> None:
        self._dropped_seconds += seen.credit_seconds
        self._dropped_certain += seen.total_seconds
        self._dropped_variance += seen.variance
        self._too_little_seconds += seen.too_little_seconds
        self._too_much_seconds += seen.too_much_seconds


def _credit_first(seen: SeenProcess, elapsed: float, boot_seconds: float) -> None:
    """Credit a process seen for the first time with its processor rate over the time since the last scan.

    The kernel tells the start in whole ticks and brings the account of a process that runs up to date now and then, so the
    rate of one that has just begun is known within limits only; how far the truth may lie from the credit is kept.
    """
    threads = max(seen.stat.thread_count, 1)
    known = seen.total_seconds
    age_max = max(boot_seconds - seen.stat.started_ticks * TICK_SECONDS, known / threads, TICK_SECONDS / 2)
    age_min = max(age_max - TICK_SECONDS, known / threads, TICK_SECONDS / 20)
    if age_min >= elapsed:
        seen.credit_seconds = known
        seen.variance = (max(known / age_max, RATE_SPREAD_MIN) * elapsed) ** 2
        return
    is_running = seen.stat.state == "R"
    rate_max = min(threads, (known + ACCOUNT_LAG_MAX_SECONDS * is_running) / age_min)
    rate_min = min(known / age_max, rate_max)
    rate = min(rate_max, (known + ACCOUNT_LAG_SECONDS * is_running) / ((age_min + age_max) / 2))
    seen.credit_seconds = rate * elapsed
    seen.variance = (max(rate, RATE_SPREAD_MIN) * elapsed) ** 2
    seen.too_little_seconds = (rate_max - rate) * elapsed
    seen.too_much_seconds = (rate - rate_min) * elapsed


def _prune(alive: dict[int, ProcessStat], pid: int) -> None:
    """Take a process and all below it out of a snapshot."""
    if alive.pop(pid, None) is not None:
        for child in [stat.pid for stat in alive.values() if stat.parent == pid]:
            _prune(alive, child)
