from __future__ import annotations

import math

import pytest

from lichen.energy.grid import lookup
from lichen.energy.measurement import Boundary, Component, Measurement, Method, combine_factors, combine_terms
from lichen.errors import EncodingError, MeterError


def measured(**joules: float) -> Measurement:
    return Measurement(
        components={name: Component(value, 0.1, Method.COUNTER) for name, value in joules.items()},
        duration_seconds=10.0,
        boundary=Boundary.PROCESS,
        device="EPYC x2",
        zone="FR",
    )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1.0, -1e-9, 1e19, True, "5", None])
def test_joules_that_are_no_joules_are_refused(value: float) -> None:
    with pytest.raises(MeterError):
        Component(value, 0.1, Method.MODEL)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 101.0])
def test_uncertainties_that_say_nothing_are_refused(value: float) -> None:
    with pytest.raises(MeterError):
        Component(1.0, value, Method.MODEL)


def test_an_unknown_method_or_boundary_is_refused_with_the_known_ones() -> None:
    with pytest.raises(MeterError) as caught:
        Component(1.0, 0.1, "guess")  # type: ignore[arg-type]
    assert "counter" in caught.value.remedy
    with pytest.raises(MeterError, match="boundary"):
        Measurement({"cpu": Component(1.0, 0.1, Method.MODEL)}, 1.0, "planet", "EPYC")  # type: ignore[arg-type]


def test_bounds_become_an_interval_with_exactly_these_ends() -> None:
    part = Component.from_bounds(100, 180, Method.MODEL)
    assert (part.energy_joules, part.low_joules, part.high_joules) == pytest.approx((140, 100, 180))
    assert Component.from_bounds(0, 0, Method.MODEL).relative_u95 == 0
    with pytest.raises(MeterError, match="exceeds"):
        Component.from_bounds(2, 1, Method.MODEL)


def test_a_whole_adds_absolute_uncertainties_of_its_parts() -> None:
    whole = Measurement(
        {"cpu": Component(900, 0.1, Method.COUNTER), "ram": Component(100, 0.6, Method.MODEL)},
        10,
        Boundary.PROCESS,
        "EPYC",
    )
    assert whole.energy_joules == 1000
    assert whole.relative_u95 == pytest.approx((90 + 60) / 1000)
    assert whole.method is Method.MODEL
    assert whole.power_watts == 100


def test_a_part_that_cost_nothing_does_not_spoil_the_method() -> None:
    whole = Measurement(
        {"cpu": Component(900, 0.1, Method.COUNTER), "ram": Component(0, 0.6, Method.MODEL)},
        10,
        Boundary.PROCESS,
        "EPYC",
    )
    assert whole.method is Method.COUNTER


def test_adding_keeps_place_and_device_only_where_they_agree() -> None:
    one, other = measured(cpu=5), measured(cpu=5, gpu=7)
    total = one + other
    assert total.components["cpu"].energy_joules == 10
    assert (total.energy_joules, total.duration_seconds, total.device, total.zone) == (
        17,
        20,
        "EPYC x2",
        "FR",
    )
    elsewhere = Measurement(one.components, 1.0, Boundary.NODE, "Xeon", "DE")
    mixed = one + elsewhere
    assert (mixed.device, mixed.zone, mixed.boundary) == ("several", None, Boundary.NODE)


def test_a_share_of_a_counter_is_an_allocation() -> None:
    half = measured(gpu=10).scaled(0.5)
    assert half.energy_joules == 5
    assert half.method is Method.ALLOCATED
    assert measured(gpu=10).scaled(1).method is Method.COUNTER
    assert measured(gpu=10).scaled(0.5, 0.24).relative_u95 == pytest.approx(0.26)
    with pytest.raises(MeterError):
        measured(gpu=10).scaled(math.nan)


def test_power_is_finite_however_short_the_work() -> None:
    part = {"cpu": Component(1, 0.1, Method.MODEL)}
    assert Measurement(part, 5e-324, Boundary.PROCESS, "EPYC").power_watts == pytest.approx(1e9)
    assert Measurement(part, 0, Boundary.PROCESS, "EPYC").power_watts is None
    with pytest.raises(MeterError, match="duration"):
        Measurement(part, 1e13, Boundary.PROCESS, "EPYC")


def test_combination_rules() -> None:
    assert combine_factors(0.3, 0.4) == pytest.approx(0.5)
    assert combine_factors() == 0
    assert combine_terms([(1, 0.1), (3, 0.2)]) == pytest.approx(0.175)
    assert combine_terms([(0, 0.5), (0, 0.2)]) == 0.5
    assert combine_terms([]) == 0


def test_the_description_is_one_line() -> None:
    part = Component(1840, 0.108, Method.MODEL)
    text = Measurement({"cpu": part}, 20, Boundary.PROCESS, "EPYC").describe()
    assert text == "1.84 ± 0.20 kJ (model, process)"


