"""Witnesses as processes of their own, and a log that says whatever a test needs it to say."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey
from lichen.ledger.checkpoint import Checkpoint, sign_checkpoint
from lichen.ledger.policy import Witness
from lichen.ledger.proof import consistency_proof
from lichen.ledger.tree import leaf_hash, root_of
from lichen.ledger.witness import AddCheckpoint
from lichen.ledger.witness_store import WitnessStore

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

LOG = SigningKey.from_seed(b"l" * 32)
ORIGIN = "lichen/" + "ab" * 32
LOG_KEY = NoteKey(ORIGIN, LOG.public)


class FakeLog:
    """A log of numbered leaves; from ``fork_at`` on it is another one."""

    def __init__(self, fork_at: int | None = None) -> None:
        self.fork_at = fork_at

    def leaves(self, size: int) -> list[bytes]:
        fork_at = size if self.fork_at is None else self.fork_at
        return [leaf_hash((b"%d" if n < fork_at else b"fork %d") % n) for n in range(size)]

    def root(self, size: int) -> bytes:
        return root_of(self.leaves(size))

    def note(self, size: int) -> str:
        return sign_checkpoint(Checkpoint(ORIGIN, size, self.root(size)), LOG)

    def prove(self, first: int, second: int) -> list[bytes]:
        leaves = self.leaves(second)
        return consistency_proof(first, second, lambda start, end: root_of(leaves[start:end]))

    def request(self, old: int, size: int) -> bytes:
        return AddCheckpoint(old, tuple(self.prove(old, size)), self.note(size)).to_bytes()


class WitnessProcess:
    """`lichen witness serve` in a process of its own."""

    def __init__(self, directory: Path, home: Path) -> None:
        self.directory, self.home = directory, home
        self.process: subprocess.Popen[str] | None = None
        self.host, self.port = "127.0.0.1", 0

    def start(self) -> None:
        """Start it, on the port it had before if it had one, and wait until it says that it answers."""
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "lichen",
                "witness",
                "serve",
                "--port",
                str(self.port),
                "--directory",
                str(self.directory),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "LICHEN_HOME": str(self.home)},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert " at http://" in line, line
        self.port = int(line.split(" at http://")[1].split("/")[0].rpartition(":")[2])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait; return the exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(20)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return status

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, str, bytes]:
        """Send one request; return status, media type and body."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=20)
        try:
            connection.request(method, path, body)
            response = connection.getresponse()
            return response.status, response.getheader("Content-Type", ""), response.read()
        finally:
            connection.close()

    @property
    def policy_witness(self) -> Witness:
        """This witness, as a policy names it."""
        with WitnessStore.open(self.directory) as store:
            return Witness(b"W", store.identity.note_key, f"http://{self.host}:{self.port}/")


@pytest.fixture
def make_witness(tmp_path: Path) -> Iterator[Callable[..., WitnessProcess]]:
    """Makes witnesses that know the fake log, or the logs given, and serve; all end with the test."""
    made: list[WitnessProcess] = []

    def make(name: str = "w1", *keys: NoteKey) -> WitnessProcess:
        home = tmp_path / f"home of {name}"
        with WitnessStore.create(tmp_path / name, f"witness.example/{name}", home=home) as store:
            for key in keys or (LOG_KEY,):
                store.add_log(key)
        witness = WitnessProcess(tmp_path / name, home)
        made.append(witness)
        witness.start()
        return witness

    yield make
    for witness in made:
        if witness.process is not None:
            witness.stop(signal.SIGKILL)
