"""Laws of the ledger as a whole, over random histories."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lichen.contracts import default_contracts, default_versions
from lichen.contracts.registry import tally_of
from lichen.crypto.keys import SigningKey
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import LichenError, Rejected
from lichen.ledger.audit import audit
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.hash_tiles import HashTiles
from lichen.ledger.ledger import Ledger
from lichen.ledger.proof import inclusion_proof, verify_inclusion
from lichen.ledger.receipt import verify_receipt
from lichen.ledger.state_map import StateMap, state_key
from lichen.ledger.storage import Database
from lichen.ledger.tables import Tables
from lichen.ledger.tree import leaf_hash, root_of

CID = "bafkrei" + "a" * 52
LOG_KEY, ALICE = SigningKey.from_seed(b"\x01" * 32), SigningKey.from_seed(b"\x02" * 32)


class AnyHistory(RuleBasedStateMachine):
    """Whatever is appended, sealed, refused, interrupted or reopened, in whatever order:

    * an accepted entry keeps its index and bytes for ever, and indices have no gap;
    * the root is that of RFC 6962 over all entries, and the state that of all accepted records;
    * every entry under the newest checkpoint has a receipt that holds.
    """

    def __init__(self):
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="lichen-laws-"))
        self.entries: list[bytes] = []
        self.counts: dict[bytes, int] = {}
        self.sent: list[Entry] = []
        self.time_ms = 1_000_000

    @initialize(entries_max=st.integers(1, 6), slot_ms=st.sampled_from([0, 50, 10_000]))
    def create(self, entries_max, slot_ms):
        genesis = Genesis(
            name="law",
            created_unix_ms=0,
            admins=(Admin("alice", ALICE.public),),
            log_key=LOG_KEY.public,
            contracts=default_versions(),
            nonce=os.urandom(12),
            sealing=Sealing("solo", entries_max, slot_ms),
        )
        self.ledger = Ledger.create(
            self.directory, genesis, LOG_KEY, default_contracts(), now_ms=lambda: self.time_ms
        )
        self.take_over()

    def take_over(self):
        """Note what the ledger holds now; nothing that was noted may have changed."""
        now = [entry.to_bytes() for _, entry in self.ledger.entries()]
        assert now[: len(self.entries)] == self.entries
        self.entries = now

    def data(self, digest):
        said = {"cid": CID, "size_bytes": 1}
        statement = self.ledger.statement("data", [Subject("d", bytes([digest]) * 32)], said, member="alice")
        self.sent.append(Entry.signed(statement.to_bytes(), ALICE))
        return self.sent[-1]

    def accepted(self, entry, index):
        assert self.ledger.entry(index) == entry
        digest = Statement.from_bytes(entry.payload).subjects[0].sha256
        self.counts[digest] = self.counts.get(digest, 0) + 1

    @rule(digest=st.integers(0, 5), seal=st.booleans(), step_ms=st.integers(-100, 100))
    def append(self, digest, seal, step_ms):
        self.time_ms += step_ms
        entry = self.data(digest)
        self.accepted(entry, self.ledger.append(entry, seal=seal).index)
        self.take_over()

    @rule(digests=st.lists(st.integers(0, 5), max_size=9), bad=st.sets(st.integers(0, 8)), seal=st.booleans())
    def append_many(self, digests, bad, seal):
        entries = [self.data(digest) for digest in digests]
        mixed = [
            Entry(entry.key_id, bytes(64), entry.payload) if place in bad else entry
            for place, entry in enumerate(entries)
        ]
        results = self.ledger.append_many(mixed, seal=seal)
        for place, (entry, result) in enumerate(zip(entries, results, strict=True)):
            if place in bad:
                assert result.rule == "ledger.bad-signature"
                self.sent.remove(entry)
            else:
                self.accepted(entry, result.index)
        self.take_over()

    @precondition(lambda self: self.sent)
    @rule(place=st.integers(0, 100))
    def append_again(self, place):
        entry = self.sent[place % len(self.sent)]
        with pytest.raises(Rejected, match="in the ledger already"):
            self.ledger.append(entry)

    @rule(digests=st.lists(st.integers(0, 5), min_size=1, max_size=4))
    def fail_half_way(self, digests):
        entries = [self.data(digest) for digest in digests]
        del self.sent[-len(entries) :]

        log = self.ledger._log
        left = len(entries)

        def add_entry(data, digest):  # the last one does not arrive
            nonlocal left
            left -= 1
            if not left:
                raise OSError("power cut")
            return type(log).add_entry(log, data, digest)

        def broken(index):
            raise OSError("power cut")

        log.add_entry, log.state_root_sealed_at = add_entry, broken
        try:
            with pytest.raises(OSError, match="power cut"):
                self.ledger.append_many(entries)
        finally:
            del log.add_entry, log.state_root_sealed_at

    @rule(force=st.booleans(), step_ms=st.integers(0, 20_000))
    def seal(self, force, step_ms):
        self.time_ms += step_ms
        self.ledger.seal(force=force)
        self.take_over()

    @rule(is_closed=st.booleans())
    def reopen(self, is_closed):
        """Closed properly, or let go as a dying process would."""
        if is_closed:
            self.ledger.close()
        else:
            self.ledger._log.database.close()
        self.ledger = Ledger.open(
            self.directory, default_contracts(), log_key=LOG_KEY, now_ms=lambda: self.time_ms
        )
        self.take_over()

    @invariant()
    def roots_are_those_of_the_entries(self):
        hashes = [leaf_hash(data) for data in self.entries]
        assert self.ledger.size == len(hashes)
        assert self.ledger.root_at(len(hashes)) == root_of(hashes)
        sealed = self.ledger.sealed_size
        assert self.ledger.root_at(sealed) == root_of(hashes[:sealed])
        with self.ledger._reading():
            receipt = self.ledger._answers.receipt(sealed - 1)  # ledger.receipt() would seal first
        verify_receipt(receipt, LOG_KEY.public, self.ledger.origin)

    @invariant()
    def state_is_that_of_the_records(self):
        for digest, count in self.counts.items():
            assert tally_of(self.ledger.state_get, "artefact", digest)[0] == count

    def teardown(self):
        self.ledger.close()
        report = audit(self.directory, default_contracts())
        assert report.is_sound, report.problem
        shutil.rmtree(self.directory)


AnyHistory.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyHistory = pytest.mark.slow(AnyHistory.TestCase)


class TestHashTiles:
    """The stored tree is the tree: for any sizes and any cuts into appends, each root and proof is RFC 6962's."""

    @given(
        counts=st.lists(st.integers(0, 300), min_size=1, max_size=6),
        probes=st.lists(st.integers(0, 10**6), max_size=8),
        forget=st.booleans(),
    )
    def test_roots_and_proofs_at_every_size(self, counts, probes, forget):
        path = Path(tempfile.mkdtemp(prefix="lichen-tiles-")) / "t.sqlite"
        database = Database.create(path)
        with database.write() as connection:
            database.install_schema(())
            tables = Tables(connection)
            tiles = HashTiles(connection, tables)
            tiles.refresh(0)
            hashes: list[bytes] = []
            for count in counts:
                new = []
                for _ in range(count):
                    data = len(hashes).to_bytes(4, "big") + b"entry"
                    tables.insert_entry(len(hashes), data)
                    hashes.append(leaf_hash(data))
                    new.append(hashes[-1])
                tiles.append(new)
                if forget:
                    tiles.forget()
                    tiles.refresh(len(hashes))
                assert tiles.root() == root_of(hashes)
            tiles.check(root_of(hashes))
            for probe in probes:
                size = probe % (len(hashes) + 1)
                assert tiles.root_at(size) == root_of(hashes[:size])
                if size:
                    index = probe // 7 % size
                    proof = inclusion_proof(index, size, tiles.subtree_root)
                    verify_inclusion(index, size, hashes[index], proof, root_of(hashes[:size]))
        database.close()
        shutil.rmtree(path.parent)


