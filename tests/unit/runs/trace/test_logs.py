"""The logs of agent and library: read what was written, and survive what was not finished."""

from __future__ import annotations

import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from lichen.runs.trace.agent_log import AgentLog, Kind, read_agent_logs
from lichen.runs.trace.preload import DATA_OFFSET, HEADER_BYTES, MAGIC, prepare_log
from lichen.runs.trace.preload_log import PreloadLog, read_preload_logs
from lichen.runs.trace.trace import StatKey

PLAIN = struct.Struct("<cBBxIq")
STATED = struct.Struct("<cBBxIqQQqqq")
RECORD = struct.Struct("<IBBBBIIqQQqqqII")


def plain(kind: str, payload: bytes, flags: int = 0, time_ns: int = 1) -> bytes:
    return PLAIN.pack(kind.encode(), 0, flags, len(payload), time_ns) + payload


def stated(kind: str, payload: bytes, type_: int = 8, flags: int = 0) -> bytes:
    return STATED.pack(kind.encode(), type_, flags, len(payload), 5, 1, 2, 3, 4, 5) + payload


HELLO = plain("H", repr({"pid": 7, "ppid": 1, "path": ["/p"]}).encode())


def read(folder: Path, *chunks: bytes) -> tuple[list[AgentLog], list[str]]:
    for number, chunk in enumerate(chunks):
        (folder / f"agent-7-{100 + number}-{number}.log").write_bytes(chunk + bytes(64))
    return read_agent_logs(folder)


def test_agent_log(tmp_path: Path) -> None:
    first = HELLO + stated("O", b"/p/caf\xe9") + plain("I", b"json") + plain("I", b"fast\0/p/fast.so")
    second = plain("E", b"RATE\0/p/train.py") + plain(
        "X", repr(("cat", ("cat", "a"), "/p", True, ())).encode()
    )
    (log,), failures = read(tmp_path, first, second)
    assert log.pid == 7
    assert [(r.kind, r.path, r.stat) for r in log.records] == [
        (Kind.OPEN, "/p/caf\udce9", StatKey(1, 2, 3, 4, 5))
    ]
    assert log.imports == {"json": "", "fast": "/p/fast.so"}
    assert log.variables == {("RATE", "/p/train.py")}
    assert log.execs == [(1, "cat", ("cat", "a"), "/p", True, ())]
    assert failures == []


def test_a_copy_of_the_environment_cancels_the_loop_it_began_as(tmp_path: Path) -> None:
    copied, looped = repr(("/p/a.py", 3, 40)).encode(), repr(("/p/b.py", 3, 40)).encode()
    (log,), _ = read(tmp_path, HELLO + plain("W", copied) + plain("W", copied, flags=1) + plain("W", looped))
    assert (log.copies, log.loops) == ({"/p/a.py"}, {"/p/b.py"})


def test_exec_begins_a_new_log(tmp_path: Path) -> None:
    logs, _ = read(
        tmp_path,
        HELLO + plain("I", b"a"),
        plain("H", repr({"pid": 7}).encode(), time_ns=9) + plain("I", b"b"),
    )
    assert [list(log.imports) for log in logs] == [["a"], ["b"]]


def test_failures_leave_their_names(tmp_path: Path) -> None:
    (tmp_path / "failed-7-log-full").touch()
    (tmp_path / "failed-8-log-full").touch()
    assert read(tmp_path, HELLO)[1] == ["log-full"]


@given(cut=st.integers(0, 200), noise=st.binary(max_size=80))
def test_torn_and_foreign_bytes_end_a_chunk(tmp_path_factory: object, cut: int, noise: bytes) -> None:
    """Whatever follows the last whole record, what came before it is kept and nothing is raised."""
    import tempfile

    whole = HELLO + stated("O", b"/p/a") + plain("P", b"['/q']")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "agent-7-1-0.log").write_bytes(whole[: max(0, len(whole) - cut)] + noise)
        logs, _ = read_agent_logs(Path(folder))
    assert len(logs) <= 1 + noise.count(b"H")
    if cut == 0:
        assert logs[0].records[0].path == "/p/a"


