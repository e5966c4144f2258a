"""A witness's memory: what it signs, what it never signs, and what it still knows after a restart or an old backup."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, SignatureType, SignedNote
from lichen.errors import EncodingError, KeyFileError, NotFoundError, StorageError, UsageError
from lichen.ledger.checkpoint import Checkpoint, parse_checkpoint, sign_checkpoint
from lichen.ledger.proof import consistency_proof
from lichen.ledger.split_view import verify_split_view
from lichen.ledger.tree import leaf_hash, root_of
from lichen.ledger.witness import AddCheckpoint, Refusal
from lichen.ledger.witness_store import WITNESS_FILE_NAME, WitnessStore, origin_digest

LOG = SigningKey.from_seed(b"l" * 32)
ORIGIN = "lichen/" + "ab" * 32
LOG_KEY = NoteKey(ORIGIN, LOG.public)
NOW = 1_760_000_000


class FakeLog:
    """A log that says what it is asked to say, also another history from some index on."""

    def __init__(
        self, key: SigningKey = LOG, origin: str = ORIGIN, fork_at: int | None = None, label: str = ""
    ) -> None:
        self.key, self.origin, self.fork_at, self.label = key, origin, fork_at, label

    def leaves(self, size: int) -> list[bytes]:
        fork_at = size if self.fork_at is None else self.fork_at
        return [
            leaf_hash((b"%d" if n < fork_at else b"fork %d" + self.label.encode()) % n) for n in range(size)
        ]

    def note(self, size: int) -> str:
        return sign_checkpoint(Checkpoint(self.origin, size, root_of(self.leaves(size))), self.key)

    def request(self, old: int, size: int) -> bytes:
        leaves = self.leaves(size)
        proof = (
            consistency_proof(old, size, lambda start, end: root_of(leaves[start:end])) if old <= size else []
        )
        return AddCheckpoint(old, tuple(proof), self.note(size)).to_bytes()


HONEST = FakeLog()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "witness"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def store(place: Path, home: Path) -> Iterator[WitnessStore]:
    with WitnessStore.create(place, "witness.example/w1", home=home) as made:
        made.add_log(LOG_KEY)
        yield made


def time_of(store: WitnessStore, note: str, line: str) -> int:
    return SignedNote.from_text(note + line).cosigned_at(store.identity.note_key)


def status(answer: str | Refusal) -> int:
    return int(answer.status) if isinstance(answer, Refusal) else 200


def test_a_growing_log_is_cosigned_and_the_checkpoint_served(store: WitnessStore) -> None:
    for old, size in [(0, 1), (1, 7), (7, 7), (7, 20)]:
        line = store.add_checkpoint(HONEST.request(old, size), NOW + size)
        assert isinstance(line, str)
        assert time_of(store, HONEST.note(size), line) == NOW + size
        served = store.checkpoint(origin_digest(ORIGIN))
        assert served == HONEST.note(size) + line
    assert store.checkpoint(origin_digest("another")) is None


def test_a_log_that_was_never_cosigned_is_not_served(store: WitnessStore) -> None:
    assert store.checkpoint(origin_digest(ORIGIN)) is None


@pytest.mark.parametrize(
    ("request_of", "expected"),
    [
        (lambda: HONEST.request(0, 12), 409),
        (lambda: HONEST.request(5, 8), 409),
        (lambda: FakeLog(fork_at=3).request(10, 12), 422),
        (lambda: FakeLog(fork_at=3).request(10, 10), 422),
        (lambda: FakeLog(fork_at=3).request(0, 10), 409),
        (lambda: FakeLog(key=SigningKey.from_seed(bytes(32))).request(10, 12), 403),
        (lambda: FakeLog(origin="lichen/" + "cd" * 32).request(0, 12), 404),
        (lambda: HONEST.request(12, 10), 400),
        (lambda: b"junk", 400),
    ],
)
def test_what_is_refused_leaves_the_record_as_it_was_also_after_a_restart(
    store: WitnessStore, place: Path, home: Path, request_of: Callable[[], bytes], expected: int
) -> None:
    store.add_checkpoint(HONEST.request(0, 10), NOW)
    before = store.records()[0].seen
    assert status(store.add_checkpoint(request_of(), NOW)) == expected
    assert store.records()[0].seen == before
    store.close()
    with WitnessStore.open(place, home=home) as again:
        assert status(again.add_checkpoint(request_of(), NOW)) == expected
        assert again.records()[0].seen == before
        assert isinstance(again.add_checkpoint(HONEST.request(10, 12), NOW), str)


def test_two_trees_of_one_size_are_kept_as_evidence_once(store: WitnessStore) -> None:
    store.add_checkpoint(HONEST.request(0, 10), NOW)
    for _ in range(3):
        store.add_checkpoint(FakeLog(fork_at=3).request(10, 10), NOW)
    [(origin, evidence)] = store.evidence()
    assert origin == ORIGIN
    assert verify_split_view(evidence, [LOG.public], ORIGIN).first.tree_size == 10
    for number in range(40):
        store.add_checkpoint(FakeLog(fork_at=3, label=str(number)).request(10, 10), NOW)
    assert store.records()[0].evidence_count == 16


def test_the_time_of_a_cosignature_never_goes_back(store: WitnessStore) -> None:
    times = []
    for old, size, now in [(0, 1, NOW), (1, 2, NOW - 500), (2, 3, NOW + 5)]:
        line = store.add_checkpoint(HONEST.request(old, size), now)
        assert isinstance(line, str)
        times.append(time_of(store, HONEST.note(size), line))
    assert times == [NOW, NOW, NOW + 5]


def test_a_clock_before_1970_signs_nothing_and_records_nothing(store: WitnessStore) -> None:
    with pytest.raises(EncodingError, match="clock"):
        store.add_checkpoint(HONEST.request(0, 3), 0)
    assert store.records()[0].seen.size == 0


def test_logs_do_not_mix(store: WitnessStore) -> None:
    other = FakeLog(origin="lichen/" + "cd" * 32, fork_at=0)
    store.add_log(NoteKey(other.origin, LOG.public))
    assert isinstance(store.add_checkpoint(HONEST.request(0, 10), NOW), str)
    assert isinstance(store.add_checkpoint(other.request(0, 4), NOW), str)
    assert [(record.origin, record.seen.size) for record in store.records()] == [
        (ORIGIN, 10),
        (other.origin, 4),
    ]


def test_a_log_that_was_removed_and_added_again_is_remembered(store: WitnessStore) -> None:
    store.add_checkpoint(HONEST.request(0, 10), NOW)
    store.remove_log(ORIGIN)
    assert status(store.add_checkpoint(HONEST.request(10, 12), NOW)) == 404
    assert store.add_log(LOG_KEY)
    assert not store.add_log(LOG_KEY)
    assert status(store.add_checkpoint(FakeLog(fork_at=3).request(0, 12), NOW)) == 409
    assert isinstance(store.add_checkpoint(HONEST.request(10, 12), NOW), str)
    with pytest.raises(NotFoundError):
        store.remove_log("lichen/unknown")


def test_a_log_with_a_new_key_is_cosigned_once_the_witness_knows_the_key(store: WitnessStore) -> None:
    new = SigningKey.from_seed(b"n" * 32)
    store.add_checkpoint(HONEST.request(0, 10), NOW)
    assert status(store.add_checkpoint(FakeLog(key=new).request(10, 12), NOW)) == 403
    store.add_log(NoteKey(ORIGIN, new.public))
    assert isinstance(store.add_checkpoint(FakeLog(key=new).request(10, 12), NOW), str)
    assert status(store.add_checkpoint(FakeLog(key=new, fork_at=3).request(12, 14), NOW)) == 422
    assert isinstance(store.add_checkpoint(HONEST.request(12, 14), NOW), str)  # both are known for a while


def test_only_keys_of_logs_can_be_trusted_for_logs(store: WitnessStore) -> None:
    with pytest.raises(UsageError, match="not of a log"):
        store.add_log(NoteKey(ORIGIN, LOG.public, SignatureType.COSIGNATURE_V1))
    with pytest.raises(UsageError, match="its own"):
        store.add_log(NoteKey(ORIGIN, store.identity.key.public))


def test_concurrent_requests_for_one_log_are_answered_one_after_the_other(place: Path, home: Path) -> None:
    """Sixteen threads over four connections race from each size; exactly one of the two histories gets through."""
    WitnessStore.create(place, "w", home=home).close()
    stores = [WitnessStore.open(place, home=home) for _ in range(4)]
    stores[0].add_log(LOG_KEY)
    signed: list[tuple[int, bytes]] = []

    def ask(number: int) -> None:
        log = HONEST if number % 2 else FakeLog(fork_at=0)
        size = 0
        for step in range(8):
            answer = stores[number % 4].add_checkpoint(log.request(size, size + 1 + step % 3), NOW)
            if isinstance(answer, str):
                size += 1 + step % 3
                signed.append((size, parse_checkpoint(log.note(size))[0].root))
            elif int(answer.status) == 409:
                size = int(answer.message)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    roots = dict(signed)
    assert roots
    assert all(roots[size] == root for size, root in signed)
    is_fork = {root == root_of(HONEST.leaves(size)) for size, root in roots.items()}
    assert len(is_fork) == 1, "both histories were cosigned"
    for each in stores:
        each.close()


# ---- old copies -------------------------------------------------------------------------------------------------


def test_a_record_put_back_from_a_backup_is_raised_to_the_mark_before_anything_is_signed(
    store: WitnessStore, place: Path, home: Path, tmp_path: Path
) -> None:
    store.add_checkpoint(HONEST.request(0, 10), NOW)
    store.close()
    shutil.copytree(place, tmp_path / "backup")
    with WitnessStore.open(place, home=home) as later:
        later.add_checkpoint(HONEST.request(10, 20), NOW)
    shutil.rmtree(place)
    shutil.copytree(tmp_path / "backup", place)
    with WitnessStore.open(place, home=home) as restored:
        assert restored.records()[0].seen.size == 20
        assert status(restored.add_checkpoint(FakeLog(fork_at=15).request(10, 18), NOW)) == 409
        assert status(restored.add_checkpoint(FakeLog(fork_at=15).request(20, 22), NOW)) == 422
        assert isinstance(restored.add_checkpoint(HONEST.request(20, 21), NOW), str)


def test_a_backup_on_another_machine_learns_from_its_own_cosignature(
    store: WitnessStore, place: Path, tmp_path: Path
) -> None:
    """The mark is lost with the machine; the first checkpoint that carries the witness's own cosignature tells it."""
    store.add_checkpoint(HONEST.request(0, 10), NOW)
    store.close()
    shutil.copytree(place, tmp_path / "backup")
    with WitnessStore.open(place) as later:
        line = later.add_checkpoint(HONEST.request(10, 20), NOW)
        assert isinstance(line, str)
    with WitnessStore.open(tmp_path / "backup", home=tmp_path / "another home") as restored:
        head, blank, note = HONEST.request(10, 20).partition(b"\n\n")
        answer = restored.add_checkpoint(head + blank + note + line.encode(), NOW)
        assert isinstance(answer, Refusal)
        assert (int(answer.status), answer.body) == (409, "20\n")
        assert restored.records()[0].seen.size == 20
        assert restored.checkpoint(origin_digest(ORIGIN)) == HONEST.note(20) + line
        assert status(restored.add_checkpoint(FakeLog(fork_at=15).request(20, 22), NOW)) == 422


