"""Names of files that have not changed since they were last hashed, kept from one command to the next.

A file is known by device, inode, size, mtime and ctime. The kernel sets ctime at every change and programs cannot set
it back, so an equal key means equal content, with three exceptions, and how each is met:

- a change in the same clock tick as the one before leaves the times as they are: a file changed less than two seconds
  before it was hashed is not remembered
- a program may go on writing to a file it has mapped without the times moving: ``paranoid`` reads the bytes again
- the cache file itself may rot: every row carries a checksum, and a damaged cache is thrown away

It is only ever a cache. Nothing that goes wrong with it is an error; the file is hashed instead.

Source:
    The racy rule is git's (Documentation/technical/racy-git.txt). Differs: judged by ctime, with a margin.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lichen.content.cid import DAG_PB, RAW, Cid
from lichen.content.files import StatKey, StrPath, file_changed, open_regular, raise_read_error
from lichen.content.unixfs import ArtefactHash, Progress, hash_descriptor
from lichen.errors import LichenError

__all__ = ["DigestCache"]

SCHEMA_VERSION = 1
RACY_NS = 2_000_000_000  # longer than a tick of any file system's clock; FAT's is two seconds
CACHE_SIZE_MAX = 2**28  # (= 268435456) bytes, two million files; a larger cache starts afresh
PRELOAD_COUNT = 500  # files asked for at once from which reading the whole table is quicker than row by row
BUSY_SECONDS = 2.0

SCHEMA = """
CREATE TABLE IF NOT EXISTS digests (
    device INTEGER NOT NULL,
    inode INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    sha256 BLOB NOT NULL,
    root BLOB,          -- digest in the CID of a file of several chunks; of one chunk it is sha256
    checksum INTEGER NOT NULL,
    PRIMARY KEY (device, inode)
) STRICT, WITHOUT ROWID
"""
ROOT_TYPES = (bytes, type(None))
KEY_PACKING = struct.Struct("<QQqqq")
COLUMNS = "device, inode, size_bytes, mtime_ns, ctime_ns, sha256, root, checksum"

LookUp = Callable[[StatKey], ArtefactHash | None]
Row = tuple[Any, ...]
"""The columns in order; of any type, since what a damaged file holds is anybody's guess."""


