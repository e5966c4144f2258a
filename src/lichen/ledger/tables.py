"""Rows of the ledger file: entries, checkpoints and payload digests.

Rules upheld here:

* Indices have no gap: the count of entries is the last index plus one, so counting costs one look-up.
* These functions run inside the caller's transaction and change nothing but their own table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES
from lichen.errors import CorruptLedgerError

if TYPE_CHECKING:
    import sqlite3

__all__ = ["SealRow", "Tables", "prefix_of"]

READ_BATCH_COUNT: Final = 256
PREFIX_BATCH_COUNT: Final = 250
_INSERT_ENTRY: Final = "INSERT INTO entries VALUES(?,?,?)"

ROOT_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class SealRow:
    """What is kept of a seal beside its entry.

    Attributes:
        index: Index of the seal entry; its checkpoint stands at tree size ``index + 1``.
        root: Root of the tree of that size, 32 bytes.
        signature: The log key's Ed25519 signature over the checkpoint body, 64 bytes.
    """

    index: int
    root: bytes
    signature: bytes

    def to_bytes(self) -> bytes:
        """Write what stands in the seal's row: root and signature, 96 bytes."""
        return self.root + self.signature


class Tables:
    """Typed access to the rows of one connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._waiting: list[tuple[int, bytes | None, bytes]] = []

    # -- entries ---------------------------------------------------------------------------------------------------

    def entry_count(self) -> int:
        """Count of entries, seals included."""
        self.flush()
        (last,) = self._connection.execute("SELECT max(idx) FROM entries").fetchone()
        return 0 if last is None else int(last) + 1

    def insert_entry(self, index: int, data: bytes, checkpoint: bytes | None = None) -> None:
        """Store a compact entry at its index; it may wait in memory until `flush`, or until entries are read.

        Args:
            index: The count of entries before it.
            data: The compact entry.
            checkpoint: Of a seal, root and signature of the checkpoint behind it; see `SealRow.to_bytes`.
        """
        self._waiting.append((index, checkpoint, data))

    def flush(self) -> None:
        """Hand entries that wait in memory to SQLite; inside the transaction that inserted them."""
        waiting = self._waiting
        if len(waiting) == 1:
            self._connection.execute(_INSERT_ENTRY, waiting[0])
        elif waiting:
            self._connection.executemany(_INSERT_ENTRY, waiting)
        self._waiting = []

    def forget(self) -> None:
        """Drop entries that wait, because their transaction was undone."""
        self._waiting = []

    def entry_bytes(self, index: int) -> bytes | None:
        """Compact entry at an index, or None."""
        self.flush()
        row = self._connection.execute("SELECT entry FROM entries WHERE idx=?", (index,)).fetchone()
        return None if row is None else _blob(row[0], index)

    def entry_range(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """Pairs (index, compact entry) with ``start <= index < stop``, read in batches.

        No query stays open between batches, so a slow consumer does not hold back other processes.
        """
        return self._range(
            "SELECT idx, entry FROM entries WHERE idx>=? AND idx<? ORDER BY idx LIMIT ?", start, stop
        )

    def record_range(self, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        """The same without seals."""
        return self._range(
            "SELECT idx, entry FROM entries WHERE idx>=? AND idx<? AND checkpoint IS NULL ORDER BY idx LIMIT ?",
            start,
            stop,
        )

    def _range(self, query: str, start: int, stop: int) -> Iterator[tuple[int, bytes]]:
        self.flush()
        while start < stop:
            rows = self._connection.execute(query, (start, stop, READ_BATCH_COUNT)).fetchall()
            if not rows:
                return
            for index, data in rows:
                yield index, _blob(data, index)
            start = rows[-1][0] + 1

    # -- payload digests -------------------------------------------------------------------------------------------

    def insert_payloads(self, indices: Mapping[bytes, int]) -> None:
        """Remember at which index the payload with each SHA-256 stands; in the order of the table."""
        rows = sorted((prefix_of(digest), index) for digest, index in indices.items())
        self._connection.executemany("INSERT INTO payloads VALUES(?,?)", rows)

    def prefixes_on_file(self, digests: Sequence[bytes]) -> set[int]:
        """Which of these payload digests have a namesake on file, by the first 8 bytes; see `find_payload`.

        Args:
            digests: SHA-256 of payloads, 32 bytes each.

        Returns:
            Those first 8 bytes, as `prefix_of` gives them.
        """
        found: set[int] = set()
        prefixes = sorted(map(prefix_of, digests))
        for start in range(0, len(prefixes), PREFIX_BATCH_COUNT):
            some = prefixes[start : start + PREFIX_BATCH_COUNT]
            marks = ",".join("?" * len(some))
            rows = self._connection.execute(
                f"SELECT prefix FROM payloads WHERE prefix IN ({marks})",  # noqa: S608 - question marks
                some,
            )
            found.update([prefix for (prefix,) in rows])
        return found

    def payload_count(self) -> int:
        """How many payload digests are on file; reads them all."""
        return int(self._connection.execute("SELECT count(*) FROM payloads").fetchone()[0])

    def find_payload(self, digest: bytes) -> int | None:
        """Index of the first entry that is on file for the payload with this SHA-256, or None.

        Args:
            digest: SHA-256 of the payload, 32 bytes.
        """
        rows = self._connection.execute(
            "SELECT idx FROM payloads WHERE prefix=? ORDER BY idx", (prefix_of(digest),)
        ).fetchall()
        for (index,) in rows:
            data = self.entry_bytes(index)
            if data is not None and hashlib.sha256(data[ENTRY_OVERHEAD_BYTES:]).digest() == digest:
                return int(index)
        return None

    # -- checkpoints -----------------------------------------------------------------------------------------------

    def last_seal(self, start: int = 0) -> SealRow | None:
        """The newest seal at or after an index, or None; reads as many rows as there are unsealed entries."""
        return self._seal(
            "SELECT idx, checkpoint FROM entries WHERE idx>=? AND checkpoint IS NOT NULL ORDER BY idx DESC LIMIT 1",
            start,
        )

    def seal_at(self, index: int) -> SealRow | None:
        """The seal at exactly this index, or None."""
        return self._seal("SELECT idx, checkpoint FROM entries WHERE idx=? AND checkpoint IS NOT NULL", index)

    def seal_covering(self, index: int) -> SealRow | None:
        """The first seal whose checkpoint contains the entry at this index, or None while none does."""
        return self._seal(
            "SELECT idx, checkpoint FROM entries WHERE idx>=? AND checkpoint IS NOT NULL ORDER BY idx LIMIT 1",
            index,
        )

    def seals(self, start: int, stop: int) -> list[SealRow]:
        """The seals with ``start <= index < stop``, in order."""
        rows = self._connection.execute(
            "SELECT idx, checkpoint FROM entries WHERE idx>=? AND idx<? AND checkpoint IS NOT NULL ORDER BY idx",
            (start, stop),
        )
        return [SealRow(index, bytes(value[:ROOT_BYTES]), bytes(value[ROOT_BYTES:])) for index, value in rows]

    def _seal(self, query: str, index: int) -> SealRow | None:
        self.flush()
        row = self._connection.execute(query, (index,)).fetchone()
        return (
            None if row is None else SealRow(row[0], bytes(row[1][:ROOT_BYTES]), bytes(row[1][ROOT_BYTES:]))
        )


def _blob(value: object, index: int) -> bytes:
    """Stored bytes, which damage may have turned into another type.

    Raises:
        CorruptLedgerError: They are none.
    """
    if not isinstance(value, bytes):
        raise CorruptLedgerError(
            f"entry {index} is damaged: its row holds {type(value).__name__} in the place of bytes",
            remedy="restore the ledger from a copy, then run `lichen verify`",
        )
    return value


def prefix_of(digest: bytes) -> int:
    """First 8 bytes of a digest as the signed integer that SQLite stores."""
    return int.from_bytes(digest[:8], "big", signed=True)
