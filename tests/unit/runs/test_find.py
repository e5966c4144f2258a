"""Searching the record: each condition alone and together, in each order."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lichen.errors import NotFoundError, UsageError
from lichen.runs.queries.find import MetricBound, Query, find, parse_metric_bound
from lichen.runs.records.flags import flag, withdraw
from lichen.runs.records.publish import DeclaredEnergy, evaluate, publish

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic

# (words, joules, accuracy, member, data)
RUNS = [
    (("--depth", "3"), 300.0, 0.90, "ada", "a.csv"),
    (("--depth", "4"), 100.0, 0.95, "bob", "a.csv"),
    (("--depth", "5"), 200.0, 0.85, "ada", "a.csv"),
    (("--depth", "6"), 50.0, 0.99, "ada", "b.csv"),
]


@pytest.fixture
def clinic(clinic: Clinic) -> Clinic:
    clinic.admit("bob")
    for name in ("a.csv", "b.csv", "unused.csv"):
        clinic.write(name, name)
    for words, joules, accuracy, member, data in RUNS:
        clinic.run(
            "python", "train.py", *words, reads=[data], writes={f"model-{words[1]}.bin": words[1]}, member=member,
            joules=joules, metrics={"accuracy": accuracy, "loss": 1 - accuracy},
        )  # fmt: skip
    clinic.run("python", "train.py", "--bad", reads=["a.csv"], joules=10.0, status="failed")
    return clinic


def depths(clinic: Clinic, **conditions: object) -> list[str]:
    """Parameters of the runs found, in order."""
    found = find(clinic.workspace(), Query(**conditions))  # type: ignore[arg-type]
    return [item.parameters.get("depth", "bad") for item in found]


def bound(text: str) -> MetricBound:
    return parse_metric_bound(text)


# metrics as people write them


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("accuracy", MetricBound("accuracy")),
        ("accuracy>=0.9", MetricBound("accuracy", ">=", 0.9)),
        (" val/loss <= 1e-3 ", MetricBound("val/loss", "<=", 0.001)),
        ("top@5>=-.5", MetricBound("top@5", ">=", -0.5)),
        ("accuracy>0.9", MetricBound("accuracy", ">", 0.9)),
        ("loss < 2", MetricBound("loss", "<", 2.0)),
        ("depth=4", MetricBound("depth", "=", 4.0)),
        ("depth == 4", MetricBound("depth", "=", 4.0)),
    ],
)
def test_metrics_are_read(text: str, expected: MetricBound) -> None:
    assert parse_metric_bound(text) == expected


@pytest.mark.parametrize(
    "text", ["", "accuracy=>0.9", "accuracy<>0.9", "accuracy>=", "accuracy>", "accuracy>=high", "0.9", ">=0.9", "a>=1>=2", "a>=1.2.3", "a>=.", "a>=--1"]
)  # fmt: skip
def test_what_is_no_metric_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="NAME"):
        parse_metric_bound(text)


def test_bounds_include_themselves() -> None:
    assert bound("a>=1").admits(1)
    assert not bound("a>=1").admits(0.99)
    assert bound("a<=1").admits(1)
    assert not bound("a<=1").admits(float("nan"))
    assert bound("a").admits(-5)
    assert not bound("a>1").admits(1)
    assert bound("a<1").admits(0.99)
    assert bound("a=1").admits(1)
    assert not bound("a=1").admits(1.01)
    assert not any(bound(text).admits(float("nan")) for text in ("a>1", "a<1", "a=1", "a>=1", "a<=1"))


# conditions


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_by_data_cheapest_first(clinic: Clinic) -> None:
    assert depths(clinic, data=clinic.root / "a.csv", order="energy") == ["4", "5", "3"]
    assert depths(clinic, data=clinic.root / "a.csv", order="energy", with_failed=True) == [
        "bad",
        "4",
        "5",
        "3",
    ]
    assert depths(clinic, data=clinic.root / "unused.csv") == []


def test_by_data_and_metric(clinic: Clinic) -> None:
    there = clinic.root / "a.csv"
    assert depths(clinic, data=there, metric=bound("accuracy>=0.9"), order="energy") == ["4", "3"]
    assert depths(clinic, data=there, metric=bound("loss<=0.1"), order="metric") == ["4", "3"]
    assert depths(clinic, data=there, metric=bound("loss<0.11"), order="metric") == ["4", "3"]
    assert depths(clinic, data=there, metric=bound("accuracy"), order="metric") == ["4", "3", "5"]
    assert depths(clinic, data=there, metric=bound("never"), order="metric") == []


def test_by_metric_on_any_data(clinic: Clinic) -> None:
    assert depths(clinic, metric=bound("accuracy>=0.9")) == ["6", "4", "3"]
    assert depths(clinic, metric=bound("accuracy>=0.9"), order="metric") == ["6", "4", "3"]
    assert depths(clinic, metric=bound("loss<=0.2"), order="metric") == ["6", "4", "3", "5"]
    assert depths(clinic, metric=bound("accuracy>=0.9"), order="energy", limit=1) == ["6"]


@pytest.mark.parametrize("order", ["newest", "energy", "metric"])
@pytest.mark.parametrize("limit", [1, 2, 3, 99])
def test_a_limit_cuts_off_the_end_and_nothing_else(clinic: Clinic, order: str, limit: int) -> None:
    for data in (None, clinic.root / "a.csv"):
        whole = depths(clinic, data=data, metric=bound("accuracy"), order=order)
        assert depths(clinic, data=data, metric=bound("accuracy"), order=order, limit=limit) == whole[:limit]


def test_by_author_and_by_words(clinic: Clinic) -> None:
    assert depths(clinic, member="bob") == ["4"]
    assert depths(clinic, member="nobody") == []
    assert depths(clinic, words="DEPTH 5") == ["5"]
    assert depths(clinic, words="train.py", limit=2) == ["6", "5"]
    assert depths(clinic, words="--bad", with_failed=True) == ["bad"]


def test_by_fingerprint_or_its_beginning(clinic: Clinic) -> None:
    connection = clinic.workspace().ledger.connection
    rows = connection.execute("SELECT exact, same_work FROM view_run WHERE member = 'bob'").fetchall()
    ((exact, same_work),) = rows
    for text in (exact.hex(), exact.hex()[:8], exact.hex()[:9], same_work.hex()[:20]):
        assert depths(clinic, fingerprint=text) == ["4"], text
    assert depths(clinic, fingerprint="0" * 64) == []
    for text in ("xyz", "abc", "0" * 65):
        with pytest.raises(UsageError, match="no fingerprint"):
            find(clinic.workspace(), Query(fingerprint=text))


def test_by_file_or_its_digest(clinic: Clinic) -> None:
    import hashlib

    assert depths(clinic, file=str(clinic.root / "model-5.bin")) == ["5"]
    assert depths(clinic, file=hashlib.sha256(b"5").hexdigest()) == ["5"]
    assert depths(clinic, file=hashlib.sha256(b"never made").hexdigest()) == []
    for text in ("nowhere.bin", "abcd", ""):
        with pytest.raises(NotFoundError):
            find(clinic.workspace(), Query(file=text))


def test_what_is_not_there_or_makes_no_sense_is_told(clinic: Clinic) -> None:
    (clinic.root / "empty").mkdir()
    for missing in ("missing.csv", "empty"):
        with pytest.raises(NotFoundError, match=missing):
            find(clinic.workspace(), Query(data=clinic.root / missing))
    with pytest.raises(UsageError, match="none of energy, newest, metric"):
        find(clinic.workspace(), Query(order="best"))
    with pytest.raises(UsageError, match="needs --metric"):
        find(clinic.workspace(), Query(order="metric"))


def test_a_directory_stands_for_its_largest_file(clinic: Clinic) -> None:
    clinic.write("data/small.csv", "1")
    clinic.write("data/large.csv", "1" * 1000)
    clinic.run("python", "train.py", "--depth", "7", reads=["data/small.csv", "data/large.csv"])
    assert depths(clinic, data=clinic.root / "data") == ["7"]


# artefacts beside runs


def test_publications_are_found_beside_runs(clinic: Clinic) -> None:
    data = publish(clinic.workspace(), "data", clinic.root / "a.csv", title="clinic A")
    model = publish(
        clinic.workspace(), "model", clinic.root / "model-4.bin", data=(clinic.root / "a.csv",),
        metrics={"accuracy": 0.97}, energy=DeclaredEnergy(70.0, duration_seconds=10),
    )  # fmt: skip
    evaluation = evaluate(clinic.workspace(), model.index, {"auc": 0.9})
    by_kind = {
        kind: [item.index for item in find(clinic.workspace(), Query(kind=kind))]
        for kind in ("data", "model", "evaluation")
    }
    assert by_kind == {"data": [data.index], "model": [model.index], "evaluation": [evaluation.index]}
    about = find(clinic.workspace(), Query(data=clinic.root / "a.csv"))
    assert {item.kind for item in about} == {"run", "data", "model"}
    cheap = find(clinic.workspace(), Query(metric=bound("accuracy>=0.95"), order="energy"))
    assert [(item.kind, item.energy_joules) for item in cheap] == [
        ("run", pytest.approx(50)), ("model", 70.0), ("run", pytest.approx(100))
    ]  # fmt: skip
    about_file = find(clinic.workspace(), Query(file=str(clinic.root / "model-4.bin")))
    assert [item.kind for item in about_file] == ["evaluation", "model", "run"]


def test_what_was_flagged_or_withdrawn_says_so(clinic: Clinic) -> None:
    (bobs,) = find(clinic.workspace(), Query(member="bob"))
    assert (bobs.flag_count, bobs.withdrawn) == (0, False)
    flag(clinic.workspace(), str(bobs.index), "wrong for the young")
    withdraw(clinic.workspace("bob"), str(bobs.index))
    (bobs,) = find(clinic.workspace(), Query(member="bob"))
    assert (bobs.flag_count, bobs.withdrawn) == (1, True)
    assert bobs.to_json()["withdrawn"] is True
