"""Publishing what was made elsewhere: files and directories, declared cost within reason, models tied to their run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.content.cid import Cid
from lichen.errors import LichenError, Rejected, UsageError
from lichen.runs.keeping.verify import verify_receipt_file
from lichen.runs.queries.show import describe
from lichen.runs.records.publish import DeclaredEnergy, data_entries, evaluate, publish

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic


def size(clinic: Clinic) -> int:
    return clinic.workspace().ledger.size


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_a_file_is_stored_recorded_and_receipted(clinic: Clinic, tmp_path: Path) -> None:
    path = clinic.write("measurements.csv", "1,2\n")
    done = publish(
        clinic.workspace(),
        "data",
        path,
        title="clinic A",
        licence="CC-BY-4.0",
        metrics={"completeness": 0.98},
    )
    assert (done.kind, done.title, done.size_bytes, done.run, done.warnings) == (
        "data",
        "clinic A",
        4,
        None,
        (),
    )
    assert done.cid is not None
    assert clinic.workspace().store.read_bytes(Cid.parse(done.cid)) == b"1,2\n"
    receipt = tmp_path / "r"
    receipt.write_text(done.receipt)
    assert verify_receipt_file(receipt, workspace=clinic.workspace()).index == done.index
    told = describe(clinic.workspace(), str(done.index))
    assert (told["title"], told["metrics"]) == ("clinic A", {"completeness": 0.98})


def test_a_private_ledger_names_nothing_that_was_not_given(clinic: Clinic) -> None:
    done = publish(clinic.workspace(), "data", clinic.write("patients-2024.csv", "1"))
    payload = clinic.workspace().ledger.entry(done.index).payload.decode()
    assert "patients" not in payload
    assert done.title == "patients-2024.csv", "the person who publishes it is told its name all the same"


@pytest.mark.parametrize("clinic", ["public"], indirect=True)
def test_a_public_ledger_names_the_file(clinic: Clinic) -> None:
    done = publish(clinic.workspace(), "model", clinic.write("model.bin", "1"))
    assert describe(clinic.workspace(), str(done.index))["title"] == "model.bin"


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_a_directory_is_published_file_by_file(clinic: Clinic) -> None:
    for name in ("images/a.png", "images/deep/b.png", "images/same.png"):
        clinic.write(name, "a" if name.endswith("same.png") else name)
    done = publish(clinic.workspace(), "data", clinic.root / "images")
    assert done.size_bytes > 0
    for name in ("a.png", "deep/b.png"):
        kept = clinic.workspace().store.put_file(clinic.root / "images" / name)
        assert clinic.workspace().store.has(kept.cid)
    again = publish(clinic.workspace(), "data", clinic.root / "images")
    assert (again.cid, again.sha256) == (done.cid, done.sha256)
    assert data_entries(clinic.workspace(), (clinic.root / "images",)) == [again.index]
    clinic.write("images/deep/b.png", "changed")
    with pytest.raises(UsageError, match="is not on record as data"):
        data_entries(clinic.workspace(), (clinic.root / "images",))


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_the_directory_one_stands_in_has_a_name_too(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    clinic.write("images/a.png", "a")
    monkeypatch.chdir(clinic.root / "images")
    assert publish(clinic.workspace(), "data", Path()).title == "images"
    assert publish(clinic.workspace(), "data", Path("..") / "images" / ".").title == "images"


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_the_same_is_published_once_unless_asked(clinic: Clinic) -> None:
    path = clinic.write("measurements.csv", "1,2\n")
    first = publish(clinic.workspace(), "data", path, title="clinic A", licence="CC-BY-4.0")
    before = size(clinic)
    second = publish(clinic.workspace(), "data", path, title="clinic A")
    third = publish(clinic.workspace(), "data", path)
    assert (first.is_new, second.is_new, third.is_new) == (True, False, False)
    assert first.index == second.index == third.index
    assert second.receipt == clinic.workspace().ledger.receipt(first.index).to_text()
    assert size(clinic) == before
    asked = publish(clinic.workspace(), "data", path, title="clinic A", again=True)
    assert asked.is_new
    assert asked.index > first.index


def test_what_says_more_is_an_entry_of_its_own(clinic: Clinic) -> None:
    path = clinic.write("model.bin", "w")
    first = publish(clinic.workspace(), "model", path, metrics={"accuracy": 0.9})
    better = publish(clinic.workspace(), "model", path, metrics={"accuracy": 0.91})
    assert better.is_new
    assert f"the same content is entry {first.index} already, by you" in better.warnings[0]
    assert publish(clinic.workspace(), "model", path, metrics={"accuracy": 0.9}).index == first.index
    assert publish(clinic.workspace(), "data", path).is_new, "as data it is something else"


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_whether_the_entry_holds_a_name_is_told(clinic: Clinic) -> None:
    is_public = clinic.workspace().group_key is None
    assert publish(clinic.workspace(), "data", clinic.write("a.csv", "1")).is_named is is_public
    assert publish(clinic.workspace(), "data", clinic.write("b.csv", "2"), title="b").is_named


def test_a_model_that_a_run_made_is_tied_to_it(clinic: Clinic) -> None:
    made = clinic.run(writes={"model.bin": "weights"})
    done = publish(clinic.workspace(), "model", clinic.root / "model.bin")
    assert done.run == made.record
    other = publish(clinic.workspace(), "model", clinic.write("other.bin", "elsewhere"))
    assert other.run is None
    measured = publish(
        clinic.workspace(),
        "model",
        clinic.root / "model.bin",
        energy=DeclaredEnergy(100.0, duration_seconds=10),
    )
    assert "its cost is measured there" in measured.warnings[0]


def test_a_model_tells_which_data_it_was_made_from(clinic: Clinic) -> None:
    data = clinic.write("data.csv", "1,2")
    model = clinic.write("model.bin", "w")
    with pytest.raises(UsageError, match="is not on record as data") as caught:
        publish(clinic.workspace(), "model", model, data=(data,))
    assert "lichen publish data" in caught.value.remedy
    first = publish(clinic.workspace(), "data", data)
    done = publish(clinic.workspace(), "model", model, data=(data,))
    edges = (
        clinic.workspace()
        .ledger.connection.execute("SELECT child, parent, relation FROM view_edge")
        .fetchall()
    )
    assert edges == [(done.index, first.index, "data")]
    with pytest.raises(UsageError, match="does not exist"):
        publish(clinic.workspace(), "model", model, data=(clinic.root / "missing.csv",))


# declared cost


def test_declared_energy_is_marked_as_declared(clinic: Clinic) -> None:
    energy = DeclaredEnergy(3.6e6, relative_u95=0.3, duration_seconds=36_000, device="one A100")
    done = publish(clinic.workspace(), "model", clinic.write("model.bin", "w"), energy=energy)
    said = describe(clinic.workspace(), str(done.index))
    assert (said["energy_joules"], said["energy_relative_u95"], said["method"], said["device"]) == (
        3.6e6,
        0.3,
        "declared",
        "one A100",
    )


def test_an_implausible_claim_is_refused_and_forced_only_with_its_mark(clinic: Clinic) -> None:
    path = clinic.write("model.bin", "w")
    absurd = DeclaredEnergy(5e12, duration_seconds=1)
    before = size(clinic)
    with pytest.raises(Rejected, match=r"plausibility\.") as caught:
        publish(clinic.workspace(), "model", path, energy=absurd)
    assert "--force" in caught.value.remedy
    assert size(clinic) == before
    done = publish(clinic.workspace(), "model", path, energy=absurd, force=True)
    assert done.warnings[0].startswith("implausible: ")
    notes = describe(clinic.workspace(), str(done.index))["notes"]
    assert notes[0].startswith("implausible: ")


@pytest.mark.parametrize("joules", [-1.0, float("nan"), float("inf")])
def test_energy_that_is_none_is_refused(clinic: Clinic, joules: float) -> None:
    before = size(clinic)
    with pytest.raises(LichenError):
        publish(clinic.workspace(), "model", clinic.write("m", "w"), energy=DeclaredEnergy(joules))
    assert size(clinic) == before


# what cannot be published


@pytest.mark.parametrize("what", ["missing", "empty-directory", "pipe", "loop", "device", "only-links"])
def test_what_is_no_file_is_refused_and_nothing_is_recorded(clinic: Clinic, what: str) -> None:
    path = clinic.root / what
    if what == "empty-directory":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(what)
    elif what == "device":
        path = Path("/dev/null")
    elif what == "only-links":
        path.mkdir()
        (path / "out").symlink_to("/etc/passwd")
    before = size(clinic)
    with pytest.raises(UsageError) as caught:
        publish(clinic.workspace(), "data", path)
    assert str(path) in caught.value.message or what in caught.value.message
    assert size(clinic) == before


def test_an_unknown_kind_is_refused(clinic: Clinic) -> None:
    with pytest.raises(UsageError, match="neither data nor model"):
        publish(clinic.workspace(), "weights", clinic.write("m", "w"))


def test_a_file_that_changes_while_its_directory_is_published_is_told(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record must not name content that the store does not hold."""
    path = clinic.write("images/a.png", "a")
    workspace = clinic.workspace()
    names = workspace.digests.hash_file(path)
    path.write_text("b")

    class Stale:
        """A cache that was asked just before the file changed."""

        @staticmethod
        def hash_file(_: Path) -> object:
            return names

    monkeypatch.setitem(workspace.__dict__, "digests", Stale())
    before = size(clinic)
    with pytest.raises(LichenError, match=r"a\.png"):
        publish(workspace, "data", clinic.root / "images")
    assert size(clinic) == before


