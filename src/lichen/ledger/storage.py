"""The one file a ledger lives in: opening, schema and transactions.

Rules upheld here:

* One SQLite file in write-ahead mode with ``synchronous=FULL``: what ``COMMIT`` returned for is on the disk, and a
  process killed at any instruction leaves the ledger as it was before or after a whole append.
* Writers take the lock first (``BEGIN IMMEDIATE``) and look at the file inside the transaction, so several processes
  append to one log in one order.
* ``application_id`` says that the file is a ledger and ``user_version`` in which schema; a newer one is refused.
* SQLite's locks stay with this process: a file that is open here is not looked at past SQLite (`lichen.ledger.open_files`).
* Nothing is scanned at opening, whatever the number of entries.

The rows themselves are read and written in `lichen.ledger.tables`.

Source: SQLite documentation, "Write-Ahead Logging", "Atomic Commit In SQLite", "Database File Format" (section 1.3).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lichen.errors import (
    CorruptLedgerError,
    FormatVersionError,
    NotALedgerError,
    StorageError,
    UsageError,
)
from lichen.ledger.migration import SCHEMA_VERSION, VIEWS_TABLE, bring_up_to_date
from lichen.ledger.open_files import OpenFile
from lichen.ledger.sqlite_errors import SqliteGuard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["APPLICATION_ID", "LEDGER_FILE_NAME", "SCHEMA", "SCHEMA_VERSION", "Database"]

LEDGER_FILE_NAME: Final = "ledger.sqlite"
APPLICATION_ID: Final = 0x4C494348  # "LICH"
SQLITE_VERSION_MIN: Final = (3, 37, 0)  # STRICT tables
BUSY_TIMEOUT_SECONDS: Final = 60.0
WAL_PAGES_MAX: Final = 4_000  # (= 16 MB) then SQLite copies the write-ahead log into the file: a page changed by several seals once
CACHE_SIZE_KIB: Final = 16_384
VALUE_BYTES_MAX: Final = (
    2**28
)  # (= 268435456) far beyond any row, so that a damaged length cannot take all memory
HEADER_SIZE_BYTES: Final = 100
SQLITE_MAGIC: Final = b"SQLite format 3\x00"

SCHEMA: Final = (
    # Every entry in its compact form; the index is the row id, so there is no second key. A seal's row also holds root and
    # log signature of the checkpoint behind it: on the page that is written anyway, and before the entry, so that looking
    # for the last seal reads no long rows.
    "CREATE TABLE entries(idx INTEGER PRIMARY KEY, checkpoint BLOB, entry BLOB NOT NULL) STRICT",
    # First 8 bytes of the payload digest -> index. Equal prefixes are told apart by reading the entries.
    "CREATE TABLE payloads(prefix INTEGER NOT NULL, idx INTEGER NOT NULL, PRIMARY KEY(prefix, idx))"
    " STRICT, WITHOUT ROWID",
    # Hash tiles by level and number; see `lichen.ledger.hash_tiles`.
    "CREATE TABLE tiles(position INTEGER PRIMARY KEY, hashes BLOB NOT NULL) STRICT",
    VIEWS_TABLE,
)


class Database:
    """A connection to one ledger file, and the transactions over it.

    One object serves several threads, one after the other: ``lock`` is held during a transaction. It does not cross a
    ``fork``: a child opens its own.

    Attributes:
        path: The file.
        connection: The SQLite connection, in autocommit mode outside `write` and `read`.
        read_only: True when nothing can be written through it.
        lock: Held by whoever is inside `write` or `read`.
        before_commit: Called at the end of every `write`, inside the transaction: whoever keeps rows back hands them over.
        guard: Context manager that maps SQLite's exceptions.
    """

    def __init__(
        self, path: Path, connection: sqlite3.Connection, open_file: OpenFile, *, read_only: bool
    ) -> None:
        self.path = path
        self._open_file = open_file
        self.connection = connection
        self.read_only = read_only
        self.lock = threading.RLock()
        self.guard = SqliteGuard(path)
        self.before_commit: Callable[[], None] = _nothing
        self._depth = 0
        self._process = os.getpid()
        self._is_durable = True

    @classmethod
    def create(cls, path: Path) -> Database:
        """Open a file for a new ledger; its tables are made by `install_schema`, in the transaction of the genesis.

        Args:
            path: A name in an existing directory. What an interrupted creation left there is taken over.

        Raises:
            UsageError: Something else is there already.
            StorageError: The directory cannot be written.
        """
        _check_sqlite_version()
        if _size_of(path) and not _is_blank(path):
            raise UsageError(f"{path} exists already", remedy="choose another directory for the new ledger")
        with SqliteGuard(path):
            connection = _connect(_uri(path, "rwc"))
            try:
                connection.execute("PRAGMA page_size=4096")
                connection.execute("PRAGMA journal_mode=WAL")
                _configure(connection)
                open_file = OpenFile(path)
            except BaseException:
                connection.close()
                raise
        return cls(path, connection, open_file, read_only=False)

    def install_schema(self, more: Iterable[str]) -> None:
        """Make all tables inside the caller's transaction.

        Args:
            more: Further statements, for the tables of other files in this room.

        Raises:
            UsageError: Another process made a ledger here meanwhile.
        """
        if self.connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is not None:
            raise UsageError(
                f"{self.path} exists already", remedy="choose another directory for the new ledger"
            )
        self.connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
        self.connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        for statement in (*SCHEMA, *more):
            self.connection.execute(statement)

    @classmethod
    def open(cls, path: Path, *, read_only: bool, more: Iterable[str] = ()) -> Database:
        """Open a ledger file after checking that it is one, whole, and not of a newer schema.

        Args:
            path: The file.
            read_only: Open without the right to write; works in a directory that cannot be written, too.
            more: The further statements that `install_schema` was given.

        Raises:
            NotALedgerError: No such file, not a database, or a database of something else.
            FormatVersionError: Made by a newer Lichen.
            CorruptLedgerError: Cut short, or tables are missing.
            StorageError: The operating system refused.
        """
        _check_sqlite_version()
        open_file = OpenFile(path, _check_header)
        with contextlib.ExitStack() as undo, SqliteGuard(path):
            undo.callback(open_file.close)
            connection = _connect_read_only(path)[0] if read_only else _connect(_uri(path, "rw"))
            try:
                version = _check_identity(path, connection)
                _check_length(path, connection)
                if version < SCHEMA_VERSION:
                    _migrate(path, version)
                _check_tables(path, connection, (*SCHEMA, *more))
                _configure(connection)
                if read_only:
                    connection.execute("PRAGMA query_only=ON")
            except BaseException:
                connection.close()
                raise
            undo.pop_all()
        return cls(path, connection, open_file, read_only=read_only)

    @contextlib.contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it is on the disk when the block ends, or none of it ever happened.

        Args:
            durable: Wait for the disk. Without, a power cut may lose it, whole, but nothing that was waited for: for what can
                be derived again.

        Raises:
            UsageError: The database is open for reading only, or the process has forked since it was opened.
            StorageError: Disk full, locked by another process, or failing.
            CorruptLedgerError: The file is damaged.
        """
        self._check_process()
        if self.read_only:
            raise UsageError(
                f"{self.path} is open for reading only", remedy="open it with the log key to append or seal"
            )
        connection = self.connection
        with self.lock, self.guard:
            if durable is not self._is_durable and not self._depth:
                connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
                self._is_durable = durable
            connection.execute("BEGIN IMMEDIATE")
            self._depth += 1
            try:
                yield connection
                self.before_commit()
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise
            finally:
                self._depth -= 1

    @contextlib.contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """Several queries over one unmoving picture of the ledger, whatever other processes append meanwhile."""
        connection = self.connection
        with self.lock, self.guard:
            if self._depth:  # the caller's transaction is the picture
                yield connection
                return
            connection.execute("BEGIN")
            self._depth += 1
            try:
                yield connection
            finally:
                self._depth -= 1
                if connection.in_transaction:
                    connection.execute("COMMIT")

    def reader(self, *, beside_as: str | None = None) -> sqlite3.Connection:
        """A second connection that cannot write the file, for queries over views.

        Args:
            beside_as: Make a temporary database its main one, and attach the file under this name, so that tables made there
                hide those of the same name in the file.

        Raises:
            StorageError: It cannot be opened.
        """
        with self.guard:
            connection, uri = _connect_read_only(self.path)
            _configure(connection)
            if beside_as is None:
                connection.execute("PRAGMA query_only=ON")
                return connection
            connection.close()
            connection = _connect("")
            connection.execute("PRAGMA journal_mode=MEMORY")
            connection.execute("PRAGMA synchronous=OFF")
            connection.execute(f"ATTACH DATABASE ? AS {beside_as}", (uri,))
        return connection

    def read_only_uri(self) -> str:
        """The URI under which another process may read the file.

        Raises:
            StorageError: It cannot be opened.
        """
        with self.guard:
            connection, uri = _connect_read_only(self.path)
            connection.close()
        return uri

    def close(self) -> None:
        """Close the connection; the last writer to close also folds the write-ahead log into the file."""
        with self.lock, self.guard:
            self.connection.close()
            self._open_file.close()

    def _check_process(self) -> None:
        """Refuse to write through a connection that was carried across a fork.

        Raises:
            UsageError: This is another process than the one that opened it.
        """
        if os.getpid() != self._process:
            raise UsageError(
                f"{self.path} was opened by process {self._process} and inherited by a fork",
                remedy="open the ledger again in the child process",
            )


