"""From what a trace saw to a manifest: inputs, outputs, code, and whether the run may answer later requests.

A run is *reusable* only when nothing that its result depended on can have escaped: every reason against it has a stable code
that stands in the entry, and a sentence for people. When in doubt a run is not reusable; a missed hit costs joules, a wrong
hit costs trust.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.runs.distributed.launchers import LAUNCHER_VARIABLE
from lichen.runs.trace.programs import is_written_script
from lichen.runs.trace.trace import Access
from lichen.runs.work.declared import declared_entries, ignored_names
from lichen.runs.work.file_table import FileTable
from lichen.runs.work.inputs import files_below, find_links
from lichen.runs.work.manifest import Manifest
from lichen.runs.work.observer import Observer, Reason, SeenPath, plain_read
from lichen.runs.work.searches import found_by_search
from lichen.runs.work.surroundings import ALWAYS_VARIABLES, MISSING, STDIN, Surroundings

if TYPE_CHECKING:
    from lichen.runs.trace.trace import Trace
    from lichen.runs.work.command import Command
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Observation", "Reason", "data_digests", "observe"]


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
    observer = Observer(workspace, surroundings, trace, started_ns, outputs)
    project = surroundings.project
    sources = set(trace.modules.values()) | {
        path for kind, path in declared_entries(surroundings, declared.code) if kind == "file"
    }
    if command.is_python and command.script and command.script.startswith("/"):
        sources.add(command.script)
    plain, named = trace.plain.without({*sources, *(access.path for access in trace.accesses)})
    reads, paths = _sorted_out(itertools.chain(trace.accesses, map(plain_read, named)), sources)
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


def _sorted_out(
    accesses: Iterable[Access], sources: set[str]
) -> tuple[dict[str, Access], dict[str, SeenPath]]:
    """Tell paths that were only read, or looked at and read, from all others."""
    reads: dict[str, Access] = {}
    looks: dict[str, Access] = {}
    paths: dict[str, SeenPath] = {}
    for access in accesses:
        path, kind = access[0], access[1]
        if kind == "read" and path not in sources:
            reads[path] = access
        elif kind == "stat" and path not in sources and access.detail not in ("mode", "times"):
            looks[path] = access
        else:
            seen = paths.get(path)
            if seen is None:
                seen = paths[path] = SeenPath(path)
            seen.by_kind[kind] = access
    for path, seen in paths.items():
        for table in (reads, looks):
            if path in table:
                access = table.pop(path)
                seen.by_kind[access.kind] = access
    for path, access in looks.items():
        if path not in reads:
            paths[path] = SeenPath(path, {"stat": access})
    return reads, paths


def _take_links(observer: Observer) -> None:
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


def _take_link(observer: Observer, path: str) -> None:
    """Note a link whose target was read, unless it leads to the whole project: a colleague's checkout has others."""
    project = observer.surroundings.project
    leads_home = f"{project.root}/".startswith(f"{os.path.realpath(path)}/")
    if project.is_ignored(path):
        observer.pass_over(path)
    elif not (leads_home and not project.contains(path)):
        observer.take_link(path)


def _take_declared_outputs(observer: Observer, declared: tuple[str, ...]) -> None:
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


def _take_stdin(observer: Observer, trace: Trace) -> None:
    if not trace.stdin_used:
        return
    digest = observer.surroundings.digest_of(STDIN)
    if digest != MISSING:
        observer.data.put(STDIN, digest)


def _manifest(observer: Observer, command: Command, trace: Trace) -> Manifest:
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


def data_digests(observation: Observation, limit: int) -> list[str]:
    """Return the digests of the largest data files, for the entry.

    Args:
        observation: Of a run.
        limit: Most digests wanted.
    """
    return observation.data.largest(limit)
