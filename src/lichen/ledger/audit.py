"""Believe nothing: derive a whole ledger again from its entries and compare.

For every entry, in order: bytes against the stored leaf hash, form, uniqueness, the author's key at that index, signature,
the contract's rules. For every seal: succession, roots of log and state, the log's signature on seal and checkpoint. At the
end: every stored hash tile, the stored state down to each key.

The state is replayed into a database of its own that shares nothing with the audited file, so memory stays bounded and a
state that was tampered with cannot vouch for itself. What the audit shows is that the ledger is what its entries make of
it; that its authors told the truth it cannot show.

Source: RFC 9162 section 8.3 (monitors) for what an auditor recomputes. Differs: state and contracts are replayed too.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lichen.crypto.hashes import sha256
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import (
    CorruptLedgerError,
    EncodingError,
    FormatVersionError,
    LichenError,
    Rejected,
    StorageError,
    UsageError,
    VerificationError,
)
from lichen.ledger.genesis import GENESIS_KIND
from lichen.ledger.log_file import LogFile
from lichen.ledger.ports import LOG_MEMBER, Record
from lichen.ledger.rulebook import OWN_KINDS
from lichen.ledger.seal import SEAL_KIND, Seal, check_succession
from lichen.ledger.signatures import SignatureChecks
from lichen.ledger.state_map import state_key
from lichen.ledger.state_store import STATE_SCHEMA, StateStore
from lichen.ledger.storage import LEDGER_FILE_NAME, Database
from lichen.ledger.tree import TILE_WIDTH, Frontier, leaf_hash

if TYPE_CHECKING:
    from lichen.ledger.ports import Contract
    from lichen.ledger.views import Progress

__all__ = ["AuditReport", "Problem", "audit"]

PROGRESS_EVERY_COUNT: Final = 500


@dataclass(frozen=True, slots=True)
class Problem:
    """The first thing that does not hold.

    Attributes:
        index: Entry at which it shows; None when it is about the file as a whole.
        code: Stable code of the error, or name of the rule.
        message: What does not hold.
    """

    index: int | None
    code: str
    message: str


@dataclass(slots=True)
class AuditReport:
    """What an audit looked at, and the first thing that does not hold.

    Attributes:
        path: The ledger file.
        ledger_id: 64 hexadecimal digits; None when not even the genesis could be read.
        size: Entries checked, seals included.
        sealed_size: Tree size of the newest checkpoint that was checked.
        root: Root at that size, hexadecimal; None before the first.
        kinds: Count of entries by kind.
        key_count: Keys in the derived state.
        discredited: Entries whose key was later declared compromised from their index or an earlier one on. They stand in
            the log, but are no longer believed.
        is_read: True when all entries were read, so that a problem lies in what is stored beside them.
        problem: The first thing that does not hold, or None.
    """

    path: Path
    ledger_id: str | None = None
    size: int = 0
    sealed_size: int = 0
    root: str | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    key_count: int = 0
    discredited: list[int] = field(default_factory=list)
    is_read: bool = False
    problem: Problem | None = None

    @property
    def is_sound(self) -> bool:
        """True when everything held."""
        return self.problem is None

    def to_json(self) -> dict[str, Any]:
        """The report as a table for JSON."""
        return {
            "path": str(self.path),
            "ledger_id": self.ledger_id,
            "is_sound": self.is_sound,
            "size": self.size,
            "sealed_size": self.sealed_size,
            "root": self.root,
            "kinds": dict(sorted(self.kinds.items())),
            "key_count": self.key_count,
            "discredited": list(self.discredited),
            "problem": None
            if self.problem is None
            else {"index": self.problem.index, "code": self.problem.code, "message": self.problem.message},
        }


def audit(directory: Path, contracts: Sequence[Contract], *, progress: Progress | None = None) -> AuditReport:
    """Check everything that can be checked without trusting anybody.

    Args:
        directory: Directory that holds ``ledger.sqlite``.
        contracts: Contracts this program has.
        progress: Told now and then how many entries are done, and how many there are.

    Returns:
        The report; damage of any kind is in it and not raised.

    Raises:
        NotALedgerError: There is no ledger.
        FormatVersionError: A newer Lichen made it.
        StorageError: The operating system refused.
    """
    report = AuditReport(Path(directory) / LEDGER_FILE_NAME)
    try:
        database = Database.open(report.path, read_only=True, more=STATE_SCHEMA)
    except CorruptLedgerError as error:
        report.problem = Problem(None, error.code, error.message)
        return report
    with (
        contextlib.closing(database),
        contextlib.closing(sqlite3.connect("", isolation_level=None)) as scratch,
    ):
        try:
            with database.read():
                _Audit(LogFile(database, contracts), scratch, report, progress).run()
        except (StorageError, FormatVersionError, UsageError):
            raise
        except Rejected as error:
            report.problem = Problem(report.size, error.rule, error.message)
        except LichenError as error:
            report.problem = Problem(None if report.is_read else report.size, error.code, error.message)
    return report


class _Audit:
    """One pass over a ledger; the `StateReader` that the contracts see while it replays.

    Args:
        log: The ledger.
        scratch: An empty database for the replayed state.
        report: Filled along the way.
        progress: Told about it.
    """

    def __init__(
        self, log: LogFile, scratch: sqlite3.Connection, report: AuditReport, progress: Progress | None
    ) -> None:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-65536"):
            scratch.execute(f"PRAGMA {pragma}")
        StateStore.create_tables(scratch)
        self._log = log
        self._state = StateStore(scratch)
        self._unsealed: dict[bytes, bytes | None] = {}
        self._frontier = Frontier()
        self._seal: Seal | None = None
        self._report = report
        self._progress = progress
        self._signers: dict[bytes, list[int]] = {}
        self._indexed_count = 0  # records in full hash tiles, whose payload digests are on file
        self._checks = SignatureChecks()
        report.ledger_id = log.id

    # -- what contracts see ----------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Entries replayed so far."""
        return self._frontier.size

    def get(self, contract: str, key: bytes) -> bytes | None:
        """Value in the replayed state."""
        place = state_key(contract, key)
        return self._unsealed[place] if place in self._unsealed else self._state.get(place)

    def record(self, index: int) -> Record | None:
        """Record at an index that was replayed already."""
        if not 0 <= index < self.size:
            return None
        return self._log.parse(self._log.entry_bytes(index), index, self)

    # -- the pass --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Check entry by entry, then what is stored beside the entries.

        Raises:
            LichenError: The first thing that does not hold; the report says how far it came.
        """
        log, report = self._log, self._report
        log.refresh()
        total = log.size
        with self._checks:
            try:
                for index, data in self._entries(total):
                    self._check_entry(index, data)
                    report.size = index + 1
                    if self._progress is not None and index % PROGRESS_EVERY_COUNT == 0:
                        self._progress(index, total)
            except LichenError:
                self._settle_signatures()
                raise
            self._settle_signatures()
        report.is_read = True
        self._check_stored()
        report.discredited = self._discredited()
        if self._progress is not None:
            self._progress(total, total)

    def _entries(self, total: int) -> Iterator[tuple[int, bytes]]:
        """Every entry, with none left out."""
        expected = 0
        for index, data in self._log.tables.entry_range(0, total):
            if index != expected:
                break
            yield index, data
            expected += 1
        if expected != total:
            raise CorruptLedgerError(f"entry {expected} is missing", expected=total, calculated=expected)

    def _settle_signatures(self) -> None:
        """Wait for the signatures under way; the first bad one comes before any later problem."""
        failures = self._checks.failures()
        if failures:
            index = min(failures)
            self._report.size = index
            raise VerificationError(f"entry {index}: {failures[index].message}")

    def _check_entry(self, index: int, data: bytes) -> None:
        log = self._log
        found, stored = leaf_hash(data), log.tree_hash(index)
        if stored is not None and stored != found:
            raise CorruptLedgerError(
                f"entry {index} was changed after it was appended, or its stored hash was",
                expected=stored,
                calculated=found,
            )
        try:
            entry = Entry.from_bytes(data)
            statement = Statement.from_bytes(entry.payload)
        except EncodingError as error:
            raise CorruptLedgerError(f"entry {index} is damaged: {error.message}") from error
        self._report.kinds[statement.kind] += 1
        if statement.kind == SEAL_KIND:
            self._check_seal(index, entry, statement)
            self._frontier.append(found)
            self._check_checkpoint(index)
            return
        self._check_record(index, entry, statement)
        self._frontier.append(found)

    # CHECK one record

    def _check_record(self, index: int, entry: Entry, statement: Statement) -> None:
        log = self._log
        digest = sha256(entry.payload)
        if log.find_payload(digest) != index:
            raise CorruptLedgerError(
                f"entry {index} repeats an earlier payload, or its digest is not on file"
            )
        self._indexed_count += index < log.size - log.size % TILE_WIDTH
        if (statement.kind == GENESIS_KIND) != (index == 0):
            raise CorruptLedgerError(
                f"entry {index} is a {statement.kind} record; the genesis is entry 0 and no other"
            )
        if index == 0:  # its signature was verified when the ledger was opened
            record = Record(0, entry, statement, statement.kind, LOG_MEMBER, digest, log.genesis.log_key)
            self._unsealed |= log.rules.found(record, self)
            return
        if statement.kind in OWN_KINDS or statement.kind not in log.rules.kinds:
            raise Rejected(
                "ledger.unknown-kind",
                f"entry {index} is a {statement.kind!r} record, which no contract rules",
            )
        if statement.predicate.get("ledger") != log.id_text:
            raise Rejected("ledger.wrong-ledger", f"entry {index} was signed for another ledger")
        member = statement.predicate.get("member")
        if not isinstance(member, str):
            raise Rejected("ledger.malformed", f"entry {index} names no member")
        key = log.rules.authority.resolve(entry.key_id, member, index, self)
        self._checks.add(index, entry, key)
        self._signers.setdefault(entry.key_id, []).append(index)
        record = Record(index, entry, statement, statement.kind, member, digest, key)
        self._unsealed |= log.rules.judge(record, self)

    # CHECK one seal

    def _check_seal(self, index: int, entry: Entry, statement: Statement) -> None:
        log = self._log
        try:
            seal = Seal.from_statement(statement)
        except EncodingError as error:
            raise CorruptLedgerError(f"the seal at entry {index} is damaged: {error.message}") from error
        if (
            seal.tree_size != index
            or seal.sealer != LOG_MEMBER
            or seal.consensus != log.genesis.sealing.consensus
        ):
            raise VerificationError(f"the seal at entry {index} is not one this ledger's log makes there")
        check_succession(seal, self._seal)
        if entry.key_id != log.genesis.log_key.key_id:
            raise VerificationError(f"the seal at entry {index} is not signed by the log")
        self._checks.add(index, entry, log.genesis.log_key)
        _check_equal(f"the root in the seal at entry {index}", seal.root, self._frontier.root())
        state_root = self._state.update(index, self._unsealed)
        self._unsealed = {}
        _check_equal(f"the state root in the seal at entry {index}", seal.state_root, state_root)
        self._seal = seal

    def _check_checkpoint(self, index: int) -> None:
        log = self._log
        row = log.tables.seal_at(index)
        if row is None:
            raise CorruptLedgerError(f"the checkpoint behind the seal at entry {index} is missing")
        _check_equal(f"the root of the checkpoint at size {index + 1}", row.root, self._frontier.root())
        try:
            log.genesis.log_key.verify(log.checkpoint_of(row).body().encode(), row.signature)
        except VerificationError as error:
            raise VerificationError(f"the checkpoint at size {index + 1} is not signed by the log") from error
        self._report.sealed_size = index + 1
        self._report.root = row.root.hex()

    # CHECK what is stored beside the entries

    def _check_stored(self) -> None:
        log = self._log
        log.tree().check(self._frontier.root())
        if self._seal is None:
            raise CorruptLedgerError("the ledger has no seal")
        _check_equal("the stored state", log.store.root, self._state.root)
        if log.store.version != self._seal.tree_size:
            raise CorruptLedgerError(
                "the stored state belongs to another seal than the last",
                expected=self._seal.tree_size,
                calculated=log.store.version,
            )
        log.store.check()
        if (count := log.tables.payload_count()) != self._indexed_count:
            raise CorruptLedgerError(
                "payload digests on file do not match the records",
                expected=self._indexed_count,
                calculated=count,
            )
        self._report.key_count = len(self._state)

    def _discredited(self) -> list[int]:
        """Entries that were accepted, and whose key is now known to have been compromised at that index."""
        found = []
        for key_id, indices in self._signers.items():
            for index in indices:
                if not self._log.rules.authority.is_believed(key_id, index, self):
                    found.append(index)  # noqa: PERF401 - reads better than a comprehension with two loops and a test
        return sorted(found)


def _check_equal(what: str, expected: bytes, calculated: bytes) -> None:
    if expected != calculated:
        raise VerificationError(f"{what} is not the one derived", expected=expected, calculated=calculated)
