"""Claims that cannot be true: powers no device draws, kilowatt hours written as joules, carbon no grid emits.

Rules upheld here:

* Every rule has a stable name and says which bound was broken and what was probably meant.
* Bounds are wide: what breaks one is wrong, what keeps them all may still be wrong.
* A claim is judged from its own numbers only; no clock, no file and no earlier claim is asked.

Source: makers' rated powers; idle powers of cards from 8 W up; best arithmetic per joule of 2024 hardware.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from lichen.energy.grid import INTENSITY_MAX_GCO2E_PER_KWH
from lichen.energy.measurement import DURATION_SECONDS_MIN, Boundary, Component, Measurement, Method
from lichen.errors import EncodingError
from lichen.units import JOULES_PER_KILOWATT_HOUR, format_power

__all__ = ["Violation", "check_carbon", "check_claim", "check_record"]

POWER_WATTS_MAX: Final[Mapping[Boundary, float]] = MappingProxyType(
    {Boundary.PROCESS: 20e3, Boundary.DEVICE: 20e3, Boundary.NODE: 20e3, Boundary.SITE: 1e9}
)
"""Largest mean power: one machine with eight of the largest cards stays under 20 kW; one site under 1 GW."""
POWER_WATTS_MIN: Final[Mapping[Boundary, float]] = MappingProxyType(
    {Boundary.PROCESS: 0.0, Boundary.DEVICE: 0.05, Boundary.NODE: 0.2, Boundary.SITE: 0.2}
)
"""Smallest mean power of whole things: a sleeping microcontroller board, a sleeping single-board computer."""
THREAD_WATTS_MAX: Final = (
    40.0  # package power over hardware threads of the hungriest workstation part, under turbo
)
CARD_WATTS_MAX: Final[Mapping[str, float]] = MappingProxyType(
    {
        "T4": 75,
        "L4": 75,
        "A10G": 170,
        "L40S": 370,
        "V100": 320,
        "A100": 420,
        "H100": 720,
        "H200": 720,
        "B200": 1200,
        "RTX 3090": 480,
        "RTX 4090": 600,
    }
)
"""Power limits of cards with their makers' tolerance."""
CARD_COUNT_MAX: Final = 16  # in one machine
U95_MIN: Final[Mapping[Method, float]] = MappingProxyType(
    {
        Method.METER: 0.001,
        Method.COUNTER: 0.005,
        Method.SAMPLED: 0.02,
        Method.ALLOCATED: 0.005,
        Method.MODEL: 0.05,
        Method.DECLARED: 0.001,
    }
)
"""Smallest believable 95 % relative uncertainty by method."""
FLOP_PER_JOULE_MAX: Final = 2e13  # sparse four-bit arithmetic at the rated power of the newest accelerators
_COUNT = re.compile(r"\bx(\d{1,3})\b")


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that a claim breaks.

    Args:
        rule: Stable name, such as ``energy.power-too-high``.
        message: The numbers, the bound, and what was probably meant.
    """

    rule: str
    message: str


def check_claim(measurement: Measurement, *, flop: float | None = None) -> list[Violation]:
    """Return every rule that an energy claim breaks; empty when it may be true.

    Args:
        measurement: The claim.
        flop: Arithmetic operations the work is said to have done, when stated.
    """
    found = [
        *_check_duration(measurement),
        *_check_power(measurement),
        *_check_device(measurement),
        *_check_uncertainty(measurement),
    ]
    if flop is not None and not flop <= FLOP_PER_JOULE_MAX * max(measurement.high_joules, 0.0):
        found.append(
            Violation(
                "energy.too-much-arithmetic",
                f"{flop:g} operations on {measurement.energy_joules:g} J is more than {FLOP_PER_JOULE_MAX:g} per joule, "
                "which no hardware reaches; the joules may be kilowatt hours, or only a part of the work",
            )
        )
    return found


def check_record(record: object, *, flop: float | None = None) -> list[Violation]:
    """Return every rule that the ``energy`` of a record breaks, malformed ones included."""
    try:
        measurement = Measurement.from_record(record)
    except EncodingError as error:
        return [Violation("energy.malformed", error.message)]
    return check_claim(measurement, flop=flop)


def check_carbon(energy_joules: float, carbon_gco2e: float) -> list[Violation]:
    """Return every rule that a claim of carbon beside energy breaks.

    Args:
        energy_joules: Claimed energy, >= 0.
        carbon_gco2e: Claimed grams of CO2 equivalent.
    """
    if not 0 <= carbon_gco2e < float("inf"):
        return [Violation("carbon.not-a-quantity", f"{carbon_gco2e!r} is not a mass of CO2 equivalent")]
    if carbon_gco2e == 0:
        return []
    if energy_joules <= 0:
        return [Violation("carbon.without-energy", f"{carbon_gco2e:g} gCO2e are claimed for no energy")]
    intensity = carbon_gco2e / (energy_joules / JOULES_PER_KILOWATT_HOUR)
    if intensity <= INTENSITY_MAX_GCO2E_PER_KWH:
        return []
    slip = next((text for factor, text in _CARBON_SLIPS if _is_grid_like(intensity / factor)), "")
    return [
        Violation(
            "carbon.intensity-too-high",
            f"{carbon_gco2e:g} gCO2e for {energy_joules:g} J is {intensity:g} gCO2e/kWh, the dirtiest grids have less than "
            f"{INTENSITY_MAX_GCO2E_PER_KWH:g}{slip}",
        )
    ]


_CARBON_SLIPS: Final = (
    (1e3, "; were grams entered as kilograms?"),
    (1e6, "; were grams entered as tonnes?"),
    (1e9, "; were milligrams entered as tonnes?"),
    (float(JOULES_PER_KILOWATT_HOUR), "; were kilowatt hours entered as joules?"),
)


def _is_grid_like(intensity: float) -> bool:
    return 5 <= intensity <= INTENSITY_MAX_GCO2E_PER_KWH


def _check_duration(measurement: Measurement) -> list[Violation]:
    if measurement.duration_seconds > 0 or measurement.energy_joules == 0:
        return []
    message = f"{measurement.energy_joules:g} J in no time; state how long the work took"
    return [Violation("energy.no-duration", message)]


def _check_power(measurement: Measurement) -> list[Violation]:
    seconds, boundary = max(measurement.duration_seconds, DURATION_SECONDS_MIN), measurement.boundary
    if measurement.duration_seconds <= 0:
        return []
    least, most = measurement.low_joules / seconds, measurement.high_joules / seconds
    limit, floor = POWER_WATTS_MAX[boundary], POWER_WATTS_MIN[boundary]
    if measurement.method is Method.DECLARED:
        floor = max(floor, POWER_WATTS_MIN[Boundary.DEVICE])
        if boundary is not Boundary.SITE:
            limit = POWER_WATTS_MAX[Boundary.SITE] if measurement.device == "several" else limit
    if min(least, measurement.energy_joules / seconds) > limit:
        slip = "; were kilojoules or megajoules meant?" if least / 1e3 <= limit else ""
        return [
            Violation(
                "energy.power-too-high",
                f"{measurement.energy_joules:g} J in {seconds:g} s is {format_power(measurement.energy_joules / seconds)}, "
                f"more than any {boundary} draws ({format_power(limit)}){slip}",
            )
        ]
    if most < floor:
        slip = ""
        if floor <= most * JOULES_PER_KILOWATT_HOUR <= limit:
            slip = "; were kilowatt hours entered as joules?"
        return [
            Violation(
                "energy.power-too-low",
                f"{measurement.energy_joules:g} J in {seconds:g} s is {format_power(measurement.energy_joules / seconds)}, "
                f"less than an idle {boundary} draws ({format_power(floor)}){slip}",
            )
        ]
    return []


def _check_device(measurement: Measurement) -> list[Violation]:
    """Hold processor and cards against the device that is named."""
    seconds = max(measurement.duration_seconds, DURATION_SECONDS_MIN)
    if measurement.duration_seconds <= 0 or measurement.device == "several":
        return []
    found: list[Violation] = []
    threads = _thread_count(measurement.device)
    processor = [part for name, part in measurement.components.items() if name in {"cpu", "idle"}]
    if threads is not None and processor:
        limit = threads * THREAD_WATTS_MAX
        found += _over_limit(processor, seconds, limit, f"the processor of {measurement.device}")
    card = _card_name(measurement.device)
    if card is not None and "gpu" in measurement.components:
        stated = re.search(rf"\b{card}\b[^,+]*\bx(\d{{1,2}})\b", measurement.device)
        count = int(stated.group(1)) if stated else CARD_COUNT_MAX
        part = [measurement.components["gpu"]]
        found += _over_limit(part, seconds, count * CARD_WATTS_MAX[card], f"{count} x {card}")
    return found


def _thread_count(device: str) -> int | None:
    """Return the hardware threads that a device text states for its processor, or None."""
    for piece in device.split(" + "):
        stated = _COUNT.search(piece)
        if stated is not None and _card_name(piece) is None and not piece.startswith("NVIDIA"):
            return int(stated.group(1))
    return None


def _card_name(device: str) -> str | None:
    return next((name for name in CARD_WATTS_MAX if re.search(rf"\b{name}\b", device)), None)


def _over_limit(parts: list[Component], seconds: float, limit_watts: float, what: str) -> list[Violation]:
    watts = sum(part.low_joules for part in parts) / seconds
    if watts <= limit_watts:
        return []
    message = f"at least {format_power(watts)} is more than {what} can draw ({format_power(limit_watts)})"
    return [Violation("energy.power-over-device", message)]


def _check_uncertainty(measurement: Measurement) -> list[Violation]:
    floor = U95_MIN[measurement.method]
    if measurement.energy_joules == 0 or measurement.relative_u95 >= floor:
        return []
    return [
        Violation(
            "energy.too-certain",
            f"{measurement.relative_u95:.2%} is a smaller uncertainty than {measurement.method} figures have ({floor:.1%})",
        )
    ]
