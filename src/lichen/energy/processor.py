"""Which processor this is, what it is rated for, and how its power follows load.

Rules upheld here:

* A rated power is a range unless the exact part is known; an unknown processor gets the range of all of them.
* A virtual machine sees a slice of a processor, so only watts *per hardware thread* mean anything there.
* Load curves are recorded counter readings, not straight lines; a processor without a recorded relative gets the band
  spanned by all recordings, widened.

Source: makers' published ratings (``data/cpu_families.csv``, whose head says what was checked); counter recordings (``data/load_curves.csv``).
"""

from __future__ import annotations

import functools
import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from lichen.energy.tables import read_table

__all__ = ["Band", "LoadCurve", "Processor", "RatedPower", "load_band", "rated_power", "recorded_curves"]

UNKNOWN_WATTS_PER_THREAD: Final = (0.6, 23.8)  # from a phone-class mobile part to a quad-core workstation
UNKNOWN_TURBO: Final = 1.5  # sustained power over rated power, where the family is not in the table
UNKNOWN_MARGIN: Final = 1.35  # on the band of all recordings, for a design that is not among them
KNOWN_MARGIN: Final = 1.15  # on the band of a recording of the same design
VIRTUAL_LOADS: Final = (0.2, 1.0)  # load of a host that guests cannot see
_CPUINFO: Final = "/proc/cpuinfo"


@dataclass(frozen=True, slots=True)
class Processor:
    """What the system says about its processors.

    Args:
        vendor: CPUID vendor, or ARM implementer such as ``0x41``; empty when unknown.
        family: CPUID family; 0 on ARM.
        model: CPUID model, or ARM part number.
        name: Marketing name, possibly empty.
        thread_count: Hardware threads the system shows.
        core_count: Physical cores shown, or None when unknown.
        socket_count: Packages shown, at least one.
        virtual: True inside a virtual machine.
    """

    vendor: str
    family: int
    model: int
    name: str
    thread_count: int
    core_count: int | None
    socket_count: int
    virtual: bool

    @classmethod
    def detect(cls) -> Self:
        """Read ``/proc/cpuinfo``; on other systems what ``platform`` knows."""
        try:
            text = Path(_CPUINFO).read_text("utf-8", "replace")
        except OSError:
            text = ""
        thread_count = os.cpu_count() or 1
        found = cls.from_cpuinfo(text, thread_count)
        if found.name:
            return found
        return cls.from_cpuinfo(  # ``platform`` may have to start a program that says what it is
            text, thread_count, platform.processor() or platform.machine()
        )

    @classmethod
    def from_cpuinfo(cls, text: str, thread_count: int, fallback_name: str = "") -> Self:
        """Read the text of a ``/proc/cpuinfo``; fields it lacks stay empty, nothing raises."""
        first: dict[str, str] = {}
        packages: set[str] = set()
        cores: set[tuple[str, str]] = set()
        package = ""
        for line in text.splitlines():
            key, separator, value = (part.strip() for part in line.partition(":"))
            if not separator:
                continue
            first.setdefault(key, value)
            if key == "physical id":
                package = value
                packages.add(value)
            elif key == "core id":
                cores.add((package, value))
        return cls(
            vendor=first.get("vendor_id", first.get("CPU implementer", "")),
            family=_integer(first.get("cpu family", "")),
            model=_integer(first.get("model", first.get("CPU part", ""))),
            name=first.get("model name", first.get("Model", fallback_name)),
            thread_count=max(1, thread_count),
            core_count=len(cores) or None,
            socket_count=max(1, len(packages)),
            virtual="hypervisor" in first.get("flags", "").split(),
        )

    @property
    def label(self) -> str:
        """Short text for records, such as ``AMD EPYC x2 (virtual)``."""
        name = re.sub(r"\((?:R|TM)\)|\bCPU\b|\d+-Core Processor|Processor|@.*$", " ", self.name)
        name = (
            " ".join("".join(c if c.isprintable() else " " for c in name).split())[:40] or "unknown processor"
        )
        return f"{name} x{self.thread_count}{' (virtual)' if self.virtual else ''}"


