"""What this machine knows beyond the entries: shapes of manifests and parameters of runs, for fast look-up.

Entries name the request and the script of a run, so a question tells which manifests it takes: only these are read, and with
a server behind the store they come many in a request. What was read once is known from then on.

A cache in ``cache/index.sqlite``: made from manifests in the store, thrown away when damaged, never an authority. It
holds file names and parameters in clear, so it stays beside the ledger with its permissions and is never sent anywhere.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lichen.errors import KeyFileError, LichenError
from lichen.runs.work.command import DECLARED_MARK, spelt_out
from lichen.runs.work.manifest import Manifest
from lichen.runs.workspace.project import PROJECT_MARK

__all__ = ["KnownRun", "LocalIndex", "Row", "RunsOnRecord"]

_VERSION = 5
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
CREATE INDEX IF NOT EXISTS late_command ON late (command, tries, idx DESC);
CREATE TABLE IF NOT EXISTS taken (command BLOB PRIMARY KEY, next_index INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS progress (one INTEGER PRIMARY KEY CHECK (one = 1), ledger TEXT NOT NULL);
"""

Row = tuple[int, bytes, bytes, str]
"""A run as its entry tells it: index, command key, family key, CID of its manifest."""

LoadManifest = Callable[[str], Manifest]
"""Reads a manifest by CID; a LichenError puts that run off, since its manifest may come later. When the group key is missing
(KeyFileError), no manifest can be read, and nothing is taken in."""

BringManifests = Callable[[Sequence[str]], object]
"""Told which manifests will be read next, so that they can be brought here together."""

_Result = TypeVar("_Result")


