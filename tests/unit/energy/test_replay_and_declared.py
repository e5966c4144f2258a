from __future__ import annotations

from pathlib import Path

import pytest

from lichen.energy.attribution import TreeUsage
from lichen.energy.declared import declare
from lichen.energy.measurement import Boundary, Method
from lichen.energy.replay import ReplaySource
from lichen.energy.sources import Load, Reading
from lichen.errors import EncodingError, MeterError, StorageError

LOAD = Load(1.0, TreeUsage(1, 1, 1, 1, 0, None, 0, 0, "self"), None, 1, None)


def replayed(path: Path, text: str, seconds: float) -> Reading:
    path.write_text(text)
    now = [100.0]
    source = ReplaySource.read(path, clock=lambda: now[0])
    window = source.open()
    window.poll()
    now[0] += seconds
    return window.close(LOAD)


COUNTER = "# recorded on a shelf\nseconds,cpu_joules,gpu_joules\n0,1000,50\n10,1100,50\n20,1400,80\n"


@pytest.mark.parametrize(("seconds", "cpu", "gpu"), [(5, 50, 0), (10, 100, 0), (15, 250, 15), (20, 400, 30)])
def test_a_counter_is_played_back_along_straight_lines(
    tmp_path: Path, seconds: float, cpu: float, gpu: float
) -> None:
    reading = replayed(tmp_path / "trace.csv", COUNTER, seconds)
    assert reading.components["cpu"].energy_joules == pytest.approx(cpu)
    assert reading.components["gpu"].energy_joules == pytest.approx(gpu)
    assert reading.components["cpu"].relative_u95 == 0.10
    assert reading.notes == ()


def test_power_is_integrated(tmp_path: Path) -> None:
    reading = replayed(tmp_path / "trace.csv", "seconds,gpu_watts\n0,100\n10,200\n20,200\n", 20)
    assert reading.components["gpu"].energy_joules == pytest.approx(1500 + 2000)


def test_beyond_the_end_is_extended_and_said(tmp_path: Path) -> None:
    reading = replayed(tmp_path / "trace.csv", COUNTER, 25)
    part = reading.components["cpu"]
    assert part.energy_joules == pytest.approx(500)
    assert part.high_joules == pytest.approx(400 * 1.1 + 200)
    assert "covers 20 s of 25 s" in reading.notes[0]


def test_an_empty_power_cell_is_a_gap_that_widens(tmp_path: Path) -> None:
    reading = replayed(tmp_path / "trace.csv", "seconds,cpu_watts\n0,100\n10,100\n20,\n30,100\n40,100\n", 40)
    part = reading.components["cpu"]
    assert part.energy_joules == pytest.approx(4000)
    assert part.relative_u95 == pytest.approx((2000 * 0.1 + 2000 * 1.0) / 4000)
    assert "covers 20 s of 40 s" in reading.notes[0]


def test_an_empty_counter_cell_is_bridged_exactly(tmp_path: Path) -> None:
    reading = replayed(tmp_path / "trace.csv", "seconds,cpu_joules\n0,0\n10,\n20,300\n", 20)
    assert reading.components["cpu"].energy_joules == 300
    assert reading.notes == ()


def test_a_window_of_no_length_meets_no_trace(tmp_path: Path) -> None:
    with pytest.raises(MeterError, match="does not reach"):
        replayed(tmp_path / "trace.csv", COUNTER, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("time,cpu_joules\n0,1\n", "first line"),
        ("seconds\n0\n", "first line"),
        ("seconds,cpu\n0,1\n", "neither"),
        ("seconds,_watts\n0,1\n", "neither"),
        ("seconds,cpu_joules\n0,1\n", "fewer than two"),
        ("seconds,cpu_joules\n0,1\n1,0\n", "falls from 1 to 0"),
        ("seconds,cpu_joules\n0,1\n0,2\n", "line 3: time 0 does not come after 0"),
        ("seconds,cpu_joules\n0,1\n5,banana\n", "line 3: 'banana' is not a number"),
        ("seconds,cpu_joules\n0,1\n5,nan\n", "not finite"),
        ("seconds,cpu_joules\n0,1\n5,-2\n", "not finite"),
        ("seconds,cpu_joules\n0,1\n5\n", "line 3: 1 cells"),
    ],
)
def test_what_is_no_trace_is_an_error_that_names_the_place(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(EncodingError, match=message):
        replayed(tmp_path / "trace.csv", text, 1)


def test_a_missing_or_binary_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="nowhere"):
        ReplaySource.read(tmp_path / "nowhere.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EncodingError, match="not text"):
        ReplaySource.read(tmp_path / "binary.csv")


def test_a_trace_keeps_the_method_of_its_recording(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(COUNTER)
    source = ReplaySource.read(
        path, method=Method.SAMPLED, relative_u95=0.3, boundary=Boundary.DEVICE, device="A100"
    )
    assert (source.name, source.parts, source.method) == ("replay", frozenset({"cpu", "gpu"}), Method.SAMPLED)
    assert (source.boundary, source.device, source.poll_seconds) == (Boundary.DEVICE, "A100", None)
    assert source.basis == "recorded trace"


@pytest.mark.parametrize(
    ("measured_by", "u95"),
    [
        (Method.DECLARED, 1.0),
        (Method.METER, 0.02),
        (Method.COUNTER, 0.1),
        (Method.SAMPLED, 0.3),
        (Method.MODEL, 0.4),
    ],
)
def test_declared_energy_is_as_sure_as_its_speaker_s_method(measured_by: Method, u95: float) -> None:
    stated = declare(3.6e6, 3600, device="H100 x8", measured_by=measured_by)
    assert (stated.method, stated.relative_u95) == (Method.DECLARED, u95)
    assert (
        declare(3.6e6, 3600, device="H100 x8", measured_by=measured_by, relative_u95=0.25).relative_u95
        == 0.25
    )


def test_declared_nonsense_is_refused() -> None:
    with pytest.raises(MeterError):
        declare(-1, 3600, device="H100")
    with pytest.raises(MeterError):
        declare(1, float("nan"), device="H100")
