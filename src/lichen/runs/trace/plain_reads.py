"""Plain reads kept apart: files of which nothing was seen but that they were opened for reading.

What a run reads counts unless the run itself had made it before, and that is told from the order of all events of one path and
of the directories above it. A file that no other event names, in a directory that no event made, moved or took away, needs no
order: it was read, in the state in which it was opened first. Nearly all files of a run that reads very many are such.
Whatever has to do with any other event is handed back as records, to be taken in their order with the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from lichen.content.columns import STATE_BYTES, TYPE_REGULAR, SplitLog
from lichen.runs.trace.agent_log import Kind, Record
from lichen.runs.trace.places import Places, normalise
from lichen.runs.trace.trace import PlainReads, StatKey

__all__ = ["keep_apart"]

_COLUMN = struct.Struct("<QQqqq")
_TIME = struct.Struct("<q")
_OF_NAMES = frozenset((Kind.MKDIR, Kind.MOVE, Kind.DELETE))
"""Events that may change what the names below a path mean."""


def keep_apart(
    split: SplitLog, events: Iterable[Record], others: Iterable[str], places: Places
) -> tuple[PlainReads, list[Record]]:
    """Tell reads that no other event has to do with from those that must be taken in order.

    Args:
        split: Plain reads of one log.
        events: All other events.
        others: Further paths that something is known of.
        places: Knows which directories' files can be inputs.

    Returns:
        Reads that need no order, and records of all others.
    """
    touched, changed = _touched(events, others)
    names: dict[str, list[str]] = {}
    states: list[bytes] = []
    entangled: list[Record] = []
    start = 0
    for directory, found in zip(split.directories, split.names, strict=True):
        end = start + len(found)
        if not _is_all_ours(places, directory) or _is_below(directory, changed):
            entangled += _records(split, directory, found, range(start, end))
        elif directory not in touched or touched[directory].isdisjoint(found):
            names[directory] = found
            states.append(split.states[STATE_BYTES * start : STATE_BYTES * end])
        else:
            known = touched[directory]
            out = [place for place, name in enumerate(found) if name in known]
            entangled += _records(
                split, directory, [found[place] for place in out], (start + place for place in out)
            )
            stay = [place for place, name in enumerate(found) if name not in known]
            if stay:
                names[directory] = [found[place] for place in stay]
            states += [
                split.states[STATE_BYTES * (start + place) : STATE_BYTES * (start + place + 1)]
                for place in stay
            ]
        start = end
    return PlainReads(names, b"".join(states)), entangled


def _touched(events: Iterable[Record], others: Iterable[str]) -> tuple[dict[str, set[str]], set[str]]:
    """Collect names that other events have to do with, by directory, and paths below which names have changed."""
    touched: dict[str, set[str]] = {}
    changed: set[str] = set()

    def take(path: str) -> None:
        directory, _, name = path.rpartition("/")
        touched.setdefault(directory, set()).add(name)

    for path in others:
        take(normalise(path))
    for event in events:
        path = normalise(event.path)
        take(path)
        if event.kind in _OF_NAMES:
            changed.add(path)
        if event.kind == Kind.MOVE:
            target = normalise(event.extra)
            take(target)
            changed.add(target)
    return touched, changed


def _is_all_ours(places: Places, directory: str) -> bool:
    """Say whether every file of a directory can be an input; not so where each must be asked for."""
    return (
        bool(directory) and places.is_ours(f"{directory}/x") and places.ours_by_directory[directory] is True
    )


def _is_below(directory: str, changed: set[str]) -> bool:
    """Say whether a directory, or one above it, is among paths."""
    while directory and changed:
        if directory in changed:
            return True
        directory = directory[: directory.rfind("/")]
    return False


def _records(split: SplitLog, directory: str, names: list[str], places: Iterable[int]) -> Iterator[Record]:
    """Give reads as the records they were."""
    for name, place in zip(names, places, strict=True):
        state = StatKey(*_COLUMN.unpack_from(split.states, STATE_BYTES * place))
        (time_ns,) = _TIME.unpack_from(split.times, _TIME.size * place)
        yield Record(time_ns, Kind.OPEN, f"{directory}/{name}", TYPE_REGULAR, 0, state, "", "preload")
