"""From single events to accesses: what was there before the run, and what the run made itself.

Events of all means are taken in order of time. What the run has created, replaced or removed is its own from then on:
looking at it is no dependency. Whether a file opened for writing was really changed is decided at the end, by comparing its
state then with its state at the first open.
"""

# Paths are the run's own strings, undecodable bytes and all, and there can be 100,000 of them.
# ruff: noqa: PTH114, PTH115, PTH116, PTH118, PTH120, PTH208

from __future__ import annotations

import contextlib
import operator
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from lichen.runs.trace.agent_log import ABSENT, LEVEL_LINK, UNKNOWN, Flag, Kind, Record
from lichen.runs.trace.places import Places, normalise
from lichen.runs.trace.trace import Access, AccessKind, StatKey

__all__ = ["AccessTable"]

_ORDER = operator.attrgetter("order")
_ALONE = {
    means: frozenset((means,))
    for means in ("audit", "preload", "inotify", "proc", "argv", "import", "seccomp")
}
_DETAILS = {1: "type", 2: "status", 3: "mode", 4: "times"}
_FIFO, _CHARACTER, _DIRECTORY, _BLOCK, _REGULAR, _LINK, _SOCKET = 1, 2, 4, 6, 8, 10, 12
_MADE_BY_IMPORTS = frozenset(("__pycache__",))
_WALKED_FILES_MAX = 100_000
_LINKS_MAX = 40  # the kernel follows no more
_CONFIRMED: tuple[AccessKind, ...] = ("read", "write", "update", "append", "list")
_HARMLESS_DEVICES = (
    "/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts/", "/dev/ptmx", "/dev/nvidia",
    "/dev/dri/", "/dev/kfd", "/dev/console", "/dev/fuse", "/dev/log", "/dev/stdout", "/dev/stderr", "/dev/infiniband/",
    "/dev/hwrng", "/dev/accel", "/dev/cpu_dma_latency", "/dev/kvm", "/dev/fd/1", "/dev/fd/2",
)  # fmt: skip
_LOST_NAME = re.compile(r"/proc/[^/]+/(task/[^/]+/)?(cwd|root|fd/\d+)/|/dev/fd/\d+/")
_LOST_DIRECTORY = re.compile(r"/proc/[^/]+/(task/[^/]+/)?(cwd|root)")
"""A path that goes through a process's own directory or descriptor; what it meant cannot be told when the process is gone."""
_STDIN_NAMES = frozenset(("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"))


