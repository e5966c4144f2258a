"""Read what the agent wrote: one memory-mapped file per process and chunk.

Format of a chunk, little endian. Records follow one another; the first zero byte in a kind's place ends the chunk, because
the file is filled with zeros when it is made. A record torn by a crash has its length beyond what was written, or a
kind that is not known, and ends the chunk likewise.

=======  ==================================================================================================
bytes    field
=======  ==================================================================================================
1        kind, an ASCII letter, see `Kind`
1        type of the file, ``st_mode >> 12``; 0 absent, 15 not looked at
1        flags: of open(2) packed by `Flag`, or the level of a look, or loop (0) and copy (1)
1        zero
4        payload bytes
8        monotonic clock, nanoseconds
40       device, inode, size, modified ns, changed ns; only for kinds in `STATED_KINDS`
payload  path as the file system has it, or text; parts separated by a zero byte
=======  ==================================================================================================
"""

# Paths are the run's own strings, undecodable bytes and all, and there can be 100,000 of them.
# ruff: noqa: PTH208

from __future__ import annotations

import ast
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from lichen.runs.trace.trace import StatKey

__all__ = ["ABSENT", "UNKNOWN", "AgentLog", "Flag", "Kind", "Record", "StartEvent", "read_agent_logs"]

_PLAIN = struct.Struct("<BBBxIq")
_STATED = struct.Struct("<BBBxIqQQqqq")

ABSENT = 0
UNKNOWN = 15
LEVEL_STATUS, LEVEL_TIMES, LEVEL_LINK = 2, 4, 5
"""How closely a path was looked at: size too, times too, or where a link leads; 1 is type alone, 3 permission bits too."""


class Kind:
    """Letters of record kinds."""

    OPEN = ord("O")
    STAT = ord("S")
    LIST = ord("L")
    DELETE = ord("D")
    MOVE = ord("M")
    MKDIR = ord("C")
    ATTRIBUTES = ord("Z")
    IMPORT = ord("I")
    SYS_PATH = ord("P")
    EXEC = ord("X")
    CONNECT = ord("N")
    BIND = ord("B")
    STDIN = ord("R")
    VARIABLE = ord("E")
    WHOLE_ENVIRONMENT = ord("W")
    MODULE = ord("V")
    SOUGHT = ord("F")
    MAPPED = ord("Q")
    HELLO = ord("H")


_STATED_KINDS = frozenset(
    (Kind.OPEN, Kind.STAT, Kind.LIST, Kind.DELETE, Kind.MOVE, Kind.MKDIR, Kind.ATTRIBUTES)
)
_PLAIN_KINDS = frozenset(value for name, value in vars(Kind).items() if name.isupper()) - _STATED_KINDS


class Flag:
    """Bits of packed open(2) flags; the two lowest are the access mode."""

    ACCESS = 3
    WRITE_ONLY = 1
    READ_WRITE = 2
    CREATE = 4
    TRUNCATE = 8
    APPEND = 16
    EXCLUSIVE = 32


class Record(NamedTuple):
    """One record about a path.

    Attributes:
        time_ns: Monotonic clock.
        kind: See `Kind`.
        path: Absolute, not yet normalised.
        type: File type, `ABSENT` or `UNKNOWN`.
        flags: Packed flags or level.
        stat: State before the event, None when absent or unknown.
        extra: What follows the path: caller of a look, target of a move, names in a listing separated by ``/``.
        means: Who saw it.
    """

    time_ns: int
    kind: int
    path: str
    type: int
    flags: int
    stat: StatKey | None
    extra: str = ""
    means: str = "audit"


StartEvent = tuple[int, str, tuple[str, ...], str, bool, tuple[str, ...]]
"""(monotonic ns, program, argv, directory, environment carries the agent, source files on the stack)."""


@dataclass
class AgentLog:
    """Everything one process wrote.

    Attributes:
        facts: What it said of itself: pid, ppid, argv, versions, paths.
        time_ns: When it said so, monotonic.
        records: About paths, in order.
        imports: Module name -> file of an extension module, or empty.
        modules: Module name -> source file, known after a normal exit.
        sought: (monotonic ns, module name, directories) of each search in vain; no directories for one on ``sys.path``.
        sys_path: Every entry ``sys.path`` ever had, in order of appearance.
        variables: (name, caller's file) of each variable looked at.
        loops: Callers' files that went through the whole environment.
        copies: Callers' files that copied it.
        execs: Programs asked for.
        connects: (family, address).
        binds: (family, address).
        mapped: Files mapped at a normal exit.
        stdin_read: ``input()`` was called.
    """

    facts: dict[str, Any]
    time_ns: int
    records: list[Record] = field(default_factory=list)
    imports: dict[str, str] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    sought: list[tuple[int, str, tuple[str, ...]]] = field(default_factory=list)
    sys_path: dict[str, None] = field(default_factory=dict)
    variables: set[tuple[str, str]] = field(default_factory=set)
    loops: set[str] = field(default_factory=set)
    copies: set[str] = field(default_factory=set)
    execs: list[StartEvent] = field(default_factory=list)
    connects: list[tuple[int, Any]] = field(default_factory=list)
    binds: list[tuple[int, Any]] = field(default_factory=list)
    mapped: tuple[str, ...] = ()
    stdin_read: bool = False

    @property
    def pid(self) -> int:
        """Process number."""
        return int(self.facts.get("pid", 0))

    @property
    def ppid(self) -> int:
        """Number of the process that started it."""
        return int(self.facts.get("ppid", 0))


