"""Two Unix users and one ledger of rung 0: its owner writes, others read what they may, and are told so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.runs.conftest import Person

NOBODY = 65534
RUN = ("run", "--", "python", "-c", "print('done')")

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="giving files to another user needs root")


@pytest.fixture
def stranger(person: Person, tmp_path: Path) -> Person:
    """Somebody whose ledger now belongs to another user, and whom permissions bind."""
    person.type(*RUN)
    for path in (person.ledger, *person.ledger.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    person.without_privileges()
    return person


def open_to_readers(person: Person) -> None:
    for path in (person.ledger, *person.ledger.rglob("*")):
        if path.suffix != ".key":
            path.chmod(0o755 if path.is_dir() else 0o644)


@as_root
def test_a_ledger_that_is_closed_is_told_with_its_place(stranger: Person) -> None:
    stranger.type("log", expect=6)
    assert f"{stranger.ledger} is closed to you" in stranger.told
    assert "lichen init" in stranger.told


@as_root
def test_others_read_and_do_not_write(stranger: Person) -> None:
    open_to_readers(stranger)
    before = (stranger.ledger / "ledger.sqlite").read_bytes()
    assert "run" in stranger.type("log")
    assert stranger.type("verify").startswith("holds:")
    assert stranger.type("show", "0").startswith("entry 0: genesis")
    stranger.type("publish", "data", "/etc/hostname", expect=6)
    assert "is written by the user nobody alone, who holds its log key" in stranger.told
    assert "sudo -u nobody lichen" in stranger.told
    assert (stranger.ledger / "ledger.sqlite").read_bytes() == before


@as_root
def test_their_commands_run_all_the_same(stranger: Person) -> None:
    open_to_readers(stranger)
    ledger_id = next(word for word in stranger.type("verify").split() if word.endswith("…"))[:-1]
    stranger.type("run", "--", "true", expect=2)
    assert f"group-keys/{ledger_id}" in stranger.told, "where a copy of the key would be found"
    place = Path(stranger.told.split("put it into ")[1].split(" and run")[0])
    place.parent.mkdir()
    shutil.copy(stranger.ledger / "group.key", place)
    place.chmod(0o600)
    assert stranger.type(*RUN) == "done\n"
    assert "neither answered nor recorded" in stranger.told
    assert "is written by the user nobody alone" in stranger.told
    assert stranger.type("log").count(" run:") == 1


def test_a_log_key_of_ones_own_that_is_closed_is_told(person: Person) -> None:
    (person.ledger / "log.key").chmod(0)
    person.without_privileges()
    person.type("publish", "data", "/etc/hostname", expect=6)
    assert "chmod 600" in person.told
    assert "log.key cannot be read" in person.told
    assert person.type("verify").startswith("holds:")
