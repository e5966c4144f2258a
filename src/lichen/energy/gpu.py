"""Joules of graphics cards: the card's own energy counter, or its power sampled where it has none.

Rules upheld here:

* A card is charged to the work when a process of the work holds a context on it. A card that only stood there is not.
* A card that others use at the same time gives an *allocated* figure between nothing and all of it, never a counter.
* ``CUDA_VISIBLE_DEVICES`` narrows the cards that are looked at, by index or by UUID.
* A counter is good to 10 %; power sampled from a sensor that sees a quarter of the time to 30 %.

Source: NVML API Reference; Yang et al. 2024 on the sampling of power sensors in NVIDIA cards.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Self

from lichen.energy import process_table
from lichen.energy.measurement import Boundary, Component, Method, combine_terms
from lichen.energy.sources import Load, Reading
from lichen.errors import MeterError

__all__ = ["GpuDriver", "GpuSource"]

COUNTER_RELATIVE_U95: Final = 0.10
SAMPLED_RELATIVE_U95: Final = 0.30
COUNTER_POLL_SECONDS: Final = 0.5  # to notice who uses the card; the counter itself needs no polling
SAMPLED_POLL_SECONDS: Final = 0.1
_MILLI: Final = 1e-3


class GpuDriver(Protocol):
    """What is asked of a vendor's driver; :class:`lichen.energy.nvml.NvmlDriver` answers for NVIDIA."""

    @property
    def device_count(self) -> int:
        """Cards shown."""
        ...

    def name(self, index: int) -> str:
        """Return the marketing name of a card."""
        ...

    def uuid(self, index: int) -> str:
        """Return the identity of a card, or an empty text."""
        ...

    def energy_millijoules(self, index: int) -> int | None:
        """Return the card's energy counter, or None when it has none or vanished."""
        ...

    def power_milliwatts(self, index: int) -> int | None:
        """Return the card's power now, or None."""
        ...

    def process_ids(self, index: int) -> frozenset[int] | None:
        """Return the processes that hold a compute context on a card, or None when unknown."""
        ...


def _own_tree() -> frozenset[int]:
    own = os.getpid()
    return frozenset({own, *process_table.descendants(own)})


@dataclass(frozen=True, slots=True)
class GpuSource:
    """Cards behind one driver.

    Args:
        driver: Who is asked.
        indices: Cards that are looked at, at least one.
        tree_pids: Returns the processes of the work now; the default are all below this process.
        clock: Seconds, never falling.
    """

    driver: GpuDriver
    indices: tuple[int, ...]
    tree_pids: Callable[[], frozenset[int]] = _own_tree
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def detect(cls, driver: GpuDriver | None = None, environment: Mapping[str, str] | None = None) -> Self:
        """Find the cards.

        Args:
            driver: Who is asked; None asks NVIDIA's.
            environment: Variables; None takes those of this process.

        Raises:
            MeterError: There is no driver or no card, or the variable hides all of them.
        """
        if driver is None:
            from lichen.energy.nvml import NvmlDriver

            driver = NvmlDriver()
        visible = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
        indices = _visible_indices(driver, visible)
        if not indices:
            raise MeterError(f"CUDA_VISIBLE_DEVICES={visible!r} shows no card.")
        return cls(driver, indices)

    @property
    def name(self) -> str:
        """``gpu``."""
        return "gpu"

    @property
    def parts(self) -> frozenset[str]:
        """Graphics cards."""
        return frozenset({"gpu"})

    @property
    def method(self) -> Method:
        """Counter when every card has one, else sampled."""
        return Method.COUNTER if self._have_counters() else Method.SAMPLED

    @property
    def boundary(self) -> Boundary:
        """Whole cards."""
        return Boundary.DEVICE

    @property
    def device(self) -> str:
        """Names and number of the cards."""
        names = [self.driver.name(index) for index in self.indices]
        return ", ".join(f"{name} x{names.count(name)}" for name in dict.fromkeys(names))

    @property
    def basis(self) -> str:
        """Counter or sampling."""
        return "energy counters of the cards" if self._have_counters() else "power of the cards, sampled"

    @property
    def poll_seconds(self) -> float | None:
        """Often enough to see who uses the cards, and to sample power where it must be."""
        return COUNTER_POLL_SECONDS if self._have_counters() else SAMPLED_POLL_SECONDS

    def open(self) -> GpuWindow:
        """Read every card for the first time."""
        return GpuWindow(self, [_Card(self.driver, index, self.clock) for index in self.indices])

    def _have_counters(self) -> bool:
        return all(self.driver.energy_millijoules(index) is not None for index in self.indices)


