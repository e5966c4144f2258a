"""The reasons that `why`, `--estimate` and `run` give are true, and the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.integration.runs.conftest import Person

TRAIN = ("--", "python", "train.py")
RESUMING = """
import os
epoch = int(open("checkpoint").read()) if os.path.exists("checkpoint") else 0
open("checkpoint", "w").write(str(epoch + 5))
print("epoch", epoch + 5)
"""
TWO_OUTPUTS = "for name in 'ab':\n    open(f'{name}.out', 'w').write(name)\n"


def why(person: Person, *options: str) -> dict[str, Any]:
    told = json.loads(person.type("why", "--json", *options, *TRAIN))
    assert isinstance(told, dict)
    return told


def test_a_script_that_resumes_is_answered_and_that_is_said(person: Person) -> None:
    person.write("train.py", RESUMING)
    first = person.run(*TRAIN)
    assert first["reusable"]
    again = person.run(*TRAIN)
    assert (again["status"], person.read("checkpoint")) == ("hit", "5")
    assert "that run looked for checkpoint before making it: --rerun goes on from it" in person.told
    assert "{project}/checkpoint, which it looked for before making" in why(person)["lines"][0]
    person.write("checkpoint", "3")
    told = why(person)
    assert (told["kind"], told["difference"]["section"]) == ("miss", "outputs")
    assert "{project}/checkpoint is there, and not as the earlier run left it" in told["lines"][0]
    person.write("checkpoint", "5")
    assert person.run("--rerun", *TRAIN)["status"] == "trained"
    assert person.read("checkpoint") == "10"


def test_a_run_that_was_withdrawn_is_said_to_be(person: Person) -> None:
    person.write("train.py", "print(1)\n")
    done = person.run(*TRAIN)
    assert "looked for" not in why(person)["lines"][0]
    person.type("withdraw", "@last")
    assert why(person)["lines"] == [f"entry {done['record']} is equal work, but it was withdrawn."]


def test_programs_on_the_command_line_are_not_one_script(person: Person) -> None:
    person.type("run", "--", "python", "-c", "print(1)")
    person.type("run", "--estimate", "--", "python", "-c", "print(2)")
    assert person.told == "lichen: nothing like this is on record yet\n"
    person.type("run", "--estimate", "--", "python", "-c", "print(1)", "more")
    assert "nearest earlier work: same data and code, arg0" in person.told


def test_another_spelling_of_a_command_is_called_that(person: Person) -> None:
    person.write("train.py", "print(1)\n")
    person.run(*TRAIN, "--trees", "50")
    person.type("run", "--estimate", *TRAIN, "--trees=50")
    assert "same data and code, with the command line spelled otherwise" in person.told
    person.type("why", *TRAIN, "--trees=50")
    assert "which differs in how its command line is spelled" in person.output


def test_why_takes_the_options_that_ask_for_metrics(person: Person) -> None:
    person.write("train.py", "print('acc: 0.93')\n")
    person.run(*TRAIN)
    asked = ("--metric", r"acc=acc: ([\d.]+)", "--target", "acc=0.97", "--metrics", "none.json")
    assert why(person, *asked)["lines"][1] == "target missed: acc is 0.93, the target was at least 0.97."
    assert len(why(person, *asked, "--target", "acc=0.9")["lines"]) == 1, "the last target of a name counts"


def test_a_means_of_tracing_that_does_not_exist_is_refused_on_a_hit_too(person: Person) -> None:
    person.write("train.py", "print(1)\n")
    person.run(*TRAIN)
    person.type("run", "--trace", "audit,foo", *TRAIN, expect=2)
    assert "no means of tracing called 'foo'" in person.told


@pytest.mark.slow
def test_outputs_of_somebody_else_that_are_not_declared_are_all_named_beforehand(
    person: Person, tmp_path: Path
) -> None:
    person.write("train.py", TWO_OUTPUTS)
    ben = person.colleague(tmp_path / "ben" / "clinic", "ben")
    assert person.run(*TRAIN)["reusable"]
    ben.type("config", "set", "reuse.trust", "ada")
    told = why(ben)
    assert (told["kind"], told["undeclared_outputs"]) == ("offer", ["a.out", "b.out"])
    assert (why(ben, "--out", "a.out")["undeclared_outputs"]) == ["b.out"]
    ben.type("run", "--estimate", "--out", "a.out", *TRAIN)
    assert "to take it: --out b.out, or out in lichen.toml" in ben.told
    assert ben.run("--out", "a.out", "--out", "b.out", *TRAIN)["status"] == "hit"


@pytest.mark.slow
def test_a_run_by_somebody_not_trusted_is_not_said_to_be_missing(person: Person, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.csv"
    elsewhere.write_text("1,2\n")
    person.write("train.py", f"print(open({str(elsewhere)!r}).read())\n")
    ben = person.colleague(tmp_path / "ben" / "clinic", "ben")
    done = person.run(*TRAIN)
    told = why(ben)
    assert (told["kind"], told["uncompared"]) == ("miss", done["record"])
    assert told["lines"][0].startswith(f"entry {done['record']} by ada is of this command line")
    assert "lichen config add reuse.trust ada" in told["lines"][0]
    ben.type("config", "add", "reuse.trust", "ada")
    assert why(ben)["kind"] == "hit"