class RunsOnRecord(Protocol):
    """The runs that the ledger has entries of."""

    def of_command(self, command: bytes, start: int) -> Sequence[Row]:
        """Return the runs of a request from an index on, in order."""

    def of_family(self, family: bytes, limit: int) -> Sequence[Row]:
        """Return the latest runs of a script, newest first."""

    def at(self, indexes: Sequence[int]) -> Sequence[Row]:
        """Return those of some entries that are runs."""


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

    @property
    def title(self) -> str:
        """The command line as people know it, without the marks of the canonical form: ``python train.py depth=4``."""
        return " ".join(self.words).replace(f"{PROJECT_MARK}/", "").replace(DECLARED_MARK, "")


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
        self._runs: RunsOnRecord | None = None
        self._load: LoadManifest | None = None
        self._bring: BringManifests = _bring_nothing
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
        connection.execute("INSERT OR IGNORE INTO progress VALUES (1, ?)", (self._ledger_id,))
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
            return ask()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def attach(self, runs: RunsOnRecord, load: LoadManifest, bring: BringManifests | None = None) -> None:
        """Say where runs and manifests come from.

        Args:
            runs: The runs on record.
            load: Reads a manifest.
            bring: Told beforehand which will be read; its errors are those of ``load``, which meets them again.
        """
        self._runs, self._load = runs, load
        self._bring = bring or _bring_nothing

    # -- taking in what a question needs ---------------------------------------------------------------------------

    def _take_command(self, command: bytes) -> None:
        """Take in the runs of a request recorded since the last time, and look for manifests that were not there."""
        if self._runs is None:
            return
        row = self._connection.execute(
            "SELECT next_index FROM taken WHERE command = ?", (command,)
        ).fetchone()
        new = self._runs.of_command(command, 0 if row is None else int(row[0]))
        late = self._connection.execute(
            "SELECT idx, command, family, manifest FROM late WHERE command = ? ORDER BY tries, idx DESC LIMIT ?",
            (command, _LATE_TRIED_MAX),
        ).fetchall()
        if new or late:  # the usual case takes no lock
            following = self._take(self._without_known(new), late)
            if new:
                self._advance(command, new[-1][0] + 1 if following is None else following)

    def _take_some(self, rows: Sequence[Row]) -> None:
        """Take in these runs, as far as they are not known."""
        unknown = self._without_known(rows)
        if not unknown:
            return
        tries = {
            row[0]: self._connection.execute("SELECT tries FROM late WHERE idx = ?", (row[0],)).fetchone()
            for row in unknown
        }
        late = sorted((row for row in unknown if tries[row[0]]), key=lambda row: (tries[row[0]], -row[0]))
        self._take([row for row in unknown if not tries[row[0]]], late[:_LATE_TRIED_MAX])

    def _without_known(self, rows: Sequence[Row]) -> list[Row]:
        known = "SELECT 1 FROM known_run WHERE idx = ?"
        return [row for row in rows if self._connection.execute(known, (row[0],)).fetchone() is None]

    def _take(self, new: Sequence[Row], late: Sequence[Row]) -> int | None:
        """Take in new runs and those that were late; manifests come before the lock is taken.

        Returns:
            Index of the first new run that was not taken in, since the group key is missing; None when there is none.
        """
        assert self._load is not None
        if not new and not late:
            return None
        with contextlib.suppress(LichenError, OSError):
            self._bring([row[3] for row in (*new, *late)])
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            for row in (*new, *late):
                try:
                    self._insert(*row, self._load(row[3]))
                except KeyFileError:
                    return row[0] if row in new else None
                except (LichenError, OSError):
                    self._connection.execute(
                        "INSERT INTO late VALUES (?,?,?,?,0) ON CONFLICT (idx) DO UPDATE SET tries = tries + 1",
                        row,
                    )
                    continue
                self._connection.execute("DELETE FROM late WHERE idx = ?", (row[0],))
        finally:
            self._connection.execute("COMMIT")
        return None

    def _advance(self, command: bytes, next_index: int) -> None:
        self._connection.execute(
            "INSERT INTO taken VALUES (?,?) ON CONFLICT (command) DO UPDATE SET next_index = excluded.next_index "
            "WHERE excluded.next_index > next_index",
            (command, next_index),
        )

    def add(self, index: int, command: bytes, family: bytes, cid: str, manifest: Manifest) -> None:
        """Take in one run whose manifest is already in hand; it need not be read again by whoever comes next."""
        self._tried(lambda: self._add(index, command, family, cid, manifest))

    def _add(self, index: int, command: bytes, family: bytes, cid: str, manifest: Manifest) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._insert(index, command, family, cid, manifest)
            if self._runs is not None:
                row = self._connection.execute(
                    "SELECT next_index FROM taken WHERE command = ?", (command,)
                ).fetchone()
                waiting = self._runs.of_command(command, 0 if row is None else int(row[0]))
                if not self._without_known(waiting):
                    self._advance(command, index + 1)
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

    def _rows(
        self, sql: str, values: tuple[object, ...], take: Callable[[], object] = lambda: None
    ) -> list[tuple[Any, ...]]:
        """Ask, after taking in what the question needs; both again, where the file turns out to be damaged."""

        def ask() -> list[tuple[Any, ...]]:
            take()
            return self._connection.execute(sql, values).fetchall()

        return self._tried(ask)

    # -- questions -------------------------------------------------------------------------------------------------

    def shapes(self, command: bytes, limit: int) -> list[tuple[int, str]]:
        """Return (latest run, manifest CID) of each distinct shape of a request, newest first."""
        rows = self._rows(
            "SELECT idx, manifest FROM shape WHERE command = ? ORDER BY idx DESC LIMIT ?",
            (command, limit),
            lambda: self._take_command(command),
        )
        return [(int(index), str(cid)) for index, cid in rows]

    def family(self, family: bytes, limit: int) -> list[KnownRun]:
        """Return the latest runs of one script, newest first."""
        runs = self._runs
        rows = self._rows(
            "SELECT idx, words, parameters FROM known_run WHERE family = ? ORDER BY idx DESC LIMIT ?",
            (family, limit),
            lambda: None if runs is None else self._take_some(runs.of_family(family, limit)),
        )
        return [
            KnownRun(index, tuple(json.loads(words)), json.loads(parameters))
            for index, words, parameters in rows
        ]

    def take_in(self, indexes: Sequence[int]) -> None:
        """Take in the runs among some entries together, before each is asked for."""
        runs = self._runs
        if runs is not None:
            known = "SELECT 1 FROM known_run WHERE idx = ?"
            unknown = [index for index in indexes if not self._rows(known, (index,))]
            if unknown:
                self._tried(lambda: self._take_some(runs.at(unknown)))

    def made(self, index: int) -> bytes | None:
        """Return the digest of what a run made (``Manifest.made``), when its manifest is at hand."""
        rows = self._known("SELECT made FROM known_run WHERE idx = ?", index)
        return bytes(rows[0][0]) if rows else None

    def known_run(self, index: int) -> KnownRun | None:
        """Return one run, when its manifest is at hand."""
        rows = self._known("SELECT words, parameters FROM known_run WHERE idx = ?", index)
        return KnownRun(index, tuple(json.loads(rows[0][0])), json.loads(rows[0][1])) if rows else None

    def _known(self, sql: str, index: int) -> list[tuple[Any, ...]]:
        rows = self._rows(sql, (index,))
        if not rows:
            self.take_in([index])
            rows = self._rows(sql, (index,))
        return rows


def _bring_nothing(_cids: Sequence[str]) -> None:
    """Do nothing: manifests lie here."""


def _is_damage(error: Exception) -> bool:
    """Tell a file that is not what it should be from one that cannot be written, or is locked."""
    if isinstance(error, sqlite3.OperationalError):
        return str(error).startswith("no such")
    return isinstance(error, sqlite3.DatabaseError)
