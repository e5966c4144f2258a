"""The pass over the entries, in order: who wrote them, whether the rules let them in, and what the seals commit to.

Stations for every entry::

    # TREE     bytes against the stored leaf hash, frontier
    # RECORD   kind, ledger, the author's key at that index, signature, the contract's rules -> state
    # SEAL     succession, root of the log, signatures of seal and checkpoint

What an entry shows by itself was looked at before, on other processors (`lichen.ledger.audit.checked`); where that did not hold, it is
looked at again here, so that the first bad entry is named and not the first that was noticed.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from lichen.crypto.keys import PublicKey
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import CorruptLedgerError, EncodingError, Rejected, VerificationError
from lichen.ledger.audit.checked import ROOT_BYTES, Checked, Effect
from lichen.ledger.genesis import GENESIS_KIND
from lichen.ledger.ports import LOG_MEMBER, Record
from lichen.ledger.rulebook import OWN_KINDS
from lichen.ledger.seal import SEAL_KIND, Seal, check_succession
from lichen.ledger.state_map import state_key
from lichen.ledger.tables import SealRow
from lichen.ledger.tree import HASH_BYTES, TILE_WIDTH, Frontier

if TYPE_CHECKING:
    from lichen.ledger.audit.examined import Examined
    from lichen.ledger.audit.pool import CheckPool
    from lichen.ledger.audit.report import AuditReport
    from lichen.ledger.audit.scratch import Scratch
    from lichen.ledger.audit.view_rows import RowsFound
    from lichen.ledger.log_file import LogFile
    from lichen.ledger.ports import View

__all__ = ["Replay", "stretches"]

CHUNK_COUNT: Final = TILE_WIDTH  # (= 256) entries, those of one hash tile
SAVE_EVERY_COUNT: Final = 50_000
_NO_CHAIN: Final = bytes(32)


def stretches(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Split a range of indices tile by tile.

    Args:
        start: First index.
        stop: One past the last.

    Yields:
        First index, and one past the last.
    """
    while start < stop:
        end = min(start - start % CHUNK_COUNT + CHUNK_COUNT, stop)
        yield start, end
        start = end


