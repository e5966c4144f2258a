"""From what a trace saw to a manifest: inputs, outputs, code, and whether the run may answer later requests.

A run is *reusable* only when nothing that its result depended on can have escaped: every reason against it has a stable code
that stands in the entry, and a sentence for people. When in doubt a run is not reusable; a missed hit costs joules, a wrong
hit costs trust.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.encoding.base import b64u
from lichen.errors import LichenError
from lichen.runs.manifest import Manifest, Output
from lichen.runs.surroundings import ALWAYS_VARIABLES, MISSING, STDIN, Surroundings

if TYPE_CHECKING:
    from lichen.runs.command import Command
    from lichen.runs.trace.trace import Access, StatKey, Trace
    from lichen.runs.workspace import Workspace

__all__ = ["Observation", "Reason", "observe"]

_CLOCK_SLACK_NS = 10_000_000  # (= 10 ms) file times come from the kernel's coarse clock, up to one tick behind


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
        data_sizes: Size by name of each data file, for choosing those that stand in the entry.
        reasons: Why it is not reusable; empty when it is.
    """

    manifest: Manifest
    data_sizes: dict[str, int]
    reasons: list[Reason] = field(default_factory=list)

    @property
    def reusable(self) -> bool:
        """Whether the run may answer later requests."""
        return not self.reasons


@dataclass
class _Path:
    """Everything the trace saw of one path, in order."""

    path: str
    order: dict[str, int] = field(default_factory=dict)
    first: Access | None = None
    first_stat: StatKey | None = None

    def add(self, access: Access) -> None:
        if self.first is None or access.order < self.first.order:
            self.first = access
        if access.kind == "read" and self.first_stat is None:
            self.first_stat = access.stat
        self.order[access.kind] = min(self.order.get(access.kind, access.order), access.order)

    def at(self, *kinds: str) -> int | None:
        found = [self.order[kind] for kind in kinds if kind in self.order]
        return min(found) if found else None


