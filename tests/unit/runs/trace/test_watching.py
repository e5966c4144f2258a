"""The directory watch, process looks, presence, hints, bytecode, and the tracer's own errors."""

from __future__ import annotations

import os
import py_compile
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lichen.errors import StorageError, UsageError
from lichen.runs.trace import preload
from lichen.runs.trace.agent_log import Flag, Kind
from lichen.runs.trace.bytecode import is_stale
from lichen.runs.trace.inotify import DirectoryWatch
from lichen.runs.trace.literals import likely_directories
from lichen.runs.trace.presence import Presence
from lichen.runs.trace.procfs import ProcessLook, descendants, is_running
from lichen.runs.trace.tracer import Tracer


def watch(root: Path, action: str) -> dict[tuple[str, str], int]:
    """Run a shell command in a watched directory; give (kind, name) -> flags."""
    seen = DirectoryWatch()
    seen.start([str(root)])
    subprocess.run(["sh", "-c", action], cwd=root, check=True)
    seen.stop()
    assert not seen.reasons
    return {(chr(r.kind), r.path.removeprefix(f"{root}/")): r.flags for r in seen.records()}


def test_the_watch_tells_reading_from_writing(tmp_path: Path) -> None:
    for name in ("read", "replaced", "appended"):
        (tmp_path / name).write_text("some text")
    found = watch(tmp_path, "cat read > made; echo x > replaced; echo x >> appended; ls > /dev/null")
    assert found["O", "read"] == 0
    assert found["O", "made"] & Flag.CREATE
    assert found["O", "replaced"] == found["O", "appended"] == Flag.READ_WRITE, "it cannot tell these apart"
    assert ("L", str(tmp_path)) in found


