"""The one writer of a server: submissions that come at the same time share one transaction, and one wait for the disk.

Requests put their entry into a bounded queue and wait without a thread; one thread takes what waits, appends it with
`Ledger.append_many` and answers each. While it waits for the disk the next batch gathers. Rules upheld here:

* An answer is given after the commit, so what was acknowledged is durable; whoever gets no acknowledgement is told so.
* The queue is bounded: when it is full, submitters are told to come back, and nothing of theirs was taken.
* When the log of the ledger got a new key (`lichen key succeed`), the ledger is opened again with it; while that key is not
  to be had, nothing is taken.
* A payload that is there already is answered as it was the first time, for the same signed bytes only.

Source: DeWitt et al. 1984, section 5.2 (group commit).
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from lichen.crypto.hashes import sha256
from lichen.errors import KeyFileError, LichenError, Rejected, StorageError
from lichen.net.server.problem import Problem, problem_of

if TYPE_CHECKING:
    from lichen.encoding.entry import Entry
    from lichen.ledger.ledger import Ledger

__all__ = ["Accepted", "BatchObserver", "Committer", "no_log_key"]

BATCH_COUNT_MAX: Final = 1_000
SEAL_CHECK_SECONDS: Final = 0.5  # how often an idle writer asks whether the block is due

_LOG = logging.getLogger("lichen.serve")

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A record that is in the ledger, durably.

    Attributes:
        index: Where.
        payload_digest: SHA-256 of its payload, 32 bytes.
        is_new: False when it was there before this submission.
        receipt: Text of the receipt under the first checkpoint that covers it; None when none does yet, or nobody asked.
    """

    index: int
    payload_digest: bytes
    is_new: bool
    receipt: str | None


@dataclass(slots=True)
class _Submission:
    """One entry that waits for its place.

    Attributes:
        entry: As submitted.
        wants_receipt: Whether the block is to be closed behind it, and the receipt made.
        wants_seal: Whether the block is to be closed behind it.
        answer: Set in the event loop's thread.
    """

    entry: Entry
    wants_receipt: bool
    wants_seal: bool
    answer: asyncio.Future[Accepted]


class BatchObserver:
    """Hears of each transaction; does nothing unless overridden."""

    def committed(self, count: int, seconds: float) -> None:
        """Told in the writer's thread how many entries a batch had and how long its transaction took."""