def _integer(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return 0


@dataclass(frozen=True, slots=True)
class RatedPower:
    """Rated watts per hardware thread.

    Args:
        low_watts: Of the leanest part it may be.
        high_watts: Of the hungriest part it may be.
        basis: Where the range comes from, for people.
        curve: Recorded machine of the same design, or empty.
    """

    low_watts: float
    high_watts: float
    basis: str
    curve: str

    @property
    def middle_watts(self) -> float:
        """Middle of the range."""
        return (self.low_watts + self.high_watts) / 2

    @property
    def relative_u95(self) -> float:
        """Half-width of the range as a share of its middle."""
        return (self.high_watts - self.low_watts) / (self.high_watts + self.low_watts)


def rated_power(processor: Processor) -> RatedPower:
    """Return what one hardware thread of a processor is rated for.

    An exact part name gives its rated power; a known family gives the range of its parts, narrowed on bare metal by the
    thread count; anything else gives the range of all processors.
    """
    family = next((row for row in read_table("cpu_families.csv") if _matches(row, processor)), None)
    curve = family["curve"] if family else ""
    tdp = None if processor.virtual else _tdp_by_name().get(_normalised(processor.name))
    if tdp is not None:
        watts = tdp * processor.socket_count / processor.thread_count
        turbo = float(family["turbo"]) if family else UNKNOWN_TURBO
        return RatedPower(watts, watts * turbo, f"rated {tdp:g} W per package", curve)
    if family is None:
        return RatedPower(*UNKNOWN_WATTS_PER_THREAD, "unknown processor", "")
    turbo = float(family["turbo"])
    low, high = float(family["watts_per_thread_low"]), float(family["watts_per_thread_high"])
    if not processor.virtual:
        per_package = processor.thread_count / processor.socket_count
        narrow_low = max(low, float(family["tdp_low_watts"]) / per_package)
        narrow_high = min(high, float(family["tdp_high_watts"]) / per_package)
        if narrow_low <= narrow_high:
            low, high = narrow_low, narrow_high
    return RatedPower(low, high * turbo, f"range of {family['name']}", curve)


def _matches(row: dict[str, str], processor: Processor) -> bool:
    return (
        row["vendor"] == processor.vendor
        and int(row["family"] or 0) == processor.family
        and int(row["model_first"]) <= processor.model <= int(row["model_last"])
        and row["name_contains"] in processor.name
    )


def _normalised(name: str) -> str:
    """Reduce a marketing name to what distinguishes parts."""
    text = name.lower()
    text = re.sub(
        r"\((?:r|tm|c)\)|®|™|@.*$|\b\d+-core\b|\bprocessor\b|\bcpu\b|\b\d+th gen\b|\bwith radeon.*$",
        " ",
        text,
    )
    text = re.sub(r"\b(?:intel|amd)\b", " ", text)
    text = re.sub(r"(\d[a-z]?)\s+(v\d)\b", r"\1\2", text)
    return " ".join(text.split())


@dataclass(frozen=True, slots=True)
class LoadCurve:
    """Recorded power of one machine under rising load.

    Args:
        name: Machine.
        tdp_watts: Rated power of all its packages.
        points: Pairs of (load 0 to 1, watts), ascending, the first at load 0.
    """

    name: str
    tdp_watts: float
    points: tuple[tuple[float, float], ...]

    @property
    def idle_share(self) -> float:
        """Idle power as a share of rated power."""
        return self.points[0][1] / self.tdp_watts

    def power_watts(self, load: float) -> float:
        """Return the power at a load, straight between recorded points and level beyond the last."""
        for (left, below), (right, above) in zip(self.points, self.points[1:], strict=False):
            if load <= right:
                return below + (above - below) * max(0.0, load - left) / (right - left)
        return self.points[-1][1]

    def slope_share(self, load: float) -> float:
        """Return power above idle per unit of load, as a share of rated power; below the first point, that point's."""
        at = max(load, self.points[1][0])
        return (self.power_watts(at) - self.points[0][1]) / at / self.tdp_watts


@dataclass(frozen=True, slots=True)
class Band:
    """Bounds of a dimensionless factor.

    Args:
        low: Lower end, >= 0.
        high: Upper end.
    """

    low: float
    high: float

    @property
    def middle(self) -> float:
        """Middle of the band."""
        return (self.low + self.high) / 2

    @property
    def relative_u95(self) -> float:
        """Half-width as a share of the middle; zero for an empty band."""
        return (self.high - self.low) / (self.high + self.low) if self.high > 0 else 0.0


def load_band(
    curve_name: str, loads: tuple[float, float], curves: tuple[LoadCurve, ...] | None = None
) -> tuple[Band, Band]:
    """Return the bands of idle power and of power above idle per unit of load, both as shares of rated power.

    Args:
        curve_name: Recorded machine of the same design; empty for none.
        loads: Lowest and highest load the machine may have had.
        curves: Recordings to use; None for the shipped ones.

    Returns:
        (idle, slope). Energy above idle of ``c`` processor seconds is ``c x watts per thread x slope``.
    """
    available = recorded_curves() if curves is None else curves
    same = tuple(curve for curve in available if curve.name == curve_name)
    chosen, margin = (same, KNOWN_MARGIN) if same else (available, UNKNOWN_MARGIN)
    low, high = loads
    steps = [low + (high - low) * step / 8 for step in range(9)]
    idle = [curve.idle_share for curve in chosen]
    slopes = [curve.slope_share(load) for curve in chosen for load in steps]
    return Band(min(idle) / margin, max(idle) * margin), Band(min(slopes) / margin, max(slopes) * margin)


@functools.cache
def recorded_curves() -> tuple[LoadCurve, ...]:
    """Return the shipped recordings; two per machine, for load spread over all cores and packed on some."""
    grouped: dict[tuple[str, str], tuple[float, list[tuple[float, float]]]] = {}
    for row in read_table("load_curves.csv"):
        _, points = grouped.setdefault((row["curve"], row["spread"]), (float(row["tdp_watts"]), []))
        points.append((float(row["load"]), float(row["power_watts"])))
    return tuple(LoadCurve(name, tdp, tuple(sorted(points))) for (name, _), (tdp, points) in grouped.items())


@functools.cache
def _tdp_by_name() -> dict[str, float]:
    return {row["name"]: float(row["tdp_watts"]) for row in read_table("cpu_tdp.csv")}
