"""How much one caller may ask for: token buckets, and bodies that are read with a bound and a deadline."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

from lichen.net.server.problem import Problem

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

__all__ = ["Buckets", "read_body"]

CALLER_COUNT_MAX: Final = 10_000  # the least recently seen is forgotten; it then starts with a full bucket


class Buckets:
    """One token bucket for each caller.

    Args:
        per_second: Tokens that flow in.
        burst: Tokens a bucket holds.
        clock: Seconds, rising.
    """

    def __init__(self, per_second: float, burst: float, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._levels: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def take(self, caller: Hashable, count: int = 1) -> None:
        """Take tokens, all of them or none.

        Args:
            caller: Who takes them.
            count: How many.

        Raises:
            Problem: The caller has not so many left.
        """
        now = self._clock()
        level, then = self._levels.pop(caller, (self._burst, now))
        level = min(self._burst, level + (now - then) * self._per_second)
        enough = level >= count
        self._levels[caller] = (level - count if enough else level, now)
        if len(self._levels) > CALLER_COUNT_MAX:
            self._levels.popitem(last=False)
        if not enough:
            seconds = max(1, round((count - level) / self._per_second))
            raise Problem.busy(
                f"more than {self._per_second:g} a second",
                seconds=seconds,
                status=429,
                code="too-many-requests",
            )


async def read_body(scope: Scope, receive: Receive, limit: int, seconds: float) -> bytes:
    """Read a small body.

    Args:
        scope: The request.
        receive: Gives its pieces.
        limit: Most bytes taken; the rest is not read.
        seconds: Time for all of it.

    Raises:
        Problem: Too large, too slow, or the caller went away.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(seconds):
            while True:
                message: Any = await receive()
                if message["type"] == "http.disconnect":
                    raise Problem(400, "incomplete", "the request ended before its body did")
                piece = message.get("body", b"")
                size += len(piece)
                if size > limit:
                    raise too_large(limit)
                pieces.append(piece)
                if not message.get("more_body", False):
                    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
    except TimeoutError:
        raise Problem(
            408, "too-slow", f"the body was not there after {seconds:g} s", headers={"Connection": "close"}
        ) from None


def too_large(limit: int) -> Problem:
    """Build the answer to a body that is larger than is taken."""
    return Problem(413, "too-large", f"at most {limit} bytes are taken here", headers={"Connection": "close"})


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that lower-case name, or None."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None
