"""The log's Merkle tree: hashes of leaves, nodes and ranges.

Rules upheld: a leaf is hashed with prefix 0x00 and a node with 0x01, so that neither can be taken for the other; the
tree over n leaves splits at the largest power of two below n; the empty tree's root is the hash of nothing.

Hashes are kept in *tiles* of 256 per level: level 0 holds leaf hashes, level 1 the root of each full tile of level 0,
and so on. A full binary subtree of 2**(8*level + k) leaves is then the root of 2**k neighbours in one tile.

Source: RFC 6962, section 2.1; RFC 9162, section 2.1; C2SP tlog-tiles.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from lichen.errors import EncodingError

__all__ = [
    "EMPTY_ROOT",
    "HASH_BYTES",
    "TILE_HEIGHT",
    "TILE_WIDTH",
    "Frontier",
    "HashReader",
    "SubtreeReader",
    "leaf_hash",
    "node_hash",
    "perfect_root",
    "root_of",
    "split_point",
    "subtree_reader",
]

HASH_BYTES = 32
TILE_HEIGHT = 8  # levels of the tree in one level of tiles
TILE_WIDTH = 2**TILE_HEIGHT  # (= 256) hashes
EMPTY_ROOT = hashlib.sha256(b"").digest()

HashReader = Callable[[int, int, int], bytes]
"""``read(level, start, count)``: that many neighbouring hashes of one tile level, joined."""

SubtreeReader = Callable[[int, int], bytes]
"""``subtree_root(start, end)``: the root over leaves start to end, end not included."""


def leaf_hash(entry: bytes) -> bytes:
    """Hash an entry as a leaf: SHA-256 of 0x00 and the entry's bytes."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash two subtrees into their parent: SHA-256 of 0x01, left and right."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def split_point(count: int) -> int:
    """Return the largest power of two smaller than count; count is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def perfect_root(hashes: bytes) -> bytes:
    """Fold a power of two of neighbouring hashes into their root.

    Args:
        hashes: 2**k hashes of 32 bytes, joined.

    Returns:
        The root over them.

    Raises:
        EncodingError: The number of hashes is not a power of two.
    """
    count, rest = divmod(len(hashes), HASH_BYTES)
    if rest or count == 0 or count & (count - 1):
        raise EncodingError(
            f"a perfect subtree needs a power of two of 32-byte hashes, got {len(hashes)} bytes"
        )
    sha256 = hashlib.sha256
    while len(hashes) > HASH_BYTES:
        hashes = b"".join(
            [sha256(b"\x01" + hashes[at : at + 64]).digest() for at in range(0, len(hashes), 2 * HASH_BYTES)]
        )
    return hashes


def root_of(leaf_hashes: Iterable[bytes]) -> bytes:
    """Compute the root over some leaves.

    Args:
        leaf_hashes: Leaf hashes in order, 32 bytes each.

    Returns:
        The root; of no leaves, :data:`EMPTY_ROOT`.
    """
    frontier = Frontier()
    for leaf in leaf_hashes:
        frontier.append(leaf)
    return frontier.root()


class Frontier:
    """The roots of the perfect subtrees along the right edge: all that appending needs.

    One subtree for each bit that is set in the number of leaves, largest first. Appending costs one hash on average
    and as many as there are levels at worst.

    Args:
        size: How many leaves.
        peaks: Roots of the perfect subtrees, largest first.

    Raises:
        EncodingError: The number of peaks does not fit the size, or a peak is not 32 bytes.
    """

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Iterable[bytes] = ()) -> None:
        self._peaks = list(peaks)
        self.size = size
        if size < 0 or len(self._peaks) != size.bit_count():
            raise EncodingError(f"a frontier of {size} leaves cannot have {len(self._peaks)} subtrees")
        if any(len(peak) != HASH_BYTES for peak in self._peaks):
            raise EncodingError("the subtree roots of a frontier must be 32 bytes each")

    @classmethod
    def load(cls, size: int, subtree_root: SubtreeReader) -> Frontier:
        """Build the frontier of a stored tree.

        Args:
            size: How many leaves it has.
            subtree_root: Reads the roots of perfect subtrees.

        Returns:
            The frontier.
        """
        peaks = []
        start = 0
        for bit in range(size.bit_length() - 1, -1, -1):
            if size >> bit & 1:
                peaks.append(subtree_root(start, start + (1 << bit)))
                start += 1 << bit
        return cls(size, peaks)

    @property
    def peaks(self) -> tuple[bytes, ...]:
        """Roots of the perfect subtrees, largest first."""
        return tuple(self._peaks)

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash at the right."""
        carry = self.size
        while carry & 1:
            leaf = node_hash(self._peaks.pop(), leaf)
            carry >>= 1
        self._peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        """Compute the root over all leaves appended so far."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in self._peaks[-2::-1]:
            root = node_hash(peak, root)
        return root

    def copy(self) -> Frontier:
        """Return a frontier that grows on its own."""
        return Frontier(self.size, self._peaks)


def subtree_reader(read_hashes: HashReader) -> SubtreeReader:
    """Read roots of ranges from stored tiles.

    Args:
        read_hashes: Reads hashes that are stored; it is asked only for perfect subtrees inside the ranges wanted, and
            never across the border of a tile.

    Returns:
        A reader for any range that RFC 6962 splits a tree into: one that starts at a multiple of the power of two at
        or above its length.
    """

    def subtree_root(start: int, end: int) -> bytes:
        count = end - start
        if count & (count - 1) == 0 and start % count == 0:
            level, rest = divmod(count.bit_length() - 1, TILE_HEIGHT)
            hashes = read_hashes(level, start >> (TILE_HEIGHT * level), 1 << rest)
            return perfect_root(hashes)
        middle = start + split_point(count)
        return node_hash(subtree_root(start, middle), subtree_root(middle, end))

    return subtree_root