def test_a_witness_whose_own_cosignatures_contradict_each_other_signs_no_more_for_that_log(
    store: WitnessStore, place: Path, tmp_path: Path
) -> None:
    store.add_checkpoint(HONEST.request(0, 10), NOW)
    store.close()
    shutil.copytree(place, tmp_path / "copy")
    with WitnessStore.open(place) as one, WitnessStore.open(tmp_path / "copy") as two:
        line = one.add_checkpoint(HONEST.request(10, 20), NOW)
        assert isinstance(line, str)
        assert isinstance(two.add_checkpoint(FakeLog(fork_at=15).request(10, 20), NOW), str)
        head, blank, note = HONEST.request(20, 20).partition(b"\n\n")
        assert status(two.add_checkpoint(head + blank + note + line.encode(), NOW)) == 422
        assert two.records()[0].frozen
        assert [origin for origin, _ in two.evidence()] == [ORIGIN]
        assert status(two.add_checkpoint(FakeLog(fork_at=15).request(20, 21), NOW)) == 404


# ---- opening ----------------------------------------------------------------------------------------------------


def test_a_witness_is_not_made_twice(store: WitnessStore, place: Path) -> None:
    with pytest.raises(UsageError, match="already"):
        WitnessStore.create(place, "other")


def test_a_lost_record_is_not_begun_anew_under_the_old_key(store: WitnessStore, place: Path) -> None:
    store.close()
    for file in place.glob(WITNESS_FILE_NAME + "*"):
        file.unlink()
    with pytest.raises(NotFoundError):
        WitnessStore.open(place)
    with pytest.raises(KeyFileError):
        WitnessStore.create(place, "witness.example/w1")


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb"])
def test_a_name_that_cannot_stand_in_a_note_is_refused_before_anything_is_made(
    place: Path, name: str
) -> None:
    with pytest.raises(EncodingError):
        WitnessStore.create(place, name)
    assert not place.exists()


