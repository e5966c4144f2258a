"""From a ledger of one's own into the team's: who, when and with what proof stay; nothing counts twice."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.crypto.sealed import open_bytes
from lichen.errors import LichenError, NotALedgerError, Rejected, UsageError, VerificationError
from lichen.runs.keeping import importing
from lichen.runs.keeping.importing import ImportReport, import_ledger, source_workspace, verify_evidence
from lichen.runs.keeping.setup import create_ledger
from lichen.runs.keeping.verify import verify_ledger
from lichen.runs.queries.balance import balance
from lichen.runs.records.publish import evaluate, publish
from lichen.runs.workspace.config import UserConfig
from lichen.runs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic

Opened = Callable[[str], Workspace]


@pytest.fixture
def solo(clinic: Clinic) -> Clinic:
    """A ledger with two runs, data, a model, an evaluation and a withdrawal, all by ada."""
    clinic.write("train.csv", "1,2\n" * 100)
    clinic.run(reads=["train.py", "train.csv"], writes={"model.pkl": "one"}, metrics={"accuracy": 0.9})
    clinic.run("python", "train.py", "--x", "2", reads=["train.py"], writes={"other.pkl": "two"}, joules=50.0)
    workspace = clinic.workspace()
    publish(workspace, "data", clinic.root / "train.csv", title="train")
    clinic.write("folder/a", "a")
    clinic.write("folder/b", "b")
    publish(workspace, "data", clinic.root / "folder", title="folder")
    model = publish(
        workspace, "model", clinic.root / "model.pkl", title="model", data=(clinic.root / "train.csv",)
    )
    evaluate(workspace, model.index, {"accuracy": 0.8})
    return clinic


@pytest.fixture
def team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solo: Clinic) -> Iterator[Opened]:
    """Makes and opens another ledger, private or public."""
    opened: list[Workspace] = []

    def open_as(access: str) -> Workspace:
        directory = tmp_path / f"team-{access}"
        monkeypatch.setenv("LICHEN_MEMBER", "ada")
        if not directory.exists():
            create_ledger(directory, name="team", access=access, member="ada", user=UserConfig.read())
        opened.append(Workspace(solo.project, directory, UserConfig.read()))
        return opened[-1]

    yield open_as
    for workspace in opened:
        workspace.close()


def taken_over(solo: Clinic, target: Workspace, **options: object) -> ImportReport:
    with source_workspace(solo.directory, target) as source:
        return import_ledger(source, target, **options)


@pytest.mark.parametrize("access", ["private", "public"])
def test_everything_arrives_and_the_ledger_holds(access: str, solo: Clinic, team: Opened):
    target = team(access)
    report = taken_over(solo, target, reveal=access == "public")
    assert report.imported == {"run": 2, "data": 2, "model": 1, "evaluation": 1}
    assert not report.left
    assert not report.missing
    assert verify_ledger(target).problem is None
    source = solo.workspace()
    for index, place in report.places.items():
        before, after = source.ledger.record(index), target.ledger.record(place)
        assert after.kind == before.kind
        assert after.predicate["time_unix_ms"] == before.predicate["time_unix_ms"]
        assert after.predicate.get("metrics") == before.predicate.get("metrics")
        assert {s.sha256 for s in after.statement.subjects} == {s.sha256 for s in before.statement.subjects}


def test_what_names_entries_names_the_new_ones(solo: Clinic, team: Opened):
    target = team("private")
    target.ledger.append_signed(
        target.ledger.statement(
            "data",
            solo.workspace().ledger.record(6).statement.subjects,
            {"cid": "bafkrei" + "a" * 52, "size_bytes": 1},
            member="ada",
        ),
        target.identity.key,
    )  # so that indices differ
    report = taken_over(solo, target)
    kinds = {target.ledger.record(place).kind: place for place in report.places.values()}
    model = target.ledger.record(kinds["model"]).predicate
    assert target.ledger.record(kinds["evaluation"]).predicate["of"] == kinds["model"]
    assert target.ledger.record(model["run"]).kind == "run"
    assert [target.ledger.record(index).kind for index in model["data"]] == ["data"]


def test_an_imported_run_answers(solo: Clinic, team: Opened):
    target = team("private")
    taken_over(solo, target)
    solo.close()
    solo.directory = target.directory
    answer = solo.ask(surroundings=solo.surroundings())
    assert answer.kind == "hit", answer.note
    assert answer.run is not None
    assert answer.run.energy_joules == pytest.approx(100.0)


def test_secrets_change_hands_without_being_read(solo: Clinic, team: Opened):
    target = team("private")
    report = taken_over(solo, target)
    (run, *_) = [place for place in report.places.values() if target.ledger.record(place).kind == "run"]
    said = target.ledger.record(run).predicate
    before = solo.workspace().ledger.record(next(i for i, p in report.places.items() if p == run)).predicate
    assert said["parts"] != before["parts"]
    assert said["manifest"] != before["manifest"]
    manifest = target.manifest(said["manifest"])
    assert manifest.outputs == solo.workspace().manifest(before["manifest"]).outputs
    assert target.detail(manifest)["stdout"]
    from lichen.content.cid import Cid

    sealed = target.store.read_bytes(Cid.parse(said["manifest"]))
    with pytest.raises(LichenError):
        open_bytes(sealed, solo.workspace().group_key)


def test_importing_again_changes_nothing(solo: Clinic, team: Opened):
    target = team("private")
    first = taken_over(solo, target)
    size = target.ledger.size
    second = taken_over(solo, target)
    assert (second.known, sum(second.imported.values())) == (len(first.places), 0)
    assert second.artefact_count == 0
    assert second.places == first.places
    assert second.evidence == first.evidence
    assert target.ledger.size == size


def test_an_interrupted_import_is_completed(solo: Clinic, team: Opened, monkeypatch: pytest.MonkeyPatch):
    target = team("private")
    real, counts = type(target.ledger).append_all_signed, list[int]()

    def failing(self, statements, key, **options):
        if counts:
            raise KeyboardInterrupt
        counts.append(len(statements))
        return real(self, statements, key, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(importing, "TOGETHER_COUNT", 2)
        patch.setattr(type(target.ledger), "append_all_signed", failing)
        taken_over(solo, target)
    target.close()
    target = team("private")
    report = taken_over(solo, target)
    assert 1 <= counts[0] <= 2
    assert report.known == counts[0]
    assert sum(report.imported.values()) == 6 - counts[0]
    assert verify_evidence(target, report.evidence).record_count == 6


def test_records_are_appended_together_except_where_one_names_another(
    solo: Clinic, team: Opened, monkeypatch: pytest.MonkeyPatch
):
    target = team("private")
    real, batches = type(target.ledger).append_all_signed, []

    def noting(self, statements, key, **options):
        batches.append(len(statements))
        return real(self, statements, key, **options)

    monkeypatch.setattr(type(target.ledger), "append_all_signed", noting)
    report = taken_over(solo, target)
    assert sum(batches) == sum(report.imported.values()) == 6
    assert len(batches) < 6


def test_only_what_is_new_is_added_later(solo: Clinic, team: Opened):
    target = team("private")
    taken_over(solo, target)
    solo.run("python", "train.py", "--x", "3", reads=["train.py"], writes={"third.pkl": "three"})
    report = taken_over(solo, target)
    assert report.imported == {"run": 1}
    assert report.known == 6


def test_equal_work_is_not_doubled_and_energy_is_counted_once(solo: Clinic, team: Opened):
    solo.run(reads=["train.py", "train.csv"], writes={"model.pkl": "one"}, metrics={"accuracy": 0.9})
    target = team("private")
    report = taken_over(solo, target)
    assert report.imported["run"] == 2
    assert report.known == 1
    account = balance(target)
    assert account.run_count == 2
    assert account.runs_joules == pytest.approx(150.0)
    assert account.avoided_joules == 0.0


def test_equal_work_with_another_result_is_kept(solo: Clinic, team: Opened):
    solo.run(reads=["train.py", "train.csv"], writes={"model.pkl": "another"}, metrics={"accuracy": 0.7})
    assert taken_over(solo, team("private")).imported["run"] == 3


def test_a_dry_run_writes_nothing_and_says_the_same(solo: Clinic, team: Opened):
    target = team("private")
    size, artefacts = target.ledger.size, set(target.store.list())
    dry = taken_over(solo, target, is_dry=True)
    assert (target.ledger.size, set(target.store.list())) == (size, artefacts)
    wet = taken_over(solo, target)
    assert dry.imported == wet.imported
    assert dry.places == wet.places
    assert dry.artefact_count == wet.artefact_count
    assert dry.evidence is None


def test_records_of_others_need_somebody_who_vouches(solo: Clinic, team: Opened):
    solo.admit("bob")
    solo.run("python", "train.py", "--y", reads=["train.py"], writes={"b.pkl": "b"}, member="bob")
    target = team("private")
    report = taken_over(solo, target)
    assert any("not signed with your key" in reason for reason in report.left)
    assert report.imported["run"] == 2
    report = taken_over(solo, target, vouch_for=["bob"])
    assert report.imported["run"] == 1
    assert verify_evidence(target, report.evidence).authors["bob"] == 1
    place = max(place for place in report.places.values())
    assert "by bob" in target.ledger.record(place).predicate["energy"]["notes"][-1]


def test_the_evidence_proves_each_record(solo: Clinic, team: Opened):
    target = team("private")
    report = taken_over(solo, target)
    found = verify_evidence(target, report.evidence)
    assert found.source_id == solo.workspace().ledger.id
    assert found.record_count == len(report.places)
    assert found.authors == {"ada": 6}
    with pytest.raises(UsageError, match="no evidence"):
        verify_evidence(target, report.places[max(report.places)])


def test_evidence_for_other_claims_is_refused(solo: Clinic, team: Opened, monkeypatch: pytest.MonkeyPatch):
    """Somebody imports a run and says that it cost half."""
    from lichen.runs.keeping.import_records import Translator

    honest = Translator._note

    def cheating(self, said, record):
        honest(self, said, record)
        energy = {name: value for name, value in said["energy"].items() if name != "parts"}
        said["energy"] = energy | {"joules": 1.0}

    target = team("private")
    with monkeypatch.context() as patch:
        patch.setattr(Translator, "_note", cheating)
        report = taken_over(solo, target)
    with pytest.raises(VerificationError, match="claims something else"):
        verify_evidence(target, report.evidence)


def test_a_deleted_manifest_leaves_its_run_behind(solo: Clinic, team: Opened):
    from lichen.content.cid import Cid

    workspace = solo.workspace()
    workspace.store.delete(Cid.parse(workspace.ledger.record(2).predicate["manifest"]))
    report = taken_over(solo, team("private"))
    assert report.imported["run"] == 1
    reasons = "; ".join(report.left)
    assert "manifest cannot be read" in reasons
    assert "names entry 2, which was not imported" in reasons


def test_a_private_ledger_is_not_made_public_by_accident(solo: Clinic, team: Opened):
    with pytest.raises(UsageError, match="--reveal") as refused:
        taken_over(solo, team("public"))
    assert "public" in refused.value.message


def test_a_ledger_that_does_not_hold_is_not_imported(solo: Clinic, team: Opened):
    target = team("private")
    size = target.ledger.size
    solo.close()
    with sqlite3.connect(solo.directory / "ledger.sqlite") as connection:
        (data,) = connection.execute("SELECT entry FROM entries WHERE idx=4").fetchone()
        connection.execute("UPDATE entries SET entry=? WHERE idx=4", (data[:200] + b"~" + data[201:],))
    connection.close()
    with pytest.raises(LichenError):
        taken_over(solo, target)
    assert target.ledger.size == size


def test_a_ledger_into_itself(solo: Clinic):
    with pytest.raises(UsageError, match="same ledger"):
        taken_over(solo, solo.workspace())


def test_somebody_who_is_not_admitted(solo: Clinic, team: Opened, monkeypatch: pytest.MonkeyPatch):
    from lichen.runs.keeping.setup import make_key

    target = team("private")
    make_key(UserConfig.read(), "eve")
    monkeypatch.setenv("LICHEN_MEMBER", "eve")
    with Workspace(solo.project, target.directory, UserConfig.read()) as eve, pytest.raises(Rejected):
        taken_over(solo, eve, vouch_for=["ada"])


def test_no_ledger_there(tmp_path: Path, solo: Clinic):
    with pytest.raises(NotALedgerError, match="holds no ledger"):
        source_workspace(tmp_path, solo.workspace())