class Committer:
    """Appends what many requests submit.

    Args:
        ledger: Open for writing; used by this object's thread alone from now on.
        waiting_max: Submissions that may wait.
        loop: Where answers are delivered.
        observer: Hears of each transaction.
        block_count_max: Entries after which a block is closed, where the ledger's own policy would wait for more; None leaves it to that.
        reopen: Opens the ledger again with the key that its log has now; raises `KeyFileError` when that is not here. None
            where nobody gives the log a new key.

    Attributes:
        lacks_log_key: True while the log has a key that is not here, so that nothing is taken.
    """

    def __init__(
        self,
        ledger: Ledger,
        waiting_max: int,
        loop: asyncio.AbstractEventLoop,
        observer: BatchObserver | None = None,
        *,
        block_count_max: int | None = None,
        reopen: Callable[[], Ledger] | None = None,
    ) -> None:
        self._ledger = ledger
        self._waiting_max = waiting_max
        self._loop = loop
        self._observer = observer or BatchObserver()
        self._block_count_max = block_count_max
        self._reopen = reopen
        self.lacks_log_key = False
        self._waiting: deque[_Submission] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._has_open_block = ledger.sealed_size < ledger.size
        self._thread = threading.Thread(target=self._run, name="lichen-writer", daemon=True)
        self._thread.start()

    @property
    def waiting_count(self) -> int:
        """Submissions that wait now."""
        return len(self._waiting)

    def submit(self, entry: Entry, *, wants_receipt: bool) -> asyncio.Future[Accepted]:
        """Queue an entry; called in the event loop's thread.

        Args:
            entry: Signed by a member.
            wants_receipt: Close the block behind it, so that there is a receipt at once.

        Returns:
            What becomes of it; fails with a `Problem`.

        Raises:
            Problem: The queue is full, or the server is shutting down; nothing was taken.
        """
        submission = _Submission(entry, wants_receipt, wants_receipt, self._loop.create_future())
        self._queue([submission])
        return submission.answer

    def submit_many(self, entries: Sequence[Entry], *, wants_seal: bool) -> list[asyncio.Future[Accepted]]:
        """Queue entries that came together, all of them or none; called in the event loop's thread.

        Args:
            entries: Signed by members, in the order they shall have.
            wants_seal: Close the block behind the last.

        Returns:
            What becomes of each; one that is refused fails with a `Problem`, the others go on.

        Raises:
            Problem: The queue is too full, or the server is shutting down; nothing was taken.
        """
        submissions = [_Submission(entry, False, False, self._loop.create_future()) for entry in entries]
        if submissions:
            submissions[-1].wants_seal = wants_seal
            self._queue(submissions)
        return [submission.answer for submission in submissions]

    def _queue(self, submissions: Sequence[_Submission]) -> None:
        with self._changed:
            if self._is_closing:
                raise Problem.busy(
                    "the server is shutting down; nothing was taken", code="shutting-down", seconds=5
                )
            if len(self._waiting) + len(submissions) > self._waiting_max:
                raise Problem.busy(
                    f"{len(self._waiting)} records wait for the disk already, of {self._waiting_max} that may; nothing was taken"
                )
            self._waiting.extend(submissions)
            self._changed.notify()

    def close(self) -> None:
        """Take nothing more, append what waits, close the block and end the thread. The ledger stays open."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()

    # -- the writer's thread ---------------------------------------------------------------------------------------

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            if batch:
                outcomes = self._append(batch)
                self._loop.call_soon_threadsafe(_deliver, batch, outcomes)
            else:
                self._seal()
        if self._has_open_block:
            self._seal(force=True)

    def _next_batch(self) -> list[_Submission] | None:
        """Wait for submissions; none of them when only time has passed, None when there will be no more."""
        with self._changed:
            if not self._waiting and not self._is_closing:
                self._changed.wait(SEAL_CHECK_SECONDS if self._has_open_block else None)
            if not self._waiting:
                return None if self._is_closing else []
            return [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_COUNT_MAX))]

    def _append(self, batch: Sequence[_Submission]) -> list[Accepted | Problem]:
        started = time.perf_counter()
        try:
            entries = [submission.entry for submission in batch]
            wants_seal = self._is_block_full(len(batch)) or any(one.wants_seal for one in batch)
            results = self._with_log_key(lambda: self._ledger.append_many(entries, seal=wants_seal))
            self._observer.committed(len(batch), time.perf_counter() - started)
            self._has_open_block = self._ledger.sealed_size < self._ledger.size
        except Exception as error:  # whatever it is, every submitter must hear that nothing was acknowledged
            if not self.lacks_log_key:
                _LOG.error("a batch of %d records could not be appended: %s", len(batch), error)
            return [_not_taken(error)] * len(batch)
        outcomes: list[Accepted | Problem] = []
        for submission, result in zip(batch, results, strict=True):
            try:
                if isinstance(result, Rejected):
                    outcomes.append(self._earlier(submission, result))
                else:
                    receipt = self._receipt(result.index) if submission.wants_receipt else None
                    outcomes.append(Accepted(result.index, result.payload_digest, True, receipt))
            except Exception as error:  # it is in the ledger, but its receipt cannot be made
                _LOG.error("a record was appended, but its receipt failed: %s", error)
                outcomes.append(problem_of(error) if isinstance(error, LichenError) else _internal())
        return outcomes

    def _with_log_key(self, write: Callable[[], _Result]) -> _Result:
        """Write to the ledger; when its log has another key than it was opened with, with that one.

        Raises:
            KeyFileError: The log's key is not here; nothing was written.
            LichenError: Anything else that failed; nothing was written.
        """
        if self.lacks_log_key:
            self._renew()
        try:
            return write()
        except KeyFileError:
            if self._reopen is None:
                raise
            self._renew()
            return write()

    def _renew(self) -> None:
        if self._reopen is None:
            return
        try:
            self._ledger = self._reopen()
        except KeyFileError as error:
            if not self.lacks_log_key:
                _LOG.error("no records are taken until this is mended: %s. %s", error.message, error.remedy)
            self.lacks_log_key = True
            raise
        self.lacks_log_key = False
        _LOG.warning("the log of the ledger has a new key; going on with it")

    def _is_block_full(self, count: int) -> bool:
        """Say whether the open block has enough entries when so many more are in it."""
        if self._block_count_max is None:
            return False
        return self._ledger.size - self._ledger.sealed_size + count >= self._block_count_max

    def _earlier(self, submission: _Submission, refusal: Rejected) -> Accepted | Problem:
        """Answer a payload that is in the ledger already as it was answered the first time."""
        digest = sha256(submission.entry.payload)
        index = self._ledger.find_payload(digest) if refusal.rule == "ledger.duplicate" else None
        if index is None:
            return problem_of(refusal)
        if self._ledger.entry(index) != submission.entry:
            return Problem(
                409,
                "rejected",
                "a record with this payload is in the ledger with another signature",
                remedy="submit the bytes that were submitted first, or make a record with a new nonce",
                extra={"rule": refusal.rule},
            )
        if submission.wants_receipt and index >= self._ledger.sealed_size:
            self._ledger.seal(force=True)
        return Accepted(index, digest, False, self._receipt(index) if submission.wants_receipt else None)

    def _receipt(self, index: int) -> str:
        return self._ledger.first_receipt(index).to_text()

    def _seal(self, *, force: bool = False) -> None:
        """Close the block when it is due, or anyway; when that fails, it is tried again later."""
        try:
            self._with_log_key(lambda: self._ledger.seal(force=force))
            self._has_open_block = self._ledger.sealed_size < self._ledger.size
        except KeyFileError:
            return  # told when it was found; asked again in a moment
        except LichenError as error:
            _LOG.error("the block could not be sealed: %s", error)


def _deliver(batch: Sequence[_Submission], outcomes: Sequence[Accepted | Problem]) -> None:
    for submission, outcome in zip(batch, outcomes, strict=True):
        if submission.answer.cancelled():
            continue
        if isinstance(outcome, Problem):
            submission.answer.set_exception(outcome)
        else:
            submission.answer.set_result(outcome)


def _not_taken(error: Exception) -> Problem:
    """Say that nothing of a batch is in the ledger."""
    if isinstance(error, StorageError):
        return Problem(
            503,
            "storage",
            "the record was not taken, because the server's disk failed",
            remedy="submit it again later; whoever runs the server finds the reason in its log",
            headers={"Retry-After": "5"},
        )
    if isinstance(error, KeyFileError):
        return no_log_key()
    return problem_of(error) if isinstance(error, LichenError) else _internal()


def no_log_key() -> Problem:
    """Build the answer to whoever submits while the log's key is not to be had."""
    return Problem(
        503,
        "log-key",
        "no records are taken now: the log of this ledger has a new key, which this server does not have",
        remedy="tell whoever runs the server, whose log says what to do; submit again later",
        headers={"Retry-After": "60"},
    )


def _internal() -> Problem:
    return Problem(500, "internal", "the server met a mistake of its own; it is in its log")
