"""An answer is verified before it is taken, put back whole, replayed without harm, and credited once."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.content.cid import Cid
from lichen.encoding.statement import Statement
from lichen.errors import LichenError, UsageError, VerificationError
from lichen.runs.keeping.verify import verify_receipt_file
from lichen.runs.records.flags import withdraw
from lichen.runs.records.metrics import parse_pattern
from lichen.runs.records.record import RunFacts, run_statement
from lichen.runs.request import RunRequest, RunResult
from lichen.runs.reuse.hit import take_hit, verify_answer
from lichen.runs.work.manifest import Manifest, Output

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic, Listener

    from lichen.runs.reuse.lookup import Answer

REQUEST = RunRequest(("python", "train.py"))
ACCEPT_SAME_WORK = frozenset({"same-work"})


@pytest.fixture
def clinic(clinic: Clinic) -> Clinic:
    clinic.write("data.csv", "1,2\n")
    return clinic


def train(clinic: Clinic, *words: str, **more: object) -> RunResult:
    """Record a run with one output, and take that output away."""
    words = words or REQUEST.argv
    done = clinic.run(*words, reads=["data.csv"], writes={"model.bin": "weights"}, **more)  # type: ignore[arg-type]
    (clinic.root / "model.bin").unlink()
    return done


def take(
    clinic: Clinic, answer: Answer, listener: Listener, *, member: str = "ada", **more: object
) -> RunResult | None:
    declared: tuple[str, ...] = (clinic.path("model.bin"),) if member != "ada" else ()
    request = replace(REQUEST, **more)  # type: ignore[arg-type]
    return take_hit(clinic.workspace(member), request, answer, listener, declared_outputs=declared)


def reuses(clinic: Clinic) -> int:
    row = clinic.workspace().ledger.connection.execute("SELECT COUNT(*) FROM view_reuse").fetchone()
    return int(row[0])


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_a_hit_puts_back_tells_and_books(clinic: Clinic, listener: Listener, tmp_path: Path) -> None:
    done = train(clinic, joules=420.0, metrics={"accuracy": 0.9}, stdout=b"acc 0.9\n")
    taken = take(clinic, clinic.ask(), listener)
    assert taken is not None
    assert (clinic.root / "model.bin").read_text() == "weights"
    assert (taken.status, taken.exit_status, taken.record, taken.author) == ("hit", 0, done.record, "ada")
    assert taken.avoided_joules == pytest.approx(420)
    assert (taken.credited, taken.avoided_u95) == (True, 0.2)
    assert taken.metrics == {"accuracy": 0.9}
    assert taken.outputs == ["{project}/model.bin"]
    assert listener.output == b"acc 0.9\n"
    assert listener.warnings == []
    assert taken.receipt is not None
    receipt = tmp_path / "run.receipt"
    receipt.write_text(taken.receipt)
    assert verify_receipt_file(receipt, workspace=clinic.workspace()).index == done.record


# credit


def test_joules_are_credited_once_for_a_fingerprint_and_member(clinic: Clinic, listener: Listener) -> None:
    train(clinic)
    credited = []
    for _ in range(3):
        taken = take(clinic, clinic.ask(), listener)
        assert taken is not None
        credited.append((taken.credited, taken.avoided_joules > 0))
        (clinic.root / "model.bin").unlink()
    assert credited == [(True, True), (False, False), (False, False)]
    train(clinic)
    again = take(clinic, clinic.ask(), listener)
    assert again is not None
    assert not again.credited, "another run of equal work brings no new credit"
    assert reuses(clinic) == 1


def test_every_member_is_credited_for_their_own_use(clinic: Clinic, listener: Listener) -> None:
    clinic.admit("bob")
    train(clinic)
    mine = take(clinic, clinic.ask(), listener)
    (clinic.root / "model.bin").unlink()
    theirs = take(clinic, clinic.ask(member="bob", trust=frozenset({"ada"})), listener, member="bob")
    assert mine is not None
    assert theirs is not None
    assert (mine.credited, theirs.credited, theirs.author) == (True, True, "ada")
    assert reuses(clinic) == 2


def test_nothing_is_credited_when_the_outputs_were_there(clinic: Clinic, listener: Listener) -> None:
    train(clinic)
    clinic.write("model.bin", "weights")
    taken = take(clinic, clinic.ask(), listener)
    assert taken is not None
    assert (taken.status, taken.credited, taken.avoided_joules) == ("hit", False, 0.0)
    assert reuses(clinic) == 0


def test_work_equal_but_for_the_seed_has_a_credit_of_its_own(clinic: Clinic, listener: Listener) -> None:
    train(clinic, "python", "train.py", "--seed", "1", seeds=["seed"])
    for seed, expected in (("2", True), ("3", False)):
        words = ("python", "train.py", "--seed", seed)
        answer = clinic.ask(*words, seeds=["seed"], accept=ACCEPT_SAME_WORK)
        taken = take(clinic, answer, listener)
        assert taken is not None
        assert taken.credited is expected
        (clinic.root / "model.bin").unlink()
    exact = take(clinic, clinic.ask("python", "train.py", "--seed", "1", seeds=["seed"]), listener)
    assert exact is not None
    assert exact.credited


def test_a_credit_that_cannot_be_booked_does_not_spoil_the_answer(clinic: Clinic, listener: Listener) -> None:
    done = train(clinic)
    answer = clinic.ask()
    withdraw(clinic.workspace(), str(done.record))
    taken = take(clinic, answer, listener)
    assert taken is not None
    assert (taken.status, taken.credited) == ("hit", False)
    assert "registry.withdrawn" in listener.warnings[0]


# what is not taken


def test_outputs_no_longer_in_the_store_are_no_answer(clinic: Clinic, listener: Listener) -> None:
    train(clinic)
    answer = clinic.ask()
    assert answer.manifest is not None
    clinic.workspace().store.delete(Cid.parse(answer.manifest.outputs[0].cid))
    assert take(clinic, answer, listener) is None
    assert "{project}/model.bin is no longer in the store" in listener.warnings[0]


def test_damaged_outputs_are_no_answer(clinic: Clinic, listener: Listener) -> None:
    train(clinic)
    answer = clinic.ask()
    assert answer.manifest is not None
    (place,) = (clinic.directory / "store").rglob(answer.manifest.outputs[0].cid)
    place.chmod(0o600)
    place.write_bytes(b"weighty")
    assert take(clinic, answer, listener) is None
    assert "the store failed" in listener.warnings[0]
    assert not (clinic.root / "model.bin").exists()
    assert reuses(clinic) == 0


def publish_wrong_manifest(clinic: Clinic, member: str, wrong: Manifest, said: Manifest) -> int:
    """Append a run whose entry says one thing and whose manifest says another."""
    workspace = clinic.workspace(member)
    cid, sha256 = workspace.put_private(wrong.to_bytes())
    facts = RunFacts("trained", None, {}, {}, clinic.measured(10.0), 0, ())
    record = run_statement(workspace, said, cid, sha256, facts)
    return workspace.ledger.append_signed(record, workspace.identity.key, seal=True).index


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
@pytest.mark.parametrize("lie", ["other-output", "more-outputs", "no-output", "nine-outputs"])
def test_a_manifest_that_does_not_say_what_the_entry_says_is_refused(
    clinic: Clinic, listener: Listener, lie: str
) -> None:
    clinic.admit("eve")
    done = train(clinic)
    honest = clinic.workspace().manifest(str(done.manifest_cid))
    kept = clinic.workspace().store.put_bytes(b"evil")
    evil = [Output(f"{{project}}/{n}.bin", kept.sha256, str(kept.cid), 4, 0o755) for n in range(9)]
    wrong, said = {
        "other-output": (replace(honest, outputs=(replace(evil[0], name="{project}/model.bin"),)), honest),
        "more-outputs": (replace(honest, outputs=(*honest.outputs, evil[0])), honest),
        "no-output": (replace(honest, outputs=(evil[0],)), replace(honest, outputs=())),
        "nine-outputs": (replace(honest, outputs=(*evil[1:], honest.outputs[0])), replace(honest, outputs=tuple(evil))),
    }[lie]  # fmt: skip
    withdraw(clinic.workspace(), str(done.record))
    index = publish_wrong_manifest(clinic, "eve", wrong, said)
    answer = clinic.ask(trust=frozenset({"eve"}))
    assert answer.run is not None
    assert (answer.kind, answer.run.index) == ("hit", index)
    with pytest.raises(VerificationError, match=f"the manifest of entry {index} does not say"):
        take(clinic, answer, listener)
    assert not (clinic.root / "model.bin").exists()
    assert listener.output == b""


def test_a_view_that_names_another_manifest_deceives_nobody(clinic: Clinic, listener: Listener) -> None:
    """Query tables are not signed: what they say is compared with the entry before it is believed."""
    done = train(clinic)
    workspace = clinic.workspace()
    honest = workspace.manifest(str(done.manifest_cid))
    (output,) = honest.outputs
    moved = replace(honest, outputs=(replace(output, name="{project}/startup.py", mode=0o755),))
    cid, _ = workspace.put_private(moved.to_bytes())
    with sqlite3.connect(workspace.ledger.path) as connection:
        connection.execute("UPDATE view_run SET manifest = ? WHERE idx = ?", (cid, done.record))
    connection.close()
    with pytest.raises(VerificationError):
        take(clinic, clinic.ask(), listener)
    assert not (clinic.root / "startup.py").exists()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("energy_joules", 1e-9),
        ("energy_joules", 4e9),
        ("relative_u95", 0.001),
        ("duration_seconds", 1.5),
        ("time_unix_ms", 1),
        ("method", "rapl"),
        ("boundary", "machine"),
        ("status", "missed"),
        ("metrics", '{"accuracy":0.99}'),
        ("same_work", b"x" * 32),
    ],
)
def test_nothing_is_told_or_booked_that_the_entry_does_not_say(
    clinic: Clinic, listener: Listener, column: str, value: object
) -> None:
    done = train(clinic, metrics={"accuracy": 0.5})
    _ = clinic.workspace().ledger.connection.execute("SELECT COUNT(*) FROM view_run").fetchone()
    with sqlite3.connect(clinic.workspace().ledger.path) as connection:
        connection.execute(f"UPDATE view_run SET {column} = ? WHERE idx = ?", (value, done.record))
    connection.close()
    with pytest.raises(VerificationError, match=f"entry {done.record} than the entry itself: {column}"):
        take(clinic, clinic.ask(), listener)
    assert reuses(clinic) == 0


def test_the_run_read_from_its_entry_is_the_one_read_from_the_query_table(clinic: Clinic) -> None:
    train(clinic, metrics={"accuracy": 0.5, "loss": 3}, joules=12.3456789)
    answer = clinic.ask()
    signed, receipt = verify_answer(clinic.workspace(), answer)
    assert signed == answer.run
    assert "lichen" in receipt


def test_a_fingerprint_that_the_state_does_not_hold_is_no_answer(clinic: Clinic) -> None:
    train(clinic)
    answer = clinic.ask()
    assert answer.run is not None
    answer.run = replace(answer.run, exact=bytes(32))
    with pytest.raises(VerificationError, match="the state has no run"):
        verify_answer(clinic.workspace(), answer)


def test_an_entry_that_is_not_in_the_ledger_is_no_answer(clinic: Clinic) -> None:
    train(clinic)
    answer = clinic.ask()
    assert answer.run is not None
    answer.run = replace(answer.run, index=10_000)
    with pytest.raises(LichenError):
        verify_answer(clinic.workspace(), answer)


def test_what_another_member_made_is_not_put_on_undeclared_paths(clinic: Clinic, listener: Listener) -> None:
    clinic.admit("bob")
    train(clinic, member="bob")
    answer = clinic.ask(trust=frozenset({"bob"}))
    with pytest.raises(UsageError, match="not among your declared outputs") as caught:
        take(clinic, answer, listener)
    assert "--out" in caught.value.remedy


# replay


def test_escapes_in_recorded_output_do_not_reach_a_terminal(clinic: Clinic, listener: Listener) -> None:
    train(clinic, stdout=b"\x1b]0;owned\x07\x1b[2Jtext\n")
    assert take(clinic, clinic.ask(), listener) is not None
    assert b"\x1b]" not in listener.output
    assert b"\x1b[2J" not in listener.output
    assert b"text\n" in listener.output


def test_output_is_not_replayed_when_that_is_not_wanted(clinic: Clinic, listener: Listener) -> None:
    train(clinic)
    assert take(clinic, clinic.ask(), listener, replay=False) is not None
    assert listener.output == b""


@pytest.mark.parametrize("harm", ["deleted", "damaged"])
def test_detail_that_is_gone_or_damaged_costs_the_output_and_not_the_answer(
    clinic: Clinic, listener: Listener, harm: str
) -> None:
    train(clinic)
    answer = clinic.ask()
    assert answer.manifest is not None
    assert answer.manifest.detail is not None
    (place,) = (clinic.directory / "store").rglob(answer.manifest.detail)
    place.chmod(0o600)
    if harm == "deleted":
        place.unlink()
    else:
        place.write_bytes(b"x" * place.stat().st_size)
    taken = take(clinic, answer, listener)
    assert taken is not None
    assert taken.status == "hit"
    assert listener.output == b""


class Leaving:
    """A narrator whose reader has left."""

    def __init__(self, listener: Listener) -> None:
        self.missed, self.waiting, self.record_shown = (
            listener.missed,
            listener.waiting,
            listener.record_shown,
        )
        self.warning = listener.warning

    def replayed(self, stdout: bytes) -> None:
        raise BrokenPipeError


def test_a_reader_who_left_does_not_spoil_the_answer(clinic: Clinic, listener: Listener) -> None:
    train(clinic)
    taken = take_hit(clinic.workspace(), REQUEST, clinic.ask(), Leaving(listener), declared_outputs=())
    assert taken is not None
    assert taken.credited


def test_the_status_of_a_run_that_was_allowed_to_fail_is_kept(clinic: Clinic, listener: Listener) -> None:
    train(clinic, exit_status=3)
    taken = take(clinic, clinic.ask(), listener)
    assert taken is not None
    assert taken.exit_status == 3


# metrics and targets


def asked(clinic: Clinic, listener: Listener, **more: object) -> RunResult:
    taken = take(clinic, clinic.ask(), listener, **more)
    assert taken is not None
    assert taken.status == "hit"
    return taken


@pytest.mark.parametrize(
    ("target", "missed"),
    [
        ({"accuracy": 0.9}, None),
        ({"accuracy": 0.97}, "accuracy is 0.93, the target was at least 0.97"),
        ({"accuracy<": 0.5}, "accuracy is 0.93, the target was at most 0.5"),
        ({"accuracy": 0.9, "loss<": 0.1}, "there is no metric loss (there is: accuracy)"),
    ],
)
def test_an_answer_is_measured_against_the_target_asked_now(
    clinic: Clinic, listener: Listener, target: dict[str, float], missed: str | None
) -> None:
    done = train(clinic, metrics={"accuracy": 0.93})
    taken = asked(clinic, listener, target=target)
    assert taken.missed_target == missed
    assert taken.to_report()["missed_target"] == missed
    assert taken.exit_status == 0, "as of a run that misses its target"
    assert done.record is not None
    said = Statement.from_bytes(clinic.workspace().ledger.entry(done.record).payload).predicate
    assert (said["status"], said.get("target")) == ("trained", None), "the entry stays as it was"


def test_a_run_that_missed_its_target_answers_a_request_with_a_lower_one(
    clinic: Clinic, listener: Listener
) -> None:
    train(clinic, metrics={"accuracy": 0.93}, status="missed")
    assert asked(clinic, listener, target={"accuracy": 0.9}).missed_target is None


def test_metrics_asked_now_are_found_in_the_recorded_output(clinic: Clinic, listener: Listener) -> None:
    train(clinic, metrics={"loss": 0.2, "acc": 0.1}, stdout=b"acc: 0.5\nacc: 0.93\n")
    patterns = (parse_pattern(r"acc=acc: ([\d.]+)"), parse_pattern("f1=f1: (.*)"))
    for replay in (True, False):
        taken = asked(clinic, listener, patterns=patterns, target={"acc": 0.9}, replay=replay)
        assert taken.metrics == {"loss": 0.2, "acc": 0.93}
        assert taken.missed_target is None
    assert listener.warnings[0].startswith("--metric f1: nothing in the output matches")


def test_metrics_of_output_that_is_gone_are_as_recorded_and_that_is_said(
    clinic: Clinic, listener: Listener
) -> None:
    train(clinic, metrics={"acc": 0.1})
    answer = clinic.ask()
    assert answer.manifest is not None
    clinic.workspace().store.delete(Cid.parse(str(answer.manifest.detail)))
    patterns = (parse_pattern("acc=acc: (.*)"), parse_pattern("f1=f1: (.*)"))
    assert asked(clinic, listener, patterns=patterns).metrics == {"acc": 0.1}
    assert "acc is as it was recorded" in listener.warnings[0]
    assert "there is no f1" in listener.warnings[1]


def test_a_metrics_file_is_read_when_the_run_made_it(clinic: Clinic, listener: Listener) -> None:
    clinic.run("python", "train.py", reads=["data.csv"], writes={"metrics.json": '{"accuracy": 0.93}'})
    (clinic.root / "metrics.json").unlink()
    taken = asked(clinic, listener, metrics_file=clinic.root / "metrics.json", target={"accuracy": 0.9})
    assert (taken.metrics, taken.missed_target) == ({"accuracy": 0.93}, None)


def test_a_metrics_file_that_somebody_else_made_tells_nothing(clinic: Clinic, listener: Listener) -> None:
    train(clinic)
    clinic.write("metrics.json", '{"accuracy": 0.99}')
    taken = asked(clinic, listener, metrics_file=clinic.root / "metrics.json", target={"accuracy": 0.9})
    assert taken.metrics == {}
    assert taken.missed_target == "there is no metric accuracy (there is: none)"
    assert "the run that answers made no such file" in listener.warnings[0]
