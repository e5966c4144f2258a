"""The reading side of an open ledger: what is there, and proofs of it.

Every call looks at one unmoving picture of the file and first takes over what other processes appended. Entries are compared
with their stored hashes, and proofs are verified before they are handed out.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.encoding.entry import Entry
from lichen.errors import NotFoundError, UsageError
from lichen.ledger.answers import Answers
from lichen.ledger.ports import Record, StateReader
from lichen.ledger.queries import Queries
from lichen.ledger.tree import TILE_HEIGHT, TILE_WIDTH

if TYPE_CHECKING:
    from lichen.crypto.keys import PublicKey
    from lichen.ledger.genesis import Genesis
    from lichen.ledger.log_file import LogFile
    from lichen.ledger.receipt_format import Receipt
    from lichen.ledger.seal import Seal
    from lichen.ledger.tables import SealRow
    from lichen.ledger.views import Progress, ViewSet

__all__ = ["LedgerReader"]


class LedgerReader:
    """What can be asked of a ledger.

    Args:
        log: The open file.
        views: The query tables it was opened with.
        progress: Told while views are filled.

    Attributes:
        directory: Where it lies.
    """

    def __init__(self, log: LogFile, views: ViewSet, progress: Progress | None = None) -> None:
        self.directory = log.database.path.parent
        self._log = log
        self._views = views
        self._answers = Answers(log)
        self._queries = Queries(log, views, progress)

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Ledger id: leaf hash of entry 0, 64 hexadecimal digits."""
        return self._log.id

    @property
    def origin(self) -> str:
        """First line of its checkpoints, ``lichen/<id>``."""
        return self._log.origin

    @property
    def genesis(self) -> Genesis:
        """What entry 0 says."""
        return self._log.genesis

    @property
    def log_key(self) -> PublicKey:
        """The log's key now: that of the genesis, or the one that took its place."""
        return self.log_keys[-1]

    @property
    def log_keys(self) -> tuple[PublicKey, ...]:
        """Every key the log has had, oldest first."""
        with self._reading():
            return tuple(key for _, key in self._log.log_keys())

    @property
    def path(self) -> Path:
        """The file."""
        return self._log.database.path

    @property
    def size(self) -> int:
        """Count of entries, seals included."""
        with self._reading():
            return self._log.size

    @property
    def sealed_size(self) -> int:
        """Tree size of the newest checkpoint."""
        with self._reading():
            return self._log.mark().size

    @property
    def last_seal(self) -> Seal:
        """The newest seal."""
        with self._reading():
            seal = self._log.last_seal
        if seal is None:
            raise UsageError(f"{self.path} has no seal yet")
        return seal

    @property
    def connection(self) -> sqlite3.Connection:
        """A connection for queries over views; it can only read, and sees all that was committed before it was taken.

        Take it again for each question: that is what fills the views.

        Raises:
            StorageError: It cannot be opened, or a view cannot hold an entry.
        """
        return self._queries.connection()

    # -- reading ---------------------------------------------------------------------------------------------------

    def entry(self, index: int) -> Entry:
        """The entry at an index.

        Raises:
            NotFoundError: There is none.
            CorruptLedgerError: Its bytes changed after they were appended.
        """
        with self._reading():
            return self._log.entry_of(self._log.entry_bytes(index), index)

    def entries(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Entry]]:
        """Pairs of index and entry, in order, seals included.

        Args:
            start: First index.
            stop: One past the last; None for all there are now.
        """
        end = self.size if stop is None else min(stop, self.size)
        with self._log.database.guard:
            for index, data in self._log.tables.entry_range(start, end):
                yield index, self._log.entry_of(data, index)

    def record(self, index: int) -> Record | None:
        """The parsed record at an index; None for a seal.

        Raises:
            NotFoundError: There is no such entry.
            CorruptLedgerError: Its bytes changed after they were appended.
        """
        with self._reading():
            return self._log.parse(self._log.entry_bytes(index), index)

    def find_payload(self, digest: bytes) -> int | None:
        """Index of the entry whose payload has this SHA-256, or None."""
        with self._reading():
            return self._log.find_payload(digest)

    @property
    def state(self) -> StateReader:
        """The state after all entries, also those no seal covers yet, as contracts see it; each look is a new one."""
        return _LiveState(self)

    def state_get(self, contract: str, key: bytes) -> bytes | None:
        """Value of a key of the state after all entries, or None."""
        with self._reading():
            return self._log.get(contract, key)

    # -- proving ---------------------------------------------------------------------------------------------------

    def checkpoint(self) -> str:
        """The newest checkpoint: a signed note."""
        with self._reading():
            return self._answers.checkpoint()

    def checkpoint_behind(self, index: int) -> str:
        """The checkpoint that stands behind a seal: a signed note.

        Args:
            index: Index of the seal.

        Raises:
            NotFoundError: No seal stands there.
        """
        with self._reading():
            row = self._log.tables.seal_at(index)
            if row is None:
                raise NotFoundError(f"entry {index} is not a seal, so no checkpoint stands behind it")
            return self._answers.checkpoint(row)

    def receipt(self, index: int) -> Receipt:
        """Proof, for anyone and offline, that an entry stands at an index.

        Seals first when the entry is not sealed yet and this ledger can be written.

        Raises:
            NotFoundError: There is no such entry.
            UsageError: The entry is not sealed yet, and this ledger is open for reading only.
            CorruptLedgerError: The ledger is damaged on the way.
        """
        self._seal_before_proving(index)
        with self._reading():
            return self._answers.receipt(index)

    def state_receipt(self, contract: str, key: bytes) -> Receipt:
        """Proof, for anyone and offline, of what the newest sealed state says about a key: its value, or its absence.

        Seals first when entries are pending and this ledger can be written.

        Args:
            contract: Whose key.
            key: What the contract calls it.

        Raises:
            CorruptLedgerError: The ledger is damaged on the way.
        """
        self._seal_before_proving(None)
        with self._reading():
            return self._answers.state_receipt(contract, key)

    def first_receipt(self, index: int) -> Receipt:
        """The receipt of an entry under the first checkpoint that covers it: the same text whenever it is asked for.

        Raises:
            NotFoundError: There is no such entry.
            UsageError: No seal covers it yet.
            CorruptLedgerError: The ledger is damaged on the way.
        """
        with self._reading():
            return self._answers.first_receipt(index)

    def state_receipt_at(self, tree_size: int, contract: str, key: bytes) -> Receipt:
        """What the sealed state behind one checkpoint says about a key; never another answer for the same question.

        Args:
            tree_size: Size of the checkpoint.
            contract: Whose key.
            key: What the contract calls it.

        Raises:
            NotFoundError: No checkpoint stands at that size, or its state is no longer kept and only replay has it.
            CorruptLedgerError: The ledger is damaged on the way.
        """
        with self._reading():
            return self._answers.state_receipt(contract, key, tree_size)

    def prove_inclusion(self, index: int, tree_size: int | None = None) -> list[bytes]:
        """Sibling hashes from an entry up to a root.

        Args:
            index: Which entry.
            tree_size: Under which tree; None for the newest checkpoint's.

        Raises:
            UsageError: The tree does not contain the entry, or the log is not that long.
        """
        with self._reading():
            return self._answers.inclusion(index, tree_size)

    def prove_consistency(self, size_first: int, size_second: int | None = None) -> list[bytes]:
        """Hashes that show that the tree of one size is the beginning of that of another.

        Args:
            size_first: The earlier size.
            size_second: The later; None for the newest checkpoint's.

        Raises:
            UsageError: The log never had these sizes in this order.
        """
        with self._reading():
            return self._answers.consistency(size_first, size_second)

    def root_at(self, tree_size: int) -> bytes:
        """Root of the tree over the first ``tree_size`` entries, 32 bytes."""
        with self._reading():
            if not 0 <= tree_size <= self._log.size:
                raise UsageError(f"this log has {self._log.size} entries, it never had {tree_size}")
            return self._log.tree().root_at(tree_size)

    # -- publishing ------------------------------------------------------------------------------------------------

    def tile(self, level: int, number: int, width: int) -> bytes:
        """Hashes of a tile of the log's tree, as C2SP tlog-tiles numbers and writes them.

        Args:
            level: 0 for leaf hashes; each level above holds the roots of full tiles below.
            number: Place of the tile on its level.
            width: How many of its hashes, 1 to 256, counted from its start.

        Returns:
            ``32 * width`` bytes.

        Raises:
            NotFoundError: No seal covers all of them yet.
            CorruptLedgerError: They are missing from the file.
        """
        with self._reading():
            if (
                not 1 <= width <= TILE_WIDTH
                or (number * TILE_WIDTH + width) << (TILE_HEIGHT * level) > self._log.mark().size
            ):
                raise NotFoundError(f"this log has no tile {number} of width {width} on level {level} yet")
            return self._log.tree().read_hashes(level, number * TILE_WIDTH, width)

    def sealed_entries(self, start: int, stop: int) -> list[bytes]:
        """Entries in their compact form, none that no seal covers yet.

        Args:
            start: First index.
            stop: One past the last.

        Raises:
            NotFoundError: No seal covers all of them yet.
            CorruptLedgerError: Bytes changed after they were appended.
        """
        with self._reading():
            if not 0 <= start < stop <= self._log.mark().size:
                raise NotFoundError(f"this log has no sealed entries {start} to {stop - 1}")
            return [self._log.entry_bytes(index) for index in range(start, stop)]

    def seal_rows(self, start: int, stop: int) -> list[SealRow]:
        """Index, root and log signature of each checkpoint whose seal stands in a range of entries.

        Args:
            start: First index.
            stop: One past the last.
        """
        with self._reading():
            return self._log.tables.seals(start, stop)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _seal_before_proving(self, index: int | None) -> None:
        """Close the block first when an entry, or any with None, has no seal yet; a mere reader cannot."""

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._log.database.read() as connection:
            self._log.refresh()
            yield connection


class _LiveState:
    """A `StateReader` over a ledger that others may append to meanwhile."""

    def __init__(self, reader: LedgerReader) -> None:
        self._reader = reader

    @property
    def size(self) -> int:
        """Count of entries now."""
        return self._reader.size

    def get(self, contract: str, key: bytes) -> bytes | None:
        """Value of a key now, or None."""
        return self._reader.state_get(contract, key)

    def record(self, index: int) -> Record | None:
        """Record at an index; None when there is none, or it is a seal."""
        return self._reader.record(index) if 0 <= index < self._reader.size else None
