"""The file behind the digest cache: one SQLite table, shared by processes, thrown away when it is damaged.

Files whose inode numbers are close lie together in one row, a *bucket*, because files of one directory mostly have such
numbers: what is known of a thousand files is then read, and written, by one statement, and taken apart by C code. Nothing
that goes wrong here is an error to anyone: a table that cannot be opened, read or written is an empty one, and a bucket whose
checksum is wrong is an empty bucket.

Entries of a bucket, little endian, 96 bytes each, by inode:

=======  ===========================================================================
bytes    field
=======  ===========================================================================
8        inode number
24       size in bytes, mtime and ctime in nanoseconds, each signed
32       SHA-256 of the content
32       digest in the CID of a file of several chunks; zeros when not asked for
=======  ===========================================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lichen.content.cid import DAG_PB, RAW, Cid
from lichen.content.files import StatKey
from lichen.content.unixfs import CHUNK_SIZE, ArtefactHash

__all__ = ["BUSY_SECONDS", "Bucket", "BucketKey", "DigestTable", "Known", "bucket_of"]

SCHEMA_VERSION = 2
TABLE_SIZE_MAX = 2**28  # (= 268435456) bytes, two and a half million files; a larger table starts afresh
BUSY_SECONDS = 2.0  # how long to wait for another process that is writing
BUCKET_BITS = 10  # of inode numbers that share a bucket: up to 1024 files, 96 KiB

SCHEMA = """
CREATE TABLE IF NOT EXISTS buckets (
    device INTEGER NOT NULL,
    bucket INTEGER NOT NULL,    -- inode number without its lowest ten bits
    entries BLOB NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (device, bucket)
) STRICT
"""
SELECT_ONE = "SELECT entries, checksum FROM buckets WHERE device = ? AND bucket = ?"
REPLACE = "INSERT OR REPLACE INTO buckets (device, bucket, entries, checksum) VALUES (?, ?, ?, ?)"

STATE = struct.Struct("<qqq")  # size, mtime, ctime
ENTRY = struct.Struct("<Q88s")  # inode, then state, digest and root
BUCKET_KEY = struct.Struct("<QQ")
NO_ROOT = bytes(32)

BucketKey = tuple[int, int]
"""Device, and inode number without its lowest bits."""
Bucket = dict[int, bytes]
"""Inode number -> 88 bytes: packed state, digest, root."""


def bucket_of(device: int, inode: int) -> BucketKey:
    """Say which bucket a file's entry lies in."""
    return device, inode >> BUCKET_BITS


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

    def packed(self) -> bytes:
        """Return its 88 bytes in a bucket."""
        return STATE.pack(*self.key[2:]) + self.sha256 + (self.root or NO_ROOT)

    @classmethod
    def from_packed(cls, key: StatKey, packed: bytes | None) -> Known | None:
        """Read the bytes of a bucket; None when they are of another state of the file."""
        try:
            if packed is None or packed[:24] != STATE.pack(*key[2:]):
                return None
        except struct.error:  # a date beyond the calendar
            return None
        root = packed[56:]
        return cls(key, packed[24:56], None if root == NO_ROOT else root)


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

    def bucket(self, key: BucketKey) -> Bucket:
        """Return everything known of the files of a bucket; the caller may change it."""
        rows = self._query(SELECT_ONE, (_signed(key[0]), key[1]))
        return _unpacked(key, *rows[0]) if rows else {}

    def entries(self, keys: Iterable[BucketKey]) -> Iterator[tuple[BucketKey, bytes]]:
        """Give the entries of buckets as they stand in their rows, by inode; a bucket that is not there, or damaged, is left out."""
        for key in keys:
            for entries, checksum in self._query(SELECT_ONE, (_signed(key[0]), key[1])):
                if _is_sound(key, entries, checksum):
                    yield key, entries

    def put(self, learnt: Mapping[BucketKey, Bucket]) -> None:
        """Add what was learnt, in place of what was known of earlier states of the same files."""
        connection = self._connection
        if connection is None:
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            for key in sorted(learnt):
                row = connection.execute(SELECT_ONE, (_signed(key[0]), key[1])).fetchone()
                merged = (_unpacked(key, *row) if row else {}) | learnt[key]
                entries = b"".join([ENTRY.pack(inode, merged[inode]) for inode in sorted(merged)])
                connection.execute(REPLACE, (_signed(key[0]), key[1], entries, _checksum(key, entries)))
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
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
            connection.execute(SELECT_ONE, (0, 0)).fetchone()
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


def _checksum(key: BucketKey, entries: bytes) -> int:
    return zlib.crc32(entries, zlib.crc32(BUCKET_KEY.pack(*key)))


def _unpacked(key: BucketKey, entries: Any, checksum: Any) -> Bucket:
    """Take a row apart, unless it is damaged; what a damaged file holds is of any type."""
    return dict(ENTRY.iter_unpack(entries)) if _is_sound(key, entries, checksum) else {}


def _is_sound(key: BucketKey, entries: Any, checksum: Any) -> bool:
    return (
        isinstance(entries, bytes) and not len(entries) % ENTRY.size and _checksum(key, entries) == checksum
    )
