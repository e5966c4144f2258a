"""What a fetcher makes of servers that answer well, badly, too much, or not at all."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lichen.content.directory_store import DirectoryStore
from lichen.content.unixfs import hash_bytes
from lichen.crypto.keys import SigningKey
from lichen.errors import (
    LichenError,
    NetworkError,
    NotFoundError,
    Rejected,
    RemoteProtocolError,
    UsageError,
    VerificationError,
)
from lichen.net.remote import connection as connection_file
from lichen.net.remote.connection import Connection, check_url
from lichen.net.remote.remote_log import RemoteLog
from lichen.net.remote.remote_store import RemoteStore
from lichen.net.signed_request import SignedRequest


class Script:
    """A server that gives prepared answers, one for each request, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: list[bytes | None] = []
        self.requests: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._listening.settimeout(0.05)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def says(self, status: int, body: bytes = b"", **headers: str) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.answers.append(
            f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{head}\r\n".encode() + body
        )

    def refuses(self, status: int, **told: object) -> None:
        self.says(status, json.dumps({"detail": "no", "status": status, **told}).encode())

    def _serve(self) -> None:
        while not self._is_over.is_set():
            try:
                caller, _ = self._listening.accept()
            except TimeoutError:
                continue
            with caller, contextlib.suppress(ConnectionError):  # who has seen enough may leave
                caller.settimeout(0.5)
                self._answer_all(caller)

    def _answer_all(self, caller: socket.socket) -> None:
        while not self._is_over.is_set():
            request = b""
            try:
                while b"\r\n\r\n" not in request:
                    piece = caller.recv(65_536)
                    if not piece:
                        return
                    request += piece
            except TimeoutError:
                continue
            self.requests.append(request)
            answer = self.answers.pop(0) if self.answers else None
            if answer is None:
                return
            caller.sendall(answer)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(30)
        self._listening.close()


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Script]:
    monkeypatch.setattr(connection_file, "AWAY_SECONDS", 0.0)
    made = Script()
    yield made
    made.close()


@pytest.fixture
def log(script: Script) -> Iterator[RemoteLog]:
    key = SigningKey.generate()
    made = RemoteLog(Connection(script.url, 20.0), lambda: key)
    made.ledger_id = "a" * 64
    yield made
    made.close()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("http://127.0.0.1:8750/", "http://127.0.0.1:8750"),
        ("HTTPS://Ledger.Example.org", "https://ledger.example.org"),
        ("http://[::1]:80", "http://[::1]:80"),
        ("https://example.org/team/ledger/", "https://example.org/team/ledger"),
    ],
)
def test_an_address_has_one_spelling(typed: str, meant: str) -> None:
    assert check_url(typed) == meant


@pytest.mark.parametrize(
    "typed", ["", "ftp://host", "http://", "http://a:b@host", "http://host?q", "http://host#f", "http://host:x", "http://h\nost", "http://ho\u00e9st"],
)  # fmt: skip
def test_anything_else_is_no_address(typed: str) -> None:
    with pytest.raises(UsageError):
        check_url(typed)


def test_an_answer_is_read_and_the_connection_kept(script: Script, log: RemoteLog) -> None:
    script.says(200, b"first\n")
    script.says(200, b"second\n")
    assert (log.checkpoint(), log.checkpoint()) == ("first\n", "second\n")


def test_a_connection_that_went_stale_is_opened_anew(script: Script, log: RemoteLog) -> None:
    script.says(200, b"first\n")
    script.answers.append(None)  # closes instead of answering
    script.says(200, b"second\n")
    assert (log.checkpoint(), log.checkpoint()) == ("first\n", "second\n")


def test_a_server_that_hangs_up_is_away_and_nobody_knows_what_it_did(script: Script, log: RemoteLog) -> None:
    with pytest.raises(NetworkError) as lost:
        log.checkpoint()
    assert not lost.value.definite


def test_a_server_that_is_not_there_took_nothing_and_is_not_asked_again_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    connection = Connection(f"http://127.0.0.1:{port}")
    for _ in range(2):
        with pytest.raises(NetworkError) as away:
            connection.ask("GET", "/", limit=10)
        assert away.value.definite
    assert "a moment ago" in away.value.message


def test_more_than_was_asked_for_is_not_read(script: Script, log: RemoteLog) -> None:
    script.says(200, bytes(1_000_001))
    with pytest.raises(RemoteProtocolError, match="more than"):
        log.checkpoint()


