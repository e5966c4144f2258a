"""What this machine knows beyond the entries: shapes of manifests and parameters of runs, for fast look-up.

A cache in ``cache/index.sqlite``: made from manifests in the store, thrown away when damaged, never an authority. It
holds file names and parameters in clear, so it stays beside the ledger with its permissions and is never sent anywhere.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lichen.errors import KeyFileError, LichenError
from lichen.runs.work.command import spelt_out
from lichen.runs.work.manifest import Manifest

__all__ = ["KnownRun", "LocalIndex"]

_VERSION = 4
_LATE_TRIED_MAX = 64
_SCHEMA = """
CREATE TABLE IF NOT EXISTS shape (command BLOB NOT NULL, shape BLOB NOT NULL, idx INTEGER NOT NULL, manifest TEXT NOT NULL,
    PRIMARY KEY (command, shape)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shape_newest ON shape (command, idx);
CREATE TABLE IF NOT EXISTS known_run (idx INTEGER PRIMARY KEY, family BLOB NOT NULL, words TEXT NOT NULL, parameters TEXT NOT NULL,
    made BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS known_run_family ON known_run (family, idx);
CREATE TABLE IF NOT EXISTS late (idx INTEGER PRIMARY KEY, command BLOB NOT NULL, family BLOB NOT NULL, manifest TEXT NOT NULL,
    tries INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS late_tries ON late (tries, idx DESC);
CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY CHECK (one = 1), ledger TEXT NOT NULL, next_index INTEGER NOT NULL);
"""

RunsFrom = Callable[[int], Iterator[tuple[int, bytes, bytes, str]]]
LoadManifest = Callable[[str], Manifest]
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class KnownRun:
    """A run whose manifest is at hand.

    Args:
        index: Its place in the ledger.
        words: Canonical command line, with the values of its seeds.
        parameters: Arguments by name.
    """

    index: int
    words: tuple[str, ...]
    parameters: Mapping[str, str]


class LocalIndex:
    """The cache, opened.

    Whatever happens to the file, the questions are answered: a damaged file is made again, and where none can be written
    the index is kept in memory, from a copy of what can be read.

    Args:
        path: SQLite file; made when absent, remade when damaged or of another ledger.
        ledger_id: Hex id of the ledger it belongs to.
    """

    def __init__(self, path: Path, ledger_id: str) -> None:
        self._path = path
        self._ledger_id = ledger_id
        self._source: tuple[RunsFrom, LoadManifest] | None = None
        self._in_memory = False
        try:
            self._connection = self._connect()
        except (sqlite3.DatabaseError, OSError) as error:
            self._connection = self._connect_again(error)

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            self._prepare(connection)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        owner = None
        if version == _VERSION:
            owner = connection.execute("SELECT ledger FROM progress").fetchone()
        if version not in (0, _VERSION) or (owner and owner[0] != self._ledger_id):
            raise sqlite3.DatabaseError("another version or ledger")
        if owner:
            return
        connection.executescript(_SCHEMA)
        connection.execute("INSERT OR IGNORE INTO progress VALUES (1, ?, 0)", (self._ledger_id,))
        connection.execute(f"PRAGMA user_version={_VERSION}")

    def _connect_again(self, error: Exception) -> sqlite3.Connection:
        """Make the file again when it is damaged; go to memory when the disk or its permissions are the trouble."""
        with contextlib.suppress(sqlite3.DatabaseError, OSError):
            if _is_damage(error):
                self._discard()
                return self._connect()
        self._in_memory = True
        connection = sqlite3.connect(":memory:", isolation_level=None)
        try:
            with contextlib.closing(
                sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
            ) as file:
                file.backup(connection)
            self._prepare(connection)
        except sqlite3.DatabaseError:
            connection.close()
            connection = sqlite3.connect(":memory:", isolation_level=None)
            self._prepare(connection)
        return connection

    def _discard(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").unlink()

    def _tried(self, ask: Callable[[], _Result]) -> _Result:
        """Ask; when the file fails meanwhile, ask again of one that does not."""
        try:
            return ask()
        except (sqlite3.DatabaseError, OSError) as error:
            if self._in_memory:
                raise
            self._connection.close()
            self._connection = self._connect_again(error)
            if self._source is not None:
                self._catch_up(*self._source)
            return ask()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def catch_up(self, runs: RunsFrom, load: LoadManifest) -> None:
        """Take in the runs recorded since the last time.

        Args:
            runs: Given the first index wanted, yields (index, command key, family key, manifest CID) in order.
            load: Reads a manifest by CID; a LichenError puts that run off, since its manifest may come later. When the
                group key is missing, no manifest can be read, and nothing is taken in.
        """
        self._source = runs, load
        self._tried(lambda: self._catch_up(runs, load))

    def _catch_up(self, runs: RunsFrom, load: LoadManifest) -> None:
        (start,) = self._connection.execute("SELECT next_index FROM progress").fetchone()
        is_late = self._connection.execute("SELECT 1 FROM late").fetchone() is not None
        if not is_late and next(runs(start), None) is None:
            return  # the usual case takes no lock
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            with contextlib.suppress(KeyFileError):
                self._take_new(runs, load)
                self._take_late(load)
        finally:
            self._connection.execute("COMMIT")

    def _take_new(self, runs: RunsFrom, load: LoadManifest) -> None:
        (start,) = self._connection.execute("SELECT next_index FROM progress").fetchone()
        index = start - 1
        try:
            for index, command, family, cid in runs(start):
                try:
                    self._insert(index, command, family, cid, load(cid))
                except KeyFileError:
                    index -= 1  # noqa: PLW2901 - this one is still to be taken in
                    raise
                except (LichenError, OSError):
                    self._connection.execute(
                        "INSERT OR IGNORE INTO late VALUES (?,?,?,?,0)", (index, command, family, cid)
                    )
        finally:
            if index >= start:
                self._connection.execute("UPDATE progress SET next_index = ?", (index + 1,))

    def _take_late(self, load: LoadManifest) -> None:
        """Look again for manifests that were not there: a few each time, those least often looked for first."""
        rows = self._connection.execute(
            "SELECT idx, command, family, manifest FROM late ORDER BY tries, idx DESC LIMIT ?",
            (_LATE_TRIED_MAX,),
        ).fetchall()
        for index, command, family, cid in rows:
            try:
                manifest = load(cid)
            except (LichenError, OSError):
                self._connection.execute("UPDATE late SET tries = tries + 1 WHERE idx = ?", (index,))
                continue
            self._insert(index, command, family, cid, manifest)
            self._connection.execute("DELETE FROM late WHERE idx = ?", (index,))

    def add(self, index: int, command: bytes, family: bytes, cid: str, manifest: Manifest) -> None:
        """Take in one run whose manifest is already in hand."""
        self._tried(lambda: self._add(index, command, family, cid, manifest))

    def _add(self, index: int, command: bytes, family: bytes, cid: str, manifest: Manifest) -> None:
        """Insert a run; when it is the next one expected, it need not be taken in again by whoever comes next."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._insert(index, command, family, cid, manifest)
            if self._source is not None:
                (start,) = self._connection.execute("SELECT next_index FROM progress").fetchone()
                following = next(self._source[0](start), None) if start <= index else None
                if following is not None and following[0] == index:
                    self._connection.execute("UPDATE progress SET next_index = ?", (index + 1,))
        finally:
            self._connection.execute("COMMIT")

    def _insert(self, index: int, command: bytes, family: bytes, cid: str, manifest: Manifest) -> None:
        self._connection.execute(
            "INSERT INTO shape VALUES (?,?,?,?) ON CONFLICT (command, shape) DO UPDATE SET idx = excluded.idx, "
            "manifest = excluded.manifest WHERE excluded.idx > idx",
            (command, manifest.shape(), index, cid),
        )
        self._connection.execute(
            "INSERT OR REPLACE INTO known_run VALUES (?,?,?,?,?)",
            (
                index,
                family,
                json.dumps(spelt_out(manifest.command, manifest.seeds)),
                json.dumps(dict(manifest.parameters)),
                manifest.made(),
            ),
        )

    def _rows(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        return self._tried(lambda: self._connection.execute(sql, values).fetchall())

    def shapes(self, command: bytes, limit: int) -> list[tuple[int, str]]:
        """Return (latest run, manifest CID) of each distinct shape of a request, newest first."""
        rows = self._rows(
            "SELECT idx, manifest FROM shape WHERE command = ? ORDER BY idx DESC LIMIT ?", (command, limit)
        )
        return [(int(index), str(cid)) for index, cid in rows]

    def family(self, family: bytes, limit: int) -> list[KnownRun]:
        """Return the latest runs of one script, newest first."""
        rows = self._rows(
            "SELECT idx, words, parameters FROM known_run WHERE family = ? ORDER BY idx DESC LIMIT ?",
            (family, limit),
        )
        return [
            KnownRun(index, tuple(json.loads(words)), json.loads(parameters))
            for index, words, parameters in rows
        ]

    def made(self, index: int) -> bytes | None:
        """Return the digest of what a run made (``Manifest.made``), when its manifest is at hand."""
        rows = self._rows("SELECT made FROM known_run WHERE idx = ?", (index,))
        return bytes(rows[0][0]) if rows else None

    def known_run(self, index: int) -> KnownRun | None:
        """Return one run, when its manifest is at hand."""
        rows = self._rows("SELECT words, parameters FROM known_run WHERE idx = ?", (index,))
        return KnownRun(index, tuple(json.loads(rows[0][0])), json.loads(rows[0][1])) if rows else None


def _is_damage(error: Exception) -> bool:
    """Tell a file that is not what it should be from one that cannot be written, or is locked."""
    if isinstance(error, sqlite3.OperationalError):
        return str(error).startswith("no such")
    return isinstance(error, sqlite3.DatabaseError)
