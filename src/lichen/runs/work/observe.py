"""From what a trace saw to a manifest: inputs, outputs, code, and whether the run may answer later requests.

A run is *reusable* only when nothing that its result depended on can have escaped: every reason against it has a stable code
that stands in the entry, and a sentence for people. When in doubt a run is not reusable; a missed hit costs joules, a wrong
hit costs trust.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.errors import LichenError
from lichen.runs.distributed.launchers import LAUNCHER_VARIABLE
from lichen.runs.trace.programs import is_written_script
from lichen.runs.trace.trace import Access
from lichen.runs.work.declared import declared_entries, ignored_names
from lichen.runs.work.file_table import FileTable
from lichen.runs.work.inputs import files_below, find_links, plain_columns, plain_inputs
from lichen.runs.work.manifest import Manifest, Output
from lichen.runs.work.searches import found_by_search
from lichen.runs.work.surroundings import ALWAYS_VARIABLES, FILE_MARK, MISSING, STDIN, Surroundings
from lichen.runs.workspace.config import lichen_home

if TYPE_CHECKING:
    from lichen.runs.trace.trace import PlainReads, StatKey, Trace
    from lichen.runs.work.command import Command
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Observation", "Reason", "observe"]

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
class Observation:
    """A finished run, described.

    Args:
        manifest: What it depended on and made.
        data: Its data files, with their sizes.
        reasons: Why it is not reusable; empty when it is.
    """

    manifest: Manifest
    data: FileTable
    reasons: list[Reason] = field(default_factory=list)

    @property
    def reusable(self) -> bool:
        """Whether the run may answer later requests."""
        return not self.reasons


@dataclass
class _Path:
    """Everything the trace saw of one path: at most one access of each kind."""

    path: str
    by_kind: dict[str, Access] = field(default_factory=dict)


@dataclass
class _Observer:
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
        self.reasons.append(Reason(code, text))

    def take_path(self, seen: _Path, sources: set[str]) -> None:
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

    def _check_version_control(self, seen: _Path, name: str) -> None:
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

    def take_plain(self, reads: Mapping[str, Access], paths: dict[str, _Path]) -> None:
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
            paths[path] = _Path(path, {"read": reads[path]})

    def take_columns(self, plain: PlainReads, paths: dict[str, _Path]) -> None:
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
            paths[read[0]] = _Path(read[0], {"read": _plain_read(read)})

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

    def _take_written(self, seen: _Path, name: str) -> None:
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
            self.blame("output-not-stored", f"{name} could not be stored: {error}")
            return
        if any(attribute.startswith("user.") for attribute in _attributes_of(path)):
            self.blame("outside-roots", f"{name} was given extended attributes, which are not restored")
        self.outputs[name] = Output(name, stored.sha256, str(stored.cid), stored.size_bytes, mode)


def observe(
    workspace: Workspace,
    command: Command,
    surroundings: Surroundings,
    trace: Trace,
    *,
    started_ns: int,
) -> Observation:
    """Describe a finished run.

    Args:
        workspace: Where outputs are stored.
        command: What was asked.
        surroundings: Names and digests; knows what the user declares.
        trace: What the run was seen to do.
        started_ns: Wall-clock time at which the command started, nanoseconds.

    Returns:
        Manifest, and why it is not reusable, if so. Outputs are in the store.
    """
    declared = surroundings.declared
    outputs = declared.outputs
    observer = _Observer(workspace, surroundings, trace, started_ns, outputs)
    project = surroundings.project
    sources = set(trace.modules.values()) | {
        path for kind, path in declared_entries(surroundings, declared.code) if kind == "file"
    }
    if command.is_python and command.script and command.script.startswith("/"):
        sources.add(command.script)
    plain, named = trace.plain.without({*sources, *(access.path for access in trace.accesses)})
    reads, paths = _sorted_out(itertools.chain(trace.accesses, map(_plain_read, named)), sources)
    for path in sources:
        if project.is_ignored(path) and not project.is_read_for_good(path) and path not in declared.code:
            observer.pass_over(path)
        elif path not in paths:
            observer.take_input(path, project.name_of(path), None, is_code=True)
    observer.take_plain(reads, paths)
    observer.take_columns(plain, paths)
    for seen in paths.values():
        observer.take_path(seen, sources)
    observer.take_declared((*declared.data, *declared.code))
    _take_links(observer)
    for path in trace.links:
        _take_link(observer, path)
    _take_declared_outputs(observer, outputs)
    _take_stdin(observer, trace)
    for reason in () if trace.complete else trace.reasons or ("the trace is not complete",):
        observer.blame("partial", reason)
    for peer in trace.network[:3]:
        observer.blame("network", f"the run talked to {peer}")
    manifest = _manifest(observer, command, trace)
    for what in sorted(surroundings.concealer.hidden):
        observer.blame("secret", f"{what} is a secret, by which a public ledger must not tell work apart")
    return Observation(manifest, observer.data, observer.reasons)


def _plain_read(read: tuple[str, StatKey]) -> Access:
    return Access(read[0], "read", read[1], 0, frozenset({"preload"}))


def _sorted_out(accesses: Iterable[Access], sources: set[str]) -> tuple[dict[str, Access], dict[str, _Path]]:
    """Tell paths that were only read, or looked at and read, from all others."""
    reads: dict[str, Access] = {}
    looks: dict[str, Access] = {}
    paths: dict[str, _Path] = {}
    for access in accesses:
        path, kind = access[0], access[1]
        if kind == "read" and path not in sources:
            reads[path] = access
        elif kind == "stat" and path not in sources and access.detail not in ("mode", "times"):
            looks[path] = access
        else:
            seen = paths.get(path)
            if seen is None:
                seen = paths[path] = _Path(path)
            seen.by_kind[kind] = access
    for path, seen in paths.items():
        for table in (reads, looks):
            if path in table:
                access = table.pop(path)
                seen.by_kind[access.kind] = access
    for path, access in looks.items():
        if path not in reads:
            paths[path] = _Path(path, {"stat": access})
    return reads, paths


def _take_links(observer: _Observer) -> None:
    """Note symbolic links on the way to inputs."""
    surroundings = observer.surroundings
    project = surroundings.project
    plain = {*observer.plain_names, STDIN}  # of plain reads the paths are at hand
    names = [name for name in (*observer.code, *observer.data.alone()) if name not in plain]
    inputs = itertools.chain(observer.plain_paths, map(project.path_of, names))
    for link in find_links(surroundings, inputs, observer.plain_by_directory):
        if project.is_ignored(link):
            observer.pass_over(link)
        else:
            observer.take_link(link)


def _take_link(observer: _Observer, path: str) -> None:
    """Note a link whose target was read, unless it leads to the whole project: a colleague's checkout has others."""
    project = observer.surroundings.project
    leads_home = f"{project.root}/".startswith(f"{os.path.realpath(path)}/")
    if project.is_ignored(path):
        observer.pass_over(path)
    elif not (leads_home and not project.contains(path)):
        observer.take_link(path)


