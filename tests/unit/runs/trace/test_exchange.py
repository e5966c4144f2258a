"""Traces of several processes as one: nothing is lost on the way through a file, and merging reads carefully."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import EncodingError
from lichen.runs.trace.exchange import merge_traces, read_trace, write_trace
from lichen.runs.trace.trace import Access, Exec, StatKey, Trace

NAMES = st.binary(min_size=1, max_size=8).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)
TEXTS = st.lists(NAMES, max_size=2).map(tuple)
STATES = st.none() | st.builds(StatKey, *[st.integers(0, 2**63)] * 5)
ACCESSES = st.builds(
    Access, NAMES, st.sampled_from(["read", "write", "append", "update", "list", "absent", "exec", "stat"]), STATES,
    st.integers(0, 99), st.frozensets(st.sampled_from(["audit", "preload"]), min_size=1), st.sampled_from(["", "deleted"]),
    st.none() | TEXTS,
)  # fmt: skip
TRACES = st.builds(
    Trace,
    accesses=st.lists(ACCESSES, max_size=3).map(tuple), modules=st.dictionaries(NAMES, NAMES, max_size=2),
    imports=TEXTS, module_directories=TEXTS, variables=st.dictionaries(NAMES, st.none() | NAMES, max_size=2),
    distributions=st.dictionaries(NAMES, NAMES, max_size=2), environment=st.dictionaries(NAMES, NAMES, max_size=2),
    execs=TEXTS, processes=st.lists(st.builds(Exec, NAMES, NAMES, TEXTS, NAMES, st.booleans()), max_size=2).map(tuple),
    network=TEXTS, stdin_used=st.booleans(), complete=st.booleans(), reasons=TEXTS,
    metrics=st.lists(st.dictionaries(st.sampled_from("ab"), st.floats(allow_nan=False)), max_size=2).map(tuple),
    interpreter=NAMES, process_count=st.integers(0, 9),
)  # fmt: skip


def access(kind: str, path: str = "/p/x", *, detail: str = "", order: int = 0) -> Access:
    return Access(path, kind, None, order, frozenset({"audit"}), detail)  # type: ignore[arg-type]


def kinds(trace: Trace) -> set[tuple[str, str]]:
    return {(found.kind, found.path) for found in trace.accesses}


@given(TRACES)
def test_a_trace_survives_its_file(tmp_path_factory: pytest.TempPathFactory, trace: Trace) -> None:
    path = tmp_path_factory.getbasetemp() / "trace"
    write_trace(trace, path)
    assert read_trace(path) == trace


def test_every_field_of_a_trace_is_carried(tmp_path: Path) -> None:
    write_trace(Trace(), tmp_path / "trace")
    carried = set(json.loads((tmp_path / "trace").read_text()))
    assert carried == {field.name for field in fields(Trace)} - {"plain"}, "plain reads go with the accesses"


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "1", '{"accesses": []}', '{"accesses": [[1]], "processes": []}',
     '{"accesses": [["/x", "read", [1], 0, [], "", null]], "processes": []}', '{"accesses": 5, "processes": []}', "\xff"],
)  # fmt: skip
def test_a_damaged_trace_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "trace").write_text(content, encoding="latin-1")
    with pytest.raises(EncodingError, match="trace"):
        read_trace(tmp_path / "trace")


def test_a_trace_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(EncodingError, match="trace"):
        read_trace(tmp_path / "trace")


def test_merging_with_nobody_changes_nothing() -> None:
    trace = Trace(accesses=(access("read"), access("stat", "/p/y")), variables={"A": "1"}, process_count=2)
    assert merge_traces(trace, []) == trace


def test_what_one_wrote_and_another_read_stands_with_both_kinds() -> None:
    """Which came first cannot be known, so whoever judges the run finds it read and written."""
    for one, other in (("write", "read"), ("read", "write")):
        merged = merge_traces(Trace(accesses=(access(one),)), [Trace(accesses=(access(other),))])
        assert kinds(merged) == {("read", "/p/x"), ("write", "/p/x")}
        assert merged.read_then_written() == ("/p/x",)


@pytest.mark.parametrize("kind", ["stat", "list"])
def test_what_one_made_and_another_looked_at_is_no_input(kind: str) -> None:
    made = Trace(accesses=(access("write"), access("absent", "/p/d", detail="made-directory")))
    looked = Trace(accesses=(access(kind), access(kind, "/p/d"), access(kind, "/p/other")))
    for merged in (merge_traces(made, [looked]), merge_traces(looked, [made])):
        assert {path for found, path in kinds(merged) if found == kind} == {"/p/other"}


def test_what_one_deleted_another_may_have_looked_at() -> None:
    deleted = Trace(accesses=(access("write", detail="deleted"),))
    merged = merge_traces(deleted, [Trace(accesses=(access("stat"),))])
    assert ("stat", "/p/x") in kinds(merged)


def test_of_the_same_access_the_first_process_is_believed() -> None:
    state = StatKey(1, 2, 3, 4, 5)
    first = Trace(accesses=(access("read")._replace(stat=state),), variables={"A": "1"})
    other = Trace(accesses=(access("read"),), variables={"A": "2", "B": "3"})
    merged = merge_traces(first, [other])
    assert [found.stat for found in merged.accesses] == [state]
    assert merged.variables == {"A": "1", "B": "3"}


def test_everything_else_adds_up() -> None:
    one = Trace(
        imports=("numpy",), execs=("/bin/b",), network=("a:1",), reasons=("x: 1",), complete=False, process_count=1,
        distributions={"numpy": "1"}, modules={"m": "/p/m.py"}, module_directories=("/p",), metrics=({"loss": 1.0},),
        processes=(Exec("b", "/bin/b", (), "native", True),),
    )  # fmt: skip
    two = Trace(
        imports=("pandas", "numpy"), execs=("/bin/a",), network=("a:1", "b:2"), reasons=("x: 1",), stdin_used=True,
        process_count=3, distributions={"pandas": "2"}, modules={"n": "/p/n.py"}, module_directories=("/p", "/q"),
        metrics=({"loss": 9.0},), processes=(Exec("a", "/bin/a", (), "native", False),),
    )  # fmt: skip
    merged = merge_traces(one, [two])
    assert merged.imports == ("numpy", "pandas")
    assert merged.execs == ("/bin/a", "/bin/b")
    assert merged.network == ("a:1", "b:2")
    assert merged.reasons == ("x: 1",)
    assert (merged.complete, merged.stdin_used, merged.process_count) == (False, True, 4)
    assert merged.distributions == {"numpy": "1", "pandas": "2"}
    assert set(merged.modules) == {"m", "n"}
    assert merged.module_directories == ("/p", "/q")
    assert merged.metrics == ({"loss": 1.0},), "the first rank reports for all"
    assert len(merged.processes) == 2


@given(TRACES, TRACES)
def test_no_access_but_a_look_is_ever_lost(one: Trace, other: Trace) -> None:
    merged = kinds(merge_traces(one, [other]))
    lost = (kinds(one) | kinds(other)) - merged
    assert {kind for kind, _ in lost} <= {"stat", "list"}
    assert merge_traces(replace(one, complete=False), [other]).complete is False
