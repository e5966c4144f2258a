"""Many signatures at once: checked in threads while the caller goes on.

Verifying is what bulk appending and auditing spend most of their time on, and OpenSSL lets go of the interpreter lock for
it. Threads are started only when enough signatures have come together to pay for them.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from lichen.errors import EncodingError, LichenError, VerificationError

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

    from lichen.crypto.keys import PublicKey
    from lichen.encoding.entry import Entry

__all__ = ["SignatureChecks"]

WORKER_COUNT: Final = min(4, os.cpu_count() or 1)
CHUNK_COUNT: Final = 64  # signatures handed to a thread at a time
WAITING_CHUNKS_MAX: Final = 64  # then the caller waits, so that memory stays bounded

_Check = tuple[int, "Entry", "PublicKey"]


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
