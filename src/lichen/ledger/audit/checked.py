"""What can be checked of entries one by one, without knowing what came before: hashes, form, signatures, most rules.

This is where an audit spends most of its time, and nothing here looks at state, disk or other entries. So it can be done for many
entries on many processors at once. What does not hold is not reported from here: a flag is left out, and whoever
goes through the entries in order checks that one again and says what is wrong.

The rules are asked as if nothing had been recorded before, and the keys of the state that they looked at are noted. A contract is a
deterministic function of the record and of what it looks at: where those keys are absent indeed, which for new work they are, what
it said holds. Where one is there, or a rule wants to see an earlier record, the entry is judged once more in its turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    from lichen.ledger.ports import Contract

__all__ = ["Checked", "Checker", "Effect", "Row"]

Row = tuple[int, bytes | None, bytes]
"""Index, checkpoint column and compact entry, as they are stored."""

ROOT_BYTES: Final = 32
CHECKPOINT_BYTES: Final = ROOT_BYTES + 64


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
        statement: The parsed payload; None when entry or payload are malformed, or when nobody needs it beside the effect.
        signer: Public key, 32 bytes, under which its signature was verified; None when it was not, or does not hold.
        is_formed: The contract's rules of form were checked, and hold.
        is_checkpoint_signed: The log's signature on the checkpoint beside it was verified, and holds.
        effect: What it changes, as far as that could be told; None otherwise.
    """

    leaf: bytes
    digest: bytes
    statement: Statement | None
    signer: bytes | None
    is_formed: bool
    is_checkpoint_signed: bool
    effect: Effect | None = None

    def pack(self) -> tuple[Any, ...]:
        """Write it in plain types, for another process."""
        statement = self.statement
        said = None
        if statement is not None:
            subjects = [(subject.name, subject.sha256) for subject in statement.subjects]
            said = (statement.kind, subjects, statement.predicate, statement.version)
        effect = self.effect
        found = None if effect is None else (effect.kind, effect.member, effect.reads, effect.writes)
        return (self.leaf, self.digest, said, self.signer, self.is_formed, self.is_checkpoint_signed, found)

    @classmethod
    def unpack(cls, packed: tuple[Any, ...]) -> Checked:
        """Read what `pack` wrote."""
        leaf, digest, said, signer, is_formed, is_checkpoint_signed, found = packed
        statement = None
        if said is not None:
            kind, subjects, predicate, version = said
            statement = Statement(
                kind, tuple([Subject(*subject) for subject in subjects]), predicate, version
            )
        effect = None if found is None else Effect(*found)
        return cls(leaf, digest, statement, signer, is_formed, is_checkpoint_signed, effect)


class Checker:
    """Checks entries of one ledger, each by itself.

    Args:
        contracts: Those in force.
        origin: Of the ledger's checkpoints.
        ledger: Id that its records name, as base64url.
        log_key: Of the log.
        keeps_statements: Whether statements are needed beside effects, as they are for views.
    """

    def __init__(
        self,
        contracts: Sequence[Contract],
        origin: str,
        ledger: str,
        log_key: PublicKey,
        *,
        keeps_statements: bool = True,
    ) -> None:
        self._by_kind = {kind: contract for contract in contracts for kind in contract.kinds - OWN_KINDS}
        self._forms = {
            kind: contract for kind, contract in self._by_kind.items() if isinstance(contract, FormContract)
        }
        self._origin = origin
        self._ledger = ledger
        self._log_key = log_key
        self._keeps_statements = keeps_statements
        self._keys: dict[bytes, PublicKey] = {log_key.key_id: log_key}

    def check(self, rows: Sequence[Row], keys: Mapping[bytes, bytes]) -> list[Checked]:
        """Check some entries.

        Args:
            rows: The entries.
            keys: Public keys by key id, as far as they are known.
        """
        for key_id, raw in keys.items():
            if key_id not in self._keys:
                self._keys[key_id] = PublicKey(raw)
        return [self._checked(*row) for row in rows]

    def _checked(self, index: int, checkpoint: bytes | None, data: bytes) -> Checked:
        leaf = leaf_hash(data)
        is_checkpoint_signed = checkpoint is not None and self._is_signed(index, checkpoint)
        try:
            entry = Entry.from_bytes(data)
            statement = Statement.from_bytes(entry.payload)
        except EncodingError:
            return Checked(leaf, b"", None, None, False, is_checkpoint_signed)
        digest, key = sha256(entry.payload), self._keys.get(entry.key_id)
        signer = None
        if key is not None:
            try:
                entry.verify(key)
                signer = key.raw
            except LichenError:
                signer = None
        member = str(statement.predicate.get("member"))
        record = Record(index, entry, statement, statement.kind, member, digest, key or self._log_key)
        is_formed = self._is_formed(record)
        effect = None if signer is None or checkpoint is not None else self._effect(record, is_formed)
        said = statement if effect is None or self._keeps_statements else None
        return Checked(leaf, digest, said, signer, is_formed, is_checkpoint_signed, effect)

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