def _take_declared_outputs(observer: _Observer, declared: tuple[str, ...]) -> None:
    """Take declared outputs that no trace saw written; what an earlier run left there is not this run's."""
    project = observer.surroundings.project
    for path in declared:
        found = files_below([path])
        if not found and not Path(path).is_dir():
            observer.blame(
                "declared-output-missing", f"the declared output {project.name_of(path)} was not made"
            )
        for file in found:
            name = project.name_of(file)
            if name in observer.outputs or name in observer.data or project.is_ignored(file):
                continue
            if observer.stood_before(file):
                if file == path:
                    observer.blame(
                        "declared-output-missing", f"{name} was there before and was not made anew"
                    )
                continue
            observer.take_output(file, name)


def _take_stdin(observer: _Observer, trace: Trace) -> None:
    if not trace.stdin_used:
        return
    digest = observer.surroundings.digest_of(STDIN)
    if digest != MISSING:
        observer.data.put(STDIN, digest)


def _manifest(observer: _Observer, command: Command, trace: Trace) -> Manifest:
    surroundings = observer.surroundings
    project = surroundings.project
    listings = observer.listings()
    imports = frozenset(trace.imports)
    module_directories = {project.name_of(path) for path in trace.module_directories}
    names = {*trace.variables, *surroundings.declared.variables, *ALWAYS_VARIABLES}
    names = {name for name in names if not LAUNCHER_VARIABLE.fullmatch(name)}
    seed_variables = {name[1:] for name in command.seeds if name.startswith("$")}
    executables = {}
    started = set(trace.execs)
    if command.executable and not command.is_python and is_written_script(command.executable):
        started.add(command.executable)
    for path in sorted(started):
        digest = surroundings.digest_of(project.name_of(path))
        if digest == MISSING:
            observer.blame("partial", f"{path} was executed and cannot be read now")
        else:
            executables[project.name_of(path)] = digest
    interpreter = surroundings.interpreter
    keys = ["encoding", "start", *interpreter.to_environment()] if interpreter else ["encoding", "machine"]
    if trace.environment.get("cuda"):
        keys.append("nvidia_driver")
    keys += found_by_search(surroundings.environ, trace)
    facts = surroundings.environment_of(keys)
    return Manifest(
        command=command.canonical,
        cwd=project.name_of(command.cwd),
        family=command.family,
        seeds=dict(command.seeds),
        parameters=dict(command.parameters),
        code=observer.code,
        data=observer.data,
        absent=tuple(sorted(observer.absent)),
        present=observer.present,
        listings=listings,
        imports=tuple(sorted(imports)),
        modules={name: surroundings.modules_in(name, imports) for name in sorted(module_directories)},
        variables={name: surroundings.variable(name) for name in sorted(names - seed_variables)},
        environment=facts,
        distributions=surroundings.versions_of(trace.distributions),
        executables=executables,
        outputs=tuple(observer.outputs[name] for name in sorted(observer.outputs)),
        directories=tuple(sorted(observer.directories)),
        ignored=ignored_names(project, observer.ignored),
        declared_outputs=tuple(sorted(map(project.name_of, observer.declared_outputs))),
    )


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


def data_digests(observation: Observation, limit: int) -> list[str]:
    """Return the digests of the largest data files, for the entry.

    Args:
        observation: Of a run.
        limit: Most digests wanted.
    """
    return observation.data.largest(limit)
