"""Inputs of a run, many at once: plain reads, and the links that lead to them.

Most files a run touches it has only read, and they stand as they stood before. Those are described directory by directory and
column by column: which are ignored, what they are called, what they hold. Whatever is not so plain is left to the observer,
which looks at each path by itself and says why.
"""

# Paths are the run's own strings, undecodable bytes and all, and there can be 100,000 of them.
from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.content.columns import STATE_BYTES
from lichen.runs.work.digest_texts import digest_texts
from lichen.runs.work.file_table import FileColumns

if TYPE_CHECKING:
    from lichen.runs.trace.trace import PlainReads, StatKey
    from lichen.runs.work.surroundings import Surroundings

__all__ = ["State", "find_links", "plain_columns", "plain_inputs"]

State = tuple[int, ...]
"""Device, inode, size, mtime and ctime of a file, as a trace and ``os.stat`` give them."""

_DIRECTORIES_MAX = 2_000  # of a project, walked for links
_NOT_WALKED = frozenset({"node_modules", "__pycache__", "site-packages", "venv"})


@dataclass
class PlainInputs:
    """Files that were read and are unchanged, as parallel columns, and the paths that are not so plain.

    Attributes:
        names: Manifest names.
        digests: Digest text of each.
        sizes: Bytes of each.
        paths: Absolute path of each.
        rest: Paths that must be looked at one by one.
        ignored: Absolute paths left out because a rule ignores them.
    """

    names: list[str] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PlainColumns:
    """Very many such files.

    Attributes:
        files: Names, digests and sizes.
        by_directory: Last names by directory, an absolute path.
        ignored: Absolute paths left out because a rule ignores them.
    """

    files: FileColumns
    by_directory: Mapping[str, Sequence[str]]
    ignored: list[str]


def plain_inputs(
    surroundings: Surroundings,
    reads: Mapping[str, State | None],
    *,
    changed_since_ns: int,
    own_places: Sequence[str],
) -> PlainInputs:
    """Describe files that were only read.

    Args:
        surroundings: Names and hashes them.
        reads: State at the first open by absolute path; None when it is not known.
        changed_since_ns: Files whose status changed at this time or later (nanoseconds since 1970) are not plain.
        own_places: Directories of Lichen's own, left out.

    Returns:
        Those that are now in the state in which they were opened; ignored ones are left out, unless a read makes them count.
    """
    found = PlainInputs()
    by_directory: dict[str, list[str]] = {}
    for path, state in reads.items():
        if state is None or state[4] >= changed_since_ns:
            found.rest.append(path)
            continue
        directory, _, name = path.rpartition("/")
        names = by_directory.get(directory)
        if names is None:
            names = by_directory[directory] = []
        names.append(name)
    project = surroundings.project
    paths = found.paths
    for directory, names in by_directory.items():
        if any(f"{directory}/".startswith(f"{place}/") for place in own_places):
            continue
        ignored = project.ignored_in(directory, names)
        if ignored:
            below = [f"{directory}/{name}" for name in ignored]
            good = [path for path in below if project.is_read_for_good(path)]
            found.rest += good
            found.ignored += set(below).difference(good)
            names = [name for name in names if name not in ignored]  # noqa: PLW2901
        paths += [f"{directory}/{name}" for name in names]
        found.names += project.names_in(directory, names)
    states = [reads[path] for path in paths]
    digests = surroundings.digest_states(paths, states)
    found.sizes = [state[2] if state is not None else 0 for state in states]
    if None in digests:
        kept = [place for place, digest in enumerate(digests) if digest is not None]
        found.rest += [path for path, digest in zip(paths, digests, strict=True) if digest is None]
        found.names = [found.names[place] for place in kept]
        found.sizes = [found.sizes[place] for place in kept]
        found.paths = [paths[place] for place in kept]
    found.digests = digest_texts([digest for digest in digests if digest is not None])
    return found