@pytest.mark.parametrize("answer", [b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n"])
def test_what_is_no_http_is_said_so(script: Script, log: RemoteLog, answer: bytes) -> None:
    script.answers.append(answer)
    with pytest.raises(RemoteProtocolError):
        log.checkpoint()


@pytest.mark.parametrize(
    ("status", "told", "kind"),
    [
        (404, {}, NotFoundError),
        (401, {}, UsageError),
        (403, {}, UsageError),
        (403, {"rule": "members.not-admitted"}, Rejected),
        (422, {"rule": "registry.schema"}, Rejected),
        (429, {}, NetworkError),
        (500, {}, NetworkError),
        (503, {}, NetworkError),
        (418, {}, RemoteProtocolError),
        (302, {}, RemoteProtocolError),
        (304, {}, RemoteProtocolError),
    ],
)
def test_every_refusal_has_its_meaning(
    script: Script, log: RemoteLog, status: int, told: dict[str, str], kind: type[LichenError]
) -> None:
    script.refuses(status, **told)
    with pytest.raises(kind) as refused:
        log.checkpoint()
    assert type(refused.value) is kind
    if isinstance(refused.value, NetworkError):
        assert refused.value.definite is (status != 500)


def test_what_a_server_says_cannot_write_to_the_terminal(script: Script, log: RemoteLog) -> None:
    script.refuses(404, detail="\x1b[2Jgone\r\n" + "x" * 5_000)
    with pytest.raises(NotFoundError) as refused:
        log.checkpoint()
    assert "\x1b" not in refused.value.message
    assert len(refused.value.message) < 700


def test_answers_of_the_wrong_form_are_refused(script: Script, log: RemoteLog) -> None:
    for body, ask in (
        (b"[1]", log.about),
        (b"{", log.about),
        (b"\xff", log.checkpoint),
        (bytes(31), lambda: log.tile(0, 0, 1)),
        (b"\0\5abc", lambda: log.bundle(0, 1)),
        (bytes(64), lambda: log.checkpoint_signatures(0, 1)),
    ):
        script.says(200, body)
        with pytest.raises(RemoteProtocolError):
            ask()


def test_when_the_clocks_differ_the_servers_time_is_learnt_once(script: Script, log: RemoteLog) -> None:
    log.is_private = True
    there = int(time.time()) + 1_000
    script.refuses(401, server_time_unix_seconds=there)
    script.says(200, b"checkpoint\n")
    assert log.checkpoint() == "checkpoint\n"
    first, second = (created_of(request) for request in script.requests)
    assert 990 <= second - first <= 1_010
    script.refuses(401, server_time_unix_seconds=there + 100_000)
    with pytest.raises(UsageError):
        log.checkpoint()


def created_of(request: bytes) -> int:
    headers = dict(line.split(": ", 1) for line in request.decode().split("\r\n")[1:] if ": " in line)
    return SignedRequest.parse(headers["Signature-Input"], headers["Signature"]).created


def test_an_artefact_is_kept_only_when_it_is_what_was_asked_for(
    script: Script, log: RemoteLog, tmp_path: Path
) -> None:
    store = DirectoryStore(tmp_path / "store")
    data = b"a model" * 100_000
    cid = hash_bytes(data).cid
    script.says(200, data[:-1] + b"?")
    with pytest.raises(VerificationError):
        log.fetch_artefact(cid, store, len(data))
    assert not store.has(cid)
    script.says(404, b"{}")
    with pytest.raises(NotFoundError):
        log.fetch_artefact(cid, store, len(data))
    script.says(200, data)
    log.fetch_artefact(cid, store, len(data))
    assert store.read_bytes(cid) == data


@pytest.mark.parametrize("is_chunked", [False, True])
def test_an_artefact_is_no_larger_than_was_stated(
    script: Script, log: RemoteLog, tmp_path: Path, is_chunked: bool
) -> None:
    store = DirectoryStore(tmp_path / "store")
    data = b"a model" * 100_000
    cid = hash_bytes(data).cid
    if is_chunked:
        piece = b"%x\r\n%b\r\n" % (len(data), data)
        script.answers.append(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + piece + b"0\r\n\r\n")
    else:
        script.says(200, data)
    with pytest.raises(RemoteProtocolError, match="more than 699,999 bytes"):
        log.fetch_artefact(cid, store, len(data) - 1)
    assert list(store.list()) == []
    assert not any((tmp_path / "store").rglob("incoming/*"))


def test_what_has_no_stated_size_is_bounded_too(script: Script, log: RemoteLog, tmp_path: Path) -> None:
    store = RemoteStore(tmp_path / "store", log)
    cid = hash_bytes(b"x").cid
    for read, most in (
        (lambda: store.open(cid), "1,073,741,824"),
        (lambda: store.read_bytes(cid), "67,108,864"),
        (lambda: store.read_bytes(cid, 2**40), "67,108,864"),
        (lambda: store.read_bytes(cid, 100), "100"),
        (lambda: store.bring(cid, 7), "7"),
    ):
        script.answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n")
        script.answers.append(None)
        with pytest.raises(RemoteProtocolError, match=f"more than {most} bytes"):
            read()
        script.answers.clear()


@pytest.mark.parametrize("size", ["", "many", "-1"])
def test_an_artefact_without_a_size_is_refused(script: Script, log: RemoteLog, size: str) -> None:
    script.answers.append(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode() if size else b"HTTP/1.1 200 OK\r\n\r\n")  # fmt: skip
    with pytest.raises((RemoteProtocolError, NetworkError)):
        log.artefact_size(hash_bytes(b"x").cid)


def test_nothing_is_sent_that_the_server_has(script: Script, log: RemoteLog, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    cid = store.put_bytes(b"x").cid
    script.answers.append(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n")
    log.put_artefact(cid, store)
    assert [request.split(b" ")[0] for request in script.requests] == [b"HEAD"]


def test_a_record_without_its_receipt_is_not_believed(script: Script, log: RemoteLog) -> None:
    from lichen.encoding.entry import Entry

    entry = Entry(bytes(16), bytes(64), b"x")
    for told in ({}, {"index": "2", "receipt": "r"}, {"index": 2}, {"index": True, "receipt": "r"}):
        script.says(201, json.dumps(told).encode())
        with pytest.raises(RemoteProtocolError):
            log.submit(entry)
    script.says(201, b'{"index": 2, "receipt": "r"}')
    assert log.submit(entry) == (2, "r")
