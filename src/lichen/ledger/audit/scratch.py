"""What an audit derives on its way, in a database of its own that shares nothing with the audited file.

Tables: the values of the state, the payload digests, the rows that views should have, and how far the audit came. It lies in a
temporary directory, or where the auditor keeps it so that an audit that was interrupted goes on, and the next one starts where
this one ended. Whoever can write there can make an audit believe things, so it belongs beside the auditor's keys and never
beside the ledger.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lichen.ledger.audit.report import AtEntryError
from lichen.ledger.audit.state_roots import StateRoots

if TYPE_CHECKING:
    from lichen.ledger.ports import Record, RowView, View

__all__ = ["Scratch"]

FILE_NAME: Final = "derived.sqlite"
CACHE_KIB: Final = 24_576
CACHED_COUNT: Final = 4_096
LOOKED_UP_COUNT: Final = 500

_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS derived_values(place BLOB PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS derived_payloads(prefix INTEGER NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY(prefix, idx))"
    " STRICT, WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS derived_seals(idx INTEGER PRIMARY KEY, state_root BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS derived_progress(id INTEGER PRIMARY KEY CHECK(id = 1), said TEXT NOT NULL) STRICT",
)


class Scratch:
    """Derived values, payload digests and view rows.

    Args:
        directory: Where; it is there.
        is_kept: Whether `save` may be called, and another process may go on from there.
    """

    def __init__(self, directory: Path, *, is_kept: bool) -> None:
        self.directory = directory
        self.is_kept = is_kept
        self.roots = StateRoots(directory)
        self._open()

    def _open(self) -> None:
        self.connection = sqlite3.connect(self.directory / FILE_NAME, isolation_level=None)
        journal = "TRUNCATE" if self.is_kept else "OFF"
        for pragma in (f"journal_mode={journal}", "synchronous=OFF", f"cache_size=-{CACHE_KIB}"):
            self.connection.execute(f"PRAGMA {pragma}")
        self.connection.execute("BEGIN")
        for statement in _SCHEMA:
            self.connection.execute(statement)
        self._unsealed: dict[bytes, bytes | None] = {}
        self._cache: dict[bytes, bytes] = {}
        self._ahead: dict[bytes, bytes | None] = {}
        self._prefixes: list[tuple[int, int]] = []

    def close(self) -> None:
        """Let go of the file; what was not saved is undone."""
        self.connection.close()

    def clear(self) -> None:
        """Start anew."""
        self.connection.close()
        self.remove(self.directory)
        self.roots = StateRoots(self.directory)
        self._open()

    @staticmethod
    def remove(directory: Path) -> None:
        """Remove what was kept there."""
        for path in directory.glob(f"{FILE_NAME}*"):
            path.unlink()
        StateRoots(directory).discard()

    # -- progress --------------------------------------------------------------------------------------------------

    def progress(self) -> dict[str, Any] | None:
        """What was saved last, or None; files of writes are cut to where they were then.

        Raises:
            OSError: The files are not those that were saved.
            ValueError: What was saved cannot be read.
        """
        row = self.connection.execute("SELECT said FROM derived_progress").fetchone()
        if row is None:
            return None
        said: dict[str, Any] = json.loads(row[0])
        self.roots.take_over(said["write_sizes"], said["seal_count"])
        return said

    def save(self, said: Mapping[str, Any]) -> None:
        """Note how far the audit came, together with all that was derived; behind a seal only."""
        self.flush_payloads()
        text = json.dumps(
            {**said, "write_sizes": self.roots.spill(), "seal_count": self.roots.seal_count}, sort_keys=True
        )
        self.connection.execute("INSERT OR REPLACE INTO derived_progress VALUES(1, ?)", (text,))
        self.connection.execute("COMMIT")
        self.connection.execute("BEGIN")

    # -- state -----------------------------------------------------------------------------------------------------

    def get(self, place: bytes) -> bytes | None:
        """Value at a state key, 32 bytes."""
        if place in self._unsealed:
            return self._unsealed[place]
        value = self._cache.get(place)
        if value is None:
            if place in self._ahead:
                return self._ahead[place]
            row = self.connection.execute(
                "SELECT value FROM derived_values WHERE place=?", (place,)
            ).fetchone()
            if row is None:
                return None
            value = bytes(row[0])
            if len(self._cache) >= CACHED_COUNT:
                self._cache.clear()
            self._cache[place] = value
        return value

    def look_ahead(self, places: Iterable[bytes]) -> None:
        """Look many state keys up at once, before they are asked for one by one; what was looked up before is forgotten.

        Args:
            places: 32 bytes each.
        """
        wanted = sorted({place for place in places if place not in self._cache})
        self._ahead = dict.fromkeys(wanted)
        for start in range(0, len(wanted), LOOKED_UP_COUNT):
            some = wanted[start : start + LOOKED_UP_COUNT]
            marks = ",".join("?" * len(some))
            self._ahead.update(
                self.connection.execute(
                    f"SELECT place, value FROM derived_values WHERE place IN ({marks})",  # noqa: S608 - question marks
                    some,
                )
            )

    def write(self, writes: Mapping[bytes, bytes | None]) -> None:
        """Note what an entry changes."""
        self._unsealed.update(writes)

    def seal(self, index: int, state_root: bytes) -> None:
        """Take over what changed since the last seal.

        Args:
            index: Where the seal stands.
            state_root: What it says the root of the state is; `check_roots` compares.
        """
        writes = self._unsealed
        self.connection.execute("INSERT INTO derived_seals VALUES(?,?)", (index, state_root))
        self.roots.add(writes)
        kept = [(place, value) for place, value in sorted(writes.items()) if value is not None]
        self.connection.executemany("INSERT OR REPLACE INTO derived_values VALUES(?,?)", kept)
        removed = [(place,) for place, value in writes.items() if value is None]
        if removed:
            self.connection.executemany("DELETE FROM derived_values WHERE place=?", removed)
        for place, value in writes.items():
            if place in self._ahead:
                self._ahead[place] = value
            if place in self._cache:
                if value is None:
                    del self._cache[place]
                else:
                    self._cache[place] = value
        self._unsealed = {}

    def check_roots(self, run: Callable[[list[tuple[str, str]]], None] | None = None) -> None:
        """Compare the root of the state in every seal with the one that follows from the writes.

        Args:
            run: See `lichen.ledger.audit.state_roots.StateRoots.roots`.

        Raises:
            AtEntryError: The first seal that does not follow.
        """
        said = self.connection.execute("SELECT idx, state_root FROM derived_seals ORDER BY idx")
        for (index, claimed), derived in zip(said, self.roots.roots(run), strict=True):
            if claimed != derived:
                raise AtEntryError(
                    index,
                    f"the state root in the seal at entry {index} is not the one derived",
                    expected=claimed,
                    calculated=derived,
                )

    def state_roots(self, count: int) -> dict[int, bytes]:
        """Roots of the state in the newest seals, by index of the seal, oldest first; after `check_roots`.

        Args:
            count: How many.
        """
        rows = self.connection.execute(
            "SELECT idx, state_root FROM derived_seals ORDER BY idx DESC LIMIT ?", (count,)
        ).fetchall()
        return {index: bytes(root) for index, root in reversed(rows)}

    def key_count(self) -> int:
        """How many keys the state has that a seal covers."""
        return int(self.connection.execute("SELECT count(*) FROM derived_values").fetchone()[0])

    # -- payloads --------------------------------------------------------------------------------------------------

    def add_payload(self, digest: bytes, index: int) -> None:
        """Note the payload digest of a record."""
        self._prefixes.append((int.from_bytes(digest[:8], "big", signed=True), index))
        if len(self._prefixes) >= CACHED_COUNT:
            self.flush_payloads()

    def flush_payloads(self) -> None:
        """Write the digests that are in memory."""
        self._prefixes.sort()
        self.connection.executemany("INSERT INTO derived_payloads VALUES(?,?)", self._prefixes)
        self._prefixes = []

    def payload_twins(self) -> list[list[int]]:
        """Groups of records whose digests begin alike."""
        self.flush_payloads()
        rows = self.connection.execute(
            "SELECT group_concat(idx) FROM derived_payloads GROUP BY prefix HAVING count(*) > 1"
        )
        return [sorted(map(int, indices.split(","))) for (indices,) in rows]

    # -- views -----------------------------------------------------------------------------------------------------

    def make_views(self, views: Iterable[View]) -> None:
        """Make the tables of views, without the indexes that only speed up questions."""
        for view in views:
            for statement in view.ddl:
                if statement.lstrip().upper().startswith("CREATE TABLE"):
                    self.connection.execute(statement)

    def make_names(self, view: RowView) -> None:
        """Make the table of names of a view, empty."""
        if view.names_table is not None:
            self.make_views([view])
            self.connection.execute(f'DELETE FROM "{view.names_table}"')  # noqa: S608 - the view's own name

    def add_names(self, table: str, names: Iterable[str | bytes]) -> None:
        """Add names that are not there, each with the next number."""
        self.connection.executemany(
            f'INSERT OR IGNORE INTO "{table}"(name) VALUES(?)',
            [(name,) for name in names],
        )

    def offer(self, view: View, records: Sequence[Record]) -> None:
        """Add a view's rows for records."""
        insert_many = getattr(view, "insert_many", None)
        if insert_many is not None:
            insert_many(self.connection, records)
            return
        for record in records:
            view.insert(self.connection, record)
