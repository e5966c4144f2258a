"""Damage, strangers, full disks and odd scripts: told with a remedy and a documented status, nothing lost or half-written."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lichen.cli.errors import exit_statuses

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.runs.conftest import Person

STATUSES = {status for status, _, _ in exit_statuses()}
TRAIN = ("--", "python", "train.py")
SCRIPT = "rows = open('data.csv').read()\nopen('model.out', 'w').write(rows * 2)\nprint('trained')\n"


@pytest.fixture
def person(person: Person) -> Person:
    person.write("train.py", SCRIPT)
    person.write("data.csv", "1,2\n")
    return person


def refused(person: Person, *words: str, expect: int) -> str:
    """A command that must end with a documented status and words that lead on."""
    assert expect in STATUSES
    person.type(*words, expect=expect)
    assert person.told.startswith("lichen: ")
    assert len(person.told.splitlines()) >= 2, f"no remedy in {person.told!r}"
    return person.told


def sound(person: Person) -> None:
    """The ledger holds, and nothing half-written lies about."""
    assert person.type("verify").startswith("holds:")
    assert not list(person.directory.glob(".?*.lichen"))
    assert not list((person.ledger / "cache").glob("runs/*"))


# metrics


def test_metrics_that_cannot_be_read_do_not_cost_the_record(person: Person) -> None:
    person.write("train.py", SCRIPT + "open('m.json', 'w').write('[' * 200_000)\n")
    person.type("run", "--metrics", "m.json", "--metric", r"word=(\w+)", *TRAIN)
    assert "nested too deep" in person.told
    assert "'trained' is no number" in person.told
    assert "recorded as entry" in person.told
    sound(person)


# data


@pytest.mark.parametrize("option", ["--data", "--code"])
def test_a_file_that_cannot_be_read_is_told_before_the_work(person: Person, option: str) -> None:
    path = person.write("locked/secret.csv", "x")
    path.chmod(0)
    person.without_privileges()
    assert "cannot be read" in refused(person, "run", option, "locked/secret.csv", *TRAIN, expect=2)
    assert not (person.directory / "model.out").exists()


def test_a_ledger_that_may_only_be_read_answers_and_what_is_new_waits(person: Person) -> None:
    person.run("python", "-c", "print(1)")
    person.without_privileges()
    (person.ledger / "ledger.sqlite").chmod(0o400)
    person.ledger.chmod(0o500)
    assert "run: python -c" in person.type("log")
    person.type("run", "--", "python", "-c", "print(1)")
    assert "answered from entry 2" in person.told
    person.type("run", "--", "python", "-c", "print(2)")
    assert "the record was not taken yet" in person.told
    person.ledger.chmod(0o700)
    (person.ledger / "ledger.sqlite").chmod(0o600)
    assert person.run("python", "-c", "print(3)")["record"] is not None
    assert person.type("log").count("run: python -c") == 3


def test_a_mark_that_cannot_be_raised_is_told(person: Person) -> None:
    person.without_privileges()
    (mark,) = (person.home / "high-water").iterdir()
    mark.chmod(0o400)
    person.run("python", "-c", "print(1)")
    assert f"warning: cannot write {mark}: Permission denied" in person.told
    assert "recorded as entry 2" in person.told


@pytest.mark.parametrize(
    "words",
    [("publish", "model", "folder"), ("verify", "folder"), ("run", "--metrics", "folder", *TRAIN), ("run", "--report", "folder", *TRAIN)],
)  # fmt: skip
def test_a_directory_where_a_file_is_meant_is_named(person: Person, words: tuple[str, ...]) -> None:
    (person.directory / "folder").mkdir()
    if "--metrics" in words:
        person.type(*words)
        assert "folder" in person.told
        assert person.output == "trained\n"
    else:
        assert "folder" in refused(person, *words, expect=2)


def test_a_circle_of_links_is_an_input_that_is_gone(person: Person) -> None:
    (person.directory / "loop").symlink_to("loop")
    person.write(
        "train.py",
        "import os\ntry:\n    open('loop')\nexcept OSError:\n    open('model.out', 'w').write('x')\n",
    )
    assert person.run(*TRAIN)["status"] == "trained"
    sound(person)


# the ledger


@pytest.mark.slow
def test_a_flipped_byte_anywhere_is_found_and_keeps_no_command_from_running(person: Person) -> None:
    person.run(*TRAIN)
    person.run("--rerun", *TRAIN)
    database = person.ledger / "ledger.sqlite"
    with sqlite3.connect(database) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = database.read_bytes()
    (payload,) = [place for place in [whole.find(b"urn:lichen:run:v1")] if place > 0]
    for place in (payload, len(whole) // 3):
        changed = bytearray(whole)
        changed[place] ^= 0x01
        database.write_bytes(changed)
        for rest in ("-wal", "-shm"):
            Path(f"{database}{rest}").unlink(missing_ok=True)
        (person.directory / "model.out").unlink(missing_ok=True)
        person.type("run", *TRAIN)
        assert person.output == "trained\n"
        assert (person.directory / "model.out").read_text() == "1,2\n1,2\n"
        if place == payload:
            person.type("verify", expect=3)
            assert "entry" in person.told + person.output


@pytest.mark.slow
def test_somebody_elses_key_in_ones_place_is_refused_before_the_work(person: Person) -> None:
    person.run(*TRAIN)
    (person.directory / "model.out").unlink()
    person.type("key", "make", "eve")
    keys = person.home / "keys"
    shutil.copy(keys / "eve.key", keys / "ada.key")
    (keys / "ada.key").chmod(0o600)
    told = refused(person, "run", *TRAIN, expect=5)
    assert "members." in told
    assert not (person.directory / "model.out").exists()


@pytest.mark.slow
def test_an_answer_by_somebody_not_trusted_is_offered_and_not_taken(person: Person, tmp_path: Path) -> None:
    bob = person.colleague(tmp_path / "bob" / "clinic", "bob")
    bob.run(*TRAIN)
    told = person.run(*TRAIN)
    assert (told["status"], told["author"]) == ("trained", "ada")
    assert "bob is not among those you trust" in person.told
    assert "lichen config add reuse.trust bob" in person.told


# outputs


@pytest.mark.slow
def test_others_outputs_land_on_declared_paths_only(person: Person, tmp_path: Path) -> None:
    bob = person.colleague(tmp_path / "bob" / "clinic", "bob")
    bob.run(*TRAIN)
    person.type("config", "set", "reuse.trust", "bob")
    undeclared = person.run(*TRAIN)
    assert undeclared["status"] == "trained"
    assert "not all it made is declared as output; to take it: --out model.out" in person.told


def test_a_run_that_writes_outside_is_not_reusable_until_that_is_declared(
    person: Person, tmp_path: Path
) -> None:
    target = tmp_path / "elsewhere" / "model.out"
    target.parent.mkdir()
    person.write("train.py", f"open({str(target)!r}, 'w').write('w')\n")
    assert person.run(*TRAIN)["reasons"][0]["code"] == "outside-roots"
    target.unlink()
    declared = ("--out", str(target), *TRAIN)
    assert person.run(*declared)["reusable"]
    target.unlink()
    assert person.run(*declared)["status"] == "hit"
    assert target.read_text() == "w"


@pytest.mark.slow
def test_an_input_overwritten_by_its_own_run_is_told_and_never_answered(person: Person) -> None:
    person.write("train.py", "rows = open('data.csv').read()\nopen('data.csv', 'w').write(rows + 'more')\n")
    for expected in ("1,2\nmore", "1,2\nmoremore"):
        told = person.run(*TRAIN)
        assert told["status"] == "trained"
        assert "read-then-written" in {reason["code"] for reason in told["reasons"]}
        assert person.read("data.csv") == expected


def test_a_file_changed_by_somebody_else_while_it_is_read_makes_no_answer(person: Person) -> None:
    person.write(
        "train.py",
        "import subprocess, time\nrows = open('data.csv').read()\nopen('ready.out', 'w').write('1')\ntime.sleep(1.5)\n",
    )
    process = person.start("run", "--report", str(person.ledger / "report.json"), *TRAIN)
    end = time.monotonic() + 60
    while not (person.directory / "ready.out").exists():
        assert time.monotonic() < end
        time.sleep(0.02)
    person.write("data.csv", "3,4\n")
    process.communicate(timeout=60)
    assert process.returncode == 0
    told = person.report
    assert [reason["code"] for reason in told["reasons"]] == ["inputs-changed"]
    assert "data.csv" in told["reasons"][0]["text"]


# the disk


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with two megabytes."""
    place = tmp_path / "tiny"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root mounts file systems")
    yield place
    subprocess.run(["umount", "-l", str(place)], capture_output=True, check=True)


