"""What can be checked of entries one by one, without knowing what came before: hashes, form, signatures, most rules.

This is where an audit spends most of its time, and nothing here looks at state, disk or other entries. So it can be done for many
entries on many processors at once. What does not hold is not reported from here: a flag is left out, and whoever
goes through the entries in order checks that one again and says what is wrong.

The rules are asked as if nothing had been recorded before, and the keys of the state that they looked at are noted. A contract is a
deterministic function of the record and of what it looks at: where those keys are absent indeed, which for new work they are, what
it said holds. Where one is there, or a rule wants to see an earlier record, the entry is judged once more in its turn.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lichen.crypto.hashes import sha256
from lichen.crypto.keys import PublicKey
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, LichenError
from lichen.ledger.checkpoint import Checkpoint
from lichen.ledger.ports import FormContract, Record
from lichen.ledger.rulebook import OWN_KINDS, place_writes
from lichen.ledger.state_map import state_key
from lichen.ledger.tree import leaf_hash

if TYPE_CHECKING:
    from lichen.ledger.ports import Contract, RowView

__all__ = ["Checked", "Checker", "Effect", "Row", "Scope"]

Row = tuple[int, bytes | None, bytes]
"""Index, checkpoint column and compact entry, as they are stored."""

ROOT_BYTES: Final = 32
CHECKPOINT_BYTES: Final = ROOT_BYTES + 64


@dataclass(frozen=True, slots=True)
class Scope:
    """What needs to be known of a ledger to check its entries one by one, here or in another process.

    Attributes:
        contracts: Those in force.
        origin: Of the ledger's checkpoints.
        ledger: Id that its records name, as base64url.
        log_key: Public key of the log, 32 bytes.
        uri: Of the ledger file, under which it can be read.
        views: Views whose rows are compared record by record, each with the number of entries it was offered.
        kept_kinds: Kinds of records that other views ask for: they are needed whole beside their effects.
    """

    contracts: tuple[Contract, ...]
    origin: str
    ledger: str
    log_key: bytes
    uri: str
    views: tuple[tuple[RowView, int], ...] = ()
    kept_kinds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Effect:
    """What a record changes, if the keys that its contract looked at are absent and its signer speaks for its member.

    Everything else about it was found in order: ledger, kind, form, signature, rules.

    Attributes:
        kind: Kind of the record.
        member: Who says it is theirs.
        reads: State keys that were looked at, 32 bytes each.
        writes: Values by state key; None removes the key.
    """

    kind: str
    member: str
    reads: tuple[bytes, ...]
    writes: dict[bytes, bytes | None]


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of an entry by itself.

    Attributes:
        leaf: Its leaf hash.
        digest: SHA-256 of its payload.
        key_id: Of the key that is said to have signed it; empty when the entry is malformed.
        statement: The parsed payload; None when entry or payload are malformed.
        signer: Public key, 32 bytes, under which its signature was verified; None when it was not, or does not hold.
        is_formed: The contract's rules of form were checked, and hold.
        is_checkpoint_signed: The log's signature on the checkpoint beside it was verified, and holds.
        effect: What it changes, as far as that could be told; None otherwise.
        row: The entry as it is stored.
    """

    leaf: bytes
    digest: bytes
    key_id: bytes
    statement: Statement | None
    signer: bytes | None
    is_formed: bool
    is_checkpoint_signed: bool
    effect: Effect | None
    row: Row | None

    def pack(self, kept_kinds: Collection[str] = ()) -> tuple[Any, ...]:
        """Write it in plain types, for another process.

        Row and statement are left out where they are not needed beside the effect.

        Args:
            kept_kinds: Kinds of records whose row and statement are needed all the same.
        """
        statement, effect, row, said = self.statement, self.effect, self.row, None
        if effect is not None and effect.kind not in kept_kinds:
            statement = row = None
        if statement is not None:
            subjects = [(subject.name, subject.sha256) for subject in statement.subjects]
            said = (statement.kind, subjects, statement.predicate, statement.version)
        found = None if effect is None else (effect.kind, effect.member, effect.reads, effect.writes)
        flags = self.is_formed, self.is_checkpoint_signed
        return (self.leaf, self.digest, self.key_id, said, self.signer, *flags, found, row)

    @classmethod
    def unpack(cls, packed: tuple[Any, ...]) -> Checked:
        """Read what `pack` wrote."""
        leaf, digest, key_id, said, signer, is_formed, is_checkpoint_signed, found, row = packed
        statement = None
        if said is not None:
            kind, subjects, predicate, version = said
            statement = Statement(
                kind, tuple([Subject(*subject) for subject in subjects]), predicate, version
            )
        effect = None if found is None else Effect(*found)
        return cls(leaf, digest, key_id, statement, signer, is_formed, is_checkpoint_signed, effect, row)


