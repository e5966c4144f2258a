"""Counters recorded as files: what a machine with RAPL shows under /sys/class/powercap, wraps and accidents included."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from lichen.energy.attribution import TreeUsage
from lichen.energy.measurement import Method
from lichen.energy.rapl import RaplSource, RaplWindow
from lichen.energy.sources import Load
from lichen.errors import MeterError

RANGE = 262_143_328_850  # microjoules: 2^32 counts of 61 uJ, as an Ice Lake package reports


def usage(cpu_seconds: float, *, rss: int = 0) -> TreeUsage:
    return TreeUsage(cpu_seconds, cpu_seconds, cpu_seconds, 1, rss, float(rss), 0, 0, "cgroup")


def load(cpu_seconds: float = 8.0, busy: float | None = 8.0, *, seconds: float = 2.0, rss: int = 0) -> Load:
    """Two seconds on four processors, by default all used by the work."""
    return Load(seconds, usage(cpu_seconds, rss=rss), busy, 4, 64 * 10**9)


class Tree:
    """A fake powercap directory, with a clock that the test moves on."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0

    def detect(self, idle_watts: float | None = None) -> RaplSource:
        return RaplSource.detect(self.root, idle_watts=idle_watts, clock=lambda: self.now)

    def add(self, name: str, label: str, energy: int = 0, limit: int | None = RANGE) -> None:
        directory = self.root / name
        directory.mkdir(parents=True)
        (directory / "name").write_text(f"{label}\n")
        (directory / "energy_uj").write_text(f"{energy}\n")
        if limit is not None:
            (directory / "max_energy_range_uj").write_text(f"{limit}\n")

    def set(self, name: str, energy: int) -> None:
        (self.root / name / "energy_uj").write_text(f"{energy}\n")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    made = Tree(tmp_path / "powercap")
    made.add("intel-rapl:0", "package-0", 1_000_000)
    made.add("intel-rapl:0:0", "core", 500_000)
    made.add("intel-rapl:0:1", "dram", 200_000)
    made.add("intel-rapl:1", "package-1", 2_000_000)
    made.add("intel-rapl:2", "psys", 9_000_000)
    made.add("intel-rapl-mmio:0", "package-0", 1_000_000)
    return made


def opened(tree: Tree, idle_watts: float | None = None, *, seconds: float = 2.0) -> RaplWindow:
    window = tree.detect(idle_watts).open()
    tree.now += seconds
    return window


def test_packages_and_memory_add_up_and_nothing_inside_them_does(tree: Tree) -> None:
    source = tree.detect()
    assert [domain.label for domain in source.domains] == ["package-0", "dram", "package-1"]
    assert source.parts == {"cpu", "ram"}
    window = source.open()
    tree.set("intel-rapl:0", 31_000_000)
    tree.set("intel-rapl:1", 12_000_000)
    tree.set("intel-rapl:0:0", 25_000_000)
    tree.set("intel-rapl:0:1", 5_200_000)
    tree.set("intel-rapl:2", 99_000_000)
    reading = window.close(load(rss=64 * 10**9))
    assert reading.components["cpu"].energy_joules == 40.0
    assert reading.components["ram"].energy_joules == 5.0
    assert reading.components["cpu"].method is Method.COUNTER
    assert reading.components["cpu"].relative_u95 == pytest.approx(0.10 + 0.001)
    assert reading.notes == ()


def test_a_wrap_is_exact(tree: Tree) -> None:
    tree.set("intel-rapl:0", RANGE - 3_000_000)
    window = opened(tree)
    tree.set("intel-rapl:0", 4_500_000)
    assert window.close(load()).components["cpu"].energy_joules == pytest.approx(7.5, abs=1e-9)


