from __future__ import annotations

import math

import pytest

from lichen.energy.carbon import compute_carbon
from lichen.energy.grid import WORLD, Intensity, lookup, zones
from lichen.energy.measurement import Boundary, Component, Measurement, Method
from lichen.errors import MeterError, NotFoundError
from lichen.units import JOULES_PER_KILOWATT_HOUR


def measured(kilowatt_hours: float, u95: float = 0.0, zone: str | None = None) -> Measurement:
    part = Component(kilowatt_hours * JOULES_PER_KILOWATT_HOUR, u95, Method.COUNTER)
    return Measurement({"cpu": part}, 3600, Boundary.NODE, "EPYC", zone)


@pytest.mark.parametrize(
    ("zone", "grams"),
    [("FR", 44.2), ("fr", 44.2), (" se ", 35.9), ("EU", 213.0), ("US", 383.6), ("IN", 709), ("WORLD", 472.9)],
)
def test_zones_are_found_in_any_case(zone: str, grams: float) -> None:
    assert lookup(zone).g_per_kwh == grams


def test_most_of_the_world_is_there() -> None:
    assert len(zones()) > 200
    assert set(zones()) >= {"ES", "IT", "NL", "KR", "MX", "NG", "TW", "IS", "CH", "SG"}
    assert all(zone == WORLD or (len(zone) == 2 and zone.isupper()) for zone in zones())


def test_an_unknown_place_is_the_world_with_its_range_and_says_so() -> None:
    nowhere = lookup(None)
    assert (nowhere.g_per_kwh, nowhere.range_g_per_kwh, nowhere.known) == (472.9, (30, 715), False)
    assert "unknown place" in nowhere.describe()


def test_every_figure_carries_its_origin() -> None:
    for zone in zones():
        figure = lookup(zone)
        assert figure.vintage in {"2021", "2022", "2023", "2024"}
        assert "Ember" in figure.source
        assert "CC BY 4.0" in figure.source
        assert (figure.live, figure.signal) == (False, "average")
        assert figure.known == (zone != WORLD)
        if figure.known:
            width = {"2024": 0.10, "2023": 0.25}.get(figure.vintage, 0.35)
            assert figure.low_g_per_kwh == pytest.approx(figure.g_per_kwh * (1 - width), abs=0.06)
            assert figure.high_g_per_kwh == pytest.approx(min(1500, figure.g_per_kwh * (1 + width)), abs=0.06)
    assert "bundled" in lookup("FR").describe()


@pytest.mark.parametrize(
    ("wrong", "meant"), [("Germny", "DE (Germany)"), ("FRA", "FR (France)"), ("united kingdon", "GB")]
)
def test_a_zone_that_does_not_exist_names_the_nearest(wrong: str, meant: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        lookup(wrong)
    assert meant in caught.value.remedy
    assert wrong in caught.value.message


def test_a_zone_like_no_other_lists_them_all() -> None:
    with pytest.raises(NotFoundError) as caught:
        lookup("#!%")
    assert "FR" in caught.value.remedy
    assert "ZA" in caught.value.remedy


@pytest.mark.parametrize(
    ("low", "value", "high"),
    [
        (50, 40, 60),
        (30, 40, 35),
        (-1, 40, 60),
        (30, 40, 1e6),
        (math.nan, 40, 60),
        (30, math.nan, 60),
        (30, 40, math.inf),
    ],
)
def test_impossible_intensities_are_refused(low: float, value: float, high: float) -> None:
    with pytest.raises(MeterError) as caught:
        Intensity("XX", value, low, high, "2024", "a liar")
    assert "unit" in caught.value.remedy


def test_a_signal_is_average_or_marginal() -> None:
    with pytest.raises(MeterError, match="market"):
        Intensity("XX", 40, 30, 60, "2024", "a seller", signal="market")


def test_carbon_of_a_kilowatt_hour_in_france() -> None:
    carbon = compute_carbon(measured(1.0, zone="FR"))
    assert carbon.carbon_gco2e == pytest.approx(44.2)
    assert (carbon.low_gco2e, carbon.high_gco2e) == pytest.approx((39.8, 48.6))


def test_independent_uncertainties_add_in_quadrature() -> None:
    carbon = compute_carbon(measured(1.0, u95=0.24), Intensity("XX", 100, 90, 110, "2024", "x"))
    assert carbon.high_gco2e == pytest.approx(126)
    assert carbon.low_gco2e == pytest.approx(74)


def test_carbon_of_an_unknown_place_spans_the_world() -> None:
    carbon = compute_carbon(measured(1.0))
    assert not carbon.intensity.known
    assert (carbon.low_gco2e, carbon.high_gco2e) == pytest.approx((30, 715))
    assert "unknown place" in carbon.describe()


def test_a_signal_that_was_read_goes_before_the_table() -> None:
    live = Intensity("FR", 20, 15, 25, "2024-05-01T12:00Z", "operator", live=True)
    work = Measurement(measured(1.0).components, 3600, Boundary.NODE, "EPYC", "FR", live)
    assert compute_carbon(work).carbon_gco2e == pytest.approx(20)
    assert "live" in compute_carbon(work).describe()


def test_nothing_emits_nothing() -> None:
    assert compute_carbon(measured(0.0)).carbon_gco2e == 0
    assert compute_carbon(measured(1.0), Intensity("XX", 0, 0, 10, "2024", "x")).high_gco2e == pytest.approx(
        10
    )