def read_agent_logs(
    directory: Path, streams: Mapping[int, bytes | bytearray] | None = None
) -> tuple[list[AgentLog], list[str]]:
    """Read the logs of all processes.

    Args:
        directory: The tracer's scratch directory.
        streams: Records that went into the preload library's log, by process number.

    Returns:
        One log per process image, by start; and what went wrong inside processes, as short codes.
    """
    chunks: dict[int, list[tuple[int, int, Path]]] = {}
    failures = set()
    for name in os.listdir(directory):
        if name.startswith("agent-") and name.endswith(".log"):
            pid, started, serial = (int(part) for part in name[6:-4].split("-"))
            chunks.setdefault(pid, []).append((started, serial, directory / name))
        elif name.startswith("failed-"):
            failures.add(name.split("-", 2)[2])
    logs: list[AgentLog] = []
    for parts in chunks.values():
        log: AgentLog | None = None
        for _, _, path in sorted(parts):
            log = _read_chunk(path.read_bytes(), log, logs)
    for stream in (streams or {}).values():
        _read_chunk(bytes(stream), None, logs)
    logs.sort(key=lambda log: log.time_ns)
    return logs, sorted(failures)


def _read_chunk(data: bytes, log: AgentLog | None, logs: list[AgentLog]) -> AgentLog | None:
    """Add a chunk's records to a process's log; a hello begins a new log, because exec keeps the process number."""
    whole: dict[tuple[str, int, int], int] = {}
    for kind, kind_of_file, flags, time_ns, state, payload in _records(data):
        if kind in _STATED_KINDS:
            if log is not None:
                path, _, extra = os.fsdecode(payload).partition("\0")
                fields = (time_ns, kind, path, kind_of_file, flags, state, extra, "audit")
                log.records.append(tuple.__new__(Record, fields))
        elif kind == Kind.HELLO:
            log = AgentLog(_literal(payload, {}), time_ns)
            log.sys_path.update(dict.fromkeys(path for path in log.facts.get("path", ()) if path))
            logs.append(log)
        elif log is not None:
            _add_plain(log, kind, flags, time_ns, payload, whole)
    if log is not None:
        for (file, _, _), mode in whole.items():
            (log.copies if mode else log.loops).add(file)
    return log


def _records(data: bytes) -> Iterator[tuple[int, int, int, int, StatKey | None, bytes]]:
    """Split a chunk: kind, type, flags, time, state, payload."""
    offset, end = 0, len(data)
    plain, stated = _PLAIN.unpack_from, _STATED.unpack_from
    plain_size, stated_size, stated_kinds, plain_kinds = (
        _PLAIN.size,
        _STATED.size,
        _STATED_KINDS,
        _PLAIN_KINDS,
    )
    while offset + plain_size <= end:
        kind = data[offset]
        state = None
        if kind in stated_kinds:
            if offset + stated_size > end:
                return
            kind, kind_of_file, flags, size, time_ns, *key = stated(data, offset)
            offset += stated_size
            if kind_of_file not in (ABSENT, UNKNOWN):
                state = tuple.__new__(StatKey, key)
        elif kind in plain_kinds:
            kind, kind_of_file, flags, size, time_ns = plain(data, offset)
            offset += plain_size
        else:
            return
        if offset + size > end:
            return
        yield kind, kind_of_file, flags, time_ns, state, data[offset : offset + size]
        offset += size


def _add_plain(
    log: AgentLog, kind: int, flags: int, time_ns: int, payload: bytes, whole: dict[tuple[str, int, int], int]
) -> None:
    text = os.fsdecode(payload)
    if kind == Kind.IMPORT:
        name, _, file = text.partition("\0")
        log.imports[name] = file or log.imports.get(name, "")
    elif kind == Kind.VARIABLE:
        name, _, file = text.partition("\0")
        log.variables.add((name, file))
    elif kind == Kind.MODULE:
        name, _, file = text.partition("\0")
        log.modules[name] = file
    elif kind == Kind.SOUGHT:
        name, *directories = text.split("\0")
        log.sought.append((time_ns, name, tuple(directories)))
    elif kind == Kind.SYS_PATH:
        log.sys_path.update(dict.fromkeys(path for path in _literal(payload, ()) if path))
    elif kind == Kind.EXEC:
        program, argv, directory, carries, stack = _literal(payload, ("", (), "", False, ()))
        log.execs.append((time_ns, program, argv, directory or "/", carries, stack))
    elif kind == Kind.CONNECT:
        log.connects.append(_literal(payload, (0, "")))
    elif kind == Kind.BIND:
        log.binds.append(_literal(payload, (0, "")))
    elif kind == Kind.WHOLE_ENVIRONMENT:
        place = _literal(payload, ("", 0, 0))
        whole[place] = max(flags, whole.get(place, 0))
    elif kind == Kind.MAPPED:
        log.mapped = tuple(text.split("\0")) if text else ()
    elif kind == Kind.STDIN:
        log.stdin_read = True


def _literal(payload: bytes, otherwise: Any) -> Any:
    """Read what ``repr`` wrote; a torn record gives the other value."""
    try:
        return ast.literal_eval(payload.decode("utf-8", "surrogateescape"))
    except (ValueError, SyntaxError, UnicodeError, MemoryError, RecursionError):
        return otherwise
