"""A command under supervision behaves as it does alone: pipes, statuses, signals, descriptors."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from lichen.errors import UsageError
from lichen.runs.process.signal_relay import RELAYED, withheld_signals
from lichen.runs.process.supervise import Outcome, supervise

DRIVER = str(Path(__file__).with_name("supervise_driver.py"))
PATIENCE_SECONDS = 30


def execute(words: Sequence[str], **given: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(words, check=False, timeout=PATIENCE_SECONDS, **given)


class Supervised:
    """Starts commands under the driver and reads its report."""

    def __init__(self, directory: Path) -> None:
        self.report_path = directory / "report.json"
        self.started: list[subprocess.Popen[bytes]] = []

    def words(self, *command: str, options: tuple[str, ...] = ()) -> list[str]:
        return [sys.executable, DRIVER, str(self.report_path), *options, "--", *command]

    def run(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        stdin: bytes | None = None,
        cwd: Path | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
        return execute(
            self.words(*command, options=options),
            capture_output=True,
            cwd=cwd,
            **given,
        )

    def start(self, *command: str, options: tuple[str, ...] = (), **given: object) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self.words(*command, options=options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            **given,
        )
        self.started.append(process)
        return process

    def close(self) -> None:
        for process in self.started:
            process.kill()
            process.communicate() if not process.stdout.closed else process.wait()
            process.stderr.close()

    def report(self) -> dict[str, Any]:
        return json.loads(self.report_path.read_text())


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    found = Supervised(tmp_path)
    yield found
    found.close()


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.005)


def wait_for_line(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == line + b"\n"


# --- output ------------------------------------------------------------------------------------------------------


def test_output_reaches_its_place_and_is_kept(supervised: Supervised) -> None:
    done = supervised.run("sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.returncode) == (b"out\n", b"err\n", 3)
    report = supervised.report()
    assert (report["stdout"], report["stderr"], report["exit_status"]) == ("out\n", "err\n", 3)
    assert not report["merged"]
    assert report["warnings"] == []


def test_every_byte_value_passes_unchanged(supervised: Supervised) -> None:
    done = supervised.run(
        sys.executable, "-c", "import sys; sys.stdout.buffer.write(bytes(range(256)) * 999)"
    )
    assert done.stdout == bytes(range(256)) * 999


def test_the_command_sees_no_terminal_where_there_is_none(supervised: Supervised) -> None:
    done = supervised.run(sys.executable, "-c", "import os; print([os.isatty(n) for n in range(3)])")
    assert done.stdout == b"[False, False, False]\n"


def test_a_chunk_is_passed_on_while_the_command_goes_on(supervised: Supervised, tmp_path: Path) -> None:
    script = f"printf started; while [ ! -e {tmp_path}/go ]; do sleep 0.01; done; printf ' ended'"
    process = supervised.start("sh", "-c", script)
    assert process.stdout is not None
    assert process.stdout.read(7) == b"started"
    (tmp_path / "go").touch()
    assert process.communicate(timeout=PATIENCE_SECONDS)[0] == b" ended"


def test_two_streams_into_one_place_keep_their_common_order(supervised: Supervised, tmp_path: Path) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done"
    with (tmp_path / "log").open("wb") as log:
        execute(supervised.words("sh", "-c", script), stdout=log, stderr=log)
    expected = "".join(f"o{i}\ne{i}\n" for i in range(1, 10))
    assert (tmp_path / "log").read_text() == expected
    report = supervised.report()
    assert report["merged"]
    assert (report["stdout"], report["stderr"]) == (expected, "")


def test_much_output_on_both_streams_neither_blocks_nor_is_lost(supervised: Supervised) -> None:
    size = 40_000_000
    done = supervised.run("sh", "-c", f"head -c {size} /dev/zero & head -c {size} /dev/zero >&2; wait")
    assert (len(done.stdout), len(done.stderr)) == (size, size)
    report = supervised.report()
    assert report["stdout_bytes"] == size
    assert report["truncated"]


def test_a_reader_that_reads_one_stream_after_the_other_gets_both(supervised: Supervised) -> None:
    # The first stream fills up while nobody reads it; the second must flow nevertheless.
    process = supervised.start("sh", "-c", "head -c 1000000 /dev/zero & head -c 1000000 /dev/zero >&2; wait")
    assert process.stdout is not None
    assert process.stderr is not None
    assert len(process.stderr.read(1_000_000)) == 1_000_000
    assert len(process.stdout.read()) == 1_000_000
    assert process.wait(PATIENCE_SECONDS) == 0


def test_a_reader_that_leaves_ends_the_writer_as_without_supervision(supervised: Supervised) -> None:
    process = supervised.start("yes")
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(PATIENCE_SECONDS) == -signal.SIGPIPE


def test_standard_output_on_a_full_device_fails_the_command(supervised: Supervised) -> None:
    with Path("/dev/full").open("wb") as full:
        done = execute(
            supervised.words("sh", "-c", "while echo x; do :; done 2>/dev/null; exit 9"),
            stdout=full,
            stderr=subprocess.PIPE,
        )
    assert done.returncode in {9, -signal.SIGPIPE}
    assert any("No space left" in warning for warning in supervised.report()["warnings"])


def test_closed_standard_output_stays_closed(supervised: Supervised) -> None:
    words = supervised.words(sys.executable, "-c", "import os, sys; os.fstat(2); os.fstat(1)")
    script = 'exec "$@" >&-'
    done = execute(["sh", "-c", script, "sh", *words], stderr=subprocess.PIPE)
    assert b"Bad file descriptor" in done.stderr
    assert done.returncode == 1


def test_a_background_process_that_holds_the_streams_is_not_waited_for(supervised: Supervised) -> None:
    started = time.monotonic()
    done = supervised.run("sh", "-c", "sleep 60 & echo $!")
    os.kill(int(done.stdout), signal.SIGKILL)
    assert done.returncode == 0
    assert time.monotonic() - started < PATIENCE_SECONDS / 2


def test_a_background_process_that_never_stops_writing_is_not_waited_for(supervised: Supervised) -> None:
    done = supervised.run("sh", "-c", "while echo y; do sleep 0.01; done & echo last >&2")
    assert done.stderr == b"last\n"
    assert done.returncode == 0


def test_what_a_background_process_writes_right_after_the_end_is_passed_on(supervised: Supervised) -> None:
    done = supervised.run("sh", "-c", "(sleep 0.1; echo late) & echo early")
    assert done.stdout == b"early\nlate\n"


def test_output_of_the_command_is_kept_for_a_slow_reader(supervised: Supervised, tmp_path: Path) -> None:
    script = f"head -c 130000 /dev/zero; touch {tmp_path}/written; sleep 60 & exit 0"
    process = supervised.start("sh", "-c", script)
    wait_until((tmp_path / "written").exists, "all is written")
    time.sleep(0.8)  # longer than the patience with what the command leaves behind
    assert process.stdout is not None
    assert len(process.stdout.read()) == 130_000
    assert process.wait(PATIENCE_SECONDS) == 0


# --- start -------------------------------------------------------------------------------------------------------


def make_file(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("kind", "status", "message"),
    [
        ("missing name", 127, "command not found"),
        ("missing path", 127, "No such file or directory"),
        ("not executable", 126, "Permission denied"),
        ("directory", 126, "Is a directory"),
        ("missing interpreter", 126, "bad interpreter"),
        ("binary", 126, "cannot execute binary file"),
        ("file as directory", 127, "Not a directory"),
    ],
)
def test_a_command_that_cannot_start_ends_as_in_a_shell(
    supervised: Supervised, tmp_path: Path, kind: str, status: int, message: str
) -> None:
    command = {
        "missing name": "no-such-command-here",
        "missing path": str(tmp_path / "missing"),
        "not executable": make_file(tmp_path / "plain", "#!/bin/sh\n", 0o644),
        "directory": str(tmp_path),
        "missing interpreter": make_file(tmp_path / "lost", "#!/no/such/interpreter\n"),
        "binary": make_file(tmp_path / "binary", "\x7fBAD\0\0\0"),
        "file as directory": make_file(tmp_path / "file", "") + "/below",
    }[kind]
    done = supervised.run(command, "argument")
    assert done.returncode == status
    assert f"{command}: ".encode() in done.stderr
    assert message.encode() in done.stderr


def test_a_script_without_interpreter_line_is_given_to_the_shell(
    supervised: Supervised, tmp_path: Path
) -> None:
    done = supervised.run(make_file(tmp_path / "script", "echo $1\n"), "word")
    assert (done.stdout, done.returncode) == (b"word\n", 0)


def test_the_search_path_is_that_of_the_command(tmp_path: Path) -> None:
    make_file(tmp_path / "only-here", "#!/bin/sh\nexit 5\n")
    assert supervise(["only-here"], environment={"PATH": f"/nowhere:{tmp_path}"}).exit_status == 5
    assert supervise(["only-here"], environment={"PATH": "/nowhere"}).exit_status == 127


def test_the_working_directory_is_the_one_asked_for(tmp_path: Path) -> None:
    outcome = supervise(["pwd"], directory=tmp_path)
    assert outcome.stdout_capture.read_bytes() == f"{tmp_path}\n".encode()


def test_a_working_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="missing"):
        supervise(["true"], directory=tmp_path / "missing")


@pytest.mark.parametrize("command", [[], ["tr\0ue"]])
def test_a_command_that_cannot_be_one_is_refused(command: list[str]) -> None:
    with pytest.raises(UsageError):
        supervise(command)


def test_inherited_descriptors_reach_the_command(supervised: Supervised) -> None:
    words = supervised.words("cat", "/dev/fd/9")
    script = 'exec 9<<END\nfrom afar\nEND\nexec "$@"'
    done = execute(["bash", "-c", script, "bash", *words], capture_output=True)
    assert done.stdout == b"from afar\n"


def test_no_descriptor_of_ours_reaches_the_command(supervised: Supervised) -> None:
    alone = execute(["ls", "/proc/self/fd"], capture_output=True, stdin=subprocess.DEVNULL).stdout
    assert supervised.run("ls", "/proc/self/fd", options=("--account",)).stdout == alone


def test_signal_dispositions_and_mask_are_those_of_a_plain_start(supervised: Supervised) -> None:
    # By its full path, as the supervisor is: Python starts the two the same way only then.
    grep = shutil.which("grep")
    assert grep is not None
    command = (grep, "-E", "^Sig(Blk|Ign|Cgt)", "/proc/self/status")
    alone = execute(command, capture_output=True).stdout
    assert supervised.run(*command).stdout == alone


# --- end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 2, 42, 255])
def test_exit_statuses_are_kept(supervised: Supervised, status: int) -> None:
    assert supervised.run("sh", "-c", f"exit {status}").returncode == status


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT])
def test_a_command_ended_by_a_signal_is_reported_as_a_shell_does(supervised: Supervised, number: int) -> None:
    done = supervised.run("sh", "-c", f"kill -{int(number)} $$")
    assert done.returncode == -number
    report = supervised.report()
    assert (report["exit_status"], report["signal"]) == (128 + number, number)
    assert report["interrupted"] == (number == signal.SIGTERM)


# --- signals -----------------------------------------------------------------------------------------------------

COUNTER = """
import signal, sys, time
counts = {}
def count(number, frame):
    counts[number] = counts.get(number, 0) + 1
    print(signal.Signals(number).name, flush=True)