def test_wraps_between_polls_are_exact(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("intel-rapl:0", "package-0", 0, limit=1000 * 10**6)
    window = tree.detect().open()
    expected = 0
    value = 0
    for step in [400_000_000, 700_000_000, 998_999_999, 1, 650_000_000]:
        value = (value + step) % (1000 * 10**6)
        tree.set("intel-rapl:0", value)
        tree.now += 0.999  # at a kilowatt, once around is one second
        window.poll()
        expected += step
    assert sum(counter.total_microjoules for counter in window.counters) == expected
    assert not any(counter.ambiguous or counter.reset for counter in window.counters)


def test_a_counter_that_falls_by_an_impossible_wrap_was_reset(tree: Tree) -> None:
    tree.set("intel-rapl:0", 100_000_000)
    window = opened(tree)
    tree.set("intel-rapl:0", 2_000_000)  # a wrap would be 262 kJ in no time
    reading = window.close(load())
    part = reading.components["cpu"]
    assert part.energy_joules == 2.0
    assert part.relative_u95 >= 1
    assert "package-0 was reset" in reading.notes[0]


def test_a_counter_read_too_rarely_is_not_used(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("intel-rapl:0", "package-0", 0, limit=65_532 * 10**6)
    window = opened(tree)
    tree.now += 70  # a kilowatt could have wrapped it twice by now
    tree.set("intel-rapl:0", 1_000_000)
    with pytest.raises(MeterError, match="wrapped unseen"):
        window.close(load(seconds=70))


def test_polls_are_asked_for_often_enough(tree: Tree) -> None:
    assert tree.detect().poll_seconds == pytest.approx(RANGE / 1e6 / 1000 / 2)


def test_a_counter_without_a_range_needs_no_polls(tmp_path: Path) -> None:
    tree = Tree(tmp_path)
    tree.add("intel-rapl:0", "package-0", 0, limit=None)
    assert tree.detect().poll_seconds is None


def test_a_counter_that_vanishes_is_extended_and_said(tree: Tree) -> None:
    window = opened(tree, seconds=1.0)
    tree.set("intel-rapl:0", 5_000_000)
    window.poll()
    tree.now += 1.0
    shutil.rmtree(tree.root / "intel-rapl:0")
    reading = window.close(load(busy=8.0, seconds=2.0))
    part = reading.components["cpu"]
    assert part.energy_joules == pytest.approx(8.0, rel=0.01)  # four joules in one second, for two
    assert part.relative_u95 > 0.5
    assert "package-0 vanished after 1 s" in reading.notes[0]


def test_a_counter_that_vanishes_at_once_leaves_the_part_to_the_next_source(tree: Tree) -> None:
    window = opened(tree)
    shutil.rmtree(tree.root / "intel-rapl:0")
    tree.set("intel-rapl:1", 3_000_000)
    reading = window.close(load())
    assert set(reading.components) == {"ram"}
    assert reading.covered == {"ram"}
    assert reading.notes == ("counter package-0 vanished",)


def test_memory_alone_may_vanish(tree: Tree) -> None:
    window = opened(tree)
    tree.set("intel-rapl:0", 5_000_000)
    shutil.rmtree(tree.root / "intel-rapl:0:1")
    reading = window.close(load())
    assert set(reading.components) == {"cpu"}
    assert reading.covered == {"cpu"}


def test_all_gone_before_the_window_is_an_error(tree: Tree) -> None:
    source = tree.detect()
    shutil.rmtree(tree.root)
    with pytest.raises(MeterError, match="any more"):
        source.open()


@pytest.mark.parametrize("content", ["", "banana\n", "-\n"])
def test_a_counter_that_is_no_number_is_an_error(tree: Tree, content: str) -> None:
    (tree.root / "intel-rapl:0" / "energy_uj").write_text(content)
    with pytest.raises(MeterError, match="cannot be read"):
        tree.detect()


def test_no_counters_say_what_serves_instead(tmp_path: Path) -> None:
    with pytest.raises(MeterError) as caught:
        RaplSource.detect(tmp_path / "powercap")
    assert "load model" in caught.value.remedy


def test_a_missing_permission_says_how_to_grant_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("readable")
    for directory in (root, *root.parents):
        if directory.stat().st_uid == os.geteuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o055)
    tree = Tree(root / "powercap")
    tree.add("intel-rapl:0", "package-0", 1)
    (tree.root / "intel-rapl:0" / "energy_uj").chmod(0)
    message = as_nobody(tree.detect)
    assert "may not be read by this user" in message
    assert "chmod a+r" in message
    assert "udev" in message
    assert "load model" in message


def as_nobody(work: object) -> str:
    """Return the text of the MeterError that ``work`` raises when done without privileges."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            work()  # type: ignore[operator]
            text = "nothing was raised"
        except MeterError as error:
            text = str(error)
        except BaseException as error:
            text = repr(error)
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        return pipe.read()


def test_a_share_of_a_busy_machine_is_allocated_between_capacity_and_busy_share(tree: Tree) -> None:
    window = opened(tree)
    tree.set("intel-rapl:0", 101_000_000)
    tree.set("intel-rapl:1", 2_000_000)
    part = window.close(load(cpu_seconds=1.0, busy=4.0)).components["cpu"]  # of 8 seconds of capacity
    assert part.method is Method.ALLOCATED
    assert part.energy_joules == pytest.approx((100 / 8 + 100 / 4) / 2)
    assert part.low_joules <= 100 / 8 <= 100 / 4 <= part.high_joules


def test_known_idle_power_is_kept_apart(tree: Tree) -> None:
    window = opened(tree, 20.0)
    tree.set("intel-rapl:0", 101_000_000)
    parts = window.close(load(cpu_seconds=1.0, busy=4.0, seconds=2.0)).components
    assert parts["cpu"].energy_joules == pytest.approx((100 - 40) / 4)
    assert parts["idle"].energy_joules == pytest.approx(40 / 8)
    assert parts["cpu"].relative_u95 == pytest.approx(0.101)


def test_unknown_busy_time_leaves_everything_between_its_share_and_all(tree: Tree) -> None:
    window = opened(tree)
    tree.set("intel-rapl:0", 101_000_000)
    part = window.close(load(cpu_seconds=1.0, busy=None)).components["cpu"]
    assert part.high_joules >= 100
    assert part.low_joules <= 100 / 8


def test_work_without_processor_time_costs_no_processor_energy(tree: Tree) -> None:
    window = opened(tree)
    tree.set("intel-rapl:0", 101_000_000)
    assert window.close(load(cpu_seconds=0.0, busy=4.0)).components["cpu"].energy_joules == 0


def test_very_short_windows_say_that_the_counter_ticks(tree: Tree) -> None:
    window = opened(tree)
    tree.set("intel-rapl:0", 1_100_000)
    short = Load(0.004, usage(0.016), 0.016, 4, None)
    assert window.close(short).components["cpu"].relative_u95 == pytest.approx(0.10 + 0.5)


def test_windows_overlap_without_disturbing_each_other(tree: Tree) -> None:
    source = tree.detect()
    first = source.open()
    tree.set("intel-rapl:0", 3_000_000)
    second = source.open()
    tree.set("intel-rapl:0", 6_000_000)
    assert second.close(load()).components["cpu"].energy_joules == 3
    assert first.close(load()).components["cpu"].energy_joules == 5
