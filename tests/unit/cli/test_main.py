"""The table of commands is true, quick to show, and every way out of `lichen` has a status and a message."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from lichen import __version__
from lichen.cli.front_page import GROUPS, front_page
from lichen.cli.main import main
from lichen.cli.table import table

COMMANDS = {name: what for commands in GROUPS.values() for name, (_, what) in commands.items()}
HEAVY = ("cryptography", "sqlite3", "asyncio", "subprocess", "lichen.runs", "lichen.ledger")


def run(*words: str) -> Result:
    return CliRunner().invoke(table, list(words))


def load(name: str) -> click.Command:
    command = table.get_command(click.Context(table), name)
    assert command is not None
    return command


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says_of_itself(name: str) -> None:
    assert (load(name).help or "").split("\n")[0] == COMMANDS[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_called_what_the_table_calls_it(name: str) -> None:
    assert load(name).name == name


def test_help_shows_every_command_in_its_group() -> None:
    shown = run("--help").output
    places = [shown.index(f"{title}:") for title in GROUPS]
    assert places == sorted(places)
    for name, what in COMMANDS.items():
        assert f"{name} " in shown
        assert what in shown


def modules_loaded_by(words: list[str]) -> set[str]:
    code = (
        "import sys\nfrom lichen.cli.main import main\n"
        f"try:\n    main({words!r})\nfinally:\n    print(*sys.modules, sep='\\n', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


@pytest.mark.parametrize("words", [["--help"], ["-h"], [], ["--version"]], ids=" ".join)
def test_the_front_page_imports_nothing(words: list[str]) -> None:
    own = {name for name in modules_loaded_by(words) if name.startswith("lichen.")}
    assert own <= {"lichen.cli", "lichen.cli.main", "lichen.cli.front_page"}
    assert not modules_loaded_by(words) & {"click", "re", "typing"}


def test_a_command_loads_itself_alone_and_nothing_heavy() -> None:
    loaded = modules_loaded_by(["help", "references"])
    assert "lichen.cli.topics" in loaded
    assert not loaded & set(HEAVY)
    commands = {f"lichen.cli.{module}" for group in GROUPS.values() for module, _ in group.values()}
    assert loaded & commands == {"lichen.cli.topics"}


def test_the_front_page_is_the_help_and_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert shown == front_page() == run("--help").output
    assert shown.isascii()
    assert max(map(len, shown.splitlines())) <= 82


def test_a_front_page_nobody_reads_is_no_error() -> None:
    command = f"set -o pipefail; {sys.executable} -m lichen | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 141)
    assert done.stderr == ""


def test_no_arguments_show_the_help() -> None:
    done = run()
    assert done.exit_code == 0
    assert "Blockchain for AI:" in done.output


@pytest.mark.parametrize("group", [name for name in COMMANDS if isinstance(load(name), click.Group)])
def test_a_family_without_a_member_shows_its_help(group: str) -> None:
    done = run(group)
    assert done.exit_code == 0
    assert "Commands:" in done.output


def test_version() -> None:
    assert run("--version").output == f"lichen {__version__}\n"


@pytest.mark.parametrize(
    ("words", "message", "remedy"),
    [
        (["rnu"], "there is no command 'rnu'", "Did you mean `lichen run`?"),
        (["zzzzzz"], "there is no command 'zzzzzz'", "`lichen --help`"),
        (["./train.py"], "there is no command './train.py'", "lichen run -- ./train.py"),
        (["find", "--nope"], "no such option", "`lichen find --help`"),
        (["config", "get"], "missing argument", "`lichen config get --help`"),
        (["config", "get", "no.such"], "there is no setting 'no.such'", "reuse.trust"),
        (["run"], "no command given", "lichen run -- python train.py"),
        (["run", "--repeat", "0", "--", "true"], "repeat", "`lichen run --help`"),
    ],
)
def test_a_mistyped_command_line_is_explained(words: list[str], message: str, remedy: str) -> None:
    done = run(*words)
    assert done.exit_code == 2
    assert message in done.stderr
    assert remedy in done.stderr
    assert done.stdout == ""


def test_programs_get_errors_as_json() -> None:
    done = run("config", "get", "--json", "no.such")
    told = json.loads(done.stderr)["error"]
    assert (told["code"], told["exit_status"], done.exit_code) == ("usage", 2, 2)
    assert done.stdout == ""
    assert json.loads(run("find", "--json", "--nope").stderr)["error"]["code"] == "usage"


def test_json_in_the_command_that_is_run_is_not_ours() -> None:
    done = run("run", "--nope", "--", "tool", "--json")
    assert done.stderr.startswith("lichen: ")


@pytest.mark.parametrize(
    "command", [["log"], ["find"], ["balance"], ["show"], ["run", "--", "true"], ["verify"]]
)
def test_without_a_ledger_the_way_to_one_is_shown(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*command)
    assert done.exit_code == 2
    assert "no ledger in" in done.stderr
    assert "lichen init" in done.stderr


def test_a_bug_is_told_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("lichen.runs.workspace.config.UserConfig.read", broken)
    done = run("config", "list")
    assert done.exit_code == 70
    assert "ZeroDivisionError: division by zero (test_main.py:" in done.stderr
    assert "Traceback" not in done.stderr
    monkeypatch.setenv("LICHEN_TRACEBACK", "1")
    assert "Traceback" in run("config", "list").stderr


def test_an_interrupted_command_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lichen.runs.workspace.config.UserConfig.read", interrupted)
    done = run("config", "list")
    assert done.exit_code == 130
    assert done.stderr.endswith("lichen: interrupted\n")


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m lichen help exit-codes --json | true"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode in (0, 141)
    assert done.stderr == ""
