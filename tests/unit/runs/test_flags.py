"""Errors on record point at the data behind them, and never settle anything."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from lichen.errors import NotFoundError, Rejected, UsageError
from lichen.runs.queries.show import describe
from lichen.runs.records.flags import flag, suspects, withdraw
from lichen.runs.records.publish import publish

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic


def made_up_ledger(clinic: Clinic) -> dict[str, int]:
    """Five data sets, ten models on pairs of them; every model on the mislabelled one errs, and one other by chance.

    Returns:
        Entry of each data set by name.
    """
    names = ["clean-1", "clean-2", "clean-3", "clean-4", "mislabelled"]
    published = {
        name: publish(clinic.workspace(), "data", clinic.write(f"{name}.csv", name), title=name).entry
        for name in names
    }
    pairs = [(one, other) for place, one in enumerate(names) for other in names[place + 1 :]]
    for number, pair in enumerate(pairs):
        done = clinic.run(
            "python", "train.py", "--pair", str(number), reads=[f"{name}.csv" for name in pair],
            writes={f"model-{number}.bin": str(number)},
        )  # fmt: skip
        if "mislabelled" in pair or pair == ("clean-1", "clean-2"):
            flag(clinic.workspace(), str(done.record), "calls healthy what is ill")
    return published


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_mislabelled_data_ranks_first(clinic: Clinic) -> None:
    published = made_up_ledger(clinic)
    ranked = suspects(clinic.workspace())
    assert (ranked[0].title, ranked[0].index) == ("mislabelled", published["mislabelled"])
    assert ranked[0].score > 1 > ranked[-1].score
    assert (ranked[0].flag_count, ranked[0].work_count, len(ranked[0].descendants)) == (4, 4, 4)
    assert ranked[0].score > 1.3 * ranked[1].score
    assert [item.title for item in suspects(clinic.workspace(), limit=1)] == ["mislabelled"]
    assert json.loads(json.dumps(ranked[0].to_json()))["title"] == "mislabelled"


def test_a_single_flag_proves_little(clinic: Clinic) -> None:
    for name in ("a.csv", "b.csv"):
        clinic.write(name, name)
    one = clinic.run("python", "train.py", "--one", reads=["a.csv"])
    for number in range(4):
        clinic.run("python", "train.py", "--other", str(number), reads=["b.csv"])
    flag(clinic.workspace(), str(one.record), "odd")
    (suspect,) = suspects(clinic.workspace())
    assert 1 < suspect.score < 3
    assert suspect.index is None
    assert "not published" in suspect.title


def test_nothing_is_suspected_without_a_flag(clinic: Clinic) -> None:
    assert suspects(clinic.workspace()) == []
    clinic.write("a.csv")
    clinic.run(reads=["a.csv"])
    assert suspects(clinic.workspace()) == []


def test_a_model_and_its_run_count_once(clinic: Clinic) -> None:
    clinic.write("a.csv", "a")
    clinic.run(reads=["a.csv"], writes={"model.bin": "w"})
    data = clinic.root / "a.csv"
    publish(clinic.workspace(), "data", data)
    model = publish(clinic.workspace(), "model", clinic.root / "model.bin", data=(data,))
    flag(clinic.workspace(), str(model.index), "wrong for the young")
    (suspect,) = suspects(clinic.workspace())
    assert suspect.work_count == 1


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_data_that_a_flag_names_is_suspected_though_no_entry_says_who_used_it(clinic: Clinic) -> None:
    """A run's entry lists its four largest files; what it read beside them is not there."""
    clinic.write("labels.csv", "0,1")
    labels = publish(clinic.workspace(), "data", clinic.root / "labels.csv", title="labels")
    done = clinic.run()
    flag(clinic.workspace(), str(done.record), "odd", severity="high", data=(clinic.root / "labels.csv",))
    (suspect,) = suspects(clinic.workspace())
    assert (suspect.index, suspect.work_count, suspect.flag_count) == (labels.index, 0, 4)
    assert suspect.score > 1


def test_data_published_twice_is_one_suspect(clinic: Clinic) -> None:
    path = clinic.write("a.csv", "a")
    first = publish(clinic.workspace(), "data", path, title="first name")
    publish(clinic.workspace(), "data", path, title="second name")
    done = clinic.run(reads=["a.csv"])
    flag(clinic.workspace(), str(done.record), "odd", severity="high", data=(path,))
    (suspect,) = suspects(clinic.workspace())
    assert (suspect.index, suspect.title) == (first.index, "first name")
    assert suspect.flag_count == 1 + 4, "one against the work, and one of weight four that names the data"


def test_severity_weighs_data_that_is_named(clinic: Clinic) -> None:
    paths = [clinic.write(name, name) for name in ("low.csv", "high.csv")]
    for path in paths:
        publish(clinic.workspace(), "data", path, title=path.name)
    done = clinic.run(reads=["low.csv", "high.csv"])
    for path in paths:
        flag(clinic.workspace(), str(done.record), "odd", severity=path.stem, data=(path,))
    assert [item.title for item in suspects(clinic.workspace())] == ["high.csv", "low.csv"]


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_the_text_of_a_flag_is_private_where_the_ledger_is(clinic: Clinic) -> None:
    done = clinic.run()
    index = flag(clinic.workspace(), str(done.record), "misses tumours of the young").entry
    payload = clinic.workspace().ledger.entry(index).payload.decode()
    assert ("tumours" in payload) == (clinic.workspace().group_key is None)
    told = describe(clinic.workspace(), str(done.record))
    assert [item["index"] for item in told["flags"]] == [index]


def test_flags_that_say_nothing_or_too_much_are_refused(clinic: Clinic) -> None:
    done = clinic.run()
    there = str(done.record)
    before = clinic.workspace().ledger.size
    for text in ("", "  ", "x" * 501):
        with pytest.raises(UsageError, match="500 characters"):
            flag(clinic.workspace(), there, text)
    with pytest.raises(UsageError, match="none of low, medium, high"):
        flag(clinic.workspace(), there, "odd", severity="terrible")
    with pytest.raises(UsageError, match="does not exist"):
        flag(clinic.workspace(), there, "odd", data=(clinic.root / "missing.csv",))
    with pytest.raises(UsageError, match="not on record as data"):
        flag(clinic.workspace(), there, "odd", data=(clinic.root / "train.py",))
    with pytest.raises(NotFoundError):
        flag(clinic.workspace(), "999", "odd")
    with pytest.raises(Rejected, match="unknown-reference"):
        flag(clinic.workspace(), "0", "odd")
    assert clinic.workspace().ledger.size == before


def test_only_its_author_withdraws_an_entry_and_only_once(clinic: Clinic) -> None:
    clinic.admit("bob")
    done = clinic.run()
    with pytest.raises(Rejected, match="withdraw-not-author"):
        withdraw(clinic.workspace("bob"), str(done.record))
    index = withdraw(clinic.workspace(), str(done.record), "wrong data").entry
    assert describe(clinic.workspace(), str(done.record))["withdrawn"] == {
        "index": index,
        "reason": "wrong data",
    }
    with pytest.raises(Rejected, match="already-withdrawn"):
        withdraw(clinic.workspace(), str(done.record))
    with pytest.raises(Rejected, match="unknown-reference"):
        withdraw(clinic.workspace(), str(index))
