"""From single events to accesses: what was there before the run, and what the run made itself.

Events of all means are taken in order of time. What the run has created, replaced or removed is its own from then on:
looking at it is no dependency. Whether a file opened for writing was really changed is decided at the end, by comparing its
state then with its state at the first open.
"""

# Paths are the run's own strings, undecodable bytes and all, and there can be 100,000 of them.
# ruff: noqa: PTH116

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from lichen.runs.trace.agent_log import ABSENT, UNKNOWN, Flag, Kind, Record
from lichen.runs.trace.places import Places, normalise
from lichen.runs.trace.trace import Access, AccessKind, StatKey

__all__ = ["AccessTable", "list_names"]

_DETAILS = {1: "type", 2: "status", 3: "times"}
_FIFO, _CHARACTER, _DIRECTORY, _BLOCK, _REGULAR, _LINK, _SOCKET = 1, 2, 4, 6, 8, 10, 12
_WALKED_FILES_MAX = 100_000
_CONFIRMED: tuple[AccessKind, ...] = ("read", "write", "update", "append", "list")
_HARMLESS_DEVICES = (
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts/", "/dev/ptmx", "/dev/nvidia",
    "/dev/dri/", "/dev/kfd", "/dev/console", "/dev/fuse", "/dev/log", "/dev/stdout", "/dev/stderr", "/dev/infiniband/",
    "/dev/hwrng", "/dev/accel", "/dev/cpu_dma_latency", "/dev/kvm", "/dev/fd/1", "/dev/fd/2",
)  # fmt: skip
_STDIN_NAMES = frozenset(("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"))


@dataclass
class _Seen:
    """First access of one kind to one path."""

    order: int
    stat: StatKey | None
    by: set[str]
    detail: str = ""


