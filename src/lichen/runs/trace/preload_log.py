"""Read the shared log that the preload library wrote; see ``preload.c`` for its layout.

A record is committed by its last field. One that is not was being written when its process was killed, so that process never
saw the answer, or never made the change, that the record would have been about: it is skipped. Every other process that asked
the same wrote a record of its own.
"""

from __future__ import annotations

import operator
import os
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lichen.content.columns import MANY, SplitLog, columns
from lichen.runs.trace.agent_log import ABSENT, LEVEL_LINK, UNKNOWN, Flag, Kind, Record
from lichen.runs.trace.preload import DATA_OFFSET, HEADER_BYTES, LOG_NAME, MAGIC
from lichen.runs.trace.trace import StatKey

__all__ = ["Image", "PreloadLog", "Started", "read_preload_logs"]

_TIME = operator.itemgetter(0)
_HEADER = struct.Struct("<8sQQI")
_RECORD = struct.Struct("<IBBBBIIqQQqqqII")
_PATH_KINDS = frozenset(
    (Kind.OPEN, Kind.STAT, Kind.LIST, Kind.DELETE, Kind.MOVE, Kind.MKDIR, Kind.ATTRIBUTES)
)
_LINK, _SYMLINK, _WALK = ord("K"), ord("Y"), ord("G")
_EXEC, _EXEC_FAILED, _SPAWN, _SPAWN_FAILED = ord("X"), ord("x"), ord("P"), ord("p")
_IMAGE, _MAPPED, _VARIABLE, _STDIN, _CONNECT, _BIND, _RING, _AGENT, _VISITOR, _AGENT_RECORD = (
    ord(letter) for letter in "IQERNBUAVa"
)


@dataclass(frozen=True, slots=True)
class Image:
    """A program image that loaded the library.

    Attributes:
        time_ns: When, monotonic.
        pid: Process number.
        ppid: Parent's number.
        path: Executable.
        argv: Its command line.
        stdin: State of its standard input, None when closed.
        stdin_type: ``st_mode >> 12`` of it.
    """

    time_ns: int
    pid: int
    ppid: int
    path: str
    argv: tuple[str, ...]
    stdin: StatKey | None
    stdin_type: int


@dataclass(frozen=True, slots=True)
class Started:
    """A program that was asked for.

    Attributes:
        time_ns: When, monotonic.
        pid: Process that asked; for an exec it becomes the program.
        program: Name or path.
        argv: Arguments, program name first.
        is_exec: True for exec, False for a spawn.
    """

    time_ns: int
    pid: int
    program: str
    argv: tuple[str, ...]
    is_exec: bool


@dataclass
class PreloadLog:
    """Everything the library wrote.

    Attributes:
        records: About paths, in order of time.
        core_looks: Looks by the Python interpreter's own code at files that are there.
        walks: Patterns and roots given to ``glob`` and tree walkers.
        images: Programs that loaded the library.
        starts: Programs asked for, failures taken out.
        mapped: Files in memory at the end of a process.
        variables: Names asked for by native code.
        connects: (family, address).
        binds: (family, address).
        visitors: (family, address) of who connected to the run, or sent it a datagram.
        stdin_reads: What descriptor 0 was in each process that read it.
        used_ring: A process set up io_uring, whose opens nobody sees.
        unwatched: Functions called whose effects nobody sees, such as ``shmget``.
        agents: What the agent of each process wrote, by process number, in order.
        split: Very many plain reads, which are not among the records.
        torn: Records that were not finished, because their process was killed.
        failed: The log was full, no more room could be had, or it does not follow its own rules.
    """

    records: list[Record] = field(default_factory=list)
    core_looks: list[Record] = field(default_factory=list)
    walks: set[str] = field(default_factory=set)
    images: list[Image] = field(default_factory=list)
    starts: list[Started] = field(default_factory=list)
    mapped: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    connects: list[tuple[int, Any]] = field(default_factory=list)
    binds: list[tuple[int, Any]] = field(default_factory=list)
    visitors: list[tuple[int, Any]] = field(default_factory=list)
    stdin_reads: set[tuple[int, int]] = field(default_factory=set)
    used_ring: bool = False
    unwatched: set[str] = field(default_factory=set)
    agents: dict[int, bytearray] = field(default_factory=dict)
    split: SplitLog | None = None
    torn: int = 0
    failed: bool = False
    _starting: dict[int, list[Record]] = field(default_factory=dict)


def read_preload_logs(directory: Path, *, apart: bool = False) -> PreloadLog:
    """Read the log of a run, and those that runs inside it left here.

    Args:
        directory: The tracer's scratch directory.
        apart: Keep plain reads apart, in ``split``, where there are very many of them.

    Returns:
        All as one; a file that is no log makes it one that has failed.
    """
    log = PreloadLog()
    for path in sorted(directory.glob("preload*.log")):
        _read(log, path, apart=apart and path.name == LOG_NAME)
    for records in log._starting.values():
        log.records += records
    log.records.sort(key=_TIME)
    log.images.sort(key=lambda image: image.time_ns)
    log.starts.sort(key=lambda start: start.time_ns)
    return log


def _read(log: PreloadLog, path: Path, *, apart: bool) -> None:
    """Add one file."""
    try:
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
            magic, used, allocated, failed = _HEADER.unpack_from(header)
            file.seek(DATA_OFFSET)
            data = file.read(min(used, allocated))
    except (OSError, struct.error):
        log.failed = True
        return
    log.failed = log.failed or bool(failed) or used > allocated or magic != MAGIC
    if magic == MAGIC:
        if apart and len(data) > MANY * _RECORD.size and (library := columns()) is not None:
            log.split = library.split(data)
            data = log.split.rest if log.split is not None else data
        for fields, text, extra in _records(data, log):
            _take(log, fields, text, extra)


