from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from lichen.energy import sources
from lichen.energy.attribution import TreeUsage
from lichen.energy.declared import DeclaredSource
from lichen.energy.grid import lookup
from lichen.energy.measurement import Boundary, Component, Method
from lichen.energy.meter import Meter, meter_self
from lichen.energy.sources import Load, Reading, Source, choose_sources, named_source
from lichen.errors import MeterError, NotFoundError

USAGE = TreeUsage(2.0, 2.0, 2.0, 3, 10**9, 5e8, 0, 0, "cgroup")


@dataclass
class PlayedWindow:
    source: PlayedSource

    def poll(self) -> None:
        self.source.polls += 1

    def close(self, load: Load) -> Reading:
        self.source.loads.append(load)
        if self.source.fails_at_end:
            raise MeterError("the wire was pulled")
        return Reading(self.source.components, self.source.notes)


@dataclass
class PlayedSource:
    """A source that answers what the test says."""

    components: Mapping[str, Component]
    name: str = "played"
    parts: frozenset[str] = frozenset({"cpu"})
    method: Method = Method.COUNTER
    boundary: Boundary = Boundary.PROCESS
    device: str = "stage"
    basis: str = "the test"
    poll_seconds: float | None = None
    notes: tuple[str, ...] = ()
    fails_at_start: bool = False
    fails_at_end: bool = False
    polls: int = 0
    loads: list[Load] = field(default_factory=list)

    def open(self) -> PlayedWindow:
        if self.fails_at_start:
            raise MeterError("the wire was never there")
        return PlayedWindow(self)


def counter(**joules: float) -> dict[str, Component]:
    return {name: Component(value, 0.1, Method.COUNTER) for name, value in joules.items()}


def test_the_best_source_of_each_part_counts() -> None:
    best = PlayedSource(counter(cpu=10.0), name="best")
    rest = PlayedSource(
        counter(cpu=99.0, idle=99.0, ram=3.0), name="rest", parts=frozenset({"cpu", "ram"}), device="board"
    )
    measured = Meter([best, rest]).start().stop(USAGE)
    assert {name: part.energy_joules for name, part in measured.components.items()} == {
        "cpu": 10.0,
        "ram": 3.0,
    }
    assert measured.device == "stage + board"


@pytest.mark.parametrize("moment", ["fails_at_start", "fails_at_end"])
def test_a_source_that_fails_is_replaced_and_said(moment: str) -> None:
    best = PlayedSource(counter(cpu=10.0), name="best")
    setattr(best, moment, True)
    rest = PlayedSource(counter(cpu=20.0), name="rest", method=Method.MODEL)
    measured = Meter([best, rest]).start().stop(USAGE)
    assert measured.components["cpu"].energy_joules == 20.0
    assert len(measured.notes) == 1
    assert "best" in measured.notes[0]
    assert "wire" in measured.notes[0]


def test_all_failing_is_an_error_that_says_what_failed() -> None:
    with pytest.raises(MeterError) as caught:
        Meter([PlayedSource(counter(cpu=1.0), fails_at_start=True)]).start()
    assert "never there" in caught.value.remedy
    meter = Meter([PlayedSource(counter(cpu=1.0), fails_at_end=True)]).start()
    with pytest.raises(MeterError) as caught:
        meter.stop(USAGE)
    assert "pulled" in caught.value.remedy


def test_a_failure_is_told_once_not_at_every_window() -> None:
    best = PlayedSource(counter(cpu=10.0), fails_at_end=True)
    meter = Meter([best, PlayedSource(counter(cpu=1.0), name="rest")])
    meter.start().stop(USAGE)
    best.fails_at_end = False
    assert meter.start().stop(USAGE).notes == ()


def test_the_widest_boundary_names_the_whole() -> None:
    card = PlayedSource(counter(gpu=10.0), parts=frozenset({"gpu"}), boundary=Boundary.DEVICE)
    unused = PlayedSource({}, parts=frozenset({"disk"}), boundary=Boundary.SITE)
    measured = Meter([card, PlayedSource(counter(cpu=1.0)), unused]).start().stop(USAGE)
    assert measured.boundary is Boundary.DEVICE


def test_a_meter_is_started_once_and_stopped_once() -> None:
    meter = Meter([PlayedSource(counter(cpu=1.0))])
    with pytest.raises(MeterError, match="not running"):
        meter.stop()
    meter.start()
    with pytest.raises(MeterError, match="running already"):
        meter.start()
    meter.stop(USAGE)
    meter.start().stop(USAGE)


def test_an_account_that_failed_is_not_replaced_by_another() -> None:
    """Lichen's own processor time is not that of the command it watched."""
    meter = Meter([PlayedSource(counter(cpu=1.0))]).start()
    with pytest.raises(MeterError, match="not known"):
        meter.stop(None)
    with pytest.raises(MeterError, match="not running"):
        meter.stop()


