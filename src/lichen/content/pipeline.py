"""One stream of bytes through several hashes at once.

The calling thread reads (and writes, when a copy is made); every lane runs in a thread of its own over the same few
buffers, so memory is flat and the slowest lane sets the pace. A stream of one buffer takes no threads at all.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from queue import SimpleQueue

__all__ = ["BUFFER_SIZE", "stream_buffers"]

BUFFER_SIZE = 2**21  # (= 2097152) bytes; a multiple of the chunk size, so no chunk straddles two buffers
BUFFER_COUNT = 4  # buffers in flight

Work = Callable[[memoryview], None]


class _Lane:
    """A thread that applies one piece of work to every buffer, in order."""

    def __init__(self, work: Work) -> None:
        self.free = threading.Semaphore(BUFFER_COUNT - 1)  # one buffer is always being filled
        self.error: BaseException | None = None
        self._work = work
        self._queue: SimpleQueue[memoryview | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lichen-hash", daemon=True)
        self._thread.start()

    def put(self, view: memoryview) -> None:
        self._queue.put(view)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (view := self._queue.get()) is not None:
            if self.error is None:
                try:
                    self._work(view)
                except BaseException as error:
                    self.error = error
            self.free.release()


def stream_buffers(fill: Callable[[memoryview], int], works: Sequence[Work], sink: Work | None) -> int:
    """Read a stream to its end and hand every byte to each piece of work, in order.

    Args:
        fill: Fills a buffer whole, short only at the end of the stream, and returns how many bytes it holds.
        works: Run side by side, each in its own thread.
        sink: Runs in the calling thread.

    Returns:
        Bytes read.
    """
    first = memoryview(bytearray(BUFFER_SIZE))
    count = fill(first)
    if count < BUFFER_SIZE:
        for work in (*works, *([sink] if sink else [])):
            if count:
                work(first[:count])
        return count
    buffers = [first, *(memoryview(bytearray(BUFFER_SIZE)) for _ in range(BUFFER_COUNT - 1))]
    lanes = [_Lane(work) for work in works]
    size = turn = 0
    try:
        while count:
            size += count
            view = buffers[turn % BUFFER_COUNT][:count]
            for lane in lanes:
                lane.put(view)
            if sink:
                sink(view)
            turn += 1
            for lane in lanes:
                lane.free.acquire()
            count = fill(buffers[turn % BUFFER_COUNT]) if count == BUFFER_SIZE else 0
    finally:
        for lane in lanes:
            lane.close()
    for lane in lanes:
        if lane.error is not None:
            raise lane.error
    return size
