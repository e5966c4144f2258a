"""Real process trees against the processor seconds that their members say they used."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lichen.energy.attribution import SelfAccount, TreeAccount, TreeUsage
from lichen.energy.cgroup import ControlGroup
from lichen.energy.process_table import descendants

pytestmark = pytest.mark.own_process

TREES = Path(__file__).with_name("process_trees.py")
POLL_SECONDS = 0.02
GIVE_UP_SECONDS = 60


def can_group() -> bool:
    group = ControlGroup.create()
    if group is not None:
        group.remove()
    return group is not None


needs_group = pytest.mark.skipif(not can_group(), reason="no control group may be made here")


def start(account: TreeAccount, *command: object, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """Start a command inside the account, as the supervisor does."""
    setup = account.child_setup()
    child = subprocess.Popen([sys.executable, *map(str, command)], stdout=stdout, preexec_fn=setup)  # noqa: PLW1509 - one thread
    account.started(child.pid)
    return child


def account_for(scenario: str, truth: Path, *, use_cgroup: bool) -> tuple[TreeUsage, int]:
    """Run a scenario under an account until its first process and, for daemons, all others are gone."""
    account = TreeAccount(use_cgroup=use_cgroup)
    account.prepare()
    child = start(account, "-S", TREES, scenario, truth)
    status = None
    deadline = time.monotonic() + GIVE_UP_SECONDS
    while status is None or descendants(os.getpid()):
        assert time.monotonic() < deadline, "the tree did not end"
        account.poll()
        for pid, ended in account.reap():
            if pid == child.pid:
                status = child.returncode = os.waitstatus_to_exitcode(ended)
        time.sleep(POLL_SECONDS)
    return account.finish(), status


def said(truth: Path) -> list[float]:
    return [float(line) for line in truth.read_text().splitlines()] if truth.exists() else []


@pytest.fixture(params=[pytest.param(True, marks=needs_group, id="cgroup"), pytest.param(False, id="wait4")])
def use_cgroup(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize("scenario", ["alone", "short_children", "daemons", "abandoned", "pool"])
def test_seconds_are_those_the_processes_report(scenario: str, use_cgroup: bool, tmp_path: Path) -> None:
    usage, status = account_for(scenario, tmp_path / "truth", use_cgroup=use_cgroup)
    assert status == 0
    truth = sum(said(tmp_path / "truth"))
    ends = 0.002 * len(said(tmp_path / "truth"))  # what ending costs, a process cannot say itself
    assert truth * 0.98 <= usage.cpu_seconds <= truth * 1.02 + ends
    assert usage.cpu_seconds_low <= usage.cpu_seconds <= usage.cpu_seconds_high
    assert usage.method == ("cgroup" if use_cgroup else "wait4+polling")
    assert usage.still_running == ()


def test_short_programs_bring_their_start_and_end(use_cgroup: bool, tmp_path: Path) -> None:
    usage, _ = account_for("short_programs", tmp_path / "truth", use_cgroup=use_cgroup)
    truth = sum(said(tmp_path / "truth"))
    assert truth * 0.98 <= usage.cpu_seconds <= truth * 1.03 + 0.05


@pytest.mark.parametrize("scenario", ["ignored_long", "ignored_short", "dropped_by_flag"])
def test_children_nobody_waits_for_are_bounded(scenario: str, tmp_path: Path) -> None:
    """How often the interval of 95 % holds the truth is tested on simulated machines; these bounds hold always."""
    usage, status = account_for(scenario, tmp_path / "truth", use_cgroup=False)
    assert status == 0
    truth = sum(said(tmp_path / "truth"))
    ends = 0.002 * len(said(tmp_path / "truth"))
    assert usage.cpu_seconds_certain - ends <= truth * 1.02
    assert truth * 0.98 <= usage.cpu_seconds_possible
    assert usage.cpu_seconds_high > usage.cpu_seconds_low, "what was dropped is told by an interval"
    assert usage.cpu_seconds_certain <= usage.cpu_seconds_low <= usage.cpu_seconds
    assert usage.cpu_seconds <= usage.cpu_seconds_high <= usage.cpu_seconds_possible


@needs_group
def test_groups_that_an_earlier_process_left_are_swept(tmp_path: Path) -> None:
    group = ControlGroup.create()
    assert group is not None
    parent = group.directory.parent
    group.remove()
    gone = subprocess.Popen([sys.executable, "-S", "-c", ""])
    gone.wait()
    stale, kept = parent / f"lichen-{gone.pid}-00", parent / f"lichen-{os.getpid()}-00"
    stale.mkdir()
    kept.mkdir()
    again = ControlGroup.create()
    assert again is not None
    again.remove()
    left = kept.exists(), stale.exists()
    kept.rmdir()
    assert left == (True, False)


@needs_group
@pytest.mark.parametrize("scenario", ["ignored_long", "ignored_short"])
def test_a_control_group_counts_them_exactly(scenario: str, tmp_path: Path) -> None:
    usage, _ = account_for(scenario, tmp_path / "truth", use_cgroup=True)
    truth = sum(said(tmp_path / "truth"))
    assert truth * 0.98 <= usage.cpu_seconds <= truth * 1.04 + 0.03


@needs_group
@pytest.mark.parametrize("scenario", ["short_programs", "pool", "daemons"])
def test_waiting_agrees_with_a_control_group_around_it(scenario: str, tmp_path: Path) -> None:
    """The same tree, accounted by wait4, inside a group that the test reads for itself."""
    group = ControlGroup.create()
    assert group is not None
    try:
        account = TreeAccount(use_cgroup=False)
        account.prepare()
        child = subprocess.Popen(
            [sys.executable, "-S", TREES, scenario, tmp_path / "truth"],
            preexec_fn=group.join,  # noqa: PLW1509 - one thread
        )
        account.started(child.pid)
        while child.returncode is None or group.pids():
            account.poll()
            for pid, ended in account.reap():
                if pid == child.pid:
                    child.returncode = os.waitstatus_to_exitcode(ended)
            time.sleep(POLL_SECONDS)
        usage = account.finish()
        truth = group.cpu_seconds()
    finally:
        group.remove()
    assert truth is not None
    assert usage.cpu_seconds == pytest.approx(truth, rel=0.02, abs=0.005)


@needs_group
def test_a_run_inside_a_run_has_a_group_of_its_own_and_counts_in_both(tmp_path: Path) -> None:
    inner = tmp_path / "inner.py"
    inner.write_text(
        "import subprocess, sys, time\n"
        "from lichen.energy.attribution import TreeAccount\n"
        "account = TreeAccount()\n"
        "account.prepare()\n"
        "code = 'import time\\nwhile time.process_time() < 0.3: pass'\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', code], preexec_fn=account.child_setup())\n"
        "account.started(child.pid)\n"
        "while child.returncode is None:\n"
        "    for pid, ended in account.reap():\n"
        "        if pid == child.pid: child.returncode = 0\n"
        "    time.sleep(0.02)\n"
        "usage = account.finish()\n"
        "print(usage.method, usage.cpu_seconds)\n"
    )
    account = TreeAccount()
    account.prepare()
    child = start(account, inner, stdout=subprocess.PIPE)
    assert child.stdout is not None
    method, seconds = child.stdout.read().split()
    child.stdout.close()
    while child.returncode is None:
        account.poll()
        for pid, ended in account.reap():
            if pid == child.pid:
                child.returncode = os.waitstatus_to_exitcode(ended)
    usage = account.finish()
    assert (child.returncode, method) == (0, b"cgroup")
    assert 0.29 <= float(seconds) <= usage.cpu_seconds


@pytest.mark.skipif(importlib.util.find_spec("joblib") is None, reason="joblib is not installed")
def test_loky_workers_are_counted(use_cgroup: bool, tmp_path: Path) -> None:
    account = TreeAccount(use_cgroup=use_cgroup)
    account.prepare()
    child = start(account, TREES, "loky", tmp_path / "truth")
    while child.returncode is None:
        account.poll()
        for pid, ended in account.reap():
            if pid == child.pid:
                child.returncode = os.waitstatus_to_exitcode(ended)
        time.sleep(POLL_SECONDS)
    usage = account.finish()
    assert child.returncode == 0
    assert usage.cpu_seconds >= 0.6  # what the six tasks burnt; starting workers and imports come on top
    assert usage.process_count >= 3
    for pid in usage.still_running:
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(
            ChildProcessError
        ):  # one that was nobody's orphan yet is its parent's to wait for
            os.waitpid(pid, 0)


@pytest.mark.slow
def test_a_thousand_children_at_once(tmp_path: Path) -> None:
    usage, status = account_for("thousand", tmp_path / "truth", use_cgroup=False)
    assert status == 0
    assert usage.process_count >= 2  # seen by a scan; all others were waited for by their parent
    truth = sum(said(tmp_path / "truth"))
    assert truth * 0.98 <= usage.cpu_seconds <= truth * 1.03 + 0.02


def test_a_daemon_that_lives_on_is_named_and_counted_so_far(use_cgroup: bool, tmp_path: Path) -> None:
    account = TreeAccount(use_cgroup=use_cgroup)
    account.prepare()
    child = start(account, "-S", TREES, "lingering", tmp_path / "truth", stdout=subprocess.PIPE)
    assert child.stdout is not None
    daemon = int(child.stdout.read())
    child.stdout.close()
    try:
        while child.returncode is None:
            account.poll()
            for pid, ended in account.reap():
                assert pid != daemon
                if pid == child.pid:
                    child.returncode = os.waitstatus_to_exitcode(ended)
        usage = account.finish()
        truth = sum(said(tmp_path / "truth"))
        assert usage.still_running == (daemon,)
        assert usage.cpu_seconds_low * 0.97 - 0.03 <= truth <= usage.cpu_seconds_high * 1.03 + 0.03
        assert not list(Path("/sys/fs/cgroup").glob(f"**/lichen-{os.getpid()}-*")), (
            "a control group was left behind"
        )
    finally:
        os.kill(daemon, signal.SIGKILL)
        os.waitpid(daemon, 0)


def test_children_that_were_there_before_are_left_alone() -> None:
    stranger = subprocess.Popen(["sleep", "0"])
    time.sleep(0.05)
    account = TreeAccount(use_cgroup=False)
    account.prepare()
    child = subprocess.Popen([sys.executable, "-S", "-c", "pass"])
    account.started(child.pid)
    mine: list[int] = []
    while not mine:
        mine = [pid for pid, _ in account.reap()]
        time.sleep(POLL_SECONDS)
    child.returncode = 0
    usage = account.finish()
    assert mine == [child.pid]
    assert usage.process_count == 1
    assert stranger.wait() == 0  # its status is still there for whoever started it


def test_a_child_can_be_left_out_by_name() -> None:
    account = TreeAccount(use_cgroup=False)
    account.prepare()
    stranger = subprocess.Popen([sys.executable, "-S", "-c", "sum(range(3_000_000))"])
    account.ignore(stranger.pid)
    while os.waitid(os.P_PID, stranger.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        account.poll()
        assert account.reap() == []
        time.sleep(POLL_SECONDS)
    usage = account.finish()
    assert usage.cpu_seconds == 0
    assert stranger.wait() == 0


def test_a_parent_that_ignored_sigchld_still_learns_of_the_end(tmp_path: Path) -> None:
    """Started with SIGCHLD ignored, as some daemons start their children; the command inherits that as without us."""
    driver = tmp_path / "driver.py"
    driver.write_text(
        "import json, os, signal, subprocess, sys, time\n"
        "from lichen.energy.attribution import TreeAccount\n"
        "account = TreeAccount(use_cgroup=False)\n"
        "account.prepare()\n"
        "code = 'import signal, sys; sys.exit(7 if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN else 8)'\n"
        "child = subprocess.Popen([sys.executable, '-S', '-c', code], preexec_fn=account.child_setup())\n"
        "account.started(child.pid)\n"
        "ended = []\n"
        "while not ended:\n"
        "    ended = account.reap()\n"
        "    time.sleep(0.01)\n"
        "child.returncode = os.waitstatus_to_exitcode(ended[0][1])\n"
        "usage = account.finish()\n"
        "print(json.dumps([child.returncode, usage.cpu_seconds, signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN]))\n"
    )
    ran = subprocess.run(
        [sys.executable, driver],
        stdout=subprocess.PIPE,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    status, seconds, ignored_again = json.loads(ran.stdout)
    assert (status, ignored_again) == (7, True)
    assert seconds > 0


def test_eight_runs_at_once_keep_their_seconds_apart(tmp_path: Path) -> None:
    driver = (
        "import os, subprocess, sys, time\n"
        "from lichen.energy.attribution import TreeAccount\n"
        "account = TreeAccount()\n"
        "account.prepare()\n"
        "child = subprocess.Popen([sys.executable, '-S', *sys.argv[1:]], preexec_fn=account.child_setup())\n"
        "account.started(child.pid)\n"
        "while child.returncode is None:\n"
        "    account.poll()\n"
        "    for pid, ended in account.reap():\n"
        "        if pid == child.pid: child.returncode = 0\n"
        "    time.sleep(0.05)\n"
        "print(account.finish().cpu_seconds)\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", driver, TREES, "abandoned", tmp_path / f"truth-{place}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in range(8)
    ]
    for place, run in enumerate(runs):
        output, _ = run.communicate()
        truth = sum(said(tmp_path / f"truth-{place}"))
        assert truth * 0.98 <= float(output) <= truth * 1.03 + 0.03


def test_this_process_accounts_for_itself_and_its_children() -> None:
    account = SelfAccount()
    start = time.process_time()
    while time.process_time() - start < 0.1:
        pass
    subprocess.run(
        [sys.executable, "-S", "-c", "import time\nwhile time.process_time() < 0.1: pass"], check=True
    )
    usage = account.finish()
    assert usage.cpu_seconds >= 0.19
    assert usage.method == "self"
    assert usage.mean_rss_bytes is not None
    assert 0 < usage.mean_rss_bytes <= usage.peak_rss_bytes
