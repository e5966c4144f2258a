"""The kernel's view of watched directories: opens, writes, creations, renames and removals, whoever does them.

It sees readers no other means sees (static programs, direct system calls) but not who they are, and nothing outside the
watched directories. A thread drains the queue, because a busy run fills it faster than anyone polls.
"""

# Paths are the run's own strings.
# ruff: noqa: PTH116

from __future__ import annotations

import ctypes
import errno
import os
import select
import stat
import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from lichen.runs.trace.agent_log import ABSENT, UNKNOWN, Flag, Kind, Record
from lichen.runs.trace.trace import StatKey

__all__ = ["SKIPPED_FOLDERS", "DirectoryWatch", "is_public_scratch"]

SKIPPED_FOLDERS = frozenset(
    (
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        "node_modules",
        "__pycache__",
        ".lichen",
        ".tox",
        ".mypy_cache",
        ".ipynb_checkpoints",
    )
)

_MODIFY, _CLOSE_WRITE, _OPEN = 0x2, 0x8, 0x20
_MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x40, 0x80, 0x100, 0x200
_OVERFLOW, _IGNORED, _ONLY_DIRECTORY, _DONT_FOLLOW, _IS_DIRECTORY = (
    0x4000,
    0x8000,
    0x1000000,
    0x2000000,
    0x40000000,
)
_MASK = _OPEN | _MODIFY | _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _ONLY_DIRECTORY
_EVENT = struct.Struct("iIII")
_GATHER_SECONDS = 0.01
_READ_BYTES = 1 << 18  # (= 262144)
_WATCHES_MAX = 20_000
_RECORDS_MAX = 2_000_000


def is_public_scratch(directory: str) -> bool:
    """Say whether everybody puts files of their own there, as in ``/tmp``: a watch would take their work for the run's.

    Args:
        directory: Absolute path.
    """
    try:
        mode = os.stat(directory).st_mode
    except OSError:
        return False
    return bool(mode & stat.S_ISVTX and mode & stat.S_IWOTH)


@dataclass
class _Opened:
    """What has happened to one file so far."""

    time_ns: int
    stat: StatKey | None
    created: bool = False
    written: bool = False
    read: bool = False


