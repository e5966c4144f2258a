"""Asking for equal work: what answers, whose answers are taken, and what is nearest when nothing answers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.crypto.key_file import write_key
from lichen.crypto.keys import SigningKey
from lichen.runs.keeping.key_rotation import rotate_own_key
from lichen.runs.keeping.setup import member_action
from lichen.runs.records.flags import withdraw
from lichen.runs.reuse.lookup import earlier_run, nearest_runs
from lichen.runs.workspace.project import Project

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic

    from lichen.runs.request import RunResult

DISPUTED = frozenset({"disputed"})


def train(
    clinic: Clinic, *words: str, member: str = "ada", weights: str = "weights", **more: object
) -> RunResult:
    """Record one run on the data, as it is now; its output is left where it was made."""
    return clinic.run(
        "python", "train.py", *words, reads=["data.csv"], writes={"model.bin": weights}, member=member, **more
    )  # type: ignore[arg-type]


@pytest.fixture
def clinic(clinic: Clinic) -> Clinic:
    clinic.write("data.csv", "1,2\n")
    return clinic


# what answers


@pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)
def test_equal_work_answers_and_changed_work_does_not(clinic: Clinic) -> None:
    first = train(clinic)
    answer = clinic.ask()
    assert (answer.kind, answer.level) == ("hit", "exact")
    assert answer.run is not None
    assert (answer.run.index, answer.run.member, answer.run.status) == (first.record, "ada", "trained")
    assert answer.manifest is not None
    assert [output.name for output in answer.manifest.outputs] == ["{project}/model.bin"]
    clinic.write("data.csv", "1,3\n")
    answer = clinic.ask()
    assert answer.kind == "miss"
    assert answer.difference is not None
    assert answer.compared is not None
    assert (answer.difference.describe(), answer.compared.index) == (
        "{project}/data.csv changed",
        first.record,
    )
    clinic.write("data.csv", "1,2\n")
    assert clinic.ask().kind == "hit", "the old content makes the old work"


def test_another_command_is_new(clinic: Clinic) -> None:
    train(clinic)
    answer = clinic.ask("python", "train.py", "--depth", "3")
    assert (answer.kind, answer.difference, answer.parts) == ("miss", None, None)


def test_equal_work_in_a_checkout_elsewhere_answers(clinic: Clinic, tmp_path: Path) -> None:
    train(clinic)
    elsewhere = tmp_path / "other" / "checkout"
    elsewhere.mkdir(parents=True)
    for name in ("train.py", "data.csv"):
        (elsewhere / name).write_bytes((clinic.root / name).read_bytes())
    project = Project(elsewhere)
    assert clinic.ask(project=project).kind == "hit"
    (elsewhere / "train.py").write_text("print('other')")
    assert clinic.ask(project=project).kind == "miss"


def test_every_shape_of_a_request_is_tried(clinic: Clinic) -> None:
    """One command line may read different files from time to time; each way it went is remembered."""
    for name in ("a.csv", "b.csv", "c.csv"):
        clinic.write(name, name)
    made = {name: clinic.run(reads=[name]).record for name in ("a.csv", "b.csv", "c.csv")}
    clinic.write("c.csv", "changed")
    clinic.write("b.csv", "changed")
    answer = clinic.ask()
    assert answer.run is not None
    assert (answer.kind, answer.run.index) == ("hit", made["a.csv"])
    clinic.write("a.csv", "changed")
    assert clinic.ask().kind == "miss"


def test_the_miss_is_explained_by_the_run_most_like_the_request(clinic: Clinic) -> None:
    for name in ("a.csv", "b.csv"):
        clinic.write(name, name)
    near = clinic.run(reads=["a.csv"])
    clinic.run(reads=["a.csv", "b.csv", "data.csv"])
    for name in ("a.csv", "b.csv", "data.csv"):
        clinic.write(name, "changed")
    answer = clinic.ask()
    assert answer.compared is not None
    assert answer.compared.index == near.record


def test_what_the_run_found_absent_and_made_may_be_there_as_it_left_it(clinic: Clinic) -> None:
    looked = clinic.access("absent", "model.bin", detail="made-file")
    train(clinic, accesses=[looked])
    assert clinic.ask().kind == "hit"
    clinic.write("model.bin", "weights of somebody else")
    assert clinic.ask().kind == "miss"
    (clinic.root / "model.bin").unlink()
    assert clinic.ask().kind == "hit"


# what does not


@pytest.mark.parametrize("status", ["failed", "interrupted"])
def test_runs_that_did_not_finish_answer_nothing(clinic: Clinic, status: str) -> None:
    train(clinic, status=status)
    answer = clinic.ask()
    assert answer.kind == "miss"
    assert answer.compared is not None, "it is still what comes nearest"


def test_a_run_that_missed_its_target_answers(clinic: Clinic) -> None:
    train(clinic, status="missed", metrics={"accuracy": 0.8})
    assert clinic.ask().kind == "hit"


def test_a_run_that_is_not_reusable_answers_nothing(clinic: Clinic) -> None:
    done = train(clinic, trace={"network": ("192.0.2.1:443",)})
    assert not done.reusable
    answer = clinic.ask()
    assert (answer.kind, answer.difference) == ("miss", None)
    assert answer.compared is not None
    assert answer.compared.reason == "network"


def test_a_run_that_was_withdrawn_answers_nothing_and_an_equal_one_still_does(clinic: Clinic) -> None:
    first, second = train(clinic), train(clinic)
    withdraw(clinic.workspace(), str(second.record), "wrong data")
    answer = clinic.ask()
    assert answer.run is not None
    assert answer.run.index == first.record
    withdraw(clinic.workspace(), str(first.record))
    assert clinic.ask().kind == "miss"


@pytest.mark.parametrize("action", ["revoke", "compromise"])
def test_runs_signed_by_a_key_that_no_longer_stands_answer_nothing(clinic: Clinic, action: str) -> None:
    clinic.admit("bob")
    done = train(clinic, member="bob")
    assert clinic.ask(trust=frozenset({"bob"})).kind == "hit"
    key = clinic.workspace("bob").identity.key.public
    assert done.record is not None
    from_index = done.record if action == "compromise" else None
    member_action(clinic.workspace(), action, "bob", key=key, from_index=from_index)
    assert clinic.ask(trust=frozenset({"bob"})).kind == "miss"


def test_a_manifest_that_is_gone_is_no_answer_and_no_failure(clinic: Clinic) -> None:
    train(clinic)
    workspace = clinic.workspace()
    for cid in list(workspace.store.list()):
        workspace.store.delete(cid)
    answer = clinic.ask()
    assert answer.kind == "miss"
    assert answer.warnings
    assert "manifest" in answer.warnings[0]


# whose answers are taken


def test_own_results_come_first_then_trusted_ones_then_an_offer(clinic: Clinic) -> None:
    clinic.admit("bob")
    clinic.admit("eve")
    train(clinic, member="eve")
    offered = clinic.ask()
    assert (offered.kind, offered.note) == ("offer", "its author eve is not among those you trust")
    train(clinic, member="bob")
    taken = clinic.ask(trust=frozenset({"bob"}))
    assert taken.run is not None
    assert (taken.kind, taken.run.member) == ("hit", "bob")
    train(clinic)
    train(clinic, member="bob")
    own = clinic.ask(trust=frozenset({"bob"}))
    assert own.run is not None
    assert own.run.member == "ada"


def test_own_results_are_taken_by_their_author_only(clinic: Clinic) -> None:
    clinic.admit("bob")
    train(clinic)
    assert clinic.ask().kind == "hit"
    assert clinic.ask(member="bob").kind == "offer"


def test_what_another_key_signed_under_ones_own_name_is_a_strangers(clinic: Clinic) -> None:
    """Whoever keeps a ledger can give a second key any member's name."""
    path = clinic.workspace().identity.path
    theirs, ours = SigningKey.generate(), path.read_bytes()
    member_action(clinic.workspace(), "add-key", "ada", key=theirs.public)
    path.unlink()
    write_key(path, theirs)
    clinic.close()  # the key is read when a workspace is opened
    train(clinic)
    assert clinic.ask().kind == "hit", "to those who hold the key it is their own"
    path.write_bytes(ours)
    clinic.close()
    answer = clinic.ask()
    assert (answer.kind, answer.is_strangers) == ("offer", True)
    assert "no key of yours signed it" in answer.note
    key_id = theirs.public.key_id
    assert clinic.ask(key_ids={key_id}).kind == "hit", "a key can be trusted by itself"


