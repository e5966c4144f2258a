"""Up to 48 neighbouring keys of the state, with the tree over them, in one piece.

A bucket holds its keys in order, the bit at which each parts from the next, the hash of the node at each such parting,
and the values. The partings determine the tree: among any neighbouring keys, the node above them all is at the parting
with the lowest bit. So changing one value rehashes only the nodes above it, and leaf hashes need not be stored.

::

    number of keys, 2 bytes | keys, 32 each | bits, 1 each | node hashes, 32 each | lengths of values, 2 each | values

with one bit and one node hash fewer than keys.
"""

from __future__ import annotations

import functools
import hashlib
import struct
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lichen.errors import CorruptLedgerError
from lichen.ledger.state_map import KEY_BITS, first_difference, state_leaf_hash

__all__ = [
    "BUCKET_COUNT_MAX",
    "Bucket",
    "Change",
    "ChangedBucket",
    "apply_changes",
    "change_bucket",
    "damaged",
    "key_count",
    "merge_changes",
    "value_in",
]

BUCKET_COUNT_MAX = 48  # keys, unless they share their first 60 bits; with their hashes and small values they fit a page of 4096 bytes
REBUILT_FROM_COUNT = (
    6  # from so many changes on, hashing a whole bucket costs less than the ways up from each
)

Change = tuple[bytes, bytes | None]
"""A key and its new value, or None to remove it."""

_PENDING = bytes(32)  # stands for a node hash that is about to be computed


@functools.lru_cache(maxsize=256)
def _hashes(count: int) -> struct.Struct:
    """The form of so many keys or hashes; kept, because :mod:`struct` forgets all of its forms beyond a hundred."""
    return struct.Struct("32s" * count)


@functools.lru_cache(maxsize=256)
def _numbers(count: int) -> struct.Struct:
    """The form of so many lengths."""
    return struct.Struct(f">{count}H")


def damaged(what: str) -> CorruptLedgerError:
    """Build the error for stored state that contradicts itself."""
    return CorruptLedgerError(
        f"the stored state is damaged: {what}",
        remedy="Restore the ledger from a copy; `lichen verify` shows how far its entries are sound.",
    )


def value_in(data: bytes, key: bytes) -> bytes | None:
    """Look a key up in a stored bucket without taking it apart.

    Args:
        data: As :meth:`Bucket.to_bytes` writes it.
        key: 32 bytes.

    Returns:
        The value, or None.

    Raises:
        CorruptLedgerError: The lengths in it do not add up.
    """
    count = int.from_bytes(data[:2], "big")
    keys_end = 2 + 32 * count
    lengths_at = keys_end + 33 * (count - 1)
    values_at = lengths_at + 2 * count
    if count == 0 or len(data) < values_at:
        raise damaged("a bucket is cut short")
    at = data.find(key, 2, keys_end)
    while at >= 0 and (at - 2) % 32:  # across two neighbouring keys
        at = data.find(key, at + 1, keys_end)
    if at < 0:
        return None
    at = (at - 2) // 32
    lengths = _numbers(count).unpack_from(data, lengths_at)
    if values_at + sum(lengths) != len(data):
        raise damaged("the values of a bucket do not add up to its size")
    start = values_at + sum(lengths[:at])
    return data[start : start + lengths[at]]


