"""Laws of the log's tree and of the state map, over random sizes, keys and changes."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import SignedNote
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, FormatVersionError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, sign_checkpoint
from lichen.ledger.genesis import Genesis
from lichen.ledger.proof import consistency_proof, inclusion_proof, verify_consistency, verify_inclusion
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.seal import Seal
from lichen.ledger.state_bucket import Bucket
from lichen.ledger.state_check import check_pieces
from lichen.ledger.state_map import MapProof, StateMap, verify_absence, verify_membership
from lichen.ledger.state_nodes import MemoryNodes
from lichen.ledger.state_store import StateStore
from lichen.ledger.state_tree import StateTree
from lichen.ledger.tree import leaf_hash, root_of

LEAVES = [leaf_hash(b"%d" % number) for number in range(600)]
LOG = SigningKey.from_seed(bytes(range(32)))
hashes = st.binary(min_size=32, max_size=32)


def subtree_root(start: int, end: int) -> bytes:
    return root_of(LEAVES[start:end])


# Keys that share long beginnings, so that trees become deep and buckets split late.
keys = st.one_of(
    hashes,
    st.tuples(st.sampled_from([b"\0" * 8, b"\xff" * 8, b"\0" * 7 + b"\1"]), st.integers(0, 2**12 - 1)).map(
        lambda pair: pair[0] + pair[1].to_bytes(24, "big")
    ),
    st.integers(0, 400).map(lambda number: hashlib.sha256(b"%d" % number).digest()),
)
stored = st.binary(min_size=1, max_size=20)
changes = st.dictionaries(keys, st.none() | stored, max_size=120)


class TestLogProofs:
    """A proof holds for what it was made for; any other claim of the same form is refused."""

    @given(st.integers(1, 600), st.data())
    def test_inclusion(self, size: int, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, size - 1))
        root = subtree_root(0, size)
        proof = inclusion_proof(index, size, subtree_root)
        verify_inclusion(index, size, LEAVES[index], proof, root)
        other = data.draw(st.integers(0, size - 1).filter(lambda number: number != index)) if size > 1 else 1
        for claim in [
            (other, size, LEAVES[index], proof, root),
            (index, size, LEAVES[(index + 1) % 600], proof, root),
            (index, size, LEAVES[index], proof, hashlib.sha256(root).digest()),
            (index, size, LEAVES[index], [*proof, root], root),
        ]:
            assert refused(verify_inclusion, *claim)

    @given(st.integers(0, 600), st.data())
    def test_consistency(self, second: int, data: st.DataObject) -> None:
        first = data.draw(st.integers(0, second))
        roots = subtree_root(0, first), subtree_root(0, second)
        proof = consistency_proof(first, second, subtree_root)
        verify_consistency(first, second, *roots, proof)
        position = data.draw(st.integers(0, max(len(proof) - 1, 0)))
        changed = [*proof[:position], bytes(32), *proof[position + 1 :]]
        assert refused(verify_consistency, first, second, *roots, changed)
        assert refused(verify_consistency, first, second, bytes(32), roots[1], proof)
        if first > 0:  # every log extends the empty one
            assert refused(verify_consistency, first, second, roots[0], bytes(32), proof)

    @given(
        st.integers(),
        st.integers(),
        st.binary(max_size=40),
        st.lists(st.binary(max_size=40), max_size=5),
        hashes,
    )
    def test_any_arguments_are_refused_with_one_error(
        self, index: int, size: int, leaf: bytes, proof: list[bytes], root: bytes
    ) -> None:
        assert refused(verify_inclusion, index, size, leaf, proof, root)


def refused(verify: Any, *claim: Any) -> bool:
    try:
        verify(*claim)
    except VerificationError:
        return True
    return False


class TestStateTree:
    """The stored map has the root and the proofs of the clear one, and its pieces depend on its content only."""

    @given(st.lists(changes, min_size=1, max_size=4), st.lists(keys, max_size=6))
    def test_roots_proofs_and_values_are_equal(
        self, batches: list[dict[bytes, Any]], asked: list[bytes]
    ) -> None:
        clear, nodes = StateMap(), MemoryNodes()
        tree = StateTree(nodes)
        for batch in batches:
            clear.update(batch)
            tree.apply(batch.items())
        assert tree.root() == clear.root()
        assert len(tree) == len(clear)
        assert [key for key, _ in tree.items()] == list(clear)
        for key in [*asked, *list(batches[-1])[:4]]:
            value, proof = tree.prove(key)
            assert (value, proof) == (clear.get(key), clear.prove(key))
            assert tree.get(key) == value
            if value is None:
                verify_absence(clear.root(), key, proof)
            else:
                verify_membership(clear.root(), key, value, proof)
        found = check_pieces(nodes)
        assert (found.root, found.key_count) == (clear.root(), len(clear))

    @given(changes, changes)
    def test_undoing_restores_every_piece(self, before: dict[bytes, Any], batch: dict[bytes, Any]) -> None:
        nodes = MemoryNodes()
        tree = StateTree(nodes)
        tree.apply(before.items())
        pieces = dict(nodes.tiles), dict(nodes.buckets)
        tree.apply(tree.apply(batch.items()))
        assert (nodes.tiles, nodes.buckets) == pieces

    @given(changes, st.randoms(use_true_random=False))
    def test_the_order_of_changes_does_not_matter(self, batch: dict[bytes, Any], random: Any) -> None:
        together, apart = MemoryNodes(), MemoryNodes()
        StateTree(together).apply(batch.items())
        items = list(batch.items())
        random.shuffle(items)
        for item in items:
            StateTree(apart).apply([item])
        assert (apart.tiles, apart.buckets) == (together.tiles, together.buckets)

    @given(st.dictionaries(keys, stored, min_size=1, max_size=40), keys, st.data())
    def test_a_changed_proof_does_not_hold(
        self, values: dict[bytes, bytes], key: bytes, data: st.DataObject
    ) -> None:
        clear = StateMap(values)
        root, value, encoded = clear.root(), clear.get(key), bytearray(clear.prove(key).to_bytes())
        encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
        try:
            proof = MapProof.from_bytes(bytes(encoded))
        except EncodingError:
            return
        if value is None:
            assert refused(verify_absence, root, key, proof)
        else:
            assert refused(verify_membership, root, key, value, proof)

    @given(st.dictionaries(keys, stored, min_size=1, max_size=30), st.data())
    def test_no_proof_shows_a_present_key_absent(
        self, values: dict[bytes, bytes], data: st.DataObject
    ) -> None:
        clear = StateMap(values)
        key = data.draw(st.sampled_from(sorted(values)))
        for other, value in values.items():
            claim = MapProof(clear.prove(other).steps, (other, hashlib.sha256(value).digest()))
            assert refused(verify_absence, clear.root(), key, claim)


class StoredStates(RuleBasedStateMachine):
    """Whatever is done to it, the store answers for each kept version as the clear map of that version does."""

    def __init__(self) -> None:
        super().__init__()
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        StateStore.create_tables(self.connection)
        self.store = StateStore(self.connection)
        self.other = StateStore(self.connection)
        self.version = 0
        self.history: dict[int, dict[bytes, bytes]] = {}

    @rule(batch=changes, step=st.integers(1, 9))
    def seal(self, batch: dict[bytes, bytes | None], step: int) -> None:
        values = dict(self.history[self.version]) if self.history else {}
        self.version += step
        values |= {key: value for key, value in batch.items() if value is not None}
        self.history[self.version] = {key: values[key] for key in values if batch.get(key, b"") is not None}
        self.store.update(self.version, batch)

    @precondition(lambda self: self.history)
    @rule(batch=changes)
    def undo(self, batch: dict[bytes, bytes | None]) -> None:
        self.connection.execute("BEGIN")
        self.store.update(self.version + 1, batch)
        self.connection.execute("ROLLBACK")

    @rule()
    def change_hands(self) -> None:
        self.store, self.other = self.other, self.store

    @precondition(lambda self: self.history)
    @rule(key=keys, back=st.integers(0, 15))
    def prove(self, key: bytes, back: int) -> None:
        version = list(self.store.versions())[-1 - back % len(self.store.versions())]
        clear = StateMap(self.history[version])
        assert self.store.prove(key, version) == (clear.get(key), clear.prove(key))

    @invariant()
    def newest_root(self) -> None:
        newest = StateMap(self.history[self.version] if self.history else {})
        assert self.store.root == newest.root()

    def teardown(self) -> None:
        self.store.check()
        self.connection.close()


TestStoredStates = StoredStates.TestCase

lines = st.lists(
    st.sampled_from(
        ["c2sp.org/tlog-proof@v1", "extra e30=", "index 0", "", "— a AAAAAAAA", "lichen/" + "0" * 64, "1"]
    )
    | st.text(max_size=20),
    max_size=9,
).map("\n".join)


class TestLedgerDecoders:
    """Whatever the text or bytes, a decoder accepts them as its encoder writes them or refuses with EncodingError."""

    @given(lines)
    def test_any_text(self, text: str) -> None:
        for decode, encode in [
            (SignedNote.from_text, SignedNote.to_text),
            (Checkpoint.from_body, Checkpoint.body),
            (Receipt.parse, Receipt.to_text),
        ]:
            try:
                value = decode(text)
            except EncodingError:
                continue
            assert encode(value) == text  # type: ignore[arg-type]

    @given(st.binary(max_size=150) | st.integers(0, 3).map(lambda count: b"\0" + bytes(33) * count))
    def test_any_bytes(self, data: bytes) -> None:
        try:
            proof = MapProof.from_bytes(data)
        except EncodingError:
            pass  # refused, as it should be
        else:
            assert proof.to_bytes() == data
        try:
            bucket = Bucket.from_bytes(data)
        except VerificationError:
            return
        assert bucket.to_bytes() == data

    @given(st.dictionaries(st.text(max_size=12), st.integers() | st.text(max_size=5) | st.none(), max_size=6))
    def test_any_predicate(self, predicate: dict[str, Any]) -> None:
        for kind, read in (("seal", Seal.from_statement), ("genesis", Genesis.from_statement)):
            record = Statement(
                kind, (Subject("root", bytes(32)), Subject("state-root", bytes(32))), predicate
            )
            with pytest.raises((EncodingError, FormatVersionError)):
                read(record)


class TestReceipts:
    """A receipt holds as it was made; with any byte changed it is refused, or it still says the same."""

    @given(st.integers(0, 30), st.data())
    def test_a_changed_character_is_refused(self, index: int, data: st.DataObject) -> None:
        entries = [
            Entry.signed(Statement("run", (Subject("o", bytes(32)),), {"n": number}).to_bytes(), LOG)
            for number in range(index + 1 + data.draw(st.integers(0, 9)))
        ]
        leaves = [leaf_hash(entry.to_bytes()) for entry in entries]
        checkpoint = sign_checkpoint(Checkpoint("lichen/" + "ab" * 32, len(leaves), root_of(leaves)), LOG)
        proof = inclusion_proof(index, len(leaves), lambda start, end: root_of(leaves[start:end]))
        receipt = Receipt.of_entry(entries[index], index, proof, checkpoint, author=LOG.public)
        text = receipt.to_text()
        assert verify_receipt(Receipt.parse(text), LOG.public).statement is not None
        position = data.draw(st.integers(0, len(text) - 1))
        changed = text[:position] + data.draw(st.characters(codec="utf-8")) + text[position + 1 :]
        assume(changed != text)
        with pytest.raises((EncodingError, VerificationError)):
            verify_receipt(Receipt.parse(changed), LOG.public, "lichen/" + "ab" * 32)
