"""What a run read, wrote, listed, looked for in vain and started: the values every other file here produces.

Rules upheld:

* A path is absolute and normalised, never resolved: a symbolic link is opened through the same name the run used.
  Undecodable names keep their bytes (``surrogateescape``).
* ``stat`` is the state at the *first* open, taken before the bytes were read, so whoever hashes later can tell that the
  file changed in between.
* Everything a result can depend on is in the trace, or ``complete`` is false and ``reasons`` says why.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lichen.content.columns import STATE_BYTES
from lichen.content.files import StatKey

__all__ = ["Access", "AccessKind", "Exec", "PlainReads", "StatKey", "Trace"]

_COLUMN = struct.Struct("<QQqqq")
_BY_PRELOAD = frozenset({"preload"})

AccessKind = Literal["read", "write", "append", "update", "list", "absent", "exec", "stat"]


class Access(NamedTuple):
    """One way in which a run touched one path; at most one access per path and kind.

    A tuple, not a dataclass: a run can have a hundred thousand of them.

    Attributes:
        path: Absolute, normalised, not resolved.
        kind: What was done.

            ==========  ==========================================================================================
            ``read``    opened for reading, before the run itself had written it
            ``write``   created or replaced by the run; ``detail`` is ``deleted`` when an existing path was removed
            ``append``  added to the end of what was there before
            ``update``  changed in place; what was there before may have been read
            ``list``    directory listed; ``names`` holds what was there
            ``absent``  looked for and not there; ``detail`` is ``made-file`` or ``made-directory`` when the run
                        itself created it later
            ``exec``    program or script started
            ``stat``    looked at, not opened; ``detail`` is ``type`` (existence and type only), ``status`` (size
                        too) or ``times`` (the caller could see modification times)
            ==========  ==========================================================================================
        stat: State before the first access of this kind, None when the path was not there or not seen in time.
        order: Position of the first such access among all accesses of the run, starting at 0.
        by: Means that saw it: ``audit``, ``preload``, ``inotify``, ``proc``, ``seccomp``, ``argv``, ``import``.
        detail: See ``kind``.
        names: For ``list``: sorted entry names as they were when first listed; None when they cannot be told any more,
            which a reader must treat as "changed".
    """

    path: str
    kind: AccessKind
    stat: StatKey | None
    order: int
    by: frozenset[str]
    detail: str = ""
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class PlainReads:
    """Very many files of which nothing was seen but that they were opened for reading; see ``plain_reads.py``.

    Attributes:
        names: Names of the files by directory, an absolute path.
        states: State of each at its first open, directory by directory: ``STATE_BYTES`` each.
    """

    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    states: bytes = b""

    def __len__(self) -> int:
        """Return how many files they are."""
        return len(self.states) // STATE_BYTES

    def reads(self) -> Iterator[tuple[str, StatKey]]:
        """Give path and state of each."""
        keys = _COLUMN.iter_unpack(self.states)
        for directory, names in self.names.items():
            for name in names:
                yield f"{directory}/{name}", StatKey(*next(keys))

    def paths(self) -> Iterator[str]:
        """Give the path of each."""
        return (f"{directory}/{name}" for directory, names in self.names.items() for name in names)

    def accesses(self, order: int) -> Iterator[Access]:
        """Give each as an access; the first has this order."""
        for number, (path, state) in enumerate(self.reads(), order):
            yield Access(path, "read", state, number, _BY_PRELOAD)

    def without(self, paths: Iterable[str]) -> tuple[PlainReads, list[tuple[str, StatKey]]]:
        """Take files out.

        Returns:
            What is left, and path and state of those taken out.
        """
        unwanted: dict[str, set[str]] = {}
        for path in paths:
            directory, _, name = path.rpartition("/")
            if directory in self.names:
                unwanted.setdefault(directory, set()).add(name)
        kept: dict[str, Sequence[str]] = {}
        states: list[bytes] = []
        taken: list[tuple[str, StatKey]] = []
        start = 0
        for directory, names in self.names.items():
            column = self.states[start : start + STATE_BYTES * len(names)]
            start += len(column)
            out = unwanted.get(directory)
            if out is None or out.isdisjoint(names):
                kept[directory] = names
                states.append(column)
                continue
            stay = []
            for place, name in enumerate(names):
                state = column[STATE_BYTES * place : STATE_BYTES * (place + 1)]
                if name in out:
                    taken.append((f"{directory}/{name}", StatKey(*_COLUMN.unpack(state))))
                else:
                    stay.append(name)
                    states.append(state)
            if stay:
                kept[directory] = stay
        return (PlainReads(kept, b"".join(states)), taken) if taken else (self, taken)


@dataclass(frozen=True, slots=True)
class Exec:
    """One program started inside the run.

    Attributes:
        name: Program as it was called; without a slash it was searched on PATH.
        path: Resolved absolute path, empty when it could not be found.
        argv: Arguments, program name first; empty when not seen.
        kind: ``python``, ``shell``, ``native`` or ``unknown``.
        observed: True when some means saw what this program read.
    """

    name: str
    path: str
    argv: tuple[str, ...]
    kind: str
    observed: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """Everything seen of one run.

    Attributes:
        accesses: In order; system files, the interpreter and installed distributions are left out.
        plain: More of them, where there are very many: files that were read and of which nothing else was seen.
        modules: Name -> source file of imported modules that count as code: those of the project, of editable and local
            installs, and installed files changed since they were installed. The archive stands for a zip import.
        imports: Top-level module names asked for, found or not, sorted.
        module_directories: Directories outside interpreter and site-packages in which an imported module was looked
            for, in order: a new file there could stand in a module's place.
        variables: Name -> value before the run, None when unset, of every variable a result may depend on.
        distributions: Name of each imported installed distribution -> version; ``-`` for what was asked for in vain. Beside them
            ``ALL_INSTALLED`` and names after ``LISTED``, see ``distributions``.
        links: Symbolic links whose targets were read, sorted.
        environment: Facts about interpreter, machine, BLAS and accelerator; ``cuda`` is there when a GPU driver was loaded.
        execs: Absolute paths of programs started beside Python interpreters, the run's own command included, sorted.
        processes: Programs started, in order.
        network: Peers outside the run that it connected to, as ``host:port`` or ``unix:path``.
        stdin_used: True when standard input may have been read.
        complete: True when nothing the result depends on can be missing.
        reasons: Why not, as ``code: detail``; empty when complete.
        metrics: Rows logged by the run through ``lichen.log``, in order.
        interpreter: Path of the first Python interpreter of the run, empty when there was none.
        process_count: Processes seen by any means.
    """

    accesses: tuple[Access, ...] = ()
    plain: PlainReads = field(default_factory=PlainReads)
    modules: Mapping[str, str] = field(default_factory=dict)
    imports: tuple[str, ...] = ()
    module_directories: tuple[str, ...] = ()
    variables: Mapping[str, str | None] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    execs: tuple[str, ...] = ()
    processes: tuple[Exec, ...] = ()
    network: tuple[str, ...] = ()
    stdin_used: bool = False
    complete: bool = True
    reasons: tuple[str, ...] = ()
    metrics: tuple[Mapping[str, Any], ...] = ()
    interpreter: str = ""
    process_count: int = 0

    def of_kind(self, *kinds: AccessKind) -> Iterator[Access]:
        """Accesses of these kinds, in order."""
        return (access for access in self.every_access() if access.kind in kinds)

    def every_access(self) -> Iterator[Access]:
        """Give accesses in order, and then the plain ones."""
        yield from self.accesses
        yield from self.plain.accesses(len(self.accesses))

    def inputs(self) -> tuple[Access, ...]:
        """Files whose content the result may depend on, code not included: read, updated, appended or executed."""
        code = set(self.modules.values())
        return tuple(a for a in self.of_kind("read", "update", "append", "exec") if a.path not in code)

    def outputs(self) -> tuple[Access, ...]:
        """Files the run wrote and left behind, in order of first writing."""
        return tuple(a for a in self.of_kind("write", "append", "update") if a.detail != "deleted")

    def read_then_written(self) -> tuple[str, ...]:
        """Paths whose earlier content the run read, or could have read, and then changed."""
        read = {a.path for a in self.of_kind("read")}
        changed = [a.path for a in self.of_kind("write") if a.path in read]
        return tuple(dict.fromkeys(changed + [a.path for a in self.of_kind("update")]))
