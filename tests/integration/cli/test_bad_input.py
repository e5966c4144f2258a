"""Whatever is wrong is told by name, with what to do, a documented status and no traceback; nothing is lost or half-written."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from lichen.cli.errors import exit_statuses
from lichen.cli.table import table

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Terminal

STATUSES = {status for status, _, _ in exit_statuses()}
TRAIN = ("python", "train.py")


def complaint(terminal: Terminal, *words: str, expect: int) -> str:
    """Type a command that must fail in a documented way; return what it says, which names a remedy."""
    done = terminal.type(*words, expect=expect)
    assert expect in STATUSES
    lines = done.stderr.splitlines()
    assert lines, "it says nothing"
    assert lines[0].startswith("lichen: ")
    assert done.stdout == ""
    return done.stderr


@pytest.mark.parametrize(
    ("words", "expect", "told"),
    [
        (["run", "--data", "missing.csv", "--", *TRAIN], 2, "--data missing.csv: there is no such file"),
        (["run", "--code", "missing.py", "--", *TRAIN], 2, "--code missing.py"),
        (["run", "--param", "depth", "--", *TRAIN], 2, "NAME=VALUE"),
        (["run", "--target", "accuracy", "--", *TRAIN], 2, "NAME=NUMBER"),
        (["run", "--metric", "accuracy=(", "--", *TRAIN], 2, "not a regular expression"),
        (["run", "--seed", "nonsense", "--", *TRAIN], 2, "no such option"),
        (["run", "--trace", "magic", "--", *TRAIN], 2, "magic"),
        (["run", "--zone", "Atlantis", "--", *TRAIN], 4, "Atlantis"),
        (["config", "set", "energy.zone", "Atlantis"], 4, "Atlantis"),
        (["run", "--report", "missing/report.json", "--", *TRAIN], 2, "cannot be written"),
        (["run", "--report", ".", "--", *TRAIN], 2, "is a directory"),
        (["run", "--report", "measurements.csv", "--", *TRAIN], 2, "holds something that is no report"),
        (["run", "--", ""], 2, "the name of the command is empty"),
        (["run", "--ledger", "nowhere", "--", *TRAIN], 2, "nowhere"),
        (["publish", "data", "missing.csv"], 2, "missing.csv"),
        (["publish", "model", "measurements.csv", "--metric", "accuracy=good"], 2, "NAME=NUMBER"),
        (["publish", "model", "measurements.csv", "--energy", "12"], 2, "has no unit"),
        (["publish", "evaluation", "99", "--metric", "accuracy=1"], 4, "no entry 99"),
        (["find", "--metric", "accuracy=>0.9"], 2, "--metric"),
        (["find", "--data", "missing.csv"], 4, "missing.csv"),
        (["find", "--file", "missing.pkl"], 4, "missing.pkl"),
        (["find", "--fingerprint", "xyz"], 2, "eight hexadecimal digits"),
        (["find", "--order", "metric"], 2, "--metric"),
        (["show", "99"], 4, "no entry 99: the ledger has"),
        (["show", "nonsense"], 4, "nonsense"),
        (["show"], 4, "no run is on record yet"),
        (["get", "nonsense"], 4, "nonsense"),
        (["get", "0"], 2, "no artefact"),
        (["flag", "0", "--error", "x" * 501], 2, "500 characters"),
        (["withdraw", "0"], 5, "registry."),
        (["verify", "missing.receipt"], 4, "missing.receipt does not exist"),
        (["verify", "."], 2, "is a directory"),
        (["verify", "measurements.csv"], 3, "measurements.csv: not a receipt"),
        (["find", "--file", "."], 4, "a directory is looked for by --data"),
        (["report"], 4, "no run is on record"),
        (["init"], 2, "holds a ledger already"),
        (["init", "--member", "bad member!", "elsewhere"], 3, "not a member id"),
        (["init", "--fork-from", "nowhere", "elsewhere"], 2, "nowhere"),
        (["key", "admit", "bob", "did:key:nonsense"], 2, "not a public key"),
        (["key", "show", "bob"], 2, "bob.key"),
        (["config", "set", "reuse.agree", "many"], 2, "whole number"),
        (["config", "get", "reuse.trust"], 4, "is not set"),
        (["help", "nonsense"], 4, "nonsense"),
        (["experiment", "nonsense"], 4, "nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_what_cannot_be_is_explained(
    shared: Terminal, words: list[str], expect: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared.directory)
    for name in ("LICHEN_HOME", "LICHEN_MEMBER"):
        monkeypatch.setenv(name, shared.environment[name])
    done = CliRunner().invoke(table, words)  # none of these comes as far as to start a command
    assert done.exit_code == expect, done.stderr
    assert expect in STATUSES
    assert done.stderr.startswith("lichen: ")
    assert told in done.stderr
    assert done.stdout == ""
    assert not (shared.directory / "model.pkl").exists(), "the command ran all the same"
    assert not (shared.directory / "elsewhere").exists()


def truncate(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def make_newer(database: Path) -> None:
    with sqlite3.connect(database) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute(f"PRAGMA user_version = {version + 1}")
    connection.close()


@pytest.mark.parametrize(
    ("damage", "word"),
    [(truncate, "ledger.sqlite"), (make_newer, "newer")],
    ids=["truncated", "newer-format"],
)
def test_a_ledger_in_no_state_to_be_used_is_told_and_the_command_runs(
    terminal: Terminal, damage: Callable[[Path], None], word: str
) -> None:
    terminal.type("run", "--", *TRAIN)
    (terminal.directory / "model.pkl").unlink()
    damage(terminal.directory / ".lichen" / "ledger.sqlite")
    done = terminal.type("run", "--report", "report.json", "--", *TRAIN)
    assert done.stdout == "acc: 0.910 on 50 rows\n"
    assert "warning: this run is neither answered nor recorded" in done.stderr
    assert word in done.stderr
    assert (terminal.directory / "model.pkl").exists()
    told = json.loads((terminal.directory / "report.json").read_text())
    assert (told["status"], told["record"], told["reusable"]) == ("trained", None, False)
    assert word in complaint(terminal, "log", expect=3)


def test_a_file_that_is_no_ledger_is_named(terminal: Terminal) -> None:
    (terminal.directory / ".lichen" / "ledger.sqlite").write_text("not a database\n" * 100)
    assert "is not a Lichen ledger" in complaint(terminal, "log", expect=2)
    assert "ledger.sqlite" in complaint(terminal, "run", "--", *TRAIN, expect=2)


def test_an_old_backup_is_recognised_and_a_fork_is_offered(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type("run", "--", *TRAIN)
    backup = tmp_path / "backup"
    shutil.copytree(terminal.directory / ".lichen", backup)
    terminal.type("run", "--", *TRAIN, "--depth", "7")
    shutil.rmtree(terminal.directory / ".lichen")
    shutil.copytree(backup, terminal.directory / ".lichen")
    done = terminal.type("run", "--", *TRAIN, "--depth", "8")
    assert "--fork-from" in done.stderr
    assert done.stdout == "acc: 1.010 on 50 rows\n"
    said = complaint(terminal, "withdraw", "2", expect=3)
    offered = shlex.split(said.split("`")[1])
    assert offered[:3] == ["lichen", "init", "--fork-from"]
    terminal.type(*offered[1:])
    forked = ("--ledger", offered[-1])
    assert terminal.type("verify", *forked).stdout.startswith("holds:")
    assert "recorded as entry" in terminal.type("run", *forked, "--", *TRAIN).stderr
    assert "answered from entry" in terminal.type("run", *forked, "--", *TRAIN).stderr


SIGNALLED_WHILE_RECORDING = """
import signal, sys
from lichen.cli.main import main
from lichen.cli.narrator import TerminalNarrator

