"""From the terminal: a ledger has itself witnessed, its receipts say so offline, and a fork of it is caught and proved."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, SignatureType, SignedNote, cosign_note
from lichen.ledger.receipt import Receipt

if TYPE_CHECKING:
    from tests.integration.witness.conftest import WitnessProcess


class Person:
    """Somebody with a ledger in a directory."""

    def __init__(self, directory: Path, home: Path) -> None:
        self.directory, self.home = directory, home

    def type(self, *words: str, expect: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "lichen", *words],
            cwd=self.directory,
            env={**os.environ, "LICHEN_HOME": str(self.home), "LICHEN_MEMBER": "ada"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout if expect == 0 or done.stdout else done.stderr

    def told(self, *words: str, expect: int = 0) -> Any:
        return json.loads(self.type(*words, "--json", expect=expect))

    def publish(self, text: str) -> None:
        (self.directory / "data.csv").write_text(text)
        self.type("publish", "data", "data.csv", "--title", text)


@pytest.fixture
def ada(tmp_path: Path) -> Person:
    (tmp_path / "clinic").mkdir()
    made = Person(tmp_path / "clinic", tmp_path / "home")
    made.type("init")
    made.publish("first")
    return made


def witnesses_of(
    person: Person, make: Callable[..., WitnessProcess], count: int, rule: str
) -> list[WitnessProcess]:
    """Make witnesses that know the person's ledger, and a policy file that names them."""
    log_key = NoteKey.from_vkey(person.type("key", "show", "--log", "--vkey").strip())
    made = [make(f"w{n}", log_key) for n in range(1, count + 1)]
    lines = [
        f"witness W{n} {each.policy_witness.key.vkey} {each.policy_witness.url}"
        for n, each in enumerate(made, start=1)
    ]
    names = " ".join(f"W{n}" for n in range(1, count + 1))
    text = "\n".join([f"log {log_key.vkey}", *lines, f"group g {rule} {names}", "quorum g", ""])
    (person.directory / "witness.policy").write_text(text)
    return made


def test_a_receipt_is_logged_and_later_witnessed(
    ada: Person, make_witness: Callable[..., WitnessProcess], tmp_path: Path
) -> None:
    made = witnesses_of(ada, make_witness, 3, "2")
    assert "no policy" in ada.type("witness", "request", expect=2)
    ada.type("witness", "use", "witness.policy")
    (ada.directory / "early.receipt").write_text(ada.type("show", "2", "--receipt"))
    early = ada.told("verify", "early.receipt")
    assert early["state"] == "logged"
    assert "too few witnesses" in ada.type("verify", "early.receipt", "--policy", "witness.policy", expect=3)

    made[2].stop()
    collected = ada.told("witness", "request")
    assert [each["problem"] is None for each in collected["witnesses"]] == [True, True, False]
    assert collected["is_witnessed"]
    (ada.directory / "later.receipt").write_text(ada.type("show", "2", "--receipt"))

    reader = Person(tmp_path / "elsewhere", tmp_path / "reader's home")
    reader.directory.mkdir()
    for name in ("later.receipt", "witness.policy"):
        shutil.copy(ada.directory / name, reader.directory)
    for each in made[:2]:
        each.stop()  # nobody is asked: the policy and the receipt are enough
    later = reader.told("verify", "later.receipt", "--policy", "witness.policy")
    assert later["state"] == "witnessed"
    assert [each["witness"] for each in later["cosigners"]] == ["W1", "W2"]
    assert any("W1 at 20" in sentence for sentence in later["proves"])
    assert any("signed both" in sentence for sentence in later["does_not_prove"])


def test_witnesses_that_are_away_hold_nothing_up_and_catch_up_later(
    ada: Person, make_witness: Callable[..., WitnessProcess]
) -> None:
    first, second, third = witnesses_of(ada, make_witness, 3, "2")
    ada.type("witness", "use", "witness.policy")
    ada.told("witness", "request")
    second.stop()
    third.stop()
    ada.publish("second")
    assert not ada.told("witness", "request", expect=7)["is_witnessed"]
    # What an earlier quorum covers stays witnessed, and what it does not is logged.
    for index, state in ((2, "witnessed"), (4, "logged")):
        (ada.directory / "a.receipt").write_text(ada.type("show", str(index), "--receipt"))
        if state == "witnessed":
            assert ada.told("verify", "a.receipt", "--policy", "witness.policy")["state"] == state
        else:
            assert ada.told("verify", "a.receipt")["state"] == state
            ada.type("verify", "a.receipt", "--policy", "witness.policy", expect=3)
    second.start()
    assert ada.told("witness", "request")["is_witnessed"]
    (ada.directory / "a.receipt").write_text(ada.type("show", "4", "--receipt"))
    assert ada.told("verify", "a.receipt", "--policy", "witness.policy")["state"] == "witnessed"
    assert first.ask("GET", "/")[0] == 200