@dataclass
class AccessTable:
    """Collects events and gives accesses.

    Attributes:
        places: Says whose a path is.
        fifos: Named pipes and descriptors opened; their content cannot be compared later.
        devices: Devices opened that give input, such as a camera.
        stdin_opened: Standard input was opened by one of its names.
        site_files: Files of installed packages that were opened.
        site_lists: Folders of installed packages that were listed, not by the import system.
        links: Symbolic links whose target was read.
        lost_names: Paths through ``/proc`` whose meaning ended with their process.
        site_absent: Paths among installed packages that were looked for and not found, not by the import system.
        attributes: What was there before the run and had its permission bits, owner or extended attributes changed by it.
        environment_read: A process's whole environment was read as a file.
    """

    places: Places
    fifos: set[str] = field(default_factory=set)
    devices: set[str] = field(default_factory=set)
    stdin_opened: bool = False
    site_files: dict[str, StatKey | None] = field(default_factory=dict)
    site_lists: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    lost_names: set[str] = field(default_factory=set)
    site_absent: set[str] = field(default_factory=set)
    attributes: set[str] = field(default_factory=set)
    environment_read: bool = False
    _seen: dict[AccessKind, dict[str, Access]] = field(
        default_factory=lambda: {
            "read": {}, "write": {}, "append": {}, "update": {}, "list": {}, "absent": {}, "exec": {}, "stat": {}
        }
    )  # fmt: skip
    _listed_at: dict[str, int] = field(default_factory=dict)
    _inconstant: set[str] = field(default_factory=set)
    _owned: set[str] = field(default_factory=set)
    _owned_directories: set[str] = field(default_factory=set)
    _removed: set[str] = field(default_factory=set)
    _order: int = 0

    def add_all(self, records: Iterable[Record]) -> None:
        """Take many events in order of time; most of them are plain reads of files nobody else touched."""
        reads, is_ours, alone = self._seen["read"], self.places.is_ours, _ALONE
        kind_open, regular, make = Kind.OPEN, _REGULAR, tuple.__new__
        owned, owned_directories, ours = self._owned, self._owned_directories, self.places.ours_by_directory
        order = self._order
        for record in records:
            _, kind, path, kind_of_file, flags, state, _, means = record
            if (
                kind == kind_open
                and not flags
                and kind_of_file == regular
                and "/." not in path
                and "//" not in path
                and path not in reads
                and (ours.get(path[: path.rfind("/")]) or is_ours(path))
            ):
                if path not in owned and not (owned_directories and self._is_owned(path)):
                    reads[path] = make(Access, (path, "read", state, order, alone[means], "", None))
                    order += 1
            else:
                self._order = order
                self.add(record)
                order = self._order
        self._order = order

    def add(self, record: Record) -> None:
        """Take one event, later than every event taken before."""
        path, kind, means = normalise(record.path), record.kind, record.means
        if not self.places.is_ours(path):
            self._add_foreign(path, record)
        elif kind == Kind.STAT and record.flags == LEVEL_LINK and record.type != ABSENT:
            self._follow(record.path, is_link=record.type == _LINK)
        elif kind == Kind.OPEN:
            self._open(path, record)
        elif kind == Kind.STAT:
            self._look(path, record)
        elif kind == Kind.LIST:
            self._list(path, record)
        elif kind == Kind.MKDIR:
            if record.type == ABSENT and (path in self._removed or not self._is_owned(path)):
                self._owned_directories.add(path)
        elif kind == Kind.DELETE:
            self._delete(path, record)
        elif kind == Kind.ATTRIBUTES:
            if record.type != ABSENT and not self._is_owned(path):
                self.attributes.add(path)
        elif kind == Kind.MOVE:
            self._move(path, normalise(record.extra), record, means)

    def confirm(self, records: Iterable[Record]) -> None:
        """Let another means confirm what is known, adding nothing."""
        for record in records:
            path = normalise(record.path)
            for kind in _CONFIRMED:
                if path in self._seen[kind]:
                    self._note(kind, path, None, record.means)

    def add_loose(self, path: str) -> None:
        """A file in site-packages that no version describes was read."""
        self._note("read", path, self.site_files.get(path), "import")

    def add_absent(self, path: str) -> None:
        """The import system would have taken this path, had it been there; it need not lie in the project."""
        if not self._is_owned(path):
            self._note("absent", path, None, "import")

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
        place = self.places.of(path)
        if place == "device" and (
            _LOST_NAME.match(path) or (record.kind == Kind.LIST and _LOST_DIRECTORY.fullmatch(path))
        ):
            self.lost_names.add(path)
        if record.kind == Kind.LIST and place == "site" and record.type != ABSENT:
            self.site_lists.add(path)
        if place == "site" and record.type == ABSENT and record.kind in (Kind.OPEN, Kind.STAT):
            self.site_absent.add(path)
        if record.kind != Kind.OPEN:
            return
        if place == "device" and path.endswith("/environ") and path.startswith("/proc/"):
            self.environment_read = True
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
        table = self._seen[kind]
        known = table.get(path)
        if known is None:
            table[path] = tuple.__new__(Access, (path, kind, state, self._order, _ALONE[means], detail, None))
            self._order += 1
            return
        if means not in known.by:
            known = table[path] = known._replace(by=known.by | _ALONE[means])
        if kind == "stat" and detail and detail != known.detail:
            table[path] = known._replace(detail=_closer(known.detail, detail))

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

    def _open(self, path: str, record: Record) -> None:
        flags, state, kind_of_file, means = record.flags, record.stat, record.type, record.means
        if kind_of_file != _REGULAR and kind_of_file not in (ABSENT, UNKNOWN, _LINK):
            if kind_of_file == _FIFO and not self._is_owned(path):
                self.fifos.add(path)
            elif kind_of_file == _BLOCK:
                self.devices.add(path)
            elif kind_of_file == _DIRECTORY:  # to be gone to, or to look from, by its descriptor
                self._follow(path, is_link=False)
            return
        if flags & (Flag.ACCESS | Flag.TRUNCATE) or (flags & Flag.CREATE and state is None):
            self._write(path, flags, state, means)
        elif kind_of_file == ABSENT:
            self._miss(path, means)
        elif not self._is_owned(path):
            self._note("read", path, state, means)

    def _write(self, path: str, flags: int, state: StatKey | None, means: str) -> None:
        if self._is_owned(path) or path in self._removed:
            self._note("write", path, None, means)
            self._owned.add(path)
        elif state is None:
            if flags & Flag.CREATE:
                if flags & Flag.APPEND:
                    self._note(
                        "append", path, None, means
                    )  # there was nothing yet; a second run would add to it
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

    def _look(self, path: str, record: Record) -> None:
        if record.type == ABSENT:
            self._miss(path, record.means)
        elif not self._is_owned(path):
            self._note("stat", path, record.stat, record.means, _DETAILS.get(record.flags, "status"))

    def _follow(self, path: str, *, is_link: bool) -> None:
        """The target of a link was read, or a path was resolved or gone through: every link on the way counts.

        Args:
            path: What was followed, from the root; ``..`` means what it means to the kernel.
            is_link: It was a link itself at that time, whatever it is now.
        """
        pending = [path]
        for _ in range(_LINKS_MAX):
            if not pending:
                return
            walked, followed = "", pending.pop()
            for part in followed.split("/"):
                if part == "..":
                    walked = os.path.realpath(f"{walked}/..").rstrip("/")
                if part in ("", ".", ".."):
                    continue
                walked = f"{walked}/{part}"
                was_link = os.path.islink(walked) or (is_link and walked == path)
                if was_link and self.places.is_ours(walked) and not self._is_owned(walked):
                    self.links.add(walked)
                    with contextlib.suppress(OSError):  # a link behind this one may be led elsewhere as well
                        pending.append(os.path.join(os.path.dirname(walked), os.readlink(walked)))

    def _list(self, path: str, record: Record) -> None:
        if record.type == ABSENT:
            self._miss(path, record.means)
        elif record.type == _DIRECTORY and not self._is_owned(path):
            self._note("list", path, record.stat, record.means)
            self._listed_at.setdefault(path, record.time_ns)
            if record.extra:
                names = self._before_run(path, set(record.extra[:-1].split("/")) - {""})
                known = self._seen["list"][path]
                if known.names is None:
                    self._seen["list"][path] = known._replace(names=names)
                elif (set(known.names) ^ set(names)) - _MADE_BY_IMPORTS:
                    self._inconstant.add(path)  # what came and went in between nobody can see later

    def _delete(self, path: str, record: Record) -> None:
        if record.type == ABSENT:
            return
        if self._is_owned(path):
            self._owned.discard(path)
        else:
            self._note("write", path, record.stat, record.means, "deleted")
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
            self._owned -= {path for path in self._owned if path.startswith(source + "/")}
        else:
            self._owned.discard(source)
            self._owned.add(target)
        if self.places.is_ours(target):
            self._note("write", target, None, means)

    def finish(self) -> tuple[Access, ...]:
        """Compare with what is there now, and give every access in order."""
        self._settle_changes()
        self._settle_moved_directories()
        for path, access in self._seen["list"].items():
            self._seen["list"][path] = access._replace(names=self._names(access))
        for path, access in self._seen["absent"].items():
            made = self._made(path)
            if made:
                self._seen["absent"][path] = access._replace(detail=made)
        ancestors = f"{self.places.project_root}/"
        found = [
            access
            for kind, table in self._seen.items()
            for path, access in table.items()
            if kind != "stat"
            or not ancestors.startswith(f"{path}/")  # that the project is there needs no saying
        ]
        found.sort(key=_ORDER)
        return tuple(found)

    def _settle_changes(self) -> None:
        """A file opened for writing and left as it was has only been read, or not even that."""
        kinds: tuple[AccessKind, ...] = ("update", "append", "write")
        for kind in kinds:
            table = self._seen[kind]
            for path, access in list(table.items()):
                if access.stat is not None and _state(path) == access.stat:
                    del table[path]
                    target: AccessKind = "stat" if kind == "append" else "read"
                    moved = access._replace(kind=target, detail="type" if kind == "append" else "")
                    self._seen[target].setdefault(path, moved)
        writes = self._seen["write"]
        for path, access in list(writes.items()):
            if access.detail == "deleted":
                if path in self._owned:
                    writes[path] = access._replace(detail="")
            elif not os.path.lexists(path):
                if access.stat is None:
                    del writes[path]
                else:
                    writes[path] = access._replace(detail="deleted")

    def _settle_moved_directories(self) -> None:
        """Files that came with a renamed directory were written by the run."""
        walked = 0
        writes = self._seen["write"]
        for root in sorted(self._owned_directories & writes.keys()):
            means = writes.pop(root).by
            for directory, _, files in os.walk(root):
                for name in files:
                    path = f"{directory}/{name}"
                    walked += 1
                    if walked > _WALKED_FILES_MAX:
                        return
                    if path not in writes and self.places.is_ours(path):
                        writes[path] = Access(path, "write", None, self._order, means)
                        self._order += 1

    def _made(self, path: str) -> str:
        """Say what the run made where it had found nothing."""
        if path in self._owned:
            return "made-file"
        below = f"{path}/"
        if path in self._owned_directories or any(made.startswith(below) for made in self._owned_directories):
            return "made-directory"
        return ""

    def _names(self, access: Access) -> tuple[str, ...] | None:
        """Tell what a listing showed.

        A means that could not take the names down leaves it to be reconstructed from what is there now and from what the run did
        since; where anything else may have happened to the directory, that cannot be done.
        """
        path = access.path
        if path in self._inconstant:
            return None
        if access.names is not None:
            return access.names
        try:
            now = StatKey.of(os.stat(path))
            names = set(os.listdir(path))
        except OSError:
            return None
        if now == access.stat:
            return tuple(sorted(names))
        since = time.time_ns() - (time.monotonic_ns() - self._listed_at.get(path, 0))
        own = (
            self._owned | self._owned_directories | self._seen["append"].keys() | self._seen["update"].keys()
        )
        for name in names:
            entry = f"{path}/{name}"
            state = _state(entry, follow=False)
            if entry not in own and (state is None or state.ctime_ns >= since):
                return None
        return self._before_run(path, names)

    def _before_run(self, path: str, names: set[str]) -> tuple[str, ...]:
        """Take out of a listing what the run had made by then, and put back what it had removed."""
        prefix = f"{path.rstrip('/')}/"
        changes = (self._owned, self._owned_directories, self._removed)
        if not any(entry.startswith(prefix) for entries in changes for entry in entries):
            return tuple(sorted(names))
        writes = self._seen["write"]
        made = {
            name
            for name in names
            if f"{prefix}{name}" in self._owned_directories
            or (
                f"{prefix}{name}" in self._owned
                and getattr(writes.get(f"{prefix}{name}"), "stat", None) is None
            )
        }
        gone = {
            below
            for entry in self._removed
            if entry.startswith(prefix)
            and "/" not in (below := entry[len(prefix) :])
            and entry in writes
            and writes[entry].stat is not None
        }
        return tuple(sorted((names - made) | gone))

    def made_directories(self) -> tuple[str, ...]:
        """Directories the run made, sorted."""
        return tuple(sorted(self._owned_directories))


def _closer(first: str, second: str) -> str:
    order = ("", "type", "status", "mode", "times")
    return max(first, second, key=order.index)


def _state(path: str, *, follow: bool = True) -> StatKey | None:
    try:
        return StatKey.of(os.stat(path, follow_symlinks=follow))
    except OSError:
        return None
