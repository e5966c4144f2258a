"""Two colleagues on two machines and one served ledger, through the command line and from Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lichen.contracts import default_contracts
from lichen.crypto.key_file import write_key
from lichen.ledger.audit import audit
from lichen.net.server.settings import ServerSettings

from .conftest import Server, Team

Start = Callable[..., Server]

TRAIN = """\
import sys
with open("data.csv") as data, open("model.txt", "w") as model:
    model.write(f"{len(data.read())} {sys.argv[1:]}\\n")
print("trained")
"""


class Colleague:
    """Somebody with a home, a checkout and a terminal of their own; the ledger is known by its address only.

    Who types after somebody else waits until what that one did is published.
    """

    last_to_type = ""

    def __init__(self, root: Path, team: Team, name: str, url: str) -> None:
        self.home, self.directory, self.name, self.url = root / f"home-{name}", root / name, name, url
        (self.home / "keys").mkdir(parents=True)
        write_key(self.home / "keys" / f"{name}.key", team.keys[name])
        self.directory.mkdir()
        (self.directory / "train.py").write_text(TRAIN)
        (self.directory / "data.csv").write_text("1,2\n" * 50)
        (self.directory / "lichen.toml").write_text('out = ["model.txt"]\n')
        trusted = "bob" if name == "alice" else "alice"
        (self.home / "config.toml").write_text(f'[reuse]\ntrust = ["{trusted}@{team.id}"]\n')

    def type(self, *words: str, expect: int = 0) -> subprocess.CompletedProcess[str]:
        if Colleague.last_to_type not in ("", self.name):
            await_publication()
        Colleague.last_to_type = self.name
        done = subprocess.run(
            [sys.executable, "-m", "lichen", *words],
            cwd=self.directory,
            env={
                **os.environ,
                "LICHEN_HOME": str(self.home),
                "LICHEN_MEMBER": self.name,
                "LICHEN_LEDGER": self.url,
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        return done

    def run(self, *words: str, expect: int = 0) -> dict[str, Any]:
        report = self.directory / "report.json"
        self.type("run", "--report", str(report), *words, "--", "python", "train.py", expect=expect)
        return json.loads(report.read_text())

    @property
    def copy(self) -> Path:
        (found,) = (self.home / "remotes").iterdir()
        return found


def await_publication() -> None:
    """A served ledger shows a new checkpoint at most once a second, so that others see an entry up to that much later."""
    time.sleep(ServerSettings().publish_seconds + 0.1)


@pytest.fixture
def pair(tmp_path: Path, team: Team, serve: Start) -> tuple[Server, Colleague, Colleague]:
    """A server, and two colleagues who have joined."""
    server = serve(team)
    alice, bob = (Colleague(tmp_path, team, name, server.url) for name in ("alice", "bob"))
    for one in (alice, bob):
        words = ["join", server.url, "--log-key", team.log_key.public.did_key]
        if team.access == "private":
            words += ["--group-key", str(team.directory / "group.key")]
        said = one.type(*words).stdout
        assert "2 entries, all verified" in said
    return server, alice, bob


def test_a_colleague_elsewhere_gets_the_hit_and_its_outputs(
    team: Team, pair: tuple[Server, Colleague, Colleague]
) -> None:
    server, alice, bob = pair
    first = alice.run()
    assert (first["status"], first["record"]) == ("trained", 2)
    made = (alice.directory / "model.txt").read_text()
    again = alice.run()
    assert (again["status"], again["record"]) == ("hit", 2)
    answered = bob.run()
    assert (answered["status"], answered["record"]) == ("hit", 2)
    assert (bob.directory / "model.txt").read_text() == made
    assert "run: python train.py" in bob.type("log").stdout
    found = json.loads(bob.type("find", "--json").stdout)
    assert [item["index"] for item in found] == [2]
    assert json.loads(bob.type("show", "2", "--json").stdout)["member"] == "alice"
    receipt = bob.directory / "run.receipt"
    receipt.write_text(bob.type("show", "2", "--receipt").stdout)
    assert "holds" in bob.type("verify", str(receipt)).stdout
    assert "holds" in bob.type("verify").stdout
    bob.type("get", "2", "--name", "model.txt", "--output", "fetched.txt")
    assert (bob.directory / "fetched.txt").read_text() == made
    assert server.stop() == 0
    assert audit(team.directory, default_contracts()).is_sound
    assert audit(bob.copy, default_contracts()).is_sound


def test_a_member_rotates_the_key_that_reads(pair: tuple[Server, Colleague, Colleague]) -> None:
    _, alice, bob = pair
    first = json.loads(alice.type("key", "show", "--json").stdout)
    alice.type("key", "rotate")
    assert json.loads(alice.type("key", "show", "--json").stdout) != first
    assert alice.run()["status"] == "trained"
    assert bob.run()["status"] == "hit"


def test_a_rotation_that_was_interrupted_after_the_server_took_it_is_finished(
    team: Team, pair: tuple[Server, Colleague, Colleague]
) -> None:
    _, alice, _ = pair
    key = alice.home / "keys" / "alice.key"
    before = key.read_bytes()
    alice.type("key", "rotate")
    key.rename(f"{key}.next")  # as it was before the last step
    key.write_bytes(before)
    key.chmod(0o600)
    alice.type("key", "rotate")
    assert key.read_bytes() != before
    assert not key.with_name("alice.key.next").exists()
    assert alice.run()["status"] == "trained"


def test_everything_that_is_published_takes_its_artefacts_along(
    pair: tuple[Server, Colleague, Colleague],
) -> None:
    _, alice, bob = pair
    folder = alice.directory / "dataset"
    folder.mkdir()
    for name in ("a.csv", "b.csv"):
        (folder / name).write_text(name * 100)
    published = json.loads(
        alice.type("publish", "data", "dataset", "--title", "measurements", "--json").stdout
    )
    alice.type("publish", "model", "data.csv", "--title", "a model")
    bob.type("get", str(published["index"]), "--output", "copy-of-dataset")
    assert (bob.directory / "copy-of-dataset" / "b.csv").read_text() == "b.csv" * 100
    bob.type("flag", str(published["index"]), "--error", "wrong unit")
    alice.type("withdraw", str(published["index"]))
    await_publication()
    told = json.loads(bob.type("find", "--kind", "data", "--json").stdout)
    assert told[0]["withdrawn"]
    assert told[0]["flag_count"] == 1


def test_what_is_done_while_the_server_is_away_is_kept_and_sent_later(
    team: Team, pair: tuple[Server, Colleague, Colleague], serve: Start
) -> None:
    server, alice, bob = pair
    alice.run()
    bob.run()
    port = server.port
    assert server.stop() == 0
    (bob.directory / "model.txt").unlink()
    assert bob.run()["status"] == "hit"  # asked of the copy; what it saved was booked before
    (bob.directory / "data.csv").write_text("5,6\n")
    offline = bob.run()
    assert offline["status"] == "trained"
    assert offline["record"] is None
    assert len(list((bob.copy / "spool").glob("*.record"))) == 1
    told = bob.type("log")
    assert "cannot be reached" in told.stderr
    serve(team, port=port)
    back = bob.type("run", "--", "python", "train.py").stderr
    assert "answered from entry" in back
    assert "sent: 1 record that waited is in the ledger now" in back
    assert list((bob.copy / "spool").glob("*.record")) == []
    (alice.directory / "data.csv").write_text("5,6\n")
    await_publication()
    answered = alice.run()
    assert answered["status"] == "hit"
    assert (alice.directory / "model.txt").read_text() == (bob.directory / "model.txt").read_text()


def test_whatever_a_member_records_while_the_server_is_away_is_kept_and_sent_later(
    tmp_path: Path, public_team: Team, serve: Start
) -> None:
    """Each record once and in order, whoever is told of them afterwards; and no record before one that waits."""
    server = serve(public_team)
    alice, bob = (Colleague(tmp_path, public_team, name, server.url) for name in ("alice", "bob"))
    recorded = alice.run()["record"]
    bob.type("get", str(recorded), "--name", "model.txt", "--output", "fetched.txt")  # so that it lies here
    port = server.port
    assert server.stop() == 0
    hit = bob.run()
    assert (hit["status"], hit["credited"]) == ("hit", True)
    (bob.directory / "model.txt").unlink()
    assert bob.run()["credited"] is False, "these joules wait to be booked already"
    (bob.directory / "other.csv").write_text("7,8\n")
    told = bob.type("publish", "data", "other.csv", "--title", "others", "--receipt", "receipt.txt")
    assert "waits: data 'others'" in told.stdout
    assert "The next command that can write to the ledger sends it" in told.stderr
    assert "receipt.txt was not written" in told.stderr
    again = json.loads(bob.type("publish", "data", "other.csv", "--title", "others", "--json").stdout)
    assert (again["index"], again["receipt"], again["is_new"]) == (None, None, False)
    assert Path(again["waits_in"]).exists()
    flagged = json.loads(bob.type("flag", str(recorded), "--error", "odd", "--json").stdout)
    assert flagged["index"] is None
    for _ in range(2):
        told = alice.type("withdraw", str(recorded))
        assert "until it is sent the entry goes on answering" in told.stdout
    serve(public_team, port=port)
    published = json.loads(bob.type("publish", "data", "data.csv", "--json").stdout)
    assert published["index"] is not None
    alice.type("publish", "data", "data.csv")
    entries = [json.loads(line) for line in alice.type("log", "--json").stdout.splitlines()]
    kinds = [
        (entry["kind"], entry["member"])
        for entry in reversed(entries)
        if entry["kind"] not in ("genesis", "seal")
    ]
    assert kinds == [
        ("run", "alice"), ("reuse", "bob"), ("data", "bob"), ("flag", "bob"), ("data", "bob"),
        ("withdraw", "alice"), ("data", "alice"),
    ]  # fmt: skip
    assert list((bob.copy / "spool").glob("**/*.record")) == []
    others = next(entry["index"] for entry in reversed(entries) if entry["kind"] == "data")
    alice.type("get", str(others), "--output", "fetched.csv")
    assert (alice.directory / "fetched.csv").read_text() == "7,8\n"


def test_a_server_put_back_to_an_older_copy_is_refused_by_whoever_saw_more(
    tmp_path: Path, public_team: Team, serve: Start
) -> None:
    server = serve(public_team)
    alice = Colleague(tmp_path, public_team, "alice", server.url)
    alice.run()
    port, old = server.port, tmp_path / "old"
    assert server.stop() == 0
    shutil.copytree(public_team.directory, old)
    server = serve(public_team, port=port)
    assert server.submit(public_team.entry("bob"), receipt=True).status == 201
    alice.type("log")
    assert server.stop() == 0
    forked = Team(
        old, tmp_path / "elsewhere", log_key=public_team.log_key, keys=public_team.keys, id=public_team.id
    )
    server = serve(forked, port=port)
    state = alice.copy / "remote.json"
    told = json.loads(state.read_text())
    state.write_text(json.dumps({**told, "seen_unix_ms": told["seen_unix_ms"] - 60_000}))
    refused = alice.type("log", expect=3)
    assert "behind what was seen before" in refused.stderr
    for _ in range(2):
        assert server.submit(forked.entry("bob"), receipt=True).status == 201
    await_publication()
    refused = alice.type("log", "--json", expect=3)
    assert json.loads(refused.stderr)["error"]["code"] == "rollback"
    kinds = {place.name.split("Z-")[1].rpartition("-")[0] for place in (alice.copy / "evidence").iterdir()}
    assert kinds == {"smaller-tree", "fork"}
    (fork,) = (alice.copy / "evidence").glob("*fork*")
    assert (fork / "split-view.json").exists()


def test_another_ledger_or_key_at_the_same_address_is_refused(
    tmp_path: Path, public_team: Team, serve: Start
) -> None:
    from lichen.crypto.keys import SigningKey

    server = serve(public_team)
    alice = Colleague(tmp_path, public_team, "alice", server.url)
    wrong = SigningKey.generate().public.did_key
    refused = alice.type("join", server.url, "--log-key", wrong, expect=3)
    assert "another log key" in refused.stderr
    assert not (alice.home / "remotes").exists()
    alice.type("join", server.url)
    assert "another log key" in alice.type("join", server.url, "--log-key", wrong, expect=3).stderr
    alice.type("join", server.url, "--log-key", public_team.log_key.public.did_key)
    port = server.port
    assert server.stop() == 0
    serve(Team(tmp_path / "other", tmp_path / "other-server", keys=public_team.keys).found(), port=port)
    assert "did not sign" in alice.type("log", expect=3).stderr


def test_whoever_is_no_member_cannot_read_a_private_ledger(
    tmp_path: Path, private_team: Team, serve: Start
) -> None:
    from lichen.crypto.keys import SigningKey

    server = serve(private_team)
    stranger = Team(tmp_path / "none", tmp_path / "none", keys={"alice": SigningKey.generate()})
    mallory = Colleague(tmp_path, stranger, "alice", server.url)
    refused = mallory.type("join", server.url, expect=2)
    assert "belongs to no member" in refused.stderr
    assert f"lichen key admit NAME {stranger.keys['alice'].public.did_key}" in refused.stderr


def test_the_python_interface_uses_a_served_ledger_too(
    pair: tuple[Server, Colleague, Colleague], tmp_path: Path
) -> None:
    _, alice, bob = pair
    alice.run()
    script = bob.directory / "ask.py"
    script.write_text(
        "import lichen, os\n"
        "with lichen.open(os.environ['LICHEN_LEDGER']) as ledger:\n"
        "    print(ledger.size, ledger.show('@last')['status'], len(lichen.find()))\n"
    )
    await_publication()
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=bob.directory,
        env={**os.environ, "LICHEN_HOME": str(bob.home), "LICHEN_MEMBER": "bob", "LICHEN_LEDGER": bob.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "4 trained 1\n"


@pytest.mark.parametrize(
    "url", ["http://", "http://user@host", "http://host?x", "https://host#x", "http://127.0.0.1:99999", "http://ho st"],
)  # fmt: skip
def test_what_is_no_address_is_said_at_once(tmp_path: Path, public_team: Team, url: str) -> None:
    nobody = Colleague(tmp_path, public_team, "alice", url)
    assert "address" in nobody.type("log", expect=2).stderr


def test_a_server_that_was_never_reached_is_no_ledger(
    tmp_path: Path, public_team: Team, serve: Start
) -> None:
    server = serve(public_team)
    nobody = Colleague(tmp_path, public_team, "alice", server.url)
    server.kill()
    told = nobody.type("log", expect=7).stderr
    assert "cannot be reached" in told
    assert "nothing can be kept for it" in told


def test_a_ledger_of_ones_own_is_imported_into_a_served_one(
    pair: tuple[Server, Colleague, Colleague],
) -> None:
    server, alice, bob = pair
    served, alice.url = alice.url, str(alice.directory / ".lichen")
    alice.type("init")
    alice.run()
    for number in range(3):
        (alice.directory / "data.csv").write_text("1,2\n" * number)
        alice.run()
    alice.url = served
    said = json.loads(alice.type("import", ".", "--reveal", "--json").stdout)
    assert said["imported"] == {"run": 4}
    metrics = server.get("/metrics").text
    assert 'route="/records/batch",status="200"} 1' in metrics
    assert 'lichen_records_total{outcome="appended"} 5' in metrics
    again = json.loads(alice.type("import", ".", "--reveal", "--json").stdout)
    assert (again["imported"], again["known"], again["evidence"]) == ({}, 4, said["evidence"])
    await_publication()
    assert "4 records" in bob.type("import", "--check", str(said["evidence"])).stdout
    (bob.directory / "data.csv").write_text("")
    assert bob.run()["status"] == "hit"