for name in sys.argv[1].split(","):
    signal.signal(getattr(signal, name), count)
print("ready", flush=True)
while sum(counts.values()) < int(sys.argv[2]):
    time.sleep(0.01)  # not pause(): a signal just before it would be missed
end = time.monotonic() + 0.15
while time.monotonic() < end:
    time.sleep(0.05)
sys.exit(10 + max(counts.values()))
"""


@pytest.mark.parametrize(
    "name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGWINCH", "SIGTSTP"]
)
def test_a_signal_to_the_supervisor_reaches_the_command_once(supervised: Supervised, name: str) -> None:
    process = supervised.start(sys.executable, "-c", COUNTER, name, "1", start_new_session=True)
    wait_for_line(process, b"ready")
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=PATIENCE_SECONDS)[0] == f"{name}\n".encode()
    assert process.returncode == 11
    assert supervised.report()["interrupted"] == (name in {"SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"})


def test_a_signal_in_a_process_with_more_threads_reaches_the_command(tmp_path: Path) -> None:
    result: list[Outcome] = []
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    before = signal.getsignal(signal.SIGUSR1)
    result.append(supervise(["sh", "-c", "trap 'exit 17' USR1; while :; do sleep 0.02; done"]))
    timer.join()
    assert result[0].exit_status == 17
    assert signal.getsignal(signal.SIGUSR1) is before


def test_threads_started_while_signals_are_withheld_never_get_one() -> None:
    masks: list[set[int]] = []
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with withheld_signals():
        thread = threading.Thread(target=lambda: masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ())))
        thread.start()
    thread.join()
    assert set(RELAYED) <= masks[0]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def test_an_ignored_hangup_stays_ignored(supervised: Supervised) -> None:
    script = f"trap '' HUP; exec {sys.executable} \"$@\""
    words = supervised.words("sh", "-c", "kill -HUP $$; echo alive; grep SigIgn /proc/self/status")
    done = execute(["sh", "-c", script, "sh", *words[1:]], capture_output=True)
    first, second = done.stdout.splitlines()
    assert first == b"alive"
    assert int(second.split()[1], 16) & 1


def test_a_command_that_signals_its_whole_group_is_not_signalled_back(supervised: Supervised) -> None:
    script = "trap 'echo got' TERM; kill -TERM 0; sleep 0.3; exit 4"
    process = supervised.start("bash", "-c", script, start_new_session=True)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert (out, process.returncode) == (b"got\n", 4)
    assert not supervised.report()["interrupted"]


def test_the_mask_and_the_handlers_are_put_back() -> None:
    before = (signal.pthread_sigmask(signal.SIG_BLOCK, ()), [signal.getsignal(n) for n in range(1, 32)])
    supervise(["true"])
    after = (signal.pthread_sigmask(signal.SIG_BLOCK, ()), [signal.getsignal(n) for n in range(1, 32)])
    assert after == before


def test_nothing_is_left_open_or_running() -> None:
    def left() -> tuple[int, int]:
        return len(list(Path("/proc/self/fd").iterdir())), threading.active_count()

    supervise(["true"]).close()  # what is imported and opened once
    before = left()
    for command in (["true"], ["sh", "-c", "echo x; echo y >&2; exit 1"], ["no-such-command-here"]):
        supervise(command, account=PlainAccount()).close()
    with pytest.raises(UsageError):
        supervise([])
    assert left() == before


def test_supervision_works_beside_the_main_thread() -> None:
    result: list[Outcome] = []
    thread = threading.Thread(target=lambda: result.append(supervise(["sh", "-c", "exit 6"])))
    thread.start()
    thread.join(PATIENCE_SECONDS)
    assert result[0].exit_status == 6


def test_the_command_outlives_a_supervisor_that_is_killed(supervised: Supervised, tmp_path: Path) -> None:
    script = f"echo ready; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo done > {tmp_path}/done"
    process = supervised.start("sh", "-c", script)
    wait_for_line(process, b"ready")
    process.kill()
    process.communicate()
    (tmp_path / "go").touch()
    wait_until((tmp_path / "done").exists, "the command has finished alone")


# --- standard input ----------------------------------------------------------------------------------------------


def test_piped_input_is_passed_on_and_hashed(supervised: Supervised) -> None:
    data = os.urandom(300_000)
    done = supervised.run("cat", stdin=data)
    assert done.stdout == data
    report = supervised.report()
    assert (report["stdin_kind"], report["stdin_bytes"], report["stdin_complete"]) == (
        "pipe",
        len(data),
        True,
    )
    assert report["stdin_sha256"] == hashlib.sha256(data).hexdigest()


def test_a_command_that_stops_reading_leaves_an_incomplete_input(supervised: Supervised) -> None:
    done = supervised.run("head", "-c", "5", stdin=b"x" * 3_000_000)
    assert done.stdout == b"xxxxx"
    report = supervised.report()
    assert not report["stdin_complete"]
    assert report["stdin_bytes"] < 3_000_000


def test_an_open_pipe_that_nobody_writes_to_does_not_keep_us(supervised: Supervised) -> None:
    words = supervised.words("true")
    process = subprocess.Popen(words, stdin=subprocess.PIPE)
    assert process.wait(PATIENCE_SECONDS) == 0
    assert process.stdin is not None
    process.stdin.close()


def test_a_file_as_input_is_inherited_and_named(supervised: Supervised, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"one\ntwo\n")
    with (tmp_path / "data").open("rb") as file:
        execute(supervised.words("sh", "-c", "read line"), stdin=file)
        assert (
            os.lseek(file.fileno(), 0, os.SEEK_CUR) == 4
        )  # the shell reads by byte, and shares our position
    report = supervised.report()
    assert (report["stdin_kind"], report["stdin_path"]) == ("file", str(tmp_path / "data"))


def test_a_descriptor_can_be_given_as_input(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"given")
    with (tmp_path / "data").open("rb") as file:
        outcome = supervise(["cat"], stdin=file.fileno())
    assert outcome.stdout_capture.read_bytes() == b"given"


def test_inherited_input_is_left_alone(supervised: Supervised) -> None:
    done = supervised.run("cat", options=("--stdin", "inherit"), stdin=b"whole")
    assert done.stdout == b"whole"
    assert supervised.report()["stdin_sha256"] is None


# --- account and tracer ------------------------------------------------------------------------------------------


class PlainAccount:
    """The smallest thing that implements the port: it counts children of this process and nothing else."""

    def __init__(self, failing: str = "") -> None:
        self.failing = failing
        self.calls: list[str] = []
        self._pids: set[int] = set()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.failing:
            raise RuntimeError(f"{name} does not work")

    def prepare(self) -> None:
        self._call("prepare")

    def child_setup(self) -> Callable[[], object] | None:
        self._call("child_setup")
        return self.in_child if self.failing == "in_child" else None

    def in_child(self) -> None:
        raise RuntimeError("in the child")

    def started(self, pid: int) -> None:
        self._pids.add(pid)
        self._call("started")

    def poll(self) -> None:
        self._call("poll")

    def reap(self) -> list[tuple[int, int]]:
        self._call("reap")
        found = []
        for pid in tuple(self._pids):  # and nobody else's children: the tests' runner has some of its own
            ended = os.waitpid(pid, os.WNOHANG)
            if ended[0]:
                self._pids.discard(pid)
                found.append(ended)
        return found

    def finish(self) -> str:
        self._call("finish")
        return "usage"


class PlainTracer:
    def __init__(self, fails: bool = False) -> None:
        self.fails = fails
        self.count = 0

    def poll(self) -> None:
        self.count += 1
        if self.fails:
            raise OSError("no watches left")


def test_account_and_tracer_are_asked_in_order() -> None:
    account, tracer = PlainAccount(), PlainTracer()
    outcome = supervise(["sh", "-c", "sleep 0.3; exit 8"], account=account, tracer=tracer)
    assert outcome.exit_status == 8
    assert str(outcome.usage) == "usage"
    assert outcome.warnings == ()
    assert account.calls[:3] == ["prepare", "child_setup", "started"]
    assert account.calls[-1] == "finish"
    assert account.calls.count("poll") >= 3
    assert tracer.count >= 3


@pytest.mark.parametrize(
    "failing", ["prepare", "child_setup", "in_child", "started", "poll", "reap", "finish"]
)
def test_a_failing_meter_changes_nothing_but_the_warnings(failing: str) -> None:
    outcome = supervise(["sh", "-c", "echo fine; sleep 0.1; exit 8"], account=PlainAccount(failing))
    assert outcome.exit_status == 8
    assert outcome.stdout_capture.read_bytes() == b"fine\n"
    assert [failing in warning for warning in outcome.warnings] == ([] if failing == "in_child" else [True])


def test_a_failing_tracer_changes_nothing_but_the_warnings() -> None:
    tracer = PlainTracer(fails=True)
    outcome = supervise(["true"], tracer=tracer)
    assert outcome.exit_status == 0
    assert tracer.count == 1
    assert "no watches left" in outcome.warnings[0]


def test_a_thousand_children_leave_no_zombie(supervised: Supervised) -> None:
    script = "i=0; while [ $i -lt 1000 ]; do /bin/true & i=$((i+1)); done; wait"
    assert supervised.run("sh", "-c", script, options=("--account",)).returncode == 0
    report = supervised.report()
    assert report["children_left"] == []
    assert report["warnings"] == []


def test_orphans_are_collected_and_a_daemon_is_left_running(supervised: Supervised, tmp_path: Path) -> None:
    script = (
        f"(setsid sleep 60 </dev/null >/dev/null 2>&1 & echo $! > {tmp_path}/pid); (setsid true &); sleep 0.3"
    )
    assert supervised.run("sh", "-c", script, options=("--account",)).returncode == 0
    daemon = int((tmp_path / "pid").read_text())
    os.kill(daemon, signal.SIGKILL)  # raises when it is not running
    assert [child for child in supervised.report()["children_left"] if child.startswith("Z")] == []