@dataclass
class _Observer:
    """One pass over a trace; collects sections and reasons."""

    workspace: Workspace
    surroundings: Surroundings
    trace: Trace
    started_ns: int
    declared_outputs: tuple[str, ...]
    code: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    data_sizes: dict[str, int] = field(default_factory=dict)
    present: dict[str, str] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    outputs: dict[str, Output] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    reasons: list[Reason] = field(default_factory=list)

    def blame(self, code: str, text: str) -> None:
        self.reasons.append(Reason(code, text))

    def take_path(self, seen: _Path, sources: set[str]) -> None:
        """Sort one path into the sections."""
        project = self.surroundings.project
        if project.is_ignored(seen.path):
            return
        name = project.name_of(seen.path)
        read_at = seen.at("read", "exec")
        changed_at = seen.at("write", "append", "update")
        looked_at = seen.at("stat", "absent", "list")
        first_touch = min(order for order in seen.order.values())
        if changed_at is not None:
            self._take_written(seen, name, read_at, changed_at)
        if changed_at is None or first_touch < changed_at:
            if "absent" in seen.order and (changed_at is None or seen.order["absent"] < changed_at):
                self._take_absent(seen, name, changed_at)
            elif read_at is not None and (changed_at is None or read_at < changed_at):
                self.take_input(seen.path, name, seen.first_stat, is_code=seen.path in sources)
            elif looked_at is not None and "list" in seen.order:
                self.listed.add(name)
            elif looked_at is not None:
                presence = self.surroundings.presence_of(name)
                if presence != MISSING:
                    self.present[name] = presence
        if "list" in seen.order and changed_at is None:
            self.listed.add(name)

    def take_input(self, path: str, name: str, first: StatKey | None, *, is_code: bool) -> None:
        """Hash one input, and make sure it is what the run saw."""
        try:
            info = os.stat(path)
        except OSError:
            self.blame("inputs-changed", f"{name} was read and is gone")
            return
        if stat.S_ISDIR(info.st_mode):
            self.present[name] = "directory"
            return
        if not stat.S_ISREG(info.st_mode):
            self.blame("partial", f"{name} is no regular file, so what was read from it cannot be compared later")
            return
        if first is not None and not _unchanged(first, info):
            self.blame("inputs-changed", f"{name} changed while the run was reading it")
        elif max(info.st_ctime_ns, info.st_mtime_ns) >= self.started_ns - _CLOCK_SLACK_NS and info.st_ctime_ns >= (
            self.started_ns - _CLOCK_SLACK_NS
        ):
            self.blame("inputs-changed", f"{name} was changed by something else during the run")
        digest = self.surroundings.digest_of(name)
        if digest == MISSING:
            self.blame("inputs-changed", f"{name} cannot be read now")
            return
        if is_code:
            self.code[name] = digest
        else:
            self.data[name] = digest
            self.data_sizes[name] = info.st_size

    def _take_absent(self, seen: _Path, name: str, changed_at: int | None) -> None:
        self.absent.add(name)
        if changed_at is None and name not in self.directories and self.surroundings.presence_of(name) not in (MISSING, "directory"):
            self.blame("inputs-changed", f"{name} appeared during the run")

    def _take_written(self, seen: _Path, name: str, read_at: int | None, changed_at: int) -> None:
        existed = seen.first is not None and (seen.first.stat is not None or seen.first.kind in ("read", "stat"))
        if "append" in seen.order and existed:
            self.blame("appended", f"{name} existed and was appended to")
        if "update" in seen.order and existed:
            self.blame("read-then-written", f"{name} was changed in place")
        if read_at is not None and read_at < changed_at:
            self.blame("read-then-written", f"{name} was read and then overwritten")
        try:
            info = os.lstat(seen.path)
        except OSError:
            return  # a temporary file; it is gone
        project = self.surroundings.project
        inside = project.contains(seen.path) or any(_is_below(seen.path, entry) for entry in self.declared_outputs)
        if not inside:
            if not _is_cache(seen.path):
                self.blame("outside-roots", f"{seen.path} was written outside the project and the declared outputs")
            return
        if stat.S_ISDIR(info.st_mode):
            self.directories.add(name)
        elif stat.S_ISREG(info.st_mode):
            self.take_output(seen.path, name)
        else:
            self.blame("outside-roots", f"{name} was made and is neither a file nor a directory")

    def take_output(self, path: str, name: str) -> None:
        """Store one output."""
        try:
            stored = self.workspace.store.put_file(Path(path))
            mode = stat.S_IMODE(os.stat(path).st_mode)
        except (LichenError, OSError) as error:
            self.blame("output-not-stored", f"{name} could not be stored: {error}")
            return
        self.outputs[name] = Output(name, stored.sha256, str(stored.cid), stored.size_bytes, mode)


def observe(
    workspace: Workspace,
    command: Command,
    surroundings: Surroundings,
    trace: Trace,
    *,
    started_ns: int,
    declared_data: Iterable[str] = (),
    declared_code: Iterable[str] = (),
    declared_outputs: Iterable[str] = (),
    declared_variables: Iterable[str] = (),
) -> Observation:
    """Describe a finished run.

    Args:
        workspace: Where outputs are stored.
        command: What was asked.
        surroundings: Names and digests, shared with the look-up before the run so that nothing is hashed twice.
        trace: What the run was seen to do.
        started_ns: Wall-clock time at which the command started, nanoseconds.
        declared_data: Absolute paths of files or directories the user calls inputs.
        declared_code: Likewise for code.
        declared_outputs: Likewise for outputs.
        declared_variables: Names of variables the user calls inputs.

    Returns:
        Manifest, and why it is not reusable, if so. Outputs are in the store.
    """
    outputs = tuple(declared_outputs)
    observer = _Observer(workspace, surroundings, trace, started_ns, outputs)
    project = surroundings.project
    paths: dict[str, _Path] = {}
    for access in trace.accesses:
        paths.setdefault(access.path, _Path(access.path)).add(access)
    sources = set(trace.modules.values()) | set(_files_below(declared_code))
    if command.is_python and command.script and command.script.startswith("/"):
        sources.add(command.script)
    for path in sources:
        if path not in paths and not project.is_ignored(path):
            observer.take_input(path, project.name_of(path), None, is_code=True)
    for seen in paths.values():
        observer.take_path(seen, sources)
    for path in _files_below(declared_data):
        if project.name_of(path) not in observer.data:
            observer.take_input(path, project.name_of(path), None, is_code=False)
    _take_declared_outputs(observer, outputs)
    _take_stdin(observer, trace)
    for reason in trace.reasons:
        observer.blame("partial", reason)
    for peer in trace.network[:3]:
        observer.blame("network", f"the run talked to {peer}")
    manifest = _manifest(observer, command, trace, declared_variables)
    return Observation(manifest, observer.data_sizes, observer.reasons)