@pytest.mark.slow
def test_a_full_disk_costs_the_record_and_not_the_work(person: Person, tiny_disk: Path) -> None:
    """The ledger lies on a disk with no room for the outputs."""
    ledger = tiny_disk / "ledger"
    person.type("init", str(ledger))
    person.variables["LICHEN_LEDGER"] = str(ledger)
    person.write(
        "train.py", "import os\nopen('model.out', 'wb').write(os.urandom(6_000_000))\nprint('trained')\n"
    )
    person.type("run", *TRAIN)
    assert person.output == "trained\n"
    assert (person.directory / "model.out").stat().st_size == 6_000_000
    assert "model.out could not be stored" in person.told or "warning: " in person.told
    assert not [
        path for path in (ledger / "store").rglob("*") if path.is_file() and path.stat().st_size > 2**21
    ]
    assert person.type("verify").startswith("holds:")


@pytest.mark.slow
def test_a_bound_on_file_sizes_costs_the_record_and_not_the_work(person: Person) -> None:
    person.write("train.py", "open('model.out', 'wb').write(b'x' * 900_000)\nprint('trained')\n")
    with sqlite3.connect(person.ledger / "ledger.sqlite") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()

    def bound() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    person.type("run", *TRAIN, preexec_fn=bound)
    assert person.output == "trained\n"
    assert (person.directory / "model.out").stat().st_size == 900_000
    sound(person)


