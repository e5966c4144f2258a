"""Many signatures at once, in threads: checked while the caller goes on, or made.

Signing and verifying are what bulk appending and auditing spend most of their time on, and OpenSSL lets go of the interpreter
lock for both. Threads are started only when enough signatures have come together to pay for them.
"""

from __future__ import annotations

import os
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from lichen.encoding.entry import Entry
from lichen.errors import EncodingError, LichenError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Future, ThreadPoolExecutor

    from lichen.crypto.keys import PublicKey, SigningKey

__all__ = ["SignatureChecks", "sign_all"]

WORKER_COUNT: Final = min(4, os.cpu_count() or 1)
CHUNK_COUNT: Final = 64  # signatures handed to a thread at a time
WAITING_CHUNKS_MAX: Final = 64  # then the caller waits, so that memory stays bounded

_Check = tuple[int, Entry, "PublicKey"]


def sign_all(payloads: Sequence[bytes], key: SigningKey) -> list[Entry]:
    """Sign payloads, many of them in as many threads as there are processors.

    Args:
        payloads: Statements in canonical JSON.
        key: The signing key.

    Returns:
        The entries, in the order of the payloads.

    Raises:
        EncodingError: A payload is empty or too long.
    """

    def signed(start: int, stop: int) -> list[Entry]:
        return [Entry.signed(payload, key) for payload in payloads[start:stop]]

    count = len(payloads)
    part_count = min(WORKER_COUNT, count // CHUNK_COUNT)
    if part_count < 2:
        return signed(0, count)
    from concurrent.futures import ThreadPoolExecutor  # only here: it is slow to import

    ends = [count * part // part_count for part in range(part_count + 1)]
    with ThreadPoolExecutor(part_count - 1, thread_name_prefix="lichen-sign") as pool:
        others = [pool.submit(signed, start, stop) for start, stop in pairwise(ends[1:])]
        entries = signed(0, ends[1])
        for other in others:
            entries += other.result()
    return entries


class SignatureChecks:
    """Collects signatures to check; a context manager that waits for its threads at the end."""

    def __init__(self) -> None:
        self._chunk: list[_Check] = []
        self._running: list[Future[dict[int, LichenError]]] = []
        self._failures: dict[int, LichenError] = {}
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def add(self, place: int, entry: Entry, key: PublicKey) -> None:
        """Check, now or soon, that a key signed an entry.

        Args:
            place: By which the caller knows it.
            entry: The entry.
            key: Key it must have been signed with.
        """
        self._chunk.append((place, entry, key))
        if len(self._chunk) < CHUNK_COUNT:
            return
        if WORKER_COUNT == 1:
            self._failures |= _check(self._chunk)
        else:
            if self._pool is None:
                from concurrent.futures import ThreadPoolExecutor  # only here: it is slow to import

                self._pool = ThreadPoolExecutor(WORKER_COUNT, thread_name_prefix="lichen-verify")
            self._running.append(self._pool.submit(_check, self._chunk))
            if len(self._running) > WAITING_CHUNKS_MAX:
                self._failures |= self._running.pop(0).result()
        self._chunk = []

    def failures(self) -> dict[int, LichenError]:
        """Wait for all checks; why those that failed did, by place."""
        self._failures |= _check(self._chunk)
        self._chunk = []
        for future in self._running:
            self._failures |= future.result()
        self._running = []
        return self._failures


def _check(checks: list[_Check]) -> dict[int, LichenError]:
    failures: dict[int, LichenError] = {}
    for place, entry, key in checks:
        try:
            entry.verify(key)
        except (VerificationError, EncodingError) as error:
            failures[place] = error
    return failures
