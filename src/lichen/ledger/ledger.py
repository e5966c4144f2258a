"""A ledger in a directory: create, open, append, seal, read, prove.

This is the door; behind it `lichen.ledger.appender` writes, `lichen.ledger.log_file` reads, `lichen.ledger.answers` proves and
`lichen.ledger.audit` re-derives everything.

Rules upheld here:

* Whoever opens a ledger without the log's key reads; with it, entries can be appended and blocks sealed.
* Nothing is signed before the directory was compared with the high-water mark kept beside the user's keys.
* Several processes may append to one ledger: each append is one transaction, and all see one order.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import KeyFileError, Rejected, StorageError, UsageError
from lichen.ledger.answers import Answers
from lichen.ledger.appender import Appender
from lichen.ledger.high_water import HighWater
from lichen.ledger.log_file import LogFile
from lichen.ledger.ports import Appended, Contract, Record, StateReader, View
from lichen.ledger.state_store import STATE_SCHEMA
from lichen.ledger.storage import LEDGER_FILE_NAME, Database
from lichen.ledger.views import Progress, ViewSet

if TYPE_CHECKING:
    from lichen.crypto.keys import SigningKey
    from lichen.ledger.genesis import Genesis
    from lichen.ledger.receipt import Receipt
    from lichen.ledger.seal import Seal

__all__ = ["SOLO", "Ledger", "unix_time_ms"]

SOLO: Final = "solo"
"""Name of the way of agreeing in which whoever holds the log key decides alone."""


def unix_time_ms() -> int:
    """The machine's clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Ledger:
    """An open ledger; a context manager. Made by `create` or `open`.

    One object may be used by several threads; it does not cross a fork.

    Attributes:
        directory: Where it lies.
        read_only: True when nothing can be appended through this object.
    """

    def __init__(
        self,
        log: LogFile,
        views: ViewSet,
        appender: Appender | None,
        high_water: HighWater | None,
        now_ms: Callable[[], int],
    ) -> None:
        self.directory = log.database.path.parent
        self.read_only = appender is None
        self._log = log
        self._views = views
        self._high_water = high_water
        self._answers = Answers(log)
        self._appender = appender
        self._now_ms = now_ms
        self._reader: sqlite3.Connection | None = None
        self._is_closed = False

    # -- opening and closing ---------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        directory: Path,
        genesis: Genesis,
        log_key: SigningKey,
        contracts: Sequence[Contract],
        views: Sequence[View] = (),
        *,
        home: Path | None = None,
        now_ms: Callable[[], int] = unix_time_ms,
    ) -> Ledger:
        """Make a ledger: entry 0 is its genesis, entry 1 the seal over it.

        Args:
            directory: Where; made when absent. All of the ledger appears there at once, or none of it.
            genesis: What entry 0 says.
            log_key: Secret half of the key the genesis names.
            contracts: Contracts this program has; those the genesis names must be among them.
            views: Query tables to keep.
            home: Directory of the user's keys, for the high-water mark; None keeps none.
            now_ms: Clock, in milliseconds since 1970.

        Returns:
            The ledger, open for writing.

        Raises:
            UsageError: The directory holds a ledger already.
            FormatVersionError: The genesis names a contract that is not there.
            StorageError: The directory cannot be written.
        """
        genesis_entry = genesis.to_entry(log_key)
        path = Path(directory) / LEDGER_FILE_NAME
        with _as_storage_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        database = Database.create(path)
        try:
            log = LogFile(database, contracts, genesis_entry)
            view_set = ViewSet(views)
            mark = None if home is None else HighWater(home, log.id)
            appender = Appender(log, log_key, view_set, mark, now_ms)
            with database.write() as connection:
                database.install_schema(STATE_SCHEMA)
                appender.found(genesis_entry)
                view_set.rebuild(connection, view_set.stale(connection), log.records(), total_count=log.size)
            log.committed()
            with _as_storage_error(path):
                _sync_directory(path.parent)
        except BaseException:
            database.close()
            raise
        appender.raise_mark()
        return cls(log, view_set, appender, mark, now_ms)

    @classmethod
    def open(
        cls,
        directory: Path,
        contracts: Sequence[Contract],
        views: Sequence[View] = (),
        log_key: SigningKey | None = None,
        *,
        read_only: bool = False,
        home: Path | None = None,
        now_ms: Callable[[], int] = unix_time_ms,
        progress: Progress | None = None,
    ) -> Ledger:
        """Open a ledger.

        Args:
            directory: Directory that holds ``ledger.sqlite``.
            contracts: Contracts this program has; those the genesis names must be among them.
            views: Query tables to keep. Those the file lacks, or has in another version, are rebuilt: in the file when it
                can be written, in memory otherwise.
            log_key: The log's key; without it nothing can be appended.
            read_only: Append nothing, even with the key.
            home: Directory of the user's keys, for the high-water mark; None skips it.
            now_ms: Clock, in milliseconds since 1970.
            progress: Told while views are rebuilt.

        Returns:
            The ledger.

        Raises:
            NotALedgerError: There is none.
            CorruptLedgerError: It is damaged at its beginning or its end. `audit` looks in between.
            FormatVersionError: A newer Lichen made it.
            KeyFileError: The key is not this log's.
            RollbackError: It is older than, or differs from, what was signed for on this machine.
            StorageError: The operating system refused.
        """
        reading = read_only or log_key is None
        database = Database.open(Path(directory) / LEDGER_FILE_NAME, read_only=reading, more=STATE_SCHEMA)
        try:
            with database.read():
                log = LogFile(database, contracts)
                _check_log_key(log, log_key)
                log.refresh()
                log.check_edge()
                mark = None if home is None else HighWater(home, log.id)
                if mark is not None and not reading:
                    mark.check(log.size, log.tree().root_at)
            view_set = ViewSet(views)
            appender = None if reading or log_key is None else Appender(log, log_key, view_set, mark, now_ms)
            ledger = cls(log, view_set, appender, mark, now_ms)
            if not reading:
                with database.read() as connection:
                    is_stale = bool(view_set.stale(connection))
                if is_stale:
                    ledger.rebuild_views(progress=progress)
        except BaseException:
            database.close()
            raise
        return ledger

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Seal what is pending and let go of the file. Closing twice does nothing.

        Raises:
            StorageError: The last seal could not be written; the entries it would have covered are safe.
        """
        if self._is_closed:
            return
        self._is_closed = True
        try:
            if self._appender is not None:
                self._appender.seal(force=True)
        finally:
            if self._reader is not None:
                self._reader.close()
            if self._high_water is not None:
                self._high_water.close()
            self._log.database.close()

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Ledger id: leaf hash of entry 0, 64 hexadecimal digits."""
        return self._log.id

    @property
    def origin(self) -> str:
        """First line of its checkpoints, ``lichen/<id>``."""
        return self._log.origin

    @property
    def genesis(self) -> Genesis:
        """What entry 0 says."""
        return self._log.genesis

    @property
    def path(self) -> Path:
        """The file."""
        return self._log.database.path

    @property
    def size(self) -> int:
        """Count of entries, seals included."""
        with self._reading():
            return self._log.size

    @property
    def sealed_size(self) -> int:
        """Tree size of the newest checkpoint."""
        with self._reading():
            return self._log.mark().size

    @property
    def last_seal(self) -> Seal:
        """The newest seal."""
        with self._reading():
            seal = self._log.last_seal
        if seal is None:
            raise UsageError(f"{self.path} has no seal yet")
        return seal

    @property
    def connection(self) -> sqlite3.Connection:
        """A connection for queries over views; it can read only, and sees what was committed.

        Raises:
            StorageError: It cannot be opened.
        """
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    @property
    def high_water_problem(self) -> StorageError | None:
        """Why the high-water mark could last not be raised, or None."""
        return None if self._appender is None else self._appender.high_water_problem

    # -- appending -------------------------------------------------------------------------------------------------

    def statement(
        self, kind: str, subjects: Sequence[Subject], predicate: Mapping[str, Any], *, member: str
    ) -> Statement:
        """Build a record for this ledger: ledger id, member, a fresh nonce and the time are added.

        Args:
            kind: Kind of record.
            subjects: What it is about; at least one.
            predicate: What it says.
            member: Who says it.
        """
        common = {
            "ledger": self._log.id_text,
            "member": member,
            "nonce": b64u(os.urandom(12)),
            "time_unix_ms": max(0, self._now_ms()),
        }
        return Statement(kind, tuple(subjects), {**predicate, **common})

    def append(self, entry: Entry, *, seal: bool = False) -> Appended:
        """Append one entry durably.

        Args:
            entry: Signed by a member.
            seal: Close the block behind it in the same transaction, so that a receipt can be given at once.

        Returns:
            Its index.

        Raises:
            Rejected: A rule said no; the entry has no index.
            UsageError: The ledger is open for reading only.
            StorageError: Disk or database failed; nothing was appended.
        """
        return _accepted(self._writer.append([entry], seal=seal)[0])

    def append_signed(self, statement: Statement, key: SigningKey, *, seal: bool = False) -> Appended:
        """Sign a record and append it durably; a signature made right here is not verified once more.

        Args:
            statement: The record.
            key: The member's key.
            seal: Close the block behind it in the same transaction.

        Returns:
            Its index.

        Raises:
            Rejected: A rule said no; the entry has no index.
            UsageError: The ledger is open for reading only.
            StorageError: Disk or database failed; nothing was appended.
        """
        return _accepted(self._writer.append_signed(statement, key, seal=seal))

    def append_many(self, entries: Sequence[Entry], *, seal: bool = False) -> list[Appended | Rejected]:
        """Append entries in one durable transaction.

        Args:
            entries: In the order they shall have.
            seal: Close the block behind the last of them.

        Returns:
            For each entry its index, or the `Rejected` that says why it has none; the others are appended all the same.

        Raises:
            UsageError: The ledger is open for reading only.
            StorageError: Disk or database failed; nothing was appended.
        """
        return self._writer.append(entries, seal=seal)

    def seal(self, *, force: bool = False) -> int | None:
        """Close the block when the genesis' policy says so, or anyway.

        Args:
            force: Do not ask the policy. An empty block is never sealed.

        Returns:
            Index of the new seal, or None.

        Raises:
            UsageError: The ledger is open for reading only.
            StorageError: Disk or database failed.
        """
        return self._writer.seal(force=force)

    # -- reading ---------------------------------------------------------------------------------------------------

    def entry(self, index: int) -> Entry:
        """The entry at an index.

        Raises:
            NotFoundError: There is none.
            CorruptLedgerError: Its bytes changed after they were appended.
        """
        with self._reading():
            return self._log.entry_of(self._log.entry_bytes(index), index)

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Entry]]:
        """Pairs of index and entry, in order, seals included.

        Args:
            start: First index.
            stop: One past the last; None for all there are now.
        """
        end = self.size if stop is None else min(stop, self.size)
        with self._log.database.guard:
            for index, data in self._log.tables.entry_range(start, end):
                yield index, self._log.entry_of(data, index)

    def record(self, index: int) -> Record | None:
        """The parsed record at an index; None for a seal.

        Raises:
            NotFoundError: There is no such entry.
            CorruptLedgerError: Its bytes changed after they were appended.
        """
        with self._reading():
            return self._log.parse(self._log.entry_bytes(index), index)

    def find_payload(self, digest: bytes) -> int | None:
        """Index of the entry whose payload has this SHA-256, or None."""
        with self._reading():
            return self._log.find_payload(digest)

    @property
    def state(self) -> StateReader:
        """The state after all entries, also those no seal covers yet, as contracts see it."""
        with self._reading():
            return self._log

    def state_get(self, contract: str, key: bytes) -> bytes | None:
        """Value of a key of the state after all entries, or None."""
        with self._reading():
            return self._log.get(contract, key)

    # -- proving ---------------------------------------------------------------------------------------------------

    def checkpoint(self) -> str:
        """The newest checkpoint: a signed note."""
        with self._reading():
            return self._answers.checkpoint()

    def receipt(self, index: int) -> Receipt:
        """Proof, for anyone and offline, that an entry stands at an index.

        Seals first when the entry is not sealed yet and this ledger can be written.

        Raises:
            NotFoundError: There is no such entry.
            UsageError: The entry is not sealed yet, and this ledger is open for reading only.
            CorruptLedgerError: The ledger is damaged on the way.
        """
        if self._appender is not None and self.sealed_size <= index < self.size:
            self._appender.seal(force=True)
        with self._reading():
            return self._answers.receipt(index)

    def state_receipt(self, contract: str, key: bytes) -> Receipt:
        """Proof, for anyone and offline, of what the newest sealed state says about a key: its value, or its absence.

        Seals first when entries are pending and this ledger can be written.

        Args:
            contract: Whose key.
            key: What the contract calls it.

        Raises:
            CorruptLedgerError: The ledger is damaged on the way.
        """
        if self._appender is not None and self.sealed_size < self.size:
            self._appender.seal(force=True)
        with self._reading():
            return self._answers.state_receipt(contract, key)

    def prove_inclusion(self, index: int, tree_size: int | None = None) -> list[bytes]:
        """Sibling hashes from an entry up to a root.

        Args:
            index: Which entry.
            tree_size: Under which tree; None for the newest checkpoint's.

        Raises:
            UsageError: The tree does not contain the entry, or the log is not that long.
        """
        with self._reading():
            return self._answers.inclusion(index, tree_size)

    def prove_consistency(self, size_first: int, size_second: int | None = None) -> list[bytes]:
        """Hashes that show that the tree of one size is the beginning of that of another.

        Args:
            size_first: The earlier size.
            size_second: The later; None for the newest checkpoint's.

        Raises:
            UsageError: The log never had these sizes in this order.
        """
        with self._reading():
            return self._answers.consistency(size_first, size_second)

    def root_at(self, tree_size: int) -> bytes:
        """Root of the tree over the first ``tree_size`` entries, 32 bytes."""
        with self._reading():
            if not 0 <= tree_size <= self._log.size:
                raise UsageError(f"this log has {self._log.size} entries, it never had {tree_size}")
            return self._log.tree().root_at(tree_size)

    # -- views -----------------------------------------------------------------------------------------------------

    def rebuild_views(self, *, every: bool = False, progress: Progress | None = None) -> list[str]:
        """Rebuild views from the entries, in one transaction.

        Args:
            every: All of them; otherwise those that the file lacks or has in another version.
            progress: Told now and then how far it is.

        Returns:
            Names of the views that were rebuilt.

        Raises:
            UsageError: The ledger is open for reading only.
        """
        log = self._log
        with log.database.write() as connection:
            log.refresh()
            views = self._views.all if every else self._views.stale(connection)
            self._views.rebuild(connection, views, log.records(), total_count=log.size, progress=progress)
        return [view.name for view in views]

    def _open_reader(self) -> sqlite3.Connection:
        log = self._log
        with self._reading() as connection:
            stale = self._views.stale(connection)
            if not stale:
                return log.database.reader()
            reader = log.database.reader(beside_memory=True)
            self._views.build_in_memory(reader, stale, log.records(), total_count=log.size)
        return reader

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def _writer(self) -> Appender:
        if self._appender is None:
            raise UsageError(
                f"{self.path} is open for reading only", remedy="open it with the log key to append or seal"
            )
        if self._is_closed:
            raise UsageError(f"the ledger {self.path} is closed", remedy="open it again before using it")
        if (consensus := self.genesis.sealing.consensus) != SOLO:
            raise UsageError(
                f"the order of this ledger is agreed by {consensus!r}; one writer alone may not append to it",
                remedy=f"submit to the members that run {consensus!r}",
            )
        return self._appender

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._log.database.read() as connection:
            self._log.refresh()
            yield connection


def _check_log_key(log: LogFile, log_key: SigningKey | None) -> None:
    if log_key is not None and log_key.public != log.genesis.log_key:
        raise KeyFileError(
            f"the log key given is not the one of ledger {log.id}",
            remedy="use the log.key that was made with this ledger",
        )


def _accepted(result: Appended | Rejected) -> Appended:
    if isinstance(result, Rejected):
        raise result
    return result


@contextlib.contextmanager
def _as_storage_error(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write {path.parent}: {error.strerror}",
            remedy="choose another directory or mend its permissions",
        ) from error


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