class Checker:
    """Checks entries of one ledger, each by itself.

    Args:
        scope: What needs to be known of the ledger.
    """

    def __init__(self, scope: Scope) -> None:
        self._by_kind = {
            kind: contract for contract in scope.contracts for kind in contract.kinds - OWN_KINDS
        }
        self._forms = {
            kind: contract for kind, contract in self._by_kind.items() if isinstance(contract, FormContract)
        }
        self._origin = scope.origin
        self._ledger = scope.ledger
        self._log_key = PublicKey(scope.log_key)
        self._keys: dict[bytes, PublicKey] = {self._log_key.key_id: self._log_key}

    def check(self, rows: Sequence[Row], keys: Mapping[bytes, bytes]) -> list[Checked]:
        """Check some entries.

        Args:
            rows: The entries.
            keys: Public keys by key id, as far as they are known.
        """
        return self.look(rows, keys)[0]

    def look(
        self, rows: Sequence[Row], keys: Mapping[bytes, bytes]
    ) -> tuple[list[Checked], list[Record | None]]:
        """Check some entries; tell of each also the record, of which it may still turn out that rules refuse it.

        All are read, then all signatures are verified, then all rules are asked: a processor is a good deal faster at doing one
        thing many times than at doing many in turns.
        """
        for key_id, raw in keys.items():
            if key_id not in self._keys:
                self._keys[key_id] = PublicKey(raw)
        read = [self._read(row) for row in rows]
        signers = [None if one is None else self._signer(one[0]) for one in read]
        records: list[Record | None] = []
        for row, one in zip(rows, read, strict=True):
            if one is None:
                records.append(None)
                continue
            entry, statement, digest = one
            key = self._keys.get(entry.key_id, self._log_key)
            member = str(statement.predicate.get("member"))
            records.append(Record(row[0], entry, statement, statement.kind, member, digest, key))
        checks = [
            self._checked(row, record, signer)
            for row, record, signer in zip(rows, records, signers, strict=True)
        ]
        return checks, records

    def _read(self, row: Row) -> tuple[Entry, Statement, bytes] | None:
        try:
            entry = Entry.from_bytes(row[2])
            return entry, Statement.from_bytes(entry.payload), sha256(entry.payload)
        except EncodingError:
            return None

    def _signer(self, entry: Entry) -> bytes | None:
        """The key under which a signature holds; None when it is not known, or does not hold."""
        key = self._keys.get(entry.key_id)
        if key is None:
            return None
        try:
            entry.verify(key)
        except LichenError:
            return None
        return key.raw

    def _checked(self, row: Row, record: Record | None, signer: bytes | None) -> Checked:
        index, checkpoint, data = row
        leaf = leaf_hash(data)
        is_checkpoint_signed = checkpoint is not None and self._is_signed(index, checkpoint)
        if record is None:
            return Checked(leaf, b"", b"", None, None, False, is_checkpoint_signed, None, row)
        is_formed = self._is_formed(record)
        effect = None if signer is None or checkpoint is not None else self._effect(record, is_formed)
        return Checked(
            leaf,
            record.payload_digest,
            record.entry.key_id,
            record.statement,
            signer,
            is_formed,
            is_checkpoint_signed,
            effect,
            row,
        )

    def _is_formed(self, record: Record) -> bool:
        contract = self._forms.get(record.kind)
        if contract is None:
            return False
        try:
            contract.check_form(record)
        except LichenError:
            return False
        return True

    def _effect(self, record: Record, is_formed: bool) -> Effect | None:
        """What a record changes where nothing it looks at is there; None when that cannot be told."""
        contract, said = self._by_kind.get(record.kind), record.predicate
        if contract is None or said.get("ledger") != self._ledger or type(said.get("member")) is not str:
            return None
        state = _Blank(record.place)
        try:
            if is_formed:
                self._forms[record.kind].check_rules(record, state)
            else:
                contract.check(record, state)
            writes = place_writes(contract, contract.apply(record, state))
        except Exception:  # whatever it is, it shows again where the record is judged in its turn
            return None
        return Effect(record.kind, record.member, tuple(state.reads), writes)

    def _is_signed(self, index: int, checkpoint: bytes) -> bool:
        if len(checkpoint) != CHECKPOINT_BYTES:
            return False
        body = Checkpoint(self._origin, index + 1, checkpoint[:ROOT_BYTES]).body()
        try:
            self._log_key.verify(body.encode(), checkpoint[ROOT_BYTES:])
        except LichenError:
            return False
        return True


class _LooksBackError(Exception):
    """A rule wants to see an earlier record."""


class _Blank:
    """A state in which nothing is; notes what was looked for.

    Args:
        size: Entries before the record in hand.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.reads: dict[bytes, None] = {}

    def get(self, contract: str, key: bytes) -> bytes | None:
        """See `lichen.ledger.ports.StateReader.get`."""
        self.reads[state_key(contract, key)] = None
        return None

    def record(self, index: int) -> Record | None:
        """See `lichen.ledger.ports.StateReader.record`."""
        raise _LooksBackError(index)