@pytest.mark.slow
def test_a_record_that_cannot_be_written_waits_until_it_can(person: Person) -> None:
    store, held = person.ledger / "store", person.ledger / "store.away"
    person.run(*TRAIN)
    store.rename(held)
    store.write_text("in the way")
    told = person.run("--rerun", *TRAIN)
    assert (person.output, told["status"], told["record"]) == ("trained\n", "trained", None)
    assert told["spooled"]
    assert "waits in" in person.told
    person.run("--rerun", "--", "python", "-c", "pass")
    assert "go on waiting" in person.told
    assert Path(told["spooled"]).exists()
    store.unlink()
    held.rename(store)
    (person.directory / "model.out").unlink()
    assert person.run(*TRAIN)["status"] == "hit"
    assert not Path(told["spooled"]).exists()
    log = [json.loads(line) for line in person.type("log", "--json", "--kind", "run").splitlines()]
    assert len(log) == 3, "the first, and the two that waited"
    assert all(json.loads(person.type("show", str(entry["index"]), "--json"))["manifest"] for entry in log)
    sound(person)


# names, sizes, clocks


@pytest.mark.slow
def test_a_large_input_is_streamed(person: Person) -> None:
    size_bytes = 300_000_000
    with (person.directory / "data.csv").open("wb") as file:
        file.truncate(size_bytes)
    person.write("train.py", "import os\nopen('data.csv').close()\nopen('model.out', 'w').write('w')\n")
    watcher = (
        "import json, resource, subprocess, sys\n"
        "status = subprocess.run(sys.argv[2:]).returncode\n"
        "peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024\n"
        "open(sys.argv[1], 'w').write(str(peak))\n"
        "sys.exit(status)\n"
    )
    peak = person.ledger / "peak"
    words = [sys.executable, "-c", watcher, str(peak), sys.executable, "-m", "lichen", "run", *TRAIN]
    done = subprocess.run(
        words,
        cwd=person.directory,
        env=person.environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "reusable" in done.stderr
    assert int(peak.read_text()) < 150_000_000


def test_a_clock_that_goes_backwards_keeps_the_ledger_in_order(person: Person) -> None:
    """Seals never go back in time, whatever the machine says."""
    person.run(*TRAIN)
    shifted = person.write(
        "clock/sitecustomize.py",
        "import time\nreal = time.time_ns\ntime.time_ns = lambda: real() - 3_600_000_000_000\n"
        "time.time = lambda: real() / 1e9 - 3600\n",
    )
    person.variables["PYTHONPATH"] = str(shifted.parent)
    assert person.run("--rerun", *TRAIN)["record"] is not None
    del person.variables["PYTHONPATH"]
    assert person.run("--rerun", *TRAIN)["record"] is not None
    sound(person)


# processes


@pytest.mark.slow
def test_a_script_that_leaves_a_daemon_behind_ends_and_is_not_reusable(person: Person) -> None:
    person.write(
        "train.py",
        "import os, subprocess\nopen('model.out', 'w').write('w')\n"
        "started = subprocess.Popen(['sleep', '30'], start_new_session=True, stdout=subprocess.DEVNULL,"
        " stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)\nopen('pid.out', 'w').write(str(started.pid))\n",
    )
    started = time.monotonic()
    told = person.run(*TRAIN)
    os.kill(int(person.read("pid.out")), signal.SIGKILL)
    assert time.monotonic() - started < 25, "it waited for the daemon"
    assert told["status"] == "trained"
    assert any("running" in reason["code"] or "outlives" in reason["text"] for reason in told["reasons"])


@pytest.mark.slow
def test_a_thousand_children_are_one_run(person: Person) -> None:
    person.write(
        "train.py",
        "import os\nfor number in range(1000):\n    pid = os.fork()\n    if pid == 0:\n        os._exit(0)\n"
        "    os.waitpid(pid, 0)\nopen('model.out', 'w').write('w')\n",
    )
    told = person.run(*TRAIN)
    assert (told["status"], told["reusable"]) == ("trained", True), told["reasons"]
    assert told["energy_joules"] > 0
    assert person.run(*TRAIN)["status"] == "hit"


def start_slow(person: Person, seconds: float) -> subprocess.Popen[str]:
    """Start a run and wait until its command is at work."""
    person.write(
        "train.py",
        f"import time\nprint('up', flush=True)\ntime.sleep({seconds})\nopen('model.out', 'w').write('w')\n",
    )
    process = person.start("run", *TRAIN, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.slow
def test_after_kill_9_a_later_run_works(person: Person) -> None:
    process = start_slow(person, 2)
    process.kill()
    process.communicate(timeout=60)
    told = person.run("--wait", "20", *TRAIN)
    assert (told["status"], told["reusable"]) == ("trained", True), told["reasons"]
    assert person.run(*TRAIN)["status"] == "hit"
    assert person.type("verify").startswith("holds:")


@pytest.mark.slow
def test_an_interrupted_run_is_recorded_as_such_and_answers_nothing(person: Person) -> None:
    process = start_slow(person, 60)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    told: dict[str, Any] = json.loads(person.type("show", "--json"))
    assert (told["status"], told["reusable"]) == ("interrupted", False)
    person.write("train.py", SCRIPT)
    assert person.run(*TRAIN)["status"] == "trained"
    sound(person)


UNTIL_TOLD = """\
import os, signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
print(os.getpid(), flush=True)
signal.sigwait({signal.SIGUSR1})
open("model.out", "w").write("w")
"""


@pytest.mark.slow
def test_two_runs_of_the_same_work_at_once_train_once(person: Person) -> None:
    person.write("train.py", UNTIL_TOLD)
    first = person.start("run", *TRAIN)
    assert first.stdout is not None
    worker = int(first.stdout.readline())
    second = person.start("run", "--report", str(person.ledger / "second.json"), *TRAIN)
    assert second.stderr is not None
    told = ""
    while "equal work is in progress" not in told:
        line = second.stderr.readline()
        assert line, told
        told += line
    os.kill(worker, signal.SIGUSR1)
    assert "recorded as entry" in first.communicate(timeout=120)[1]
    assert "answered from entry" in second.communicate(timeout=120)[1]
    assert json.loads((person.ledger / "second.json").read_text())["status"] == "hit"


def test_a_reader_who_leaves_early_does_not_make_an_answer_run_again(person: Person) -> None:
    person.write("train.py", "open('model.out', 'w').write('w')\nprint('line\\n' * 200_000)\n")
    person.run(*TRAIN)
    (person.directory / "model.out").unlink()
    with person.start("run", *TRAIN, text=False) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        said = process.stderr.read().decode()  # type: ignore[attr-defined]
    assert "answered from entry" in said
    assert "bug in Lichen" not in said
    assert (person.directory / "model.out").exists()