def record(
    kind: str,
    path: bytes,
    extra: bytes = b"",
    *,
    type_: int = 8,
    pid: int = 7,
    time_ns: int = 1,
    done: int = 1,
) -> bytes:
    size = (RECORD.size + len(path) + len(extra) + 7) & ~7
    fields = (size, ord(kind), type_, 0, 0, pid, len(path), time_ns, 1, 2, 3, 4, 5, len(extra), done)
    return (RECORD.pack(*fields) + path + extra).ljust(size, b"\0")


def write_preload(
    folder: Path, data: bytes, *, used: int | None = None, failed: int = 0, magic: bytes = MAGIC
) -> PreloadLog:
    header = struct.pack("<8sQQI", magic, len(data) if used is None else used, 1 << 22, failed)
    (folder / "preload.log").write_bytes(
        header.ljust(HEADER_BYTES, b"\0") + bytes(DATA_OFFSET - HEADER_BYTES) + data
    )
    return read_preload_logs(folder)


def test_preload_log(tmp_path: Path) -> None:
    log = write_preload(
        tmp_path,
        record("I", b"/usr/bin/cat", b"1\0cat\0a b\0")
        + record("O", b"/p/a")
        + record("N", b"2 192.0.2.1 80", type_=15)
        + record("X", b"/bin/ls", b"ls\0-l\0", type_=15, pid=8)
        + record("X", b"/bin/no", b"no\0", type_=15, pid=9)
        + record("x", b"", type_=15, pid=9),
    )
    assert [(image.path, image.ppid, image.argv) for image in log.images] == [
        ("/usr/bin/cat", 1, ("cat", "a b"))
    ]
    assert [r.path for r in log.records] == ["/p/a"]
    assert log.connects == [(2, ("192.0.2.1", 80))]
    assert [(start.program, start.argv) for start in log.starts] == [("/bin/ls", ("ls", "-l"))]
    assert not log.failed
    assert log.torn == 0


def test_looks_before_the_agent_are_the_interpreters_own(tmp_path: Path) -> None:
    log = write_preload(
        tmp_path,
        record("I", b"/usr/bin/python3", b"1\0python3\0")
        + record("S", b"/p/pyvenv.cfg", type_=0)
        + record("A", b"")
        + record("S", b"/p/data", type_=0)
        + record("I", b"/bin/cat", b"1\0cat\0", pid=8)
        + record("S", b"/p/other", type_=0, pid=8),
    )
    assert [r.path for r in log.records] == ["/p/data", "/p/other"]


def test_unfinished_records_are_counted(tmp_path: Path) -> None:
    log = write_preload(tmp_path, record("O", b"/p/a", done=0) + record("O", b"/p/b"))
    assert [r.path for r in log.records] == ["/p/b"]
    assert log.torn == 1


def test_damaged_preload_logs_have_failed(tmp_path: Path) -> None:
    assert write_preload(tmp_path, b"", magic=b"NOTALOG!").failed
    assert write_preload(tmp_path, record("O", b"/p/a"), failed=1).failed
    assert write_preload(tmp_path, record("O", b"/p/a"), used=1 << 40).failed
    whole = record("O", b"/p/a")
    for size in (0, 8, RECORD.size + 1, 1 << 20):
        cut = write_preload(tmp_path, whole + size.to_bytes(4, "little") + whole[4:])
        assert cut.failed, size
        assert [r.path for r in cut.records] == ["/p/a"], size
    (tmp_path / "preload.log").write_bytes(b"short")
    assert read_preload_logs(tmp_path).failed


@given(noise=st.binary(max_size=300))
def test_any_bytes_are_a_log_or_none(noise: bytes) -> None:
    """Reading the data area never raises, whatever a crash left there."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        log = write_preload(Path(folder), record("O", b"/p/a") + noise)
    assert log.records[0].path == "/p/a"


def test_a_fresh_log_is_empty(tmp_path: Path) -> None:
    assert prepare_log(tmp_path)
    log = read_preload_logs(tmp_path)
    assert (log.records, log.images, log.failed, log.torn) == ([], [], False, 0)
