"""A copy of a ledger that is written elsewhere: each entry is derived anew before it is taken.

What comes in may come from anybody. An entry is taken when its author's key, its signature and its contract's rules hold at
that index; a seal, when the log signed it, when it follows the one before, and when roots of log and state are those that
the entries here lead to. So the copy answers questions, gives receipts and proofs, and passes an audit as the
ledger itself does, and whoever delivered it had nothing to be believed for.

Rules upheld here:

* A copy always ends with a seal, and grows by whole blocks: all of a delivery is taken in one transaction, or none.
* Nothing is appended to a copy; it has no log key.

Source: RFC 9162 section 8.3 (monitors). Differs: state and contracts are replayed too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lichen.crypto.hashes import sha256
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError, Rejected, UsageError, VerificationError
from lichen.ledger.genesis import GENESIS_KIND, Genesis
from lichen.ledger.ledger import Ledger, unix_time_ms
from lichen.ledger.log_file import LogFile
from lichen.ledger.ports import LOG_MEMBER, Record
from lichen.ledger.rulebook import OWN_KINDS
from lichen.ledger.seal import SEAL_KIND, Seal, check_succession
from lichen.ledger.signatures import SignatureChecks
from lichen.ledger.state_store import STATE_SCHEMA
from lichen.ledger.storage import LEDGER_FILE_NAME, Database
from lichen.ledger.views import ViewSet

if TYPE_CHECKING:
    from lichen.crypto.keys import PublicKey
    from lichen.ledger.ports import Contract, View

__all__ = ["Replica", "is_seal"]


def is_seal(data: bytes) -> bool:
    """Say whether a compact entry says that it is a seal; nothing else about it is looked at.

    Raises:
        EncodingError: Not an entry, or not a record in it.
    """
    return Statement.from_bytes(Entry.from_bytes(data).payload).kind == SEAL_KIND


class Replica(Ledger):
    """A ledger copied from elsewhere; grows by `extend`, and reads as any other."""

    def __init__(self, log: LogFile, views: ViewSet, now_ms: Callable[[], int] = unix_time_ms) -> None:
        super().__init__(log, views, None, None, now_ms)

    @classmethod
    def found(
        cls,
        directory: Path,
        entries: Sequence[bytes],
        signatures: Mapping[int, bytes],
        contracts: Sequence[Contract],
        views: Sequence[View] = (),
    ) -> Self:
        """Begin a copy.

        Args:
            directory: Where; made when absent. The copy appears there at once, or not at all.
            entries: The first entries in their compact form, the genesis first and a seal last.
            signatures: For the index of each seal, the log's signature of the checkpoint behind it, 64 bytes.
            contracts: Contracts this program has; those the genesis names must be among them.
            views: Query tables to keep.

        Returns:
            The copy.

        Raises:
            UsageError: The directory holds a ledger already.
            EncodingError: The first entry is no genesis.
            VerificationError: An entry does not hold; the message names it.
            FormatVersionError: The genesis names a contract that is not there.
            StorageError: The directory cannot be written.
        """
        if not entries:
            raise EncodingError("a ledger begins with its genesis; nothing was delivered")
        genesis = Entry.from_bytes(entries[0])
        Genesis.from_entry(genesis)
        path = Path(directory) / LEDGER_FILE_NAME
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = Database.create(path)
        try:
            log = LogFile(database, contracts, genesis)
            view_set = ViewSet(views)
            with database.write() as connection, SignatureChecks() as checks:
                database.install_schema(STATE_SCHEMA)
                _found(log, genesis)
                view_set.renew(connection, view_set.all)
                _Taker(log, checks, signatures).take_all(entries[1:])
            log.committed()
        except BaseException:
            database.close()
            raise
        return cls(log, view_set)

    @classmethod
    def open_copy(cls, directory: Path, contracts: Sequence[Contract], views: Sequence[View] = ()) -> Self:
        """Open a copy.

        Args:
            directory: Directory that holds ``ledger.sqlite``.
            contracts: Contracts this program has.
            views: Query tables to keep; those the file lacks, or has in another version, are rebuilt.

        Raises:
            NotALedgerError: There is none.
            CorruptLedgerError: It is damaged at its beginning or its end.
            FormatVersionError: A newer Lichen made it.
            StorageError: The operating system refused.
        """
        database = Database.open(Path(directory) / LEDGER_FILE_NAME, read_only=False, more=STATE_SCHEMA)
        try:
            with database.read():
                log = LogFile(database, contracts)
                log.refresh()
                log.check_edge()
            copy = cls(log, ViewSet(views))
            with database.read() as connection:
                is_stale = bool(copy._views.stale(connection))
            if is_stale:
                copy._queries.renew(every=False, progress=None)
        except BaseException:
            database.close()
            raise
        return copy

    def extend(
        self,
        start: int,
        entries: Sequence[bytes],
        signatures: Mapping[int, bytes],
        *,
        root: bytes | None = None,
    ) -> int:
        """Take further entries, all in one durable transaction.

        Args:
            start: Index of the first of them; what this copy has already is passed over.
            entries: In their compact form, in order, a seal last.
            signatures: For the index of each seal, the log's signature of the checkpoint behind it, 64 bytes.
            root: Root that the log must have behind the last of them, 32 bytes; None when only the seals vouch for it.

        Returns:
            How many were new.

        Raises:
            UsageError: There is a gap between this copy and them.
            VerificationError: An entry does not hold; the message names it, and nothing was taken.
            StorageError: Disk or database failed; nothing was taken.
        """
        log = self._log
        with log.database.lock:
            try:
                with log.database.write(), SignatureChecks() as checks:
                    log.refresh()
                    log.catch_up()
                    log.tree()
                    new = _following(entries, start, log.size)
                    if new:
                        _Taker(log, checks, signatures).take_all(new)
                    if root is not None and log.size == start + len(entries):
                        _check_equal(f"the root that was signed at size {log.size}", log.tree().root(), root)
            except BaseException:
                log.undone()
                raise
            log.committed()
        return len(new)


def _following(entries: Sequence[bytes], start: int, size: int) -> Sequence[bytes]:
    """Return those of the delivered entries that a copy of some size lacks.

    Raises:
        UsageError: There is a gap.
    """
    if start > size:
        raise UsageError(f"this copy has {size} entries, the next cannot be {start}")
    return entries[size - start :]


def _found(log: LogFile, genesis: Entry) -> None:
    """Take entry 0, whose signature the caller has checked."""
    log.size = 0
    log.tree()
    statement = Statement.from_bytes(genesis.payload)
    digest = sha256(genesis.payload)
    record = Record(0, genesis, statement, GENESIS_KIND, LOG_MEMBER, digest, log.genesis.log_key)
    writes = log.rules.found(record, log)
    log.add_entry(genesis.to_bytes(), digest)
    log.add_writes(writes)
    log.tree()


class _Taker:
    """Judges entries and writes them down, inside one transaction.

    Args:
        log: The copy.
        checks: Verifies signatures side by side; settled before the transaction ends.
        signatures: Log's signature by index of a seal.
    """

    def __init__(
        self,
        log: LogFile,
        checks: SignatureChecks,
        signatures: Mapping[int, bytes],
    ) -> None:
        self._log = log
        self._checks = checks
        self._signatures = signatures

    def take_all(self, entries: Sequence[bytes]) -> None:
        """Take entries that follow those that are there.

        Raises:
            VerificationError: One does not hold, or the last is no seal.
        """
        log = self._log
        for data in entries:
            index = log.size
            try:
                self._take(index, data)
            except (EncodingError, Rejected) as error:
                raise VerificationError(
                    f"entry {index} is not one this ledger can have: {error.message}"
                ) from error
        if failures := self._checks.failures():
            index = min(failures)
            raise VerificationError(f"entry {index}: {failures[index].message}")
        last = log.last_checkpoint
        if last is None or last.index != log.size - 1:
            raise VerificationError(f"entry {log.size - 1} is no seal, and a copy ends with one")
        log.tree()

    def _take(self, index: int, data: bytes) -> None:
        entry = Entry.from_bytes(data)
        statement = Statement.from_bytes(entry.payload)
        if statement.kind == SEAL_KIND:
            self._take_seal(index, entry, Seal.from_statement(statement))
        else:
            self._take_record(index, entry, statement)

    def _take_record(self, index: int, entry: Entry, statement: Statement) -> None:
        log, digest = self._log, sha256(entry.payload)
        if statement.kind in OWN_KINDS or statement.kind not in log.rules.kinds:
            raise Rejected("ledger.unknown-kind", f"no contract rules {statement.kind!r} records")
        if statement.predicate.get("ledger") != log.id_text:
            raise Rejected("ledger.wrong-ledger", "it was signed for another ledger")
        member = statement.predicate.get("member")
        if not isinstance(member, str):
            raise Rejected("ledger.malformed", "it names no member")
        earlier = log.find_payload(digest)
        if earlier is not None:
            raise Rejected("ledger.duplicate", f"it repeats entry {earlier}")
        key = log.rules.authority.resolve(entry.key_id, member, index, log)
        self._checks.add(index, entry, key)
        record = Record(index, entry, statement, statement.kind, member, digest, key)
        writes = log.rules.judge(record, log)
        log.add_entry(entry.to_bytes(), digest)
        log.add_writes(writes)

    def _take_seal(self, index: int, entry: Entry, seal: Seal) -> None:
        log = self._log
        log_key = log.rules.log_key_at(index, log)
        if (
            seal.tree_size != index
            or seal.sealer != LOG_MEMBER
            or seal.consensus != log.genesis.sealing.consensus
            or entry.key_id != log_key.key_id
        ):
            raise VerificationError(f"the seal at entry {index} is not one this ledger's log makes there")
        check_succession(seal, log.last_seal)
        self._checks.add(index, entry, log_key)
        _check_equal(f"the root in the seal at entry {index}", log.tree().root(), seal.root)
        state_root = log.state_root_sealed_at(index)
        _check_equal(f"the state root in the seal at entry {index}", state_root, seal.state_root)
        log.add_seal(entry.to_bytes(), lambda body: self._signature(index, body, log_key))
        log.last_seal = seal

    def _signature(self, index: int, body: bytes, log_key: PublicKey) -> bytes:
        """The log's signature of the checkpoint behind a seal, verified."""
        signature = self._signatures.get(index)
        if signature is None:
            raise VerificationError(f"the log's signature of the checkpoint behind entry {index} is missing")
        try:
            log_key.verify(body, signature)
        except VerificationError as error:
            raise VerificationError(
                f"the checkpoint behind entry {index} is not signed by the log",
                expected=error.expected,
                calculated=error.calculated,
            ) from error
        return signature


def _check_equal(what: str, derived: bytes, said: bytes) -> None:
    if derived != said:
        raise VerificationError(
            f"{what} is not that of the entries before it", expected=derived, calculated=said
        )
