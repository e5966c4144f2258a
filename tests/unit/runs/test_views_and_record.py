"""Query tables say what the entries say, built at once or anew; the entry of a usual run stays short."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lichen.contracts.registry import exact_fingerprint, same_work_fingerprint
from lichen.encoding.statement import Statement
from lichen.runs.records.flags import flag, withdraw
from lichen.runs.records.publish import evaluate, publish
from lichen.runs.request import RunRequest
from lichen.runs.reuse.hit import take_hit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.runs.conftest import Clinic, Listener

TABLES = (
    "view_run", "view_output", "view_artefact", "view_edge", "view_flag", "view_withdrawn", "view_reuse", "view_member"
)  # fmt: skip
WORK = """SELECT data.name, metric.name, energy_millijoules, idx, value FROM view_work
    LEFT JOIN view_name AS data ON data.id = data_id LEFT JOIN view_name AS metric ON metric.id = metric_id"""


def fill(clinic: Clinic, listener: Listener) -> None:
    """Leave a record of every kind."""
    clinic.admit("bob")
    data = clinic.write("data.csv", "1,2\n")
    publish(clinic.workspace(), "data", data, title="clinic A")
    metrics = {"accuracy": 0.9, "loss": 0.25}
    done = clinic.run(reads=["data.csv"], writes={"model.bin": "w", "plot.png": "p"}, metrics=metrics)
    clinic.run(reads=["data.csv"], writes={"model.bin": "x", "plot.png": "p"}, metrics=metrics, member="bob")
    clinic.run("python", "train.py", "--bad", reads=["data.csv"], metrics={"accuracy": 0.1}, status="failed")
    model = publish(clinic.workspace(), "model", clinic.root / "model.bin", data=(data,))
    evaluate(clinic.workspace(), model.index, {"auc": 0.8})
    flag(clinic.workspace(), str(model.index), "wrong for the young", data=(data,))
    (clinic.root / "model.bin").unlink()
    taken = take_hit(
        clinic.workspace(), RunRequest(("python", "train.py")), clinic.ask(), listener, declared_outputs=()
    )
    assert taken is not None
    assert taken.credited
    withdraw(clinic.workspace(), str(done.record), "wrong data")


def content(clinic: Clinic) -> dict[str, list[Any]]:
    connection = clinic.workspace().ledger.connection
    found = {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}
    found["work"] = connection.execute(WORK).fetchall()
    return {table: sorted(rows, key=repr) for table, rows in found.items()}


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_views_built_anew_equal_those_built_entry_by_entry(clinic: Clinic, listener: Listener) -> None:
    fill(clinic, listener)
    before = content(clinic)
    assert all(before.values()), "a table is empty, so nothing was compared"
    assert set(clinic.workspace().ledger.rebuild_views(every=True)) == {
        "runs",
        "artefacts",
        "reuse",
        "members",
    }
    assert content(clinic) == before


def test_work_is_found_by_data_and_metric_and_failed_work_by_data_only(
    clinic: Clinic, listener: Listener
) -> None:
    fill(clinic, listener)
    rows = clinic.workspace().ledger.connection.execute(WORK).fetchall()
    by_metric: dict[str | None, int] = {}
    for _, metric, *_ in rows:
        by_metric[metric] = by_metric.get(metric, 0) + 1
    assert by_metric == {None: 3, "accuracy": 2, "loss": 2}


def usual_run(clinic: Clinic) -> int:
    """2 outputs, 2 data files, 3 metrics, 5 parameters."""
    for name in ("train.csv", "test.csv"):
        clinic.write(f"data/{name}", name)
    parameters = ("--depth", "6", "--rate", "0.05", "--rounds", "400", "--fold", "3", "--loss", "logistic")
    done = clinic.run(
        "python", "train.py", *parameters, reads=["data/train.csv", "data/test.csv"],
        writes={"out/model.joblib": "w" * 100, "out/predictions.csv": "1,2"},
        metrics={"accuracy": 0.9514285714285714, "auc": 0.9872341234, "log_loss": 0.14159265358979312},
        joules=1843.1415926535, seconds=12.345678901,
    )  # fmt: skip
    assert done.record is not None
    return done.record


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_the_entry_of_a_usual_run_is_short(clinic: Clinic) -> None:
    entry = clinic.workspace().ledger.entry(usual_run(clinic))
    assert len(entry.to_bytes()) <= 1_280


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_names_of_files_and_words_of_commands_stay_out_of_private_entries(clinic: Clinic) -> None:
    entry = clinic.workspace().ledger.entry(usual_run(clinic))
    said = entry.payload.decode()
    for word in ("train.py", "train.csv", "predictions", "logistic", str(clinic.root)):
        assert (word in said) == (word == "predictions" and clinic.workspace().group_key is None), word


def test_equal_small_data_cannot_be_recognised_across_private_ledgers(clinic: Clinic) -> None:
    import hashlib

    from lichen.encoding.base import b64u

    entry = clinic.workspace().ledger.entry(usual_run(clinic))
    plain = b64u(hashlib.sha256(b"train.csv").digest())
    assert plain not in entry.payload.decode()


def test_fingerprints_of_the_row_are_those_of_the_entry(clinic: Clinic) -> None:
    clinic.write("data.csv")
    one = clinic.run("python", "train.py", "--seed", "1", reads=["data.csv"], seeds=["seed"])
    two = clinic.run("python", "train.py", "--seed", "2", reads=["data.csv"], seeds=["seed"])
    rows = {}
    for done in (one, two):
        assert done.record is not None
        ledger = clinic.workspace().ledger
        parts = Statement.from_bytes(ledger.entry(done.record).payload).predicate["parts"]
        row = ledger.connection.execute(
            "SELECT exact, same_work FROM view_run WHERE idx = ?", (done.record,)
        ).fetchone()
        assert row == (exact_fingerprint(parts), same_work_fingerprint(parts))
        rows[done.record] = row
    (exact_one, same_one), (exact_two, same_two) = rows.values()
    assert same_one == same_two
    assert exact_one != exact_two


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
@pytest.mark.parametrize("count", [0, 1, 8, 9, 40])
def test_however_many_outputs_a_run_has_it_is_recorded_and_answers(clinic: Clinic, count: int) -> None:
    made = {f"out/{number:02}.bin": f"{number}" for number in range(count)}
    done = clinic.run(writes=made)
    assert done.reusable, done.reasons
    answer = clinic.ask()
    assert answer.kind == "hit"
    assert answer.manifest is not None
    assert len(answer.manifest.outputs) == count


LONG = "out/" + "/".join(letter * 200 for letter in "xyz")


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
@pytest.mark.parametrize(
    "name", ["{elsewhere}/model.bin", LONG, "caf\udce9.bin", "outputs", "manifest", "output/0"]
)
def test_whatever_an_output_is_called_the_run_is_recorded_and_answers(
    clinic: Clinic, listener: Listener, tmp_path: Path, name: str
) -> None:
    path = name.replace("{elsewhere}", str(tmp_path / "elsewhere"))
    declared = [path] if path.startswith("/") else []
    done = clinic.run(writes={path: "w"}, declared_outputs=declared)
    assert done.reusable, done.reasons
    made = clinic.root / path
    made.unlink()
    request = RunRequest(("python", "train.py"))
    assert take_hit(clinic.workspace(), request, clinic.ask(), listener, declared_outputs=tuple(declared))
    assert made.read_text() == "w"
