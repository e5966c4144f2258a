"""A stretch of entries looked at by itself: read from the file, checked one by one, rows of views compared.

Whoever does it has a connection of its own, so that entries need not be handed from process to process. That connection may see a
ledger that has grown since; the entries up to a size are the same for whoever reads them, and so are their rows in views.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from lichen.crypto.hashes import sha256
from lichen.crypto.keys import PublicKey
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError
from lichen.ledger.audit.checked import Checked, Checker, Row, Scope
from lichen.ledger.audit.view_rows import RowComparer, RowsFound
from lichen.ledger.ports import Record
from lichen.ledger.tree import leaf_hash

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Examined", "Examiner"]

CACHE_KIB = 8_192


@dataclass(slots=True)
class Examined:
    """What is known of a stretch of entries.

    Attributes:
        start: Index of the first.
        leaves: Leaf hashes, as far as entries are there, none left out.
        checks: What is known of each by itself; empty when they were checked by an earlier audit.
        checkpoints: What stands beside entries, by index; only of entries checked by an earlier audit.
        rows: What came of comparing rows of views.
        misread: What SQLite says when it cannot read on.
    """

    start: int
    leaves: list[bytes]
    checks: list[Checked]
    checkpoints: dict[int, bytes]
    rows: RowsFound
    misread: str | None = None

    def pack(self, scope: Scope) -> tuple[Any, ...]:
        """Write it in plain types, for another process."""
        checks = [checked.pack(scope.kept_kinds) for checked in self.checks]
        return (self.start, self.leaves, checks, self.checkpoints, self.rows.pack(), self.misread)

    @classmethod
    def unpack(cls, packed: tuple[Any, ...]) -> Self:
        """Read what `pack` wrote."""
        start, leaves, checks, checkpoints, rows, misread = packed
        return cls(start, leaves, list(map(Checked.unpack, checks)), checkpoints, RowsFound(*rows), misread)


class Examiner:
    """Looks at stretches of entries; a context manager, for one thread.

    Args:
        scope: What needs to be known of the ledger.
    """

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._checker = Checker(scope)
        self._log_key = PublicKey(scope.log_key)
        self._kinds = frozenset[str]().union(*(view.kinds for view, _ in scope.views))
        self._connection: sqlite3.Connection | None = None
        self._comparer: RowComparer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is None or self._comparer is None:
            self.close()
            self._connection = sqlite3.connect(
                self._scope.uri, uri=True, isolation_level=None, check_same_thread=False
            )
            for pragma in (f"cache_size=-{CACHE_KIB}", "temp_store=MEMORY"):
                self._connection.execute(f"PRAGMA {pragma}")
            self._comparer = RowComparer(self._connection, self._scope.views)
        return self._connection

    def examine(
        self, start: int, stop: int, keys: Mapping[bytes, bytes], *, is_believed: bool = False
    ) -> Examined:
        """Look at some entries.

        Args:
            start: Index of the first.
            stop: One past the last.
            keys: Public keys by key id, as far as they are known.
            is_believed: An earlier audit found that they hold: they are hashed, and only rows of views are compared.
        """
        rows: list[Row] = []
        misread = None
        try:
            for row in self._open().execute(
                "SELECT idx, checkpoint, entry FROM entries WHERE idx>=? AND idx<? ORDER BY idx",
                (start, stop),
            ):
                is_whole = type(row[2]) is bytes and type(row[1]) in (bytes, type(None))
                if row[0] != start + len(rows) or not is_whole:
                    break
                rows.append(row)
        except sqlite3.Error as error:
            misread = str(error)
        return self._examined(start, rows, keys, is_believed, misread)

    def _examined(
        self, start: int, rows: list[Row], keys: Mapping[bytes, bytes], is_believed: bool, misread: str | None
    ) -> Examined:
        if is_believed:
            leaves = [leaf_hash(data) for _, _, data in rows]
            checkpoints = {index: checkpoint for index, checkpoint, _ in rows if checkpoint is not None}
            found = self._compared(self._believed(rows))
            return Examined(start, leaves, [], checkpoints, found, misread)
        checks, records = self._checker.look(rows, keys)
        wanted = [record for record in records if record is not None and record.kind in self._kinds]
        leaves = [checked.leaf for checked in checks]
        return Examined(start, leaves, checks, {}, self._compared(wanted), misread)

    def _compared(self, records: Sequence[Record]) -> RowsFound:
        return RowsFound() if self._comparer is None else self._comparer.compare(records)

    def _believed(self, rows: Sequence[Row]) -> list[Record]:
        """Records that views ask for; what cannot be read has another hash than it had."""
        found = []
        for index, checkpoint, data in rows if self._kinds else ():
            if checkpoint is not None:
                continue
            with contextlib.suppress(EncodingError):
                entry = Entry.from_bytes(data)
                statement = Statement.from_log(entry.payload)
                if (kind := statement.kind) in self._kinds:
                    member, digest = str(statement.predicate.get("member")), sha256(entry.payload)
                    found.append(Record(index, entry, statement, kind, member, digest, self._log_key))
        return found
