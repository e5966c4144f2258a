"""A yes or a no that can be handed on: what is asked, which keys answer, and what the reader of the receipt is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.errors import EncodingError, NotFoundError, StorageError, UsageError, VerificationError
from lichen.runs.keeping.verify import verify_receipt_file, verify_receipts
from lichen.runs.queries.prove import (
    Proved,
    planned_claims,
    planned_notes,
    prove,
    standing_notes,
    work_claims,
    write_receipts,
)
from lichen.runs.records.flags import flag, withdraw
from lichen.runs.records.publish import publish
from lichen.runs.reuse.lookup import Answer, ReusePolicy, look_up
from lichen.runs.workspace.ledger_handle import LedgerHandle

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic

ABSENT = "ab" * 32


def handed_on(clinic: Clinic, tmp_path: Path, **question: object):
    """Ask, write the receipts, and read them as somebody who has nothing but the log's key."""
    proved = LedgerHandle(clinic.workspace()).prove(**question)  # type: ignore[arg-type]
    write_receipts(tmp_path / "answer.receipt", proved)
    key = clinic.workspace().ledger.genesis.log_key.did_key
    reports = verify_receipts(tmp_path / "answer.receipt", log_key=key)
    assert [report.answer for report in reports] == [one.answer for one in proved]
    return proved, reports


def test_a_no_is_proved_for_both_classes_when_the_class_is_not_known(clinic: Clinic, tmp_path: Path) -> None:
    clinic.run()
    proved, reports = handed_on(clinic, tmp_path, fingerprint=ABSENT)
    assert [one.is_on_record for one in proved] == [False, False]
    assert [one.claim.key.partition(b"/")[0] for one in proved] == [b"exact", b"same-work"]
    size = clinic.workspace().ledger.last_seal.tree_size
    assert all(one.size == size and one.open_count == 0 for one in proved)
    for report in reports:
        assert report.kind == "state"
        assert f"among the first {size} entries, as sealed by the log at entry {size}" in report.answer
        assert any("only replaying" in sentence for sentence in report.does_not_prove)
        assert any("without recording it" in sentence for sentence in report.does_not_prove)


@pytest.mark.parametrize("level", ["exact", "same-work"])
def test_a_yes_is_proved_by_the_key_that_is_there(clinic: Clinic, tmp_path: Path, level: str) -> None:
    done = clinic.run("python", "train.py", "--seed", "1", seeds=["--seed"])
    clinic.run("python", "train.py", "--seed", "2", seeds=["--seed"])
    column = level.replace("-", "_")
    (row,) = clinic.workspace().ledger.connection.execute(
        f"SELECT {column} FROM view_run WHERE idx = ?", (done.record,)
    )
    (one,), (report,) = handed_on(clinic, tmp_path, fingerprint=row[0].hex())
    count = "1 run" if level == "exact" else "2 runs"
    assert one.is_on_record
    assert one.answer.startswith(f"{count} with the {level} fingerprint")
    assert not any("without recording it" in sentence for sentence in report.does_not_prove)
    (asked,), _ = handed_on(clinic, tmp_path, fingerprint=row[0].hex(), level=level)
    assert asked.answer == one.answer
    other = "same-work" if level == "exact" else "exact"
    (no,), _ = handed_on(clinic, tmp_path, fingerprint=row[0].hex(), level=other)
    assert not no.is_on_record, "a fingerprint of one class is none of the other"


def test_that_a_model_was_not_withdrawn_is_proved_until_it_is(clinic: Clinic, tmp_path: Path) -> None:
    model = publish(clinic.workspace(), "model", clinic.write("m.bin", "weights"))
    (no,), (report,) = handed_on(clinic, tmp_path, withdrawn=model.index)
    assert no.answer.startswith(f"no withdrawal of entry {model.index} is on record")
    assert any("only a withdrawal on record counts" in sentence for sentence in report.does_not_prove)
    earlier = (tmp_path / "answer.receipt").read_text()
    withdraw(clinic.workspace(), str(model.index), "wrong labels")
    (yes,), _ = handed_on(clinic, tmp_path, withdrawn=model.index)
    assert yes.is_on_record
    assert f"entry {model.index} was withdrawn by entry" in yes.answer
    (tmp_path / "earlier.receipt").write_text(earlier)
    again = verify_receipt_file(tmp_path / "earlier.receipt", workspace=clinic.workspace())
    assert again.answer == no.answer, "the earlier proof still holds, for the entries it speaks of"
    assert any("after the seal" in sentence for sentence in again.does_not_prove)


