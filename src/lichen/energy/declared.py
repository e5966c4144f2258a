"""Joules somebody states: for work done elsewhere, or where a bill is the only meter.

Rules upheld here:

* The method of the measurement is always ``declared``: the ledger did not see it measured.
* What the speaker says about how it was measured only decides the uncertainty, where none is stated with it.
* No uncertainty and no method stated means plus and minus the whole value.

Source: default uncertainties by method: outside meter 2 %, counters 10 %, sampled power 30 %, software estimate 40 %.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lichen.energy.measurement import Boundary, Component, Measurement, Method
from lichen.energy.sources import Load, Reading

__all__ = ["DEFAULT_RELATIVE_U95", "DeclaredSource", "declare"]

DEFAULT_RELATIVE_U95: Final = MappingProxyType(
    {
        Method.METER: 0.02,
        Method.COUNTER: 0.10,
        Method.SAMPLED: 0.30,
        Method.ALLOCATED: 0.40,
        Method.MODEL: 0.40,
        Method.DECLARED: 1.0,
    }
)
"""95 % relative uncertainty by how the speaker says it was measured."""


def declare(
    energy_joules: float,
    duration_seconds: float,
    *,
    device: str,
    boundary: Boundary = Boundary.NODE,
    zone: str | None = None,
    relative_u95: float | None = None,
    measured_by: Method = Method.DECLARED,
    part: str = "stated",
) -> Measurement:
    """Return a declared measurement.

    Args:
        energy_joules: What is stated.
        duration_seconds: How long the work took.
        device: What did it.
        boundary: What the joules include.
        zone: Grid zone; None when unknown.
        relative_u95: Stated uncertainty; None takes the default of ``measured_by``.
        measured_by: How the speaker says it was measured.
        part: Name of the only component.

    Raises:
        MeterError: A value breaks its bound.
    """
    u95 = DEFAULT_RELATIVE_U95[measured_by] if relative_u95 is None else relative_u95
    component = Component(energy_joules, u95, Method.DECLARED)
    return Measurement({part: component}, duration_seconds, boundary, device, zone)


@dataclass(frozen=True, slots=True)
class DeclaredSource:
    """Answers every window with the same stated joules.

    Args:
        energy_joules: What is stated for the work.
        relative_u95: Its uncertainty.
        boundary: What it includes.
        device: What did the work.
        parts: Parts of the machine it speaks for.
    """

    energy_joules: float
    relative_u95: float = DEFAULT_RELATIVE_U95[Method.DECLARED]
    boundary: Boundary = Boundary.NODE
    device: str = "stated"
    parts: frozenset[str] = frozenset({"cpu", "ram", "gpu"})

    @property
    def name(self) -> str:
        """``declared``."""
        return "declared"

    @property
    def method(self) -> Method:
        """Declared."""
        return Method.DECLARED

    @property
    def basis(self) -> str:
        """Somebody's word."""
        return "stated by the user"

    @property
    def poll_seconds(self) -> float | None:
        """None."""
        return None

    def open(self) -> DeclaredWindow:
        """Open a window; nothing is read."""
        return DeclaredWindow(self)


@dataclass(frozen=True, slots=True)
class DeclaredWindow:
    """A window of a declared source.

    Args:
        source: Whose window it is.
    """

    source: DeclaredSource

    def poll(self) -> None:
        """Do nothing."""

    def close(self, load: Load) -> Reading:
        """Return what was stated."""
        return Reading(
            {"stated": Component(self.source.energy_joules, self.source.relative_u95, Method.DECLARED)}
        )
