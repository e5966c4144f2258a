"""A process is known by more than its number."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

from lichen.runs.process.processes import ancestors, this_process


def test_this_process_is_here_and_runs() -> None:
    me = this_process()
    assert me.pid == os.getpid()
    assert me.is_here()
    assert me.is_running()
    assert not me.is_stopped()


def test_another_start_time_is_another_process() -> None:
    assert not replace(this_process(), start_ticks=1).is_running()


def test_another_place_cannot_be_looked_at() -> None:
    assert not replace(this_process(), place="elsewhere").is_here()
    assert not replace(this_process(), place="").is_here()


def test_an_ended_child_does_not_run_even_before_it_is_collected() -> None:
    child = subprocess.Popen(["sleep", "60"])
    mine = this_process()
    started = int(Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[19])
    identity = replace(mine, pid=child.pid, start_ticks=started)
    assert identity.is_running()
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert identity.is_stopped()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not identity.is_running()
    child.wait()
    assert not identity.is_running()


def test_ancestors_lead_from_the_child_to_the_first_process() -> None:
    found = list(ancestors())
    assert found[:2] == [os.getpid(), os.getppid()]
    assert len(set(found)) == len(found)
    child = subprocess.Popen(["sleep", "60"])
    assert list(ancestors(child.pid))[:2] == [child.pid, os.getpid()]
    child.kill()
    child.wait()
    assert list(ancestors(child.pid)) == [child.pid]