def test_publications_and_flags_are_answered_too(clinic: Clinic, tmp_path: Path) -> None:
    import hashlib

    path = clinic.write("d.csv", "1,2\n")
    digest = hashlib.sha256(b"1,2\n").hexdigest()
    (no,), _ = handed_on(clinic, tmp_path, sha256=digest)
    data = publish(clinic.workspace(), "data", path)
    stored = clinic.workspace().ledger.record(data.index).statement.subjects[0].sha256.hex()
    (yes,), _ = handed_on(clinic, tmp_path, sha256=stored)
    assert (no.is_on_record, yes.is_on_record) == (False, True)
    (unflagged,), _ = handed_on(clinic, tmp_path, flagged=data.index)
    flag(clinic.workspace(), str(data.index), error="half the rows are missing")
    (flagged,), _ = handed_on(clinic, tmp_path, flagged=data.index)
    assert (unflagged.is_on_record, flagged.is_on_record) == (False, True)
    assert "1 flag against" in flagged.answer


def test_a_planned_run_is_answered_from_what_its_command_read_before(clinic: Clinic) -> None:
    workspace = clinic.workspace()
    with pytest.raises(NotFoundError, match="no run of this command is on record"):
        planned_claims(workspace, clinic.ask())
    clinic.write("rows.csv", "1\n")
    clinic.run(reads=["rows.csv"])
    (there,) = prove(workspace, planned_claims(workspace, clinic.ask()))
    assert there.is_on_record
    clinic.write("rows.csv", "2\n")
    absent = prove(workspace, planned_claims(workspace, clinic.ask()))
    assert [one.is_on_record for one in absent] == [False, False]
    done = clinic.run(reads=["rows.csv"])
    (now,) = prove(workspace, planned_claims(workspace, clinic.ask()))
    assert f"as entry {done.record}" in now.answer
    assert now.claim.key == absent[0].claim.key, "the key proved absent was that of the run that came"


def told(clinic: Clinic, answer: Answer) -> tuple[list[Proved], str]:
    """Prove what a look-up asked for, and say what that means for its command line."""
    proved = prove(clinic.workspace(), planned_claims(clinic.workspace(), answer))
    notes = planned_notes(answer, proved, ("a reason.",)) + standing_notes(clinic.workspace(), proved)
    return proved, "\n".join(notes)


def test_a_no_is_about_everything_that_runs_of_the_command_read_before(clinic: Clinic) -> None:
    """Equal work may stand under what an older run read: a no about the newest alone would say too much."""
    clinic.write("rows.csv", "1\n")
    clinic.write("more.csv", "1\n")
    older = clinic.run(reads=["rows.csv"]).record
    clinic.run(reads=["rows.csv", "more.csv"])
    clinic.write("more.csv", "2\n")
    yes, notes = told(clinic, clinic.ask())
    assert [one.is_on_record for one in yes] == [True]
    assert f"as entry {older}" in yes[0].answer
    assert notes == ""
    clinic.write("rows.csv", "2\n")
    no, notes = told(clinic, clinic.ask())
    assert [one.is_on_record for one in no] == [False] * 4
    assert [one.claim.key.partition(b"/")[0] for one in no] == [b"exact"] * 2 + [b"same-work"] * 2
    assert len({one.claim.key for one in no}) == 4
    assert "2 fingerprints, with the seed and without" in notes
    assert "a run that reads something else has another" in notes


def test_a_yes_is_no_hit_where_the_entry_was_withdrawn_or_flagged(clinic: Clinic) -> None:
    done = clinic.run()
    flag(clinic.workspace(), str(done.record), error="odd")
    (yes,), notes = told(clinic, clinic.ask())
    assert f"1 flag against entry {done.record} is on record" in notes
    withdraw(clinic.workspace(), str(done.record))
    answer = clinic.ask()
    assert answer.kind == "miss"
    (yes,), notes = told(clinic, answer)
    assert yes.is_on_record, "the entry stays on record"
    assert "this command is not answered by it all the same: a reason." in notes
    assert f"entry {done.record} was withdrawn by entry" in notes
    assert f"lichen find --prove FILE --withdrawn {done.record}" in notes


def test_what_a_request_declares_and_no_run_knows_of_is_named(clinic: Clinic) -> None:
    clinic.write("side.csv", "1\n")
    done = clinic.run()
    around = clinic.surroundings()
    declared = replace(around, declared=replace(around.declared, data=(clinic.path("side.csv"),)))
    answer = look_up(clinic.workspace(), clinic.command("python", "train.py"), declared, ReusePolicy())
    assert answer.kind == "miss"
    (yes,), notes = told(clinic, answer)
    assert yes.is_on_record
    assert (
        f"what entry {done.record} read does not cover this command: {{project}}/side.csv is declared"
        in notes
    )