number = int(sys.argv.pop())
TerminalNarrator.record_shown = lambda self, text: signal.raise_signal(number)
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_signal_after_the_work_waits_for_the_record(terminal: Terminal, number: int) -> None:
    command = (sys.executable, "-c", SIGNALLED_WHILE_RECORDING, "run", "--show-record", "--", *TRAIN)
    done = subprocess.run(
        [*command, "--seed", "2", str(int(number))],
        cwd=terminal.directory, env=terminal.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "once more gives that up" in done.stderr
    assert "recorded as entry" in done.stderr
    assert done.returncode == -number
    assert "train.py" in terminal.type("log").stdout


def test_a_key_that_others_can_read_stops_before_the_work(terminal: Terminal) -> None:
    key = terminal.home / "keys" / "ada.key"
    key.chmod(0o644)
    said = complaint(terminal, "run", "--", *TRAIN, expect=2)
    assert f"chmod 600 {key}" in said
    assert not (terminal.directory / "model.pkl").exists()
    key.chmod(0o600)
    key.write_text("nonsense\n")
    assert "not a Lichen key file" in complaint(terminal, "run", "--", *TRAIN, expect=2)
    key.unlink()
    assert str(key) in complaint(terminal, "run", "--", *TRAIN, expect=2)


def test_a_private_ledger_without_its_group_key_stops_before_the_work(terminal: Terminal) -> None:
    (terminal.directory / ".lichen" / "group.key").unlink()
    assert "group.key is missing" in complaint(terminal, "run", "--", *TRAIN, expect=2)
    assert not (terminal.directory / "model.pkl").exists()


def test_a_declared_output_that_was_not_made_is_told(terminal: Terminal) -> None:
    done = terminal.type("run", "--out", "never.txt", "--", *TRAIN)
    assert "not reusable: declared-output-missing" in done.stderr


def test_an_input_changed_meanwhile_is_told(terminal: Terminal) -> None:
    script = "rows = open('measurements.csv').read()\nopen('measurements.csv', 'a').write('more')\n"
    done = terminal.type("run", "--", "python", "-c", script)
    assert "not reusable" in done.stderr
    assert "measurements.csv" in done.stderr


def test_undecodable_names_are_made_visible(terminal: Terminal) -> None:
    name = os.fsdecode(b"donn\xe9es.csv")
    shutil.copy(terminal.directory / "measurements.csv", terminal.directory / name)
    done = terminal.type("run", "--", "python", "-c", f"open({name!r}).read(); open('out', 'w').write('x')")
    assert "reusable" in done.stderr
    assert "donn%E9es.csv" in terminal.type("show").stdout
    assert "there is no such file" in complaint(terminal, "run", "--data", name + "x", "--", *TRAIN, expect=2)


def test_a_circle_of_links_is_told(terminal: Terminal) -> None:
    (terminal.directory / "loop").symlink_to("loop")
    said = complaint(terminal, "publish", "data", "loop", expect=2)
    assert "loop" in said


def test_terminal_escapes_in_recorded_output_reach_no_terminal(terminal: Terminal) -> None:
    script = r"print('\x1b]0;owned\x07\x1b[31mred\x1b[0m text'); open('out', 'w').write('x')"
    words = ("run", "--", "python", "-c", script)
    assert "\x1b]0;owned" in terminal.type(*words).stdout  # the command's own doing, untouched
    replayed = terminal.type(*words).stdout
    assert "\x1b]0" not in replayed
    assert "text" in replayed
    assert "\x1b" not in terminal.type("show").stdout


def test_a_store_that_cannot_be_written_loses_nothing(terminal: Terminal) -> None:
    if os.geteuid() == 0:
        store = terminal.directory / ".lichen" / "store"
        if store.exists():
            shutil.rmtree(store)
        store.write_text("a file where the store should be")
    else:
        (terminal.directory / ".lichen" / "store").chmod(0o500)
    done = terminal.type("run", "--", *TRAIN)
    assert done.stdout == "acc: 0.910 on 50 rows\n"
    assert (terminal.directory / "model.pkl").exists()
    assert "warning: " in done.stderr


@pytest.mark.parametrize("closed", [">&-", "<&-", "<&- >&-", "2>&-"])
def test_a_stream_that_is_closed_stays_closed_and_costs_nothing(terminal: Terminal, closed: str) -> None:
    look = "import sys; open('seen', 'w').write(repr([each is None for each in (sys.stdin, sys.stdout, sys.stderr)]))"
    words = (sys.executable, "-m", "lichen", "run", "--", "python", "-c", look)
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *words],
        cwd=terminal.directory, env=terminal.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    are_closed = [sign in closed for sign in ("<&-", ">&-", "2>&-")]
    are_closed[1] &= closed != "2>&-"
    assert (terminal.directory / "seen").read_text() == repr(are_closed)
    assert terminal.type("log", "--json").stdout.count('"kind":"run"') == 1


