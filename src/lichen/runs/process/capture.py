"""What a command wrote, kept on disk while it passes through: its beginning and its end.

Rules upheld:

* memory stays flat however much is written; the bytes lie in an unlinked temporary file, so nothing is left behind
  when Lichen is killed;
* of a stream longer than the limit the first half and the last half of the limit are kept, because the last lines
  are where a training script says how well it did;
* a capture that fails (disk full) stops capturing, says so, and never stops the stream it watches.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

__all__ = ["CAPTURE_LIMIT_BYTES", "Capture"]

CAPTURE_LIMIT_BYTES = 4 * 2**20  # (= 4194304) per stream
_HALVES = 2


class Capture:
    """The kept part of one output stream.

    Not safe for two writers; one thread writes, and others read once it has ended.

    Args:
        limit_bytes: The most bytes kept; 0 keeps none and only counts.
        directory: Where the temporary file is made; the system's place for temporary files when it cannot be used.
    """

    def __init__(self, limit_bytes: int = CAPTURE_LIMIT_BYTES, directory: Path | None = None) -> None:
        self._head_limit = limit_bytes // _HALVES
        self._tail_limit = limit_bytes - self._head_limit
        self._directory = directory
        self._descriptor: int | None = None
        self._total_bytes = 0
        self._stopped_at: int | None = None
        self.failure: str | None = None

    @property
    def total_bytes(self) -> int:
        """Bytes that passed through, kept or not."""
        return self._total_bytes

    @property
    def omitted_bytes(self) -> int:
        """Bytes that passed through and were not kept."""
        return self._total_bytes - self._head_size() - self._tail_size()

    @property
    def truncated(self) -> bool:
        """Whether anything was left out."""
        return self.omitted_bytes > 0

    @property
    def size_bytes(self) -> int:
        """Bytes kept."""
        return self._head_size() + self._tail_size()

    def write(self, chunk: bytes | memoryview) -> None:
        """Keep what fits of a chunk; never raises for a full or failing disk."""
        position = self._total_bytes
        self._total_bytes += len(chunk)
        if self._stopped_at is not None or self._tail_limit == 0:
            return
        try:
            self._store(memoryview(chunk), position)
        except OSError as error:
            self._stopped_at = position
            self.failure = f"output after byte {position} was not kept: {error.strerror or error}"

    def read_bytes(self) -> bytes:
        """The kept bytes; where some were left out, a line in the middle says how many."""
        if not self.truncated:
            return self.head() + self.tail()
        return self.head() + f"\n[... {self.omitted_bytes} bytes were not kept ...]\n".encode() + self.tail()

    def head(self) -> bytes:
        """The beginning of the stream."""
        return self._read_at(0, self._head_size())

    def tail(self) -> bytes:
        """The end of the stream, as far as it is not part of the head."""
        size = self._tail_size()
        if size == 0:
            return b""
        # The tail area is a ring: byte p of the stream lies at (p - head limit) modulo the tail limit.
        start = (self._total_bytes - size - self._head_limit) % self._tail_limit
        first = min(size, self._tail_limit - start)
        return self._read_at(self._head_limit + start, first) + self._read_at(self._head_limit, size - first)

    def close(self) -> None:
        """Give the disk space back; reading is over."""
        if self._descriptor is not None:
            self._closer()
            self._descriptor = None
            self._stopped_at = 0

    def _kept_end(self) -> int:
        return self._total_bytes if self._stopped_at is None else self._stopped_at

    def _head_size(self) -> int:
        return min(self._kept_end(), self._head_limit) if self._tail_limit else 0

    def _tail_size(self) -> int:
        if self._stopped_at is not None:  # the ring may be half overwritten: only the head is certain
            return 0
        return min(max(self._total_bytes - self._head_limit, 0), self._tail_limit)

    def _store(self, chunk: memoryview, position: int) -> None:
        if self._descriptor is None:
            self._descriptor = self._make_file()
            self._closer = weakref.finalize(self, os.close, self._descriptor)
        if position < self._head_limit:
            part = chunk[: self._head_limit - position]
            self._write_at(part, position)
            chunk, position = chunk[len(part) :], position + len(part)
        if len(chunk) > self._tail_limit:
            position += len(chunk) - self._tail_limit
            chunk = chunk[-self._tail_limit :]
        while chunk:
            start = (position - self._head_limit) % self._tail_limit
            part = chunk[: self._tail_limit - start]
            self._write_at(part, self._head_limit + start)
            chunk, position = chunk[len(part) :], position + len(part)

    def _make_file(self) -> int:
        for directory in (self._directory, None):
            try:
                with tempfile.TemporaryFile(prefix="lichen-", dir=directory) as file:
                    return os.dup(file.fileno())
            except OSError:
                if directory is None:
                    raise
        raise AssertionError("the loop ends by returning or raising")

    def _write_at(self, part: memoryview, offset: int) -> None:
        assert self._descriptor is not None
        while part:
            written = os.pwrite(self._descriptor, part, offset)
            part, offset = part[written:], offset + written

    def _read_at(self, offset: int, size: int) -> bytes:
        parts = []
        while size > 0 and self._descriptor is not None:
            part = os.pread(self._descriptor, size, offset)
            if not part:
                break
            parts.append(part)
            offset, size = offset + len(part), size - len(part)
        return b"".join(parts)
