"""Time the kernel throws away, estimated from scans of a machine whose every process is known."""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import pytest

from lichen.energy.process_table import TICK_SECONDS, ProcessStat
from lichen.energy.tree_scan import DroppedTime, TreeScan

KERNEL_TICK_SECONDS = (
    0.004  # a kernel of 250 Hz brings the account of a running process up to date this often
)
PARENT = 2
BOOTED_SECONDS = 1000.0


@dataclass(frozen=True)
class Child:
    """A process that runs whenever its slice of the processor comes round.

    Attributes:
        pid: Process id.
        start: When it was forked, seconds.
        burns: Processor seconds until it ends.
        share: Part of each slice in which it runs; less than 1 when others want the processor too.
        slice_seconds: Length of one round of the scheduler.
        lead: Where in a round it was forked, 0 to 1.
    """

    pid: int
    start: float
    burns: float
    share: float
    slice_seconds: float
    lead: float

    def used(self, now: float) -> float:
        """Processor seconds at a time."""
        at = (now - self.start) / self.slice_seconds + self.lead
        whole, part = divmod(at, 1.0)
        head = min(self.lead, self.share)
        rounds = whole * self.share + min(part, self.share) - head
        return min(self.burns, max(0.0, rounds) * self.slice_seconds)

    @cached_property
    def end(self) -> float:
        """When it has burnt what it burns, seconds."""
        low, high = self.start, self.start + self.burns / self.share + 2 * self.slice_seconds
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self.used(middle) >= self.burns else (middle, high)
        return high


class Machine:
    """A process table and a clock in which one parent ignores the end of its children, one after another."""

    def __init__(self, dice: random.Random, *, count: int, burns: float, load: float) -> None:
        self.now = 0.0
        self.children: list[Child] = []
        at = dice.uniform(0.01, 0.05)
        for number in range(count):
            share = 1.0 if dice.random() > load else dice.uniform(0.2, 0.9)
            child = Child(
                100 + number,
                at,
                burns * dice.uniform(0.9, 1.1),
                share,
                dice.uniform(0.003, 0.012),
                dice.random(),
            )
            self.children.append(child)
            at = child.end + dice.uniform(0.0005, 0.002)
        self.end = at

    @property
    def truth(self) -> float:
        return math.fsum(child.burns for child in self.children)

    def monotonic(self) -> float:
        return self.now

    def thread_time(self) -> float:
        return 0.0

    def clock_gettime(self, clk_id: int, /) -> float:
        return BOOTED_SECONDS + self.now

    def descendants(self, root: int) -> dict[int, ProcessStat]:
        assert root == os.getpid()
        if self.now >= self.end:
            return {}
        pids = [PARENT, *(child.pid for child in self.children)]
        return {pid: stat for pid in pids if (stat := self.read_stat(pid)) is not None}

    def read_stat(self, pid: int) -> ProcessStat | None:
        if pid == PARENT:
            return ProcessStat(PARENT, os.getpid(), "S", 0, 0.0, 0.0, 1, 0, ignores_children=True)
        child = self.children[pid - 100]
        if not child.start <= self.now < child.end:
            return None
        ticks = math.floor((BOOTED_SECONDS + child.start) / TICK_SECONDS)
        own = math.floor(child.used(self.now) / TICK_SECONDS) * TICK_SECONDS
        return ProcessStat(pid, PARENT, "R", ticks, own, 0.0, 1, 0, ignores_children=False)

    def read_scheduled_seconds(self, pid: int) -> float | None:
        """The account as the kernel last brought it up to date."""
        child = self.children[pid - 100]
        ticked = math.floor(self.now / KERNEL_TICK_SECONDS) * KERNEL_TICK_SECONDS
        return child.used(max(ticked, child.start))


def watch(machine: Machine, wait: Callable[[], float]) -> DroppedTime:
    """Scan a machine at times of one's own until its tree is gone."""
    scan = TreeScan(set(), processes=machine, clock=machine)
    while machine.now < machine.end:
        scan.scan()
        machine.now += wait()
    scan.scan()
    dropped = scan.dropped_time()
    assert dropped is not None
    return dropped


WAITS = {
    "every 20 ms": lambda dice: lambda: 0.02 + dice.uniform(0, 0.002),
    "every 100 ms": lambda dice: lambda: 0.1 + dice.uniform(0, 0.01),
    "held up": lambda dice: lambda: 0.02 + (dice.expovariate(20) if dice.random() < 0.3 else 0.0),
}
TREES = {
    "children of 15 ms": {"count": 60, "burns": 0.015},
    "children of 40 ms": {"count": 25, "burns": 0.04},
    "children of 400 ms": {"count": 4, "burns": 0.4},
    "one child of 30 ms": {"count": 1, "burns": 0.03},
}


@pytest.mark.parametrize("load", [0.0, 0.8], ids=["idle", "loaded"])
@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("tree", TREES)
def test_an_interval_of_95_percent_holds_the_truth_that_often(tree: str, wait: str, load: float) -> None:
    inside, trials = 0, 100
    for seed in range(trials):
        dice = random.Random(f"{tree} {wait} {load} {seed}")
        machine = Machine(dice, load=load, **TREES[tree])
        dropped = watch(machine, WAITS[wait](dice))
        assert dropped.certain_seconds <= machine.truth <= dropped.possible_seconds
        assert dropped.certain_seconds <= dropped.low_seconds <= dropped.seconds
        assert dropped.seconds <= dropped.high_seconds <= dropped.possible_seconds
        inside += dropped.low_seconds <= machine.truth <= dropped.high_seconds
    assert inside >= 0.95 * trials


@pytest.mark.parametrize("tree", ["children of 15 ms", "children of 40 ms", "children of 400 ms"])
def test_the_estimate_is_near_the_truth_whatever_the_length(tree: str) -> None:
    for load, share_min in (
        (0.0, 0.7),
        (0.8, 0.9),
    ):  # idle: the account of what runs lags, which is made up for in part
        shares = []
        for seed in range(60):
            dice = random.Random(seed)
            machine = Machine(dice, load=load, **TREES[tree])
            shares.append(watch(machine, WAITS["every 20 ms"](dice)).seconds / machine.truth)
        assert share_min <= sum(shares) / len(shares) <= 1.15