def _nothing() -> None:
    """What there is to do before a commit as long as nobody keeps rows back."""


def _is_blank(path: Path) -> bool:
    """True for a database without any table, which is what a creation that was killed leaves behind."""
    try:
        with contextlib.closing(_connect(_uri(path, "ro"))) as connection:
            return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None
    except sqlite3.Error:
        return False


def _uri(path: Path, mode: str) -> str:
    return f"{path.absolute().as_uri()}?mode={mode}"


def _connect(uri: str) -> sqlite3.Connection:
    return sqlite3.connect(
        uri,
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_SECONDS,
        check_same_thread=False,
        cached_statements=256,
    )


def _connect_read_only(path: Path) -> tuple[sqlite3.Connection, str]:
    """Connect for reading, also where SQLite cannot make its shared-memory file beside the ledger.

    Returns:
        The connection, and the URI that worked.

    Raises:
        StorageError: The directory is read-only and holds commits that are not folded into the file yet.
    """
    uri = _uri(path, "ro")
    connection = _connect(uri)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        code = (error.sqlite_errorcode or 0) & 0xFF
        if code not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY) or not os.access(path, os.R_OK):
            raise
        if _size_of(_wal_of(path)):
            raise StorageError(
                f"{path} has commits in {_wal_of(path).name}, and its directory cannot be written",
                remedy="copy the directory to a place where you can write, and open it there",
            ) from error
        uri += "&immutable=1"
        return _connect(uri), uri
    except BaseException:
        connection.close()
        raise
    return connection, uri


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint={WAL_PAGES_MAX}")
    connection.execute(f"PRAGMA cache_size=-{CACHE_SIZE_KIB}")
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("PRAGMA secure_delete=FAST")  # clear what is freed where that writes no further page
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX)