# evaluations


def test_an_evaluation_is_of_a_model_or_run(clinic: Clinic) -> None:
    data = clinic.write("test.csv", "1")
    made = clinic.run(writes={"model.bin": "w"})
    assert made.record is not None
    published = publish(clinic.workspace(), "data", data)
    done = evaluate(
        clinic.workspace(), made.record, {"auc": 0.8}, data=(data,), title="on the test set",
        energy=DeclaredEnergy(10, duration_seconds=5),
    )  # fmt: skip
    told = describe(clinic.workspace(), str(done.index))
    assert (told["of"], told["metrics"]) == (made.record, {"auc": 0.8})
    assert told["statement"]["predicate"]["data"] == [published.index]
    assert told["statement"]["predicate"]["energy"]["method"] == "declared"
    assert (
        evaluate(clinic.workspace(), made.record, {"auc": 0.8}).title == f"evaluation of entry {made.record}"
    )


def test_an_evaluation_of_nothing_or_without_a_metric_is_refused(clinic: Clinic) -> None:
    with pytest.raises(UsageError, match="without a metric"):
        evaluate(clinic.workspace(), 0, {})
    with pytest.raises(Rejected, match="unknown-reference"):
        evaluate(clinic.workspace(), 0, {"auc": 0.5})
    with pytest.raises(Rejected, match="unknown-reference"):
        evaluate(clinic.workspace(), 999, {"auc": 0.5})
