"""The state map computed piece by piece: look up, change, prove.

A change reads and writes one bucket and the tiles above it, which at a million keys are four; a batch of changes
touches each piece once. Where the pieces lie is the business of a :class:`lichen.ledger.state_nodes.NodeStore`.

The definition of the map is in :mod:`lichen.ledger.state_map`; this is tested to give the same roots and proofs.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from lichen.ledger.state_bucket import (
    BUCKET_COUNT_MAX,
    Bucket,
    Change,
    change_bucket,
    damaged,
    key_count,
    merge_changes,
    value_in,
)
from lichen.ledger.state_changes import StateChanges, changes_for
from lichen.ledger.state_map import EMPTY_STATE_ROOT, MapProof, key_bit
from lichen.ledger.state_nodes import (
    BUCKET,
    EMPTY,
    KINDS_END,
    NOTHING,
    SLOT_COUNT,
    STRIDE_BITS,
    TILE,
    TILE_BYTES,
    NodeStore,
    Tile,
)

__all__ = ["Change", "StateTree"]

DEPTH_MAX = (
    15  # below 60 bits of common prefix a bucket is not split: 65 such keys cost about 2**63 hashes to find
)
ROOT_NODE = 1  # a node's number: a one, then the bits of its prefix
_PREFIX = struct.Struct(">Q")


class _Result(NamedTuple):
    """What a node has become: its kind, its hash (zeros when empty), and how many keys it gained."""

    kind: int
    hash: bytes
    gained: int


class StateTree:
    """The state map over stored pieces.

    Args:
        nodes: Where the pieces lie.
        quicker: Given a count of changes, who changes single pieces more quickly, if anyone.
    """

    __slots__ = ("_nodes", "_quick", "_quicker")

    def __init__(self, nodes: NodeStore, quicker: Callable[[int], StateChanges | None] = changes_for) -> None:
        self._nodes = nodes
        self._quicker = quicker
        self._quick: StateChanges | None = None

    def __len__(self) -> int:
        kind = self._root_kind()
        if kind == TILE:
            return self._tile(ROOT_NODE, 0).count
        return len(self._bucket(ROOT_NODE)) if kind == BUCKET else 0

    def root(self) -> bytes:
        """Return the root of the map, 32 bytes."""
        kind = self._root_kind()
        if kind == TILE:
            return self._tile(ROOT_NODE, 0).joined()
        if kind == BUCKET:
            return self._bucket(ROOT_NODE).hash()
        return EMPTY_STATE_ROOT

    def get(self, key: bytes) -> bytes | None:
        """Return the value at a key, or None.

        Raises:
            CorruptLedgerError: A piece on the way is missing or damaged.
        """
        nodes, node, shift = self._nodes, ROOT_NODE, 64
        prefix: int = _PREFIX.unpack_from(key)[0]
        tile = nodes.tile(node)
        while tile is not None:
            shift -= STRIDE_BITS
            slot = prefix >> shift & (SLOT_COUNT - 1)
            node = node << STRIDE_BITS | slot
            if len(tile) != TILE_BYTES:
                raise damaged("a tile is cut short")
            kind = tile[KINDS_END - 1 - (slot >> 2)] >> 2 * (slot & 3) & 3
            if kind == EMPTY:
                return None
            if kind == BUCKET:
                break
            tile = nodes.tile(node)
            if tile is None:
                raise damaged(f"tile {node:x} is missing")
        bucket = nodes.bucket(node)
        if bucket is None and node != ROOT_NODE:
            raise damaged(f"bucket {node:x} is missing")
        return None if bucket is None else value_in(bucket, key)

    def apply(self, changes: Iterable[Change]) -> list[Change]:
        """Set and remove keys.

        Args:
            changes: Keys of 32 bytes, each once, with values of 1 to 1,024 bytes or None.

        Returns:
            What undoes it: each key that did change, with the value it had before.

        Raises:
            CorruptLedgerError: A piece on the way is missing or damaged.
        """
        undo: list[Change] = []
        ordered = sorted(changes, key=lambda change: change[0])
        if ordered:
            self._quick = self._quick or self._quicker(len(ordered))
            self._change(ROOT_NODE, 0, self._root_kind(), ordered, undo)
        return undo

    def prove(self, key: bytes) -> tuple[bytes | None, MapProof]:
        """Look a key up, with the proof of what was found.

        Args:
            key: The key, 32 bytes.

        Returns:
            The value, or None; and the proof that the map's root commits to it.

        Raises:
            CorruptLedgerError: A piece on the way is missing or damaged.
        """
        steps: list[tuple[int, bytes]] = []  # from the root down
        node, kind, depth = ROOT_NODE, self._root_kind(), 0
        if kind == EMPTY:
            return None, MapProof(())
        while kind == TILE:
            tile = self._tile(node, depth)
            slot = _descend_tile(tile, key, steps)
            kind = tile.kind(slot)
            node, depth = node << STRIDE_BITS | slot, depth + 1
        bucket = self._bucket(node)
        at = bucket.reach(key)
        reached, value = bucket.keys[at], bucket.value(at)
        upward = (*bucket.path(at), *reversed(steps))
        if reached == key:
            return value, MapProof(upward)
        return None, MapProof(upward, (reached, hashlib.sha256(value).digest()))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk over keys and values in the order of the keys.

        Raises:
            CorruptLedgerError: A piece is missing or damaged.
        """
        yield from self._items(ROOT_NODE, 0, self._root_kind())

    def _root_kind(self) -> int:
        if self._nodes.tile(ROOT_NODE) is not None:
            return TILE
        return EMPTY if self._nodes.bucket(ROOT_NODE) is None else BUCKET

    def _items(self, node: int, depth: int, kind: int) -> Iterator[tuple[bytes, bytes]]:
        if kind == TILE:
            tile = self._tile(node, depth)
            for slot in range(SLOT_COUNT):
                yield from self._items(node << STRIDE_BITS | slot, depth + 1, tile.kind(slot))
        elif kind == BUCKET:
            yield from self._bucket(node).items()

    def _change(
        self, node: int, depth: int, kind: int, changes: Sequence[Change], undo: list[Change]
    ) -> _Result | None:
        """Apply changes below a node; None when nothing did change."""
        if kind == TILE:
            return self._change_tile(node, depth, self._tile(node, depth), changes, undo)
        data = self._bucket_bytes(node) if kind == BUCKET else b""
        if len(changes) > BUCKET_COUNT_MAX and depth < DEPTH_MAX:
            before = Bucket.from_bytes(data).items() if data else ()
            items, undone = merge_changes(before, changes)
            if len(items) > BUCKET_COUNT_MAX:
                undo += undone
                return self._split(node, depth, key_count(data), items)
        changed = self._quick.change_bucket(data, changes) if self._quick else None
        if changed is None:
            changed = change_bucket(data, changes)
            if changed is None:
                return None
        undo += changed.undo
        count = key_count(changed.data)
        gained = count - key_count(data)
        if count <= BUCKET_COUNT_MAX or depth == DEPTH_MAX:
            self._nodes.put_bucket(node, changed.data or None)
            return _Result(BUCKET if count else EMPTY, changed.hash, gained)
        items = list(Bucket.from_bytes(changed.data).items())
        return self._split(node, depth, key_count(data), items)

    def _split(
        self, node: int, depth: int, count_before: int, items: Sequence[tuple[bytes, bytes]]
    ) -> _Result | None:
        """Make a tile where there was a bucket, or nothing; ``items`` are all its keys and values."""
        if count_before:
            self._nodes.put_bucket(node, None)
        split = self._change_tile(node, depth, Tile(None, depth), items, [])
        return split and split._replace(gained=split.gained - count_before)

    def _change_tile(
        self, node: int, depth: int, tile: Tile, changes: Sequence[Change], undo: list[Change]
    ) -> _Result | None:
        """Apply changes to the slots of a tile, rehash what lies above them, and store it."""
        gained = 0
        slots: set[int] = set()
        for slot, group in _by_slot(changes, depth):
            child = node << STRIDE_BITS | slot
            result = self._change(child, depth + 1, tile.kind(slot), group, undo)
            if result is not None:
                tile.put(slot, result.kind, result.hash)
                gained += result.gained
                slots.add(slot)
        if not slots:
            return None
        tile.count += gained
        if tile.count <= BUCKET_COUNT_MAX:
            return self._collapse(node, tile, gained)
        own_hash = self._quick.rehash_tile(tile, slots) if self._quick else tile.rehash(slots)
        self._nodes.put_tile(node, tile.to_bytes())
        return _Result(TILE, own_hash, gained)

    def _collapse(self, node: int, tile: Tile, gained: int) -> _Result:
        """Turn a tile whose keys fit a bucket into one."""
        whole: list[tuple[bytes, bytes]] = []
        for slot in range(SLOT_COUNT):
            if tile.kind(slot) != EMPTY:
                child = node << STRIDE_BITS | slot
                whole += self._bucket(child).items()
                self._nodes.put_bucket(child, None)
        self._nodes.put_tile(node, None)
        if not whole:
            return _Result(EMPTY, NOTHING, gained)
        bucket = Bucket.from_items(whole)
        self._nodes.put_bucket(node, bucket.to_bytes())
        return _Result(BUCKET, bucket.hash(), gained)

    def _tile(self, node: int, depth: int) -> Tile:
        data = self._nodes.tile(node)
        if data is None:
            raise damaged(f"tile {node:x} is missing")
        return Tile(data, depth)

    def _bucket(self, node: int) -> Bucket:
        return Bucket.from_bytes(self._bucket_bytes(node))

    def _bucket_bytes(self, node: int) -> bytes:
        data = self._nodes.bucket(node)
        if data is None:
            raise damaged(f"bucket {node:x} is missing")
        return data


def _by_slot(changes: Sequence[Change], depth: int) -> Iterator[tuple[int, Sequence[Change]]]:
    """Group sorted changes by the slot of a tile that they fall into."""
    shift, prefix_of = 64 - STRIDE_BITS * (depth + 1), _PREFIX.unpack_from
    slot, start = -1, 0
    for place, change in enumerate(changes):
        found = prefix_of(change[0])[0] >> shift & (SLOT_COUNT - 1)
        if found != slot:
            if place:
                yield slot, changes[start:place]
            slot, start = found, place
    yield slot, changes[start:]


def _descend_tile(tile: Tile, key: bytes, steps: list[tuple[int, bytes]]) -> int:
    """Follow a key's lookup through a tile, noting the sibling at each node passed; return the slot it leads to."""
    place = 1
    while place < SLOT_COUNT:
        left, right = tile.halves(place)
        turn = 1 if left == NOTHING else 0
        if NOTHING not in (left, right):
            bit = tile.bit(place)
            turn = key_bit(key, bit)
            steps.append((bit, left if turn else right))
        place = 2 * place + turn
    return place - SLOT_COUNT