def _check_sqlite_version() -> None:
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise StorageError(
            f"this Python's SQLite is {sqlite3.sqlite_version}; a ledger needs 3.37 or newer",
            remedy="use a Python whose sqlite3 module is linked with a newer SQLite",
        )


def _check_header(path: Path) -> None:
    """Look at the first bytes before SQLite does, so that each wrong file gets its own answer."""
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_SIZE_BYTES)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise NotALedgerError(
            f"there is no ledger at {path}",
            remedy="make one with `lichen init`, or name another with --ledger",
        ) from error
    except IsADirectoryError as error:
        raise NotALedgerError(
            f"{path} is a directory where a ledger file is expected",
            remedy="name the directory that holds it",
        ) from error
    except OSError as error:
        raise StorageError(
            f"cannot read {path}: {error.strerror}",
            remedy="check the permissions of the file and its directory",
        ) from error
    if not header:
        raise NotALedgerError(
            f"{path} is empty",
            remedy="restore it from a copy, or remove it and make a ledger with `lichen init`",
        )
    if not header.startswith(SQLITE_MAGIC):
        raise NotALedgerError(
            f"{path} is not a Lichen ledger: it does not start as an SQLite database does",
            remedy="name a ledger made by `lichen init`, or restore this one from a copy",
        )
    if len(header) < HEADER_SIZE_BYTES:
        raise CorruptLedgerError(
            f"{path} is cut short: {len(header)} bytes",
            remedy="restore it from a copy, then run `lichen verify`",
        )


