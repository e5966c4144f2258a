"""A public ledger: what is in it is for all to read, so secrets stay out of it, and its owner is told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.runs.conftest import Person

SECRET = "swordfish-in-" + "the-barrel"


def _bytes_of(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("*") if path.is_file())


@pytest.fixture
def public(newcomer: Person) -> Person:
    said = newcomer.type("init", "--public")
    assert "whoever reads it reads the command lines" in said
    assert "printed text" in said
    newcomer.write(
        "train.py", "import os, sys\nprint('using', os.environ.get('DB_PASS', ''), len(sys.argv))\n"
    )
    return newcomer


def test_a_printed_secret_is_not_kept_and_the_run_answers_nobody(public: Person) -> None:
    public.variables["DB_PASS"] = SECRET
    assert SECRET in public.type("run", "--", "python", "train.py")
    assert "not reusable" in public.told
    assert SECRET.encode() not in _bytes_of(public.ledger)
    assert "using *** 1" in public.type("show", "@last")


@pytest.mark.parametrize(
    "words", [("-u", f"ada:{SECRET}"), (f"--user=ada:{SECRET}",), ("-u", "ada", "-p", SECRET)]
)
def test_a_secret_behind_a_short_option_is_not_kept(public: Person, words: tuple[str, ...]) -> None:
    public.type("run", "--", "python", "train.py", *words)
    assert SECRET.encode() not in _bytes_of(public.ledger)
    public.type(
        "run", "--", "python", "train.py", *(word.replace(SECRET, "other-" + SECRET) for word in words)
    )
    assert "hit" not in public.told
