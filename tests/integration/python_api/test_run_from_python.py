"""`lichen.run` in real scripts: what is recorded, when it is answered, and that the script's own fate stays its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lichen
from lichen.errors import NotALedgerError, UsageError
from lichen.runs.keeping.setup import create_ledger
from lichen.runs.request import RunResult
from lichen.runs.workspace.config import UserConfig

SCRIPT = """
import json, sys
import lichen
from helper import fit

depth = int(sys.argv[1])
with lichen.run("fit", data=["data.csv"], params={"depth": depth}, seeds={"seed": SEED}) as run:
    restored = run.restore()
    if not restored:
        value = fit(open("data.csv").read(), depth)
        EXTRA
        lichen.log(step=1, accuracy=0.5)
        run.log(accuracy=value)
        run.output("out/model.txt").parent.mkdir(exist_ok=True)
        open("out/model.txt", "w").write(str(value))
result = run.result
print(json.dumps({
    "restored": restored, "status": result.status, "record": result.record, "reusable": result.reusable,
    "reasons": [code for code, _ in result.reasons], "metrics": dict(result.metrics), "outputs": list(result.outputs),
    "nearest": [near.run.index for near in run.nearest], "joules": result.measurement and result.measurement.energy_joules,
    "avoided": result.avoided_joules, "texts": [text for _, text in result.reasons],
}))
"""


def test_a_run_decorates_no_function() -> None:
    with pytest.raises(UsageError, match="decorates no function") as caught:

        @lichen.run("fit")
        def fit() -> None: ...

    assert 'with lichen.run("name") as run' in str(caught.value.remedy)


def test_a_result_is_shown_in_a_few_lines() -> None:
    result = RunResult("hit", 0, record=7, receipt="x" * 10_000, metrics={"accuracy": 0.9})
    assert "record=7" in repr(result)
    assert len(repr(result)) < 1000
    assert str(result) == "hit, entry 7, accuracy 0.9"
    lost = RunResult("failed", 1, record=8, reasons=[("exit", "it crashed")], author="ada")
    assert str(lost) == "failed, entry 8, not reusable: exit"


class Project:
    """A project with a ledger, in which scripts are run as a user runs them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "data.csv").write_text("1,2\n3,4\n")
        (root / "helper.py").write_text("def fit(text, depth):\n    return len(text) / 10 + depth\n")
        self.write()
        create_ledger(root / ".lichen", name=None, access="private", member="ada", user=UserConfig.read())

    def write(self, extra: str = "pass", seed: int = 1, script: str = SCRIPT) -> None:
        (self.root / "train.py").write_text(script.replace("EXTRA", extra).replace("SEED", str(seed)))

    def start(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "train.py", *words],
            cwd=self.root,
            capture_output=True,
            text=True,
            check=False,
            env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
        )

    def run(self, depth: int = 4) -> dict[str, object]:
        done = self.start(str(depth))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        told = json.loads(done.stdout)
        assert isinstance(told, dict)
        return told


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_work_is_recorded_once_and_answered_the_second_time(project: Project) -> None:
    first = project.run()
    assert first["status"] == "trained"
    assert first["reusable"] is True, first["texts"]
    assert first["metrics"] == {"accuracy": 4.8}
    assert first["outputs"] == ["{project}/out/model.txt"]
    assert isinstance(first["joules"], float)
    made = (project.root / "out" / "model.txt").read_text()
    (project.root / "out" / "model.txt").unlink()
    again = project.run()
    assert (again["status"], again["record"], again["restored"]) == ("hit", first["record"], True)
    assert again["avoided"] == pytest.approx(first["joules"], rel=1e-4)
    assert (project.root / "out" / "model.txt").read_text() == made


def test_another_parameter_is_other_work_near_the_first(project: Project) -> None:
    first = project.run(4)
    second = project.run(5)
    assert second["status"] == "trained"
    assert second["nearest"] == [first["record"]]


@pytest.mark.parametrize("changed", ["data.csv", "helper.py", "train.py", "undeclared.txt"])
def test_whatever_it_depends_on_may_not_change(project: Project, changed: str) -> None:
    (project.root / "undeclared.txt").write_text("x")
    project.write(extra='open("undeclared.txt").read()')
    first = project.run()
    assert first["reusable"] is True, first["texts"]
    with (project.root / changed).open("a") as file:
        file.write("\n")
    assert project.run()["status"] == "trained"


def test_a_seed_alone_is_same_work(project: Project) -> None:
    first = project.run()
    project.write(
        script=SCRIPT.replace(
            'seeds={"seed": SEED}', 'seeds={"seed": int(sys.argv[2])}, accept=["same-work"]'
        )
    )
    second = json.loads(project.start("4", "7").stdout)
    third = json.loads(project.start("4", "8").stdout)
    assert second["status"] == "trained"  # the script itself is another
    assert (third["status"], third["record"]) == ("hit", second["record"])
    assert third["record"] != first["record"]


