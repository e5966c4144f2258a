"""The agent's log: an append-only file of one process, written through a mapping, and how paths are put into it.

The format is described, and read, in ``agent_log.py`` of the tracer.
"""

# Runs on Python 3.8, raises nothing, imports nothing it can do without.
# ruff: noqa: S110, SIM105, UP031
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disallow-any-generics=False
# mypy: no-warn-return-any, no-warn-unreachable, no-strict-optional, disable-error-code="import-not-found"

from __future__ import annotations

import _struct
import itertools
import os
import posix
import sys
import time

CHUNK_BYTES_MIN = 1 << 16  # (= 65536)
CHUNK_BYTES_MAX = 1 << 22  # (= 4194304)
LOG_BYTES_MAX = 1 << 28  # (= 268435456) per process; beyond it the trace is no longer complete

PLAIN = _struct.Struct("<cBBxIq")  # kind, type, flags, payload bytes, monotonic ns
STATED = _struct.Struct("<cBBxIqQQqqq")  # the same, then dev, ino, size, mtime ns, ctime ns

ABSENT = 0
UNKNOWN = 15
LEVEL_TYPE, LEVEL_STATUS, LEVEL_MODE, LEVEL_TIMES, LEVEL_LINK = 1, 2, 3, 4, 5
"""What a look can have told: existence and type; size too; permission bits too; times too; or where a link leads."""


MAGIC_PATH = b"/.lichen-agent-present"
"""The preload library answers an ``access`` of this path, and learns from it where the interpreter's own code lies."""
MAGIC_DESCRIPTOR = 0x4C494348  # (= 1279869768) "LICH"
"""What is written to this descriptor the preload library takes into its own log."""


class Log:
    """Where records go: into the preload library's log, or into a file of this process, written through a mapping.

    Attributes:
        preload: The library is there and takes the records; no file and no descriptor are needed then.
    """

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.counter = itertools.count()
        self.chunks: list = []
        self.preload = posix.access(MAGIC_PATH, 0)
        self.open()

    def open(self) -> None:
        """Start a new file; also called in the child after a fork, which must not share its parent's."""
        self.size_bytes = CHUNK_BYTES_MIN
        self.total_bytes = 0
        self.add = to_preload if self.preload else self._new_chunk()

    def _new_chunk(self):
        import mmap

        path = "%s/agent-%d-%d-%d.log" % (
            self.directory,
            posix.getpid(),
            time.monotonic_ns(),
            next(self.counter),
        )
        self.total_bytes += self.size_bytes
        if self.total_bytes > LOG_BYTES_MAX:
            self.fail("log-full")
            return discard
        descriptor = posix.open(path, posix.O_RDWR | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600)
        try:
            if hasattr(posix, "posix_fallocate"):
                posix.posix_fallocate(descriptor, 0, self.size_bytes)
            else:
                posix.write(descriptor, bytes(self.size_bytes))
            options = {"trackfd": False} if sys.version_info >= (3, 13) else {}
            chunk = mmap.mmap(descriptor, self.size_bytes, **options)
            # Before 3.13 a mapping closes a descriptor when it goes, and a program that closed all of its descriptors may
            # have a file there by then. So no mapping goes before the interpreter does.
            self.chunks.append(chunk)
            return chunk.write
        finally:
            posix.close(descriptor)

    def write(self, record: bytes) -> None:
        """Append a record; one C call under the interpreter lock, so threads need no other."""
        try:
            self.add(record)
        except ValueError:
            try:
                self.size_bytes = max(min(self.size_bytes * 2, CHUNK_BYTES_MAX), CHUNK_BYTES_MIN)
                while self.size_bytes < len(record):
                    self.size_bytes *= 2
                self.add = self._new_chunk()
                self.add(record)
            except Exception:  # a full disk must not reach the program
                self.stop("log-full")

    def stop(self, reason: str) -> None:
        """Write nothing more."""
        self.add = discard
        self.fail(reason)

    def fail(self, reason: str) -> None:
        """Leave a sign that records are missing: an empty file that needs no disk block."""
        try:
            path = "%s/failed-%d-%s" % (self.directory, posix.getpid(), reason)
            posix.close(posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC, 0o600))
        except Exception:  # nothing more can be done from here
            pass

    def plain(self, kind: bytes, payload: bytes, flags: int = 0) -> None:
        """Write a record without a file state."""
        self.write(PLAIN.pack(kind, 0, flags, len(payload), time.monotonic_ns()) + payload)

    def stated(self, kind: bytes, path: str, flags: int, extra: bytes = b"", follow: bool = True) -> None:
        """Write a record with the state of a path before the event."""
        payload = os.fsencode(path) + extra
        try:
            status = posix.stat(path) if follow else posix.lstat(path)
        except (OSError, ValueError):
            self.write(
                STATED.pack(kind, ABSENT, flags, len(payload), time.monotonic_ns(), 0, 0, 0, 0, 0) + payload
            )
            return
        self.state(kind, status, flags, payload)

    def state(self, kind: bytes, status: os.stat_result, flags: int, payload: bytes) -> None:
        """Write a record with a file state already at hand."""
        self.write(
            STATED.pack(
                kind, status.st_mode >> 12, flags, len(payload), time.monotonic_ns(), status.st_dev, status.st_ino,
                status.st_size, status.st_mtime_ns, status.st_ctime_ns,
            )
            + payload
        )  # fmt: skip


