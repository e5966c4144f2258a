"""Changes of stored pieces by the C library: the same bytes as by Python, and refusal where something is unusual."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import CorruptLedgerError
from lichen.ledger import state_changes
from lichen.ledger.state_bucket import BUCKET_COUNT_MAX, Bucket, change_bucket
from lichen.ledger.state_changes import MANY, StateChanges, changes_for, state_library
from lichen.ledger.state_map import StateMap
from lichen.ledger.state_nodes import MemoryNodes
from lichen.ledger.state_tree import StateTree

keys = st.one_of(
    st.integers(0, 40).map(lambda number: hashlib.sha256(b"%d" % number).digest()),
    st.integers(0, 40).map(lambda number: bytes(8) + number.to_bytes(24, "big")),
    st.integers(0, 7).map(lambda number: bytes([number << 5]) + bytes(31)),
)
values = st.one_of(st.none(), st.binary(min_size=1, max_size=3), st.binary(min_size=300, max_size=1_024))
batches = st.dictionaries(keys, values, max_size=60)


@pytest.fixture(scope="module")
def quick() -> StateChanges:
    library = state_library()
    if library is None:
        pytest.skip("there is no compiler, or Python's OpenSSL is not at hand")
    return StateChanges(library)


def key(number: int) -> bytes:
    return hashlib.sha256(b"key %d" % number).digest()


class TestTwins:
    """Whatever is changed, the library makes the pieces, the hashes and the way back that Python makes."""

    @given(batches, batches)
    def test_a_bucket(self, quick: StateChanges, before: dict[bytes, Any], batch: dict[bytes, Any]) -> None:
        present = sorted((key, value) for key, value in before.items() if value)
        data = Bucket.from_items(present).to_bytes() if present else b""
        changes = sorted(batch.items(), key=lambda change: change[0])
        made, clear = quick.change_bucket(data, changes), change_bucket(data, changes)
        if made is not None:
            assert made == clear
        else:
            too_large = sum(len(value or b"") for value in (*before.values(), *batch.values())) > 20_000
            assert clear is None or too_large

    @given(st.lists(batches, min_size=1, max_size=4))
    def test_a_tree(self, quick: StateChanges, story: list[dict[bytes, Any]]) -> None:
        ours, theirs, clear = MemoryNodes(), MemoryNodes(), StateMap()
        tree, plain = StateTree(ours, lambda _: quick), StateTree(theirs, lambda _: None)
        for batch in story:
            clear.update(batch)
            assert tree.apply(batch.items()) == plain.apply(batch.items())
            assert (ours.tiles, ours.buckets) == (theirs.tiles, theirs.buckets)
        assert tree.root() == clear.root()

    @given(batches, batches, st.integers(0, 10_000), st.integers(1, 255), st.integers(0, 10_000))
    def test_damaged_bytes_are_refused_or_changed_and_nothing_else(
        self,
        quick: StateChanges,
        before: dict[bytes, Any],
        batch: dict[bytes, Any],
        place: int,
        flip: int,
        cut: int,
    ) -> None:
        items = sorted((key, value) for key, value in before.items() if value)[:BUCKET_COUNT_MAX]
        data = bytearray(Bucket.from_items(items).to_bytes() if items else b"?")
        data[place % len(data)] ^= flip
        changes = sorted(batch.items(), key=lambda change: change[0])
        for damaged in (bytes(data), bytes(data[: cut % len(data)])):
            made = quick.change_bucket(damaged, changes)
            assert made is None or Bucket.from_bytes(made.data or damaged)


def test_many_keys_at_once_and_then_few(quick: StateChanges) -> None:
    """Through all levels: buckets that split, tiles of tiles, tiles that become buckets again."""
    ours, theirs = MemoryNodes(), MemoryNodes()
    tree, plain = StateTree(ours, lambda _: quick), StateTree(theirs, lambda _: None)
    story: list[dict[bytes, bytes | None]] = [
        {key(number): b"%d" % number for number in range(5_000)},
        {key(number): b"again" for number in range(0, 5_000, 7)},
        {key(number): None for number in range(100, 5_000)},
    ]
    for batch in story:
        assert tree.apply(batch.items()) == plain.apply(batch.items())
        assert (ours.tiles, ours.buckets) == (theirs.tiles, theirs.buckets)


@pytest.mark.parametrize("value", [b"other", None])
def test_a_value_that_is_not_the_one_stored_is_not_replaced(quick: StateChanges, value: bytes | None) -> None:
    items = [(key(number), b"value") for number in range(20)]
    data = bytearray(Bucket.from_items(sorted(items)).to_bytes())
    data[-1] ^= 1
    last = max(items)[0]
    assert quick.change_bucket(bytes(data), [(last, value)]) is None
    with pytest.raises(CorruptLedgerError, match="not the one that was stored"):
        change_bucket(bytes(data), [(last, value)])
    nodes = MemoryNodes()
    nodes.buckets[1] = bytes(data)
    with pytest.raises(CorruptLedgerError, match="not the one that was stored"):
        StateTree(nodes, lambda _: quick).apply([(last, value)])


def test_few_changes_do_not_load_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    def nothing() -> None:
        asked.append(None)

    nothing.cache_info = state_library.cache_info  # type: ignore[attr-defined]
    state_library.cache_clear()
    monkeypatch.setattr(state_changes, "state_library", nothing)
    assert changes_for(MANY - 1) is None
    assert asked == []
    assert changes_for(MANY) is None
    assert asked == [None]


def test_a_library_that_is_none_is_not_used(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.so"
    wrong.write_bytes(b"no library")
    assert not state_changes._is_right(str(wrong))
