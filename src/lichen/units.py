"""Joules, watts, seconds, bytes and grams of CO2 equivalent: exact conversions, reading and writing them.

Rules upheld here:

* Conversion factors are exact integers, never rounded reciprocals. One kilowatt hour is 3,600,000 joules.
* Reading text goes through rational arithmetic, so a value is rounded once, to the nearest float.
* A bare number is refused where a unit is missing: 5 kWh taken for 5 J is the commonest wrong energy claim.

Source: BIPM, The International System of Units (9th edition), tables 4, 7 and 8; IEC 80000-13 for binary prefixes.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Final

from lichen.errors import UsageError

__all__ = [
    "JOULES_PER_KILOWATT_HOUR",
    "JOULES_PER_WATT_HOUR",
    "compute_carbon_gco2e",
    "format_carbon",
    "format_duration",
    "format_energy",
    "format_power",
    "format_size",
    "joules_from_kilowatt_hours",
    "joules_from_watt_hours",
    "kilowatt_hours_from_joules",
    "parse_carbon",
    "parse_duration",
    "parse_energy",
    "parse_power",
    "parse_size",
    "watt_hours_from_joules",
]

JOULES_PER_WATT_HOUR: Final = 60 * 60  # (= 3600) joules
JOULES_PER_KILOWATT_HOUR: Final = 1000 * JOULES_PER_WATT_HOUR  # (= 3600000) joules

_ENERGY: Final = {
    "uJ": Fraction(1, 10**6),
    "mJ": Fraction(1, 1000),
    "J": Fraction(1),
    "kJ": Fraction(10**3),
    "MJ": Fraction(10**6),
    "GJ": Fraction(10**9),
    "TJ": Fraction(10**12),
    "mWh": Fraction(JOULES_PER_WATT_HOUR, 1000),
    "Wh": Fraction(JOULES_PER_WATT_HOUR),
    "kWh": Fraction(JOULES_PER_KILOWATT_HOUR),
    "MWh": Fraction(JOULES_PER_KILOWATT_HOUR * 10**3),
    "GWh": Fraction(JOULES_PER_KILOWATT_HOUR * 10**6),
    "TWh": Fraction(JOULES_PER_KILOWATT_HOUR * 10**9),
}
_POWER: Final = {
    "uW": Fraction(1, 10**6),
    "mW": Fraction(1, 1000),
    "W": Fraction(1),
    "kW": Fraction(10**3),
    "MW": Fraction(10**6),
    "GW": Fraction(10**9),
    "TW": Fraction(10**12),
}
_DURATION: Final = {
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86400),
}
_CARBON: Final = {
    "ug": Fraction(1, 10**6),
    "mg": Fraction(1, 1000),
    "g": Fraction(1),
    "kg": Fraction(10**3),
    "t": Fraction(10**6),
}
_SIZE: Final = {
    "B": Fraction(1),
    "kB": Fraction(10**3),
    "MB": Fraction(10**6),
    "GB": Fraction(10**9),
    "TB": Fraction(10**12),
    "KiB": Fraction(2**10),
    "MiB": Fraction(2**20),
    "GiB": Fraction(2**30),
    "TiB": Fraction(2**40),
}
_QUANTITY = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?|\.[0-9]+)\s*([A-Za-zµ0-9]*)\s*")
_QUANTITY_LENGTH_MAX: Final = 64
_RELATIVE_U95_SHOWN_MIN: Final = 1e-6  # smaller is as good as exact, and would only show as noughts
_DECIMAL_DIGITS: Final = 800  # enough for any two floats side by side


def joules_from_kilowatt_hours(kilowatt_hours: float) -> float:
    """Convert kWh to J, exact up to the final rounding to a float."""
    return kilowatt_hours * JOULES_PER_KILOWATT_HOUR


def kilowatt_hours_from_joules(energy_joules: float) -> float:
    """Convert J to kWh, exact up to the final rounding to a float."""
    return energy_joules / JOULES_PER_KILOWATT_HOUR


def joules_from_watt_hours(watt_hours: float) -> float:
    """Convert Wh to J, exact up to the final rounding to a float."""
    return watt_hours * JOULES_PER_WATT_HOUR


def watt_hours_from_joules(energy_joules: float) -> float:
    """Convert J to Wh, exact up to the final rounding to a float."""
    return energy_joules / JOULES_PER_WATT_HOUR


def compute_carbon_gco2e(energy_joules: float, intensity_gco2e_per_kwh: float) -> float:
    """Return the grams of CO2 equivalent of an energy under a grid intensity."""
    return energy_joules * intensity_gco2e_per_kwh / JOULES_PER_KILOWATT_HOUR


def parse_energy(text: str) -> float:
    """Read an energy such as ``"1.5 kWh"``, ``"420 J"`` or ``"3 MJ"``.

    ``M`` and ``m`` differ: MJ is a million joules, mJ a thousandth of one.

    Returns:
        Joules.

    Raises:
        UsageError: No unit, an unknown unit, or not a number.
    """
    return _parse(text, _ENERGY, "an energy", "1.5 kWh", mega_matters=True)


def parse_power(text: str) -> float:
    """Read a power such as ``"65 W"`` and return watts.

    Raises:
        UsageError: No unit, an unknown unit, or not a number.
    """
    return _parse(text, _POWER, "a power", "65 W", mega_matters=True)


def parse_duration(text: str) -> float:
    """Read a duration such as ``"90 s"``, ``"15 min"`` or ``"2 h"`` and return seconds.

    Raises:
        UsageError: No unit, an unknown unit, or not a number.
    """
    return _parse(text, _DURATION, "a duration", "90 s")


def parse_carbon(text: str) -> float:
    """Read a mass of CO2 equivalent such as ``"12 g"``, ``"3.1 kgCO2e"`` and return grams.

    Raises:
        UsageError: No unit, an unknown unit, or not a number.
    """
    return _parse(text, _CARBON, "a mass of CO2 equivalent", "12 g", suffixes=("co2eq", "co2e", "co2"))


def parse_size(text: str) -> int:
    """Read a size such as ``"100 MB"`` (10^6) or ``"64 MiB"`` (2^20) and return bytes.

    Raises:
        UsageError: No unit, an unknown unit, not a number, or not a whole number of bytes.
    """
    value = _parse_exact(text, _SIZE, "a size", "100 MB")
    if value.denominator != 1:
        raise UsageError(
            f"{text!r} is not a whole number of bytes", remedy="Write it in bytes, such as '512 B'."
        )
    return int(value)


def _parse(
    text: str,
    factors: dict[str, Fraction],
    what: str,
    example: str,
    *,
    mega_matters: bool = False,
    suffixes: tuple[str, ...] = (),
) -> float:
    exact = _parse_exact(text, factors, what, example, mega_matters=mega_matters, suffixes=suffixes)
    try:
        return float(exact)
    except OverflowError:
        raise UsageError(f"{text!r} is too large to be {what}") from None


def _parse_exact(
    text: str,
    factors: dict[str, Fraction],
    what: str,
    example: str,
    *,
    mega_matters: bool = False,
    suffixes: tuple[str, ...] = (),
) -> Fraction:
    match = _QUANTITY.fullmatch(text) if len(text) <= _QUANTITY_LENGTH_MAX else None
    if match is None:
        raise UsageError(
            f"{text[:_QUANTITY_LENGTH_MAX]!r} is not {what}", remedy=f"Write it like {example!r}."
        )
    number, unit = match.groups()
    if not unit:
        raise UsageError(f"{text!r} has no unit, so it is not {what}", remedy=f"Write it like {example!r}.")
    plain = unit.replace("µ", "u")
    for suffix in suffixes:
        if plain.lower().endswith(suffix):
            plain = plain[: -len(suffix)]
            break
    folded = _folded(plain, mega_matters=mega_matters)
    factor = next(
        (value for name, value in factors.items() if _folded(name, mega_matters=mega_matters) == folded), None
    )
    if factor is None:
        known = ", ".join(factors)
        raise UsageError(
            f"{unit!r} in {text!r} is not a unit of {what.split(' ', 1)[1]}", remedy=f"Known: {known}."
        )
    return Fraction(number) * factor


def _folded(unit: str, *, mega_matters: bool) -> str:
    """Ignore case, except in the first letter where it tells a million from a thousandth."""
    return unit[0] + unit[1:].lower() if mega_matters and unit[:1] in {"M", "G", "T"} else unit.lower()


def format_energy(energy_joules: float, relative_u95: float | None = None, *, signed: bool = False) -> str:
    """Write an energy with its 95 % interval, such as ``"1.84 ± 0.20 kJ"``, or ``"5.0 (0 to 12.0) J"``.

    The uncertainty gets two significant digits and the value as many decimals as the uncertainty; without
    an uncertainty the value gets three significant digits. Nothing consumes less than no energy, so an interval that
    would reach below zero is written with its ends, the lower of them zero.

    Args:
        energy_joules: Finite; joules.
        relative_u95: Half-width of the 95 % interval as a share of the value, or None when there is none to state.
        signed: The amount is a difference, which may lie below zero.
    """
    return _format(energy_joules, _PREFIXED["J"], relative_u95, signed=signed)


def format_power(power_watts: float, relative_u95: float | None = None) -> str:
    """Write a power with its 95 % interval, such as ``"65.0 ± 6.5 W"``."""
    return _format(power_watts, _PREFIXED["W"], relative_u95)


def format_carbon(carbon_gco2e: float, relative_u95: float | None = None) -> str:
    """Write a mass of CO2 equivalent with its 95 % interval, such as ``"310 ± 40 gCO2e"``."""
    return _format(carbon_gco2e, _MASSES, relative_u95)


def format_duration(duration_seconds: float) -> str:
    """Write a duration: ``"12 ms"``, ``"8.3 s"``, ``"4 min 05 s"``, ``"2 h 07 min"`` or ``"3 d 04 h"``."""
    sign = "-" if duration_seconds < 0 else ""
    seconds = abs(duration_seconds)
    if seconds < 0.9995:
        return f"{sign}{seconds * 1000:.3g} ms"
    if seconds < 59.95:
        return f"{sign}{seconds:.3g} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{sign}{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{sign}{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{sign}{hours // 24} d {hours % 24:02d} h"


def format_size(size_bytes: int) -> str:
    """Write a size in decimal units, such as ``"1.28 kB"`` or ``"512 B"``."""
    if abs(size_bytes) < 1000:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5 or unit == "TB":
            return f"{_three_digits(value)} {unit}"
        value /= 1000
    raise AssertionError("the loop returns at the largest unit")


_PREFIXED: Final = {
    symbol: (
        (Decimal("1e-6"), f"µ{symbol}"),
        (Decimal("1e-3"), f"m{symbol}"),
        (Decimal(1), symbol),
        (Decimal("1e3"), f"k{symbol}"),
        (Decimal("1e6"), f"M{symbol}"),
        (Decimal("1e9"), f"G{symbol}"),
        (Decimal("1e12"), f"T{symbol}"),
    )
    for symbol in ("J", "W")
}
_MASSES: Final = (
    (Decimal("1e-6"), "µgCO2e"),
    (Decimal("1e-3"), "mgCO2e"),
    (Decimal(1), "gCO2e"),
    (Decimal("1e3"), "kgCO2e"),
    (Decimal("1e6"), "tCO2e"),
)


def _format(
    value: float, scale: tuple[tuple[Decimal, str], ...], relative_u95: float | None, *, signed: bool = False
) -> str:
    if not math.isfinite(value):
        raise UsageError(f"{value!r} is not a finite quantity")
    if relative_u95 is not None and not (math.isfinite(relative_u95) and relative_u95 >= 0):
        raise UsageError(f"{relative_u95!r} is not a relative uncertainty")
    exact = Decimal(value)
    units = [(factor, unit) for factor, unit in scale if abs(exact) >= factor * Decimal("0.9995")]
    zero_unit = next(pair for pair in scale if pair[0] == 1)
    factor, unit = zero_unit if exact == 0 else units[-1] if units else scale[0]
    scaled = exact / factor
    if relative_u95 is None or relative_u95 < _RELATIVE_U95_SHOWN_MIN or scaled == 0:
        return f"{_three_digits(float(scaled))} {unit}"
    with localcontext(prec=_DECIMAL_DIGITS):
        uncertainty = abs(scaled) * Decimal(relative_u95)
        first = uncertainty.quantize(Decimal(1).scaleb(uncertainty.adjusted() - 1))
        quantum = Decimal(1).scaleb(min(first.adjusted() - 1, 0))
        if relative_u95 > 1 and scaled > 0 and not signed:
            return f"{scaled.quantize(quantum):f} (0 to {(scaled + uncertainty).quantize(quantum):f}) {unit}"
        return f"{scaled.quantize(quantum):f} ± {uncertainty.quantize(quantum):f} {unit}"


def _three_digits(value: float) -> str:
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.2e}")))))
    return f"{value:.{min(decimals, 9)}f}"
