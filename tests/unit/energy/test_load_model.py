from __future__ import annotations

import pytest

from lichen.energy.attribution import TreeUsage
from lichen.energy.load_model import LoadModelSource
from lichen.energy.measurement import Boundary, Component, Method
from lichen.energy.processor import Processor, RatedPower, rated_power
from lichen.energy.sources import Load

SERVER = Processor("AuthenticAMD", 25, 160, "AMD EPYC 8024P 8-Core Processor", 16, 8, 1, virtual=False)
GUEST = Processor("AuthenticAMD", 25, 17, "AMD EPYC", 2, 2, 1, virtual=True)
UNKNOWN = Processor("", 0, 0, "", 4, None, 1, virtual=False)


def model(processor: Processor) -> LoadModelSource:
    return LoadModelSource(processor, rated_power(processor))


def load(
    cpu: float,
    *,
    seconds: float = 10.0,
    busy: float | None = None,
    threads: int = 16,
    rss: int = 0,
    mean: float | None = None,
) -> Load:
    usage = TreeUsage(cpu, cpu, cpu, 1, rss, mean, 0, 0, "cgroup")
    return Load(seconds, usage, cpu if busy is None else busy, threads, 64 * 10**9)


def parts(processor: Processor, work: Load) -> dict[str, Component]:
    return dict(model(processor).open().close(work).components)


def test_a_full_machine_carries_what_was_recorded_on_it() -> None:
    """An EPYC 8024P at full load took 46.2 to 46.7 W on its package."""
    found = parts(SERVER, load(160.0))
    watts = (found["cpu"].energy_joules + found["idle"].energy_joules) / 10
    assert watts == pytest.approx(46.5, rel=0.12)
    low = (found["cpu"].low_joules + found["idle"].low_joules) / 10
    high = (found["cpu"].high_joules + found["idle"].high_joules) / 10
    assert low < 46.2 < 46.7 < high


@pytest.mark.parametrize(("share", "watts"), [(0.1, 29.2), (0.2, 38.6), (0.5, 47.6)])
def test_part_load_follows_the_bent_curve(share: float, watts: float) -> None:
    """Recorded package power, less the idle power of the capacity that was not used."""
    truth = watts - 18.26 * (1 - share)
    found = parts(SERVER, load(160.0 * share))
    low = (found["cpu"].low_joules + found["idle"].low_joules) / 10
    high = (found["cpu"].high_joules + found["idle"].high_joules) / 10
    assert low < truth < high


def test_every_part_states_a_method_and_an_interval() -> None:
    for processor in (SERVER, GUEST, UNKNOWN):
        for part in parts(processor, load(5.0, threads=processor.thread_count, rss=10**9, mean=8e8)).values():
            assert part.method is Method.MODEL
            assert part.relative_u95 > 0.05
            assert part.energy_joules > 0


def test_knowing_less_widens_the_interval() -> None:
    known, guest, unknown = (
        parts(processor, load(5.0, threads=processor.thread_count))["cpu"].relative_u95
        for processor in (SERVER, GUEST, UNKNOWN)
    )
    assert known < guest < unknown


def test_a_neighbour_changes_the_point_on_the_curve_but_is_not_charged() -> None:
    alone, beside = parts(SERVER, load(16.0)), parts(SERVER, load(16.0, busy=144.0))
    assert (
        beside["cpu"].energy_joules < alone["cpu"].energy_joules
    )  # a core second is cheaper on a busy machine
    assert beside["idle"].energy_joules == alone["idle"].energy_joules


def test_runs_side_by_side_never_carry_more_than_the_machine() -> None:
    whole = parts(SERVER, load(160.0))
    pieces = [parts(SERVER, load(20.0, busy=160.0)) for _ in range(8)]
    for name in ("cpu", "idle"):
        assert sum(piece[name].energy_joules for piece in pieces) == pytest.approx(whole[name].energy_joules)


def test_an_unknown_load_of_the_machine_is_any_load() -> None:
    usage = TreeUsage(16, 16, 16, 1, 0, None, 0, 0, "wait4")
    blind = dict(model(SERVER).open().close(Load(10, usage, None, 16, None)).components)
    assert blind["cpu"].relative_u95 > parts(SERVER, load(16.0))["cpu"].relative_u95


def test_uncertain_processor_seconds_widen_the_joules() -> None:
    usage = TreeUsage(16, 12, 20, 1, 0, None, 0, 0, "wait4+polling")
    shaky = dict(model(SERVER).open().close(Load(10, usage, 16, 16, None)).components)
    sure = parts(SERVER, load(16.0))
    assert shaky["cpu"].energy_joules == sure["cpu"].energy_joules
    assert shaky["cpu"].relative_u95 == pytest.approx((sure["cpu"].relative_u95 ** 2 + 0.25**2) ** 0.5)


def test_memory_is_charged_by_what_was_held() -> None:
    ram = parts(SERVER, load(1.0, rss=2 * 10**9, mean=1e9))["ram"]
    assert ram.low_joules == pytest.approx(10 * 0.08)
    assert ram.high_joules == pytest.approx(10 * 0.65)
    blind = parts(SERVER, load(1.0, rss=2 * 10**9))["ram"]
    assert blind.low_joules == 0
    assert blind.high_joules == pytest.approx(20 * 0.65)


def test_no_work_costs_nothing() -> None:
    assert all(part.energy_joules == 0 for part in parts(SERVER, load(0.0)).values())


def test_the_source_says_what_it_rests_on() -> None:
    source = model(GUEST)
    assert (source.name, source.boundary, source.poll_seconds) == ("load-model", Boundary.PROCESS, None)
    assert source.basis == "range of AMD EPYC 9004, load curve of EPYC 8024P"
    assert "band of all" in LoadModelSource(UNKNOWN, RatedPower(1, 2, "unknown processor", "")).basis
    source.open().poll()
    assert LoadModelSource.detect().parts == {"cpu", "ram"}
