"""A ledger in a directory: create, open, append, seal, read, prove.

This is the door; behind it `lichen.ledger.appender` writes, `lichen.ledger.reader` reads and proves, and
`lichen.ledger.audit` derives everything again.

Rules upheld here:

* Whoever opens a ledger without the log's key reads; with it, entries can be appended and blocks sealed.
* Nothing is signed before the directory was compared with the high-water mark kept beside the user's keys.
* Several processes may append to one ledger: each append is one transaction, and all see one order.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from lichen.encoding.base import b64u
from lichen.encoding.statement import Statement, Subject
from lichen.errors import KeyFileError, Rejected, StorageError, UsageError
from lichen.ledger.appender import Appender
from lichen.ledger.high_water import HighWater, check_mark
from lichen.ledger.log_file import LogFile
from lichen.ledger.ports import Appended, Contract, View
from lichen.ledger.reader import LedgerReader
from lichen.ledger.state_store import STATE_SCHEMA
from lichen.ledger.storage import LEDGER_FILE_NAME, Database
from lichen.ledger.succession import LOG_KEY_KIND
from lichen.ledger.views import Progress, ViewSet

if TYPE_CHECKING:
    from lichen.crypto.keys import SigningKey
    from lichen.encoding.entry import Entry
    from lichen.ledger.genesis import Genesis
    from lichen.ledger.succession import Succession

__all__ = ["SOLO", "Ledger", "unix_time_ms"]

SOLO: Final = "solo"
"""Name of the way of agreeing in which whoever holds the log key decides alone."""

FILLED_AT_CLOSE_COUNT_MAX: Final = 2_000
"""So many entries are put into views when a writer closes, so that the next question is answered at once; more are left to it."""


def unix_time_ms() -> int:
    """The machine's clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Ledger(LedgerReader):
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
        progress: Progress | None = None,
    ) -> None:
        super().__init__(log, views, progress)
        self.read_only = appender is None
        self._high_water = high_water
        self._appender = appender
        self._now_ms = now_ms
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
            appender = Appender(log, log_key, mark, now_ms)
            with database.write() as connection:
                database.install_schema(STATE_SCHEMA)
                appender.found(genesis_entry)
                view_set.renew(connection, view_set.all)
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
            views: Query tables to keep. Those the file lacks, or has in another version, are rebuilt: in the file when
                this object can append, beside it otherwise.
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
            mark = None if home is None else HighWater(home, log.id)
            seen = (
                None if mark is None or reading else mark.read()
            )  # before the picture below: others may append
            with database.read():
                log.refresh()
                log.check_edge()
                if seen is not None:
                    check_mark(seen, log.size, log.tree().root_at, where=database.path)
                _check_log_key(log, log_key)
            view_set = ViewSet(views)
            appender = None if reading or log_key is None else Appender(log, log_key, mark, now_ms)
            ledger = cls(log, view_set, appender, mark, now_ms, progress)
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
                with contextlib.suppress(
                    StorageError
                ):  # whoever asks next fills them, and is told what is wrong
                    self._queries.fill(count_max=FILLED_AT_CLOSE_COUNT_MAX)
        finally:
            self._queries.close()
            if self._high_water is not None:
                self._high_water.close()
            self._log.database.close()

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

        Returns:
            The record, in the form in which it will be read.

        Raises:
            EncodingError: It says what JSON cannot hold.
        """
        common = {
            "ledger": self._log.id_text,
            "member": member,
            "nonce": b64u(os.urandom(12)),
            "time_unix_ms": max(0, self._now_ms()),
        }
        return Statement(kind, tuple(subjects), {**predicate, **common}).as_read()

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

    def append_all_signed(
        self, statements: Sequence[Statement], key: SigningKey, *, seal: bool = False
    ) -> list[Appended | Rejected]:
        """Sign records and append them in one durable transaction; for who has many of their own to record at once.

        Args:
            statements: The records, in the order they shall have.
            key: The member's key.
            seal: Close the block behind the last of them.

        Returns:
            For each record its index, or the `Rejected` that says why it has none; the others are appended all the same.

        Raises:
            EncodingError: A record holds what JSON cannot say; nothing was appended.
            UsageError: The ledger is open for reading only.
            StorageError: Disk or database failed; nothing was appended.
        """
        return self._writer.append_all_signed(statements, key, seal=seal)

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

    def succeed_log_key(
        self, succession: Succession, member: str, author: SigningKey, log_key: SigningKey
    ) -> Appended:
        """Give the log a new key, by a record that the new key seals.

        Args:
            succession: Consent, acceptance and approvals.
            member: Member id of the admin who says it.
            author: The admin's key.
            log_key: The new key. It must be on the disk before this is called: nothing can be sealed without it after.

        Returns:
            Its index.

        Raises:
            Rejected: A rule said no; nothing changed.
            UsageError: The ledger is open for reading only.
            StorageError: Disk or database failed; nothing changed.
        """
        statement = self.statement(LOG_KEY_KIND, [succession.subject], succession.predicate(), member=member)
        return _accepted(self._writer.succeed(statement, author, log_key))

    # -- views -----------------------------------------------------------------------------------------------------

    def rebuild_views(self, *, every: bool = False, progress: Progress | None = None) -> list[str]:
        """Rebuild views from the entries.

        Args:
            every: All of them; otherwise those that the file lacks or has in another version.
            progress: Told now and then how far it is.

        Returns:
            Names of the views that were rebuilt.

        Raises:
            UsageError: The ledger is open for reading only.
        """
        if self.read_only:
            raise UsageError(
                f"{self.path} is open for reading only",
                remedy="open it with the log key to rebuild its views",
            )
        return self._queries.renew(every=every, progress=progress)

    @property
    def takes_records(self) -> bool:
        """Whether records can be appended through this object."""
        return not self.read_only

    @property
    def high_water_problem(self) -> StorageError | None:
        """Why the high-water mark could last not be raised, or None."""
        return None if self._appender is None else self._appender.high_water_problem

    # -- inside ----------------------------------------------------------------------------------------------------

    def _seal_before_proving(self, index: int | None) -> None:
        if self._appender is not None:
            sealed_size, size = self.sealed_size, self.size
            if sealed_size < size and (index is None or sealed_size <= index < size):
                self._appender.seal(force=True)

    @property
    def _writer(self) -> Appender:
        if self._appender is None:
            raise UsageError(
                f"{self.path} is open for reading only",
                remedy="to append or seal takes the log key, and a file and directory that you may write to",
            )
        if self._is_closed:
            raise UsageError(f"the ledger {self.path} is closed", remedy="open it again before using it")
        if (consensus := self.genesis.sealing.consensus) != SOLO:
            raise UsageError(
                f"the order of this ledger is agreed by {consensus!r}; one writer alone may not append to it",
                remedy=f"submit to the members that run {consensus!r}",
            )
        return self._appender


def _check_log_key(log: LogFile, log_key: SigningKey | None) -> None:
    if log_key is None:
        return
    keys = log.log_keys()
    if log_key.public in [key for _, key in keys[:-1]]:
        raise KeyFileError(
            f"the log key given is an old one of ledger {log.id}: another took its place at entry {keys[-1][0] - 1}",
            remedy="use the key that took its place; `lichen key succeed` puts it beside the ledger",
        )
    if log_key.public != keys[-1][1]:
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
