"""What is on record against an answer is told with it, and decides only over results of others."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from lichen.runs.records.flags import flag, withdraw
from lichen.runs.records.publish import publish
from lichen.runs.request import RunRequest
from lichen.runs.reuse.hit import take_hit
from lichen.runs.reuse.lookup import ReusePolicy
from lichen.runs.reuse.objections import objection_lines, weigh_objections
from lichen.runs.reuse.trust import Trusted

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic, Listener

    from lichen.runs.reuse.lookup import Answer

BEN_TRUSTS_ADA = frozenset({"ada"})


@pytest.fixture
def clinic(clinic: Clinic) -> Clinic:
    clinic.write("data.csv", "1,2\n")
    clinic.admit("ben")
    clinic.admit("eve")
    return clinic


def train(clinic: Clinic, weights: str = "weights") -> int:
    done = clinic.run("python", "train.py", reads=["data.csv"], writes={"model.bin": weights})
    assert done.record is not None
    return done.record


def weighed(
    clinic: Clinic,
    member: str = "ada",
    trust: frozenset[str] = frozenset(),
    accept: frozenset[str] = frozenset(),
) -> Answer:
    answer = clinic.ask(member=member, trust=trust, accept=accept)
    assert answer.kind == "hit"
    weigh_objections(clinic.workspace(member), answer, ReusePolicy(Trusted(trust), accept=accept))
    return answer


def test_an_answer_nobody_objects_to_has_no_objections(clinic: Clinic) -> None:
    train(clinic)
    clinic.write("other.csv", "9\n")
    other = clinic.run("python", "train.py", "--other", reads=["other.csv"], writes={"other.bin": "o"})
    flag(clinic.workspace(), str(other.record), "odd")
    answer = weighed(clinic)
    assert (answer.kind, answer.objections, objection_lines(answer)) == ("hit", (), [])


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_a_flag_against_the_run_is_told_with_its_words(clinic: Clinic, listener: Listener) -> None:
    run = train(clinic)
    entry = flag(clinic.workspace("ben"), str(run), "wrong for the young", severity="high").entry
    answer = weighed(clinic)
    assert answer.kind == "hit", "one's own result answers"
    (objection,) = answer.objections
    assert objection.to_json() == {
        "entry": entry, "of": run, "kind": "flag", "member": "ben", "severity": "high", "about": "run",
        "text": "wrong for the young",
    }  # fmt: skip
    taken = take_hit(
        clinic.workspace(), RunRequest(("python", "train.py")), answer, listener, declared_outputs=()
    )
    assert taken is not None
    assert listener.warnings == [
        f"entry {run} is flagged (high) by ben in entry {entry}: wrong for the young"
    ]
    assert taken.to_report()["objections"] == [objection.to_json()]


def test_flags_against_what_it_made_and_what_it_read_are_told(clinic: Clinic) -> None:
    run = train(clinic)
    model = publish(clinic.workspace(), "model", clinic.root / "model.bin").index
    data = publish(clinic.workspace(), "data", clinic.root / "data.csv").index
    flag(clinic.workspace("ben"), str(data), "labels of a drunk", severity="high")
    flag(clinic.workspace("ben"), str(model), "never sure", severity="low")
    answer = weighed(clinic)
    assert answer.run is not None
    assert answer.run.index == run
    assert [(each.about, each.of, each.severity) for each in answer.objections] == [
        ("data", data, "high"),
        ("output", model, "low"),
    ]


def test_a_flag_follows_the_bytes_of_another_run(clinic: Clinic) -> None:
    """The same model came of another command, and is flagged there; our input is what a flagged run made."""
    train(clinic)
    other = clinic.run("python", "train.py", "--twice", reads=["data.csv"], writes={"copy.bin": "weights"})
    maker = clinic.run("python", "train.py", "--make", writes={"derived.csv": "1,2\n"})
    flag(clinic.workspace(), str(other.record), "odd")
    flag(clinic.workspace(), str(maker.record), "odder")
    answer = weighed(clinic)
    assert {(each.about, each.of) for each in answer.objections} == {
        ("output", other.record),
        ("data", maker.record),
    }


def test_a_flag_that_was_withdrawn_is_not_told(clinic: Clinic) -> None:
    run = train(clinic)
    entry = flag(clinic.workspace("ben"), str(run), "mistaken").entry
    withdraw(clinic.workspace("ben"), str(entry))
    assert weighed(clinic).objections == ()


def test_a_dispute_on_record_is_told_until_one_side_is_withdrawn(clinic: Clinic) -> None:
    one = train(clinic)
    two = train(clinic, weights="other weights")
    answer = weighed(clinic)
    assert [(each.kind, each.about, each.of) for each in answer.objections] == [("dispute", "work", one)]
    assert "equal work made other outputs" in objection_lines(answer)[0]
    withdraw(clinic.workspace(), str(one))
    answer = weighed(clinic)
    assert answer.run is not None
    assert (answer.run.index, answer.objections) == (two, ())


@pytest.mark.parametrize(
    ("author", "severity", "accept", "kind"),
    [
        ("ben", "high", (), "offer"),
        ("ada", "high", (), "offer"),
        ("eve", "high", (), "hit"),
        ("ben", "medium", (), "hit"),
        ("ben", "high", ("flagged",), "hit"),
    ],
)
def test_a_grave_flag_by_somebody_believed_makes_the_result_of_another_an_offer(
    clinic: Clinic, author: str, severity: str, accept: tuple[str, ...], kind: str
) -> None:
    run = train(clinic)
    flag(clinic.workspace(author), str(run), "a back door", severity=severity)
    answer = weighed(clinic, "ben", BEN_TRUSTS_ADA, frozenset(accept))
    assert answer.kind == kind
    assert len(answer.objections) == 1
    if kind == "offer":
        assert answer.takes == "flagged"
        assert answer.note.startswith(f"it is flagged (high) by {author}")


def test_a_grave_flag_against_data_is_told_and_decides_nothing(clinic: Clinic) -> None:
    train(clinic)
    data = publish(clinic.workspace(), "data", clinic.root / "data.csv").index
    flag(clinic.workspace("ben"), str(data), "labels of a drunk", severity="high")
    answer = weighed(clinic, "ben", BEN_TRUSTS_ADA)
    assert (answer.kind, [each.about for each in answer.objections]) == ("hit", ["data"])


def test_many_objections_are_told_in_few_lines(clinic: Clinic) -> None:
    run = train(clinic)
    for number in range(5):
        flag(clinic.workspace(), str(run), f"error {number}")
    lines = objection_lines(weighed(clinic))
    assert len(lines) == 4
    assert lines[0].endswith("error 4")
    assert lines[3] == "2 more such objections: lichen log --kind flag"


def lose(clinic: Clinic, *statements: str) -> None:
    """Lose rows of query tables, as a damaged file does, or somebody who has nothing but the file."""
    path = clinic.workspace().ledger.path
    clinic.close()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    "lost",
    [
        ("DELETE FROM view_flag",),
        ("DELETE FROM view_flag WHERE target = (SELECT max(idx) FROM view_run)",),
        ("DELETE FROM view_flag", "DELETE FROM view_artefact"),
        ("UPDATE view_flag SET target = 0",),
    ],
)
def test_a_flag_that_a_query_table_hides_is_told_all_the_same(clinic: Clinic, lost: tuple[str, ...]) -> None:
    """The state counts flags, and every seal commits to it; the tables are nobody's word."""
    run = train(clinic)
    model = publish(clinic.workspace(), "model", clinic.root / "model.bin").entry
    data = publish(clinic.workspace(), "data", clinic.root / "data.csv").entry
    against_run = flag(clinic.workspace("ben"), str(run), "a back door", severity="high").entry
    against_model = flag(clinic.workspace("eve"), str(model), "slow").entry
    against_data = flag(clinic.workspace("eve"), str(data), "odd").entry
    lose(clinic, *lost)
    answer = weighed(clinic, "ben", BEN_TRUSTS_ADA)
    assert answer.kind == "offer"
    told = {(each.entry, each.of, each.about, each.severity) for each in answer.objections}
    assert told == {
        (against_run, run, "run", "high"), (against_model, model, "output", "medium"), (against_data, data, "data", "medium"),
    }  # fmt: skip
    (warning,) = answer.warnings
    assert "fewer flags or disputes" in warning
    assert "they were made again from the entries" in warning
    again = weighed(clinic, "ben", BEN_TRUSTS_ADA)
    assert (again.kind, again.objections, again.warnings) == ("offer", answer.objections, [])


