"""Reads kept apart and events in order say together what all events in order say."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content.columns import SplitLog
from lichen.runs.trace.accesses import AccessTable
from lichen.runs.trace.agent_log import ABSENT, Flag, Kind, Record
from lichen.runs.trace.exchange import merge_traces, read_trace, write_trace
from lichen.runs.trace.places import Places
from lichen.runs.trace.plain_reads import keep_apart
from lichen.runs.trace.trace import Access, PlainReads, StatKey, Trace

REGULAR, DIRECTORY = 8, 4
ROOT = "/nowhere/project"
NAMES = [f"{folder}{name}" for folder in ("", "d/", "d/e/") for name in ("a", "b", "c")]
WRITE = Flag.WRITE_ONLY | Flag.CREATE | Flag.TRUNCATE
STATE = StatKey(1, 2, 3, 4, 5)
READS = st.tuples(st.just(Kind.OPEN), st.sampled_from([*NAMES, "../else/a", "../../usr/lib/x"]), st.just(0))
CHANGES = st.one_of(
    st.tuples(st.just(Kind.OPEN), st.sampled_from(NAMES), st.sampled_from([WRITE, Flag.READ_WRITE])),
    st.tuples(st.sampled_from([Kind.DELETE, Kind.STAT]), st.sampled_from(NAMES), st.just(0)),
    st.tuples(st.just(Kind.MKDIR), st.sampled_from(["d", "d/e"]), st.just(0)),
    st.tuples(st.just(Kind.MOVE), st.sampled_from([*NAMES, "d", "d/e"]), st.just(0)),
)


def told(stories: list[tuple[int, str, int]]) -> list[Record]:
    """Events of a run in order, each a tick after the one before."""
    records = []
    for time_ns, (kind, name, flags) in enumerate(stories):
        path = os.path.normpath(f"{ROOT}/{name}")
        is_directory = name in ("d", "d/e")
        state = STATE._replace(inode=time_ns)
        type_ = DIRECTORY if is_directory and kind == Kind.MOVE else ABSENT if kind == Kind.MKDIR else REGULAR
        extra = f"{ROOT}/moved-{name.replace('/', '-')}" if kind == Kind.MOVE else ""
        records.append(
            Record(time_ns, kind, path, type_, flags, None if type_ == ABSENT else state, extra, "preload")
        )
    return records


def split_of(reads: list[Record]) -> SplitLog:
    """What the C library makes of these reads."""
    first: dict[str, Record] = {}
    for record in reads:
        first.setdefault(record.path, record)
    folders: dict[str, list[Record]] = {}
    for path in sorted(first):
        folders.setdefault(path.rpartition("/")[0], []).append(first[path])
    ordered = [record for records in folders.values() for record in records]
    return SplitLog(
        list(folders),
        [[record.path.rpartition("/")[2] for record in records] for records in folders.values()],
        b"".join(struct.pack("<QQqqq", *(record.stat or ())) for record in ordered),
        b"".join(struct.pack("<q", record.time_ns) for record in ordered),
        b"",
    )


def places() -> Places:
    return Places(ROOT, [], {"HOME": "/home/nobody"})


def accesses_of(events: list[Record], plain: PlainReads | None = None) -> set[tuple[object, ...]]:
    table = AccessTable(places())
    table.add_all(sorted(events, key=lambda record: record.time_ns))
    trace = Trace(accesses=table.finish(), plain=plain or PlainReads())
    return {(access.path, access.kind, access.stat, access.detail) for access in trace.every_access()}


@given(st.lists(st.one_of(READS, READS, READS, CHANGES), max_size=14))
def test_apart_or_in_order_the_accesses_are_the_same(stories: list[tuple[int, str, int]]) -> None:
    records = told(stories)
    reads = [record for record in records if record.kind == Kind.OPEN and not record.flags]
    others = [record for record in records if record not in reads]
    plain, entangled = keep_apart(split_of(reads), others, (), places())
    assert accesses_of([*others, *entangled], plain) == accesses_of(records)
    assert not {record.path for record in entangled} & set(plain.paths())


def test_what_nothing_else_is_known_of_stays_apart() -> None:
    reads = told([(Kind.OPEN, name, 0) for name in ("a", "b", "d/a", "d/b", "../../usr/lib/x")])
    others = told([(Kind.OPEN, "b", WRITE)])
    plain, entangled = keep_apart(split_of(reads), others, [f"{ROOT}/d/b"], places())
    assert list(plain.paths()) == [f"{ROOT}/a", f"{ROOT}/d/a"]
    assert sorted(record.path for record in entangled) == [f"{ROOT}/b", f"{ROOT}/d/b", "/usr/lib/x"]
    assert [state.inode for _, state in plain.reads()] == [0, 2]


def test_files_are_taken_out_with_their_states() -> None:
    plain, _ = keep_apart(split_of(told([(Kind.OPEN, name, 0) for name in NAMES])), (), (), places())
    left, taken = plain.without([f"{ROOT}/d/b", f"{ROOT}/a", "/other/x", f"{ROOT}/d/none"])
    assert [path for path, _ in taken] == [f"{ROOT}/a", f"{ROOT}/d/b"]
    whole = dict(plain.reads())
    assert dict(taken) | dict(left.reads()) == whole
    assert len(left) == len(whole) - 2
    assert left.without(["/other/x"]) == (left, [])
    nothing, everything = left.without(left.paths())
    assert (len(nothing), list(nothing.paths()), len(everything)) == (0, [], len(left))


def test_plain_reads_go_with_a_trace_to_other_processes(tmp_path: Path) -> None:
    plain = PlainReads({"/p": ["a", "b"]}, struct.pack("<QQqqq", *STATE) * 2)
    trace = Trace(accesses=(Access("/p/c", "write", None, 0, frozenset({"audit"})),), plain=plain)
    write_trace(trace, tmp_path / "trace")
    carried = read_trace(tmp_path / "trace")
    assert list(carried.every_access()) == list(trace.every_access())
    assert {access.path for access in carried.of_kind("read")} == {"/p/a", "/p/b"}
    for merged in (merge_traces(trace, [Trace()]), merge_traces(Trace(), [trace])):
        assert {access.path for access in merged.every_access()} == {"/p/a", "/p/b", "/p/c"}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_count_is_that_of_the_files(count: int) -> None:
    plain = PlainReads({"/p": [str(number) for number in range(count)]}, bytes(40 * count))
    assert len(plain) == count
    assert len(list(plain.reads())) == count