def test_the_watch_follows_new_directories_and_names(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("")
    (tmp_path / "kept").write_text("")
    found = watch(tmp_path, "mkdir -p a/b; echo x > a/b/c; mv old new; rm kept; sleep 0.1; echo y > a/b/d")
    assert {("C", "a"), ("O", "a/b/c"), ("O", "a/b/d"), ("M", "old"), ("D", "kept")} <= found.keys()


def test_the_watch_leaves_out_what_is_no_data(tmp_path: Path) -> None:
    for name in (".git/objects", "node_modules/x", "env/lib", "data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "env/pyvenv.cfg").write_text("")
    seen = DirectoryWatch()
    seen.start([str(tmp_path)])
    assert seen.covers(f"{tmp_path}/data/x")
    assert not any(
        seen.covers(f"{tmp_path}/{name}/x") for name in (".git", ".git/objects", "node_modules", "env/lib")
    )
    seen.stop()


def test_an_overflowing_queue_is_told(tmp_path: Path) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 40_000:
        pytest.skip("the queue is too long to fill here")
    seen = DirectoryWatch()
    seen.start([str(tmp_path)])
    with seen._lock:  # nobody reads the queue meanwhile
        for number in range(limit // 3 + 10):
            (tmp_path / f"{number % 1000}").write_text("x")
    seen.stop()
    assert seen.reasons == {"queue-overflow"}


def test_too_many_directories_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lichen.runs.trace.inotify._WATCHES_MAX", 3)
    for name in "abcd":
        (tmp_path / name).mkdir()
    seen = DirectoryWatch()
    seen.start([str(tmp_path)])
    seen.stop()
    assert seen.reasons == {"watch-limit"}


def test_looks_see_open_files_of_children(tmp_path: Path) -> None:
    (tmp_path / "held").write_text("x")
    child = subprocess.Popen(
        [sys.executable, "-c", "f = open('held'); print(1, flush=True); input()"],
        cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    child.stdout.readline()
    look = ProcessLook()
    look.look()
    assert child.pid in descendants(os.getpid())
    assert is_running(child.pid, time.monotonic_ns())
    child.communicate(b"\n")
    assert look.opened[str(tmp_path / "held")].kind == Kind.OPEN
    assert not is_running(child.pid, time.monotonic_ns())


def test_a_number_given_to_a_later_process_is_not_the_earlier_one() -> None:
    assert not is_running(os.getpid(), 0), "this process is younger than the machine"


def test_presence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = Presence.announce(["/p"])
    elsewhere = Presence.announce(["/q"])
    assert not elsewhere.withdraw()
    second = Presence.announce(["/p/data"])
    assert second.withdraw()
    assert first.withdraw(), "the second told it"
    third = Presence.announce(["/p"])
    assert not third.withdraw()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    assert Presence.announce(["/p"]).withdraw(), "when nothing is known, the worst is assumed"


def test_likely_directories(tmp_path: Path) -> None:
    for name in ("data/set", "models", "project"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "models/m.bin").write_text("")
    (tmp_path / "project/train.py").write_text(
        f"SET = '{tmp_path}/data/set'\nNO = '/nowhere/at/all'\nROOT = '/'\nx = 'a.b'\n"
    )
    found = likely_directories(
        ["python", "train.py", f"--model={tmp_path}/models/m.bin", "../models"],
        str(tmp_path / "project"),
        [str(tmp_path / "project")],
    )
    assert found == [str(tmp_path / "models"), str(tmp_path / "data/set")]


def test_where_everybody_writes_is_not_a_likely_directory(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    assert likely_directories(["cat", "./shared"], str(tmp_path)) == [str(shared)]
    shared.chmod(0o1777)
    assert likely_directories(["cat", "./shared"], str(tmp_path)) == []


@pytest.fixture
def compiled(tmp_path: Path) -> tuple[Path, str]:
    source = tmp_path / "m.py"
    source.write_text("A = 4\n")
    bytecode = py_compile.compile(str(source), doraise=True)
    assert bytecode is not None
    return source, bytecode


def test_bytecode(compiled: tuple[Path, str]) -> None:
    source, bytecode = compiled
    assert not is_stale(bytecode, str(source), sys.executable)
    source.write_text("A = 6\n")
    assert is_stale(bytecode, str(source), sys.executable)
    source.write_text("A = 4\n")
    assert not is_stale(bytecode, str(source), sys.executable)
    source.unlink()
    assert is_stale(bytecode, str(source), sys.executable)


def test_bytecode_that_is_never_checked(compiled: tuple[Path, str]) -> None:
    source, _ = compiled
    bytecode = py_compile.compile(
        str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH
    )
    assert bytecode is not None
    assert not is_stale(bytecode, str(source), sys.executable)
    source.write_text("A = 6\n")
    assert is_stale(bytecode, str(source), sys.executable)


def test_bytecode_of_another_version_is_compared_by_its_own_interpreter(compiled: tuple[Path, str]) -> None:
    source, bytecode = compiled
    data = Path(bytecode).read_bytes()
    source.write_text("A = 4\n")
    Path(bytecode).write_bytes(b"\x01\x02\r\n" + data[4:])
    os.utime(bytecode, ns=(1, 1))
    assert not is_stale(bytecode, str(source), sys.executable)
    assert is_stale(bytecode, str(source), "/nowhere/python")


def test_no_compiler_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert preload.build_library(tmp_path / "cache") is None
    tracer = Tracer(tmp_path, scratch_directory=tmp_path / "scratch", cache_directory=tmp_path / "cache")
    environment = tracer.environment({"PYTHONPATH": "/mine"})
    assert tracer.means == ("audit", "inotify")
    assert "LD_PRELOAD" not in environment
    assert environment["PYTHONPATH"].endswith(":/mine")
    tracer.start()
    trace = tracer.finish()
    assert not trace.complete, "nothing ran"
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_broken_compiler_is_no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cc").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "cc").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}")
    assert preload.build_library(tmp_path / "cache") is None
    assert list((tmp_path / "cache").iterdir()) == []


def test_other_libraries_stay_preloaded() -> None:
    environment = preload.preloaded_environment(
        {"LD_PRELOAD": "/a.so /b.so:/own.so"}, Path("/own.so"), "/agent"
    )
    assert environment["LD_PRELOAD"] == "/a.so:/b.so:/own.so"


def test_errors_name_the_thing_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'strace'(.|\n)*audit, preload, inotify"):
        Tracer(tmp_path, means=["strace"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="file"):
        Tracer(tmp_path, scratch_directory=tmp_path / "file" / "below")
    tracer = Tracer(tmp_path, means=["audit"], scratch_directory=tmp_path / "s")
    tracer.environment({})
    tracer.start()
    tracer.run_directory.rmdir()
    with pytest.raises(StorageError, match="cannot be read"):
        tracer.finish()