def test_an_answer_whose_output_nobody_can_write_stands(terminal: Terminal) -> None:
    terminal.type("run", "--", *TRAIN)
    with open("/dev/full", "wb") as full:  # noqa: PTH123 - a device
        done = subprocess.run(
            [sys.executable, "-m", "lichen", "run", "--", *TRAIN],
            cwd=terminal.directory, env=terminal.environment, stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert "stdout could not be written: No space left on device" in done.stderr
    assert "answered from entry 2" in done.stderr
    assert done.returncode == 0


def test_a_working_directory_that_is_gone_is_told(terminal: Terminal) -> None:
    script = 'mkdir gone && cd gone && rmdir ../gone && exec "$@"'
    done = subprocess.run(
        ["sh", "-c", script, "sh", sys.executable, "-c", "from lichen.cli.main import main; main()", "log"],
        cwd=terminal.directory, env=terminal.environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("lichen: the working directory is gone\n")


def test_implausible_claims_are_refused_with_the_rule(terminal: Terminal) -> None:
    said = complaint(
        terminal, "publish", "model", "measurements.csv", "--energy", "5 TJ", "--duration", "1 s", expect=5
    )
    assert "plausibility." in said
    assert "--force" in said


def test_a_hit_keeps_what_it_takes_the_place_of(terminal: Terminal) -> None:
    terminal.type("run", "--", *TRAIN)
    (terminal.directory / "model.pkl").write_text("precious, and nowhere else")
    done = terminal.type("run", "--", *TRAIN)
    (kept,) = [line for line in done.stderr.splitlines() if "lichen get " in line]
    terminal.type("get", kept.rpartition(" ")[2], "--output", "kept.txt")
    assert (terminal.directory / "kept.txt").read_text() == "precious, and nowhere else"


def test_mistakes_leave_the_ledger_as_it_was(shared: Terminal) -> None:
    assert json.loads(shared.type("verify", "--json").stdout)["size"] == 2
