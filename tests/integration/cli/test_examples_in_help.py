"""Every example that `--help` shows works as it stands, in a project that has what the example names."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner

from lichen.cli.table import table
from lichen.crypto.key_file import read_key
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.canonical import canonical_json
from lichen.ledger.receipt import Receipt
from lichen.ledger.succession import Succession
from lichen.ledger.witness import AddCheckpoint
from lichen.ledger.witness_store import WitnessStore

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Terminal

MEMBER_KEY = "did:key:z6Mkon3Necd6NkkyfoGoHxid2znGc59LU3K7mubaRcFbLfLX"
NOT_RUN = {
    "lichen completion": "its lines belong into a shell's start-up file; see the test of its output",
    "lichen experiment avoided-training": "takes a minute; the tests of the experiment run it",
    "lichen join": "asks a server; the tests of served ledgers run it",
    "lichen monitor": "asks witnesses that serve; the tests of witnesses run it",
    "lichen run --ledger http": "asks a server; the tests of served ledgers run it",
    "lichen serve": "serves until it is told to stop; the tests of served ledgers run it",
    "lichen witness request": "asks witnesses that serve; the tests of witnesses run it",
    "lichen witness serve": "serves until it is told to stop; the tests of witnesses run it",
}


def commands(group: click.Group, context: click.Context) -> Iterator[click.Command]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from commands(command, click.Context(command, parent=context))


def examples() -> Iterator[str]:
    for command in commands(table, click.Context(table, info_name="lichen")):
        text = (command.epilog or "").partition("Example")[2]
        for line in text.splitlines()[1:]:
            if line.startswith("  lichen") and not any(line[2:].startswith(start) for start in NOT_RUN):
                yield line.strip()


EXAMPLES = list(examples())


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, shared: Terminal) -> Terminal:
    """A ledger with runs, data, a model, a second member and a setting: whatever the examples name."""
    terminal = shared
    terminal.type("key", "admit", "hospital-b", MEMBER_KEY)
    terminal.type("publish", "data", "measurements.csv", "--title", "clinic A")
    run = ("run", "--metrics", "metrics.json")
    terminal.type(*run, "--", "python", "train.py", "--depth", "5")
    terminal.type(*run, "--seed", "seed", "--", "python", "train.py", "--seed", "1")
    terminal.type("publish", "model", "model.pkl")
    terminal.type("config", "set", "reuse.trust", "hospital-b")
    (terminal.directory / "run.receipt").write_text(terminal.type("show", "@last", "--receipt").stdout)
    (terminal.directory / "data").mkdir()
    samples = sorted((Path(__file__).parents[2] / "vectors" / "weights").glob("*.safetensors"))
    shutil.copy(samples[0], terminal.directory / "model.safetensors")
    terminal.type("archive", "kept-archive")
    terminal.type("init", "own-ledger")
    have_witnessed(terminal)
    return terminal


def have_witnessed(terminal: Terminal) -> None:
    """Three witnesses, a policy that names them, a receipt that they cosigned, and a proposal of a new log key."""
    log_key = terminal.type("key", "show", "--log", "--vkey").stdout.strip()
    receipt = Receipt.parse((terminal.directory / "run.receipt").read_text())
    lines, note = [], receipt.checkpoint
    for directory in ("witness", "x2", "x3"):
        terminal.type("witness", "init", "--name", f"witness.example/{directory}", "--directory", directory)
        terminal.type("witness", "add", log_key, "--directory", directory)
        with WitnessStore.open(terminal.directory / directory, home=terminal.home) as store:
            cosignature = store.add_checkpoint(
                AddCheckpoint(0, (), receipt.checkpoint).to_bytes(), 1_760_000_000
            )
            assert isinstance(cosignature, str)
            note += cosignature
            lines.append(f"witness {directory} {store.identity.note_key.vkey}\n")
    policy = "".join([*lines, "group all-three all witness x2 x3\nquorum all-three\n"])
    (terminal.directory / "witness.policy").write_text(policy)
    old, new = read_key(terminal.directory / ".lichen" / "log.key"), SigningKey.generate()
    ledger_id = receipt.head.origin.removeprefix("lichen/")
    proposal = {**Succession.sign(ledger_id, old, new).predicate(), "ledger": b64u(bytes.fromhex(ledger_id))}
    (terminal.directory / "log-key.proposal").write_bytes(canonical_json(proposal) + b"\n")
    (terminal.directory / "witnessed.receipt").write_text(replace(receipt, checkpoint=note).to_text())


@pytest.fixture
def copied(prepared: Terminal, tmp_path: Path) -> Terminal:
    """That project for one example alone, with its own keys and marks."""
    for source, name in ((prepared.directory, "clinic"), (prepared.home, "home")):
        shutil.copytree(source, tmp_path / name)
    return type(prepared)(tmp_path / "clinic", tmp_path / "home", prepared.member)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 50


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_works(copied: Terminal, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if line.startswith("lichen init") and "fork" not in line:
        shutil.rmtree(copied.directory / ".lichen")
    if line.startswith("lichen witness init"):
        shutil.rmtree(copied.directory / "witness")
    if line.startswith("lichen run") or any(sign in line for sign in "$>"):
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=copied.directory,
            env=copied.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return
    monkeypatch.chdir(copied.directory)
    monkeypatch.setenv("LICHEN_HOME", str(copied.home))
    monkeypatch.setenv("LICHEN_MEMBER", copied.member)
    result = CliRunner().invoke(table, shlex.split(line)[1:])
    assert result.exit_code == 0, result.stderr
    if "--json" in line:
        assert all(
            json.loads(each)
            for each in ([result.stdout] if "log" not in line else result.stdout.splitlines())
        )
