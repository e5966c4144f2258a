"""How records become entries, and entries become blocks: the one writing path of a ledger.

Stations, in this order, for every record::

    # CHECK    form, ledger, kind; then, inside the transaction: uniqueness, key, signature, the contract's rules
    # UPDATE   entry, payload digest, state writes
    # SEAL     when the block is full, its slot is over, or the caller asks

Rules upheld here:

* What is refused gets no index and changes nothing; the others of the same batch go on.
* One batch is one durable transaction. When it fails half-way, none of it happened. Callers that come at the same time are gathered
  into a batch where they come together: in the server, by its committer.
* A payload stands in a ledger once, so sending a record again cannot count twice.
* A seal closes at least one entry; its time never falls, even when the clock does. It is signed by the log's key of that
  index: behind a record that gives the log a new key, by the new one.

Source: the write path follows RFC 6962 section 3 (order, then commit to a tree head). Differs: the head is an entry too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lichen.crypto.hashes import sha256
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError, KeyFileError, Rejected, StorageError, VerificationError
from lichen.ledger.ports import LOG_MEMBER, Appended, Record
from lichen.ledger.rulebook import OWN_KINDS
from lichen.ledger.seal import Seal
from lichen.ledger.signatures import SignatureChecks, sign_all
from lichen.ledger.succession import LOG_KEY_KIND, Succession

if TYPE_CHECKING:
    from lichen.crypto.keys import PublicKey, SigningKey
    from lichen.ledger.high_water import HighWater
    from lichen.ledger.log_file import LogFile

__all__ = ["Appender"]


@dataclass(slots=True)
class _Candidate:
    """A record on its way in.

    Attributes:
        entry: As it was handed in.
        statement: Its parsed payload.
        digest: SHA-256 of the payload.
        member: Who it says it is from.
        verified: Key under which the signature is known to be good, or None.
    """

    entry: Entry
    statement: Statement
    digest: bytes
    member: str
    verified: PublicKey | None = None


class Appender:
    """Writes to one ledger file.

    Args:
        log: The file.
        log_key: Signs seals and checkpoints.
        high_water: Raised after each commit; None where no mark is kept.
        now_ms: Clock, in milliseconds since 1970.

    Attributes:
        high_water_problem: Why the mark could last not be raised, or None.
    """

    def __init__(
        self,
        log: LogFile,
        log_key: SigningKey,
        high_water: HighWater | None,
        now_ms: Callable[[], int],
    ) -> None:
        self._log = log
        self._log_keys = {log_key.public: log_key}
        self._high_water = high_water
        self._now_ms = now_ms
        self.high_water_problem: StorageError | None = None

    def append(self, entries: Sequence[Entry], *, seal: bool = False) -> list[Appended | Rejected]:
        """Append entries in one durable transaction.

        Args:
            entries: In the order they shall have.
            seal: Close the block behind the last of them, whatever the policy says.

        Returns:
            For each entry its index, or the rule that refused it.

        Raises:
            StorageError: Disk or database failed; nothing was appended.
            CorruptLedgerError: The file is damaged; nothing was appended.
        """
        with self._log.database.lock:
            return self._commit(self._verified(entries), seal=seal)

    def append_signed(
        self, statement: Statement, key: SigningKey, *, seal: bool = False
    ) -> Appended | Rejected:
        """Sign a record and append it; verifying a signature made right here could only find a broken processor.

        Args:
            statement: The record.
            key: The member's key.
            seal: Close the block behind it.

        Raises:
            StorageError: Disk or database failed; nothing was appended.
            CorruptLedgerError: The file is damaged; nothing was appended.
        """
        return self.append_all_signed([statement], key, seal=seal)[0]

    def append_all_signed(
        self, statements: Sequence[Statement], key: SigningKey, *, seal: bool = False
    ) -> list[Appended | Rejected]:
        """Sign records and append them in one durable transaction.

        Args:
            statements: The records, in the order they shall have.
            key: The member's key.
            seal: Close the block behind the last of them.

        Returns:
            For each record its index, or the rule that refused it.

        Raises:
            EncodingError: A record holds what JSON cannot say; nothing was appended.
            StorageError: Disk or database failed; nothing was appended.
            CorruptLedgerError: The file is damaged; nothing was appended.
        """
        read = [statement.as_read() for statement in statements]  # what an auditor will read from the bytes
        entries = sign_all([statement.to_bytes() for statement in read], key)
        candidates = [
            self._checked(entry, said, key.public) for entry, said in zip(entries, read, strict=True)
        ]
        with self._log.database.lock:
            return self._commit(candidates, seal=seal)

    def _commit(
        self, candidates: Sequence[_Candidate | Rejected], *, seal: bool
    ) -> list[Appended | Rejected]:
        """Judge, add and seal in one transaction."""
        log = self._log
        try:
            with log.database.write():
                log.refresh()
                log.catch_up()
                log.tree()
                size_before = log.size
                if len(candidates) > 1:
                    log.expect_payloads([each.digest for each in candidates if isinstance(each, _Candidate)])
                results = [
                    candidate if isinstance(candidate, Rejected) else self._add(candidate)
                    for candidate in candidates
                ]
                self._seal_if_due(force=seal)
        except BaseException:
            log.undone()
            raise
        log.committed()
        if log.size != size_before:
            self.raise_mark()
        return results

    def succeed(self, statement: Statement, author: SigningKey, log_key: SigningKey) -> Appended | Rejected:
        """Append the record that gives the log a new key, and seal it with that key, in one transaction.

        Args:
            statement: A record of kind ``log-key``.
            author: Key of the admin who says it.
            log_key: The new key; it signs seals and checkpoints from here on.

        Raises:
            StorageError: Disk or database failed; nothing was appended.
            CorruptLedgerError: The file is damaged; nothing was appended.
        """
        self._log_keys[log_key.public] = log_key
        return self.append_signed(statement, author, seal=True)

    def seal(self, *, force: bool) -> int | None:
        """Close the block when it is due, or anyway.

        Args:
            force: Do not ask the policy. An empty block is never sealed.

        Returns:
            Index of the new seal, or None when nothing was sealed.
        """
        log = self._log
        with log.database.lock:
            try:
                with log.database.write():
                    log.refresh()
                    log.catch_up()
                    log.tree()
                    before = log.last_seal
                    self._seal_if_due(force=force)
            except BaseException:
                log.undone()
                raise
            log.committed()
            if log.last_seal is None or log.last_seal is before:
                return None
            self.raise_mark()
            return log.last_seal.tree_size

    def found(self, genesis: Entry) -> None:
        """Write entry 0 and the first seal, inside the caller's transaction."""
        log = self._log
        log.size = 0
        log.tree()
        statement = Statement.from_bytes(genesis.payload)
        digest = sha256(genesis.payload)
        record = Record(0, genesis, statement, statement.kind, LOG_MEMBER, digest, log.genesis.log_key)
        writes = log.rules.found(record, log)
        log.add_entry(genesis.to_bytes(), digest)
        log.add_writes(writes)
        self._seal_now()

    # CHECK

    def _candidate(self, entry: Entry) -> _Candidate | Rejected:
        """Parse an entry from anywhere, and check what can be checked without the state."""
        try:
            statement = Statement.from_bytes(entry.payload)
        except EncodingError as error:
            return Rejected("ledger.malformed", error.message, remedy=error.remedy)
        return self._checked(entry, statement)

    def _checked(
        self, entry: Entry, statement: Statement, verified: PublicKey | None = None
    ) -> _Candidate | Rejected:
        """Check kind, ledger and member."""
        kind, predicate = statement.kind, statement.predicate
        if kind in OWN_KINDS:
            return Rejected("ledger.reserved-kind", f"only the ledger itself writes {kind} entries")
        if kind not in self._log.rules.kinds:
            return Rejected(
                "ledger.unknown-kind",
                f"no contract of this ledger rules {kind!r} records",
                remedy=f"it takes {', '.join(sorted(self._log.rules.kinds))}",
            )
        if predicate.get("ledger") != self._log.id_text:
            return Rejected(
                "ledger.wrong-ledger",
                f"the record is meant for ledger {predicate.get('ledger')!r:.80}, this is {self._log.id_text}",
                remedy="sign a new record that names this ledger",
            )
        member = predicate.get("member")
        if not isinstance(member, str):
            return Rejected("ledger.malformed", f"the {kind} record names no member")
        return _Candidate(entry, statement, sha256(entry.payload), member, verified)

    def _verified(self, entries: Sequence[Entry]) -> list[_Candidate | Rejected]:
        """Parse entries and verify their signatures before the write lock is taken, side by side.

        Keys that the state does not know yet may be admitted by an earlier entry of the same batch; those signatures
        are verified in their turn.
        """
        log = self._log
        candidates: list[_Candidate | Rejected] = []
        keys: dict[bytes, PublicKey | None] = {}
        with log.database.read(), SignatureChecks() as checks:
            log.refresh()
            for place, entry in enumerate(entries):
                candidate = self._candidate(entry)
                candidates.append(candidate)
                if isinstance(candidate, Rejected):
                    continue
                if entry.key_id not in keys:
                    keys[entry.key_id] = log.rules.authority.key_of(entry.key_id, log)
                if (key := keys[entry.key_id]) is not None:
                    candidate.verified = key
                    checks.add(place, entry, key)
            for place in checks.failures():
                candidate = candidates[place]
                if isinstance(candidate, _Candidate):
                    candidate.verified = None  # refused with its reason in its turn
        return candidates

    def _judge(self, candidate: _Candidate) -> tuple[Record, dict[bytes, bytes | None]]:
        """Check uniqueness, key, signature and rules at the index the record would get.

        Raises:
            Rejected: With the rule that said no.
        """
        log = self._log
        earlier = log.find_payload(candidate.digest)
        if earlier is not None:
            raise Rejected(
                "ledger.duplicate",
                f"this record is in the ledger already, as entry {earlier}",
                remedy="nothing needs to be done; to say it once more, make a record with a new nonce",
            )
        entry = candidate.entry
        key = log.rules.authority.resolve(entry.key_id, candidate.member, log.size, log)
        if candidate.verified != key:
            try:
                entry.verify(key)
            except (VerificationError, EncodingError) as error:
                raise Rejected(
                    "ledger.bad-signature",
                    error.message,
                    remedy="sign the record again; it was changed after signing",
                ) from error
        statement = candidate.statement
        record = Record(log.size, entry, statement, statement.kind, candidate.member, candidate.digest, key)
        return record, log.rules.judge(record, log)

    # UPDATE

    def _add(self, candidate: _Candidate) -> Appended | Rejected:
        log = self._log
        try:
            record, writes = self._judge(candidate)
        except Rejected as refusal:
            return refusal
        if (
            record.kind == LOG_KEY_KIND
            and Succession.from_statement(record.statement).key not in self._log_keys
        ):
            return Rejected(
                "ledger.log-key-elsewhere",
                "the log's new key is not here, so nothing could be sealed after this record",
                remedy="append it where the log's keys lie: `lichen key succeed`",
            )
        index = log.add_entry(record.entry.to_bytes(), record.payload_digest)
        log.add_writes(writes)
        if self._open_count() >= log.genesis.sealing.entries_max:
            self._seal_now()
        return Appended(index, record.payload_digest)

    # SEAL

    def _open_count(self) -> int:
        """Entries that no seal covers yet."""
        last = self._log.last_seal
        return self._log.size if last is None else self._log.size - last.tree_size - 1

    def _seal_if_due(self, *, force: bool) -> None:
        last = self._log.last_seal
        if self._open_count() == 0:
            return
        if not force and last is not None:
            elapsed_ms = self._now_ms() - last.time_unix_ms
            if 0 <= elapsed_ms < self._log.genesis.sealing.slot_ms:
                return
        self._seal_now()

    def _seal_now(self) -> None:
        log, last = self._log, self._log.last_seal
        index, root = log.size, log.tree().root()
        log_key = self._log_keys.get(log.rules.log_key_at(index, log))
        if log_key is None:
            raise KeyFileError(
                f"the log of {log.database.path} has a new key since entry {log.rules.log_keys(log)[-1][0] - 1}",
                remedy="open the ledger again, with that key",
            )
        time_ms = max(0, self._now_ms())
        seal = Seal(
            block_height=0 if last is None else last.block_height + 1,
            previous_seal=None if last is None else last.tree_size,
            tree_size=index,
            root=root,
            state_root=log.state_root_sealed_at(index),
            time_unix_ms=time_ms if last is None else max(last.time_unix_ms, time_ms),
            sealer=LOG_MEMBER,
            consensus=log.genesis.sealing.consensus,
        )
        log.add_seal(Entry.signed(seal.to_statement().to_bytes(), log_key).to_bytes(), log_key.sign)
        log.last_seal = seal

    def raise_mark(self) -> None:
        """Raise the mark. When that fails the entry is in the ledger all the same, so it is noted and not raised."""
        if self._high_water is None:
            return
        try:
            self._high_water.raise_to(self._log.high_water())
        except StorageError as problem:
            self.high_water_problem = problem