class DigestCache:
    """Names files, hashing only those that changed.

    Safe for many processes at once. Not for several threads on one instance.

    Args:
        path: The cache's SQLite file; made when missing, made anew when damaged.
        now_ns: Clock, nanoseconds since 1970.
    """

    def __init__(self, path: StrPath, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.path = Path(path)
        self._now_ns = now_ns
        self._connection = self._open()

    def __enter__(self) -> DigestCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the cache file; the cache still works afterwards, remembering nothing."""
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def hash_file(
        self,
        path: StrPath,
        *,
        paranoid: bool = False,
        expected: StatKey | None = None,
        progress: Progress | None = None,
    ) -> ArtefactHash:
        """Name a file.

        Args:
            path: A regular file, or a symbolic link to one.
            paranoid: Hash it even if it seems unchanged.
            expected: State the file was seen in earlier and must still be in.
            progress: Told of every piece read; of nothing when nothing is.

        Raises:
            UsageError: Nothing there, not a regular file, or not readable.
            FileChangedError: Written to while it was read, or since it was in the expected state.
            StorageError: The disk failed.
        """
        if not paranoid:
            try:
                status = os.stat(path)  # noqa: PTH116 - a third of the time of a Path
            except OSError as error:
                raise_read_error(path, error)
            key = StatKey.of(status)
            if expected is not None and key != tuple(expected):
                raise file_changed(path)
            if stat.S_ISREG(status.st_mode):
                names = self._look_up(key)
                if names is not None:
                    return names
        start_ns = self._now_ns()
        key, names = _hash(path, expected, progress)
        if _is_settled(key, start_ns):
            self._remember([(key, names)])
        return names

    def hash_files(
        self, paths: Iterable[StrPath], *, paranoid: bool = False
    ) -> list[ArtefactHash | LichenError]:
        """Name many files, quicker than one by one.

        Args:
            paths: Regular files, or symbolic links to such.
            paranoid: Hash them even if they seem unchanged.

        Returns:
            For each path in order its names, or the error that ``hash_file`` would have raised.
        """
        paths = list(paths)
        known: LookUp | None = None
        if not paranoid:
            known = self._look_up if len(paths) < PRELOAD_COUNT else self._preloaded()
        results: list[ArtefactHash | LichenError] = []
        learnt: list[tuple[StatKey, ArtefactHash]] = []
        for path in paths:
            try:
                names = known(StatKey.of(os.stat(path))) if known else None  # noqa: PTH116
                if names is None:
                    start_ns = self._now_ns()
                    key, names = _hash(path, None, None)
                    if _is_settled(key, start_ns):
                        learnt.append((key, names))
            except OSError as error:
                results.append(_as_lichen_error(path, error))
            except LichenError as error:
                results.append(error)
            else:
                results.append(names)
        self._remember(learnt)
        return results

    # The table

    def _look_up(self, key: StatKey) -> ArtefactHash | None:
        if self._connection is None:
            return None
        try:
            row = self._connection.execute(
                f"SELECT {COLUMNS} FROM digests WHERE device = ? AND inode = ?",  # noqa: S608 - a constant
                (_signed(key.device), _signed(key.inode)),
            ).fetchone()
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        return None if row is None else _names_of(row, key)

    def _preloaded(self) -> LookUp | None:
        """Read the whole table once to look up in memory; ``None`` when nothing is known."""
        if self._connection is None:
            return None
        try:
            rows = self._connection.execute(f"SELECT {COLUMNS} FROM digests").fetchall()  # noqa: S608
        except sqlite3.Error as error:
            self._give_up(error)
            return None
        if not rows:
            return None
        by_inode: dict[tuple[int, int], Row] = {(row[0], row[1]): row for row in rows}

        def look_up(key: StatKey) -> ArtefactHash | None:
            row = by_inode.get((_signed(key.device), _signed(key.inode)))
            return None if row is None else _names_of(row, key)

        return look_up

    def _remember(self, learnt: Sequence[tuple[StatKey, ArtefactHash]]) -> None:
        if self._connection is None or not learnt:
            return
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.executemany(
                f"INSERT OR REPLACE INTO digests ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
                [_row_of(key, names) for key, names in learnt],
            )
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            self._give_up(error)

    def _give_up(self, error: sqlite3.Error) -> None:
        """Go on without the cache, after a failure that will not pass; throw it away if it is damaged."""
        if _is_busy(error):
            return
        self.close()
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with contextlib.suppress(OSError), _lock(self.path, fcntl.LOCK_EX):
                _remove(self.path)

    # The file

    def _open(self) -> sqlite3.Connection | None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _lock(self.path, fcntl.LOCK_SH):
                connection = _connect(self.path)
            if connection is None:
                with _lock(self.path, fcntl.LOCK_EX):
                    connection = _connect(self.path)
                    if connection is None:
                        _remove(self.path)
                        connection = _connect(self.path)
        except OSError:
            return None
        return connection


def _connect(path: Path) -> sqlite3.Connection | None:
    """Open a usable cache file, or say there is none."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > CACHE_SIZE_MAX:
            return None
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version not in {0, SCHEMA_VERSION}:
            connection.close()
            return None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(SCHEMA)
        connection.execute(f"SELECT {COLUMNS} FROM digests LIMIT 1").fetchone()  # noqa: S608
        if version != SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except sqlite3.Error:
        if connection is not None:
            connection.close()
        return None
    return connection


@contextlib.contextmanager
def _lock(path: Path, operation: int) -> Iterator[None]:
    """Keep others from opening the cache while it is replaced, and from replacing it while it is opened."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    """Remove the cache; the log first, so that no new database meets an old log."""
    for suffix in ("-wal", "-shm", ""):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}


def _hash(path: StrPath, expected: StatKey | None, progress: Progress | None) -> tuple[StatKey, ArtefactHash]:
    with open_regular(path) as (descriptor, status):
        key = StatKey.of(status)
        if expected is not None and key != tuple(expected):
            raise file_changed(path)
        names = hash_descriptor(descriptor, status.st_size, progress=progress)
        if names.size_bytes != status.st_size and status.st_size:  # what the kernel makes up claims size 0
            raise file_changed(path)
    return key, names


def _is_settled(key: StatKey, start_ns: int) -> bool:
    """Whether any later change must move the file's ctime, and the key fits a row, so that it may be remembered."""
    return key.ctime_ns < start_ns - RACY_NS and -(2**63) <= key.mtime_ns < 2**63


def _as_lichen_error(path: StrPath, error: OSError) -> LichenError:
    try:
        raise_read_error(path, error)
    except LichenError as translated:
        return translated


def _signed(value: int) -> int:
    """Fit an unsigned 64-bit device or inode number into SQLite's signed integers."""
    return value - 2**64 if value >= 2**63 else value


def _checksum(key: StatKey, sha256: bytes, root: bytes | None) -> int:
    return zlib.crc32(KEY_PACKING.pack(*key) + sha256 + (root or b""))


def _row_of(key: StatKey, names: ArtefactHash) -> Row:
    root = None if names.cid.codec == RAW else names.cid.digest
    numbers = (_signed(key.device), _signed(key.inode), key.size_bytes, key.mtime_ns, key.ctime_ns)
    return (*numbers, names.sha256, root, _checksum(key, names.sha256, root))


def _names_of(row: Row, key: StatKey) -> ArtefactHash | None:
    """Read a row, if it is about this state of the file and undamaged."""
    sha256, root, checksum = row[5:]
    if row[2:5] != key[2:] or type(sha256) is not bytes or type(root) not in ROOT_TYPES:
        return None
    if checksum != _checksum(key, sha256, root):
        return None
    cid = Cid(RAW, sha256) if root is None else Cid(DAG_PB, root)
    return ArtefactHash(cid, sha256, key.size_bytes)
