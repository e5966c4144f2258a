"""What a copy takes from a server, and how a server that lies is caught: nothing is taken, and the evidence is kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lichen.contracts import default_contracts
from lichen.crypto.keys import SigningKey
from lichen.encoding.entry import Entry
from lichen.errors import (
    LichenError,
    NetworkError,
    Rejected,
    RemoteProtocolError,
    RollbackError,
    VerificationError,
)
from lichen.ledger.audit import audit
from lichen.ledger.checkpoint import Checkpoint, sign_checkpoint
from lichen.ledger.ports import Appended
from lichen.ledger.split_view import SplitView, verify_split_view
from lichen.ledger.succession import Succession

from .conftest import Scene, Server


@pytest.fixture
def served(scene: Scene) -> Server:
    """Ten blocks on a server."""
    ledger = scene.make()
    ledger.append_many([scene.entry(ledger) for _ in range(300)], seal=True)
    return Server(ledger)


def evidence_of(scene: Scene, kind: str) -> dict[str, bytes]:
    (place,) = (scene.root / "copy" / "evidence").iterdir()
    assert f"-{kind}-" in place.name
    return {file.name: file.read_bytes() for file in place.iterdir()}


def test_a_copy_follows_its_server_and_asks_for_no_more_than_it_lacks(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    copy.catch_up()
    assert copy.checkpoint() == served.ledger.checkpoint()
    served.asked.clear()
    assert copy.catch_up() == 0
    assert served.asked == ["checkpoint"]
    served.ledger.append(scene.entry(served.ledger), seal=True)
    served.asked.clear()
    assert copy.catch_up() == 2
    assert served.asked == ["checkpoint", "bundle"]
    assert copy.checkpoint() == served.ledger.checkpoint()
    assert audit(copy.directory, default_contracts()).is_sound


def test_an_append_is_a_receipt_that_holds_and_an_entry_in_the_copy(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    entry = scene.entry(served.ledger)
    appended = copy.append(entry)
    assert copy.entry(appended.index) == served.ledger.entry(appended.index) == entry
    assert copy.receipt(appended.index).to_text()
    assert copy.append(entry) == appended
    stranger = Entry.signed(scene.entry(served.ledger).payload, SigningKey.generate())
    results = copy.append_many([stranger, scene.entry(served.ledger)])
    assert isinstance(results[0], Rejected)
    assert results[1].index == appended.index + 2


def test_a_server_that_is_away_is_no_lie(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    copy.catch_up()
    served.is_away = True
    with pytest.raises(NetworkError):
        copy.catch_up()
    with pytest.raises(NetworkError):
        copy.append(scene.entry(served.ledger))
    assert copy.receipt(2).to_text()
    assert not (copy.directory / "evidence").exists()


def fork_of(scene: Scene, served: Server, *, count: int) -> Server:
    """The same log, gone on from an older copy of its directory with other records."""
    old = scene.root / "old"
    served.ledger.close()
    shutil.copytree(served.ledger.directory, old)
    honest = scene.open(served.ledger.directory)
    honest.append(scene.entry(honest), seal=True)
    served.ledger = honest
    forked = scene.open(old)
    for _ in range(count):
        forked.append(scene.entry(forked), seal=True)
    return Server(forked)


@pytest.mark.parametrize("count", [1, 3])
def test_a_fork_is_refused_and_proved_to_others(scene: Scene, served: Server, count: int) -> None:
    forked = fork_of(scene, served, count=count)
    copy = scene.copy(served)
    copy.catch_up()
    before = copy.checkpoint()
    copy._remote = forked
    with pytest.raises(RollbackError, match="another history"):
        copy.catch_up()
    assert copy.checkpoint() == before
    kept = evidence_of(scene, "fork")
    assert kept["seen.checkpoint"].decode() == before
    shown = SplitView.from_bytes(kept["split-view.json"])
    verify_split_view(shown, [scene.log_key.public])


def test_a_smaller_tree_is_refused_unless_it_may_be_a_publication_of_a_moment_ago(
    scene: Scene, served: Server
) -> None:
    from lichen.net.remote import remote_ledger

    old = served.ledger.checkpoint()
    served.ledger.append(scene.entry(served.ledger), seal=True)
    copy = scene.copy(served)
    copy.catch_up()
    served.checkpoint_shown = old
    assert copy.catch_up() == 0
    long_ago = remote_ledger._now_ms() - 60_000
    copy._remembered = type(copy._remembered)(
        copy._remembered.url, copy._remembered.ledger, copy._remembered.log_key, "public", copy._remembered.checkpoint, long_ago,
    )  # fmt: skip
    with pytest.raises(RollbackError, match="behind what was seen"):
        copy.catch_up()
    assert evidence_of(scene, "smaller-tree")["offered.checkpoint"].decode() == old


def test_a_copy_that_was_taken_away_does_not_make_the_past_forgotten(scene: Scene, served: Server) -> None:
    forked = fork_of(scene, served, count=2)
    copy = scene.copy(served)
    copy.catch_up()
    remembered = copy._remembered
    copy.close()
    (scene.root / "copy" / "ledger.sqlite").unlink()
    fresh = scene.copy(forked)
    fresh._remembered = remembered
    with pytest.raises(RollbackError, match="another history"):
        fresh.catch_up()


def tampered(entry: bytes) -> bytes:
    return entry.replace(b'"exit_status":0', b'"exit_status":1')


def test_an_altered_entry_is_refused_and_named(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    copy.catch_up()
    size = copy.size
    index = served.ledger.append(scene.entry(served.ledger), seal=True).index
    served.changed_entries[index] = tampered(served.ledger.sealed_entries(index, index + 1)[0])
    with pytest.raises(VerificationError, match=f"entry {index}") as caught:
        copy.catch_up()
    assert not isinstance(caught.value, RollbackError)
    assert copy.size == size
    kept = evidence_of(scene, "altered-entry")
    assert f"entry {index} is not the one in the log's tree" in kept["reason.txt"].decode()
    assert f"entries-from-{size}.bundle" in kept
    served.changed_entries.clear()
    assert copy.catch_up() == 2


def test_what_is_no_entry_or_has_no_seal_is_refused(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    copy.catch_up()
    index = served.ledger.append(scene.entry(served.ledger), seal=True).index
    served.changed_entries[index] = b"nothing"
    with pytest.raises(RemoteProtocolError, match="no entry"):
        copy.catch_up()
    record = served.ledger.sealed_entries(index, index + 1)[0]
    served.changed_entries = {index: record, index + 1: record}
    with pytest.raises(LichenError):
        copy.catch_up()
    assert copy.size == index


def test_a_checkpoint_that_the_pinned_key_did_not_sign_is_refused(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    copy.catch_up()
    other = SigningKey.generate()
    body = Checkpoint(copy.origin, copy.size + 5, bytes(32))
    served.checkpoint_shown = sign_checkpoint(body, other)
    with pytest.raises(VerificationError, match="did not sign"):
        copy.catch_up()
    assert evidence_of(scene, "wrong-key")["offered.checkpoint"]
    served.checkpoint_shown = "nonsense"
    with pytest.raises(VerificationError):
        copy.catch_up()


def test_a_new_key_of_the_log_is_followed_when_the_entries_bring_it(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    copy.catch_up()
    new, ledger = SigningKey.generate(), served.ledger
    succession = Succession.sign(ledger.id, scene.log_key, new)
    ledger.succeed_log_key(succession, "alice", scene.alice, new)
    assert copy.catch_up() == 2
    entry = scene.entry(ledger)
    appended = copy.append(entry)
    assert copy.entry(appended.index) == entry
    assert copy.log_keys == (scene.log_key.public, new.public)
    assert audit(copy.directory, default_contracts()).is_sound
    served.checkpoint_shown = sign_checkpoint(Checkpoint(copy.origin, copy.size, bytes(32)), new)
    with pytest.raises(RollbackError):
        copy.catch_up()
    shown = SplitView.from_bytes(evidence_of(scene, "fork")["split-view.json"])
    verify_split_view(shown, [new.public])


@pytest.mark.parametrize("kind", ["of another entry", "tampered", "nonsense"])
def test_a_wrong_receipt_is_refused(scene: Scene, served: Server, kind: str) -> None:
    copy = scene.copy(served)
    copy.catch_up()
    good = served.ledger.receipt(2).to_text()
    served.receipt_shown = {
        "of another entry": good, "tampered": good.replace("index 2", "index 3"), "nonsense": "thank you",
    }[kind]  # fmt: skip
    entry = scene.entry(served.ledger)
    with pytest.raises(VerificationError, match="receipt"):
        copy.append(entry)
    kept = evidence_of(scene, "wrong-receipt")
    assert kept["submitted.entry"] == entry.to_bytes()
    assert kept["receipt.txt"].decode() == served.receipt_shown


def test_evidence_is_bounded(scene: Scene, served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    from lichen.net.remote import memory

    monkeypatch.setattr(memory, "EVIDENCE_COUNT_MAX", 3)
    copy = scene.copy(served)
    served.checkpoint_shown = "nonsense"
    for _ in range(5):
        with pytest.raises(VerificationError):
            copy.catch_up()
    assert len(list((Path(copy.directory) / "evidence").iterdir())) == 3


def test_many_entries_go_out_in_few_requests_and_each_has_its_answer(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    served.bounds = (100, 60_000)
    stranger = Entry.signed(scene.entry(served.ledger).payload, SigningKey.generate())
    entries = [scene.entry(served.ledger) for _ in range(149)] + [stranger]
    served.asked.clear()
    results = copy.append_many(entries)
    assert [isinstance(each, Rejected) for each in results] == [False] * 149 + [True]
    assert [copy.entry(each.index) for each in results[:-1]] == entries[:-1]
    batches = [int(what.split()[1]) for what in served.asked if what.startswith("submit ")]
    assert sum(batches) == 150
    assert all(count * len(entries[0].to_bytes()) <= 60_000 for count in batches)
    assert len(batches) <= 5
    assert copy.size == served.ledger.size


def test_one_entry_is_sent_alone_with_its_receipt_and_none_not_at_all(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    served.asked.clear()
    assert copy.append_many([]) == []
    assert served.asked == []
    assert isinstance(copy.append_many([scene.entry(served.ledger)])[0], Appended)
    assert "submit" in served.asked
    signed = copy.append_all_signed([scene.statement(served.ledger) for _ in range(3)], scene.alice)
    assert [copy.entry(each.index).key_id for each in signed] == [scene.alice.public.key_id] * 3


def test_a_wrong_place_for_one_of_many_is_refused_with_evidence(scene: Scene, served: Server) -> None:
    copy = scene.copy(served)
    served.is_wrong_about_places = True
    with pytest.raises(VerificationError, match="an index that does not hold"):
        copy.append_many([scene.entry(served.ledger) for _ in range(3)])
    (kept,) = (copy.directory / "evidence").iterdir()
    assert (kept / "submitted.entry").exists()