def test_a_dispute_that_a_query_table_hides_is_told_all_the_same(clinic: Clinic) -> None:
    one = train(clinic)
    train(clinic, weights="other weights")
    lose(clinic, "DELETE FROM view_flag")
    answer = weighed(clinic)
    assert [(each.kind, each.about, each.of) for each in answer.objections] == [("dispute", "work", one)]
    assert len(answer.warnings) == 1


def test_what_an_objection_is_its_entry_says_and_no_query_table(clinic: Clinic) -> None:
    run = train(clinic)
    flag(clinic.workspace("ben"), str(run), "a back door", severity="high")
    lose(clinic, "UPDATE view_flag SET member = 'eve', said = '{\"severity\":\"low\"}'")
    answer = weighed(clinic, "ben", BEN_TRUSTS_ADA)
    assert answer.kind == "offer"
    assert [(each.member, each.severity) for each in answer.objections] == [("ben", "high")]


def test_whole_query_tables_cost_no_reading_of_entries(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(clinic)
    model = publish(clinic.workspace(), "model", clinic.root / "model.bin").entry
    publish(clinic.workspace("ben"), "model", clinic.root / "model.bin")
    for entry in (run, model):
        flag(clinic.workspace("ben"), str(entry), "odd")
    answer = clinic.ask()
    asked: list[int] = []
    ledger = type(clinic.workspace().ledger)
    real = ledger.entry

    def counted(self: Any, index: int) -> Any:
        asked.append(index)
        return real(self, index)

    monkeypatch.setattr(ledger, "entry", counted)
    weigh_objections(clinic.workspace(), answer, ReusePolicy())
    assert len(answer.objections) == 2
    assert len(asked) <= 4, "the flags, and whose the run is"