class Replay:
    """One pass over a ledger; the `StateReader` that the contracts see.

    Args:
        log: The ledger.
        scratch: Where what is derived goes.
        report: Filled along the way.
        views: Those to derive rows of here, with the number of entries they were offered; rows of others are compared elsewhere.
    """

    def __init__(
        self,
        log: LogFile,
        scratch: Scratch,
        report: AuditReport,
        views: Mapping[View, int],
    ) -> None:
        self._log = log
        self._scratch = scratch
        self._report = report
        self._views = views
        self.frontier = Frontier()
        self.seal: Seal | None = None
        self.checkpoint_chain = _NO_CHAIN  # over what stands beside the seals, which no root covers
        self.key_spans: dict[bytes, tuple[int, int]] = {}
        self._keys: dict[bytes, bytes] = {}
        self._saved_at = 0
        self.row_counts: Counter[str] = Counter()
        self.wrong_rows: dict[str, str] = {}

    # -- what contracts see ----------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Entries replayed so far."""
        return self.frontier.size

    def get(self, contract: str, key: bytes) -> bytes | None:
        """Value in the replayed state."""
        return self._scratch.get(state_key(contract, key))

    def record(self, index: int) -> Record | None:
        """Record at an index that was replayed already."""
        if not 0 <= index < self.size:
            return None
        return self._log.parse(self._log.entry_bytes(index), index, self)

    # -- the pass --------------------------------------------------------------------------------------------------

    def hash_again(self, pool: CheckPool, total: int, told: Callable[[int], None]) -> None:
        """Compute root and chain over entries that an earlier audit checked, compare rows of views, and nothing else."""
        for examined in self._examined(pool, total, is_believed=True):
            for index, leaf in enumerate(examined.leaves, examined.start):
                self.frontier.append(leaf)
                if (checkpoint := examined.checkpoints.get(index)) is not None:
                    self._link(index, checkpoint)
            self._take_rows(examined.rows)
            told(self.size)

    def run(self, pool: CheckPool, total: int, told: Callable[[int], None], save: Callable[[], None]) -> None:
        """Go through the entries that were not checked before.

        Args:
            pool: Checks them one by one.
            total: How many entries there are.
            told: Called now and then with how many are done.
            save: Called now and then behind a seal.

        Raises:
            LichenError: The first thing that does not hold; the report says how far it came.
        """
        for admin in self._log.genesis.admins:
            self._keys[admin.key.key_id] = admin.key.raw
        for examined in self._examined(pool, total):
            self._scratch.look_ahead(
                place
                for checked in examined.checks
                if checked.effect is not None
                for place in checked.effect.reads
            )
            records: list[Record] = []
            for index, checked in enumerate(examined.checks, examined.start):
                record = self._check_entry(index, checked)
                self._report.size = self.size
                if record is not None:
                    records.append(record)
                elif checked.row is None or checked.row[1] is None:
                    continue
                elif self.size - self._saved_at >= SAVE_EVERY_COUNT and self._scratch.is_kept:
                    self._offer(records)
                    records = []
                    self._saved_at = self.size
                    save()
            self._offer(records)
            self._take_rows(examined.rows)
            told(self.size)

    def _examined(self, pool: CheckPool, total: int, *, is_believed: bool = False) -> Iterator[Examined]:
        """What is known of stretch after stretch, each cut off before the first entry that is not what its stored hash says.

        Raises:
            CorruptLedgerError: An entry is missing or was changed, after those before it.
            sqlite3.DatabaseError: The file cannot be read any further.
        """
        wanted = stretches(self.size, total)
        for (_, stop), examined in zip(
            stretches(self.size, total),
            pool.examine(wanted, lambda: self._keys, is_believed=is_believed),
            strict=True,
        ):
            changed = self._changed_at(examined.start, examined.leaves)
            if changed is not None:
                del examined.leaves[changed - examined.start :]
                del examined.checks[changed - examined.start :]
            expected = examined.start + len(examined.leaves)
            yield examined
            if changed is not None:
                raise _changed(changed)
            if examined.misread is not None:
                raise sqlite3.DatabaseError(examined.misread)
            if expected != stop:
                raise CorruptLedgerError(f"entry {expected} is missing or damaged")

    def _take_rows(self, found: RowsFound) -> None:
        self.row_counts.update(found.counts)
        for table, names in found.names.items():
            self._scratch.add_names(table, names)
        if found.wrong is not None:
            self.wrong_rows.setdefault(*found.wrong)

    # -- progress --------------------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """How far it came; behind a seal only."""
        return {
            "size": self.size,
            "root": self.frontier.root().hex(),
            "chain": self.checkpoint_chain.hex(),
            "seal": None if self.seal is None else self.seal.tree_size,
            "kinds": dict(self._report.kinds),
            "key_spans": {key_id.hex(): span for key_id, span in self.key_spans.items()},
        }

    def go_on_from(self, said: Mapping[str, Any]) -> None:
        """Take over what an earlier audit said of the entries that were hashed again."""
        self.seal = self._log.seal_at(said["seal"])
        self._report.kinds.update(said["kinds"])
        self._report.sealed_size = self._report.size = self.size
        self._report.resumed_from = self.size
        self._report.root = self.frontier.root().hex()
        self.key_spans = {
            bytes.fromhex(key_id): (span[0], span[1]) for key_id, span in said["key_spans"].items()
        }
        self._saved_at = self.size
        for key_id in self.key_spans:
            key = self._log.rules.authority.key_of(key_id, self)
            if key is not None:
                self._keys[key_id] = key.raw

    # TREE

    def _changed_at(self, start: int, leaves: list[bytes]) -> int | None:
        """Compare leaf hashes with the stored tile, if it is full and so stored; tell which entry differs first."""
        number, offset = divmod(start, TILE_WIDTH)
        if number >= self._log.size // TILE_WIDTH:
            return None
        stored = self._log.tiles.stored_tile(0, number)[offset * HASH_BYTES :]
        if stored[: len(leaves) * HASH_BYTES] == b"".join(leaves):
            return None
        for place, leaf in enumerate(leaves):
            if stored[place * HASH_BYTES : (place + 1) * HASH_BYTES] != leaf:
                return start + place
        return None

    def _check_entry(self, index: int, checked: Checked) -> Record | None:
        """Check one entry; None for a seal, and for a record that no view asks for here."""
        effect = checked.effect
        if effect is not None and (key := self._taken_over(index, checked, effect)) is not None:
            if checked.statement is None or checked.row is None or not self._views:
                return None
            entry = Entry.from_bytes(checked.row[2])
            return Record(index, entry, checked.statement, effect.kind, effect.member, checked.digest, key)
        _, checkpoint, data = checked.row or (index, None, self._log.entry_bytes(index))
        entry, statement = self._parsed(index, data, checked)
        self._report.kinds[statement.kind] += 1
        if statement.kind == SEAL_KIND:
            self._check_seal(index, entry, statement, checked)
            self.frontier.append(checked.leaf)
            self._check_checkpoint(index, checkpoint, checked)
            return None
        if checkpoint is not None:
            raise CorruptLedgerError(f"a checkpoint stands beside entry {index}, which is no seal")
        record = self._check_record(index, entry, statement, checked)
        self.frontier.append(checked.leaf)
        return record if self._views else None

    def _parsed(self, index: int, data: bytes, checked: Checked) -> tuple[Entry, Statement]:
        try:
            entry = Entry.from_bytes(data)
            return entry, checked.statement or Statement.from_bytes(entry.payload)
        except EncodingError as error:
            raise CorruptLedgerError(f"entry {index} is damaged: {error.message}") from error

    # RECORD

    def _taken_over(self, index: int, checked: Checked, effect: Effect) -> PublicKey | None:
        """Believe what was found out about a record by itself, if the state before it is as was assumed.

        Returns:
            The key it was signed with; None when the record is to be judged here, and refused here if it must be.
        """
        key_id, state_get = checked.key_id, self._scratch.get
        if any(state_get(place) is not None for place in effect.reads):
            return None
        try:
            key = self._log.rules.authority.resolve(key_id, effect.member, index, self)
        except Rejected:
            return None
        if checked.signer != key.raw:
            return None
        self._scratch.add_payload(checked.digest, index)
        self._report.kinds[effect.kind] += 1
        self._note_signer(key_id, index)
        self._scratch.write(effect.writes)
        self.frontier.append(checked.leaf)
        return key

    def _note_signer(self, key_id: bytes, index: int) -> None:
        first, _ = self.key_spans.get(key_id, (index, index))
        self.key_spans[key_id] = (first, index)

    def _check_record(self, index: int, entry: Entry, statement: Statement, checked: Checked) -> Record:
        log = self._log
        kind, predicate = statement.kind, statement.predicate
        if (kind == GENESIS_KIND) != (index == 0):
            raise CorruptLedgerError(f"entry {index} is a {kind} record; the genesis is entry 0 and no other")
        self._scratch.add_payload(checked.digest, index)
        if index == 0:  # its signature was verified when the ledger was opened
            record = Record(0, entry, statement, kind, LOG_MEMBER, checked.digest, log.genesis.log_key)
            self._scratch.write(log.rules.found(record, self))
            return record
        if kind in OWN_KINDS or kind not in log.rules.kinds:
            raise Rejected(
                "ledger.unknown-kind", f"entry {index} is a {kind!r} record, which no contract rules"
            )
        if predicate.get("ledger") != log.id_text:
            raise Rejected("ledger.wrong-ledger", f"entry {index} was signed for another ledger")
        member = predicate.get("member")
        if not isinstance(member, str):
            raise Rejected("ledger.malformed", f"entry {index} names no member")
        key = log.rules.authority.resolve(entry.key_id, member, index, self)
        self._check_signature(index, entry, key, checked)
        self._note_signer(entry.key_id, index)
        record = Record(index, entry, statement, kind, member, checked.digest, key)
        self._scratch.write(log.rules.judge(record, self, is_formed=checked.is_formed))
        return record

    def _check_signature(self, index: int, entry: Entry, key: PublicKey, checked: Checked) -> None:
        if checked.signer != key.raw:
            self._keys[entry.key_id] = key.raw
            try:
                entry.verify(key)
            except VerificationError as error:
                raise VerificationError(f"entry {index}: {error.message}") from error

    def _offer(self, records: list[Record]) -> None:
        """Derive the rows of views."""
        for view, filled_to in self._views.items():
            wanted = [record for record in records if record.kind in view.kinds and record.place < filled_to]
            if wanted:
                self._scratch.offer(view, wanted)

    # SEAL

    def _check_seal(self, index: int, entry: Entry, statement: Statement, checked: Checked) -> None:
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
        check_succession(seal, self.seal)
        log_key = log.rules.log_key_at(index, self)
        if entry.key_id != log_key.key_id:
            raise VerificationError(f"the seal at entry {index} is not signed by the log")
        self._check_signature(index, entry, log_key, checked)
        if seal.root != self.frontier.root():
            raise VerificationError(
                f"the root in the seal at entry {index} is not the one derived",
                expected=seal.root,
                calculated=self.frontier.root(),
            )
        self._scratch.seal(index, seal.state_root)
        self.seal = seal

    def _check_checkpoint(self, index: int, checkpoint: bytes | None, checked: Checked) -> None:
        log = self._log
        if checkpoint is None or len(checkpoint) != ROOT_BYTES + 64:
            raise CorruptLedgerError(f"the checkpoint behind the seal at entry {index} is missing or short")
        row = SealRow(index, checkpoint[:ROOT_BYTES], checkpoint[ROOT_BYTES:])
        if row.root != self.frontier.root():
            raise VerificationError(
                f"the root of the checkpoint at size {index + 1} is not the one derived",
                expected=row.root,
                calculated=self.frontier.root(),
            )
        log_key = log.rules.log_key_at(index, self)
        if (
            not checked.is_checkpoint_signed or log_key != log.genesis.log_key
        ):  # only the first key was tried so far
            try:
                log_key.verify(log.checkpoint_of(row).body().encode(), row.signature)
            except VerificationError as error:
                raise VerificationError(
                    f"the checkpoint at size {index + 1} is not signed by the log"
                ) from error
        self._link(index, checkpoint)
        self._report.sealed_size = index + 1
        self._report.root = row.root.hex()

    def _link(self, index: int, checkpoint: bytes) -> None:
        self.checkpoint_chain = hashlib.sha256(
            self.checkpoint_chain + index.to_bytes(8, "big") + checkpoint
        ).digest()


def _changed(index: int) -> CorruptLedgerError:
    return CorruptLedgerError(f"entry {index} was changed after it was appended, or its stored hash was")
