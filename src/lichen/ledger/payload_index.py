"""Where a payload stands in the log: what makes sure that a record counts once.

Rules upheld here:

* Every record's payload digest is found, seals excepted: they are the ledger's own and cannot be sent twice.
* Digests of the entries since the last full hash tile are not stored: they follow from at most 255 entries, which are there
  anyway. So an append touches no page of the index; 256 digests go in together, sorted, when a tile is full.
* A stored digest is its first 8 bytes and confirmed on the entry itself: a forged collision costs its maker 2^32 hashes
  and gains nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lichen.crypto.hashes import sha256
from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES
from lichen.ledger.tables import prefix_of
from lichen.ledger.tree import TILE_WIDTH

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.ledger.tables import Tables

__all__ = ["PayloadIndex"]

CATCH_UP_COUNT_MAX: Final = 2_048


class PayloadIndex:
    """Index by payload digest, kept in step with the file by `refresh`, `add` and `skip`.

    Attributes:
        size: Count of entries it knows of; -1 when it knows nothing.
    """

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.forget()

    def forget(self) -> None:
        """Drop what is in memory, after a transaction was undone."""
        self.size = -1
        self._tail: dict[bytes, int] = {}
        self._expect_nothing()

    def _expect_nothing(self) -> None:
        self._expected: frozenset[bytes] = frozenset()
        self._namesakes: set[int] = set()
        self._stored: dict[bytes, int] = {}  # what left the tail since `expect`

    def refresh(self, size: int) -> None:
        """Bring memory in step with a file that holds ``size`` entries.

        Costs one hash for each entry that other processes appended, or for at most 255 when those are many.
        """
        if size == self.size:
            return
        self._expect_nothing()
        first = size - size % TILE_WIDTH
        start = first
        if 0 <= self.size < size <= self.size + CATCH_UP_COUNT_MAX:
            start = max(self.size, first)
            self._tail = {digest: index for digest, index in self._tail.items() if index >= first}
        else:
            self._tail = {}
        for index, data in self._tables.record_range(start, size):
            self._tail.setdefault(sha256(data[ENTRY_OVERHEAD_BYTES:]), index)
        self.size = size

    def expect(self, digests: Sequence[bytes]) -> None:
        """Look many digests up at once; until other processes append, `find` then asks the file only for namesakes.

        Args:
            digests: 32 bytes each.
        """
        self._expect_nothing()
        self._namesakes = self._tables.prefixes_on_file(digests)
        self._expected = frozenset(digests)

    def find(self, digest: bytes) -> int | None:
        """Index of the first entry whose payload has this SHA-256, or None.

        Args:
            digest: 32 bytes.
        """
        if digest in self._expected and prefix_of(digest) not in self._namesakes:
            stored = self._stored.get(digest)
        else:
            stored = self._tables.find_payload(digest)
        return self._tail.get(digest) if stored is None else stored

    def add(self, digest: bytes) -> None:
        """Note the payload of the entry that was just appended; inside its transaction."""
        self._tail.setdefault(digest, self.size)
        self.skip()

    def skip(self) -> None:
        """Note that the entry just appended was a seal; inside its transaction."""
        self.size += 1
        if self.size % TILE_WIDTH == 0:
            self._tables.insert_payloads(self._tail)
            if self._expected:
                self._stored |= self._tail
            self._tail = {}