@dataclass
class AccessTable:
    """Collects events and gives accesses.

    Attributes:
        places: Says whose a path is.
        fifos: Named pipes and descriptors opened; their content cannot be compared later.
        devices: Devices opened that give input, such as a camera.
        stdin_opened: Standard input was opened by one of its names.
        site_files: Files of installed packages that were opened.
    """

    places: Places
    fifos: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    stdin_opened: bool = False
    site_files: dict[str, StatKey | None] = field(default_factory=dict)
    _seen: dict[AccessKind, dict[str, _Seen]] = field(
        default_factory=lambda: {
            "read": {}, "write": {}, "append": {}, "update": {}, "list": {}, "absent": {}, "exec": {}, "stat": {}
        }
    )  # fmt: skip
    _owned: set[str] = field(default_factory=set)
    _owned_directories: set[str] = field(default_factory=set)
    _removed: set[str] = field(default_factory=set)
    _order: int = 0

    def add_all(self, records: Iterable[Record], means: str) -> None:
        """Take events in order of time."""
        for record in records:
            self.add(record, means)

    def add(self, record: Record, means: str) -> None:
        """Take one event.

        Args:
            record: What was seen; later than every event taken before.
            means: Who saw it.
        """
        path = normalise(record.path)
        if not self.places.is_ours(path):
            self._add_foreign(path, record)
            return
        kind = record.kind
        if kind == Kind.OPEN:
            self._open(path, record, means)
        elif kind == Kind.STAT:
            self._look(path, record, means)
        elif kind == Kind.LIST:
            if record.type == ABSENT:
                self._miss(path, means)
            elif not self._is_owned(path) and record.type == _DIRECTORY:
                self._note("list", path, record.stat, means)
        elif kind == Kind.MKDIR:
            if record.type == ABSENT:
                self._make_directory(path)
        elif kind == Kind.DELETE:
            self._delete(path, record, means)
        elif kind == Kind.MOVE:
            self._move(path, normalise(record.extra), record, means)

    def confirm(self, records: Iterable[Record], means: str) -> None:
        """Let another means confirm what is known, adding nothing."""
        for record in records:
            path = normalise(record.path)
            for kind in _CONFIRMED:
                seen = self._seen[kind].get(path)
                if seen is not None:
                    seen.by.add(means)

    def add_loose(self, path: str) -> None:
        """A file in site-packages that no version describes was read."""
        self._note("read", path, self.site_files.get(path), "preload")

    def add_mapped(self, path: str, state: StatKey | None) -> None:
        """A file was in memory; a library loaded by native code, for one."""
        path = normalise(path)
        if self.places.is_ours(path) and not self._is_owned(path) and path not in self._seen["write"]:
            self._note("read", path, state, "proc")

    def add_exec(self, path: str, state: StatKey | None, means: str) -> None:
        """A program or script of the project, or one installed by hand, was started."""
        path = normalise(path)
        if self.places.is_ours(path) and not self._is_owned(path):
            self._note("exec", path, state, means)

    def _add_foreign(self, path: str, record: Record) -> None:
        if record.kind != Kind.OPEN:
            return
        place = self.places.of(path)
        if place == "site":
            self.site_files.setdefault(path, record.stat)
        elif place == "device":
            if path in _STDIN_NAMES:
                self.stdin_opened = True
            elif path.startswith("/dev/fd/") and record.type == _FIFO:
                self.fifos.add(path)
            elif record.type in (_CHARACTER, _BLOCK) and not path.startswith(_HARMLESS_DEVICES):
                self.devices.add(path)

    def _note(self, kind: AccessKind, path: str, state: StatKey | None, means: str, detail: str = "") -> None:
        known = self._seen[kind].get(path)
        if known is None:
            self._seen[kind][path] = _Seen(self._order, state, {means}, detail)
            self._order += 1
        else:
            known.by.add(means)
            if kind == "stat":
                known.detail = _closer(known.detail, detail)

    def _is_owned(self, path: str) -> bool:
        if path in self._owned or path in self._owned_directories:
            return True
        if self._owned_directories:
            parent = path.rfind("/")
            while parent > 0:
                if path[:parent] in self._owned_directories:
                    return True
                parent = path.rfind("/", 0, parent)
        return False

    def _open(self, path: str, record: Record, means: str) -> None:
        flags, state, kind_of_file = record.flags, record.stat, record.type
        if kind_of_file != _REGULAR and kind_of_file not in (ABSENT, UNKNOWN):
            if kind_of_file == _FIFO and not self._is_owned(path):
                self.fifos.add(path)
            elif kind_of_file == _BLOCK:
                self.devices.add(path)
            if kind_of_file != _LINK:
                return
        if not flags & (Flag.ACCESS | Flag.TRUNCATE) and not (flags & Flag.CREATE and state is None):
            if self._is_owned(path):
                return
            if kind_of_file == ABSENT:
                self._miss(path, means)
            else:
                self._note("read", path, state, means)
            return
        self._write(path, flags, state, means)

    def _write(self, path: str, flags: int, state: StatKey | None, means: str) -> None:
        if self._is_owned(path) or path in self._removed:
            self._note("write", path, None, means)
            self._owned.add(path)
        elif state is None:
            if flags & Flag.CREATE:
                self._note("write", path, None, means)
                self._owned.add(path)
            else:
                self._miss(path, means)
        elif flags & Flag.TRUNCATE:
            self._note("write", path, state, means)
            self._owned.add(path)
        elif flags & Flag.APPEND and not flags & Flag.READ_WRITE:
            self._note("append", path, state, means)
        else:
            self._note("update", path, state, means)

    def _miss(self, path: str, means: str) -> None:
        if path not in self._removed and not self._is_owned(path):
            self._note("absent", path, None, means)

    def _look(self, path: str, record: Record, means: str) -> None:
        if self._is_owned(path):
            return
        if record.type == ABSENT:
            self._miss(path, means)
        else:
            self._note("stat", path, record.stat, means, _DETAILS.get(record.flags, "status"))

    def _make_directory(self, path: str) -> None:
        if path in self._removed or not self._is_owned(path):
            self._owned_directories.add(path)

    def _delete(self, path: str, record: Record, means: str) -> None:
        if record.type == ABSENT:
            return
        if self._is_owned(path):
            self._owned.discard(path)
        else:
            self._note("write", path, record.stat, means, "deleted")
        self._removed.add(path)

    def _move(self, source: str, target: str, record: Record, means: str) -> None:
        if record.type == ABSENT:
            return
        is_directory = record.type == _DIRECTORY
        if not self._is_owned(source):
            if not is_directory:
                self._note("read", source, record.stat, means)
            self._note("write", source, record.stat, means, "deleted")
        self._removed.add(source)
        if is_directory:
            self._owned_directories.add(target)
            for path in [path for path in self._owned if path.startswith(source + "/")]:
                self._owned.discard(path)
        else:
            self._owned.discard(source)
            self._owned.add(target)
        if self.places.is_ours(target):
            self._note("write", target, None, means)

    def finish(self) -> tuple[Access, ...]:
        """Compare with what is there now, and give every access in order."""
        self._settle_changes()
        self._settle_moved_directories()
        found: list[Access] = []
        for kind, table in self._seen.items():
            for path, seen in table.items():
                if kind == "stat" and f"{self.places.project_root}/".startswith(f"{path}/"):
                    continue  # that the project is where it is needs no saying
                names = self._names(path, seen) if kind == "list" else None
                detail = seen.detail
                if kind == "absent":
                    detail = self._made(path)
                found.append(Access(path, kind, seen.stat, seen.order, frozenset(seen.by), detail, names))
        found.sort(key=lambda access: access.order)
        return tuple(found)

    def _settle_changes(self) -> None:
        """A file opened for update or append and left as it was has only been read, or not even that."""
        kinds: tuple[AccessKind, ...] = ("update", "append")
        for kind in kinds:
            table = self._seen[kind]
            for path, seen in list(table.items()):
                now = _state(path)
                if seen.stat is not None and now == seen.stat:
                    del table[path]
                    target: AccessKind = "read" if kind == "update" else "stat"
                    if path not in self._seen[target]:
                        self._seen[target][path] = _Seen(
                            seen.order, seen.stat, seen.by, "" if target == "read" else "type"
                        )
        for path, seen in list(self._seen["write"].items()):
            if seen.detail != "deleted" and not os.path.lexists(path):
                if seen.stat is None:
                    del self._seen["write"][path]
                seen.detail = "deleted"
            elif seen.detail == "deleted" and path in self._owned:
                seen.detail = ""

    def _settle_moved_directories(self) -> None:
        """Files that came with a renamed directory, or were made in a new one unseen, were written by the run."""
        walked = 0
        for root in sorted(self._owned_directories):
            if root not in self._seen["write"]:
                continue
            means = set(self._seen["write"].pop(root).by)
            for directory, _, files in os.walk(root):
                for name in files:
                    path = f"{directory}/{name}"
                    walked += 1
                    if walked > _WALKED_FILES_MAX:
                        return
                    if path not in self._seen["write"] and self.places.is_ours(path):
                        self._seen["write"][path] = _Seen(self._order, None, set(means))
                        self._order += 1

    def _made(self, path: str) -> str:
        """Say what the run made where it had found nothing."""
        if path in self._owned_directories or any(
            made.startswith(path + "/") for made in self._owned_directories
        ):
            return "made-directory"
        return "made-file" if path in self._owned else ""

    def _names(self, path: str, seen: _Seen) -> tuple[str, ...] | None:
        """Reconstruct what a listing showed from what is there now and what the run did since."""
        try:
            now = os.stat(path)
            names = set(list_names(path))
        except OSError:
            return None
        if seen.stat is not None and StatKey.of(now) == seen.stat:
            return tuple(sorted(names))
        prefix = path.rstrip("/") + "/"
        mine = {p[len(prefix) :] for p in self._owned | self._owned_directories if p.startswith(prefix)}
        made = {name.partition("/")[0] for name in mine}
        gone = {
            p[len(prefix) :]
            for p, write in self._seen["write"].items()
            if write.detail == "deleted" and p.startswith(prefix) and "/" not in p[len(prefix) :]
        }
        replaced = {
            p[len(prefix) :]
            for p, write in self._seen["write"].items()
            if write.stat is not None and p.startswith(prefix)
        }
        fresh = {name for name in made if name not in replaced}
        if not fresh and not gone and not mine & self._removed_below(prefix):
            temporary = any(p.startswith(prefix) for p in self._removed)
            if not temporary:
                return None
        return tuple(sorted({name for name in names if name.rstrip("/") not in fresh} | gone))

    def _removed_below(self, prefix: str) -> set[str]:
        return {p[len(prefix) :] for p in self._removed if p.startswith(prefix)}

    def made_directories(self) -> tuple[str, ...]:
        """Directories the run made, sorted."""
        return tuple(sorted(self._owned_directories))


def _closer(first: str, second: str) -> str:
    order = ("", "type", "status", "times")
    return max(first, second, key=order.index)


def _state(path: str) -> StatKey | None:
    try:
        return StatKey.of(os.stat(path))
    except OSError:
        return None


def list_names(path: str) -> tuple[str, ...]:
    """List a directory the way `Access.names` does: sorted, directories with a trailing slash.

    Raises:
        OSError: It cannot be listed.
    """
    with os.scandir(path) as entries:
        names = []
        for entry in entries:
            try:
                is_directory = (
                    entry.is_dir() if not entry.is_symlink() else stat.S_ISDIR(os.stat(entry.path).st_mode)
                )
            except OSError:
                is_directory = False
            names.append(f"{entry.name}/" if is_directory else entry.name)
    return tuple(sorted(names))
