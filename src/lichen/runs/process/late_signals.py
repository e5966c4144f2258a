"""Stop signals that come when the command has ended, and its record is not written yet.

The command is over, so nothing is left to be stopped but the writing down of what may have been hours of work. The first
such signal therefore waits: the record is written, and then Lichen ends as the signal asks. A second one, a moment later, is
taken at its word. Rules upheld:

* There is no gap: the relay hands over while the signals are still blocked.
* Before the command has started nothing waits.
* Signals that Lichen was started with as ignored stay ignored.
* What one request sends twice, to the process and to its group as timeout(1) does, is one request.

Source: signal(7).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Final, Self

__all__ = ["LateSignals"]

_WAITING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_ONE_REQUEST_SECONDS: Final = 0.5
_SAID: Final = (
    b"\nlichen: the command has ended, what it did is being written down; once more gives that up\n"
)


def _say(text: bytes) -> None:
    with contextlib.suppress(OSError):  # whoever read standard error may be gone
        os.write(2, text)


class LateSignals:
    """Keeps the first stop signal until the block ends; a context manager that does nothing before `take_over`.

    Args:
        say: Told that the writing goes on; must be safe in a signal handler.
        clock: Seconds, of a clock that nobody sets.

    Attributes:
        number: The signal that waited, or None. It is the caller's to act on.
    """

    def __init__(
        self, say: Callable[[bytes], object] = _say, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.number: int | None = None
        self._since = 0.0
        self._say, self._clock = say, clock
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._give_back()

    def take_over(self) -> None:
        """Let signals wait from now on. In the main thread only: elsewhere Python sets no handlers."""
        for number in _WAITING:
            if number not in self._handlers and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._handlers[number] = signal.signal(number, self._handle)

    def _give_back(self) -> None:
        while self._handlers:
            number, handler = self._handlers.popitem()
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.number is None:
            self.number, self._since = number, self._clock()
            self._say(_SAID)
        elif self._clock() - self._since >= _ONE_REQUEST_SECONDS:
            self._give_back()
            signal.raise_signal(number)
