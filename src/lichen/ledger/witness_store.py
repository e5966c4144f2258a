"""A witness's memory: which logs it knows, and the latest checkpoint of each that it cosigned.

One SQLite file beside the witness's key, in write-ahead mode with ``synchronous=FULL``.

Rules upheld here:

* Record and cosignature are committed together, and on the disk before the cosignature is returned; so a witness that is
  killed at any instruction has on record whatever anybody can hold from it.
* The record is read, decided on and written in one transaction that began by taking the lock, so requests for a log are
  answered one after the other, also when several processes serve one directory.
* The times of one log's cosignatures never decrease, even when the machine's clock does.
* The highest size cosigned is also kept outside the directory, beside the user's keys, without waiting for the disk.
  A record that is behind it was put back from an old copy, and is raised to it before anything is signed.
* Two trees of one size that a log signed are kept as evidence.

Source: C2SP tlog-witness, "add-checkpoint": "persist the new checkpoint before responding".
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lichen.crypto.key_file import read_key, write_key
from lichen.crypto.keys import PublicKey, SigningKey
from lichen.crypto.note import NoteKey, SignatureType
from lichen.errors import FormatVersionError, LichenError, NotFoundError, StorageError, UsageError
from lichen.ledger.high_water import HighWater, Mark
from lichen.ledger.split_view import SplitView
from lichen.ledger.witness import (
    Checked,
    Decision,
    Identity,
    Refusal,
    Seen,
    check_request,
    cosign,
    decide,
    published,
)

__all__ = ["WITNESS_FILE_NAME", "WITNESS_KEY_NAME", "LogRecord", "WitnessStore", "origin_digest"]

WITNESS_FILE_NAME: Final = "witness.sqlite"
WITNESS_KEY_NAME: Final = "witness.key"
APPLICATION_ID: Final = 0x4C495749  # "LIWI"
SCHEMA_VERSION: Final = 1
EVIDENCE_COUNT_MAX: Final = 16  # per log; each alone is proof enough
MARKS_OPEN_MAX: Final = 64
BUSY_TIMEOUT_SECONDS: Final = 30.0

_SCHEMA: Final = (
    "CREATE TABLE identity(name TEXT NOT NULL) STRICT",
    "CREATE TABLE log_keys(origin TEXT NOT NULL, key BLOB NOT NULL, PRIMARY KEY(origin, key)) STRICT, WITHOUT ROWID",
    # What was cosigned last. The note is what monitors are served: NULL when the record was raised without one.
    "CREATE TABLE records(origin TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, root BLOB NOT NULL,"
    " time INTEGER NOT NULL, note TEXT, frozen INTEGER NOT NULL) STRICT, WITHOUT ROWID",
    "CREATE TABLE evidence(origin TEXT NOT NULL, number INTEGER NOT NULL, found BLOB NOT NULL UNIQUE,"
    " PRIMARY KEY(origin, number)) STRICT, WITHOUT ROWID",
)


@dataclass(frozen=True, slots=True)
class LogRecord:
    """What a witness knows of one log.

    Attributes:
        origin: The log.
        keys: Its trusted keys.
        seen: The latest checkpoint cosigned.
        time_unix_seconds: When that was; 0 for never.
        frozen: Whether nothing is signed for it any more, because this witness's own cosignatures contradict each other.
        evidence_count: How many split views of it were found.
    """

    origin: str
    keys: tuple[NoteKey, ...]
    seen: Seen
    time_unix_seconds: int
    frozen: bool
    evidence_count: int


def origin_digest(origin: str) -> str:
    """Name a log in the paths that monitors read: SHA-256 of the origin, in hexadecimal."""
    return hashlib.sha256(origin.encode("utf-8")).hexdigest()


class WitnessStore:
    """A witness in a directory; a context manager. Made by `create` or `open`; may be used by several threads.

    Args:
        directory: Where it lies.
        connection: Connection to its file.
        key: Its secret key.
        home: Directory of the user's keys, for the marks; None keeps none.

    Attributes:
        directory: Where it lies.
        identity: Name and key.
    """

    def __init__(
        self, directory: Path, connection: sqlite3.Connection, key: SigningKey, home: Path | None
    ) -> None:
        self.directory = directory
        self._connection = connection
        self._path = directory / WITNESS_FILE_NAME
        self._lock = threading.RLock()
        self._home = home
        self._marks: OrderedDict[str, HighWater] = OrderedDict()
        with self._guarded():
            (name,) = connection.execute("SELECT name FROM identity").fetchone()
        self.identity = Identity(name, key)

    # -- opening and closing ---------------------------------------------------------------------------------------

    @classmethod
    def create(cls, directory: Path, name: str, *, home: Path | None = None) -> WitnessStore:
        """Make a witness with a new key.

        Args:
            directory: Where; made when absent.
            name: Name of its key, such as ``witness.example/w1``: not empty, no spaces, no plus signs.
            home: Directory of the user's keys, for the marks.

        Raises:
            UsageError: A witness is there already.
            EncodingError: Not a name of a key.
            StorageError: The directory cannot be written.
        """
        key = SigningKey.generate()
        NoteKey(name, key.public, SignatureType.COSIGNATURE_V1)
        path = directory / WITNESS_FILE_NAME
        if path.exists():
            raise UsageError(f"there is a witness in {directory} already", remedy="Choose another directory.")
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"cannot make {directory}: {error.strerror}") from error
        write_key(directory / WITNESS_KEY_NAME, key)
        connection = _connect(path, "rwc")
        try:
            with _translated(path):
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
                for statement in _SCHEMA:
                    connection.execute(statement)
                connection.execute("INSERT INTO identity VALUES(?)", (name,))
                connection.execute("COMMIT")
            path.chmod(0o600)
            _sync_directory(directory)
            return cls(directory, connection, key, home)
        except BaseException:
            connection.close()
            raise

    @classmethod
    def open(cls, directory: Path, *, home: Path | None = None) -> WitnessStore:
        """Open a witness, and raise records that are behind what was cosigned on this machine.

        Args:
            directory: Where it lies.
            home: Directory of the user's keys, for the marks.

        Raises:
            NotFoundError: There is none.
            KeyFileError: Its key is missing, malformed or open to others.
            FormatVersionError: A newer Lichen made it.
            StorageError: The file is damaged, or cannot be read.
        """
        path = directory / WITNESS_FILE_NAME
        if not path.is_file():
            raise NotFoundError(
                f"there is no witness in {directory}", remedy="Make one with: lichen witness init"
            )
        key = read_key(directory / WITNESS_KEY_NAME)
        connection = _connect(path, "rw")
        try:
            with _translated(path):
                _check_identity(path, connection)
            store = cls(directory, connection, key, home)
            store._raise_to_marks()
        except BaseException:
            connection.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            for mark in self._marks.values():
                mark.close()
            self._marks.clear()
            self._connection.close()

    # -- which logs ------------------------------------------------------------------------------------------------

    def add_log(self, key: NoteKey) -> bool:
        """Trust a key for the log that it is named after.

        Args:
            key: Key of a log, type 0x01; its name is the log's origin.

        Returns:
            False when it was trusted already.

        Raises:
            UsageError: The key is of another type, or it is the witness's own.
        """
        if key.type is not SignatureType.ED25519:
            raise UsageError(
                f"{key.name} is the key of a witness, not of a log",
                remedy="Give the verifier key of a log: `lichen key show --log --vkey` prints it.",
            )
        if key.key == self.identity.key.public:
            raise UsageError("a witness's key may sign nothing but cosignatures; this is its own")
        with self._writing() as connection:
            added = connection.execute(
                "INSERT OR IGNORE INTO log_keys VALUES(?, ?)", (key.name, key.key.raw)
            ).rowcount
            connection.execute(
                "INSERT OR IGNORE INTO records VALUES(?, ?, 0, ?, 0, NULL, 0)",
                (key.name, origin_digest(key.name), Seen().root),
            )
        return added > 0

    def remove_log(self, origin: str) -> None:
        """Trust no key for a log any more; what is on record of it stays, for it must never be forgotten.

        Raises:
            NotFoundError: It was not trusted.
        """
        with self._writing() as connection:
            if connection.execute("DELETE FROM log_keys WHERE origin=?", (origin,)).rowcount == 0:
                raise NotFoundError(f"this witness knows no log {origin}", remedy="See: lichen witness list")

    def logs(self) -> dict[str, tuple[PublicKey, ...]]:
        """Trusted keys by origin, of the logs this witness signs for."""
        found: dict[str, tuple[PublicKey, ...]] = {}
        with self._guarded():
            rows = self._connection.execute(
                "SELECT origin, key FROM log_keys JOIN records USING(origin) WHERE frozen=0 ORDER BY origin, key"
            ).fetchall()
        for origin, raw in rows:
            found[origin] = (*found.get(origin, ()), PublicKey(raw))
        return found

    def records(self) -> list[LogRecord]:
        """Everything on record, by origin; also of logs that are not trusted any more."""
        with self._guarded():
            rows = self._connection.execute(
                "SELECT origin, size, root, time, frozen, (SELECT count(*) FROM evidence e WHERE e.origin=r.origin)"
                " FROM records r ORDER BY origin"
            ).fetchall()
            keys = self._connection.execute(
                "SELECT origin, key FROM log_keys ORDER BY origin, key"
            ).fetchall()
        return [
            LogRecord(
                origin,
                tuple(NoteKey(origin, PublicKey(raw)) for name, raw in keys if name == origin),
                Seen(size, root),
                time,
                bool(frozen),
                evidence_count,
            )
            for origin, size, root, time, frozen, evidence_count in rows
        ]

    # -- the protocol ----------------------------------------------------------------------------------------------

    def add_checkpoint(self, body: bytes, now_unix_seconds: int) -> str | Refusal:
        """Answer a request for a cosignature.

        Args:
            body: The request's body.
            now_unix_seconds: The machine's clock.

        Returns:
            The cosignature's line, whose checkpoint is on the disk; or why there is none.

        Raises:
            StorageError: Disk or database failed; nothing was signed.
            EncodingError: The clock is before 1970.
        """
        checked = check_request(body, self.logs(), self.identity.note_key)
        if isinstance(checked, Refusal):
            return checked
        origin = checked.checkpoint.origin
        with self._writing() as connection:
            size, root, time, note = connection.execute(
                "SELECT size, root, time, note FROM records WHERE origin=?", (origin,)
            ).fetchone()
            decision = decide(checked, Seen(size, root))
            if decision.is_fork:
                _keep_evidence(connection, origin, note, checked.note.to_text())
            line, answer = self._carry_out(connection, checked, decision, max(now_unix_seconds, time))
        if decision.record is not None:
            self._raise_mark(origin, decision.record)
        return line if answer is None else answer

    def _carry_out(
        self, connection: sqlite3.Connection, checked: Checked, decision: Decision, time_unix_seconds: int
    ) -> tuple[str, Refusal | None]:
        """Write what a decision asks for; the caller commits."""
        origin = checked.checkpoint.origin
        if decision.frozen:
            connection.execute("UPDATE records SET frozen=1 WHERE origin=?", (origin,))
        if decision.record is None:
            return "", decision.refusal
        seen = decision.record
        if decision.refusal is not None:
            connection.execute(
                "UPDATE records SET size=?, root=?, note=? WHERE origin=?",
                (seen.size, seen.root, published(checked, self.identity.note_key), origin),
            )
            return "", decision.refusal
        cosignature = cosign(self.identity, checked, time_unix_seconds)
        connection.execute(
            "UPDATE records SET size=?, root=?, time=?, note=? WHERE origin=?",
            (
                seen.size,
                seen.root,
                time_unix_seconds,
                published(checked, self.identity.note_key, cosignature),
                origin,
            ),
        )
        return cosignature.line, None

    def checkpoint(self, digest: str) -> str | None:
        """The latest checkpoint of a log with this witness's cosignature, by the SHA-256 of its origin; None for none."""
        with self._guarded():
            row = self._connection.execute("SELECT note FROM records WHERE digest=?", (digest,)).fetchone()
        return None if row is None else row[0]

    def evidence(self) -> Iterator[tuple[str, SplitView]]:
        """Split views that logs asked this witness to sign, with their origins."""
        with self._guarded():
            rows = self._connection.execute(
                "SELECT origin, found FROM evidence ORDER BY origin, number"
            ).fetchall()
        for origin, found in rows:
            yield origin, SplitView.from_bytes(found)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _raise_to_marks(self) -> None:
        """Take over marks that are beyond the record: this witness signed them, and the record is an old copy."""
        if self._home is None:
            return
        for record in self.records():
            mark = self._mark(record.origin).read()
            if mark is None or mark.size < record.seen.size:
                continue
            if mark.size == record.seen.size:
                if mark.root != record.seen.root:
                    with self._writing() as connection:
                        connection.execute("UPDATE records SET frozen=1 WHERE origin=?", (record.origin,))
                continue
            with self._writing() as connection:
                connection.execute(
                    "UPDATE records SET size=?, root=?, note=NULL WHERE origin=? AND size<?",
                    (mark.size, mark.root, record.origin, mark.size),
                )

    def _raise_mark(self, origin: str, seen: Seen) -> None:
        """Raise the mark; a failure costs only sharpness, the record is on the disk."""
        if self._home is not None and seen.size > 0:
            with self._lock, contextlib.suppress(LichenError):
                self._mark(origin).raise_to(Mark(seen.size, seen.root))

    def _mark(self, origin: str) -> HighWater:
        assert self._home is not None
        with self._lock:
            mark = self._marks.pop(origin, None)
            if mark is None:
                mark = HighWater(self._home, _mark_id(self.identity.note_key, origin))
            self._marks[origin] = mark
            while len(self._marks) > MARKS_OPEN_MAX:
                self._marks.popitem(last=False)[1].close()
            return mark

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        with self._lock, _translated(self._path):
            yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One durable transaction, begun by taking the lock."""
        connection = self._connection
        with self._guarded():
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        connection.execute("ROLLBACK")
                raise


def _keep_evidence(connection: sqlite3.Connection, origin: str, first: str | None, second: str) -> None:
    if first is None:
        return  # the record was raised to a mark, which has no note
    found = SplitView(first, second).to_bytes()
    (count,) = connection.execute("SELECT count(*) FROM evidence WHERE origin=?", (origin,)).fetchone()
    if count < EVIDENCE_COUNT_MAX:
        connection.execute("INSERT OR IGNORE INTO evidence VALUES(?, ?, ?)", (origin, count, found))


def _mark_id(key: NoteKey, origin: str) -> str:
    return hashlib.sha256(f"lichen witness mark\n{key.vkey}\n{origin}".encode()).hexdigest()


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    with _translated(path):
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=BUSY_TIMEOUT_SECONDS,
            check_same_thread=False,
        )
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _check_identity(path: Path, connection: sqlite3.Connection) -> None:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise StorageError(f"{path} is not the file of a witness", remedy="Name the directory of a witness.")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise FormatVersionError(
            f"{path} has witness schema {version}; this Lichen reads up to {SCHEMA_VERSION}",
            remedy="Install a newer Lichen to open it.",
        )


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise StorageError(
            f"the record of the witness, {path}, failed: {error}",
            remedy="Check disk and permissions. If the file is lost or damaged, make a new witness with a new key: an old copy"
            " of the record does not know what was signed since.",
        ) from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
