"""Out and back from the command line: what is said, and the exit status of what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from lichen.cli.table import table


def run(*words: str, expect: int = 0) -> Result:
    done = CliRunner().invoke(table, list(words))
    assert done.exit_code == expect, done.stderr
    return done


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lichen_home: Path) -> Path:
    """A private ledger with one published file, in the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LICHEN_MEMBER", "ada")
    assert lichen_home.is_absolute()
    run("init")
    (tmp_path / "d.csv").write_text("1,2\n")
    run("publish", "data", "d.csv")
    return tmp_path


def test_out_and_back(ledger: Path) -> None:
    done = run("archive", "out")
    assert "python3" in done.stdout
    assert "this ledger is private" in done.stderr
    restored = json.loads(run("restore", "out", "back", "--json").stdout)
    archived = json.loads((ledger / "out" / "archive.json").read_text())
    assert (restored["root"], restored["size"]) == (archived["root"], archived["size"])
    assert "holds" in run("verify", "--ledger", "back").stdout
    assert json.loads(run("archive", "out", "--update", "--json").stdout)["size"] == archived["size"]
    assert "left out" in run("archive", "bare", "--no-artefacts").stdout
    assert json.loads(run("backup", "copy.sqlite", "--json").stdout)["size"] == archived["size"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("archive", "d.csv"), 2, "no directory"),
        (("archive", ".lichen"), 2, "not empty"),
        (("archive", "nowhere", "--update"), 2, "is not an archive"),
        (("restore", "nowhere", "back"), 2, "is not an archive"),
        (("restore", "nowhere"), 2, "not empty"),
        (("backup", "d.csv"), 2, "there already"),
        (("backup", "no/such/place"), 6, "cannot write"),
        (("import", "nowhere"), 2, "holds no ledger"),
        (("import", ".lichen"), 2, "same ledger"),
        (("import", "--check", "0"), 2, "no evidence"),
        (("import", "--check", "99"), 4, "no entry 99"),
        (("import",), 2, "--check"),
        (("import", ".lichen", "--check", "1"), 2, "--check"),
    ],
)
def test_what_is_refused(ledger: Path, words: tuple[str, ...], status: int, said: str) -> None:
    before = {path.relative_to(ledger) for path in ledger.iterdir()}
    assert said in run(*words, expect=status).stderr
    assert {path.relative_to(ledger) for path in ledger.iterdir()} == before


def test_a_spoilt_archive_is_not_restored(ledger: Path) -> None:
    run("archive", "out")
    path = ledger / "out" / "keys.json"
    path.write_bytes(path.read_bytes().replace(b"ada", b"bob"))
    assert "keys.json" in run("restore", "out", "back", expect=3).stderr
    assert not (ledger / "back").exists()
