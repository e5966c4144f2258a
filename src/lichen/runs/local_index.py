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

from lichen.errors import LichenError
from lichen.runs.manifest import Manifest

__all__ = ["KnownRun", "LocalIndex"]

_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS shape (command BLOB NOT NULL, shape BLOB NOT NULL, idx INTEGER NOT NULL, manifest TEXT NOT NULL,
    PRIMARY KEY (command, shape)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS shape_newest ON shape (command, idx);
CREATE TABLE IF NOT EXISTS known_run (idx INTEGER PRIMARY KEY, family BLOB NOT NULL, words TEXT NOT NULL, parameters TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS known_run_family ON known_run (family, idx);
CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY CHECK (one = 1), ledger TEXT NOT NULL, next_index INTEGER NOT NULL);
"""


@dataclass(frozen=True)
class KnownRun:
    """A run whose manifest is at hand.

    Args:
        index: Its place in the ledger.
        words: Canonical command line.
        parameters: Arguments by name.
    """

    index: int
    words: tuple[str, ...]
    parameters: Mapping[str, str]


class LocalIndex:
    """The cache, opened.

    Args:
        path: SQLite file; made when absent, remade when damaged or of another ledger.
        ledger_id: Hex id of the ledger it belongs to.
    """

    def __init__(self, path: Path, ledger_id: str) -> None:
        self._path = path
        self._ledger_id = ledger_id
        try:
            self._connection = self._connect()
        except sqlite3.DatabaseError:
            self._discard()
            self._connection = self._connect()

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=30, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            owner = None
            if version == _VERSION:
                owner = connection.execute("SELECT ledger FROM progress").fetchone()
            if version not in (0, _VERSION) or (owner and owner[0] != self._ledger_id):
                raise sqlite3.DatabaseError("another version or ledger")  # noqa: TRY301 - handled as damage is
            connection.executescript(_SCHEMA)
            connection.execute("INSERT OR IGNORE INTO progress VALUES (1, ?, 0)", (self._ledger_id,))
            connection.execute(f"PRAGMA user_version={_VERSION}")
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def _discard(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").unlink()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def catch_up(
        self, runs: Callable[[int], Iterator[tuple[int, bytes, bytes, str]]], load: Callable[[str], Manifest]
    ) -> None:
        """Take in the runs recorded since the last time.

        Args:
            runs: Given the first index wanted, yields (index, command key, family key, manifest CID) in order.
            load: Reads a manifest by CID; a LichenError skips that run, whose manifest is not at hand.
        """
        (start,) = self._connection.execute("SELECT next_index FROM progress").fetchone()
        added = 0
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            index = start - 1
            for index, command, family, cid in runs(start):
                with contextlib.suppress(LichenError, OSError):
                    self._insert(index, command, family, cid, load(cid))
                    added += 1
            if index >= start:
                self._connection.execute("UPDATE progress SET next_index = ?", (index + 1,))
        finally:
            self._connection.execute("COMMIT")

    def add(self, index: int, command: bytes, family: bytes, cid: str, manifest: Manifest) -> None:
        """Take in one run whose manifest is already in hand."""
        self._insert(index, command, family, cid, manifest)

    def _insert(self, index: int, command: bytes, family: bytes, cid: str, manifest: Manifest) -> None:
        self._connection.execute(
            "INSERT INTO shape VALUES (?,?,?,?) ON CONFLICT (command, shape) DO UPDATE SET idx = excluded.idx, "
            "manifest = excluded.manifest WHERE excluded.idx > idx",
            (command, manifest.shape(), index, cid),
        )
        self._connection.execute(
            "INSERT OR REPLACE INTO known_run VALUES (?,?,?,?)",
            (index, family, json.dumps(manifest.command), json.dumps(dict(manifest.parameters))),
        )

    def shapes(self, command: bytes, limit: int) -> list[tuple[int, str]]:
        """Return (latest run, manifest CID) of each distinct shape of a request, newest first."""
        rows = self._connection.execute(
            "SELECT idx, manifest FROM shape WHERE command = ? ORDER BY idx DESC LIMIT ?", (command, limit)
        )
        return [(int(index), str(cid)) for index, cid in rows]

    def family(self, family: bytes, limit: int) -> list[KnownRun]:
        """Return the latest runs of one script, newest first."""
        rows = self._connection.execute(
            "SELECT idx, words, parameters FROM known_run WHERE family = ? ORDER BY idx DESC LIMIT ?",
            (family, limit),
        )
        return [
            KnownRun(index, tuple(json.loads(words)), json.loads(parameters))
            for index, words, parameters in rows
        ]

    def known_run(self, index: int) -> KnownRun | None:
        """Return one run, when its manifest is at hand."""
        row = self._connection.execute(
            "SELECT words, parameters FROM known_run WHERE idx = ?", (index,)
        ).fetchone()
        return KnownRun(index, tuple(json.loads(row[0])), json.loads(row[1])) if row else None