def test_a_record_is_compact_and_reads_back() -> None:
    whole = Measurement(
        {"cpu": Component(1700.123456, 0.1234, Method.MODEL), "gpu": Component(12.5, 0.1, Method.COUNTER)},
        20.5,
        Boundary.DEVICE,
        "EPYC x2",
        zone="FR",
        notes=("gpu 1 vanished",),
    )
    record = whole.to_record()
    assert record == {
        "joules": 1712.62,
        "u95": 0.123,
        "method": "model",
        "boundary": "device",
        "seconds": 20.5,
        "device": "EPYC x2",
        "parts": {"cpu": [1700.12, 0.123], "gpu": [12.5, 0.1, "counter"]},
        "zone": "FR",
        "notes": ["gpu 1 vanished"],
    }
    again = Measurement.from_record(record)
    assert again.to_record() == record
    assert again.components["gpu"] == whole.components["gpu"]


def test_an_unknown_place_leaves_no_zone_in_the_record() -> None:
    whole = Measurement({"cpu": Component(1, 0.1, Method.MODEL)}, 1, Boundary.PROCESS, "EPYC")
    assert "zone" not in whole.to_record()
    assert Measurement.from_record(whole.to_record()).zone is None


def test_a_signal_that_was_read_travels_with_the_record() -> None:
    signal = lookup("FR")
    whole = Measurement({"cpu": Component(1, 0.1, Method.MODEL)}, 1, Boundary.PROCESS, "EPYC", "FR", signal)
    assert Measurement.from_record(whole.to_record()).intensity == signal


GOOD = {
    "joules": 10,
    "u95": 0.1,
    "method": "model",
    "boundary": "process",
    "seconds": 1,
    "device": "EPYC",
    "parts": {"cpu": [10, 0.1]},
}


@pytest.mark.parametrize(
    "change",
    [
        {"joules": 11},
        {"joules": "10"},
        {"joules": True},
        {"joules": -10, "parts": {"cpu": [-10, 0.1]}},
        {"joules": 10**400, "parts": {"cpu": [10**400, 0.1]}},
        {"u95": 0.2},
        {"method": "counter", "parts": {"cpu": [10, 0.1, "model"]}},
        {"method": "guess"},
        {"boundary": "planet"},
        {"seconds": -1},
        {"seconds": None},
        {"device": ""},
        {"device": "x" * 65},
        {"device": "a\x1b[31m"},
        {"device": 5},
        {"zone": 5},
        {"zone": ""},
        {"parts": {}},
        {"parts": {"": [10, 0.1]}},
        {"parts": {"cpu": [10]}},
        {"parts": {"cpu": 10}},
        {"parts": {"cpu": [10, 0.1, "guess"]}},
        {"parts": {"cpu": [10, 0.1, 5]}},
        {"parts": [10]},
        {"notes": "text"},
        {"notes": [5]},
        {"notes": ["n"] * 20},
        {"intensity": [1, 2]},
        {"intensity": {"g_per_kwh": 44}},
        {"intensity": {**lookup("FR").to_record(), "low": 50}},
        {"intensity": {**lookup("FR").to_record(), "high": math.nan}},
        {"intensity": {**lookup("FR").to_record(), "g_per_kwh": "44"}},
        {"intensity": {**lookup("FR").to_record(), "live": 1}},
        {"intensity": {**lookup("FR").to_record(), "signal": "market"}},
        {"extra": 1},
    ],
)
def test_a_malformed_record_is_an_encoding_error(change: dict[str, object]) -> None:
    Measurement.from_record(GOOD)
    with pytest.raises(EncodingError):
        Measurement.from_record({**GOOD, **change})


@pytest.mark.parametrize("missing", sorted(GOOD))
def test_every_required_field_is_required(missing: str) -> None:
    with pytest.raises(EncodingError, match=missing):
        Measurement.from_record({name: value for name, value in GOOD.items() if name != missing})


@pytest.mark.parametrize("record", [None, 5, [], "x"])
def test_what_is_not_an_object_is_an_encoding_error(record: object) -> None:
    with pytest.raises(EncodingError):
        Measurement.from_record(record)


def test_a_gap_is_filled_by_what_was_seen_and_widened_by_all_of_it() -> None:
    part = Component(80, 0.1, Method.COUNTER).with_gap(8, 10)
    assert part.energy_joules == pytest.approx(100)
    assert (part.low_joules, part.high_joules) == pytest.approx((80 * 0.9, 80 * 1.1 + 40))
    assert Component(80, 0.1, Method.COUNTER).with_gap(8, 8) == Component(80, 0.1, Method.COUNTER)
    with pytest.raises(MeterError):
        Component(80, 0.1, Method.COUNTER).with_gap(0, 8)
    with pytest.raises(MeterError):
        Component(80, 0.1, Method.COUNTER).with_gap(9, 8)
