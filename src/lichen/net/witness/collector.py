"""Collects cosignatures for the newest checkpoint of a ledger, from every witness of its policy at once.

Rules upheld:

* Nothing here holds up an append: checkpoints are made without witnesses, and cosigned when witnesses answer.
* A witness that is away or slow delays no other, and is asked again for a later checkpoint.
* What was collected is on the disk before it is reported.

Source: C2SP tlog-witness, "Introduction".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lichen.errors import LichenError
from lichen.ledger.checkpoint import parse_checkpoint
from lichen.ledger.cosigned import CosignedCheckpoints, read_ledger_policy
from lichen.ledger.policy import Policy, Quorum, Witness, shown
from lichen.net.witness.client import TIMEOUT_SECONDS, request_cosignature

if TYPE_CHECKING:
    from lichen.ledger.reader import LedgerReader

__all__ = ["Collected", "Collector", "WitnessAnswer", "collect_cosignatures"]

THREAD_COUNT_MAX: Final = 16

_LOG = logging.getLogger("lichen.witness")


@dataclass(frozen=True, slots=True)
class WitnessAnswer:
    """What came of asking one witness.

    Attributes:
        name: Its name in the policy.
        url: Where it was asked; None when the policy does not say.
        time_unix_seconds: When it signed; None when it did not.
        problem: Why it did not; None when it did.
    """

    name: str
    url: str | None
    time_unix_seconds: int | None = None
    problem: LichenError | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What came of asking all witnesses.

    Attributes:
        tree_size: Size of the checkpoint they were asked about.
        answers: One per witness, in the policy's order.
        quorum: What the policy says of the checkpoint now.
    """

    tree_size: int
    answers: tuple[WitnessAnswer, ...]
    quorum: Quorum

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        return {
            "tree_size": self.tree_size,
            "is_witnessed": self.quorum.is_reached,
            "witnesses": [
                {
                    "witness": answer.name,
                    "url": answer.url,
                    "time_unix_seconds": answer.time_unix_seconds,
                    "problem": None if answer.problem is None else answer.problem.message,
                    "code": None if answer.problem is None else answer.problem.code,
                }
                for answer in self.answers
            ],
        }


def collect_cosignatures(
    ledger: LedgerReader, policy: Policy, *, timeout_seconds: float = TIMEOUT_SECONDS
) -> Collected:
    """Ask every witness of a policy for its cosignature on the newest checkpoint, and keep what holds.

    Args:
        ledger: The ledger.
        policy: Its policy.
        timeout_seconds: For each question to each witness.

    Returns:
        What each witness said.

    Raises:
        StorageError: What was collected cannot be written.
    """
    cosigned = CosignedCheckpoints(ledger.directory)
    note = ledger.checkpoint()
    checkpoint, signed = parse_checkpoint(note)
    kept = cosigned.read(checkpoint.tree_size) or signed

    def ask(witness: Witness) -> WitnessAnswer:
        name = shown(witness.name)
        for each in policy.judge(kept, int(time.time())).cosigners:
            if each.key == witness.key:
                return WitnessAnswer(name, witness.url, each.time_unix_seconds)
        try:
            found = request_cosignature(
                witness,
                note,
                ledger.prove_consistency,
                cosigned.size_known(witness.key),
                timeout_seconds=timeout_seconds,
            )
            cosigned.add(note, found.signature)
        except LichenError as error:
            return WitnessAnswer(name, witness.url, problem=error)
        return WitnessAnswer(name, witness.url, found.time_unix_seconds)

    with ThreadPoolExecutor(max(1, min(THREAD_COUNT_MAX, len(policy.witnesses)))) as threads:
        answers = tuple(threads.map(ask, policy.witnesses))
    quorum = policy.judge(cosigned.read(checkpoint.tree_size) or signed, int(time.time()))
    if quorum.is_reached:
        cosigned.prune(policy)
    return Collected(checkpoint.tree_size, answers, quorum)


class Collector:
    """Collects in the background, for as long as a ledger is served.

    It looks every few seconds for a newer checkpoint and asks the witnesses about it, once; those that were away are asked
    again after a while. Without a policy beside the ledger it does nothing but look for one.

    Args:
        ledger: An open ledger of its own: the collector reads it from its thread.
        poll_seconds: How often to look.
        retry_seconds: After how long witnesses that were away are asked again about the same checkpoint.
        on_collected: Told what came of it, in the collector's thread.
        clock: Seconds, never set back.
    """

    def __init__(
        self,
        ledger: LedgerReader,
        *,
        poll_seconds: float = 2.0,
        retry_seconds: float = 60.0,
        on_collected: Callable[[Collected], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._poll_seconds = poll_seconds
        self._retry_seconds = retry_seconds
        self._on_collected = on_collected
        self._clock = clock
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="cosignatures", daemon=True)
        self._asked_size = -1
        self._asked_at = 0.0
        self._is_complete = False

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop, after what is under way; a question lasts no longer than its timeout."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def look(self) -> Collected | None:
        """Look once: ask the witnesses when there is something to ask; None when there is not."""
        policy = read_ledger_policy(self._ledger.directory)
        if policy is None:
            return None
        size, now = self._ledger.sealed_size, self._clock()
        if size == self._asked_size and (self._is_complete or now - self._asked_at < self._retry_seconds):
            return None
        self._asked_size, self._asked_at, self._is_complete = size, now, False
        collected = collect_cosignatures(self._ledger, policy)
        self._asked_size = collected.tree_size
        self._is_complete = all(answer.problem is None for answer in collected.answers)
        return collected

    def _work(self) -> None:
        while not self._stop.is_set():
            try:
                collected = self.look()
                if collected is not None:
                    self._report(collected)
            except LichenError as error:
                _LOG.warning("no cosignatures were collected: %s", error.message)
            except Exception:
                _LOG.exception("collecting cosignatures failed")
            self._stop.wait(self._poll_seconds)

    def _report(self, collected: Collected) -> None:
        for answer in collected.answers:
            if answer.problem is not None:
                _LOG.warning("no cosignature at size %d: %s", collected.tree_size, answer.problem.message)
        if self._on_collected is not None:
            self._on_collected(collected)
