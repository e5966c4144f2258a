"""What /proc says about processes that the test started and knows."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lichen.energy import process_table
from lichen.energy.cgroup import ControlGroup

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_this_process_is_described() -> None:
    own = process_table.read_stat(os.getpid())
    assert own is not None
    assert own.pid == os.getpid()
    assert own.parent == os.getppid()
    assert own.resident_bytes > 1_000_000
    assert own.own_seconds <= time.process_time() + 0.02
    assert not own.ignores_children


def test_a_process_with_an_odd_name_is_read(tmp_path: Path) -> None:
    """A name may hold spaces and parentheses, which the line encloses in parentheses."""
    program = tmp_path / "a) R (1 2"
    program.symlink_to("/bin/sleep")
    child = subprocess.Popen([program, "30"])
    try:
        while (found := process_table.read_stat(child.pid)) is None or b"sleep" not in command(child.pid):
            time.sleep(0.01)
        assert found.parent == os.getpid()
    finally:
        child.kill()
        child.wait()


def command(pid: int) -> bytes:
    executable = Path(f"/proc/{pid}/exe")
    return os.fsencode(executable.readlink()) if executable.exists() else b""


def test_what_is_gone_is_absent_from_every_answer() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    assert process_table.read_stat(child.pid) is None
    assert process_table.read_io_bytes(child.pid) is None
    assert process_table.read_scheduled_seconds(child.pid) is None
    assert process_table.descendants(child.pid) == {}


def test_both_ways_of_finding_descendants_agree() -> None:
    grandparent = (
        "import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'import time; time.sleep(30)'])"
    )
    child = subprocess.Popen([sys.executable, "-S", "-c", grandparent])
    mine: set[int] = set()
    try:
        while not (mine := set(process_table.descendants(child.pid))):
            time.sleep(0.01)
        walked, listed = (
            process_table.descendants(os.getpid()),
            process_table._descendants_by_table(os.getpid()),
        )
        assert set(walked) == set(listed)
        assert {child.pid, *mine} <= set(walked)
    finally:
        for pid in (*mine, child.pid):  # and none of the other children that the tests' process has
            os.kill(pid, 9)
        child.wait()


def test_the_machine_is_described() -> None:
    memory, busy = process_table.read_memory_bytes(), process_table.read_busy_seconds()
    assert memory is not None
    assert memory > 100_000_000
    assert busy is not None
    assert busy > time.process_time()


def test_storage_traffic_of_this_process_is_readable() -> None:
    traffic = process_table.read_io_bytes(os.getpid())
    assert traffic is not None
    assert min(traffic) >= 0


def test_no_group_is_made_where_there_are_no_groups(tmp_path: Path) -> None:
    assert ControlGroup.create(tmp_path) is None
    assert ControlGroup.create(tmp_path / "missing") is None
    assert list(tmp_path.iterdir()) == []
