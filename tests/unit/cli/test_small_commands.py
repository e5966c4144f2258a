"""Settings, topics and completion: the commands that need no ledger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.cli.errors import exit_statuses
from lichen.cli.table import table
from lichen.cli.topics import TOPICS

ADA, BOB = "ada@" + "0f" * 16, "bob@" + "1e" * 16


def run(*words: str, expect: int = 0) -> Result:
    done = CliRunner().invoke(table, list(words))
    assert done.exit_code == expect, done.stderr
    return done


def test_a_setting_is_set_read_listed_and_taken_away(lichen_home: Path) -> None:
    assert run("config", "set", "reuse.trust", f"{ADA}, {BOB}").stdout == f"reuse.trust = {ADA},{BOB}\n"
    assert run("config", "get", "reuse.trust").stdout == f"{ADA},{BOB}\n"
    assert json.loads(run("config", "get", "--json", "reuse.trust").stdout) == [ADA, BOB]
    run("config", "set", "reuse.agree", "2")
    assert json.loads(run("config", "list", "--json").stdout) == {
        "reuse.agree": 2,
        "reuse.trust": [ADA, BOB],
    }
    run("config", "unset", "reuse.trust")
    assert run("config", "list").stdout == "reuse.agree  2\n"
    assert str(lichen_home / "config.toml") in run("config", "path").stdout


def test_no_setting_at_all_is_said() -> None:
    done = run("config", "list")
    assert done.stdout == ""
    assert "nothing is set" in done.stderr


def test_a_damaged_settings_file_is_named(lichen_home: Path) -> None:
    (lichen_home / "config.toml").write_text("[reuse\n")
    said = run("config", "list", expect=2).stderr
    assert str(lichen_home / "config.toml") in said
    assert "not valid TOML" in said


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_explained(topic: str) -> None:
    assert len(run("help", topic).stdout.splitlines()) > 3
    assert json.loads(run("help", topic, "--json").stdout)


def test_exit_codes_are_all_listed() -> None:
    shown = run("help", "exit-codes").stdout
    for status, codes, _ in exit_statuses():
        assert f"  {status:>3}  {codes}" in shown


def test_help_of_a_command_is_its_help() -> None:
    assert run("help", "publish", "model").stdout == run("publish", "model", "--help").stdout
    assert "Topics: " in run("help").stdout
    told = json.loads(run("help", "publish", "model", "--json").stdout)
    assert (told["command"], told["arguments"]) == ("lichen publish model", ["PATH"])
    assert {"--title", "--metric", "--json"} <= {name for each in told["options"] for name in each["names"]}
    whole = json.loads(run("help", "--json").stdout)
    assert {"run", "find", "withdraw"} <= whole["commands"].keys()
    assert "exit-codes" in whole["topics"]


def test_a_key_is_made_once(lichen_home: Path) -> None:
    first = json.loads(run("key", "make", "ada", "--json").stdout)
    assert first["is_new"] is True
    assert (lichen_home / "keys" / "ada.key").stat().st_mode & 0o777 == 0o600
    again = json.loads(run("key", "make", "ada", "--json").stdout)
    assert (again["is_new"], again["public_key"]) == (False, first["public_key"])
    assert run("config", "get", "identity.member").stdout == "ada\n"
    assert run("key", "show", "--public").stdout.strip() == first["public_key"]
