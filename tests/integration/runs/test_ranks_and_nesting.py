"""Processes of one distributed run become one record; runs inside runs know each other; nobody waits for anybody."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.runs.conftest import Person

SHARE = """\
import os, pathlib, time
rank = os.environ["RANK"]
rows = pathlib.Path(f"shard-{rank}.csv").read_text()
pathlib.Path(f"part-{rank}.out").write_text(rows * 2)
time.sleep(0.3)
"""


@pytest.fixture
def person(person: Person) -> Person:
    person.write("share.py", SHARE)
    for rank in range(3):
        person.write(f"shard-{rank}.csv", f"{rank}\n")
    return person


def launch(
    person: Person, number: int, *options: str, ranks: tuple[int, ...] = (0, 1), count: int = 2
) -> list[Any]:
    """Start ranks as torchrun does; the report of each."""
    started = []
    for rank in ranks:
        person.variables |= {
            "RANK": str(rank), "WORLD_SIZE": str(count), "LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost",
            "MASTER_PORT": str(29500 + number), "TORCHELASTIC_RUN_ID": f"launch-{number}",
        }  # fmt: skip
        words = (
            "run",
            "--report",
            str(person.ledger / f"rank-{rank}.json"),
            *options,
            "--",
            "python",
            "share.py",
        )
        started.append(person.start(*words))
    ended = [process.communicate(timeout=120) for process in started]
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        del person.variables[name]
    assert [process.returncode for process in started] == [0] * len(ranks), ended
    person.told = "".join(told for _, told in ended)
    assert "bug in Lichen" not in person.told
    return [json.loads((person.ledger / f"rank-{rank}.json").read_text()) for rank in ranks]


def entries(person: Person) -> list[dict[str, Any]]:
    return [json.loads(line) for line in person.type("log", "--json", "--kind", "run").splitlines()]


def clear(person: Person) -> None:
    for path in person.directory.glob("part-*.out"):
        path.unlink()


@pytest.mark.slow
def test_two_ranks_become_one_record_and_are_answered_the_second_time(person: Person) -> None:
    first, second = launch(person, 1)
    assert (first["status"], first["reusable"]) == ("trained", True), first["reasons"]
    assert sorted(first["outputs"]) == ["{project}/part-0.out", "{project}/part-1.out"]
    assert second["record"] is None
    (entry,) = entries(person)
    assert (
        json.loads(person.type("show", str(entry["index"]), "--json"))["statement"]["predicate"]["ranks"] == 2
    )
    clear(person)
    again = launch(person, 2)
    assert [told["status"] for told in again] == ["hit", "hit"]
    assert [told["record"] for told in again] == [first["record"]] * 2
    assert [person.read(f"part-{rank}.out") for rank in (0, 1)] == ["0\n0\n", "1\n1\n"]
    clear(person)
    person.write("shard-1.csv", "changed\n")
    assert [told["status"] for told in launch(person, 3)] == ["trained", "trained"], (
        "what any rank read counts"
    )
    assert person.read("part-1.out") == "changed\nchanged\n"


@pytest.mark.slow
def test_repeats_that_are_wanted_are_made_by_all_ranks(person: Person) -> None:
    launch(person, 1)
    clear(person)
    repeated = launch(person, 2, "--repeat", "2")
    assert [told["status"] for told in repeated] == ["trained", "trained"]
    assert len(entries(person)) == 2
    clear(person)
    assert [told["status"] for told in launch(person, 3, "--repeat", "2")] == ["hit", "hit"]


@pytest.mark.slow
def test_a_distributed_run_inside_a_run_is_counted_once(person: Person) -> None:
    person.write("outer.py", DISTRIBUTED)
    person.run("--", "python", "outer.py")
    told = [json.loads(person.type("show", str(entry["index"]), "--json")) for entry in entries(person)]
    said = [each["statement"]["predicate"] for each in told]
    (inner,) = [each for each in said if "parent" in each]
    assert inner["ranks"] == 2
    (outer,) = [each for each in said if "parent" not in each]
    taken_off = f"without {inner['energy']['joules']:.6g} J of 1 inner run"
    assert taken_off in outer["energy"]["notes"], "what the ranks burnt is theirs, once"


@pytest.mark.slow
def test_a_rank_that_never_came_makes_the_run_partial(person: Person) -> None:
    (first,) = launch(person, 1, ranks=(0,))
    assert not first["reusable"]
    assert "rank-missing" in first["reasons"][0]["text"]
    (again,) = launch(person, 2, ranks=(0,))
    assert again["status"] == "trained"


@pytest.mark.slow
def test_outputs_gone_from_the_store_are_trained_anew_by_all_ranks(person: Person) -> None:
    first, _ = launch(person, 1)
    clear(person)
    model = json.loads(person.type("show", str(first["record"]), "--json"))["manifest"]["outputs"][0]["cid"]
    (place,) = (person.ledger / "store").rglob(model)
    place.unlink()
    assert [told["status"] for told in launch(person, 2)] == ["trained", "trained"]
    assert person.read("part-0.out") == "0\n0\n"


@pytest.mark.slow
def test_ranks_that_cannot_meet_run_all_the_same_and_answer_nothing_later(person: Person) -> None:
    (person.ledger / "ranks").write_text("a file where they should meet")
    told = launch(person, 1)
    assert [each["status"] for each in told] == ["trained", "trained"]
    assert not any(each["reusable"] for each in told)
    assert "warning: " in person.told
    (person.ledger / "ranks").unlink()
    clear(person)
    assert [each["status"] for each in launch(person, 2)] == ["trained", "trained"]
    assert person.read("part-1.out") == "1\n1\n"


DISTRIBUTED = f"""\
import os, subprocess
ranks = []
for rank in range(2):
    told = {{"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "inside",
            "MASTER_ADDR": "localhost", "MASTER_PORT": "29400"}}
    words = [{sys.executable!r}, "-m", "lichen", "run", "--", {sys.executable!r}, "share.py"]
    ranks.append(subprocess.Popen(words, env={{**os.environ, **told}}))
assert [rank.wait() for rank in ranks] == [0, 0]
"""

INNER = "open('inner.out', 'w').write('x' * 100)\n"
OUTER = f"""\
import subprocess
subprocess.run([{sys.executable!r}, "-m", "lichen", "run", "--", {sys.executable!r}, "inner.py"], check=True)
open("outer.out", "w").write("done")
"""


@pytest.mark.slow
def test_a_run_inside_a_run_names_its_parent_and_no_joule_is_counted_twice(person: Person) -> None:
    person.write("inner.py", INNER)
    person.write("outer.py", OUTER)
    outer = person.run("--", "python", "outer.py")
    assert outer["status"] == "trained"
    told = {
        entry["index"]: json.loads(person.type("show", str(entry["index"]), "--json"))
        for entry in entries(person)
    }
    assert len(told) == 2
    inner = told[min(told)]["statement"]["predicate"]
    assert inner["parent"]
    assert "parent" not in told[outer["record"]]["statement"]["predicate"]
    balance = json.loads(person.type("balance", "--json"))
    assert balance["runs_joules"] == pytest.approx(
        outer["energy_joules"] + inner["energy"]["joules"], rel=1e-3
    )


def test_a_missing_program_is_told_by_its_status(person: Person) -> None:
    assert shutil.which("no-such-program") is None
    with person.start("run", "--", "no-such-program", stderr=subprocess.PIPE) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 127
    assert "no-such-program" in told
