"""Energy counters of the processor package and of memory, as Linux shows them under ``powercap`` (RAPL).

Rules upheld here:

* Counters wrap. A reading below the one before is one wrap, unless that would mean an impossible power: then the
  counter was reset, and what was lost is said. A pause in which it could have wrapped twice makes the part fail, so
  that the next source takes over.
* Only what adds up is added: packages and memory. Cores and graphics lie inside the package; a second interface to the
  same package (``intel-rapl-mmio``) is left out.
* The counters see the whole package. The work gets the share of the package's energy that its processor time is of all
  busy processor time (at most) or of the package's capacity (at least); the two meet when the machine is full. With
  idle power known, idle and busy are told apart and nothing is left open.
* No permission is an error that says how to grant it, never a constant instead of a reading.

Source: Linux Documentation/power/powercap/powercap.rst; Intel SDM volume 3, 15.10 on counter resolution; CVE-2020-8694
on why reading needs a permission.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from lichen.energy.measurement import Boundary, Component, Method, combine_factors
from lichen.energy.sources import Load, Reading
from lichen.errors import MeterError

__all__ = ["RaplDomain", "RaplSource"]

POWERCAP: Final = Path("/sys/class/powercap")
COUNTER_RELATIVE_U95: Final = 0.10
UPDATE_SECONDS: Final = 0.001  # the counters are written once a millisecond; a window has two ends
DOMAIN_WATTS_MAX: Final = 1000.0  # above the largest package there is
SOLE_USER_SHARE: Final = 0.95  # busy share from which the counter counts this work and little else
_MICRO: Final = 1e-6
_PERMISSION_REMEDY: Final = (
    "Counters are readable by root only, because fine power readings can leak secrets of other users. To allow all users of "
    'this machine: sudo chmod a+r {pattern} (until the next boot), or for good, a udev rule: SUBSYSTEM=="powercap", '
    'RUN+="/bin/chmod a+r /sys%p/energy_uj". Until then the load model is used.'
)


@dataclass(frozen=True, slots=True)
class RaplDomain:
    """One counter.

    Args:
        directory: Its directory under ``powercap``.
        label: ``package-0``, ``dram`` and so on.
        part: ``cpu`` or ``ram``.
        range_microjoules: Value at which it wraps, or None when the system does not say.
    """

    directory: Path
    label: str
    part: str
    range_microjoules: int | None

    def read_microjoules(self) -> int:
        """Return the counter.

        Raises:
            OSError: It cannot be read.
            ValueError: It is not a number.
        """
        return int((self.directory / "energy_uj").read_text())

    @property
    def poll_seconds(self) -> float | None:
        """Longest pause in which it cannot wrap twice; None when it is not known to wrap."""
        return None if self.range_microjoules is None else self.range_microjoules * _MICRO / DOMAIN_WATTS_MAX


@dataclass(frozen=True, slots=True)
class RaplSource:
    """All packages and memory controllers of a machine.

    Args:
        domains: Counters, at least one.
        idle_watts: Power of the packages when nothing runs, from an earlier calibration; None when unknown.
        device_name: For people.
        clock: Seconds, never falling.
    """

    domains: tuple[RaplDomain, ...]
    idle_watts: float | None = None
    device_name: str = "RAPL"
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def detect(
        cls,
        powercap: Path = POWERCAP,
        *,
        idle_watts: float | None = None,
        device_name: str = "RAPL",
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Find the counters and read each once.

        Raises:
            MeterError: There are none, or they may not be read; the remedy says what to do.
        """
        domains = _find_domains(powercap)
        if not domains:
            raise MeterError(
                f"no package energy counter under {powercap}.",
                remedy="Virtual machines and most ARM boards show none; the load model or an outside meter serves there.",
            )
        for domain in domains:
            try:
                domain.read_microjoules()
            except PermissionError:
                raise MeterError(
                    f"{domain.directory / 'energy_uj'} may not be read by this user.",
                    remedy=_PERMISSION_REMEDY.format(pattern=powercap / "intel-rapl:*/energy_uj"),
                ) from None
            except (OSError, ValueError) as error:
                raise MeterError(f"{domain.directory / 'energy_uj'} cannot be read: {error}.") from None
        return cls(tuple(domains), idle_watts, device_name, clock)

    @property
    def name(self) -> str:
        """``rapl``."""
        return "rapl"

    @property
    def parts(self) -> frozenset[str]:
        """Processor, and memory where it has a counter of its own."""
        return frozenset(domain.part for domain in self.domains)

    @property
    def method(self) -> Method:
        """Counter."""
        return Method.COUNTER

    @property
    def boundary(self) -> Boundary:
        """Process tree: the counters see more, the attribution takes its share."""
        return Boundary.PROCESS

    @property
    def device(self) -> str:
        """Name given, for people."""
        return self.device_name

    @property
    def basis(self) -> str:
        """Which counters."""
        return "counters " + ", ".join(domain.label for domain in self.domains)

    @property
    def poll_seconds(self) -> float | None:
        """Half of the shortest time in which a counter could wrap."""
        pauses = [domain.poll_seconds / 2 for domain in self.domains if domain.poll_seconds is not None]
        return min(pauses) if pauses else None

    def open(self) -> RaplWindow:
        """Read all counters for the first time.

        Raises:
            MeterError: None of them can be read any more.
        """
        counters = [_Counter(domain, self.clock) for domain in self.domains]
        if all(counter.lost_after is not None for counter in counters):
            raise MeterError("the energy counters of the processor cannot be read any more")
        return RaplWindow(self, counters)