def test_an_exception_is_recorded_and_goes_on(project: Project) -> None:
    project.write(extra="raise ValueError('no convergence')")
    done = project.start("4")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "ValueError: no convergence"
    with lichen.open(project.root) as ledger:
        told = ledger.show()
        assert (told["status"], told["reusable"], told["reason"]) == ("failed", False, "exit-status")
        assert told["detail"]["reasons"] == [
            {"code": "exit-status", "text": "the block ended with ValueError"}
        ]
    project.write()
    assert project.run()["status"] == "trained"


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        ("import subprocess; subprocess.run(['true'])", "partial"),
        ("import os; pid = os.fork(); pid or os._exit(0); os.waitpid(pid, 0)", "partial"),
        ("open('helper.py', 'a').write('# changed')", "appended"),
        ("open('../elsewhere.txt', 'w').write('x')", "outside-roots"),
        ("run.output('never-made')", "declared-output-missing"),
        ("open('data.csv', 'a').write('5')", "appended"),
    ],
    ids=["subprocess", "fork", "own-code", "outside", "missing-output", "appended"],
)
def test_what_cannot_be_answered_for_is_recorded_and_never_a_hit(
    project: Project, extra: str, reason: str
) -> None:
    project.write(extra=extra)
    told = project.run()
    assert told["reusable"] is False
    assert reason in told["reasons"], told["texts"]  # type: ignore[operator]
    assert project.run()["status"] == "trained"
    (project.root.parent / "elsewhere.txt").unlink(missing_ok=True)


def test_a_damaged_ledger_does_not_stop_the_script(project: Project) -> None:
    database = project.root / ".lichen" / "ledger.sqlite"
    os.truncate(database, database.stat().st_size // 2)
    done = project.start("4")
    assert "neither answered nor recorded" in done.stderr
    assert (project.root / "out" / "model.txt").exists()


def test_without_a_ledger_nothing_begins(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with pytest.raises(NotALedgerError, match="holds no ledger"), lichen.run("fit", ledger=str(empty)):
        raise AssertionError("the block must not begin")


NESTED = """
import json, time
import lichen

def burn(seconds):
    start = time.process_time()
    while time.process_time() - start < seconds:
        pass

with lichen.run("outer") as outer:
    burn(0.1)
    with lichen.run("middle") as middle:
        burn(0.1)
        with lichen.run("inner") as inner:
            burn(0.1)
print(json.dumps({run.name: [run.result.record, run.result.measurement.to_record()] for run in (outer, middle, inner)}))
"""


def test_a_block_inside_a_block_is_counted_once(project: Project) -> None:
    project.write(script=NESTED)
    told = json.loads(project.start().stdout)
    joules = {name: energy["joules"] for name, (_, energy) in told.items()}
    taken_off = {
        name: float(energy["notes"][-1].split()[1]) for name, (_, energy) in told.items() if name != "inner"
    }
    assert taken_off["middle"] == pytest.approx(joules["inner"], rel=1e-4), (
        "what the inner block used is not the middle one's"
    )
    assert taken_off["outer"] == pytest.approx(joules["middle"] + joules["inner"], rel=1e-4), (
        "nor the outer one's, once"
    )
    assert min(joules.values()) > 0
    with lichen.open(project.root / ".lichen") as ledger:
        said = {name: ledger.show(str(index))["statement"]["predicate"] for name, (index, _) in told.items()}
    assert "parent" not in said["outer"]
    assert said["middle"]["parent"].startswith("block-")
    assert said["inner"]["parent"].startswith("block-")
    assert said["inner"]["parent"] != said["middle"]["parent"]


def test_blocks_may_be_nested(project: Project) -> None:
    project.write(
        script="import lichen\n"
        "with lichen.run('outer') as outer:\n"
        "    with lichen.run('inner', params={'x': 1}) as inner:\n"
        "        lichen.log(loss=1.0)\n"
        "    lichen.log(loss=2.0)\n"
        "print(inner.result.metrics, outer.result.metrics)\n"
    )
    assert project.start().stdout == "{'loss': 1.0} {'loss': 2.0}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "data.csv"}, "lists of paths"),
        ({"data": ["missing.csv"]}, "is not there"),
        ({"data": [object()]}, "not paths"),
        ({"params": {"model": object()}}, "JSON cannot hold"),
        ({"params": {"x": float("nan")}}, "JSON cannot hold"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        lichen.run("fit", **arguments)  # type: ignore[arg-type]


def test_a_run_needs_a_name() -> None:
    with pytest.raises(UsageError, match="needs a name"):
        lichen.run(" ")


def test_a_block_is_entered_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.root)
    run = lichen.run("fit")
    with run:
        pass
    with pytest.raises(UsageError, match="has begun already"), run:
        raise AssertionError("the block must not begin")
