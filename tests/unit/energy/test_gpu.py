"""Graphics cards behind a driver that the test plays."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from lichen.energy.attribution import TreeUsage
from lichen.energy.gpu import GpuSource, GpuWindow
from lichen.energy.measurement import Method
from lichen.energy.sources import Load
from lichen.errors import MeterError

OWN = 4242
STRANGER = 99


@dataclass
class Card:
    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = "GPU-aaaa"
    energy: int | None = 1_000_000
    power: int | None = 100_000
    users: frozenset[int] | None = frozenset()


@dataclass
class Driver:
    """A driver as the port asks for it; the test turns the cards' dials."""

    cards: list[Card] = field(default_factory=lambda: [Card()])

    @property
    def device_count(self) -> int:
        return len(self.cards)

    def name(self, index: int) -> str:
        return self.cards[index].name

    def uuid(self, index: int) -> str:
        return self.cards[index].uuid

    def energy_millijoules(self, index: int) -> int | None:
        return self.cards[index].energy

    def power_milliwatts(self, index: int) -> int | None:
        return self.cards[index].power

    def process_ids(self, index: int) -> frozenset[int] | None:
        return self.cards[index].users


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def load(seconds: float = 10.0) -> Load:
    return Load(seconds, TreeUsage(1, 1, 1, 1, 0, None, 0, 0, "cgroup"), None, 4, None)


def opened(driver: Driver, clock: Clock) -> GpuWindow:
    return GpuSource(driver, tuple(range(driver.device_count)), lambda: frozenset({OWN}), clock).open()


def test_the_counter_of_a_card_the_work_used_counts() -> None:
    driver, clock = Driver(), Clock()
    window = opened(driver, clock)
    driver.cards[0].users = frozenset({OWN})
    clock.now += 5
    driver.cards[0].energy = 2_500_000
    window.poll()
    clock.now += 5
    driver.cards[0].energy = 4_000_000
    reading = window.close(load())
    part = reading.components["gpu"]
    assert (part.energy_joules, part.relative_u95, part.method) == (3000.0, 0.10, Method.COUNTER)
    assert reading.notes == ()


def test_a_card_the_work_did_not_use_is_not_charged() -> None:
    driver, clock = Driver([Card(), Card(users=frozenset({STRANGER}))]), Clock()
    window = opened(driver, clock)
    for card in driver.cards:
        assert card.energy is not None
        card.energy += 500_000
    clock.now += 10
    assert window.close(load()).components == {}


def test_a_card_others_use_too_is_allocated_between_nothing_and_all() -> None:
    driver, clock = Driver([Card(users=frozenset({STRANGER}))]), Clock()
    window = opened(driver, clock)
    driver.cards[0].users = frozenset({STRANGER, OWN})
    driver.cards[0].energy = 2_000_000
    clock.now += 10
    reading = window.close(load())
    part = reading.components["gpu"]
    assert part.method is Method.ALLOCATED
    assert part.low_joules == 0
    assert part.high_joules >= 1000
    assert "shared" in reading.notes[0]


def test_in_a_container_a_newcomer_on_the_card_is_taken_for_the_work() -> None:
    """Process ids of the host and of the container differ, so the work is known by when it came."""
    driver, clock = Driver(), Clock()
    window = opened(driver, clock)
    driver.cards[0].users = frozenset({31_337})
    driver.cards[0].energy = 2_000_000
    clock.now += 10
    assert window.close(load()).components["gpu"].energy_joules == 1000


def test_a_driver_that_names_no_users_gives_an_allocation() -> None:
    driver, clock = Driver([Card(users=None)]), Clock()
    window = opened(driver, clock)
    driver.cards[0].energy = 2_000_000
    clock.now += 10
    assert window.close(load()).components["gpu"].method is Method.ALLOCATED


def test_power_is_sampled_where_there_is_no_counter() -> None:
    driver, clock = Driver([Card(energy=None, power=100_000, users=frozenset({OWN}))]), Clock()
    source = GpuSource(driver, (0,), lambda: frozenset({OWN}), clock)
    assert source.method is Method.SAMPLED
    assert source.poll_seconds == 0.1
    window = source.open()
    for power in (200_000, 300_000):
        clock.now += 5
        driver.cards[0].power = power
        window.poll()
    part = window.close(load()).components["gpu"]
    assert part.energy_joules == pytest.approx((150 + 250) * 5)
    assert (part.method, part.relative_u95) == (Method.SAMPLED, 0.30)


def test_a_card_that_stops_answering_is_extended_and_said() -> None:
    driver, clock = Driver([Card(users=frozenset({OWN}))]), Clock()
    window = opened(driver, clock)
    driver.cards[0].energy = 2_000_000
    clock.now += 5
    window.poll()
    driver.cards[0].energy = None
    clock.now += 5
    reading = window.close(load())
    part = reading.components["gpu"]
    assert part.energy_joules == pytest.approx(2000)
    assert part.relative_u95 > 0.5
    assert "stopped answering after 5 s" in reading.notes[0]


def test_a_card_that_never_answers_is_an_error() -> None:
    driver, clock = Driver([Card(users=frozenset({OWN}))]), Clock()
    window = opened(driver, clock)
    driver.cards[0].energy = None
    clock.now += 5
    with pytest.raises(MeterError, match="no readings"):
        window.close(load())


def test_several_cards_add_up_under_the_weakest_method() -> None:
    driver = Driver([Card(users=frozenset({OWN})), Card(users=frozenset({OWN}), energy=None, power=50_000)])
    clock = Clock()
    window = opened(driver, clock)
    driver.cards[0].energy = 2_000_000
    clock.now += 10
    part = window.close(load()).components["gpu"]
    assert part.energy_joules == 1500
    assert part.method is Method.SAMPLED
    assert part.relative_u95 == pytest.approx((1000 * 0.1 + 500 * 0.3) / 1500)


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, (0, 1, 2)),
        ("1", (1,)),
        ("2,0", (2, 0)),
        ("GPU-b", (1,)),
        ("0,7,1", (0,)),
        ("0,0", (0,)),
        (" 1 , 2 ", (1, 2)),
    ],
)
def test_the_variable_narrows_the_cards(visible: str | None, indices: tuple[int, ...]) -> None:
    driver = Driver([Card(uuid="GPU-a"), Card(uuid="GPU-b"), Card(uuid="GPU-c")])
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert GpuSource.detect(driver, environment).indices == indices


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_all_cards_hidden_means_no_source(visible: str) -> None:
    with pytest.raises(MeterError, match="shows no card"):
        GpuSource.detect(Driver(), {"CUDA_VISIBLE_DEVICES": visible})


def test_cards_are_named_with_their_number() -> None:
    source = GpuSource.detect(Driver([Card(), Card(), Card(name="NVIDIA T4")]), {})
    assert source.device == "NVIDIA H100 80GB HBM3 x2, NVIDIA T4 x1"
    assert source.poll_seconds == 0.5