def plain_columns(
    surroundings: Surroundings,
    reads: PlainReads,
    *,
    changed_since_ns: int,
    own_places: Sequence[str],
) -> tuple[PlainColumns, list[tuple[str, StatKey]]]:
    """Describe very many files that were only read: as :func:`plain_inputs`, by columns from the trace to the names.

    Args:
        surroundings: Names and hashes them.
        reads: Files and their states at the first open.
        changed_since_ns: As for :func:`plain_inputs`.
        own_places: Likewise.

    Returns:
        Those that are now in the state in which they were opened; and path and state of those that must be looked at otherwise.
    """
    unwanted = set(_changed_since(reads, changed_since_ns))
    left_out: set[str] = set()
    passed_over: set[str] = set()
    project = surroundings.project
    for directory, names in reads.names.items():
        if any(f"{directory}/".startswith(f"{place}/") for place in own_places):
            left_out.update(f"{directory}/{name}" for name in names)
        elif ignored := project.ignored_in(directory, names):
            for path in (f"{directory}/{name}" for name in ignored):
                (unwanted if project.is_read_for_good(path) else passed_over).add(path)
    left_out |= passed_over
    reads, odd = reads.without(unwanted | left_out)
    odd = [read for read in odd if read[0] not in left_out]
    digests, told = surroundings.digest_columns(reads) if len(reads) else (b"", b"")
    if told.count(1) != len(told):
        paths = list(reads.paths())
        reads, untold = reads.without(path for path, is_told in zip(paths, told, strict=True) if not is_told)
        odd += untold
        stride = len(digests) // len(told)
        digests = b"".join(
            digests[stride * place : stride * (place + 1)] for place, is_told in enumerate(told) if is_told
        )
    sizes = memoryview(reads.states).cast("q")[2 :: STATE_BYTES // 8].tolist()
    names_by_start = dict(project.ends_in(directory, names) for directory, names in reads.names.items())
    columns = FileColumns(names_by_start, digests, sizes)
    return PlainColumns(columns, reads.names, list(passed_over)), odd


def _changed_since(reads: PlainReads, since_ns: int) -> Iterable[str]:
    """Name files whose status changed at a time or later."""
    changes = memoryview(reads.states).cast("q")[4 :: STATE_BYTES // 8].tolist()
    if not changes or max(changes) < since_ns:
        return ()
    return (path for path, changed in zip(reads.paths(), changes, strict=True) if changed >= since_ns)


def find_links(
    surroundings: Surroundings, inputs: Iterable[str], by_directory: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """Find symbolic links on the way to inputs.

    A program that resolves ``current`` before it opens ``run-7/data`` is seen to open the second name only. So every link that
    leads to an input counts: those in the project, as far as it can be walked, and those beside an input outside or beside a
    directory above it. Links to the whole project do not: a colleague's checkout has others.

    Args:
        surroundings: Lists directories, each once.
        inputs: Absolute paths.
        by_directory: Names of more inputs by their directories.

    Returns:
        Absolute paths of the links, sorted.
    """
    root = str(surroundings.project.root)
    around = {str(above) for above in surroundings.project.root.parents}
    ways = _Ways(surroundings, inputs, by_directory or {})
    above = ways.directories - {root, *around}
    places = {*_project_directories(surroundings, root), *ways.folders}
    places |= {_parent(path) for path in above}
    places -= around
    found = []
    for place in places:
        for name in surroundings.links_in(place) or ():
            link = f"{place.rstrip('/')}/{name}"
            target = os.path.realpath(link)
            if target != root and target not in around and ways.lead_to(target):
                found.append(link)
    return sorted(found)


class _Ways:
    """Every resolved path on the way to an input: the files themselves and the directories above them.

    Attributes:
        folders: Directories the files lie in.
        directories: These and all directories above them.
    """

    def __init__(
        self, surroundings: Surroundings, inputs: Iterable[str], more: Mapping[str, Sequence[str]]
    ) -> None:
        self._names: dict[str, list[str]] = {}
        self._lookup: dict[str, set[str]] = {}
        by_directory: dict[str, list[str]] = {}
        for path in inputs:
            directory, _, name = path.rpartition("/")
            by_directory.setdefault(directory, []).append(name)
        groups: Iterable[tuple[str, Sequence[str]]] = itertools.chain(by_directory.items(), more.items())
        for directory, names in groups:
            real = os.path.realpath(directory or "/")
            links: Collection[str] | None = surroundings.links_in(real, whole=True)
            if links is None:
                self._take_each(real, names)
            elif links and not links.isdisjoint(names):  # type: ignore[attr-defined]
                self._take_each(real, [name for name in names if name in links])
                self._names.setdefault(real, []).extend(name for name in names if name not in links)
            else:
                self._names.setdefault(real, []).extend(names)
        self.folders = set(self._names)
        self.directories: set[str] = set()
        for folder in self.folders:
            path = folder
            while path not in self.directories:
                self.directories.add(path)
                path = _parent(path)

    def _take_each(self, real: str, names: Iterable[str]) -> None:
        for name in names:
            directory, _, last = os.path.realpath(f"{real}/{name}").rpartition("/")
            self._names.setdefault(directory or "/", []).append(last)

    def lead_to(self, target: str) -> bool:
        """Say whether a resolved path is an input, or a directory above one."""
        if target in self.directories:
            return True
        folder, _, name = target.rpartition("/")
        folder = folder or "/"
        if folder not in self._names:
            return False
        if folder not in self._lookup:
            self._lookup[folder] = set(self._names[folder])
        return name in self._lookup[folder]


def _parent(path: str) -> str:
    return path[: path.rfind("/")] or "/"


def _project_directories(surroundings: Surroundings, root: str) -> list[str]:
    """Walk a project, as far as it is of usual size."""
    found: list[str] = []
    pending = [root]
    while pending and len(found) < _DIRECTORIES_MAX:
        directory = pending.pop()
        found.append(directory)
        links = surroundings.links_in(directory, whole=True) or ()
        pending += [
            f"{directory}/{name}"
            for name in surroundings.folders_of(directory)
            if name not in _NOT_WALKED and not name.startswith(".") and name not in links
        ]
    return found


def files_below(paths: Iterable[str]) -> list[str]:
    """List regular files at or below paths, links to directories not followed."""
    found: list[str] = []
    for path in paths:
        if Path(path).is_file():
            found.append(path)
            continue
        for directory, _, files in os.walk(path):
            found += [f"{directory}/{file}" for file in files if os.path.isfile(f"{directory}/{file}")]  # noqa: PTH113
    return found