def test_a_receipt_says_of_each_class_what_it_leaves_open(clinic: Clinic, tmp_path: Path) -> None:
    done = clinic.run()
    _, (exact, same_work) = handed_on(clinic, tmp_path, fingerprint=ABSENT)
    assert any("with another seed" in sentence for sentence in exact.does_not_prove)
    assert not any("with another seed" in sentence for sentence in same_work.does_not_prove)
    for report in (exact, same_work):
        assert any("its result may be the same" in sentence for sentence in report.does_not_prove)
        assert any("other ledgers" in sentence for sentence in report.does_not_prove)
    (fingerprint,) = (
        clinic.workspace()
        .ledger.connection.execute("SELECT exact FROM view_run WHERE idx = ?", (done.record,))
        .fetchone()
    )
    _, (there,) = handed_on(clinic, tmp_path, fingerprint=fingerprint.hex())
    assert any("--withdrawn ENTRY" in sentence for sentence in there.does_not_prove)


def test_entries_no_seal_covers_are_counted(clinic: Clinic) -> None:
    clinic.run()
    writer = clinic.workspace()
    reader = clinic.open(read_only=True)
    claims = work_claims(reader, bytes.fromhex(ABSENT))
    statement = writer.ledger.record(2).statement
    predicate = {
        name: value for name, value in statement.predicate.items() if name not in ("nonce", "time_unix_ms")
    }
    again = writer.ledger.statement("run", statement.subjects, predicate, member="ada")
    writer.ledger.append_signed(again, writer.identity.key)
    assert {one.open_count for one in prove(reader, claims)} == {1}
    assert {one.open_count for one in prove(writer, claims)} == {0}, "who can write seals first"


@pytest.mark.parametrize(
    "question",
    [
        {},
        {"fingerprint": ABSENT, "withdrawn": 2},
        {"fingerprint": "abc"},
        {"fingerprint": "zz" * 32},
        {"fingerprint": ABSENT, "level": "nearly"},
        {"sha256": "12"},
        {"withdrawn": -1},
        {"flagged": 2**64},
    ],
)
def test_what_is_no_question_is_refused(clinic: Clinic, question: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        LedgerHandle(clinic.workspace()).prove(**question)  # type: ignore[arg-type]


def test_only_receipts_are_replaced(clinic: Clinic, tmp_path: Path) -> None:
    proved = prove(clinic.workspace(), work_claims(clinic.workspace(), bytes.fromhex(ABSENT)))
    path = tmp_path / "answer"
    path.write_text("my thesis")
    with pytest.raises(UsageError, match="is no receipt"):
        write_receipts(path, proved)
    assert path.read_text() == "my thesis"
    path.write_text("")
    write_receipts(path, proved[:1])
    write_receipts(path, proved)
    assert path.read_text() == proved[0].receipt + proved[1].receipt
    with pytest.raises(UsageError, match="is a directory"):
        write_receipts(tmp_path, proved)
    with pytest.raises(UsageError, match="no directory"):
        write_receipts(tmp_path / "nowhere" / "answer", proved)
    with pytest.raises(StorageError, match="cannot write"):
        write_receipts(tmp_path / ("x" * 255), proved)
    assert [entry.name for entry in tmp_path.iterdir() if "answer" in entry.name] == ["answer"]


def test_one_bad_receipt_spoils_the_file(clinic: Clinic, tmp_path: Path) -> None:
    workspace = clinic.workspace()
    proved = prove(workspace, work_claims(workspace, bytes.fromhex(ABSENT)))
    path = tmp_path / "answer"
    first, second = (one.receipt for one in proved)
    path.write_text(first + second)
    assert len(verify_receipts(path, workspace=workspace)) == 2
    with pytest.raises(UsageError, match="holds 2 receipts"):
        verify_receipt_file(path, workspace=workspace)
    path.write_text(first + second.replace(f"index {proved[1].seal_index}", "index 0", 1))
    with pytest.raises(VerificationError):
        verify_receipts(path, workspace=workspace)
    for text in (first + "\n" + second, first + second[:40], first[:-1], first + "and more\n"):
        path.write_text(text)
        with pytest.raises((EncodingError, VerificationError)):
            verify_receipts(path, workspace=workspace)
