"""A gateway is asked and never believed: real servers that tell the truth, lie, stop, go on for ever, or point elsewhere."""

from __future__ import annotations

import contextlib
import http.server
import io
import threading
from collections.abc import Callable, Iterator

import pytest

from lichen.content.car import car_pieces, export_artefact
from lichen.content.memory_store import MemoryStore
from lichen.content.unixfs import CHUNK_SIZE, hash_bytes
from lichen.errors import (
    EncodingError,
    LichenError,
    NetworkError,
    NotFoundError,
    RemoteProtocolError,
    UsageError,
    VerificationError,
)
from lichen.net.ipfs.gateway_client import Gateway, fetch_from_any
from lichen.net.remote.connection import Connection

from .conftest import Server, Team
from .test_gateway import LARGE, SMALL, keep

Answer = Callable[[http.server.BaseHTTPRequestHandler], object]
CID = hash_bytes(LARGE).cid


def car_of(data: bytes) -> bytes:
    store, stream = MemoryStore(), io.BytesIO()
    export_artefact(store, store.put_bytes(data).cid, stream)
    return stream.getvalue()


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        for name, value in ({"Content_Length": str(len(body))} | headers).items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()
        with contextlib.suppress(OSError):
            request.wfile.write(body)
        request.close_connection = True

    return answer


@contextlib.contextmanager
def gateway(answer: Answer) -> Iterator[Gateway]:
    """A server on a port of this machine that answers everything the same way."""

    class Handler(http.server.BaseHTTPRequestHandler):
        do_GET = do_HEAD = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        try:
            with Gateway(url, Connection(url, timeout_seconds=5, patience_seconds=5)) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


def test_a_file_comes_from_the_server_of_a_ledger(public_team: Team, serve: Callable[..., Server]) -> None:
    cids = keep(public_team, b"", SMALL, LARGE)
    server = serve(public_team)
    store = MemoryStore()
    with Gateway(f"http://127.0.0.1:{server.port}/") as client:
        for cid, data in zip(cids, (b"", SMALL, LARGE), strict=True):
            assert client.has(cid)
            assert client.fetch(cid, store) == hash_bytes(data)
            assert store.read_bytes(cid) == data
        other = hash_bytes(b"other").cid
        assert not client.has(other)
        with pytest.raises(NotFoundError, match="does not have"):
            client.fetch(other, store)
        with pytest.raises(UsageError, match="at most 100 are accepted"):
            client.fetch(cids[2], MemoryStore(), 100)


def test_a_gateway_that_gives_blocks_alone_is_asked_for_each(
    public_team: Team, serve: Callable[..., Server]
) -> None:
    (cid,) = keep(public_team, LARGE)
    server = serve(public_team)
    asked: list[str] = []

    def blocks_alone(request: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        if "format=car" in request.path:
            says(406)(request)
        else:
            told = server.get(request.path)
            says(told.status, told.body)(request)

    store = MemoryStore()
    with gateway(blocks_alone) as client:
        assert client.fetch(cid, store) == hash_bytes(LARGE)
    assert store.read_bytes(cid) == LARGE
    assert len(asked) >= 3


TRUTH = car_of(LARGE)
WRONG: dict[str, tuple[Answer, type[LichenError]]] = {
    "another file": (says(200, car_of(SMALL)), VerificationError),
    "one changed byte": (says(200, TRUTH[:-1] + b"!"), VerificationError),
    "cut short in a block": (says(200, TRUTH[:-10]), EncodingError),
    "cut short between blocks": (says(200, TRUTH[: -(len(LARGE) % CHUNK_SIZE) - 37]), UsageError),
    "less than it said": (says(200, TRUTH[:-10], Content_Length=str(len(TRUTH))), NetworkError),
    "no CAR file": (says(200, b"<html>sign in here</html>"), EncodingError),
    "nothing": (says(200), EncodingError),
    "elsewhere": (says(302, Location="http://127.0.0.1:1/"), RemoteProtocolError),
    "not found": (says(404), NotFoundError),
    "gone": (says(410), NotFoundError),
    "busy": (says(503), NetworkError),
    "members only": (says(401), UsageError),
    "no HTTP": (lambda request: request.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n"), RemoteProtocolError),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_the_truth_is_not_stored(name: str) -> None:
    answer, kind = WRONG[name]
    store = MemoryStore()
    with gateway(answer) as client, pytest.raises(kind):
        client.fetch(CID, store)
    assert list(store.list()) == []


def test_blocks_without_end_are_cut_off() -> None:
    filler = bytes(CHUNK_SIZE)
    sent = 0

    def endless(request: http.server.BaseHTTPRequestHandler) -> None:
        nonlocal sent
        request.send_response(200)
        request.end_headers()
        with contextlib.suppress(OSError):
            for piece in car_pieces(
                CID, ((hash_bytes(b"%d" % n + filler[8:]).cid, b"%d" % n + filler[8:]) for n in range(10**6))
            ):
                sent += request.wfile.write(piece)

    store = MemoryStore()
    with gateway(endless) as client, pytest.raises(RemoteProtocolError, match="more than"):
        client.fetch(CID, store, 2**21)
    assert list(store.list()) == []
    assert sent < 2**26


def test_a_gateway_that_never_answers_is_given_up() -> None:
    over = threading.Event()

    def hangs(_request: http.server.BaseHTTPRequestHandler) -> None:
        over.wait(60)

    with gateway(hangs) as client:
        patient = Gateway(client.url, Connection(client.url, timeout_seconds=0.2, patience_seconds=0.2))
        try:
            with pytest.raises(NetworkError):
                patient.fetch(CID, MemoryStore())
        finally:
            over.set()
            patient.close()


def test_the_next_gateway_is_asked_when_one_lies() -> None:
    store = MemoryStore()
    with (
        gateway(says(200, TRUTH[:-1] + b"!")) as liar,
        gateway(says(404)) as poor,
        gateway(says(200, TRUTH)) as honest,
    ):
        names, wrong = fetch_from_any([liar, poor, honest], CID, store)
        assert names.cid == CID
        assert [type(error) for error in wrong] == [VerificationError, NotFoundError]
        assert store.read_bytes(CID) == LARGE
        with pytest.raises(NotFoundError, match="does not have"):
            fetch_from_any([liar, poor], CID, MemoryStore())
    with pytest.raises(NotFoundError, match="no gateway was named"):
        fetch_from_any([], CID, store)


def test_a_block_of_the_wrong_bytes_is_refused() -> None:
    with gateway(says(200, b"wrong")) as client, pytest.raises(VerificationError, match="sent other bytes"):
        client.block(CID)