def _records(data: bytes, log: PreloadLog) -> Iterator[tuple[tuple[int, ...], str, bytes]]:
    """Split the data into (fields, path, extra bytes); an open that is no interpreter's start goes straight to the log."""
    offset, end, head = 0, len(data), _RECORD.size
    unpack, make, opened, add = _RECORD.unpack_from, tuple.__new__, Kind.OPEN, log.records.append
    encoding = sys.getfilesystemencoding()
    while offset + head <= end:
        fields = unpack(data, offset)
        size = fields[0]
        if size < head or size % 8 or offset + size > end:
            log.failed = True
            return
        if fields[14]:
            start = offset + head
            middle = start + fields[6]
            if fields[1] == _AGENT_RECORD:
                log.agents.setdefault(fields[5], bytearray()).extend(data[start:middle])
                offset += size
                continue
            path = data[start:middle].decode(encoding, "surrogateescape")
            if "/.." in path:
                _add_way(log, fields[7], path)
                path = _resolved(path)
            if fields[1] == opened:
                type_ = fields[2]
                state = None if type_ in (ABSENT, UNKNOWN) else make(StatKey, fields[8:13])
                add(make(Record, (fields[7], opened, path, type_, fields[3], state, "", "preload")))
            else:
                yield fields, path, data[middle : middle + fields[13]]
        else:
            log.torn += 1
        offset += size


def _take(log: PreloadLog, fields: tuple[int, ...], text: str, extra: bytes) -> None:
    """Put one record where it belongs."""
    _, kind, type_, flags, core, pid, _, time_ns, dev, ino, size, mtime, ctime, _, _ = fields
    state = None
    if type_ not in (ABSENT, UNKNOWN):
        state = tuple.__new__(StatKey, (dev, ino, size, mtime, ctime))
    if kind in _PATH_KINDS:
        target = os.fsdecode(extra) if extra else ""
        record = tuple.__new__(Record, (time_ns, kind, text, type_, flags, state, target, "preload"))
        if core and kind == Kind.STAT:
            log.core_looks.append(record)
        elif kind in (Kind.STAT, Kind.LIST) and pid in log._starting:
            log._starting[pid].append(record)
        else:
            log.records.append(record)
    elif kind == _LINK:
        log.records.append(Record(time_ns, Kind.OPEN, text, type_, 0, state, "", "preload"))
    elif kind == _SYMLINK:
        made = Flag.WRITE_ONLY | Flag.CREATE | Flag.EXCLUSIVE
        log.records.append(Record(time_ns, Kind.OPEN, text, type_, made, state, "", "preload"))
    elif kind in (_EXEC, _SPAWN):
        log.starts.append(Started(time_ns, pid, text, _words(extra), kind == _EXEC))
    elif kind in (_EXEC_FAILED, _SPAWN_FAILED):
        for number in range(len(log.starts) - 1, -1, -1):
            if log.starts[number].pid == pid:
                del log.starts[number]
                break
    elif kind == _IMAGE:
        ppid, _, argv = extra.partition(b"\0")
        log.records += log._starting.pop(pid, ())
        log._starting[pid] = []
        log.images.append(Image(time_ns, pid, int(ppid or b"0"), text, _words(argv), state, type_))
    elif kind == _CONNECT:
        log.connects.append(_address(text))
    elif kind == _BIND:
        log.binds.append(_address(text))
    elif kind == _VISITOR:
        log.visitors.append(_address(text))
    elif kind == _STDIN:
        log.stdin_reads.add((dev, ino))
    elif kind == _AGENT:
        _drop_start(log, pid)
    else:
        _take_note(log, kind, text)


def _take_note(log: PreloadLog, kind: int, text: str) -> None:
    if kind == _MAPPED:
        log.mapped.add(text)
    elif kind == _VARIABLE:
        log.variables.add(text)
    elif kind == _WALK:
        log.walks.add(text)
    elif kind == _RING and text == "io_uring":
        log.used_ring = True
    elif kind == _RING:
        log.unwatched.add(text)


def _drop_start(log: PreloadLog, pid: int) -> None:
    """The agent is there: what its interpreter looked for before to find itself is no dependency of the run."""
    log._starting.pop(pid, None)


def _add_way(log: PreloadLog, time_ns: int, path: str) -> None:
    """What is gone through before ``..`` decides where that leads, so the links on it count."""
    head, dots, _ = path.rpartition("/..")
    if dots and head:
        log.records.append(Record(time_ns, Kind.STAT, head, UNKNOWN, LEVEL_LINK, None, "", "preload"))


def _resolved(path: str) -> str:
    """Resolve up to the last ``..``; after a symbolic link it does not mean what the text says."""
    head, dots, tail = path.rpartition("/..")
    return os.path.realpath(head + dots) + tail if dots and tail[:1] in ("", "/") else path


def _words(data: bytes) -> tuple[str, ...]:
    return tuple(os.fsdecode(word) for word in data.removesuffix(b"\0").split(b"\0")) if data else ()


def _address(text: str) -> tuple[int, Any]:
    """Read ``2 host port``, ``10 host port`` or ``1 path``."""
    family, _, rest = text.partition(" ")
    if family == "1":
        return 1, rest
    host, _, port = rest.rpartition(" ")
    return int(family), (host, int(port))
