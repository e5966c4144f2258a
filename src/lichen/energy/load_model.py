"""Joules from processor seconds, where no counter can be read.

::

    cpu   = processor seconds x rated watts per thread x slope of the load curve
    idle  = processor seconds x rated watts per thread x idle share of rated power
    ram   = resident bytes x time x watts per byte

Rules upheld here:

* Every factor is a range: rated power of the parts it may be, the band of recorded load curves, watts per gigabyte of
  memory modules. Within a component the factors are independent, so relative widths add in quadrature; ``cpu`` and
  ``idle`` share the rated power, so they add fully correlated like all components.
* Standing power is charged by the capacity used: a core second carries one core second's share of it. Work that fills
  a machine carries all of its idle power, and several runs on one machine never carry more than that together. What
  nobody used is nobody's, and is not in the figure (boundary ``process``).
* The load of the whole machine decides where on the curve the work ran. In a virtual machine the host's load is hidden,
  so it may have been anything from 20 % up.

Source: recorded curves and ratings as in ``processor``; memory 0.392 W/GB (Cloud Carbon Footprint) within
0.08 (5 W per 64 GB module) to 0.65 (5 W per 8 GB module) W/GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

from lichen.energy.measurement import Boundary, Component, Method, combine_factors
from lichen.energy.processor import VIRTUAL_LOADS, Processor, RatedPower, load_band, rated_power
from lichen.energy.sources import Load, Reading

__all__ = ["LoadModelSource"]

RAM_WATTS_PER_GB: Final = (0.08, 0.65)
RELATIVE_U95_MAX: Final = 10.0
_BYTES_PER_GB: Final = 10**9


@dataclass(frozen=True, slots=True)
class LoadModelSource:
    """The load model for one processor.

    Args:
        processor: What the work runs on.
        rated: Rated watts per hardware thread.
    """

    processor: Processor
    rated: RatedPower

    @classmethod
    def detect(cls) -> Self:
        """Return the model of this machine; an unknown processor gets wide bounds, never an error."""
        processor = Processor.detect()
        return cls(processor, rated_power(processor))

    @property
    def name(self) -> str:
        """``load-model``."""
        return "load-model"

    @property
    def parts(self) -> frozenset[str]:
        """Processor and memory."""
        return frozenset({"cpu", "ram"})

    @property
    def method(self) -> Method:
        """Model."""
        return Method.MODEL

    @property
    def boundary(self) -> Boundary:
        """Process tree."""
        return Boundary.PROCESS

    @property
    def device(self) -> str:
        """The processor's label."""
        return self.processor.label

    @property
    def basis(self) -> str:
        """Where rated power and load curve come from."""
        curve = (
            f"load curve of {self.rated.curve}" if self.rated.curve else "band of all recorded load curves"
        )
        return f"{self.rated.basis}, {curve}"

    @property
    def poll_seconds(self) -> float | None:
        """None: everything follows from the account at the end."""
        return None

    def open(self) -> LoadModelWindow:
        """Open a window; nothing is read."""
        return LoadModelWindow(self)


@dataclass(frozen=True, slots=True)
class LoadModelWindow:
    """A window of the load model.

    Args:
        source: The model.
    """

    source: LoadModelSource

    def poll(self) -> None:
        """Do nothing."""

    def close(self, load: Load) -> Reading:
        """Return ``cpu``, ``idle`` and ``ram`` of the work."""
        idle_band, slope_band = load_band(self.source.rated.curve, self._loads(load))
        rated = self.source.rated
        full_joules = load.usage.cpu_seconds * rated.middle_watts
        shared = (rated.relative_u95, load.cpu_relative_u95)
        components = {
            "cpu": self._component(full_joules * slope_band.middle, *shared, slope_band.relative_u95),
            "idle": self._component(full_joules * idle_band.middle, *shared, idle_band.relative_u95),
            "ram": self._ram(load),
        }
        return Reading(components)

    def _loads(self, load: Load) -> tuple[float, float]:
        if self.source.processor.virtual:
            return VIRTUAL_LOADS
        busy = load.machine_busy_seconds
        if busy is None or load.capacity_seconds <= 0:
            return (load.capacity_share, 1.0)
        machine = min(1.0, max(busy, load.usage.cpu_seconds) / load.capacity_seconds)
        return (machine, machine)

    @staticmethod
    def _component(joules: float, *factors: float) -> Component:
        return Component(joules, min(combine_factors(*factors), RELATIVE_U95_MAX), Method.MODEL)

    @staticmethod
    def _ram(load: Load) -> Component:
        peak = load.usage.peak_rss_bytes
        mean = load.usage.mean_rss_bytes
        low = 0.0 if mean is None else min(mean, peak)
        byte_seconds = (low * load.duration_seconds, (peak if mean is None else mean) * load.duration_seconds)
        return Component.from_bounds(
            byte_seconds[0] / _BYTES_PER_GB * RAM_WATTS_PER_GB[0],
            byte_seconds[1] / _BYTES_PER_GB * RAM_WATTS_PER_GB[1],
            Method.MODEL,
        )