def test_what_was_signed_before_a_rotation_stays_ones_own(clinic: Clinic) -> None:
    train(clinic)
    rotate_own_key(clinic.workspace())
    assert clinic.ask().kind == "hit"


def test_agreement_counts_authors_and_not_runs(clinic: Clinic) -> None:
    for member in ("bob", "eve"):
        clinic.admit(member)
    trust = frozenset({"bob", "eve"})
    train(clinic, member="bob")
    train(clinic, member="bob")
    waiting = clinic.ask(trust=trust, agree=2)
    assert waiting.kind == "offer"
    assert waiting.note == "1 of the 2 authors your settings ask for agree"
    train(clinic, member="eve")
    assert clinic.ask(trust=trust, agree=2).kind == "hit"
    assert clinic.ask(trust=frozenset({"bob"}), agree=2).kind == "offer", "strangers do not count"


def test_equal_work_with_different_outputs_is_offered_and_taken_when_accepted(clinic: Clinic) -> None:
    clinic.admit("bob")
    clinic.admit("eve")
    trust = frozenset({"bob"})
    train(clinic, member="bob")
    train(clinic, member="eve", weights="others")
    assert any("not deterministic" in warning for warning in clinic.listener.warnings)
    disputed = clinic.ask(trust=trust)
    assert (disputed.kind, disputed.disputed) == ("offer", True)
    assert clinic.ask(trust=trust, accept=DISPUTED).kind == "hit"
    train(clinic, weights="mine")
    own = clinic.ask()
    assert (own.kind, own.disputed) == ("hit", True), "one's own are taken, and the dispute is told"