def test_a_served_ledger_asks_its_witnesses_by_itself(
    tmp_path: Path, make_witness: Callable[..., WitnessProcess]
) -> None:
    (tmp_path / "clinic").mkdir()
    ada = Person(tmp_path / "clinic", tmp_path / "home")
    ada.type("init", "--public")
    [witness] = witnesses_of(ada, make_witness, 1, "all")
    ada.type("witness", "use", "witness.policy")
    server = subprocess.Popen(
        [sys.executable, "-m", "lichen", "serve", "--port", "0"],
        cwd=ada.directory,
        env={**os.environ, "LICHEN_HOME": str(ada.home), "LICHEN_MEMBER": "ada"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline().rpartition(":")[2])
        waited = threading.Event()
        text = ""
        while "— witness.example/w1 " not in text:  # the test's own time limit ends this
            waited.wait(0.2)
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/checkpoint")
            text = connection.getresponse().read().decode()
            connection.close()
        assert SignedNote.from_text(text).cosigned_at(witness.policy_witness.key) > 0
    finally:
        server.terminate()
        server.wait(30)
        server.stdout.close()
    (ada.directory / "a.receipt").write_text(ada.type("show", "0", "--receipt"))
    assert ada.told("verify", "a.receipt", "--policy", "witness.policy")["state"] == "witnessed"


def test_a_policy_whose_quorums_do_not_meet_is_refused_wherever_it_is_used(
    ada: Person, make_witness: Callable[..., WitnessProcess]
) -> None:
    witnesses_of(ada, make_witness, 2, "any")
    (ada.directory / "r.receipt").write_text(ada.type("show", "2", "--receipt"))
    for words in (
        ("witness", "policy", "witness.policy"),
        ("witness", "use", "witness.policy"),
        ("verify", "r.receipt", "--policy", "witness.policy"),
    ):
        assert "(2 x 1 <= 2 + 0)" in ada.type(*words, expect=2)
    assert not (ada.directory / ".lichen" / "witness.policy").exists()
    text = (ada.directory / "witness.policy").read_text()
    (ada.directory / "witness.policy").write_text(text.replace("group g any W1 W2", "group g all W1 W3"))
    assert "line 4 of the policy" in ada.type("witness", "policy", "witness.policy", expect=3)


def fork(person: Person, directory: Path, home: Path) -> Person:
    """What a dishonest operator does: copy the ledger with its keys, but not the mark that would stop them."""
    shutil.copytree(person.directory, directory)
    shutil.copytree(person.home, home)
    shutil.rmtree(home / "high-water")
    return Person(directory, home)


def test_a_log_that_forks_gets_no_second_quorum_and_the_monitor_keeps_the_evidence(
    ada: Person, make_witness: Callable[..., WitnessProcess], tmp_path: Path
) -> None:
    made = witnesses_of(ada, make_witness, 3, "2")
    ada.type("witness", "use", "witness.policy")
    ada.type("witness", "request")
    mallory = fork(ada, tmp_path / "forked", tmp_path / "forked home")
    made[2].stop()
    ada.publish("what the hospital is shown")
    assert ada.told("witness", "request")["is_witnessed"]
    assert ada.told("monitor", expect=7)["split_views"] == []  # W3 is away

    mallory.publish("what the auditor is shown")
    for each in made[:2]:
        each.stop()
    made[2].start()
    mallory.told("witness", "request", expect=7)  # W3 alone cosigns the other history
    for each in made[:2]:
        each.start()
    told = mallory.told("witness", "request", expect=3)
    assert not told["is_witnessed"]
    refused = {each["witness"]: each["code"] for each in told["witnesses"]}
    assert (refused["W1"], refused["W2"]) == ("rollback", "rollback")
    (mallory.directory / "m.receipt").write_text(mallory.type("show", "4", "--receipt"))
    mallory.type("verify", "m.receipt", "--policy", "witness.policy", expect=3)

    found = ada.told("monitor", expect=9)
    assert found["split_views"]
    reader = Person(tmp_path / "elsewhere", tmp_path / "reader's home")
    reader.directory.mkdir()
    log_key = ada.type("key", "show", "--log").strip()
    for number, path in enumerate(found["evidence"]):
        name = f"evidence-{number}.json"
        shutil.copy(ada.directory / path, reader.directory / name)
        assert "holds" in reader.type("verify", name)
        assert reader.told("verify", name, "--log-key", log_key)["first"] != {}
        text = (reader.directory / name).read_text()
        (reader.directory / "false.json").write_text(
            text.replace("\\n5\\n", "\\n6\\n").replace("\\n6\\n", "\\n7\\n")
        )
        reader.type("verify", "false.json", expect=3)
    listed = ada.told("monitor", expect=9)
    assert listed["evidence"] == found["evidence"]


def test_a_fork_of_another_length_is_proved_with_the_root_that_connects_them(
    ada: Person, make_witness: Callable[..., WitnessProcess], tmp_path: Path
) -> None:
    witnesses_of(ada, make_witness, 1, "all")
    ada.type("witness", "use", "witness.policy")
    ada.type("witness", "request")
    mallory = fork(ada, tmp_path / "forked", tmp_path / "forked home")
    mallory.publish("one history")
    mallory.type("witness", "request")
    ada.publish("another")
    ada.publish("and longer")
    assert ada.told("witness", "request", expect=3)["witnesses"][0]["code"] == "rollback"
    found = ada.told("monitor", "--evidence", "evidence", expect=9)
    [path] = found["evidence"]
    told = ada.told("verify", path)
    assert told["first"]["tree_size"] < told["second"]["tree_size"]


def test_what_this_machine_saw_before_is_compared_too(
    ada: Person, make_witness: Callable[..., WitnessProcess], tmp_path: Path
) -> None:
    """The operator puts an old copy back and goes on from it: the reader's memory convicts them, with no witness at all."""
    made = witnesses_of(ada, make_witness, 1, "all")
    ada.type("witness", "use", "witness.policy")
    mallory = fork(ada, tmp_path / "forked", tmp_path / "forked home")
    ada.publish("second")
    ada.type("monitor")
    shutil.rmtree(mallory.home)
    shutil.copytree(ada.home, mallory.home)
    shutil.rmtree(mallory.home / "high-water")
    mallory.publish("another second")
    made[0].stop()
    found = mallory.told("monitor", expect=9)
    assert {each["by"] for each in found["seen"]} == {"this machine before", "the ledger here"}
    assert "a split view" in mallory.type("verify", found["evidence"][0])


def test_the_monitor_tells_of_times_that_cannot_be_right(ada: Person) -> None:
    note = SignedNote.from_text(Receipt.parse(ada.type("show", "2", "--receipt")).checkpoint)
    key, now = SigningKey.generate(), int(time.time())
    vkey = NoteKey("w1.example", key.public, SignatureType.COSIGNATURE_V1).vkey
    log_key = ada.type("key", "show", "--log", "--vkey").strip()
    policy = f"log {log_key}\nwitness W1 {vkey} http://127.0.0.1:1\nquorum W1\n"
    (ada.directory / "witness.policy").write_text(policy)
    for name, seconds in (("early", -30 * 86_400), ("late", 30 * 86_400)):
        cosigned = note.with_signature(cosign_note(note.text, "w1.example", key, now + seconds))
        (ada.directory / f"{name}.checkpoint").write_text(cosigned.to_text())
    words = (
        "monitor",
        "--policy",
        "witness.policy",
        "--checkpoint",
        "early.checkpoint",
        "--checkpoint",
        "late.checkpoint",
    )
    told = ada.type(*words, expect=3)
    assert "odd time: witness W1 says" in told
    assert "before the seal that it covers" in told
    assert "ahead of this clock" in told
    assert sorted(each["kind"] for each in ada.told(*words, expect=3)["odd_times"]) == [
        "ahead",
        "before-seal",
    ]