class Bucket:
    """Neighbouring keys of the state; made by :meth:`from_bytes` or :meth:`from_items`.

    Attributes:
        keys: Keys in order, 32 bytes each.
    """

    __slots__ = ("_bits", "_lengths", "_nodes", "_values", "keys")

    def __init__(
        self, keys: list[bytes], bits: bytearray, nodes: list[bytes], lengths: list[int], values: bytes
    ) -> None:
        self.keys = keys
        self._bits = bits  # [i]: where key i parts from key i + 1
        self._nodes = nodes  # [i]: hash of the node at that parting
        self._lengths = lengths
        self._values = values

    def __len__(self) -> int:
        return len(self.keys)

    @classmethod
    def from_items(cls, items: Sequence[tuple[bytes, bytes]]) -> Bucket:
        """Build a bucket from keys in order and their values, in one pass."""
        keys = [key for key, _ in items]
        bits = bytearray(len(keys) - 1 if keys else 0)
        nodes = [_PENDING] * len(bits)
        hashes: list[bytes] = []
        waiting: list[int] = []  # partings whose right side is not complete; their bits rise
        for at, (key, value) in enumerate(items):
            if at:
                bit = bits[at - 1] = first_difference(keys[at - 1], key)
                while waiting and bits[waiting[-1]] > bit:
                    _reduce(bits, nodes, hashes, waiting)
                waiting.append(at - 1)
            hashes.append(state_leaf_hash(key, hashlib.sha256(value).digest()))
        while waiting:
            _reduce(bits, nodes, hashes, waiting)
        return cls(
            keys, bits, nodes, [len(value) for _, value in items], b"".join([value for _, value in items])
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Bucket:
        """Read a bucket.

        Raises:
            CorruptLedgerError: The lengths in it do not add up.
        """
        count = int.from_bytes(data[:2], "big")
        bits_at = 2 + 32 * count
        nodes_at = bits_at + count - 1
        lengths_at = nodes_at + 32 * (count - 1)
        values_at = lengths_at + 2 * count
        if count == 0 or len(data) < values_at:
            raise damaged("a bucket is cut short")
        lengths = list(_numbers(count).unpack_from(data, lengths_at))
        if values_at + sum(lengths) != len(data):
            raise damaged("the values of a bucket do not add up to its size")
        return cls(
            list(_hashes(count).unpack_from(data, 2)),
            bytearray(data[bits_at:nodes_at]),
            list(_hashes(count - 1).unpack_from(data, nodes_at)),
            lengths,
            data[values_at:],
        )

    def to_bytes(self) -> bytes:
        """Write the bucket; it must not be empty."""
        count = len(self.keys)
        lengths = _numbers(count).pack(*self._lengths)
        return b"".join(
            [count.to_bytes(2, "big"), *self.keys, self._bits, *self._nodes, lengths, self._values]
        )

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk over keys and values."""
        start = 0
        for key, length in zip(self.keys, self._lengths, strict=True):
            yield key, self._values[start : start + length]
            start += length

    def find(self, key: bytes) -> tuple[int, bool]:
        """Return where a key stands or would stand, and whether it is there."""
        at = bisect_left(self.keys, key)
        return at, at < len(self.keys) and self.keys[at] == key

    def value(self, at: int) -> bytes:
        """Return the value of the key at a position."""
        start = sum(self._lengths[:at])
        return self._values[start : start + self._lengths[at]]

    def hash(self) -> bytes:
        """Return the hash over all keys and values, 32 bytes; the bucket must not be empty."""
        return self._range(0, len(self.keys) - 1)

    def path(self, at: int) -> list[tuple[int, bytes]]:
        """Return bit and sibling hash of each node above a key, from its leaf up."""
        return [(self._bits[parting], sibling) for parting, _, sibling in self._climb(at)]

    def reach(self, key: bytes) -> int:
        """Return where the lookup of a key ends: at the key, or at the one that is found in its place."""
        low, high = 0, len(self.keys) - 1
        number = int.from_bytes(key, "big")
        while low < high:
            bit = min(self._bits[low:high])
            parting = self._bits.index(bit, low, high)
            if number >> (KEY_BITS - 1 - bit) & 1:
                low = parting + 1
            else:
                high = parting
        return low

    def put(self, at: int, present: bool, key: bytes, value: bytes) -> None:
        """Insert a key where :meth:`find` says, or give it another value.

        Raises:
            CorruptLedgerError: The value that is replaced is not the one that was stored.
        """
        start = sum(self._lengths[:at])
        if present:
            self._check_leaf(at)
            end = start + self._lengths[at]
            self._lengths[at] = len(value)
        else:
            end = start
            self._part(at, key)
            self._lengths.insert(at, len(value))
        self._values = self._values[:start] + value + self._values[end:]
        self._rehash(at)

    def remove(self, at: int) -> None:
        """Take the key at a position out.

        Raises:
            CorruptLedgerError: Its value is not the one that was stored.
        """
        self._check_leaf(at)
        start = sum(self._lengths[:at])
        self._values = self._values[:start] + self._values[start + self._lengths[at] :]
        del self.keys[at], self._lengths[at]
        if not self.keys:
            return
        before = self._bits[at - 1] if at > 0 else -1
        after = self._bits[at] if at < len(self._bits) else -1
        parting = at - 1 if before > after else at  # the node just above the leaf goes with it
        del self._bits[parting], self._nodes[parting]
        self._rehash(parting)

    def _part(self, at: int, key: bytes) -> None:
        """Insert a key and its partings, whose hashes :meth:`_rehash` then computes."""
        partings = []
        if at > 0:
            partings.append(first_difference(self.keys[at - 1], key))
        if at < len(self.keys):
            partings.append(first_difference(key, self.keys[at]))
        start = max(at - 1, 0)
        end = start + (len(partings) == 2)  # between two keys, two partings take the place of one
        self._bits[start:end] = bytes(partings)
        self._nodes[start:end] = [_PENDING] * len(partings)
        self.keys.insert(at, key)

    def _leaf(self, at: int) -> bytes:
        return state_leaf_hash(self.keys[at], hashlib.sha256(self.value(at)).digest())

    def _range(self, low: int, high: int) -> bytes:
        """Return the hash over the keys from one position to another, which must be all those below some node."""
        if low == high:
            return self._leaf(low)
        bits = self._bits
        return self._nodes[bits.index(min(bits[low:high]), low, high)]

    def _climb(self, at: int) -> Iterator[tuple[int, int, bytes]]:
        """Walk from a leaf up: parting, the leaf's side (0 left, 1 right), and the hash on the other side."""
        bits, last = self._bits, len(self._bits)
        low = high = at
        while low > 0 or high < last:
            before = bits[low - 1] if low > 0 else -1
            after = bits[high] if high < last else -1
            if after > before:
                parting = high
                high += 1
                start = high
                while high < last and bits[high] > after:
                    high += 1
                yield parting, 0, self._range(start, high)
            else:
                low -= 1
                parting = end = low
                while low > 0 and bits[low - 1] > before:
                    low -= 1
                yield parting, 1, self._range(low, end)

    def _rehash(self, at: int) -> None:
        """Recompute every node above a key; the way up is that of `_climb`, in one piece because most time goes here."""
        own, last = self._leaf(at), len(self._bits)
        sha256, bits, nodes, leaf = hashlib.sha256, self._bits, self._nodes, self._leaf
        low = high = at
        while low > 0 or high < last:
            before = bits[low - 1] if low > 0 else -1
            after = bits[high] if high < last else -1
            if after > before:
                parting, start = high, high + 1
                high = start
                while high < last and bits[high] > after:
                    high += 1
                end = high
            else:
                low -= 1
                parting = end = low
                while low > 0 and bits[low - 1] > before:
                    low -= 1
                start = low
            sibling = leaf(start) if start == end else nodes[bits.index(min(bits[start:end]), start, end)]
            pair = own + sibling if after > before else sibling + own
            own = nodes[parting] = sha256(b"\x03%c%s" % (bits[parting], pair)).digest()

    def _check_leaf(self, at: int) -> None:
        """Check a key and its value against the node above them."""
        for parting, side, sibling in self._climb(at):
            own = self._leaf(at)
            pair = (sibling, own) if side else (own, sibling)
            if hashlib.sha256(b"\x03%c%s%s" % (self._bits[parting], *pair)).digest() != self._nodes[parting]:
                raise damaged(f"the value at key {self.keys[at].hex()} is not the one that was stored")
            return


def _reduce(bits: bytearray, nodes: list[bytes], hashes: list[bytes], waiting: list[int]) -> None:
    """Join the two rightmost subtrees at the last parting that waits."""
    parting = waiting.pop()
    right = hashes.pop()
    hashes[-1] = nodes[parting] = hashlib.sha256(b"\x03%c%s%s" % (bits[parting], hashes[-1], right)).digest()


class ChangedBucket(NamedTuple):
    """What a bucket has become.

    Attributes:
        data: As :meth:`Bucket.to_bytes` writes it; nothing when no key is left.
        hash: Over its keys and values, 32 bytes; zeros when no key is left.
        undo: Each key that did change, with the value it had before.
    """

    data: bytes
    hash: bytes
    undo: list[Change]


def key_count(data: bytes) -> int:
    """How many keys a stored bucket, or nothing, says that it holds."""
    return int.from_bytes(data[:2], "big")


def change_bucket(data: bytes, changes: Sequence[Change]) -> ChangedBucket | None:
    """Set and remove keys of a stored bucket, which may grow beyond its bound or become empty.

    Args:
        data: As :meth:`Bucket.to_bytes` writes it; nothing for a bucket that is not there.
        changes: Keys, in order, and values, None to remove one.

    Returns:
        The new bucket; None when nothing did change.

    Raises:
        CorruptLedgerError: The bucket is damaged where it is to be changed.
    """
    bucket = Bucket.from_bytes(data) if data else Bucket.from_items(())
    if len(changes) > REBUILT_FROM_COUNT:
        items, undo = merge_changes(bucket.items(), changes)
        bucket = Bucket.from_items(items)
    else:
        undo = apply_changes(bucket, changes)
    if not undo:
        return None
    if len(bucket) == 0:
        return ChangedBucket(b"", bytes(32), undo)
    return ChangedBucket(bucket.to_bytes(), bucket.hash(), undo)


def apply_changes(bucket: Bucket, changes: Iterable[Change]) -> list[Change]:
    """Set and remove keys of a bucket, which may grow beyond its bound or become empty.

    Args:
        bucket: The bucket; changed in place.
        changes: Keys and values, None to remove one.

    Returns:
        Each key that did change, with the value it had before.

    Raises:
        CorruptLedgerError: A value that is replaced is not the one that was stored.
    """
    undo: list[Change] = []
    for key, value in changes:
        at, present = bucket.find(key)
        old = bucket.value(at) if present else None
        if value == old:
            continue
        undo.append((key, old))
        if value is None:
            bucket.remove(at)
        else:
            bucket.put(at, present, key, value)
    return undo


def merge_changes(
    items: Iterable[tuple[bytes, bytes]], changes: Iterable[Change]
) -> tuple[list[tuple[bytes, bytes]], list[Change]]:
    """Apply many changes at once; return keys in order with their values, and what undoes the changes."""
    values = dict(items)
    undo: list[Change] = []
    for key, value in changes:
        old = values.get(key)
        if value == old:
            continue
        undo.append((key, old))
        if value is None:
            del values[key]
        else:
            values[key] = value
    return sorted(values.items()), undo
