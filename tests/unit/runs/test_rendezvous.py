"""Ranks become one run, and nobody waits for anybody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from lichen.energy.measurement import Boundary, Component, Measurement, Method
from lichen.errors import StorageError
from lichen.runs.distributed.ranks import Rank
from lichen.runs.distributed.rendezvous import (
    JOIN_SECONDS_MAX,
    RankPart,
    Rendezvous,
    addenda,
    remove_old,
    total_energy,
)

DRIVER = str(Path(__file__).with_name("rank_driver.py"))
PATIENCE_SECONDS = 30


def rank(index: int, count: int = 3, *, launch: str = "a" * 32, is_unique: bool = True) -> Rank:
    return Rank(index, count, index, "torchrun", launch, is_unique)


def part(index: int, **more: object) -> RankPart:
    return replace(RankPart(index, f"host{index}", 10, 20, 0, False), **more)


def measured(joules: float, seconds: float = 10.0, boundary: Boundary = Boundary.PROCESS) -> Measurement:
    return Measurement({"cpu": Component(joules, 0.2, Method.MODEL)}, seconds, boundary, "device")


def test_parts_reach_rank_0_with_all_they_say(tmp_path: Path) -> None:
    (tmp_path / "trace.log").write_bytes(b"opened data.csv")
    outputs = [{"path": "/p/model-1.bin", "sha256": "ab", "size_bytes": 3, "cid": "bafk"}]
    left = part(1, energy=measured(7).to_record(), outputs=outputs, usage={"cpu_seconds": 1.5}, exit_status=3)
    first, second, third = (Rendezvous(tmp_path / "ranks", rank(index)) for index in range(3))
    assert second.leave(replace(left, trace=tmp_path / "trace.log"))
    assert third.leave(part(2))
    joined = first.collect()
    assert joined.missing == ()
    assert [one.rank for one in joined.parts] == [1, 2]
    got = joined.parts[0]
    assert got.trace is not None
    assert got.trace.read_bytes() == b"opened data.csv"
    assert replace(got, trace=None) == left
    first.close("run-0", joined)
    assert list((tmp_path / "ranks").iterdir()) == []


def test_a_rank_that_never_came_is_missing_and_not_waited_for(tmp_path: Path) -> None:
    first, second = Rendezvous(tmp_path, rank(0)), Rendezvous(tmp_path, rank(1))
    second.leave(part(1))
    started = time.monotonic()
    assert first.collect(PATIENCE_SECONDS).missing == (2,)
    assert time.monotonic() - started < PATIENCE_SECONDS / 2


def test_a_rank_that_announced_itself_gets_no_more_than_the_grace(tmp_path: Path) -> None:
    first = Rendezvous(tmp_path, rank(0, 2))
    Rendezvous(tmp_path, rank(1, 2))
    assert first.collect(0.05).missing == (1,)


def test_a_late_part_becomes_an_addendum_until_it_is_settled(tmp_path: Path) -> None:
    first, second = Rendezvous(tmp_path, rank(0, 2)), Rendezvous(tmp_path, rank(1, 2))
    first.close("run-0", first.collect(0))
    assert addenda(tmp_path) == ()
    assert not second.leave(part(1, exit_status=9))
    (late,) = addenda(tmp_path)
    assert (late.run_id, late.part.rank, late.part.exit_status) == ("run-0", 1, 9)
    late.settle()
    assert addenda(tmp_path) == ()


def test_what_was_collected_in_time_is_no_addendum(tmp_path: Path) -> None:
    first, second = Rendezvous(tmp_path, rank(0)), Rendezvous(tmp_path, rank(1))
    second.leave(part(1))
    first.close("run-0", first.collect(0))
    assert addenda(tmp_path) == ()


def test_a_rank_that_starts_after_the_run_was_recorded_is_late_too(tmp_path: Path) -> None:
    first = Rendezvous(tmp_path, rank(0, 2))
    first.close("run-0", first.collect(0))
    Rendezvous(tmp_path, rank(1, 2)).leave(part(1))
    assert [late.part.rank for late in addenda(tmp_path)] == [1]


def test_the_first_to_decide_decides_for_all(tmp_path: Path) -> None:
    first, second, third = (Rendezvous(tmp_path, rank(index)) for index in range(3))
    assert second.agree("hit 17") == "hit 17"
    assert first.agree("train") == "hit 17"
    assert third.agree("train") == "hit 17"


def test_a_second_run_in_the_same_launch_is_another_meeting(tmp_path: Path) -> None:
    # A fast rank is in its second run before a slow one is in its first.
    fast = [Rendezvous(tmp_path, rank(1, 2)) for _ in range(2)]
    slow = [Rendezvous(tmp_path, rank(0, 2)) for _ in range(2)]
    assert [one.path for one in fast] == [one.path for one in slow]
    assert fast[0].path != fast[1].path


def test_a_name_that_comes_again_is_another_meeting_after_a_while(tmp_path: Path) -> None:
    old = Rendezvous(tmp_path, rank(0, 2, is_unique=False))
    then = time.time() - JOIN_SECONDS_MAX - 60
    os.utime(old.path, (then, then))
    new = Rendezvous(tmp_path, rank(1, 2, is_unique=False))
    assert new.path != old.path
    assert Rendezvous(tmp_path, rank(0, 2, is_unique=False)).path == new.path


def test_a_name_that_comes_again_is_another_meeting_once_the_run_is_recorded(tmp_path: Path) -> None:
    old = Rendezvous(tmp_path, rank(0, 2, is_unique=False))
    old.close("run-0", old.collect(0))
    assert Rendezvous(tmp_path, rank(1, 2, is_unique=False)).path != old.path


def test_launches_of_different_names_do_not_meet(tmp_path: Path) -> None:
    assert Rendezvous(tmp_path, rank(0)).path != Rendezvous(tmp_path, rank(1, launch="b" * 32)).path


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"rank": 1}', b'{"rank": 1, "surprise": 2}', b"\xff"]
)
def test_a_damaged_part_is_a_missing_one(tmp_path: Path, content: bytes) -> None:
    first, second = Rendezvous(tmp_path, rank(0, 2)), Rendezvous(tmp_path, rank(1, 2))
    second.leave(part(1))
    (second.path / "parts" / "1" / "part.json").write_bytes(content)
    assert first.collect(0).missing == (1,)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/ranks"):
        Rendezvous(tmp_path / "file" / "ranks", rank(0))
    meeting = Rendezvous(tmp_path / "ranks", rank(1))
    (meeting.path / "parts").touch()
    with pytest.raises(StorageError):
        meeting.leave(part(1))


def test_old_launches_are_forgotten(tmp_path: Path) -> None:
    old, new = Rendezvous(tmp_path, rank(0)), Rendezvous(tmp_path, rank(0, launch="b" * 32))
    os.utime(old.path, (1, 1))
    assert remove_old(tmp_path) == 1
    assert not old.path.exists()
    assert new.path.exists()
    assert remove_old(tmp_path / "missing") == 0


def start_ranks(
    directory: Path, report: Path, indexes: list[int], count: int
) -> list[subprocess.Popen[bytes]]:
    """Processes as torchrun starts them."""
    variables = {"WORLD_SIZE": str(count), "TORCHELASTIC_RUN_ID": "one"}
    words = [sys.executable, DRIVER, str(directory), str(report)]
    return [subprocess.Popen(words, env={**os.environ, **variables, "RANK": str(index)}) for index in indexes]


def test_eight_processes_become_one_run(tmp_path: Path) -> None:
    processes = start_ranks(tmp_path / "ranks", tmp_path / "report", [3, 1, 4, 0, 7, 6, 2, 5], 8)
    assert [process.wait(PATIENCE_SECONDS) for process in processes] == [0] * 8
    said = json.loads((tmp_path / "report").read_text())
    assert said["ranks"] == [1, 2, 3, 4, 5, 6, 7]
    assert said["missing"] == []
    assert said["decisions"] == [said["decision"]]


def test_ranks_go_on_when_the_first_is_killed(tmp_path: Path) -> None:
    words = [sys.executable, DRIVER, str(tmp_path / "ranks"), str(tmp_path / "report"), "60"]
    variables = {"WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "one", "RANK": "0"}
    first = subprocess.Popen(words, env={**os.environ, **variables})
    first.kill()
    first.wait()
    (other,) = start_ranks(tmp_path / "ranks", tmp_path / "report", [1], 2)
    assert other.wait(PATIENCE_SECONDS) == 0


def test_shares_of_processes_add_up_and_run_side_by_side() -> None:
    others = [part(1, energy=measured(30, 12.0).to_record()), part(2, energy=measured(20, 8.0).to_record())]
    total = total_energy(measured(50, 10.0), "host0", others)
    assert total.energy_joules == pytest.approx(100)
    assert total.relative_u95 == pytest.approx(0.2)
    assert total.duration_seconds == 12.0


def test_a_whole_machine_counts_once() -> None:
    def node(joules: float) -> Measurement:
        return measured(joules, boundary=Boundary.NODE)

    others = [part(1, host="a", energy=node(110).to_record()), part(2, host="b", energy=node(40).to_record())]
    assert total_energy(node(100), "a", others).energy_joules == pytest.approx(150)


def test_a_rank_without_a_figure_is_noted() -> None:
    total = total_energy(measured(50), "a", [part(1), part(2, energy={"joules": "many"})])
    assert total.energy_joules == 50
    assert total.notes == ("2 of 3 ranks were not measured",)