def test_no_source_is_an_error() -> None:
    with pytest.raises(MeterError, match="no source"):
        Meter([])


def test_sources_see_the_account_and_the_machine() -> None:
    played = PlayedSource(counter(cpu=1.0))
    Meter([played]).start().stop(USAGE)
    load = played.loads[0]
    assert load.usage is USAGE
    assert load.duration_seconds > 0
    assert load.logical_cpu_count >= 1


def test_without_an_account_the_meter_measures_its_own_process() -> None:
    played = PlayedSource(counter(cpu=1.0))
    meter = Meter([played]).start()
    start = time.process_time()
    while time.process_time() - start < 0.05:
        pass
    meter.stop()
    assert played.loads[0].usage.method == "self"
    assert played.loads[0].usage.cpu_seconds >= 0.05


def test_polling_is_done_when_due_and_not_more() -> None:
    eager, calm = (
        PlayedSource(counter(cpu=1.0), poll_seconds=1e-9),
        PlayedSource(counter(ram=1.0), poll_seconds=3600.0),
    )
    still = PlayedSource(counter(gpu=1.0))
    meter = Meter([eager, calm, still], background=False).start()
    for _ in range(5):
        meter.poll()
    meter.stop(USAGE)
    assert (eager.polls, calm.polls, still.polls) == (5, 0, 0)


def test_a_thread_polls_only_where_polling_is_needed_and_ends() -> None:
    before = threading.active_count()
    quiet = Meter([PlayedSource(counter(cpu=1.0))]).start()
    assert threading.active_count() == before
    quiet.stop(USAGE)
    eager = PlayedSource(counter(cpu=1.0), poll_seconds=0.001)
    meter = Meter([eager]).start()
    while eager.polls < 2:
        time.sleep(0.001)
    meter.stop(USAGE)
    assert threading.active_count() == before


def test_leaving_by_an_exception_ends_the_thread() -> None:
    before = threading.active_count()
    meter = Meter([PlayedSource(counter(cpu=1.0), poll_seconds=0.001)])
    with pytest.raises(KeyError), meter:
        raise KeyError
    assert threading.active_count() == before


def test_the_place_is_checked_and_never_guessed() -> None:
    played = PlayedSource(counter(cpu=1.0))
    assert Meter([played]).start().stop(USAGE).zone is None
    assert Meter([played], zone="fr").start().stop(USAGE).zone == "FR"
    with pytest.raises(NotFoundError, match="Atlantis"):
        Meter([played], zone="Atlantis")


def test_a_signal_read_elsewhere_names_the_place() -> None:
    measured = Meter([PlayedSource(counter(cpu=1.0))], intensity=lookup("SE")).start().stop(USAGE)
    assert measured.zone == "SE"
    assert measured.intensity == lookup("SE")


def test_lichen_meters_itself() -> None:
    measured = meter_self().stop()
    assert measured.energy_joules > 0
    assert measured.relative_u95 > 0


def test_this_machine_has_at_least_a_model_and_each_choice_is_explained() -> None:
    choice = choose_sources()
    assert choice.sources[-1].name == "load-model"
    assert len(choice.reasons) == len(sources.SOURCES)
    assert all(isinstance(source, Source) for source in choice.sources)
    names = [reason.partition(":")[0] for reason in choice.reasons]
    assert names == list(sources.SOURCES)


def test_sources_can_be_named() -> None:
    assert [source.name for source in choose_sources(["load-model"]).sources] == ["load-model"]
    with pytest.raises(MeterError) as caught:
        named_source("crystal-ball")
    assert "load-model" in caught.value.remedy


def test_stated_joules_stand_in_for_a_meter() -> None:
    source = DeclaredSource(120.0, 0.1)
    measured = Meter([source, PlayedSource(counter(cpu=5.0))]).start().stop(USAGE)
    assert measured.energy_joules == 120
    assert measured.method is Method.DECLARED
    source.open().poll()


def test_shares_of_a_load() -> None:
    load = Load(10.0, USAGE, 8.0, 4, None)
    assert (load.capacity_share, load.busy_share, load.cpu_relative_u95) == (0.05, 0.25, 0.0)
    assert (
        Load(10.0, USAGE, 1.0, 4, None).busy_share == 1.0
    )  # clock ticks of the machine lag behind the account
    assert Load(10.0, USAGE, None, 4, None).busy_share == 1.0
    assert Load(0.0, USAGE, None, 4, None).capacity_share == 0.0
    nothing = TreeUsage(0, 0, 0, 1, 0, None, 0, 0, "self")
    assert (
        Load(1.0, nothing, 8.0, 4, None).busy_share,
        Load(1.0, nothing, 8.0, 4, None).cpu_relative_u95,
    ) == (0, 0)
