"""One ledger file and what of it is in memory: the base that appending, answering, auditing and views stand on.

Rules upheld here:

* Memory is a cache of the file and never ahead of it: after another process appended, or a transaction was undone,
  `LogFile.refresh` and `LogFile.undone` bring it back in step.
* An open ledger has been checked at its right edge: the last seal and checkpoint hold for the entries that are there,
  and the stored state has the root that the seal names. So nothing is signed on top of a damaged end.
* Every entry that is read is compared with its stored leaf hash.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lichen.crypto.hashes import sha256
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import (
    CorruptLedgerError,
    EncodingError,
    LichenError,
    NotFoundError,
    Rejected,
    RollbackError,
    VerificationError,
)
from lichen.ledger.checkpoint import Checkpoint, origin_of
from lichen.ledger.genesis import GENESIS_KIND, Genesis, ledger_id_of
from lichen.ledger.hash_tiles import HashTiles
from lichen.ledger.high_water import Mark
from lichen.ledger.payload_index import PayloadIndex
from lichen.ledger.ports import LOG_MEMBER, Record
from lichen.ledger.rulebook import Rulebook
from lichen.ledger.seal import SEAL_KIND, Seal
from lichen.ledger.state_map import state_key
from lichen.ledger.state_store import StateStore
from lichen.ledger.tables import SealRow, Tables
from lichen.ledger.tree import EMPTY_ROOT, leaf_hash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from lichen.crypto.keys import PublicKey
    from lichen.ledger.ports import Contract, StateReader
    from lichen.ledger.storage import Database

__all__ = ["LogFile"]

CACHED_VALUES_COUNT: Final = 4_096
_REMEDY: Final = "restore the ledger from a copy, then run `lichen verify`; do not append to this file"


class LogFile:
    """The ledger in a file, as one process sees it; also the `StateReader` that contracts get.

    Args:
        database: The open file; entry 0 is there.
        installed: Contracts this program has.

    Raises:
        CorruptLedgerError: Entry 0 is missing or damaged.
        FormatVersionError: A newer format, or a contract this program lacks.

    Attributes:
        genesis: What entry 0 says.
        id: Ledger id, 64 hexadecimal digits.
        origin: First line of its checkpoints.
        rules: The contracts in force.
        size: Count of entries as memory knows it; inside an append, the index the next entry will get.
        last_seal: The newest seal; None only while a ledger is being made.
        last_checkpoint: Root and signature of the checkpoint behind it.
    """

    def __init__(
        self, database: Database, installed: Iterable[Contract], genesis_entry: Entry | None = None
    ) -> None:
        self.database = database
        connection = database.connection
        self.tables = Tables(connection)
        self.tiles = HashTiles(connection, self.tables)
        self._payloads = PayloadIndex(self.tables)
        self.store = StateStore(connection)
        entry = genesis_entry or self._read_genesis()
        try:
            self.genesis = Genesis.from_entry(entry)
        except (EncodingError, VerificationError) as error:
            raise CorruptLedgerError(
                f"entry 0 of {database.path} is damaged: {error.message}", remedy=_REMEDY
            ) from error
        self.id = ledger_id_of(entry)
        self.id_text = b64u(bytes.fromhex(self.id))
        self.origin = origin_of(self.id)
        self.rules = Rulebook(self.genesis, installed)
        self.unsealed: dict[bytes, bytes | None] = {}
        self._derived_to = 0  # entries whose state writes are in `unsealed`, or sealed
        self._new_hashes: list[bytes] = []
        self._values: dict[bytes, bytes | None] = {}
        self._size_committed = 0
        self.size = -1
        self.last_seal: Seal | None = None
        self.last_checkpoint: SealRow | None = None
        database.before_commit = self._settle

    def _read_genesis(self) -> Entry:
        data = self.tables.entry_bytes(0)
        if data is None:
            raise CorruptLedgerError(f"{self.database.path} has no entry 0", remedy=_REMEDY)
        return self.entry_of(data, 0)

    def entry_of(self, data: bytes, index: int) -> Entry:
        """Take a stored compact entry apart.

        Raises:
            CorruptLedgerError: It is none.
        """
        try:
            return Entry.from_bytes(data)
        except EncodingError as error:
            raise CorruptLedgerError(
                f"entry {index} of {self.database.path} is damaged: {error.message}", remedy=_REMEDY
            ) from error

    # -- in step with the file -------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look whether other processes appended, and take over what they did. Inside `Database.read` or `.write`.

        Raises:
            RollbackError: The file has fewer entries than this process saw in it.
            CorruptLedgerError: The newest seal is damaged.
        """
        size = self.tables.entry_count()
        if size == self.size:
            return
        if size < self._size_committed:
            raise RollbackError(
                f"{self.database.path} had {self._size_committed} entries and now has {size}",
                expected=self._size_committed,
                calculated=size,
                remedy="an older copy was put in its place: put the newer one back, or start a fork with"
                " `lichen init --fork-from`",
            )
        known = self.last_checkpoint
        row = self.tables.last_seal(0 if known is None else known.index)
        if row is not None and (known is None or row.index != known.index):
            self._forget_state()
            self._derived_to = row.index + 1
            self.store.refresh()
            self.last_checkpoint = row
            self.last_seal = self.seal_at(row.index)
        self.size = self._size_committed = size

    def undone(self) -> None:
        """Drop everything in memory, because a transaction was undone."""
        self.size = -1
        self.last_seal = self.last_checkpoint = None
        self._forget_state()
        self._new_hashes = []
        self.tables.forget()
        self.tiles.forget()
        self._payloads.forget()

    def _forget_state(self) -> None:
        self.unsealed = {}
        self._derived_to = 0
        self._values.clear()

    def _settle(self) -> None:
        """Store what was kept back during a transaction: hash tiles that became full, and entries."""
        if self._new_hashes:
            self.tree()
        self.tables.flush()

    def committed(self) -> None:
        """Note that what was added is durable now."""
        self._size_committed = self.size

    def tree(self) -> HashTiles:
        """The hash tiles, in step with `size`."""
        if self._new_hashes:
            self.tiles.append(self._new_hashes)
            self._new_hashes = []
        else:
            self.tiles.refresh(self.size)
        return self.tiles

    def expect_payloads(self, digests: Sequence[bytes]) -> None:
        """Look many payload digests up at once, before they are asked for one by one."""
        self._payloads.refresh(self.size)
        self._payloads.expect(digests)

    def find_payload(self, digest: bytes) -> int | None:
        """Index of the record whose payload has this SHA-256, or None."""
        self._payloads.refresh(self.size)
        return self._payloads.find(digest)

    # -- reading ---------------------------------------------------------------------------------------------------

    def entry_bytes(self, index: int) -> bytes:
        """Compact entry at an index, compared with its stored hash.

        Raises:
            NotFoundError: No such entry.
            CorruptLedgerError: Its bytes changed after they were appended.
        """
        data = self.tables.entry_bytes(index) if 0 <= index < self.size else None
        if data is None:
            if 0 <= index < self.size:
                raise CorruptLedgerError(
                    f"entry {index} is missing from {self.database.path}", remedy=_REMEDY
                )
            raise NotFoundError(
                f"this ledger has {self.size} entries, there is no entry {index}",
                remedy="`lichen log` lists the entries there are",
            )
        stored, found = self.tree_hash(index), leaf_hash(data)
        if stored is not None and stored != found:
            raise CorruptLedgerError(
                f"entry {index} of {self.database.path} was changed after it was appended",
                expected=stored,
                calculated=found,
                remedy=_REMEDY,
            )
        return data

    def tree_hash(self, index: int) -> bytes | None:
        """Leaf hash of an entry as a full tile holds it; None while its tile is not full and so not stored."""
        return self.tiles.stored_leaf_hash(index)

    def record(self, index: int) -> Record | None:
        """See `lichen.ledger.ports.StateReader.record`."""
        if not 0 <= index < self.size:
            return None
        return self.parse(self.entry_bytes(index), index)

    def parse(
        self,
        data: bytes,
        index: int,
        state: StateReader | None = None,
        *,
        read: Callable[[bytes], Statement] = Statement.from_bytes,
    ) -> Record | None:
        """Make a record of a compact entry that is in the log; None for a seal.

        Args:
            data: The compact entry.
            index: Where it stands.
            state: Where to look its key up; None for the stored state.
            read: How to read its payload.

        Raises:
            CorruptLedgerError: It is none, or its key was never bound to anyone.
        """
        try:
            entry = Entry.from_bytes(data)
            statement = read(entry.payload)
        except EncodingError as error:
            raise CorruptLedgerError(f"entry {index} is damaged: {error.message}", remedy=_REMEDY) from error
        if statement.kind == SEAL_KIND:
            return None
        key = self.rules.authority.key_of(entry.key_id, state or self)
        if key is None:
            raise CorruptLedgerError(
                f"entry {index} is signed by key {entry.key_id.hex()}, which nobody ever had", remedy=_REMEDY
            )
        member = LOG_MEMBER if statement.kind == GENESIS_KIND else statement.predicate.get("member")
        if not isinstance(member, str) or (
            statement.kind != GENESIS_KIND and statement.kind not in self.rules.kinds
        ):
            raise CorruptLedgerError(
                f"entry {index} is damaged: it names no member, or no known kind", remedy=_REMEDY
            )
        return Record(index, entry, statement, statement.kind, member, sha256(entry.payload), key)

    def records(self, start: int = 0, stop: int | None = None) -> Iterator[Record]:
        """Every record from an index on, seals left out, in order."""
        for index, data in self.tables.record_range(start, self.size if stop is None else stop):
            record = self.parse(data, index, read=Statement.from_log)
            if record is not None:
                yield record

    def seal_at(self, index: int) -> Seal:
        """The seal that stands at an index.

        Raises:
            CorruptLedgerError: There is none, or it is damaged.
        """
        data = self.tables.entry_bytes(index)
        problem = "it is missing"
        if data is not None:
            try:
                seal = Seal.from_statement(Statement.from_bytes(Entry.from_bytes(data).payload))
            except EncodingError as error:
                problem = error.message
            else:
                if seal.tree_size == index:
                    return seal
                problem = f"it commits to size {seal.tree_size}"
        raise CorruptLedgerError(f"the seal at entry {index} is damaged: {problem}", remedy=_REMEDY)

    # -- state -----------------------------------------------------------------------------------------------------

    def get(self, contract: str, key: bytes) -> bytes | None:
        """See `lichen.ledger.ports.StateReader.get`."""
        if self._derived_to != self.size:
            self.catch_up()
        return self.value_at(state_key(contract, key))

    def value_at(self, place: bytes) -> bytes | None:
        """Value at a state key, 32 bytes, after all entries whose writes are known."""
        if place in self.unsealed:
            return self.unsealed[place]
        values = self._values
        if place in values:
            return values[place]
        value = self.store.get_known(place)
        if len(values) >= CACHED_VALUES_COUNT:
            values.clear()
        values[place] = value
        return value

    def catch_up(self) -> None:
        """Derive what entries changed that no seal covers yet and that this process did not append itself.

        Costs a few dozen microseconds for each of them; a block bounds their number.

        Raises:
            CorruptLedgerError: One of them is damaged.
        """
        for index, data in self.tables.record_range(self._derived_to, self.size):
            replay = _Replay(self, index)
            record = self.parse(data, index, replay, read=Statement.from_log)
            if record is None:
                continue
            try:
                self.unsealed |= self.rules.judge(record, replay)
            except Rejected as refusal:
                raise CorruptLedgerError(
                    f"entry {index} is damaged, for it was accepted once: {refusal.message}", remedy=_REMEDY
                ) from refusal
        self._derived_to = self.size

    # -- the log's keys --------------------------------------------------------------------------------------------

    def log_keys(self) -> tuple[tuple[int, PublicKey], ...]:
        """Every key of the log up to the newest seal: the first index it speaks for, and the key.

        A block that brings a new key is sealed in the same transaction, so the sealed state knows them all.
        """
        return self.rules.log_keys(_Sealed(self))

    def log_key_at(self, index: int) -> PublicKey:
        """The key that signed the seal at an index, which is not beyond the newest one."""
        return self.rules.log_key_at(index, _Sealed(self))

    # -- adding, inside a write transaction ------------------------------------------------------------------------

    def add_entry(self, data: bytes, payload_digest: bytes) -> int:
        """Store the compact entry of a record at the next index and return that; after `catch_up`.

        Args:
            data: The compact entry.
            payload_digest: SHA-256 of its payload.
        """
        index = self.size
        self._payloads.refresh(index)
        self.tables.insert_entry(index, data)
        self._new_hashes.append(leaf_hash(data))
        self._payloads.add(payload_digest)
        self.size = self._derived_to = index + 1
        return index

    def add_seal(self, data: bytes, sign: Callable[[bytes], bytes]) -> None:
        """Store a seal at the next index, with the checkpoint behind it.

        Args:
            data: The compact entry.
            sign: Signs the body of a checkpoint with the log's key.
        """
        index = self.size
        self._payloads.refresh(index)
        self._new_hashes.append(leaf_hash(data))
        self._payloads.skip()
        self.size = self._derived_to = index + 1
        checkpoint = Checkpoint(self.origin, index + 1, self.tree().root())
        self.last_checkpoint = SealRow(index, checkpoint.root, sign(checkpoint.body().encode()))
        self.tables.insert_entry(index, data, self.last_checkpoint.to_bytes())

    def add_writes(self, writes: dict[bytes, bytes | None]) -> None:
        """Change the state as the entry just added does; the next seal commits to it."""
        self.unsealed |= writes

    def state_root_sealed_at(self, index: int) -> bytes:
        """Store what unsealed entries changed, as the version of the state that a seal at ``index`` commits to."""
        root = self.store.update(index, self.unsealed)
        self._values |= self.unsealed
        self.unsealed = {}
        return root

    # -- the right edge --------------------------------------------------------------------------------------------

    def check_edge(self) -> None:
        """Check that last seal, checkpoint and state belong to the entries that are there; inside `Database.read`.

        Costs at most a millisecond or two, whatever the size.

        Raises:
            CorruptLedgerError: They contradict each other.
        """
        row = self.last_checkpoint
        if row is None or self.last_seal is None:
            raise CorruptLedgerError(f"{self.database.path} has no seal", remedy=_REMEDY)
        seal, tree = self.last_seal, self.tree()
        self._check_equal("the entries before the last seal", seal.root, tree.root_at(row.index))
        self._check_equal("the entries up to the last seal", row.root, tree.root_at(row.index + 1))
        self._check_equal("the stored state", seal.state_root, self.store.root)
        if self.store.version != row.index:
            raise CorruptLedgerError(
                f"the stored state belongs to another seal than the last, {row.index}",
                expected=row.index,
                calculated=self.store.version,
                remedy=_REMEDY,
            )
        try:
            self.log_key_at(row.index).verify(self.checkpoint_of(row).body().encode(), row.signature)
        except LichenError as error:
            raise CorruptLedgerError(
                f"the checkpoint at size {row.index + 1} is not signed by the log: {error.message}",
                remedy=_REMEDY,
            ) from error

    def mark(self) -> Mark:
        """The newest checkpoint."""
        row = self.last_checkpoint
        return Mark(0, EMPTY_ROOT) if row is None else Mark(row.index + 1, row.root)

    def high_water(self) -> Mark:
        """All entries, sealed or not, as a high-water mark; right behind the commit that made them durable."""
        return Mark(self.size, self.tree().root())

    def checkpoint_of(self, row: SealRow) -> Checkpoint:
        """What the log committed to after a seal."""
        return Checkpoint(self.origin, row.index + 1, row.root)

    def _check_equal(self, what: str, expected: bytes, calculated: bytes) -> None:
        if expected != calculated:
            raise CorruptLedgerError(
                f"{what} of {self.database.path} do not give the root that was signed",
                expected=expected,
                calculated=calculated,
                remedy=_REMEDY,
            )


class _Sealed:
    """The state that the newest seal commits to, without what came after it.

    Args:
        log: The file.
    """

    def __init__(self, log: LogFile) -> None:
        self._log = log
        self.size = log.size

    def get(self, contract: str, key: bytes) -> bytes | None:
        """See `lichen.ledger.ports.StateReader.get`."""
        return self._log.store.get_known(state_key(contract, key))

    def record(self, index: int) -> Record | None:
        """See `lichen.ledger.ports.StateReader.record`."""
        return self._log.record(index)


class _Replay:
    """The state before an unsealed entry, for the contract that says once more what the entry changed."""

    def __init__(self, log: LogFile, size: int) -> None:
        self._log = log
        self.size = size

    def get(self, contract: str, key: bytes) -> bytes | None:
        """See `lichen.ledger.ports.StateReader.get`."""
        return self._log.value_at(state_key(contract, key))

    def record(self, index: int) -> Record | None:
        """See `lichen.ledger.ports.StateReader.record`."""
        if not 0 <= index < self.size:
            return None
        return self._log.parse(self._log.entry_bytes(index), index, self)
