"""Answers that verify: checkpoints, receipts and proofs, each made from one unmoving picture of the file.

Rules upheld here:

* Nothing is handed out that this process has not checked itself: entries against their stored hashes, inclusion proofs
  against the root that the log signed, state proofs against the state root in the seal. What does not hold is reported
  as damage of the ledger, here, and not as a bad receipt, later, elsewhere.
* A receipt carries entry 0 and the author's key, so that whoever knows the ledger id can check it alone.
* A receipt about the state stands under the checkpoint whose last entry is the seal that commits to that state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lichen.crypto.note import NoteKey, NoteSignature, SignedNote
from lichen.encoding.entry import Entry
from lichen.errors import CorruptLedgerError, NotFoundError, UsageError, VerificationError
from lichen.ledger.proof import consistency_proof, inclusion_proof, verify_inclusion
from lichen.ledger.receipt import Receipt
from lichen.ledger.state_map import state_key
from lichen.ledger.succession import SuccessionLink
from lichen.ledger.tree import leaf_hash

if TYPE_CHECKING:
    from lichen.ledger.log_file import LogFile
    from lichen.ledger.tables import SealRow

__all__ = ["Answers"]


class Answers:
    """Makes proofs from one ledger file; each method inside `lichen.ledger.storage.Database.read`, after a refresh.

    Args:
        log: The file.
    """

    def __init__(self, log: LogFile) -> None:
        self._log = log

    def checkpoint(self, row: SealRow | None = None) -> str:
        """A signed checkpoint.

        Args:
            row: The seal it stands behind; None for the newest.

        Returns:
            The signed note.
        """
        log = self._log
        chosen = row or self._newest()
        identity = NoteKey(log.origin, log.log_key_at(chosen.index))
        signature = NoteSignature(identity.name, identity.hash, chosen.signature)
        return SignedNote(log.checkpoint_of(chosen).body(), (signature,)).to_text()

    def receipt(self, index: int, row: SealRow | None = None) -> Receipt:
        """Receipt of an entry.

        Args:
            index: Which entry.
            row: The seal whose checkpoint it stands under; None for the newest.

        Raises:
            NotFoundError: There is no such entry.
            UsageError: No seal covers it yet.
            CorruptLedgerError: The ledger contradicts itself on the way.
        """
        log, row = self._log, row or self._newest()
        data = log.entry_bytes(index)
        if index > row.index:
            raise UsageError(
                f"entry {index} is not sealed yet, so there is no receipt for it",
                remedy="open the ledger with its log key, or wait until its writer seals the block",
            )
        entry = Entry.from_bytes(data)
        return Receipt.of_entry(
            entry,
            index,
            self._inclusion(index, data, row),
            self.checkpoint(row),
            author=log.rules.authority.key_of(entry.key_id, log),
            genesis=self._genesis(),
            succession=self.succession(row.index + 1),
        )

    def first_receipt(self, index: int) -> Receipt:
        """Receipt of an entry under the first checkpoint that covers it: the same text whenever it is asked for.

        Args:
            index: Which entry.

        Raises:
            NotFoundError: There is no such entry.
            UsageError: No seal covers it yet.
            CorruptLedgerError: The ledger contradicts itself on the way.
        """
        newest = self._newest()
        return self.receipt(index, self._log.tables.seal_covering(index) if index <= newest.index else newest)

    def state_receipt(self, contract: str, key: bytes, tree_size: int | None = None) -> Receipt:
        """Receipt of what a sealed state says about a key.

        Args:
            contract: Whose key.
            key: What the contract calls it.
            tree_size: Size of the checkpoint behind the seal; None for the newest.

        Raises:
            NotFoundError: No checkpoint stands at that size, or the state behind it is no longer kept.
            CorruptLedgerError: The ledger contradicts itself on the way.
        """
        log, row = self._log, self._newest()
        if tree_size is not None and tree_size != row.index + 1:
            earlier = log.tables.seal_at(tree_size - 1)
            if earlier is None:
                raise NotFoundError(f"no checkpoint of this ledger stands at size {tree_size}")
            row = earlier
        data = log.entry_bytes(row.index)
        value, map_proof = log.store.prove(state_key(contract, key), row.index)
        return Receipt.of_state(
            Entry.from_bytes(data),
            row.index,
            self._inclusion(row.index, data, row),
            self.checkpoint(row),
            contract=contract,
            key=key,
            value=value,
            map_proof=map_proof,
            genesis=self._genesis(),
            succession=self.succession(row.index + 1),
        )

    def succession(self, tree_size: int) -> list[SuccessionLink]:
        """How the log came from its first key to the one that signs the checkpoint of a size.

        Args:
            tree_size: Of the checkpoint.
        """
        log, read = self._log, self._log.tree().subtree_root
        places = [first - 1 for first, _ in log.log_keys()[1:] if first < tree_size]
        return [
            SuccessionLink(
                Entry.from_bytes(log.entry_bytes(place)),
                place,
                tuple(inclusion_proof(place, tree_size, read)),
            )
            for place in places
        ]

    def inclusion(self, index: int, tree_size: int | None) -> list[bytes]:
        """Inclusion proof under a tree of any size the log has had; the newest checkpoint's when None."""
        size = self._size(tree_size)
        return inclusion_proof(index, size, self._log.tree().subtree_root)

    def consistency(self, size_first: int, size_second: int | None) -> list[bytes]:
        """Consistency proof between two sizes the log has had; the later is the newest checkpoint's when None."""
        return consistency_proof(size_first, self._size(size_second), self._log.tree().subtree_root)

    def _size(self, tree_size: int | None) -> int:
        size = self._newest().index + 1 if tree_size is None else tree_size
        if not 0 <= size <= self._log.size:
            raise UsageError(f"this log has {self._log.size} entries, it never had {size}")
        return size

    def _newest(self) -> SealRow:
        row = self._log.last_checkpoint
        if row is None:
            raise CorruptLedgerError(
                f"{self._log.database.path} has no seal",
                remedy="restore the ledger from a copy, then run `lichen verify`",
            )
        return row

    def _genesis(self) -> Entry:
        return Entry.from_bytes(self._log.entry_bytes(0))

    def _inclusion(self, index: int, data: bytes, row: SealRow) -> list[bytes]:
        """Inclusion proof of an entry under a checkpoint, verified."""
        size = row.index + 1
        proof = inclusion_proof(index, size, self._log.tree().subtree_root)
        try:
            verify_inclusion(index, size, leaf_hash(data), proof, row.root)
        except VerificationError as error:
            raise CorruptLedgerError(
                f"the stored hashes of {self._log.database.path} do not lead from entry {index} to the root that the log"
                f" signed at size {size}",
                expected=error.expected,
                calculated=error.calculated,
                remedy="restore the ledger from a copy, then run `lichen verify`",
            ) from error
        return proof
