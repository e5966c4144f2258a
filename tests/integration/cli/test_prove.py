"""Proving a yes or a no from the command line, and checking it elsewhere with nothing but the log's key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.cli.conftest import Terminal


def log_key(terminal: Terminal) -> str:
    shown = terminal.type("key", "show").stdout.splitlines()
    return next(line.split()[-1] for line in shown if line.startswith("log key"))


def test_a_no_becomes_a_yes_by_running(terminal: Terminal, tmp_path: Path) -> None:
    run = ("--", "python", "train.py", "--depth", "4")
    first = terminal.type("why", "--prove", "no.receipt", *run, expect=4)
    assert "no run of this command is on record" in first.stderr
    assert not (terminal.directory / "no.receipt").exists()
    terminal.type("run", "--quiet", *run)
    yes = terminal.type("why", "--prove", "yes.receipt", *run)
    assert yes.stdout.startswith("yes: 1 run with the exact fingerprint")
    (terminal.directory / "measurements.csv").write_text("1,2\n")
    no = terminal.type("why", "--prove", "no.receipt", *run)
    assert [line.partition(":")[0] for line in no.stdout.splitlines()] == ["no", "no"]
    key = log_key(terminal)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name, count in (("yes.receipt", 1), ("no.receipt", 2)):
        (terminal.directory / name).rename(elsewhere / name)
        checked = terminal.type("verify", str(elsewhere / name), "--log-key", key)
        assert checked.stdout.count("holds: ") == count
        assert "only replaying them" in checked.stdout
    told = json.loads(
        terminal.type("verify", "--json", str(elsewhere / "no.receipt"), "--log-key", key).stdout
    )
    assert [one["kind"] for one in told] == ["state", "state"]


def test_questions_about_entries_and_files(terminal: Terminal) -> None:
    terminal.type("run", "--quiet", "--", "python", "train.py")
    terminal.type("publish", "model", "model.pkl")
    published = terminal.type("find", "--prove", "p.receipt", "--file", "model.pkl", "--json")
    assert [one["is_on_record"] for one in json.loads(published.stdout)["answers"]] == [True]
    stands = terminal.type("find", "--prove", "w.receipt", "--withdrawn", "model.pkl")
    assert stands.stdout.startswith("no: no withdrawal of entry")
    flagged = terminal.type("find", "--prove", "f.receipt", "--flagged", "@last")
    assert flagged.stdout.startswith("no: no flag against entry")
    found = json.loads(terminal.type("find", "--kind", "run", "--json").stdout)[0]
    proved = terminal.type(
        "find", "--prove", "r.receipt", "--fingerprint", found["sha256"], "--level", "exact"
    )
    assert f"as entry {found['index']}" in proved.stdout
    for name in ("p", "w", "f", "r"):
        terminal.type("verify", f"{name}.receipt")


def test_what_cannot_be_proved_is_said(terminal: Terminal) -> None:
    def refused(*words: str) -> str:
        done = terminal.type("find", *words, expect=2)
        assert not done.stdout
        return done.stderr

    assert "--prove FILE --withdrawn" in refused("--withdrawn", "2")
    assert "answers one question" in refused("--prove", "x")
    assert "answers one question" in refused("--prove", "x", "--withdrawn", "0", "--flagged", "0")
    assert "cannot be proved" in refused("--prove", "x", "--data", "measurements.csv", "--flagged", "0")
    assert "WORDS cannot be proved" in refused("train.py", "--prove", "x", "--flagged", "0")
    assert "no whole fingerprint" in refused("--prove", "x", "--fingerprint", "abcdef12")
    assert "Add --fingerprint" in refused("--prove", "x", "--level", "exact", "--flagged", "0")
    assert "exists and is no receipt" in refused("--prove", "train.py", "--flagged", "0")
    assert not (terminal.directory / "x").exists()
