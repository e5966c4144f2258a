"""The file behind the digest cache: one SQLite table, shared by processes, thrown away when it is damaged.

Nothing that goes wrong here is an error to anyone: a table that cannot be opened, read or written is an empty one. What
it gives was checked row by row.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lichen.content.cid import DAG_PB, RAW, Cid
from lichen.content.files import StatKey
from lichen.content.unixfs import CHUNK_SIZE, ArtefactHash

__all__ = ["BUSY_SECONDS", "DigestTable", "Known"]

SCHEMA_VERSION = 1
TABLE_SIZE_MAX = 2**28  # (= 268435456) bytes, two million files; a larger table starts afresh
BUSY_SECONDS = 2.0  # how long to wait for another process that is writing

SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    root BLOB,          -- digest in the CID of a file of several chunks, if it was asked for
    checksum INTEGER NOT NULL,
    PRIMARY KEY (device, inode)
) STRICT, WITHOUT ROWID
"""
COLUMNS = "device, inode, size_bytes, mtime_ns, ctime_ns, sha256, root, checksum"
SELECT_ALL = f"SELECT {COLUMNS} FROM digests"  # noqa: S608 - constants
SELECT_ONE = f"{SELECT_ALL} WHERE device = ? AND inode = ?"
REPLACE = f"INSERT OR REPLACE INTO digests ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608

KEY_PACKING = struct.Struct("<QQqqq")


class Known(NamedTuple):
    """What is known of one state of a file.

    Args:
        key: The state.
        sha256: SHA-256 of the content, 32 bytes.
        root: Digest in the CID of a file of several chunks; ``None`` if it was not asked for or there is one chunk.
    """

    key: StatKey
    sha256: bytes
    root: bytes | None

    @property
    def has_cid(self) -> bool:
        """Whether the CID is known too."""
        return self.root is not None or self.key.size_bytes <= CHUNK_SIZE

    def names(self) -> ArtefactHash:
        """Return the names; only if the CID is known."""
        cid = Cid(RAW, self.sha256) if self.root is None else Cid(DAG_PB, self.root)
        return ArtefactHash(cid, self.sha256, self.key.size_bytes)


class DigestTable:
    """What earlier commands learnt about files.

    Args:
        path: The SQLite file; made when missing, made anew when damaged.
        busy_seconds: How long to wait for another process that is writing.
    """

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path
        self._busy_seconds = busy_seconds
        self._connection = self._open()

    def close(self) -> None:
        """Close the file; afterwards the table is an empty one."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def count(self) -> int:
        """Count the files known."""
        row = self._query("SELECT count(*) FROM digests")
        return row[0][0] if row else 0

    def get(self, key: StatKey) -> Known | None:
        """Return what is known of this state of a file."""
        for row in self._query(SELECT_ONE, (_signed(key.device), _signed(key.inode))):
            known = _known_of(row)
            if known is not None and known.key == key:
                return known
        return None

    def all(self) -> Iterator[Known]:
        """Give everything known."""
        for row in self._query(SELECT_ALL):
            known = _known_of(row)
            if known is not None:
                yield known

    def put(self, learnt: Iterable[Known]) -> None:
        """Add what was learnt, in place of what was known of earlier states of the same files."""
        if self._connection is None:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(REPLACE, map(_row_of, learnt))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            self._give_up(error)

    def _query(self, sql: str, parameters: tuple[int, ...] = ()) -> list[tuple[Any, ...]]:
        if self._connection is None:
            return []
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            self._give_up(error)
            return []

    def _give_up(self, error: sqlite3.Error) -> None:
        """Go on without the file, after a failure that will not pass; throw it away if it is damaged."""
        if _code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            return
        self.close()
        if _code(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            with contextlib.suppress(OSError), _lock(self._path, fcntl.LOCK_EX):
                _remove(self._path)

    def _open(self) -> sqlite3.Connection | None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with _lock(self._path, fcntl.LOCK_SH):
                connection = self._connect()
            if connection is None:
                with _lock(self._path, fcntl.LOCK_EX):
                    connection = self._connect()
                    if connection is None:
                        _remove(self._path)
                        connection = self._connect()
        except OSError:
            return None
        return connection

    def _connect(self) -> sqlite3.Connection | None:
        """Open a usable file, or say there is none."""
        with contextlib.suppress(FileNotFoundError):
            if self._path.stat().st_size > TABLE_SIZE_MAX:
                return None
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                self._path, timeout=self._busy_seconds, isolation_level=None, check_same_thread=False
            )
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            if version not in {0, SCHEMA_VERSION}:
                connection.close()
                return None
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(SCHEMA)
            connection.execute(f"{SELECT_ALL} LIMIT 1").fetchone()
            if version != SCHEMA_VERSION:
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except sqlite3.Error:
            if connection is not None:
                connection.close()
            return None
        return connection


@contextlib.contextmanager
def _lock(path: Path, operation: int) -> Iterator[None]:
    """Keep others from opening the file while it is replaced, and from replacing it while it is opened."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove the file; its log first, so that no new database meets an old log."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _code(error: sqlite3.Error) -> int:
    """Return SQLite's primary error code; 0 when the error is not SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _signed(value: int) -> int:
    """Fit an unsigned 64-bit device or inode number into SQLite's signed integers."""
    return value - 2**64 if value >= 2**63 else value


def _checksum(packed_key: bytes, sha256: bytes, root: bytes | None) -> int:
    return zlib.crc32(packed_key + sha256 + (root or b""))


def _row_of(known: Known) -> tuple[object, ...]:
    key = known.key
    checksum = _checksum(KEY_PACKING.pack(*key), known.sha256, known.root)
    return (_signed(key.device), _signed(key.inode), *key[2:], known.sha256, known.root, checksum)


def _known_of(row: tuple[Any, ...]) -> Known | None:
    """Read a row, unless it is damaged; what a damaged file holds is of any type."""
    *numbers, sha256, root, checksum = row
    try:
        key = StatKey(numbers[0] % 2**64, numbers[1] % 2**64, *numbers[2:])
        if checksum != _checksum(KEY_PACKING.pack(*key), sha256, root):
            return None
    except (TypeError, struct.error):
        return None
    return Known(key, sha256, root)
