"""A recorded trace of energy counters, played back as if it were read now.

The format is CSV with a header ``seconds`` and one column per part: ``cpu_joules`` for a counter that only rises, or
``cpu_watts`` for power, which is integrated by the trapezoid rule. Empty cells are gaps. Rules upheld here:

* Between rows energy is interpolated along the straight line; beyond the last row, and over gaps, it is extended with
  its uncertainty widened, and the measurement says so.
* A trace keeps the method and the uncertainty of whoever recorded it; replaying makes it no better.
* The clock is handed in, so a test replays hours in no time.
"""

from __future__ import annotations

import bisect
import csv
import itertools
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from lichen.energy.measurement import Boundary, Component, Method
from lichen.energy.sources import Load, Reading
from lichen.errors import EncodingError, MeterError, StorageError

__all__ = ["ReplaySource", "Trace"]

ROW_COUNT_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Trace:
    """Cumulative joules of one part over time.

    Args:
        seconds: Times of the readings, rising, at least two.
        joules: Counter at those times, never falling, and level over gaps.
        gaps: Stretches in which nothing was recorded, as (start, end).
    """

    seconds: tuple[float, ...]
    joules: tuple[float, ...]
    gaps: tuple[tuple[float, float], ...] = ()

    def between(self, start: float, end: float) -> tuple[float, float]:
        """Return (joules, seconds covered by the trace) between two times on its clock."""
        start, end = max(start, self.seconds[0]), min(end, self.seconds[-1])
        if end <= start:
            return (0.0, 0.0)
        unseen = sum(max(0.0, min(end, right) - max(start, left)) for left, right in self.gaps)
        return (self._at(end) - self._at(start), end - start - unseen)

    def _at(self, moment: float) -> float:
        right = bisect.bisect_right(self.seconds, moment)
        if right >= len(self.seconds):
            return self.joules[-1]
        left = right - 1
        share = (moment - self.seconds[left]) / (self.seconds[right] - self.seconds[left])
        return self.joules[left] + share * (self.joules[right] - self.joules[left])