@dataclass
class DirectoryWatch:
    """Watches directory trees while a run lasts.

    Attributes:
        reasons: Why its view is not complete: ``queue-overflow``, ``watch-limit``, ``inotify-unavailable``.
        changes: Records of removals, renames and new directories.
    """

    reasons: set[str] = field(default_factory=set)
    changes: list[Record] = field(default_factory=list)
    _descriptor: int = -1
    _paths: dict[int, str] = field(default_factory=dict)
    _watched: dict[str, int] = field(default_factory=dict)
    _files: dict[str, _Opened] = field(default_factory=dict)
    _listed: dict[str, tuple[int, StatKey | None]] = field(default_factory=dict)
    _moves: dict[int, tuple[str, int]] = field(default_factory=dict)
    _thread: threading.Thread | None = None
    _stopping: bool = False
    _wake: tuple[int, int] = (-1, -1)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _libc: ctypes.CDLL | None = None

    def start(self, roots: Iterable[str]) -> None:
        """Begin to watch trees; folders in `SKIPPED_FOLDERS` are left out."""
        try:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, AttributeError):
            self._descriptor = -1
        if self._descriptor < 0:
            self.reasons.add("inotify-unavailable")
            return
        self._wake = os.pipe2(os.O_CLOEXEC)
        for root in roots:
            self.add_tree(root, known=True)
        self._thread = threading.Thread(target=self._drain, name="lichen-inotify", daemon=True)
        self._thread.start()

    def add_tree(self, root: str, *, known: bool) -> None:
        """Watch a directory and those below.

        Args:
            root: Absolute path.
            known: False for a directory made during the run, whose files nobody saw being made.
        """
        pending = [root]
        while pending:
            directory = pending.pop()
            if not self.add(directory):
                return
            try:
                with os.scandir(directory) as entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            if entry.name not in SKIPPED_FOLDERS and not os.path.lexists(
                                f"{entry.path}/pyvenv.cfg"
                            ):
                                pending.append(entry.path)
                        elif not known:
                            self._files.setdefault(
                                entry.path, _Opened(time.monotonic_ns(), None, created=True, written=True)
                            )
            except OSError:
                continue

    def add(self, directory: str) -> bool:
        """Watch one directory; False when no more can be watched."""
        if directory in self._watched or self._libc is None:
            return True
        if len(self._watched) >= _WATCHES_MAX:
            self.reasons.add("watch-limit")
            return False
        watch = self._libc.inotify_add_watch(self._descriptor, os.fsencode(directory), _MASK)
        if watch < 0:
            if ctypes.get_errno() in (errno.ENOSPC, errno.ENOMEM):
                self.reasons.add("watch-limit")
                return False
            return True
        self._watched[directory] = watch
        self._paths[watch] = directory
        return True

    def covers(self, path: str) -> bool:
        """Say whether a file's directory is watched."""
        return path.rpartition("/")[0] in self._watched

    def stop(self) -> None:
        """Take in what is still queued, then stop watching."""
        if self._descriptor < 0:
            return
        self._stopping = True
        os.write(self._wake[1], b"x")
        if self._thread is not None:
            self._thread.join(timeout=30)
        self._read_all()
        for descriptor in (self._descriptor, *self._wake):
            os.close(descriptor)
        self._descriptor = -1

    def _drain(self) -> None:
        poller = select.poll()
        poller.register(self._descriptor, select.POLLIN)
        poller.register(self._wake[0], select.POLLIN)
        while not self._stopping:
            poller.poll()
            time.sleep(_GATHER_SECONDS)  # many events in one read cost far less than one each
            self._read_all()

    def _read_all(self) -> None:
        with self._lock:
            while True:
                try:
                    data = os.read(self._descriptor, _READ_BYTES)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError:
                    self.reasons.add("inotify-unavailable")
                    return
                self._take(data)

    def _take(self, data: bytes) -> None:
        now = time.monotonic_ns()
        offset = 0
        while offset < len(data):
            watch, mask, cookie, length = _EVENT.unpack_from(data, offset)
            name = data[offset + _EVENT.size : offset + _EVENT.size + length].rstrip(b"\0")
            offset += _EVENT.size + length
            if mask & _OVERFLOW:
                self.reasons.add("queue-overflow")
            elif watch in self._paths and not mask & _IGNORED:
                directory = self._paths[watch]
                self._event(f"{directory}/{os.fsdecode(name)}" if name else directory, mask, cookie, now)

    def _event(self, path: str, mask: int, cookie: int, now: int) -> None:
        if len(self._files) + len(self.changes) > _RECORDS_MAX:
            self.reasons.add("queue-overflow")
            return
        if mask & _IS_DIRECTORY:
            self._directory_event(path, mask, cookie, now)
            return
        seen = self._files.get(path)
        if mask & _CREATE:
            self._files[path] = _Opened(now, None, created=True)
        elif mask & (_DELETE | _MOVED_FROM | _MOVED_TO):
            self._name_event(path, mask, cookie, now)
        else:
            if seen is None:
                seen = self._files[path] = _Opened(now, _state(path))
            if mask & _OPEN:
                seen.read = True
            if mask & _CLOSE_WRITE or (mask & _MODIFY and seen.read):
                seen.written = True

    def _directory_event(self, path: str, mask: int, cookie: int, now: int) -> None:
        if mask & _CREATE:
            self.changes.append(Record(now, Kind.MKDIR, path, ABSENT, 0, None, "", "inotify"))
            self.add_tree(path, known=False)
        elif mask & _OPEN:
            self._listed.setdefault(path, (now, _state(path)))
        elif mask & (_DELETE | _MOVED_FROM | _MOVED_TO):
            self._name_event(path, mask, cookie, now)
            if mask & _MOVED_TO:
                self.add_tree(path, known=False)

    def _name_event(self, path: str, mask: int, cookie: int, now: int) -> None:
        type_ = 4 if mask & _IS_DIRECTORY else 8
        if mask & _MOVED_FROM:
            self._moves[cookie] = (path, now)
        elif mask & _MOVED_TO:
            source, _ = self._moves.pop(cookie, ("", 0))
            if source:
                self.changes.append(Record(now, Kind.MOVE, source, type_, 0, None, path, "inotify"))
            else:
                flags = Flag.WRITE_ONLY | Flag.CREATE | Flag.TRUNCATE
                self.changes.append(Record(now, Kind.OPEN, path, ABSENT, flags, None, "", "inotify"))
        else:
            self.changes.append(Record(now, Kind.DELETE, path, type_, 0, None, "", "inotify"))

    def records(self) -> list[Record]:
        """Everything seen, in order of time; call it after `stop`."""
        found = list(self.changes)
        for path, now in self._moves.values():
            found.append(Record(now, Kind.DELETE, path, 8, 0, None, "", "inotify"))
        for path, seen in self._files.items():
            if seen.created:
                made = Flag.WRITE_ONLY | Flag.CREATE | Flag.TRUNCATE
                found.append(Record(seen.time_ns, Kind.OPEN, path, ABSENT, made, None, "", "inotify"))
            elif seen.written:  # replaced, added to or changed in place: the events are the same
                type_ = 8 if seen.stat else UNKNOWN
                found.append(
                    Record(seen.time_ns, Kind.OPEN, path, type_, Flag.READ_WRITE, seen.stat, "", "inotify")
                )
            elif seen.read:
                found.append(
                    Record(
                        seen.time_ns,
                        Kind.OPEN,
                        path,
                        8 if seen.stat else UNKNOWN,
                        0,
                        seen.stat,
                        "",
                        "inotify",
                    )
                )
        for path, (now, state) in self._listed.items():
            found.append(Record(now, Kind.LIST, path, 4, 0, state, "", "inotify"))
        found.sort()
        return found


def _state(path: str) -> StatKey | None:
    try:
        return StatKey.of(os.stat(path))
    except OSError:
        return None
