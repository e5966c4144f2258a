"""One stream of bytes through several hashes at once.

The calling thread reads (and writes, when a copy is made); every lane runs in a thread of its own over the same few
buffers, so memory is flat and the slowest lane sets the pace. A stream of one buffer takes no threads at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

__all__ = ["BUFFER_SIZE", "Fill", "Work", "stream_buffers"]

BUFFER_SIZE = 2**21  # (= 2097152) bytes; a multiple of the chunk size, so no chunk straddles two buffers
BUFFER_COUNT = 4  # buffers in flight

Fill = Callable[[memoryview], int]
"""Fills a buffer whole, short only at the end of the stream, and returns how many bytes it holds."""

Work = Callable[[memoryview], object]
"""Is handed a buffer that stays as it is until the call returns; what it returns is ignored."""


class _Lane:
    """A thread that applies one piece of work to every buffer, in order."""

    def __init__(self, work: Work) -> None:
        self._permits = threading.Semaphore(BUFFER_COUNT - 1)  # one buffer is always being filled
        self._error: BaseException | None = None
        self._work = work
        self._queue: SimpleQueue[memoryview | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lichen-hash", daemon=True)
        self._thread.start()

    def put(self, view: memoryview) -> None:
        """Queue a buffer."""
        self._queue.put(view)

    def wait_for_room(self) -> None:
        """Wait until the buffer to be filled next is no longer in use here."""
        self._permits.acquire()

    def close(self) -> None:
        """Let the queued buffers finish and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def raise_error(self) -> None:
        """Raise what the work raised, if it did."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (view := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self._work(view)
                except BaseException as error:
                    self._error = error  # raised by the calling thread
            self._permits.release()


def stream_buffers(fill: Fill, works: Sequence[Work], sinks: Sequence[Work] = ()) -> int:
    """Read a stream to its end and hand every byte to each piece of work, in order.

    Args:
        fill: Reads the stream; see ``Fill``.
        works: Run side by side, each in its own thread.
        sinks: Run one after the other in the calling thread.

    Returns:
        Bytes read.
    """
    buffers = [memoryview(bytearray(BUFFER_SIZE))]
    count = fill(buffers[0])
    if count < BUFFER_SIZE:
        if count:
            for work in (*works, *sinks):
                work(buffers[0][:count])
        return count
    lanes = [_Lane(work) for work in works]
    size = turn = 0
    try:
        while count:
            size += count
            view = buffers[turn % BUFFER_COUNT][:count]
            for lane in lanes:
                lane.put(view)
            for sink in sinks:
                sink(view)
            if count < BUFFER_SIZE:
                break
            turn += 1
            if turn < BUFFER_COUNT:
                buffers.append(memoryview(bytearray(BUFFER_SIZE)))
            for lane in lanes:
                lane.wait_for_room()
            count = fill(buffers[turn % BUFFER_COUNT])
    finally:
        for lane in lanes:
            lane.close()
    for lane in lanes:
        lane.raise_error()
    return size
