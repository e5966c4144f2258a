"""Patience with one request: a head by a fixed time, and a body that keeps coming.

A limit for each wait is none for all of them: a server that sends a byte now and then, or one interim answer after the other,
holds its caller for as long as it likes. So a request has a deadline. Until the head of the answer is there it stands still;
afterwards every byte that passes earns a little more time, so that what is large and honest arrives, and what drips does not.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["BYTES_PER_SECOND_MIN", "PATIENCE_SECONDS", "Pace", "PacedSocket"]

PATIENCE_SECONDS: Final = 60.0
BYTES_PER_SECOND_MIN: Final = (
    2**14
)  # (= 16384) slower than this on average, after the first minute, is taken for none


class Pace:
    """How long a request may still take.

    Args:
        wait_seconds: The longest single wait.
        patience_seconds: From the start of a request to its deadline, before any byte has earned more.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        wait_seconds: float,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wait_seconds = wait_seconds
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._deadline = clock() + patience_seconds
        self._is_earning = False

    def start(self) -> None:
        """Begin with a request."""
        self._deadline = self._clock() + self._patience_seconds
        self._is_earning = False

    def earn(self, *, is_earning: bool) -> None:
        """Say whether bytes that pass earn time: those of a body do, those of a head do not."""
        self._is_earning = is_earning

    def wait_seconds(self) -> float:
        """How long the next wait may be.

        Raises:
            TimeoutError: The deadline is over.
        """
        left = self._deadline - self._clock()
        if left <= 0:
            raise TimeoutError(
                f"no whole answer within {self._patience_seconds:g} s and what its size earned"
            )
        return min(left, self._wait_seconds)

    def passed(self, size_bytes: int) -> None:
        """Note bytes that came or went."""
        if self._is_earning:
            self._deadline += size_bytes / BYTES_PER_SECOND_MIN


class PacedSocket:
    """The part of a socket that `http.client` uses, each wait of it bounded by a pace.

    Args:
        inner: The connected socket, encrypted or not.
        pace: Of the request in progress.
    """

    def __init__(self, inner: socket.socket, pace: Pace) -> None:
        self._inner = inner
        self._pace = pace

    def sendall(self, data: bytes) -> None:
        """Send all of some bytes."""
        self._inner.settimeout(self._pace.wait_seconds())
        self._inner.sendall(data)
        self._pace.passed(len(data))

    def makefile(self, *_: Any, **__: Any) -> io.BufferedReader:
        """Open for reading."""
        return io.BufferedReader(_PacedReader(self._inner, self._pace))

    def close(self) -> None:
        """Close, when what was opened for reading is closed too."""
        self._inner.close()


class _PacedReader(io.RawIOBase):
    def __init__(self, inner: socket.socket, pace: Pace) -> None:
        self._inner = inner
        self._raw = inner.makefile("rb", buffering=0)
        self._pace = pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int | None:
        wait_seconds = self._pace.wait_seconds()
        self._inner.settimeout(wait_seconds)
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            self._pace.wait_seconds()  # which says so when the deadline is over
            raise TimeoutError(f"nothing came for {wait_seconds:.3g} s") from None
        self._pace.passed(count or 0)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
