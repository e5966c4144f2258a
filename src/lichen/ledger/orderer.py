"""What gives records their order: a port, and the adapter for a ledger with one writer.

However order is agreed, records come in as signed entries and go out with an index or the rule that refused them; contracts,
proofs and views stay the same. A mechanism with several members implements `Orderer` over its own protocol and hands each
agreed batch to the ledger of every member.

The solo adapter joins callers that come at the same time into one durable transaction (group commit): while one waits for
the disk, the others queue up, and the next transaction takes them all. So the disk is asked once per batch, and everyone
still returns only when their own entry is durable.

Source: Lamport 1978 (total order), DeWitt et al. 1984, section 5.2 (group commit).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from lichen.errors import Rejected, UsageError
from lichen.ledger.ledger import SOLO

if TYPE_CHECKING:
    from lichen.encoding.entry import Entry
    from lichen.ledger.ledger import Ledger
    from lichen.ledger.ports import Appended

__all__ = ["Orderer", "SoloOrderer"]

BATCH_COUNT_MAX: Final = 1_000  # entries in one transaction; more wait for the next


class Orderer(Protocol):
    """Gives entries their order in one ledger.

    Attributes:
        name: Name of the mechanism, as the genesis calls it under ``sealing.consensus``.
    """

    @property
    def name(self) -> str:
        """Name of the mechanism."""

    def submit(self, entries: Sequence[Entry], *, seal: bool = False) -> list[Appended | Rejected]:
        """Order entries; return when their place is final and durable.

        Args:
            entries: Signed by members; they keep their order among themselves.
            seal: Close the block behind them as soon as they have their place.

        Returns:
            For each entry its index, or the rule that refused it.

        Raises:
            StorageError: Nothing of this call was ordered.
            NetworkError: The agreement was not reached, or its outcome is unknown (``definite``).
        """

    def close(self) -> None:
        """Take nothing more, and return when all that was taken has its answer."""


@dataclass(slots=True)
class _Request:
    """One caller's entries, and later what became of them.

    Attributes:
        entries: As submitted.
        seal: Whether a seal was asked for.
        results: One per entry, once there is an answer.
        failure: Why there is none.
        is_answered: True when one of the two is set.
    """

    entries: Sequence[Entry]
    seal: bool
    results: list[Appended | Rejected] = field(default_factory=list)
    failure: BaseException | None = None
    is_answered: bool = False


class SoloOrderer:
    """Order by arrival at the one process that holds the log key.

    Args:
        ledger: Open for writing. Several processes may each have such an orderer over the same ledger; the file's lock
            orders their batches.

    Raises:
        UsageError: The ledger is agreed upon in another way, or open for reading only.
    """

    name = SOLO

    def __init__(self, ledger: Ledger) -> None:
        consensus = ledger.genesis.sealing.consensus
        if consensus != self.name:
            raise UsageError(
                f"this ledger is ordered by {consensus!r}, not by one writer alone",
                remedy=f"submit to the members that run {consensus!r}",
            )
        if ledger.read_only:
            raise UsageError(f"{ledger.path} is open for reading only", remedy="open it with the log key")
        self._ledger = ledger
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._is_writing = False
        self._is_closed = False

    def submit(self, entries: Sequence[Entry], *, seal: bool = False) -> list[Appended | Rejected]:
        """See `Orderer.submit`. May be called from several threads at a time."""
        request = _Request(tuple(entries), seal)
        with self._changed:
            if self._is_closed:
                raise UsageError("this orderer is closed", remedy="open the ledger again")
            self._waiting.append(request)
        while not request.is_answered:
            batch = self._turn(request)
            if batch:
                self._write_for_all(batch)
        if request.failure is not None:
            raise request.failure
        return request.results

    def close(self) -> None:
        """See `Orderer.close`. The ledger stays open: whoever opened it closes it."""
        with self._changed:
            self._is_closed = True
            while self._is_writing or self._waiting:
                self._changed.wait()

    def _turn(self, request: _Request) -> list[_Request]:
        """Wait until the request is answered, or until this thread is to write; then take what is to be written."""
        with self._changed:
            while self._is_writing and not request.is_answered:
                self._changed.wait()
            if request.is_answered:
                return []
            self._is_writing = True
            return self._take()

    def _write_for_all(self, batch: Sequence[_Request]) -> None:
        try:
            self._write(batch)
        finally:
            with self._changed:
                self._is_writing = False
                self._changed.notify_all()

    def _take(self) -> list[_Request]:
        """Requests for one transaction, oldest first; at least one when any waits."""
        batch: list[_Request] = []
        count = 0
        while self._waiting and (not batch or count + len(self._waiting[0].entries) <= BATCH_COUNT_MAX):
            batch.append(self._waiting.popleft())
            count += len(batch[-1].entries)
        return batch

    def _write(self, batch: Sequence[_Request]) -> None:
        """Append a batch in one transaction and hand each caller its part."""
        try:
            results = self._ledger.append_many(
                [entry for request in batch for entry in request.entries],
                seal=any(request.seal for request in batch),
            )
        except BaseException as failure:
            for request in batch:
                request.failure, request.is_answered = failure, True
            if not isinstance(failure, Exception):
                raise
            return
        start = 0
        for request in batch:
            request.results = results[start : start + len(request.entries)]
            request.is_answered = True
            start += len(request.entries)