def _take_declared_outputs(observer: _Observer, declared: tuple[str, ...]) -> None:
    project = observer.surroundings.project
    for path in declared:
        found = _files_below([path])
        if not found and not Path(path).is_dir():
            observer.blame("declared-output-missing", f"the declared output {project.name_of(path)} was not made")
        for file in found:
            name = project.name_of(file)
            if name not in observer.outputs and name not in observer.data and not project.is_ignored(file):
                observer.take_output(file, name)


def _take_stdin(observer: _Observer, trace: Trace) -> None:
    if not trace.stdin_used:
        return
    digest = observer.surroundings.digest_of(STDIN)
    if digest != MISSING:
        observer.data[STDIN] = digest
        observer.data_sizes[STDIN] = 0


def _manifest(observer: _Observer, command: Command, trace: Trace, declared_variables: Iterable[str]) -> Manifest:
    surroundings = observer.surroundings
    project = surroundings.project
    made = set(observer.outputs) | observer.directories
    imports = frozenset(getattr(trace, "imports", ()))
    module_directories = {project.name_of(path) for path in getattr(trace, "module_directories", ())}
    names = {*trace.variables, *declared_variables, *ALWAYS_VARIABLES}
    seed_variables = {name[1:] for name in command.seeds if name.startswith("$")}
    executables = {}
    for path in trace.execs:
        digest = surroundings.digest_of(project.name_of(path))
        if digest == MISSING:
            observer.blame("partial", f"{path} was executed and cannot be read now")
        else:
            executables[project.name_of(path)] = digest
    facts = surroundings.environment_of(())
    interpreter = surroundings.interpreter
    facts = dict(interpreter.to_environment()) if interpreter else surroundings.environment_of(("machine",))
    if trace.environment.get("cuda"):
        facts.update(surroundings.environment_of(("nvidia_driver",)))
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
        listings={name: surroundings.listing_of(name, made) for name in sorted(observer.listed - observer.directories)},
        imports=tuple(sorted(imports)),
        modules={name: surroundings.modules_in(name, imports) for name in sorted(module_directories)},
        variables={name: surroundings.variable(name) for name in sorted(names - seed_variables)},
        environment=facts,
        distributions=surroundings.versions_of(trace.distributions),
        executables=executables,
        outputs=tuple(observer.outputs[name] for name in sorted(observer.outputs)),
        directories=tuple(sorted(observer.directories)),
    )


def _unchanged(first: StatKey, now: os.stat_result) -> bool:
    return (first.dev, first.ino, first.size, first.mtime_ns, first.ctime_ns) == (
        now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns
    )  # fmt: skip


def _is_below(path: str, entry: str) -> bool:
    return path == entry or path.startswith(entry.rstrip("/") + "/")


def _is_cache(path: str) -> bool:
    """Say whether a path lies in a per-user cache, which programs may rewrite at will."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return _is_below(path, cache) or path.startswith(("/dev/", "/proc/"))


def _files_below(paths: Iterable[str]) -> list[str]:
    """List regular files at or below paths, links to directories not followed."""
    found: list[str] = []
    for path in paths:
        if Path(path).is_file():
            found.append(path)
            continue
        for directory, _, files in os.walk(path):
            found += [f"{directory}/{file}" for file in files if Path(directory, file).is_file()]
    return found


def data_digests(observation: Observation, limit: int) -> list[str]:
    """Return the digests of the largest data files, for the entry.

    Args:
        observation: Of a run.
        limit: Most digests wanted.
    """
    names = sorted(observation.manifest.data, key=lambda name: (-observation.data_sizes.get(name, 0), name))
    return [observation.manifest.data[name] for name in names[:limit]]


