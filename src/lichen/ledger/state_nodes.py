"""The state map in pieces small enough to read and write one at a time, and the places they lie in.

The tree of :mod:`lichen.ledger.state_map` is cut every four bits. The piece for a prefix of the keys is

* a *bucket* (:mod:`lichen.ledger.state_bucket`) when at most 48 keys have the prefix;
* a *tile* when more have it: 16 slots for the next four bits, and the hashes of the places above them.

Which pieces exist depends only on the keys stored, as the root does, so two stores with the same content hold the same
bytes.

A place of a tile whose two halves both hold keys is a node of the map, and its bit follows from where it is; a place
with one empty half stands for the other half. So nothing but hashes is stored of the inner tree.

:mod:`lichen.ledger.state_tree` computes with these pieces.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Protocol

from lichen.ledger.state_bucket import damaged

__all__ = ["MemoryNodes", "NodeStore", "OverlayNodes", "Tile"]

STRIDE_BITS = 4
SLOT_COUNT: int = 2**STRIDE_BITS  # (= 16)
HEAD_BYTES = 16
KINDS_END = 16  # the kinds of the slots stand before it, those of slots 0 to 3 in the last byte
TILE_BYTES = HEAD_BYTES + (2 * SLOT_COUNT - 2) * 32  # (= 976) so that four rows share a page of 4096 bytes

EMPTY, BUCKET, TILE = 0, 1, 2  # what a slot leads to
NOTHING = bytes(32)  # stands in a tile for a half without keys
_HEAD = struct.Struct(">QQ")
_PLACES = (
    HEAD_BYTES - 2 * 32
)  # place p stands at _PLACES + 32 * p; the tile's own hash, place 1, is not stored


class NodeStore(Protocol):
    """Where pieces lie."""

    def tile(self, node: int) -> bytes | None:
        """Return the tile of a node, or None."""

    def bucket(self, node: int) -> bytes | None:
        """Return the bucket of a node, or None."""

    def put_tile(self, node: int, data: bytes | None) -> None:
        """Store a tile, or remove it when there is no data."""

    def put_bucket(self, node: int, data: bytes | None) -> None:
        """Store a bucket, or remove it when there is no data."""


class MemoryNodes:
    """Pieces in memory: for auditors who replay a ledger, and for tests."""

    def __init__(self) -> None:
        self.tiles: dict[int, bytes] = {}
        self.buckets: dict[int, bytes] = {}

    def tile(self, node: int) -> bytes | None:
        """Return the tile of a node, or None."""
        return self.tiles.get(node)

    def bucket(self, node: int) -> bytes | None:
        """Return the bucket of a node, or None."""
        return self.buckets.get(node)

    def put_tile(self, node: int, data: bytes | None) -> None:
        """Store a tile, or remove it when there is no data."""
        _put(self.tiles, node, data)

    def put_bucket(self, node: int, data: bytes | None) -> None:
        """Store a bucket, or remove it when there is no data."""
        _put(self.buckets, node, data)


class OverlayNodes:
    """Changes in memory over pieces that stay as they are: how an earlier state is looked at."""

    def __init__(self, below: NodeStore) -> None:
        self._below = below
        self._tiles: dict[int, bytes | None] = {}
        self._buckets: dict[int, bytes | None] = {}

    def tile(self, node: int) -> bytes | None:
        """Return the tile of a node, or None."""
        return self._tiles[node] if node in self._tiles else self._below.tile(node)

    def bucket(self, node: int) -> bytes | None:
        """Return the bucket of a node, or None."""
        return self._buckets[node] if node in self._buckets else self._below.bucket(node)

    def put_tile(self, node: int, data: bytes | None) -> None:
        """Keep a tile, or its absence, above what lies below."""
        self._tiles[node] = data

    def put_bucket(self, node: int, data: bytes | None) -> None:
        """Keep a bucket, or its absence, above what lies below."""
        self._buckets[node] = data


def _put(pieces: dict[int, bytes], node: int, data: bytes | None) -> None:
    if data is None:
        pieces.pop(node, None)
    else:
        pieces[node] = data


class Tile:
    """16 slots for the next four bits of the keys, and the hashes between them and the tile's own.

    Places are numbered as in a heap: 1 is the tile itself, 2 and 3 its halves, 16 to 31 the slots. The stored form is
    the number of keys below (8 bytes), the kinds of the slots (2 bits each, 8 bytes), and places 2 to 31.

    Args:
        data: Stored form; None for a tile without keys.
        depth: How many tiles are above.

    Raises:
        CorruptLedgerError: Not a tile.

    Attributes:
        count: How many keys are below.
        kinds: What the slots lead to, two bits for each.
        data: The stored form; its first 16 bytes are brought up to date by :meth:`to_bytes`.
        first_bit: Bit of the keys that place 1 parts them by.
    """

    __slots__ = ("count", "data", "first_bit", "kinds")

    def __init__(self, data: bytes | None, depth: int) -> None:
        if data is not None and len(data) != TILE_BYTES:
            raise damaged("a tile is cut short")
        self.data = bytearray(TILE_BYTES if data is None else data)
        self.first_bit = STRIDE_BITS * depth
        self.count: int
        self.kinds: int
        self.count, self.kinds = _HEAD.unpack_from(self.data)

    def to_bytes(self) -> bytes:
        """Write the stored form."""
        _HEAD.pack_into(self.data, 0, self.count, self.kinds)
        return bytes(self.data)

    def kind(self, slot: int) -> int:
        """Tell what a slot leads to."""
        return self.kinds >> 2 * slot & 3

    def put(self, slot: int, kind: int, slot_hash: bytes) -> None:
        """Change a slot; :meth:`rehash` has to follow."""
        self.kinds = self.kinds & ~(3 << 2 * slot) | kind << 2 * slot
        at = _PLACES + 32 * (SLOT_COUNT + slot)
        self.data[at : at + 32] = slot_hash

    def rehash(self, slots: set[int]) -> bytes:
        """Recompute every place above some slots.

        Returns:
            The tile's own hash.
        """
        data, sha256, bit = self.data, hashlib.sha256, self.first_bit + STRIDE_BITS - 1
        places = {(SLOT_COUNT + slot) >> 1 for slot in slots}
        while True:  # level by level; what `joined` computes, in one piece because most time goes here
            for place in places:
                below = _PLACES + 64 * place
                pair = data[below : below + 64]
                if pair.startswith(NOTHING):
                    own = pair[32:]
                elif pair.endswith(NOTHING):
                    own = pair[:32]
                else:
                    own = bytearray(sha256(b"\x03%c%s" % (bit, pair)).digest())
                if place == 1:
                    return bytes(own)
                at = _PLACES + 32 * place
                data[at : at + 32] = own
            places = {place >> 1 for place in places}
            bit -= 1

    def halves(self, place: int) -> tuple[bytes, bytes]:
        """Return what stands in the two places below a place."""
        at = _PLACES + 64 * place
        return bytes(self.data[at : at + 32]), bytes(self.data[at + 32 : at + 64])

    def joined(self, place: int = 1) -> bytes:
        """Compute what stands in a place from the two below it."""
        data, at = self.data, _PLACES + 64 * place
        if data.startswith(NOTHING, at):
            return bytes(data[at + 32 : at + 64])
        if data.startswith(NOTHING, at + 32):
            return bytes(data[at : at + 32])
        bit = self.first_bit + place.bit_length() - 1
        return hashlib.sha256(b"\x03%c%s" % (bit, data[at : at + 64])).digest()

    def bit(self, place: int) -> int:
        """Return the bit of the keys that a place parts them by."""
        return self.first_bit + place.bit_length() - 1
