"""Equal work waits for equal work: one at a time, in order, never for the dead and never for itself."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import lichen.runs.reuse.lease as lease_module
from lichen.runs.process.processes import this_process
from lichen.runs.reuse.lease import LEASE_VARIABLE, STALE_SECONDS, Lease

DRIVER = str(Path(__file__).with_name("lease_driver.py"))
PATIENCE_SECONDS = 30
KEY = "ab" * 32


class Others:
    """Other processes that use the same leases."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[subprocess.Popen[str]] = []

    def start(self, *words: object) -> subprocess.Popen[str]:
        command = [sys.executable, DRIVER, str(self.directory), *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@pytest.fixture
def leases(tmp_path: Path) -> Path:
    return tmp_path / "leases"


@pytest.fixture
def others(leases: Path) -> Iterator[Others]:
    found = Others(leases)
    yield found
    found.close()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def write_ticket(
    leases: Path, *, number: int = 1, key: str = KEY, age_seconds: float = 0, **owner: object
) -> Path:
    """A ticket as a process elsewhere would have left it."""
    leases.mkdir(exist_ok=True)
    path = leases / f"{key}.{number}.{'c' * 24}"
    elsewhere = {"host": "faraway", "place": "another boot", "pid": 1, "start_ticks": 1, **owner}
    path.write_text(json.dumps({"owner": elsewhere, "user": "ann", "since_unix_ms": 0, "inside": []}))
    then = time.time() - age_seconds
    os.utime(path, (then, then))
    return path


def test_a_free_lease_is_ours_at_once_and_leaves_nothing(leases: Path) -> None:
    with Lease(leases, KEY).acquire() as held:
        assert (held.owned, held.waited, held.note) == (True, False, "")
        assert len(list(leases.iterdir())) == 1
    assert list(leases.iterdir()) == []


def test_different_keys_do_not_wait(leases: Path, others: Others, tmp_path: Path) -> None:
    assert line(others.start("hold", KEY, tmp_path / "go")).startswith("held")
    with Lease(leases, "cd" * 32).acquire() as held:
        assert (held.owned, held.waited) == (True, False)


def test_the_second_waits_is_told_for_whom_and_goes_on_afterwards(
    leases: Path, others: Others, tmp_path: Path
) -> None:
    holder = others.start("hold", KEY, tmp_path / "go")
    assert line(holder) == "held owned=True waited=False"
    told: list[str] = []

    def hear(who: str) -> None:
        told.append(who)
        (tmp_path / "go").touch()

    with Lease(leases, KEY).acquire(on_wait=hear) as held:
        assert (held.owned, held.waited) == (True, True)
    assert f"process {holder.pid}" in told[0]


def test_waiters_come_in_the_order_of_arrival(others: Others, tmp_path: Path) -> None:
    first = others.start("hold", KEY, tmp_path / "go0")
    assert line(first).startswith("held")
    waiters = []
    for number in range(1, 5):
        waiters.append(others.start("hold", KEY, tmp_path / f"go{number}"))
        assert line(waiters[-1]).startswith("waiting")
    (tmp_path / "go0").touch()
    for number, waiter in enumerate(waiters, 1):
        while (said := line(waiter)).startswith("waiting"):
            pass
        assert said == "held owned=True waited=True"
        for later in waiters[number:]:
            assert later.poll() is None
        (tmp_path / f"go{number}").touch()


def test_no_two_processes_hold_a_lease_at_once(others: Others, tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    counting = [others.start("count", KEY, 12, tmp_path / "counter") for _ in range(4)]
    assert [process.wait(PATIENCE_SECONDS) for process in counting] == [0] * 4
    assert (tmp_path / "counter").read_text() == "48"


def test_who_saw_too_little_takes_another_number(leases: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between looking and taking a number, somebody else took one and holds the lease."""
    write_ticket(leases, number=4)
    real, is_blind = lease_module._names, iter([True, True])
    monkeypatch.setattr(lease_module, "_names", lambda *given: [] if next(is_blind, False) else real(*given))
    with Lease(leases, KEY).acquire(timeout_seconds=0) as held:
        assert not held.owned


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_holder_that_is_killed_is_not_waited_for(
    leases: Path, others: Others, tmp_path: Path, number: int
) -> None:
    holder = others.start("hold", KEY, tmp_path / "never")
    assert line(holder).startswith("held")
    holder.send_signal(number)
    holder.wait()
    with Lease(leases, KEY).acquire() as held:
        assert held.owned


def test_a_waiter_that_is_killed_is_passed_over(leases: Path, others: Others, tmp_path: Path) -> None:
    assert line(others.start("hold", KEY, tmp_path / "go")).startswith("held")
    waiter = others.start("hold", KEY, tmp_path / "never")
    assert line(waiter).startswith("waiting")
    waiter.kill()
    waiter.wait()
    (tmp_path / "go").touch()
    with Lease(leases, KEY).acquire() as held:
        assert held.owned


def test_a_suspended_holder_is_waited_for_and_said_to_be_suspended(
    leases: Path, others: Others, tmp_path: Path
) -> None:
    holder = others.start("hold", KEY, tmp_path / "go")
    assert line(holder).startswith("held")
    holder.send_signal(signal.SIGSTOP)
    os.waitpid(holder.pid, os.WUNTRACED)
    with Lease(leases, KEY).acquire(timeout_seconds=0) as held:
        assert not held.owned
        assert "suspended" in held.note
    holder.send_signal(signal.SIGCONT)


def test_a_process_id_that_was_reused_is_not_the_holder(leases: Path) -> None:
    here = this_process()
    write_ticket(leases, place=here.place, pid=os.getpid(), start_ticks=here.start_ticks - 1)
    with Lease(leases, KEY).acquire() as held:
        assert (held.owned, held.waited) == (True, False)


def test_a_holder_elsewhere_lives_by_its_heartbeat(leases: Path) -> None:
    write_ticket(leases, age_seconds=STALE_SECONDS / 2)
    with Lease(leases, KEY).acquire(timeout_seconds=0) as held:
        assert not held.owned
        assert "ann on faraway" in held.note
    write_ticket(leases, age_seconds=STALE_SECONDS + 5)
    with Lease(leases, KEY).acquire(timeout_seconds=0) as held:
        assert held.owned


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"owner": 3}', b"\xff\xfe"])
def test_a_damaged_ticket_counts_by_its_heartbeat(leases: Path, content: bytes) -> None:
    ticket = write_ticket(leases)
    ticket.write_bytes(content)
    with Lease(leases, KEY).acquire(timeout_seconds=0) as held:
        assert not held.owned
    os.utime(ticket, (1, 1))
    with Lease(leases, KEY).acquire(timeout_seconds=0) as held:
        assert held.owned


def test_patience_ends(leases: Path, others: Others, tmp_path: Path) -> None:
    assert line(others.start("hold", KEY, tmp_path / "never")).startswith("held")
    with Lease(leases, KEY).acquire(timeout_seconds=0.2) as held:
        assert (held.owned, held.waited) == (False, True)
        assert len(list(leases.iterdir())) == 1  # who goes on without a lease keeps no place in the queue


def test_an_error_while_waiting_gives_the_place_back(leases: Path, others: Others, tmp_path: Path) -> None:
    assert line(others.start("hold", KEY, tmp_path / "never")).startswith("held")

    def interrupt(who: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Lease(leases, KEY).acquire(on_wait=interrupt):
        pass
    assert len(list(leases.iterdir())) == 1


def test_a_directory_that_cannot_be_made_means_no_lease_and_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Lease(tmp_path / "file" / "leases", KEY).acquire() as held:
        assert not held.owned
        assert "Not a directory" in held.note


def test_a_run_does_not_wait_for_itself(leases: Path) -> None:
    with Lease(leases, KEY).acquire() as outer, Lease(leases, KEY).acquire() as inner:
        assert outer.owned
        assert not inner.owned


@pytest.mark.parametrize("mark", ["mark", "unmarked"])
def test_a_run_does_not_wait_for_the_run_around_it(others: Others, tmp_path: Path, mark: str) -> None:
    (tmp_path / "go").touch()
    outer = others.start("nest", KEY, KEY, tmp_path / "ready", tmp_path / "go", mark)
    assert line(outer) == "owned=False waited=False note=no lease: its holder waits for this run"
    assert outer.wait(PATIENCE_SECONDS) == 0


def test_a_lease_named_by_variable_is_never_waited_for(leases: Path) -> None:
    write_ticket(leases)
    inside = Lease(leases, KEY, {LEASE_VARIABLE: "c" * 24})
    with inside.acquire() as held:
        assert not held.owned


@pytest.mark.parametrize("mark", ["mark", "unmarked"])
def test_two_runs_whose_inner_runs_want_each_others_work_do_not_lock_up(
    others: Others, tmp_path: Path, mark: str
) -> None:
    one, other, go = "1a" * 16, "2b" * 16, tmp_path / "go"
    first = others.start("nest", one, other, tmp_path / "ready1", go, mark)
    second = others.start("nest", other, one, tmp_path / "ready2", go, mark)
    end = time.monotonic() + PATIENCE_SECONDS
    while not ((tmp_path / "ready1").exists() and (tmp_path / "ready2").exists()):
        assert time.monotonic() < end
        time.sleep(0.005)
    go.touch()
    assert first.wait(PATIENCE_SECONDS) == 0
    assert second.wait(PATIENCE_SECONDS) == 0


def test_a_key_of_any_text_is_taken(leases: Path) -> None:
    with Lease(leases, "../train.py --depth 4\udcff").acquire() as held:
        assert held.owned
        assert [path.parent for path in leases.iterdir()] == [leases]