class TestReplay:
    """Two machines that replay the same entries reach the same state: the clear map agrees with every seal."""

    @settings(max_examples=10)
    @given(kinds=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=25))
    def test_the_clear_map_has_the_root_of_each_seal(self, kinds):
        from lichen.ledger.log_file import LogFile
        from lichen.ledger.seal import Seal

        directory = Path(tempfile.mkdtemp(prefix="lichen-replay-"))
        genesis = Genesis(
            "r", 0, (Admin("alice", ALICE.public),), LOG_KEY.public, default_versions(), bytes(12)
        )
        with Ledger.create(directory, genesis, LOG_KEY, default_contracts()) as ledger:
            for digest, seal in kinds:
                said = {"cid": CID, "size_bytes": 1}
                statement = ledger.statement(
                    "data", [Subject("d", bytes([digest]) * 32)], said, member="alice"
                )
                ledger.append_signed(statement, ALICE, seal=seal == 0)

        class Replayed:
            """The definition: a dictionary."""

            def __init__(self):
                self.map, self.size = StateMap(), 0

            def get(self, contract, key):
                return self.map.get(state_key(contract, key))

            def record(self, index):
                raise AssertionError("no rule used here looks back")

        database = Database.open(directory / "ledger.sqlite", read_only=True)
        with database.read():
            log = LogFile(database, default_contracts())
            log.refresh()
            state = Replayed()
            for index, data in log.tables.entry_range(0, log.size):
                record = log.parse(data, index)
                if record is None:
                    seal = Seal.from_statement(Statement.from_bytes(Entry.from_bytes(data).payload))
                    assert seal.state_root == state.map.root()
                elif index == 0:
                    state.map.update(log.rules.found(record, state))
                else:
                    state.map.update(log.rules.judge(record, state))
                state.size += 1
        database.close()
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    genesis = Genesis("g", 0, (Admin("alice", ALICE.public),), LOG_KEY.public, default_versions(), bytes(12))
    directory = tmp_path_factory.mktemp("garbage") / "ledger"
    with Ledger.create(directory, genesis, LOG_KEY, default_contracts()) as ledger:
        yield ledger