@dataclass(slots=True)
class _Card:
    """One card through one window."""

    driver: GpuDriver
    index: int
    clock: Callable[[], float]
    energy_start: int | None = None
    energy_last: int | None = None
    sampled_joules: float = 0.0
    power_last: int | None = None
    last_time: float = 0.0
    seen_seconds: float = 0.0
    own: bool = False
    others: bool = False
    users_before: frozenset[int] | None = None

    def __post_init__(self) -> None:
        self.last_time = self.clock()
        self.energy_start = self.energy_last = self.driver.energy_millijoules(self.index)
        self.power_last = self.driver.power_milliwatts(self.index)
        self.users_before = self.driver.process_ids(self.index)

    def read(self, tree: frozenset[int]) -> None:
        """Take one reading and look who uses the card."""
        now = self.clock()
        elapsed = now - self.last_time
        energy = self.driver.energy_millijoules(self.index) if self.energy_start is not None else None
        power = self.driver.power_milliwatts(self.index) if self.energy_start is None else None
        if energy is not None and self.energy_last is not None and energy >= self.energy_last:
            self.energy_last = energy
            self.seen_seconds += elapsed
        elif power is not None and self.power_last is not None:
            self.sampled_joules += (power + self.power_last) / 2 * _MILLI * elapsed
            self.seen_seconds += elapsed
        self.power_last = power
        self.last_time = now
        users = self.driver.process_ids(self.index)
        if users is None:
            self.own = self.others = True
            return
        mine = users & tree
        if not mine and users.isdisjoint(tree):
            mine = users - (self.users_before or frozenset())
        self.own = self.own or bool(mine)
        self.others = self.others or bool(users - mine)

    def component(self, duration_seconds: float) -> Component:
        """Return the card's joules.

        Raises:
            MeterError: Nothing was read.
        """
        if self.seen_seconds <= 0:
            raise MeterError(f"card {self.index} gave no readings")
        if self.energy_start is not None and self.energy_last is not None:
            joules = (self.energy_last - self.energy_start) * _MILLI
            component = Component(joules, COUNTER_RELATIVE_U95, Method.COUNTER)
        else:
            component = Component(self.sampled_joules, SAMPLED_RELATIVE_U95, Method.SAMPLED)
        if self.seen_seconds < duration_seconds - 2 * COUNTER_POLL_SECONDS:
            component = component.with_gap(self.seen_seconds, duration_seconds)
        if self.others:
            component = Component.from_bounds(0.0, component.high_joules, Method.ALLOCATED)
        return component


@dataclass(frozen=True, slots=True)
class GpuWindow:
    """A window over cards.

    Args:
        source: Whose window it is.
        cards: Their states.
    """

    source: GpuSource
    cards: list[_Card]

    def poll(self) -> None:
        """Read every card."""
        tree = self.source.tree_pids()
        for card in self.cards:
            card.read(tree)

    def close(self, load: Load) -> Reading:
        """Return the joules of the cards the work used; none when it used none.

        Raises:
            MeterError: A card the work used gave no readings.
        """
        self.poll()
        used = [card for card in self.cards if card.own]
        if not used:
            return Reading({})
        parts = [card.component(load.duration_seconds) for card in used]
        notes = [f"card {card.index} was shared with others" for card in used if card.others]
        notes += [
            f"card {card.index} stopped answering after {card.seen_seconds:.0f} s, the rest is extended"
            for card in used
            if card.seen_seconds < load.duration_seconds - 2 * COUNTER_POLL_SECONDS
        ]
        total = Component(
            sum(part.energy_joules for part in parts),
            combine_terms((part.energy_joules, part.relative_u95) for part in parts),
            Method.weakest(part.method for part in parts),
        )
        return Reading({"gpu": total}, tuple(notes))


def _visible_indices(driver: GpuDriver, visible: str | None) -> tuple[int, ...]:
    """Read CUDA_VISIBLE_DEVICES as CUDA does: the list ends at the first entry that names no card."""
    if visible is None:
        return tuple(range(driver.device_count))
    uuids = {driver.uuid(index): index for index in range(driver.device_count)}
    chosen: list[int] = []
    for entry in (text.strip() for text in visible.split(",")):
        matches = [index for uuid, index in uuids.items() if uuid and entry and uuid.startswith(entry)]
        if entry.isdigit() and int(entry) < driver.device_count:
            chosen.append(int(entry))
        elif len(matches) == 1:
            chosen.append(matches[0])
        else:
            break
    return tuple(dict.fromkeys(chosen))
