from __future__ import annotations

import pytest

from lichen import units
from lichen.errors import UsageError


def test_kilowatt_hour_is_exact() -> None:
    assert units.JOULES_PER_KILOWATT_HOUR == 3_600_000
    assert units.joules_from_kilowatt_hours(1.5) == 5_400_000
    assert units.kilowatt_hours_from_joules(5_400_000) == 1.5
    assert units.joules_from_watt_hours(2.0) == 7200
    assert units.watt_hours_from_joules(7200.0) == 2


def test_carbon_of_one_kilowatt_hour_is_the_intensity() -> None:
    assert units.compute_carbon_gco2e(3_600_000, 44.2) == 44.2


@pytest.mark.parametrize(
    ("text", "joules"),
    [
        ("420 J", 420.0),
        ("1.5 kWh", 5_400_000.0),
        ("1.5kwh", 5_400_000.0),
        ("3 MJ", 3e6),
        ("3 mJ", 0.003),
        ("2 MWh", 7.2e9),
        ("2 mWh", 7.2),
        ("1e3 Wh", 3.6e6),
        ("12 µJ", 12e-6),
        (".5 GJ", 5e8),
        ("0.1 kWh", 360_000.0),
    ],
)
def test_energies_are_read_with_their_unit(text: str, joules: float) -> None:
    assert units.parse_energy(text) == joules


@pytest.mark.parametrize(
    "text", ["5", "", "five J", "5 kg", "-3 J", "nan J", "inf J", "5 J J", "1_000 J", "9" * 70 + " J"]
)
def test_what_is_not_an_energy_is_refused_with_the_text_named(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        units.parse_energy(text)
    assert repr(text[:64])[1:-1] in caught.value.message


def test_an_energy_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(UsageError, match="too large"):
        units.parse_energy("1e308 GWh")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90 s", 90.0), ("15 min", 900.0), ("2 h", 7200.0), ("1.5 d", 129600.0), ("250 ms", 0.25)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert units.parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "grams"),
    [("12 g", 12.0), ("3.1 kgCO2e", 3100.0), ("2 t", 2e6), ("0.4 tCO2eq", 4e5), ("5 gco2", 5.0)],
)
def test_carbon_is_read(text: str, grams: float) -> None:
    assert units.parse_carbon(text) == grams


def test_power_keeps_mega_and_milli_apart() -> None:
    assert units.parse_power("2 MW") == 2e6
    assert units.parse_power("2 mW") == 0.002


def test_sizes_are_whole_bytes() -> None:
    assert units.parse_size("100 MB") == 100_000_000
    assert units.parse_size("64 MiB") == 64 * 2**20
    assert units.parse_size("0.5 kB") == 500
    with pytest.raises(UsageError, match="whole number"):
        units.parse_size("0.3 B")


@pytest.mark.parametrize(
    ("joules", "u95", "text"),
    [
        (1840, 0.108, "1.84 ± 0.20 kJ"),
        (1840, None, "1.84 kJ"),
        (0, 0.3, "0 J"),
        (5.9, 0.68, "5.9 ± 4.0 J"),
        (999.7, None, "1.00 kJ"),
        (123456789, 0.001, "123.46 ± 0.12 MJ"),
        (5, 1.4, "5.0 (0 to 12.0) J"),
        (5, 1.0, "5.0 ± 5.0 J"),
        (0.294, 1.26, "294 (0 to 664) mJ"),
        (0.012, 0.5, "12.0 ± 6.0 mJ"),
        (100, 0.0996, "100 ± 10 J"),
        (1840, 1e-12, "1.84 kJ"),
        (3e22, 0.1, "30000000000 ± 3000000000 TJ"),
    ],
)
def test_energies_are_written_with_two_digits_of_uncertainty(
    joules: float, u95: float | None, text: str
) -> None:
    assert units.format_energy(joules, u95) == text


def test_a_difference_may_lie_below_zero() -> None:
    assert units.format_energy(5, 1.4, signed=True) == "5.0 ± 7.0 J"
    assert units.format_energy(-5, 1.4) == "-5.0 ± 7.0 J"


def test_only_finite_quantities_are_written() -> None:
    with pytest.raises(UsageError):
        units.format_energy(float("nan"))
    with pytest.raises(UsageError):
        units.format_energy(1.0, -0.1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12.3 ms"),
        (8.31, "8.31 s"),
        (59.96, "1 min 00 s"),
        (245, "4 min 05 s"),
        (7620, "2 h 07 min"),
        (86399, "1 d 00 h"),
        (273600, "3 d 04 h"),
        (-5, "-5 s"),
    ],
)
def test_durations_are_written(seconds: float, text: str) -> None:
    assert units.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1280, "1.28 kB"), (999_999, "1.00 MB"), (5 * 10**15, "5000 TB")],
)
def test_sizes_are_written(size: int, text: str) -> None:
    assert units.format_size(size) == text


def test_power_and_carbon_are_written() -> None:
    assert units.format_power(65, 0.1) == "65.0 ± 6.5 W"
    assert units.format_carbon(310, 0.13) == "310 ± 40 gCO2e"
    assert units.format_carbon(4.2e7) == "42.0 tCO2e"