def to_preload(record: bytes) -> None:
    """Hand a record to the preload library."""
    posix.write(MAGIC_DESCRIPTOR, record)


def discard(record) -> None:
    """Take a record and forget it."""


on_way: list = [discard]
"""What is told of a path that was gone through on the way to ``..``: links on it decide where that leads."""


def absolute(path, directory_descriptor=None) -> str | None:
    """Name a path from the root; ``..`` after a link is resolved, because removing it as text would name another file."""
    if isinstance(path, int):
        try:
            return posix.readlink("/proc/self/fd/%d" % path)
        except OSError:
            return None
    text = os.fsdecode(path)
    if not text.startswith("/"):
        if isinstance(directory_descriptor, int) and directory_descriptor >= 0:
            text = posix.readlink("/proc/self/fd/%d" % directory_descriptor) + "/" + text
        else:
            text = posix.getcwd() + "/" + text
    if text.startswith("/proc/"):
        text = outlasting(text)
    if ".." in text:
        head, dots, tail = text.rpartition("/..")
        if dots and (not tail or tail[0] == "/"):
            on_way[0](head)
            text = os.path.realpath(head + dots) + tail
    return text


def outlasting(path) -> str:
    """Name a path below a process's own directory, root or descriptor by one that means the same to others."""
    parts = path.split("/")
    kept = 5 if parts[3:4] == ["fd"] else 4
    if parts[3:4] and parts[3] in ("cwd", "root", "fd") and (parts[kept:] or kept == 4):
        base = posix.readlink("/".join(parts[:kept]))
        if base.startswith("/"):
            return "/".join((base.rstrip("/"), *parts[kept:])) or "/"
    return path


def open_flags(flags: int) -> int:
    """Pack what matters of open(2) flags into a byte: access mode, create, truncate, append, exclusive."""
    return (
        (flags & 3)
        | (4 if flags & posix.O_CREAT else 0)
        | (8 if flags & posix.O_TRUNC else 0)
        | (16 if flags & posix.O_APPEND else 0)
        | (32 if flags & posix.O_EXCL else 0)
    )


def mapped_files() -> list:
    """Files mapped into this process, apart from the system's own libraries."""
    descriptor = posix.open("/proc/self/maps", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        text = b"".join(iter(lambda: posix.read(descriptor, 1 << 16), b""))
    finally:
        posix.close(descriptor)
    found = {line[73:] for line in text.split(b"\n") if line[73:74] == b"/"}
    return sorted(path for path in found if not path.startswith((b"/usr/lib", b"/lib", b"/dev/")))


def guarded(function, *arguments):
    """Call an agent function; whatever goes wrong in it stays in it."""
    try:
        function(*arguments)
    except Exception:  # see the package's rules
        pass
