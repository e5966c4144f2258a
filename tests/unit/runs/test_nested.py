"""A run inside a run is told apart and counted once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lichen.energy.measurement import Boundary, Component, Measurement, Method
from lichen.runs.distributed.nested import (
    NestedRun,
    SurroundingRun,
    leave_note,
    mark,
    nested_runs,
    own_share,
    surrounding_run,
)


def measured(
    cpu_joules: float, method: Method = Method.MODEL, u95: float = 0.2, **more: float
) -> Measurement:
    parts = {"cpu": cpu_joules, **more}
    components = {name: Component(joules, u95, method) for name, joules in parts.items()}
    return Measurement(components, 10.0, Boundary.PROCESS, "test device")


def note(run_id: str, measurement: Measurement | None) -> NestedRun:
    return NestedRun(run_id, "trained", 7, measurement.to_record() if measurement else None)


def test_a_process_started_by_a_run_finds_it(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    mark(environment, "run-1", tmp_path)
    code = "from lichen.runs.distributed.nested import surrounding_run; print(surrounding_run())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == str(SurroundingRun("run-1", tmp_path))


@pytest.mark.parametrize("value", ["", "..", "a/b", "x" * 65, "a b", "-a"])
def test_what_is_no_id_names_no_run(value: str) -> None:
    assert surrounding_run({"LICHEN_RUN_ID": value}) is None


def test_an_id_that_cannot_be_one_is_not_handed_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no id"):
        mark({}, "../x", tmp_path)


@pytest.mark.parametrize("directory", ["", "relative", "/no/such/directory", "/dev/null", "\0"])
def test_a_run_that_has_ended_is_named_and_not_written_to(directory: str) -> None:
    found = surrounding_run({"LICHEN_RUN_ID": "run-1", "LICHEN_RUN_DIR": directory})
    assert found == SurroundingRun("run-1", None)
    assert not leave_note(found, note("inner", None))


def test_a_link_in_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    environment = {"LICHEN_RUN_ID": "run-1", "LICHEN_RUN_DIR": str(tmp_path / "link")}
    assert surrounding_run(environment) == SurroundingRun("run-1", None)


def test_notes_reach_the_outer_run(tmp_path: Path) -> None:
    outer = SurroundingRun("run-1", tmp_path)
    left = [note("b", measured(5)), note("a", None), NestedRun("c", "hit", None, None)]
    assert all(leave_note(outer, nested) for nested in left)
    assert nested_runs(tmp_path) == (left[1], left[0], left[2])


def test_a_run_without_inner_runs_finds_none(tmp_path: Path) -> None:
    assert nested_runs(tmp_path) == ()
    assert nested_runs(tmp_path / "missing") == ()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\xff", b'{"status": "trained"}', b'{"record": 1, "energy": 3}']
)
def test_a_damaged_note_is_passed_over(tmp_path: Path, content: bytes) -> None:
    outer = SurroundingRun("run-1", tmp_path)
    leave_note(outer, note("whole", None))
    (tmp_path / "nested" / "broken.json").write_bytes(content)
    assert [nested.run_id for nested in nested_runs(tmp_path)] == ["whole"]


def test_a_note_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "nested").touch()
    assert not leave_note(SurroundingRun("run-1", tmp_path), note("inner", None))
    assert not leave_note(SurroundingRun("run-1", tmp_path / "nested"), note("..", None))


def test_records_of_inner_and_outer_runs_add_up_to_what_was_measured() -> None:
    total = measured(100, ram=10.0)
    inner = [note("a", measured(30, ram=2.0)), note("b", measured(20, ram=1.0)), note("hit", None)]
    own = own_share(total, inner)
    assert own.components["cpu"].energy_joules == pytest.approx(50)
    assert own.components["ram"].energy_joules == pytest.approx(7)
    assert own.relative_u95 == pytest.approx(0.2)
    assert own.method is Method.MODEL
    assert own.duration_seconds == total.duration_seconds
    assert "without 53 J of 2 inner runs" in own.notes


def test_a_run_without_inner_runs_keeps_its_figure() -> None:
    total = measured(100)
    assert own_share(total, [note("hit", None)]) is total


def test_the_share_never_falls_below_zero() -> None:
    own = own_share(measured(10), [note("a", measured(11))])
    assert own.energy_joules == 0


def test_uncertainties_of_different_methods_add() -> None:
    own = own_share(measured(100, Method.COUNTER, 0.05), [note("a", measured(40, Method.MODEL, 0.5))])
    assert own.energy_joules == pytest.approx(60)
    assert own.relative_u95 == pytest.approx((100 * 0.05 + 40 * 0.5) / 60)
    assert own.method is Method.MODEL


def test_a_figure_that_is_none_is_not_taken_off(tmp_path: Path) -> None:
    outer = SurroundingRun("run-1", tmp_path)
    leave_note(outer, note("a", measured(5)))
    path = tmp_path / "nested" / "a.json"
    path.write_text(json.dumps({"status": "trained", "record": None, "energy": {"joules": "many"}}))
    total = measured(10)
    assert own_share(total, nested_runs(tmp_path)) is total