# seeds


def test_work_that_differs_in_its_seed_is_shown_and_taken_when_accepted(clinic: Clinic) -> None:
    done = train(clinic, "--seed", "1", seeds=["seed"])
    words = ("python", "train.py", "--seed", "2")
    shown = clinic.ask(*words, seeds=["seed"])
    assert shown.run is not None
    assert (shown.kind, shown.level, shown.run.index) == ("same-work", "same-work", done.record)
    taken = clinic.ask(*words, seeds=["seed"], accept=frozenset({"same-work"}))
    assert (taken.kind, taken.level) == ("hit", "same-work")
    assert clinic.ask("python", "train.py", "--seed", "1", seeds=["seed"]).level == "exact"


def test_same_work_of_a_stranger_is_not_taken_though_accepted(clinic: Clinic) -> None:
    clinic.admit("eve")
    train(clinic, "--seed", "1", member="eve", seeds=["seed"])
    words = ("python", "train.py", "--seed", "2")
    assert clinic.ask(*words, seeds=["seed"], accept=frozenset({"same-work"})).kind == "same-work"


# nearest


def test_nearest_work_has_the_fewest_and_the_smallest_differences(clinic: Clinic) -> None:
    for depth, rate in (("3", "0.1"), ("4", "0.1"), ("9", "0.1"), ("6", "0.5")):
        train(clinic, "--depth", depth, "--rate", rate)
    command = clinic.command("python", "train.py", "--depth", "6", "--rate", "0.1")
    found = nearest_runs(clinic.workspace(), command, clinic.surroundings())
    assert [near.changed for near in found] == [
        {"depth": ("9", "6")}, {"depth": ("4", "6")}, {"depth": ("3", "6")}
    ]  # fmt: skip
    assert all(near.same_data and near.same_code for near in found)


def test_nearest_work_tells_whether_data_and_code_are_the_same(clinic: Clinic) -> None:
    train(clinic, "--depth", "3")
    clinic.write("data.csv", "changed")
    command = clinic.command("python", "train.py", "--depth", "4")
    (near,) = nearest_runs(clinic.workspace(), command, clinic.surroundings())
    assert (near.same_data, near.same_code) == (False, True)


def test_nearest_work_is_finished_work_and_each_parameter_set_once(clinic: Clinic) -> None:
    train(clinic, "--depth", "3", status="failed")
    train(clinic, "--depth", "4")
    newest = train(clinic, "--depth", "4", joules=50.0)
    train(clinic, "--depth", "5", status="interrupted")
    command = clinic.command("python", "train.py", "--depth", "2", "--verbose")
    found = nearest_runs(clinic.workspace(), command, clinic.surroundings())
    assert [near.run.index for near in found] == [newest.record]
    assert found[0].changed == {"depth": ("4", "2"), "verbose": (None, "true")}


def test_seeds_make_no_distance(clinic: Clinic) -> None:
    train(clinic, "--depth", "3", "--seed", "1", seeds=["seed"])
    command = clinic.command("python", "train.py", "--depth", "3", "--seed", "2", seeds=["seed"])
    (near,) = nearest_runs(clinic.workspace(), command, clinic.surroundings())
    assert near.changed == {}


def test_other_scripts_are_not_near(clinic: Clinic) -> None:
    train(clinic)
    clinic.write("other.py")
    command = clinic.command("python", "other.py")
    assert nearest_runs(clinic.workspace(), command, clinic.surroundings()) == []


def test_an_entry_that_is_no_run_is_none(clinic: Clinic) -> None:
    done = train(clinic, metrics={"accuracy": 0.9}, joules=250.0)
    connection = clinic.workspace().ledger.connection
    assert earlier_run(connection, 0) is None
    assert done.record is not None
    told = earlier_run(connection, done.record)
    assert told is not None
    assert told.energy_joules == pytest.approx(250)
    assert (told.relative_u95, told.metrics) == (0.2, {"accuracy": 0.9})
