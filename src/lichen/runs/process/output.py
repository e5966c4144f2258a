"""Carry what a command writes to where it was going anyway, and keep a copy.

One thread a stream, which reads, passes on at once and then copies. Rules upheld:

* a byte is passed on before it is copied, nothing waits for more bytes to come;
* a stream that cannot be passed on (a slow or stopped reader) holds up only its own writer, as without Lichen;
* when the reader downstream is gone (``| head``), the command's end is closed too, so that its next write fails as it
  would have without Lichen;
* a process left behind that holds the stream open does not keep us: see ``is_finished``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import stat
import struct
import termios
import threading
import time
from collections.abc import Callable

from lichen.runs.process.capture import Capture

__all__ = ["OutputStream"]

_CHUNK_BYTES = 2**16  # (= 65536) what a pipe holds
_QUIET_SECONDS = 0.25  # a left-behind writer that is silent this long is not waited for
_DRAIN_SECONDS_MAX = 2.0  # nor one that never falls silent


class OutputStream:
    """One output stream of a command: source, sink and capture.

    Args:
        name: ``stdout`` or ``stderr``, for messages.
        source: Descriptor to read from; closed by this stream.
        sink: Descriptor to write to; stays the caller's.
        capture: Where the copy goes.
        after_read: Called after each chunk has been read and before it is passed on.
    """

    def __init__(
        self,
        name: str,
        source: int,
        sink: int,
        capture: Capture,
        after_read: Callable[[], None] | None = None,
    ) -> None:
        self.name = name
        self.capture = capture
        self.failure: str | None = None
        self._source = source
        self._sink = sink
        self._after_read = after_read
        self._stop_read, self._stop_write = os.pipe()
        self._count_lock = threading.Lock()
        self._read_bytes = 0
        self._forwarded_bytes = 0
        self._owed_bytes = 0
        self._ended = 0.0
        self._last_progress = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"lichen-{name}", daemon=True)

    def start(self) -> None:
        """Begin to forward."""
        self._thread.start()

    def is_empty(self) -> bool:
        """Whether everything written so far has been passed on, as far as can be seen from here."""
        return not self._thread.is_alive() or self._waiting_bytes() == 0

    def note_end(self) -> None:
        """The command has ended: what it wrote by now is owed to whoever reads the sink."""
        with self._count_lock:  # nothing is in between the descriptor and the count
            self._owed_bytes = self._read_bytes + self._waiting_bytes()
        self._ended = self._last_progress = time.monotonic()

    def is_finished(self) -> bool:
        """Whether the stream has ended, or only a process that the command left behind still holds it.

        What the command itself wrote is waited for however long its reader takes. A process left behind is listened
        to until it is silent for a quarter of a second, at most two seconds.
        """
        if not self._thread.is_alive():
            return True
        now = time.monotonic()
        is_silent = now - self._last_progress > _QUIET_SECONDS or now - self._ended > _DRAIN_SECONDS_MAX
        return self._forwarded_bytes >= self._owed_bytes and is_silent

    def stop(self) -> None:
        """Let go of the stream; a write that hangs is left behind."""
        os.close(self._stop_write)
        self._thread.join(_QUIET_SECONDS)

    def join(self, seconds: float) -> None:
        """Wait for the end of the stream, at most so long."""
        self._thread.join(seconds)

    def _waiting_bytes(self) -> int:
        try:
            return int(struct.unpack("i", fcntl.ioctl(self._source, termios.FIONREAD, bytes(4)))[0])
        except OSError:
            return 0

    def _run(self) -> None:
        try:
            self._forward()
        finally:
            os.close(self._source)
            os.close(self._stop_read)

    def _forward(self) -> None:
        watch = select.poll()
        watch.register(self._source, select.POLLIN)
        watch.register(self._stop_read, select.POLLIN)
        if _is_pipe(self._sink):
            watch.register(self._sink, 0)  # reports only that the reader is gone
        while True:
            ready = dict(watch.poll())
            if self._stop_read in ready:
                return
            if self._sink in ready:
                return  # nobody reads any more: closing our end lets the command notice
            chunk = self._read()
            if not chunk:
                return
            if self._after_read is not None:
                self._after_read()
            if not self._pass_on(chunk):
                return
            self.capture.write(chunk)
            self._forwarded_bytes += len(chunk)
            self._last_progress = time.monotonic()

    def _read(self) -> bytes:
        try:
            with self._count_lock:
                chunk = os.read(self._source, _CHUNK_BYTES)
                self._read_bytes += len(chunk)
        except OSError as error:
            if error.errno == errno.EIO:  # the last writer of a pseudo-terminal is gone
                return b""
            self.failure = f"{self.name} could not be read: {error.strerror}"
            return b""
        return chunk

    def _pass_on(self, chunk: bytes) -> bool:
        view = memoryview(chunk)
        while view:
            try:
                view = view[os.write(self._sink, view) :]
            except BlockingIOError:  # somebody made the shared description non-blocking
                select.select([], [self._sink], [])
            except OSError as error:
                if error.errno != errno.EPIPE:
                    self.failure = f"{self.name} could not be written: {error.strerror}"
                return False
        return True


def _is_pipe(descriptor: int) -> bool:
    try:
        return stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    except OSError:
        return False
