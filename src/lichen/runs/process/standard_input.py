"""Piped standard input: passed on to the command, counted and hashed on the way.

What a command reads from a pipe is an input like a file, but nobody can read it a second time. So a pipe or socket
is forwarded through a pipe of our own and hashed, from the moment somebody wants to read (see ``stdin_demand``);
until then it is left to whoever shares it with us. A terminal, a file, ``/dev/null`` or nothing is simply inherited: a file
can be hashed by its path, and a terminal is a person.

Limit: once the command reads, we read ahead up to what a pipe holds, as any program with a buffer does.
"""

from __future__ import annotations

import hashlib
import os
import select
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lichen.runs.process.stdin_demand import InputDemand

__all__ = ["InputForwarder", "StandardInput", "describe_standard_input"]

_CHUNK_BYTES = 2**16  # (= 65536) what a pipe holds
_LOOK_SECONDS_MIN, _LOOK_SECONDS_MAX, _LOOK_GROWTH = (
    0.002,
    0.25,
    1.3,
)  # between looks for somebody who wants to read
_LOOK_LOAD_MAX = 0.002  # share of one core that looking may take, once the command is no longer starting


@dataclass(frozen=True)
class StandardInput:
    """What stood at a command's standard input.

    Args:
        kind: ``terminal``, ``null``, ``file``, ``pipe`` (a pipe or socket) or ``closed``.
        path: Path of the file, when it is one that still has a name.
        size_bytes: Bytes passed on, for a pipe.
        sha256: Digest of the bytes passed on, for a pipe that the command wanted to read; None for one it never did.
        offset: Where in the file reading will begin, bytes; more than 0 when somebody has read from it before.
        complete: Whether the digest covers all that the command can have read and all there was to read; true as well
            when it never wanted to read. When not, the digest says what it may have read, not what it did read.
    """

    kind: Literal["terminal", "null", "file", "pipe", "closed"]
    path: Path | None = None
    size_bytes: int = 0
    sha256: bytes | None = None
    complete: bool = True
    offset: int = 0

    def digest(self, digest_file: Callable[[Path], bytes]) -> bytes | None:
        """Return a digest of what a command will read from a file, 32 bytes; None when this is no file that has a name.

        Of a file at its beginning it is the file's own. Further on the place counts with the whole file, since a command may
        also go back.

        Args:
            digest_file: Returns the SHA-256 of a file.
        """
        if self.kind != "file" or self.path is None:
            return None
        whole = digest_file(self.path)
        return hashlib.sha256(b"from %d of " % self.offset + whole).digest() if self.offset else whole


def describe_standard_input(descriptor: int = 0) -> StandardInput:
    """Look at what a descriptor is, without reading from it."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return StandardInput("closed")
    if descriptor == 0 and not os.get_inheritable(0):  # what Lichen put where it was started without
        return StandardInput("closed")
    if os.isatty(descriptor):
        return StandardInput("terminal")
    if stat.S_ISREG(status.st_mode) or stat.S_ISBLK(status.st_mode):
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        return StandardInput("file", path=_path_of(descriptor, status), offset=offset)
    if stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == 1 and os.minor(status.st_rdev) == 3:
        return StandardInput("null")
    return StandardInput("pipe", complete=False)


class InputForwarder:
    """Pass a pipe on to the command's standard input and hash it.

    Args:
        source: The pipe or socket to read from; stays the caller's.

    Raises:
        OSError: No descriptor is left.
    """

    def __init__(self, source: int) -> None:
        self._source = source
        self.child_end, self._sink = os.pipe()
        self._stop_read, self._stop_write = os.pipe()
        self._digest = hashlib.sha256()
        self._size_bytes = 0
        self._is_wanted = False
        self._complete = False
        self._demand = InputDemand(self.child_end)
        self._thread = threading.Thread(target=self._run, name="lichen-stdin", daemon=True)

    def start(self) -> None:
        """Begin to forward."""
        self._thread.start()

    def stop(self) -> StandardInput:
        """Stop forwarding, since the command has ended, and say what was passed on."""
        os.close(self._stop_write)
        self._thread.join(1.0)
        if not self._is_wanted:
            return StandardInput("pipe")
        return StandardInput("pipe", None, self._size_bytes, self._digest.digest(), self._complete)

    def _run(self) -> None:
        try:
            self._forward()
        except OSError:
            return  # the command closed its end, or the source failed: either way it gets no more
        finally:
            os.close(self._sink)
            os.close(self._stop_read)

    def _forward(self) -> None:
        watch = select.poll()
        watch.register(self._sink, 0)  # reports only that nobody can read any more
        watch.register(self._stop_read, select.POLLIN)
        pause_seconds = _LOOK_SECONDS_MIN
        while True:
            before = time.thread_time()
            if self._demand.is_there():
                break
            cost_seconds = time.thread_time() - before
            if watch.poll(pause_seconds * 1000):
                return
            pause_seconds = min(
                pause_seconds * _LOOK_GROWTH, max(_LOOK_SECONDS_MAX, cost_seconds / _LOOK_LOAD_MAX)
            )
        self._is_wanted = True
        watch.register(self._source, select.POLLIN)
        while True:
            ready = dict(watch.poll())
            if self._stop_read in ready or self._sink in ready:
                return
            try:
                chunk = os.read(self._source, _CHUNK_BYTES)
            except BlockingIOError:
                continue
            if not chunk:
                self._complete = True
                return
            self._pass_on(memoryview(chunk))

    def _pass_on(self, view: memoryview) -> None:
        while view:
            written = os.write(self._sink, view)
            self._digest.update(view[:written])
            self._size_bytes += written
            view = view[written:]


def _path_of(descriptor: int, status: os.stat_result) -> Path | None:
    try:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))  # noqa: PTH115 - text as the kernel gives it
        named = path.stat()
    except OSError:
        return None
    return path if (named.st_dev, named.st_ino) == (status.st_dev, status.st_ino) else None
