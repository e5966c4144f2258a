"""What a request declares or ignores, and whether an earlier run kept to the same.

An answer must know of everything the request names: a run that never took down a declared file, variable or output says
nothing about it, however equal all else is. And what a run was told to ignore may be passed over at a look-up only where it is
ignored today as well. Both are asked of the manifest that would answer, before it does.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lichen.runs.distributed.launchers import LAUNCHER_VARIABLE

if TYPE_CHECKING:
    from lichen.runs.work.manifest import Manifest
    from lichen.runs.work.surroundings import Surroundings
    from lichen.runs.workspace.project import Project

__all__ = ["RULES_MARK", "Declared", "Gap", "declared_entries", "find_gap", "ignored_names"]

RULES_MARK = "{rules} "
_IGNORED_MAX = 1_000  # names kept one by one; beyond that the digest of the rules stands for all


@dataclass(frozen=True)
class Declared:
    """What a request names beside its command line.

    Args:
        data: Absolute paths of files and directories called inputs.
        code: Likewise for code.
        outputs: Likewise for outputs.
        variables: Names of variables called inputs.
    """

    data: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()


@dataclass(frozen=True)
class Gap:
    """Something a manifest does not answer for.

    Args:
        kind: ``declared`` or ``ignored``.
        name: Manifest name of the path, or name of the variable.
        what: ``input``, ``output``, ``variable`` or ``directory``; ``path`` or ``rules`` for what was ignored.
    """

    kind: str
    name: str
    what: str


def declared_entries(surroundings: Surroundings, paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """List everything at or below declared paths.

    Directories behind symbolic links are entered once. Below a declared directory what is ignored is left out; a path that is
    declared itself counts, ignored or not.

    Args:
        surroundings: Lists directories, each once.
        paths: Absolute.

    Yields:
        Kind (``directory``, ``file``, ``other`` or ``missing``) and absolute path.
    """
    entered: set[str] = set()
    for path in paths:
        pending = []
        kind = _kind_of(path)
        if kind == "directory":
            pending.append(path)
        else:
            yield kind, path
        while pending:
            directory = pending.pop()
            real = os.path.realpath(directory)
            if real in entered:
                continue
            entered.add(real)
            yield "directory", directory
            names, folders = surroundings.names_in(directory), set(surroundings.folders_of(directory))
            ignored = surroundings.project.ignored_in(directory, names)
            for name in names:
                if name in ignored:
                    continue
                below = f"{directory.rstrip('/')}/{name}"
                if name in folders:
                    pending.append(below)
                else:
                    yield _kind_of(below), below


def _kind_of(path: str) -> str:
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - there can be 100,000
    except OSError:
        return "missing"
    if stat.S_ISDIR(mode):
        return "directory"
    return "file" if stat.S_ISREG(mode) else "other"


def find_gap(surroundings: Surroundings, manifest: Manifest) -> Gap | None:
    """Return the first thing that a request declares, or no longer ignores, and that a manifest does not answer for.

    Args:
        surroundings: Of the request.
        manifest: Of an earlier run.
    """
    return _gap_of_rules(surroundings.project, manifest) or _gap_of_names(surroundings, manifest)


def _gap_of_rules(project: Project, manifest: Manifest) -> Gap | None:
    for name in manifest.ignored:
        if name.startswith(RULES_MARK):
            if name != RULES_MARK + project.rules_digest:
                return Gap("ignored", name, "rules")
        elif not project.is_chosen_ignored(project.path_of(name)):
            return Gap("ignored", name, "path")
    return None


def _is_made(manifest: Manifest, name: str) -> bool:
    """Say whether a run made a file, a directory, or something in a directory: what it wrote there it was seen to write."""
    below = f"{name}/"
    if any(output.name == name or output.name.startswith(below) for output in manifest.outputs):
        return True
    return any(made == name or made.startswith(below) for made in manifest.directories)


def _gap_of_names(surroundings: Surroundings, manifest: Manifest) -> Gap | None:
    declared, project = surroundings.declared, surroundings.project
    for name in declared.variables:
        known = name in manifest.variables or f"${name}" in manifest.seeds
        if not known and not LAUNCHER_VARIABLE.fullmatch(name):
            return Gap("declared", name, "variable")
    for path in declared.outputs:
        name = project.name_of(path)
        if name not in manifest.declared_outputs and not _is_made(manifest, name):
            return Gap("declared", name, "output")
    made: Collection[str] | None = None
    for kind, path in declared_entries(surroundings, (*declared.data, *declared.code)):
        name = project.name_of(path)
        if name in manifest.data or name in manifest.code or name in manifest.executables:
            continue
        if made is None:
            made = {output.name for output in manifest.outputs} | set(manifest.directories)
        if name in made or kind == "other":
            continue
        if kind == "directory" and name not in manifest.listings:
            return Gap("declared", name, "directory")
        if kind == "missing" and name not in manifest.absent and name not in manifest.present:
            return Gap("declared", name, "input")
        if kind == "file":
            return Gap("declared", name, "input")
    return None


def ignored_names(project: Project, paths: Collection[str]) -> tuple[str, ...]:
    """Return what a manifest keeps of the paths that a run touched and was told to ignore.

    Args:
        project: Whose rules hold.
        paths: Absolute.

    Returns:
        Manifest names, sorted; of very many only the digest of the rules.
    """
    if len(paths) > _IGNORED_MAX:
        return (RULES_MARK + project.rules_digest,)
    return tuple(sorted(project.name_of(path) for path in paths))