@dataclass(frozen=True, slots=True)
class ReplaySource:
    """Plays traces back, from their beginning at the first window.

    Args:
        traces: One per part.
        method: How the trace was recorded.
        relative_u95: Its uncertainty.
        boundary: What it includes.
        device: What it was recorded on.
        clock: Seconds; the first reading after construction stands for time zero of the trace.
    """

    traces: Mapping[str, Trace]
    method: Method = Method.COUNTER
    relative_u95: float = 0.10
    boundary: Boundary = Boundary.NODE
    device: str = "recorded trace"
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def read(
        cls,
        path: Path,
        *,
        method: Method = Method.COUNTER,
        relative_u95: float = 0.10,
        boundary: Boundary = Boundary.NODE,
        device: str = "recorded trace",
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Read a trace from a file.

        Raises:
            StorageError: The file cannot be read.
            EncodingError: It is not such a trace; the message names the line.
        """
        try:
            with path.open(newline="", encoding="utf-8") as file:
                traces = _parse(file, str(path))
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise EncodingError(f"{path} is not text: {error}") from error
        return cls(traces, method, relative_u95, boundary, device, clock)

    @property
    def name(self) -> str:
        """``replay``."""
        return "replay"

    @property
    def parts(self) -> frozenset[str]:
        """Parts that have a trace."""
        return frozenset(self.traces)

    @property
    def basis(self) -> str:
        """A recording."""
        return "recorded trace"

    @property
    def poll_seconds(self) -> float | None:
        """None: the past does not wrap."""
        return None

    def open(self) -> ReplayWindow:
        """Open a window at the trace's beginning."""
        return ReplayWindow(self, self.clock())


@dataclass(frozen=True, slots=True)
class ReplayWindow:
    """A window over a recorded trace.

    Args:
        source: Whose window it is.
        opened: Clock reading that stands for the trace's first row.
    """

    source: ReplaySource
    opened: float

    def poll(self) -> None:
        """Do nothing."""

    def close(self, load: Load) -> Reading:
        """Return the joules recorded since the window was opened.

        Raises:
            MeterError: The window lies outside every trace.
        """
        elapsed = self.source.clock() - self.opened
        components: dict[str, Component] = {}
        notes: list[str] = []
        for part, trace in self.source.traces.items():
            start = trace.seconds[0]
            joules, seen = trace.between(start, start + elapsed)
            if seen <= 0:
                continue
            component = Component(joules, self.source.relative_u95, self.source.method)
            if seen < elapsed * (1 - 1e-9):
                notes.append(f"trace of {part} covers {seen:g} s of {elapsed:g} s, the rest is extended")
                component = component.with_gap(seen, elapsed)
            components[part] = component
        if not components:
            raise MeterError("the recorded trace does not reach into this window")
        return Reading(components, tuple(notes))


def _parse(lines: Iterable[str], name: str) -> dict[str, Trace]:
    reader = csv.reader(line for line in lines if not line.startswith("#"))
    header = [cell.strip() for cell in next(reader, [])]
    columns = {index: _column(cell, name) for index, cell in enumerate(header) if index > 0}
    if not header or header[0] != "seconds" or not columns:
        raise EncodingError(
            f"{name}: the first line must read seconds, then <part>_joules or <part>_watts per column"
        )
    readings: dict[int, list[tuple[float, float | None]]] = {index: [] for index in columns}
    before = -math.inf
    for count, row in enumerate(reader):
        place = f"{name}, line {reader.line_num}"
        if count >= ROW_COUNT_MAX:
            raise EncodingError(f"{place}: more than {ROW_COUNT_MAX} rows")
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise EncodingError(f"{place}: {len(row)} cells, the first line has {len(header)}")
        moment = _number(row[0], place)
        if moment <= before:
            raise EncodingError(f"{place}: time {moment:g} does not come after {before:g}")
        before = moment
        for index in columns:
            readings[index].append((moment, _number(row[index], place) if row[index].strip() else None))
    return {part: _trace(readings[index], unit, f"{name}: {part}") for index, (part, unit) in columns.items()}


def _column(cell: str, name: str) -> tuple[str, str]:
    part, _, unit = cell.rpartition("_")
    if not part or unit not in {"joules", "watts"}:
        raise EncodingError(f"{name}: column {cell!r} is neither <part>_joules nor <part>_watts")
    return part, unit


def _number(text: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise EncodingError(f"{place}: {text!r} is not a number") from None
    if not (math.isfinite(value) and value >= 0):
        raise EncodingError(f"{place}: {text!r} is not finite and >= 0")
    return value


def _trace(readings: list[tuple[float, float | None]], unit: str, name: str) -> Trace:
    """Make a trace of one column; a counter bridges empty cells exactly, power does not know what was in them."""
    known = [(moment, value) for moment, value in readings if value is not None]
    if len(known) < 2:
        raise EncodingError(f"{name} has fewer than two readings")
    seconds = tuple(moment for moment, _ in known)
    values = tuple(value for _, value in known)
    if unit == "joules":
        for left, right in itertools.pairwise(values):
            if right < left:
                raise EncodingError(f"{name}: the counter falls from {left:g} to {right:g} J")
        return Trace(seconds, values)
    empty = [moment for moment, value in readings if value is None]
    joules = [0.0]
    gaps: list[tuple[float, float]] = []
    for (start, watts_before), (end, watts_after) in itertools.pairwise(known):
        if bisect.bisect_left(empty, end) > bisect.bisect_right(empty, start):
            gaps.append((start, end))
            joules.append(joules[-1])
        else:
            joules.append(joules[-1] + (watts_before + watts_after) / 2 * (end - start))
    return Trace(seconds, tuple(joules), tuple(gaps))
