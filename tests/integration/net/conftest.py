"""A team with a ledger, and a real server process on a port of this machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from lichen.contracts import default_contracts, default_versions
from lichen.crypto.key_file import write_key
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger
from lichen.net import http_process
from lichen.net.listening import bind
from lichen.net.server import process
from lichen.net.server.service import Service
from lichen.net.server.settings import ServerSettings
from lichen.net.signed_request import sign_request
from lichen.runs.queries.views import default_views

PARTS = ("command", "code", "data", "rest", "seed")
ENTRY_TYPE = "application/vnd.lichen.entry"


@dataclass
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()


@dataclass
class Team:
    """A ledger with two members, and the keys of everybody.

    Attributes:
        directory: Of the ledger.
        home: Of whoever serves it.
    """

    directory: Path
    home: Path
    access: str = "public"
    slot_ms: int = 3_600_000
    log_key: SigningKey = field(default_factory=SigningKey.generate)
    keys: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in ("alice", "bob")}
    )
    id: str = ""

    def found(self) -> Team:
        genesis = Genesis(
            name="clinic",
            created_unix_ms=1_700_000_000_000,
            admins=tuple(Admin(name, key.public) for name, key in self.keys.items()),
            log_key=self.log_key.public,
            contracts=default_versions(),
            nonce=os.urandom(12),
            sealing=Sealing(entries_max=1_000, slot_ms=self.slot_ms),
            access=self.access,
        )
        with Ledger.create(
            self.directory, genesis, self.log_key, default_contracts(), default_views(), home=self.home
        ) as ledger:
            self.id = ledger.id
        write_key(self.directory / "log.key", self.log_key)
        if self.access == "private":
            group_key = self.directory / "group.key"
            group_key.write_text(secrets.token_hex(32) + "\n")
            group_key.chmod(0o600)
        return self

    def statement(self, member: str = "alice", **changes: Any) -> Statement:
        """A plausible run, different each time."""
        said = {
            "status": "trained",
            "reusable": True,
            "parts": {part: b64u(os.urandom(32)) for part in PARTS},
            "family": b64u(bytes(16)),
            "data": [b64u(b"d" * 32)],
            "data_count": 1,
            "metrics": {"accuracy": 0.951},
            "energy": {
                "joules": 1840.5, "u95": 0.11, "method": "model", "boundary": "process", "seconds": 20.5,
            },
            "manifest": "bafkrei" + "a" * 52,
            "exit_status": 0,
            "ledger": b64u(bytes.fromhex(self.id)),
            "member": member,
            "nonce": b64u(os.urandom(12)),
            "time_unix_ms": 1_700_000_000_000,
        }  # fmt: skip
        return Statement("run", (Subject("output/0", os.urandom(32)),), said | changes)

    def entry(self, member: str = "alice", **changes: Any) -> Entry:
        return Entry.signed(self.statement(member, **changes).to_bytes(), self.keys[member])

    def open(self, *, read_only: bool = True) -> Ledger:
        key = None if read_only else self.log_key
        return Ledger.open(self.directory, default_contracts(), default_views(), key, read_only=read_only)


class Server:
    """`lichen serve` in a process of its own."""

    def __init__(self, team: Team, *options: str, port: int = 0) -> None:
        self.team = team
        self._log = team.home / "serve.log"
        self._log.parent.mkdir(exist_ok=True)
        self._place = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lichen", "serve", "--port", str(port), "--ledger", str(team.directory), *options],
                env={**os.environ, "LICHEN_HOME": str(team.home), "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )  # fmt: skip
        self.port = self._wait_until_ready()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log(self) -> str:
        return self._log.read_bytes()[self._place :].decode()

    def _wait_until_ready(self) -> int:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if (found := re.search(r"at http://127\.0\.0\.1:(\d+)\n", self.log())) is not None:
                return int(found[1])
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"the server did not start:\n{self.log()}")

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        key: SigningKey | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Answer:
        """Send one request, signed when a key is given."""
        all_headers = dict(headers or {})
        if key is not None:
            all_headers |= sign_request(
                key, self.team.id, method, path, created=int(time.time()), nonce=os.urandom(16)
            )
        with contextlib.ExitStack() as stack:
            chosen = connection or stack.enter_context(contextlib.closing(self.connect()))
            chosen.request(method, path, body, all_headers)
            response = chosen.getresponse()
            return Answer(
                response.status,
                {name.lower(): value for name, value in response.getheaders()},
                response.read(),
            )

    def get(self, path: str, **options: Any) -> Answer:
        return self.ask("GET", path, **options)

    def submit(self, entry: Entry, *, receipt: bool = False, **options: Any) -> Answer:
        path = "/records?receipt=yes" if receipt else "/records"
        return self.ask("POST", path, entry.to_bytes(), {"Content-Type": ENTRY_TYPE}, **options)

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def kill(self) -> None:
        """Kill -9."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)


@contextlib.contextmanager
def serving_thread(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[[socket.socket, Callable[[], None]], None]
) -> Iterator[int]:
    """Run a server in a thread of this process, where it can take no signals; its port."""
    servers: list[uvicorn.Server] = []

    class WithoutSignals(http_process.HttpServer):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            servers.append(self)
            yield

    monkeypatch.setattr(http_process, "HttpServer", WithoutSignals)
    listening, ready = bind("127.0.0.1", 0), threading.Event()
    port = listening.getsockname()[1]
    thread = threading.Thread(target=serve, args=(listening, ready.set))
    thread.start()
    try:
        assert ready.wait(60)
        yield port
    finally:
        for each in servers:
            each.should_exit = True
        thread.join(60)
    assert not thread.is_alive()


@contextlib.contextmanager
def in_thread(team: Team, settings: ServerSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with settings that the command line does not offer, in a thread of this process."""
    service = Service(team.directory, team.log_key, settings)
    with serving_thread(
        monkeypatch, lambda listening, ready: process.serve(service, listening, ready)
    ) as port:
        server = Server.__new__(Server)
        server.team, server.port = team, port
        yield server


def problem(answer: Answer, status: int, code: str) -> Any:
    """Check that an answer is a problem document of that status and name; what it says."""
    assert answer.status == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    told = answer.json()
    assert told["type"] == f"urn:lichen:problem:{code}"
    assert told["status"] == status
    assert told["detail"]
    return told


def drip(port: int, head: bytes) -> bytes:
    """Begin a request and go on with a byte ten times a second, for ever; what came back until the server hung up."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=0.1) as caller, contextlib.suppress(OSError):
        caller.sendall(head)
        for _ in range(600):
            with contextlib.suppress(TimeoutError):
                piece = caller.recv(65_536)
                received += piece
                if not piece:
                    return received
            caller.sendall(b"x")
    assert received, "the server neither answered nor hung up within a minute"
    return received


@pytest.fixture(params=["public", "private"])
def team(request: pytest.FixtureRequest, tmp_path: Path) -> Team:
    """A team with a ledger, once public and once private."""
    return Team(tmp_path / "ledger", tmp_path / "server", access=request.param).found()


@pytest.fixture
def public_team(tmp_path: Path) -> Team:
    return Team(tmp_path / "ledger", tmp_path / "server").found()


@pytest.fixture
def private_team(tmp_path: Path) -> Team:
    return Team(tmp_path / "ledger", tmp_path / "server", access="private").found()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers; none of them outlives the test."""
    started: list[Server] = []

    def start(team: Team, *options: str, port: int = 0) -> Server:
        started.append(Server(team, *options, port=port))
        return started[-1]

    yield start
    for server in started:
        server.kill()
