"""Every name people give to entries leads to the one they mean, or to a sentence that says what to give instead."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from lichen.errors import NotFoundError, UsageError
from lichen.runs.queries.paper import life_cycle
from lichen.runs.queries.reference import entries_with_digest, resolve
from lichen.runs.records.publish import evaluate, publish

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic


def test_an_index_is_an_index(clinic: Clinic) -> None:
    assert [resolve(clinic.workspace(), text) for text in ("0", "#1", " 1 ")] == [0, 1, 1]
    with pytest.raises(NotFoundError, match="no entry 99: the ledger has 2 entries, 0 to 1"):
        resolve(clinic.workspace(), "99")


def test_the_last_run_is_the_last_run(clinic: Clinic) -> None:
    with pytest.raises(NotFoundError, match="no run is on record yet"):
        resolve(clinic.workspace(), "@last")
    clinic.run()
    done = clinic.run("python", "train.py", "--depth", "2")
    publish(clinic.workspace(), "data", clinic.write("later.csv", "1"))
    assert resolve(clinic.workspace(), "@last") == done.record


def test_a_file_stands_for_its_content(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clinic.root)
    made = clinic.run(writes={"model.bin": "weights"})
    assert resolve(clinic.workspace(), "model.bin") == made.record
    published = publish(clinic.workspace(), "model", clinic.root / "model.bin")
    assert resolve(clinic.workspace(), "model.bin") == published.index, "the newest that is about it"
    with pytest.raises(NotFoundError, match=r"the content of train\.py is not on record"):
        resolve(clinic.workspace(), "train.py")
    clinic.write("12", "a file called twelve")
    with pytest.raises(NotFoundError, match="the content of 12"):
        resolve(clinic.workspace(), "12")


def test_an_evaluation_does_not_hide_its_model(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clinic.root)
    clinic.run(writes={"model.bin": "weights"})
    workspace = clinic.workspace()
    model = publish(workspace, "model", clinic.root / "model.bin")
    evaluation = evaluate(workspace, model.index, {"accuracy": 0.9})
    assert evaluation.index > model.index
    assert entries_with_digest(workspace, bytes.fromhex(model.sha256))[-1] == evaluation.index
    assert model.cid is not None
    for text in ("model.bin", model.sha256, model.sha256[:12], model.cid, model.cid[:20]):
        assert resolve(workspace, text) == model.index, text
    assert resolve(workspace, str(evaluation.index)) == evaluation.index
    assert life_cycle(workspace, str(evaluation.index), None).run_count == 1


def test_beginnings_of_digests_and_cids_are_enough_when_they_fit_one_content(clinic: Clinic) -> None:
    done = publish(clinic.workspace(), "data", clinic.write("data.csv", "1,2"))
    assert done.cid is not None
    for text in (done.sha256, done.sha256[:8], done.sha256[:9], done.cid, done.cid[:20]):
        assert resolve(clinic.workspace(), text) == done.index, text
    made = clinic.run(writes={"model.bin": "w"})
    assert made.manifest_cid is not None
    assert resolve(clinic.workspace(), made.manifest_cid) == made.record
    row = clinic.workspace().ledger.connection.execute("SELECT exact FROM view_run").fetchone()
    assert resolve(clinic.workspace(), row[0].hex()[:12]) == made.record
    again = clinic.run(writes={"model.bin": "w"})
    assert resolve(clinic.workspace(), row[0].hex()[:12]) == again.record, "the newest of equal work"


def test_a_beginning_that_fits_several_contents_is_refused(clinic: Clinic) -> None:
    """Eight characters of a CID hold three bits of the digest: of nine contents, two have the same."""
    cids = [publish(clinic.workspace(), "data", clinic.write(f"{n}.csv", str(n))).cid or "" for n in range(9)]
    beginnings = [cid[:8] for cid in cids]
    shared = next(text for text in beginnings if beginnings.count(text) > 1)
    with pytest.raises(UsageError, match="fits") as caught:
        resolve(clinic.workspace(), shared)
    assert not isinstance(caught.value, NotFoundError)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "nonsense", "-1", "#", "@first", "1.5", "0" * 8, "f" * 64, "f" * 65, "bafkrei" + "a" * 20, "b" * 400,
        "x" * 5000, "/no/such/file", ".", "a\0b", "\udce9", "9" * 16, "①",
    ],
)  # fmt: skip
def test_everything_else_is_not_found_in_so_many_words(clinic: Clinic, text: str) -> None:
    with pytest.raises(NotFoundError) as caught:
        resolve(clinic.workspace(), text)
    assert caught.value.remedy


def test_the_beginning_of_a_digest_may_have_decimal_digits_only(clinic: Clinic) -> None:
    """As one in forty has; an index is meant where there is such an entry."""
    number = 0
    while not hashlib.sha256(str(number).encode()).hexdigest()[:8].isdigit():
        number += 1
    done = publish(clinic.workspace(), "data", clinic.write("data.csv", str(number)))
    assert done.sha256[:8].isdigit()
    assert resolve(clinic.workspace(), done.sha256[:8]) == done.index


def test_entries_about_a_content_are_runs_and_publications_newest_first(clinic: Clinic) -> None:
    made = clinic.run(writes={"model.bin": "weights"})
    published = publish(clinic.workspace(), "model", clinic.root / "model.bin")
    assert entries_with_digest(clinic.workspace(), bytes.fromhex(published.sha256)) == [
        published.index, made.record
    ]  # fmt: skip
    assert entries_with_digest(clinic.workspace(), bytes(32)) == []
