from __future__ import annotations

import math

import pytest

from lichen.energy.declared import declare
from lichen.energy.measurement import Boundary, Component, Measurement, Method
from lichen.energy.plausibility import check_carbon, check_claim, check_record
from lichen.units import joules_from_kilowatt_hours


def claim(
    joules: float,
    seconds: float,
    *,
    device: str = "EPYC x2",
    boundary: Boundary = Boundary.PROCESS,
    method: Method = Method.MODEL,
    u95: float = 0.3,
    part: str = "cpu",
) -> Measurement:
    return Measurement({part: Component(joules, u95, method)}, seconds, boundary, device)


def rules(measurement: Measurement, flop: float | None = None) -> list[str]:
    return [violation.rule for violation in check_claim(measurement, flop=flop)]


@pytest.mark.parametrize(
    "measurement",
    [
        claim(310, 20),
        claim(0.0001, 3600),  # a process that slept
        claim(0, 0),
        claim(
            5600 * 3600, 3600, device="H100 x8", boundary=Boundary.DEVICE, method=Method.COUNTER, part="gpu"
        ),
        declare(
            joules_from_kilowatt_hours(1_287_000), 15 * 86400, device="V100 x10000", boundary=Boundary.SITE
        ),
        declare(3.6e6, 3600, device="laptop", relative_u95=0.2),
    ],
)
def test_what_may_be_true_passes(measurement: Measurement) -> None:
    assert check_claim(measurement) == []


def test_a_power_no_machine_draws() -> None:
    found = check_claim(claim(1e7, 1))
    assert found[0].rule == "energy.power-too-high"
    assert "10.0 MW" in found[0].message


def test_any_energy_in_next_to_no_time() -> None:
    assert rules(claim(1, 5e-324)) == ["energy.power-too-high", "energy.power-over-device"]


def test_a_thousand_fold_slip_is_named() -> None:
    found = check_claim(claim(310e3 * 1000, 20, device="box"))
    assert "kilojoules" in found[0].message


def test_kilowatt_hours_written_as_joules_are_named() -> None:
    found = check_claim(declare(5.0, 36_000, device="A100", relative_u95=0.1))  # 5 kWh in ten hours
    assert [violation.rule for violation in found] == ["energy.power-too-low"]
    assert "kilowatt hours entered as joules" in found[0].message


def test_less_than_an_idle_machine_draws() -> None:
    assert rules(claim(10, 3600, boundary=Boundary.NODE)) == ["energy.power-too-low"]


def test_energy_in_no_time() -> None:
    assert rules(claim(10, 0)) == ["energy.no-duration"]


def test_more_than_the_processor_can_draw() -> None:
    assert rules(claim(1000, 1, device="EPYC x2")) == ["energy.power-over-device"]
    assert rules(claim(1000, 1, device="EPYC x256")) == []


def test_cards_beside_a_processor_are_not_taken_for_its_threads() -> None:
    assert rules(claim(1000, 1, device="NVIDIA H100 80GB HBM3 x8 + AMD EPYC 7742 x256")) == []
    assert rules(claim(1000, 1, device="NVIDIA H100 80GB HBM3 x8 + AMD EPYC x4")) == [
        "energy.power-over-device"
    ]
    assert rules(claim(1000, 1, device="NVIDIA Quadro GV200 x2")) == []


@pytest.mark.parametrize(
    ("device", "watts", "fine"),
    [
        ("NVIDIA L4 x1", 70, True),
        ("NVIDIA L4 x1", 200, False),
        ("NVIDIA A100-SXM4-80GB x4", 1600, True),
        ("NVIDIA A100-SXM4-80GB x4", 3000, False),
        ("NVIDIA H100 80GB HBM3", 11_000, True),
        ("NVIDIA H100 80GB HBM3", 17_000, False),
        ("some card x1", 15_000, True),
    ],
)
def test_more_than_the_cards_can_draw(device: str, watts: float, fine: bool) -> None:
    found = rules(
        claim(
            watts * 10,
            10,
            device=device,
            boundary=Boundary.DEVICE,
            method=Method.COUNTER,
            u95=0.1,
            part="gpu",
        )
    )
    assert found == ([] if fine or watts * 0.9 < 72 else ["energy.power-over-device"])


def test_an_uncertainty_nobody_has() -> None:
    assert rules(claim(310, 20, u95=0.001)) == ["energy.too-certain"]
    assert rules(claim(310, 20, u95=0.0, method=Method.COUNTER)) == ["energy.too-certain"]
    assert rules(claim(310, 20, u95=0.02, method=Method.COUNTER)) == []


def test_more_arithmetic_than_joules_can_pay_for() -> None:
    assert rules(claim(100, 10), flop=1e18) == ["energy.too-much-arithmetic"]
    assert rules(claim(100, 10), flop=math.nan) == ["energy.too-much-arithmetic"]
    assert rules(claim(100, 10), flop=1e12) == []


def test_a_malformed_record_is_a_violation_not_an_exception() -> None:
    assert check_record({"joules": "many"})[0].rule == "energy.malformed"
    assert check_record(claim(310, 20).to_record()) == []
    assert check_record(claim(1e7, 1).to_record())[0].rule == "energy.power-too-high"


def test_carbon_that_no_grid_emits() -> None:
    """The figures of an official sample: 0.4 kWh and 31.22 tonnes."""
    found = check_carbon(joules_from_kilowatt_hours(0.4), 31.22e6)
    assert found[0].rule == "carbon.intensity-too-high"
    assert "g" in found[0].message
    slipped = check_carbon(joules_from_kilowatt_hours(0.4), 150e6)
    assert "entered as tonnes" in slipped[0].message or "kilograms" in slipped[0].message


@pytest.mark.parametrize(
    ("kilowatt_hours", "grams", "rule"),
    [
        (1.0, 44.2, None),
        (1.0, 0.0, None),
        (0.0, 0.0, None),
        (0.0, 5.0, "carbon.without-energy"),
        (1.0, -1.0, "carbon.not-a-quantity"),
        (1.0, math.nan, "carbon.not-a-quantity"),
        (1.0, math.inf, "carbon.not-a-quantity"),
        (1.0, 1501.0, "carbon.intensity-too-high"),
    ],
)
def test_carbon_beside_energy(kilowatt_hours: float, grams: float, rule: str | None) -> None:
    found = check_carbon(joules_from_kilowatt_hours(kilowatt_hours), grams)
    assert [violation.rule for violation in found] == ([] if rule is None else [rule])
