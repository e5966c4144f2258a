"""What somebody types into a running command is an input that nobody can look at again."""

from __future__ import annotations

import os
import pty
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.runs.conftest import Person

ASKS = "open('name.out', 'w').write(input())\n"
ASKS_NOBODY = "open('name.out', 'w').write('ada')\n"


def run_at_terminal(person: Person, script: str, keys: bytes) -> dict[str, Any]:
    """Run a script with a terminal as its standard input, and type on it."""
    person.write("ask.py", script)
    controller, end = pty.openpty()
    with (
        closing(os.fdopen(controller, "wb", buffering=0)) as keyboard,
        closing(os.fdopen(end, "rb")) as screen,
    ):
        keyboard.write(keys)
        return person.run("--", "python", "ask.py", stdin=screen)


@pytest.mark.parametrize(
    "script", [ASKS, ASKS.replace("input()", "__import__('sys').stdin.readline().strip()")]
)
def test_an_answer_typed_at_the_terminal_is_never_taken_for_the_next_one(person: Person, script: str) -> None:
    first = run_at_terminal(person, script, b"ada\n")
    assert [reason["code"] for reason in first["reasons"]] == ["partial"]
    assert "terminal" in person.told
    assert run_at_terminal(person, script, b"bob\n")["status"] == "trained"
    assert person.read("name.out") == "bob"


def test_a_command_that_asks_nobody_is_reusable_at_a_terminal(person: Person) -> None:
    assert run_at_terminal(person, ASKS_NOBODY, b"")["reusable"]
    assert run_at_terminal(person, ASKS_NOBODY, b"")["status"] == "hit"


def test_input_from_a_file_and_from_a_pipe_is_compared(person: Person) -> None:
    person.write("ask.py", ASKS)
    person.write("names.txt", "ada\n")
    with (person.directory / "names.txt").open("rb") as file:
        assert person.run("--", "python", "ask.py", stdin=file)["reusable"]
        file.seek(0)
        assert person.run("--", "python", "ask.py", stdin=file)["status"] == "hit"
    assert person.run("--", "python", "ask.py", piped="ada\n")["status"] == "hit"
    assert person.run("--", "python", "ask.py", piped="bob\n")["status"] == "trained"
    assert person.read("name.out") == "bob"
    assert person.run("--", "python", "ask.py", piped="bob\n")["status"] == "hit"


def test_input_from_a_file_without_a_name_is_not_compared(person: Person) -> None:
    person.write("ask.py", ASKS)
    gone = person.write("gone.txt", "ada\n")
    with gone.open("rb") as file:
        gone.unlink()
        told = person.run("--", "python", "ask.py", stdin=file)
    assert [reason["code"] for reason in told["reasons"]] == ["partial"]
