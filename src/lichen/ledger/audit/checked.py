"""What can be checked of entries one by one, without knowing what came before: hashes, form, signatures.

This is where an audit spends most of its time, and nothing here looks at state, disk or other entries. So it can be done for many
entries on many processors at once. What does not hold is not reported from here: a flag is left out, and whoever
goes through the entries in order checks that one again and says what is wrong.
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
from lichen.ledger.tree import leaf_hash

if TYPE_CHECKING:
    from lichen.ledger.ports import Contract

__all__ = ["Checked", "Checker", "Row"]

Row = tuple[int, bytes | None, bytes]
"""Index, checkpoint column and compact entry, as they are stored."""

ROOT_BYTES: Final = 32
CHECKPOINT_BYTES: Final = ROOT_BYTES + 64


@dataclass(frozen=True, slots=True)
class Checked:
    """What is known of an entry by itself.

    Attributes:
        leaf: Its leaf hash.
        digest: SHA-256 of its payload.
        statement: The parsed payload; None when entry or payload are malformed.
        signer: Public key, 32 bytes, under which its signature was verified; None when it was not, or does not hold.
        is_formed: The contract's rules of form were checked, and hold.
        is_checkpoint_signed: The log's signature on the checkpoint beside it was verified, and holds.
    """

    leaf: bytes
    digest: bytes
    statement: Statement | None
    signer: bytes | None
    is_formed: bool
    is_checkpoint_signed: bool

    def pack(self) -> tuple[Any, ...]:
        """Write it in plain types, for another process."""
        statement = self.statement
        said = None
        if statement is not None:
            subjects = [(subject.name, subject.sha256) for subject in statement.subjects]
            said = (statement.kind, subjects, statement.predicate, statement.version)
        return (self.leaf, self.digest, said, self.signer, self.is_formed, self.is_checkpoint_signed)

    @classmethod
    def unpack(cls, packed: tuple[Any, ...]) -> Checked:
        """Read what `pack` wrote."""
        leaf, digest, said, *flags = packed
        statement = None
        if said is not None:
            kind, subjects, predicate, version = said
            statement = Statement(
                kind, tuple([Subject(*subject) for subject in subjects]), predicate, version
            )
        return cls(leaf, digest, statement, *flags)


class Checker:
    """Checks entries of one ledger, each by itself.

    Args:
        contracts: Those in force.
        origin: Of the ledger's checkpoints.
        log_key: Of the log.
    """

    def __init__(self, contracts: Sequence[Contract], origin: str, log_key: PublicKey) -> None:
        self._forms: dict[str, FormContract] = {}
        for contract in contracts:
            if isinstance(contract, FormContract):
                self._forms.update(dict.fromkeys(contract.kinds, contract))
        self._origin = origin
        self._log_key = log_key
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
        is_formed = self._is_formed(index, entry, statement, digest)
        return Checked(leaf, digest, statement, signer, is_formed, is_checkpoint_signed)

    def _is_formed(self, index: int, entry: Entry, statement: Statement, digest: bytes) -> bool:
        contract = self._forms.get(statement.kind)
        if contract is None:
            return False
        member = statement.predicate.get("member")
        record = Record(index, entry, statement, statement.kind, str(member), digest, self._log_key)
        try:
            contract.check_form(record)
        except LichenError:
            return False
        return True

    def _is_signed(self, index: int, checkpoint: bytes) -> bool:
        if len(checkpoint) != CHECKPOINT_BYTES:
            return False
        body = Checkpoint(self._origin, index + 1, checkpoint[:ROOT_BYTES]).body()
        try:
            self._log_key.verify(body.encode(), checkpoint[ROOT_BYTES:])
        except LichenError:
            return False
        return True
