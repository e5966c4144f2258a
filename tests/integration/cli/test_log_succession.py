"""From the terminal: the log of a ledger gets a new key, with one admin and with three, and when it is interrupted."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


class Person:
    """Somebody at a terminal, with keys of their own."""

    def __init__(self, directory: Path, home: Path, member: str) -> None:
        self.directory, self.home, self.member = directory, home, member

    def type(self, *words: str, expect: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lichen", *words],
            cwd=self.directory,
            env={**os.environ, "LICHEN_HOME": str(self.home), "LICHEN_MEMBER": self.member},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if expect == 0 else done.stdout + done.stderr

    def told(self, *words: str, expect: int = 0) -> Any:
        return json.loads(self.type(*words, "--json", expect=expect))

    def publish(self, text: str) -> None:
        (self.directory / "data.csv").write_text(text)
        self.type("publish", "data", "data.csv", "--title", text)


@pytest.fixture
def ada(tmp_path: Path) -> Person:
    (tmp_path / "clinic").mkdir()
    made = Person(tmp_path / "clinic", tmp_path / "ada", "ada")
    made.type("init")
    made.publish("first")
    return made


def test_one_admin_gives_the_log_a_new_key_and_readers_follow(ada: Person, tmp_path: Path) -> None:
    old = ada.type("key", "show", "--log").strip()
    (tmp_path / "early.receipt").write_text(ada.type("show", "2", "--receipt"))
    done = ada.told("key", "succeed")
    new = ada.type("key", "show", "--log").strip()
    assert new == done["public_key"] != old
    assert ada.type("key", "show", "--log", "--vkey").strip() == done["verifier_key"]
    ada.publish("second")
    (tmp_path / "late.receipt").write_text(ada.type("show", "data.csv", "--receipt"))
    assert "holds" in ada.type("audit")
    stranger = Person(tmp_path, tmp_path / "stranger", "eve")
    for name, key in (("early.receipt", old), ("late.receipt", old), ("late.receipt", new)):
        assert "holds" in stranger.type("verify", name, "--log-key", key)
    assert "majority of the admins" in stranger.type("verify", "late.receipt", "--log-key", old)
    ada.told("key", "succeed")  # and once more
    ada.publish("third")
    (tmp_path / "late.receipt").write_text(ada.type("show", "data.csv", "--receipt"))
    assert "holds" in stranger.type("verify", "late.receipt", "--log-key", old)
    assert "holds" in ada.type("audit")
    ada.type("archive", str(tmp_path / "archive"))
    checked = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / "archive" / "verify_ledger.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "holds" in checked.stdout


def test_what_was_interrupted_before_the_key_took_its_place_is_finished_by_the_next_command(
    ada: Person,
) -> None:
    directory = ada.directory / ".lichen"
    shutil.copy(directory / "log.key", directory / "log.key.before")
    done = ada.told("key", "succeed")
    (directory / "log.key").rename(directory / "log.key.next")
    (directory / "log.key.before").rename(directory / "log.key")
    ada.publish("second")
    assert not (directory / "log.key.next").exists()
    assert ada.type("key", "show", "--log").strip() == done["public_key"]
    assert "holds" in ada.type("audit")


def test_what_was_interrupted_before_the_ledger_said_so_takes_up_the_waiting_key(ada: Person) -> None:
    from lichen.crypto.key_file import read_key, write_key
    from lichen.crypto.keys import SigningKey

    path = ada.directory / ".lichen" / "log.key.next"
    write_key(path, SigningKey.generate())
    waiting = read_key(path).public.did_key
    ada.publish("second")  # the old key still speaks
    assert ada.told("key", "succeed")["public_key"] == waiting


def test_three_admins_agree_through_a_file(ada: Person, tmp_path: Path) -> None:
    others = [Person(ada.directory, tmp_path / name, name) for name in ("bob", "carol")]
    for each in others:
        each.type("key", "make", each.member)
        ada.type("key", "admit", each.member, each.type("key", "show", "--public").strip(), "--admin")
    bob, _ = others
    refused = ada.type("key", "succeed", expect=5)
    assert "1 of 3 admins" in refused
    assert "lichen key approve FILE" in refused
    proposal = tmp_path / "log-key.proposal"
    shutil.copy(ada.directory / ".lichen" / "log-key.proposal", proposal)
    ada.publish("meanwhile the old key goes on")

    tampered = json.loads(proposal.read_text())
    tampered["consent"] = tampered["acceptance"]
    (tmp_path / "tampered").write_text(json.dumps(tampered, sort_keys=True, separators=(",", ":")) + "\n")
    assert "did not consent" in bob.type("key", "approve", str(tmp_path / "tampered"), expect=3)
    assert "no proposal" in bob.type("key", "approve", "data.csv", expect=2)
    assert bob.told("key", "approve", str(proposal))["approval_count"] == 1
    assert bob.told("key", "approve", str(proposal))["approval_count"] == 1
    done = ada.told("key", "succeed", str(proposal))
    assert ada.type("key", "show", "--log").strip() == done["public_key"]
    assert not (ada.directory / ".lichen" / "log-key.proposal").exists()
    ada.publish("the new key goes on")
    assert "holds" in ada.type("audit")
    assert "about other keys" in ada.type("key", "succeed", str(proposal), expect=2)