def _check_identity(path: Path, connection: sqlite3.Connection) -> int:
    """Check application id and schema version.

    Returns:
        The schema version, this one or an older.

    Raises:
        NotALedgerError: A database of another program.
        FormatVersionError: A newer Lichen made it.
    """
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id == 0 and connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None:
        raise NotALedgerError(
            f"{path} was never finished", remedy="run `lichen init` again in the same directory"
        )
    if application_id != APPLICATION_ID:
        raise NotALedgerError(
            f"{path} is an SQLite database of another program", remedy="name a ledger made by `lichen init`"
        )
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise FormatVersionError(
            f"{path} has ledger schema {version}; this Lichen reads up to {SCHEMA_VERSION}",
            remedy="install a newer Lichen to open it",
        )
    if version < 1:
        raise CorruptLedgerError(
            f"{path} has no schema version", remedy="restore it from a copy, then run `lichen verify`"
        )
    return int(version)


def _migrate(path: Path, version: int) -> None:
    """Bring a file of an older schema up to date, through a connection of its own.

    Raises:
        FormatVersionError: It cannot be written.
    """
    with contextlib.closing(_connect(_uri(path, "rw"))) as connection:
        try:
            connection.execute("PRAGMA synchronous=FULL")
            bring_up_to_date(connection)
        except sqlite3.OperationalError as error:
            if (error.sqlite_errorcode or 0) & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                raise
            raise FormatVersionError(
                f"{path} has ledger schema {version}, this Lichen needs {SCHEMA_VERSION}, and the file cannot be written",
                remedy="open it once where it can be written, or copy it to such a place",
            ) from error


def _check_tables(path: Path, connection: sqlite3.Connection, schema: Iterable[str]) -> None:
    """Check that all tables are there, as they were made.

    Raises:
        CorruptLedgerError: Tables are missing or changed.
    """
    found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE type='table'")}
    wanted = (statement.replace("IF NOT EXISTS ", "") for statement in schema)
    if missing := [statement for statement in wanted if statement not in found]:
        names = ", ".join(statement.split("(", 1)[0].removeprefix("CREATE TABLE ") for statement in missing)
        raise CorruptLedgerError(
            f"{path} lacks the tables {names}, or they were changed",
            remedy="restore it from a copy, then run `lichen verify`",
        )


def _check_length(path: Path, connection: sqlite3.Connection) -> None:
    """Check that the file is as long as it says.

    Raises:
        CorruptLedgerError: Pages are missing.
    """
    if _size_of(_wal_of(path)):
        return  # pages may still wait in the write-ahead log
    (page_count,) = connection.execute("PRAGMA page_count").fetchone()
    (page_size_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    if _size_of(path) < page_count * page_size_bytes:
        # Another process may have written since: what it added waits in its log, or was folded into the file by now.
        if _size_of(_wal_of(path)) or _size_of(path) >= page_count * page_size_bytes:
            return
        raise CorruptLedgerError(
            f"{path} is cut short: {_size_of(path)} bytes of {page_count * page_size_bytes}",
            expected=page_count * page_size_bytes,
            calculated=_size_of(path),
            remedy="restore it from a copy, then run `lichen verify`",
        )


def _wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