def test_a_key_that_others_can_read_is_refused(store: WitnessStore, place: Path) -> None:
    store.close()
    (place / "witness.key").chmod(0o644)
    with pytest.raises(KeyFileError):
        WitnessStore.open(place)


def test_a_file_that_is_no_witness_or_damaged_or_newer_is_refused(store: WitnessStore, place: Path) -> None:
    store.close()
    path = place / WITNESS_FILE_NAME
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(Exception, match="schema 99") as caught:
        WitnessStore.open(place)
    assert type(caught.value).__name__ == "FormatVersionError"
    path.write_bytes(b"junk" * 2_000)
    with pytest.raises(StorageError, match="new key"):
        WitnessStore.open(place)


# ---- any order of requests --------------------------------------------------------------------------------------


class WitnessLaws(RuleBasedStateMachine):
    """Whatever is asked, in whatever order, across restarts: the trees that one witness signed are one growing log."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.scratch = tempfile.TemporaryDirectory()
        self.place, self.home = Path(self.scratch.name) / "w", Path(self.scratch.name) / "h"
        self.store = WitnessStore.create(self.place, "w", home=self.home)
        self.store.add_log(LOG_KEY)
        self.logs = [HONEST, FakeLog(fork_at=0), FakeLog(fork_at=3), FakeLog(fork_at=3, label="b")]
        self.signed: dict[int, bytes] = {}
        self.latest = 0

    @rule(log=st.integers(0, 3), old=st.integers(0, 12), more=st.integers(0, 5), is_exact=st.booleans())
    def ask(self, log: int, old: int, more: int, is_exact: bool) -> None:
        old = self.latest if is_exact else old
        body = self.logs[log].request(old, old + more)
        answer = self.store.add_checkpoint(body, NOW)
        if isinstance(answer, str):
            root = root_of(self.logs[log].leaves(old + more))
            assert self.signed.get(old + more, root) == root, "two trees of one size were signed"
            assert old + more >= self.latest, "a smaller tree was signed"
            self.signed[old + more] = root
            self.latest = old + more

    @rule()
    def restart(self) -> None:
        self.store.close()
        self.store = WitnessStore.open(self.place, home=self.home)

    @precondition(lambda self: self.signed)
    @invariant()
    def some_log_has_all_that_was_signed(self) -> None:
        assert any(
            all(root_of(log.leaves(size)) == root for size, root in self.signed.items()) for log in self.logs
        )

    @invariant()
    def the_record_is_the_latest_that_was_signed(self) -> None:
        assert self.store.records()[0].seen.size == self.latest

    def teardown(self) -> None:
        self.store.close()
        self.scratch.cleanup()


TestWitnessLaws = WitnessLaws.TestCase
TestWitnessLaws.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
