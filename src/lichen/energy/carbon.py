"""Grams of CO2 equivalent of a measurement.

Rules upheld here:

* Joules and intensity come from different origins, so their relative uncertainties add in quadrature; the range of an
  unknown place is lopsided, so it is carried as ends and not as plus and minus.
* A measurement without a place gets the world's figure with the world's range, and ``intensity.known`` is false.
* Market instruments and offsets never enter: the intensity is that of the place.

Source: ISO/IEC 21031 (SCI), operational emissions O = E x I; JCGM 100:2008, 5.1.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lichen.energy.grid import Intensity, lookup
from lichen.energy.measurement import Measurement
from lichen.units import compute_carbon_gco2e, format_carbon

__all__ = ["Carbon", "compute_carbon"]


@dataclass(frozen=True, slots=True)
class Carbon:
    """CO2 equivalent with its 95 % range.

    Args:
        carbon_gco2e: Middle figure.
        low_gco2e: Lower end, >= 0.
        high_gco2e: Upper end.
        intensity: What it was computed with.
    """

    carbon_gco2e: float
    low_gco2e: float
    high_gco2e: float
    intensity: Intensity

    def describe(self) -> str:
        """Return one line for people, naming place, origin and vintage of the intensity."""
        ends = f"{format_carbon(self.low_gco2e)} to {format_carbon(self.high_gco2e)}"
        return f"{format_carbon(self.carbon_gco2e)} ({ends}) at {self.intensity.describe()}"


def compute_carbon(measurement: Measurement, intensity: Intensity | None = None) -> Carbon:
    """Return the carbon of a measurement.

    Args:
        measurement: Joules and place.
        intensity: Signal to use; None takes the one read for the measurement, else the table's figure for its zone.

    Raises:
        NotFoundError: The measurement's zone is not in the table and no signal was given.
    """
    signal = intensity or measurement.intensity or lookup(measurement.zone)
    middle = compute_carbon_gco2e(measurement.energy_joules, signal.g_per_kwh)
    if signal.g_per_kwh == 0 or measurement.energy_joules == 0:
        return Carbon(
            middle, 0.0, compute_carbon_gco2e(measurement.high_joules, signal.high_g_per_kwh), signal
        )
    below = math.hypot(min(measurement.relative_u95, 1.0), 1 - signal.low_g_per_kwh / signal.g_per_kwh)
    above = math.hypot(measurement.relative_u95, signal.high_g_per_kwh / signal.g_per_kwh - 1)
    return Carbon(middle, max(0.0, middle * (1 - below)), middle * (1 + above), signal)
