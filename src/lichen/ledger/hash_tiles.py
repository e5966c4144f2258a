"""Hashes of the log's tree as they lie in the ledger file, and the root of any part of it.

Rules upheld here:

* Full tiles of 256 hashes per level, numbered as C2SP tlog-tiles numbers them: tile ``number`` of level ``L`` holds the
  roots of the complete subtrees ``256**L`` entries wide from ``256 * number`` on. A static tile server only copies them.
* The last, partial tile of level 0 is not stored: its hashes are those of at most 255 entries, which are there anyway.
  So an append touches no tile page, and tiles cost 34 bytes per entry.
* Upper partial tiles are stored, because deriving them would mean reading up to 255 tiles.

Source: C2SP tlog-tiles, RFC 6962 section 2.1. Differs: the partial tile of level 0 is derived.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from lichen.errors import CorruptLedgerError
from lichen.ledger.tree import (
    HASH_BYTES,
    TILE_WIDTH,
    Frontier,
    SubtreeReader,
    leaf_hash,
    perfect_root,
    subtree_reader,
)

if TYPE_CHECKING:
    import sqlite3

    from lichen.ledger.tables import Tables

__all__ = ["HashTiles"]

LEVEL_SHIFT: Final = 56  # position of a tile in its table: level << 56 | number
CATCH_UP_COUNT_MAX: Final = (
    2_048  # beyond, reading the right edge anew is cheaper than hashing what was appended
)
CACHED_TILES_COUNT: Final = 256  # (= 2 MiB)
TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES  # (= 8192)


class HashTiles:
    """The tree over the first ``size`` entries, kept in step with the file by `refresh` and `append`.

    Attributes:
        size: Count of entries in the tree as this object knows it; -1 when it knows nothing.
        subtree_root: Reads the root over any range that RFC 6962 splits a tree into.
    """

    def __init__(self, connection: sqlite3.Connection, tables: Tables) -> None:
        self._connection = connection
        self._tables = tables
        self._full_tiles: dict[int, bytes] = {}
        self.subtree_root: SubtreeReader = subtree_reader(self.read_hashes)
        self.forget()

    def forget(self) -> None:
        """Drop what is in memory, after a transaction was undone."""
        self.size = -1
        self._tail = b""  # leaf hashes of the last, partial tile of level 0
        self._frontier = Frontier()
        self._full_tiles.clear()

    def refresh(self, size: int) -> None:
        """Bring memory in step with a file that holds ``size`` entries.

        Costs the hashing of what other processes appended, or of at most 255 entries when that is much.

        Raises:
            CorruptLedgerError: Entries or tiles are missing.
        """
        if size == self.size:
            return
        if 0 <= self.size < size <= self.size + CATCH_UP_COUNT_MAX:
            self._grow(self._leaf_hashes(self.size, size))
            return
        self.forget()
        start = size - size % TILE_WIDTH
        self._tail = b"".join(self._leaf_hashes(start, size))
        self.size = size
        self._frontier = Frontier.load(size, self.subtree_root)

    def append(self, hashes: Sequence[bytes]) -> None:
        """Add leaf hashes at the end and store every tile that became full.

        Args:
            hashes: Leaf hashes of the new entries, 32 bytes each, in order.
        """
        number = self.size // TILE_WIDTH
        joined = self._tail + b"".join(hashes)
        self._grow(hashes)
        for offset in range(0, len(joined) - TILE_BYTES + 1, TILE_BYTES):
            self._store_full(0, number, joined[offset : offset + TILE_BYTES])
            number += 1

    def root(self) -> bytes:
        """Root of the whole tree, 32 bytes."""
        return self._frontier.root()

    def root_at(self, size: int) -> bytes:
        """Root of the tree over the first ``size`` entries, 32 bytes.

        Args:
            size: 0 to `size`.

        Raises:
            CorruptLedgerError: A stored tile is missing or short.
        """
        if size == self.size:
            return self._frontier.root()
        return self.subtree_root(0, size) if size else Frontier().root()

    def stored_leaf_hash(self, index: int) -> bytes | None:
        """Leaf hash of an entry as its full tile holds it; None while that tile is not full.

        Args:
            index: 0-based place in the log.
        """
        number, offset = divmod(index, TILE_WIDTH)
        return self._tile(0, number)[offset * HASH_BYTES : (offset + 1) * HASH_BYTES] or None

    def stored_tile(self, level: int, number: int) -> bytes:
        """Hashes of a tile as they are stored, joined; nothing when it is not stored."""
        return self._tile(level, number)

    def read_hashes(self, level: int, start: int, count: int) -> bytes:
        """Neighbouring hashes of one tile, joined.

        Args:
            level: Level of the tile, 0 for leaf hashes.
            start: Position of the first on its level.
            count: How many, within one tile.

        Raises:
            CorruptLedgerError: The stored tile is missing or short.
        """
        number, offset = divmod(start, TILE_WIDTH)
        tile = self._tail if level == 0 and number == self.size // TILE_WIDTH else self._tile(level, number)
        found = tile[offset * HASH_BYTES : (offset + count) * HASH_BYTES]
        if len(found) != count * HASH_BYTES:
            raise CorruptLedgerError(
                f"hash tile {number} of level {level} is missing or short",
                expected=count,
                calculated=len(found) // HASH_BYTES,
                remedy="restore the ledger from a copy, then run `lichen verify`",
            )
        return found

    def check(self, root: bytes) -> None:
        """Recompute every stored hash above level 0 from the level below, and look for tiles too few or too many.

        Args:
            root: Root over all entries, derived elsewhere, 32 bytes.

        Raises:
            CorruptLedgerError: A stored hash is wrong, or the tiles are not those of a log of this size.
        """
        level, full_count = 0, self.size // TILE_WIDTH
        tile_count = full_count
        while full_count:
            level += 1
            for position in range(full_count):
                if self.read_hashes(level, position, 1) != perfect_root(self._tile(level - 1, position)):
                    raise CorruptLedgerError(
                        f"hash {position} of tile level {level} is not that of the tile below"
                    )
            tile_count += -(-full_count // TILE_WIDTH)
            full_count //= TILE_WIDTH
        (stored_count,) = self._connection.execute("SELECT count(*) FROM tiles").fetchone()
        if stored_count != tile_count:
            raise CorruptLedgerError(
                "the stored hash tiles are not those of a log of this size",
                expected=tile_count,
                calculated=stored_count,
            )
        calculated = Frontier.load(self.size, self.subtree_root).root()
        if calculated != root:
            raise CorruptLedgerError(
                "the stored hash tiles do not lead to the root of the entries",
                expected=root,
                calculated=calculated,
            )

    def _leaf_hashes(self, start: int, stop: int) -> list[bytes]:
        hashes = [leaf_hash(data) for _, data in self._tables.entry_range(start, stop)]
        if len(hashes) != stop - start:
            raise CorruptLedgerError(
                f"entries are missing between index {start} and {stop}",
                expected=stop - start,
                calculated=len(hashes),
                remedy="restore the ledger from a copy, then run `lichen verify`",
            )
        return hashes

    def _grow(self, hashes: Sequence[bytes]) -> None:
        append = self._frontier.append
        for value in hashes:
            append(value)
        self.size += len(hashes)
        tail = self._tail + b"".join(hashes)
        self._tail = tail[len(tail) - self.size % TILE_WIDTH * HASH_BYTES :]

    def _tile(self, level: int, number: int) -> bytes:
        """Stored hashes of a tile; nothing when it is not there."""
        position = level << LEVEL_SHIFT | number
        data = self._full_tiles.get(position)
        if data is None:
            row = self._connection.execute(
                "SELECT hashes FROM tiles WHERE position=?", (position,)
            ).fetchone()
            data = b"" if row is None else bytes(row[0])
            if len(data) == TILE_BYTES:  # only full tiles are kept: they never change
                if len(self._full_tiles) >= CACHED_TILES_COUNT:
                    self._full_tiles.clear()
                self._full_tiles[position] = data
        return data

    def _store_full(self, level: int, number: int, hashes: bytes) -> None:
        """Store a full tile, and its root in the tile above."""
        put = "INSERT OR REPLACE INTO tiles VALUES(?,?)"
        self._connection.execute(put, (level << LEVEL_SHIFT | number, hashes))
        above, offset = divmod(number, TILE_WIDTH)
        row = self._tile(level + 1, above)[: offset * HASH_BYTES] + perfect_root(hashes)
        if len(row) == TILE_BYTES:
            self._store_full(level + 1, above, row)
        else:
            self._connection.execute(put, ((level + 1) << LEVEL_SHIFT | above, row))
