"""One pass over what a trace saw: every path sorted into the section of the manifest it belongs to, or blamed.

Each check here keeps one rule: what a run's result depended on is described as the run saw it, and where that cannot be made sure of,
the run answers nobody.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.errors import LichenError
from lichen.runs.trace.trace import Access
from lichen.runs.work.declared import declared_entries
from lichen.runs.work.file_table import FileTable
from lichen.runs.work.inputs import plain_columns, plain_inputs
from lichen.runs.work.manifest import Output
from lichen.runs.work.surroundings import FILE_MARK, MISSING, Surroundings
from lichen.runs.workspace.config import lichen_home

if TYPE_CHECKING:
    from lichen.runs.trace.trace import PlainReads, StatKey, Trace
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Observer", "Reason", "SeenPath", "plain_read"]

_CLOCK_SLACK_NS = (
    10_000_000  # (= 10 ms) file times come from the kernel's coarse clock, up to one tick behind
)


@dataclass(frozen=True)
class Reason:
    """Why a run is not reusable.

    Args:
        code: Stable code, such as ``inputs-changed``.
        text: Sentence that names the file.
    """

    code: str
    text: str


@dataclass
class SeenPath:
    """Everything the trace saw of one path: at most one access of each kind."""

    path: str
    by_kind: dict[str, Access] = field(default_factory=dict)


@dataclass
class Observer:
    """One pass over a trace; collects sections and reasons."""

    workspace: Workspace
    surroundings: Surroundings
    trace: Trace
    started_ns: int
    declared_outputs: tuple[str, ...]
    code: dict[str, str] = field(default_factory=dict)
    data: FileTable = field(default_factory=FileTable)
    present: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    listed: dict[str, Access] = field(default_factory=dict)
    outputs: dict[str, Output] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    reasons: list[Reason] = field(default_factory=list)
    plain_paths: list[str] = field(default_factory=list)
    plain_names: list[str] = field(default_factory=list)
    plain_by_directory: Mapping[str, Sequence[str]] = field(default_factory=dict)
    declared_directories: list[str] = field(default_factory=list)
    ignored: set[str] = field(default_factory=set)

    @cached_property
    def own_places(self) -> tuple[str, ...]:
        """Directories of Lichen's own, which runs inside this run touch."""
        return str(self.workspace.directory), str(lichen_home())

    def blame(self, code: str, text: str) -> None:
        """Add a reason why the run answers nobody."""
        self.reasons.append(Reason(code, text))

    def take_path(self, seen: SeenPath, sources: set[str]) -> None:
        """Sort one path into the sections."""
        project = self.surroundings.project
        if any(_is_below(seen.path, place) for place in self.own_places):
            return
        name = project.name_of(seen.path)
        kinds = seen.by_kind
        if project.is_ignored(seen.path):
            self.pass_over(seen.path)
            self._check_version_control(seen, name)
            if not project.is_read_for_good(seen.path):
                return
            kinds = {kind: access for kind, access in kinds.items() if kind in ("read", "absent", "list")}
        if "read" in kinds or "exec" in kinds:
            first = kinds.get("read") or kinds["exec"]
            self.take_input(seen.path, name, first.stat, is_code=seen.path in sources)
        if "absent" in kinds:
            self._take_absent(kinds["absent"], name)
        if "list" in kinds:
            self.listed[name] = kinds["list"]
        if "stat" in kinds and not kinds.keys() & {"write", "append", "update"}:
            self._check_looked_at(seen.path, name, kinds["stat"])
        if "stat" in kinds and kinds["stat"].detail in ("mode", "times") and "write" not in kinds:
            self.present[name] = self.surroundings.status_of(name, times=kinds["stat"].detail == "times")
        elif "stat" in kinds and not kinds.keys() & {"read", "absent", "list", "exec"}:
            presence = self.surroundings.presence_of(name)
            if "write" not in kinds and presence != MISSING:
                self.present[name] = presence
            elif "write" in kinds and kinds["stat"].stat is not None and presence.isdigit():
                self.present[name] = (
                    FILE_MARK  # it was there, and the run may have gone another way because of it
                )
        if kinds.keys() & {"write", "append", "update"}:
            self._take_written(seen, name)

    def _check_looked_at(self, path: str, name: str, look: Access) -> None:
        """Make sure that what was looked at is what stands there now; what was only looked at is described as it is now."""
        first = look.stat
        try:
            info = os.stat(path)  # noqa: PTH116 - there can be 100,000
        except OSError:
            if first is None:
                self.absent.add(name)  # what the look found is not known
            else:
                self.blame("inputs-changed", f"{name} was looked at and is gone")
            return
        if first is None:
            return
        same = (first.device, first.inode) == (info.st_dev, info.st_ino)
        if stat.S_ISREG(info.st_mode):
            same = _unchanged(first, info)
        if not same:
            self.blame("inputs-changed", f"{name} changed after the run had looked at it")

    def take_link(self, path: str) -> None:
        """Note where a link points, and make sure that it did so all the time."""
        name = self.surroundings.project.name_of(path)
        if name in self.present:
            return
        try:
            info = os.lstat(path)
        except OSError:
            self.blame("inputs-changed", f"the link {name} was followed and is gone")
            return
        if not stat.S_ISLNK(info.st_mode) or info.st_ctime_ns >= self.started_ns - _CLOCK_SLACK_NS:
            self.blame("inputs-changed", f"the link {name} was changed by something else during the run")
        self.present[name] = self.surroundings.link_of(name)

    def pass_over(self, path: str) -> None:
        """Note a path that the user told Lichen to ignore: another request may not be told so."""
        if self.surroundings.project.is_chosen_ignored(path):
            self.ignored.add(path)

    def _check_version_control(self, seen: SeenPath, name: str) -> None:
        """Blame a change of what version control keeps: a hit would not make it."""
        written = seen.by_kind.keys() & {"write", "append", "update"}
        if written and self.surroundings.project.is_version_control(seen.path) and os.path.lexists(seen.path):
            self.blame("outside-roots", f"{name} was written, and what version control keeps is not restored")

    def take_input(self, path: str, name: str, first: StatKey | None, *, is_code: bool) -> None:
        """Hash one input, and make sure it is what the run saw."""
        try:
            info = os.stat(path)  # noqa: PTH116 - there can be 100,000
        except OSError:
            if (
                first is None and Path(path).is_symlink()
            ):  # it led nowhere, or to itself, and opening it failed
                self.present[name] = self.surroundings.link_of(name)
            else:
                self.blame("inputs-changed", f"{name} was read and is gone")
            return
        if stat.S_ISDIR(info.st_mode):
            self.present[name] = "directory"
            return
        if not stat.S_ISREG(info.st_mode):
            self.blame(
                "partial", f"{name} is no regular file, so what was read from it cannot be compared later"
            )
            return
        if first is not None and not _unchanged(first, info):
            self.blame("inputs-changed", f"{name} changed while the run was reading it")
        elif info.st_ctime_ns >= self.started_ns - _CLOCK_SLACK_NS:
            self.blame("inputs-changed", f"{name} was changed by something else during the run")
        digest = self.surroundings.digest_of(name)
        if digest == MISSING:
            self.blame("inputs-changed", f"{name} cannot be read now")
            return
        if is_code:
            self.code[name] = digest
        else:
            self.data.put(name, digest, info.st_size)

    def take_plain(self, reads: Mapping[str, Access], paths: dict[str, SeenPath]) -> None:
        """Take files that were only read and are as they were; the others go to ``paths``, to be looked at one by one."""
        plain = plain_inputs(
            self.surroundings,
            {path: access.stat for path, access in reads.items()},
            changed_since_ns=self.started_ns - _CLOCK_SLACK_NS,
            own_places=self.own_places,
        )
        self.plain_paths = plain.paths
        self.plain_names += plain.names
        for path in plain.ignored:
            self.pass_over(path)
        self.data.put_all(plain.names, plain.digests, plain.sizes)
        for path in plain.rest:
            paths[path] = SeenPath(path, {"read": reads[path]})

    def take_columns(self, plain: PlainReads, paths: dict[str, SeenPath]) -> None:
        """Take very many such files by columns."""
        if not len(plain):
            return
        found, odd = plain_columns(
            self.surroundings,
            plain,
            changed_since_ns=self.started_ns - _CLOCK_SLACK_NS,
            own_places=self.own_places,
        )
        self.plain_by_directory = found.by_directory
        for path in found.ignored:
            self.pass_over(path)
        self.data.put_columns(found.files)
        for read in odd:
            paths[read[0]] = SeenPath(read[0], {"read": plain_read(read)})

    def stood_before(self, path: str) -> bool:
        """Say whether a file is as it was before the run."""
        try:
            return Path(path).stat().st_ctime_ns < self.started_ns - _CLOCK_SLACK_NS
        except OSError:
            return False

    def _take_absent(self, access: Access, name: str) -> None:
        self.absent.add(name)
        if not access.detail and self.surroundings.presence_of(name) != MISSING:
            self.blame("inputs-changed", f"{name} appeared during the run")
        if access.detail == "made-directory" and self.surroundings.presence_of(name) == "directory":
            self.directories.add(name)

    def _take_written(self, seen: SeenPath, name: str) -> None:
        kinds = seen.by_kind
        if "append" in kinds and kinds["append"].stat is not None:
            self.blame("appended", f"{name} existed and was appended to")
        if "update" in kinds:
            self.blame("read-then-written", f"{name} was changed in place")
        if "read" in kinds and "write" in kinds:
            self.blame("read-then-written", f"{name} was read and then overwritten")
        try:
            info = os.lstat(seen.path)
        except OSError:
            if "write" in kinds and kinds["write"].detail == "deleted":
                self.blame("deleted", f"{name} existed and was deleted")
            return  # a temporary file; it is gone
        if "append" in kinds and kinds["append"].stat is None:
            self.blame("appended", f"{name} was opened to append to, so a second run would add to it")
        project = self.surroundings.project
        inside = project.contains(seen.path) or any(
            _is_below(seen.path, entry) for entry in self.declared_outputs
        )
        if not inside:
            if not _is_cache(seen.path):
                self.blame(
                    "outside-roots", f"{seen.path} was written outside the project and the declared outputs"
                )
            return
        if stat.S_ISDIR(info.st_mode):
            self.directories.add(name)
        elif stat.S_ISREG(info.st_mode):
            self.take_output(seen.path, name)
        else:
            self.blame("outside-roots", f"{name} was made and is neither a file nor a directory")

    def listings(self) -> dict[str, str]:
        """Digest the listings read, and make sure that nothing but the run changed them."""
        made = set(self.outputs) | self.directories
        found = {}
        for name, access in sorted(self.listed.items()):
            if name in self.directories:
                continue
            found[name] = self.surroundings.listing_of(name, made)
            for path in self.surroundings.ignored_entries(name, access.names or ()):
                self.pass_over(path)
            if access.names is None or not self.surroundings.has_listed(name, made, access.names):
                self.blame("inputs-changed", f"the listing of {name} changed during the run")
        for name in self.declared_directories:
            if name not in found and name not in self.directories:
                found[name] = self.surroundings.listing_of(name, made)
        return found

    def take_declared(self, paths: Iterable[str]) -> None:
        """Take what the user calls inputs, whether the run was seen to read it or not, and the names in its directories."""
        project = self.surroundings.project
        for kind, path in declared_entries(self.surroundings, paths):
            name = project.name_of(path)
            if kind == "directory":
                self.declared_directories.append(name)
            elif kind == "missing" and not Path(path).is_symlink():
                if name not in self.outputs:
                    self.absent.add(name)
            elif kind != "other" and not (name in self.code or name in self.data or name in self.outputs):
                self.take_input(path, name, None, is_code=False)

    def take_output(self, path: str, name: str) -> None:
        """Store one output."""
        try:
            stored = self.workspace.store.put_file(Path(path))
            mode = stat.S_IMODE(Path(path).stat().st_mode)
        except (LichenError, OSError) as error:
            said = error.message if isinstance(error, LichenError) else str(error)
            self.blame("output-not-stored", f"{name} could not be stored: {said}")
            return
        if any(attribute.startswith("user.") for attribute in _attributes_of(path)):
            self.blame("outside-roots", f"{name} was given extended attributes, which are not restored")
        self.outputs[name] = Output(name, stored.sha256, str(stored.cid), stored.size_bytes, mode)


def plain_read(read: tuple[str, StatKey]) -> Access:
    """Return a read of which only the path and its state are known."""
    return Access(read[0], "read", read[1], 0, frozenset({"preload"}))


def _unchanged(first: StatKey, now: os.stat_result) -> bool:
    return (first.device, first.inode, first.size_bytes, first.mtime_ns, first.ctime_ns) == (
        now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns
    )  # fmt: skip


def _attributes_of(path: str) -> list[str]:
    try:
        return os.listxattr(path)
    except OSError:  # this file system keeps none
        return []


def _is_below(path: str, entry: str) -> bool:
    return path == entry or path.startswith(entry.rstrip("/") + "/")


def _is_cache(path: str) -> bool:
    """Say whether a path lies in a per-user cache, which programs may rewrite at will."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    if _is_below(path, "/dev/shm"):  # noqa: S108 - memory that stays behind is a file for whoever runs next
        return False
    return _is_below(path, cache) or path.startswith(("/dev/", "/proc/"))