@dataclass(slots=True)
class _Counter:
    """One counter through one window."""

    domain: RaplDomain
    clock: Callable[[], float]
    total_microjoules: int = 0
    opened: float = 0.0
    last_microjoules: int = 0
    last_time: float = 0.0
    lost_after: float | None = None
    ambiguous: bool = False
    reset: bool = False

    def __post_init__(self) -> None:
        self.opened = self.last_time = self.clock()
        try:
            self.last_microjoules = self.domain.read_microjoules()
        except (OSError, ValueError):
            self.lost_after = 0.0

    def read(self) -> None:
        """Add what was counted since the last reading."""
        if self.lost_after is not None:
            return
        now = self.clock()
        try:
            value = self.domain.read_microjoules()
        except (OSError, ValueError):
            self.lost_after = self.last_time - self.opened
            return
        elapsed = now - self.last_time
        self.total_microjoules += self._difference(value, elapsed)
        self.last_microjoules, self.last_time = value, now

    def _difference(self, value: int, elapsed: float) -> int:
        limit = self.domain.poll_seconds
        if limit is not None and elapsed > limit:
            self.ambiguous = True
        if value >= self.last_microjoules:
            return value - self.last_microjoules
        range_microjoules = self.domain.range_microjoules
        wrapped = value - self.last_microjoules + (range_microjoules or 0)
        possible = wrapped * _MICRO <= DOMAIN_WATTS_MAX * max(elapsed, UPDATE_SECONDS * 2)
        if range_microjoules is not None and wrapped >= 0 and possible:
            return wrapped
        self.reset = True
        return value


@dataclass(slots=True)
class RaplWindow:
    """A window over all counters.

    Args:
        source: Whose window it is.
        counters: Their states.
    """

    source: RaplSource
    counters: Sequence[_Counter]

    def poll(self) -> None:
        """Read every counter, so that no wrap is missed."""
        for counter in self.counters:
            counter.read()

    def close(self, load: Load) -> Reading:
        """Read the counters for the last time and attribute their energy to the work.

        Raises:
            MeterError: No part was counted to the end, or far enough to be extended.
        """
        self.poll()
        notes: list[str] = []
        components: dict[str, Component] = {}
        covered: set[str] = set()
        for part in sorted(self.source.parts):
            counters = [counter for counter in self.counters if counter.domain.part == part]
            try:
                whole = self._whole(counters, load, notes)
            except MeterError as error:
                notes.append(error.message)
                continue
            covered.add(part)
            components.update(self._attributed(part, whole, load))
        if not components:
            raise MeterError("; ".join(notes) or "no counter was read")
        return Reading(components, tuple(notes), frozenset(covered))

    def _whole(self, counters: list[_Counter], load: Load, notes: list[str]) -> Component:
        """Return the energy of one part of the whole machine."""
        resolution = 2 * UPDATE_SECONDS / max(load.duration_seconds, UPDATE_SECONDS)
        total = Component(0.0, 0.0, Method.COUNTER)
        for counter in counters:
            label = counter.domain.label
            if counter.ambiguous:
                raise MeterError(f"counter {label} was not read often enough, it may have wrapped unseen")
            joules = Component(
                counter.total_microjoules * _MICRO, COUNTER_RELATIVE_U95 + resolution, Method.COUNTER
            )
            if counter.lost_after is not None:
                if counter.lost_after <= 0:
                    raise MeterError(f"counter {label} vanished")
                notes.append(
                    f"counter {label} vanished after {counter.lost_after:.0f} s, the rest is extended"
                )
                joules = joules.with_gap(counter.lost_after, max(load.duration_seconds, counter.lost_after))
            if counter.reset:
                notes.append(f"counter {label} was reset, energy before that is partly lost")
                joules = Component(joules.energy_joules, joules.relative_u95 + 1.0, Method.COUNTER)
            total += joules
        return total

    def _attributed(self, part: str, whole: Component, load: Load) -> dict[str, Component]:
        busy, capacity = load.busy_share, load.capacity_share
        method = Method.COUNTER if busy >= SOLE_USER_SHARE else Method.ALLOCATED
        own = load.cpu_relative_u95
        idle_watts = self.source.idle_watts
        if part == "cpu" and idle_watts is not None:
            idle_joules = min(idle_watts * load.duration_seconds, whole.energy_joules)
            u95 = combine_factors(whole.relative_u95, own)
            return {
                "cpu": Component((whole.energy_joules - idle_joules) * busy, u95, method),
                "idle": Component(idle_joules * capacity, u95, method),
            }
        resident = load.usage.peak_rss_bytes / load.memory_bytes if load.memory_bytes else capacity
        least = min(capacity if part == "cpu" else resident, busy, 1.0)
        share = Component.from_bounds(whole.energy_joules * least, whole.energy_joules * busy, method)
        u95 = combine_factors(share.relative_u95, whole.relative_u95, own)
        return {part: Component(share.energy_joules, u95, method)}


def _find_domains(powercap: Path) -> list[RaplDomain]:
    """Return packages and memory controllers in the order of their names; other domains lie inside these."""
    found: list[RaplDomain] = []
    for directory in sorted(powercap.glob("intel-rapl:*")):
        label = _read_text(directory / "name")
        part = "cpu" if label.startswith("package") else "ram" if label == "dram" else None
        if part is None:
            continue
        limit = _read_text(directory / "max_energy_range_uj")
        found.append(
            RaplDomain(directory, label, part, int(limit) if limit.isdigit() and int(limit) > 0 else None)
        )
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