class TestGarbage:
    """Any bytes are an entry that is accepted by a named rule or refused by one; nothing else is ever raised."""

    @settings(max_examples=40)
    @given(payload=st.binary(min_size=1, max_size=200) | st.text(min_size=1).map(str.encode))
    def test_a_payload_of_anything_is_refused_by_name(self, shared, payload):
        with pytest.raises(Rejected) as refusal:
            shared.append(Entry.signed(payload, ALICE))
        assert refusal.value.rule.startswith(("ledger.", "members.", "registry."))

    @settings(max_examples=40)
    @given(
        kind=st.sampled_from(
            ["run", "data", "reuse", "flag", "withdraw", "member", "dispute", "evaluation", "model"]
        ),
        predicate=st.dictionaries(
            st.sampled_from(["of", "cid", "credit", "action", "key", "energy", "parts", "metrics", "x"]),
            st.recursive(
                st.none()
                | st.booleans()
                | st.integers(-(2**53) + 1, 2**53 - 1)
                | st.floats(-1e9, 1e9)
                | st.text(max_size=9),
                lambda inner: (
                    st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
                ),
                max_leaves=6,
            ),
        ),
    )
    def test_a_predicate_of_anything_is_refused_by_name(self, shared, kind, predicate):
        try:
            statement = shared.statement(
                kind, [Subject("s", hashlib.sha256(b"s").digest())], predicate, member="alice"
            )
            entry = Entry.signed(statement.to_bytes(), ALICE)
        except LichenError:
            return
        with pytest.raises(Rejected):
            shared.append(entry)
