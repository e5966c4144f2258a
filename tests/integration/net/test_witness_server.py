"""A witness as a server: it answers, and gives up on callers who never say what they want."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from lichen.ledger.witness_store import WitnessStore
from lichen.net.http_process import Patience
from lichen.net.witness.server import serve_witness

from .conftest import drip, serving_thread


@pytest.fixture
def witness(tmp_path: Path) -> Callable[[socket.socket, Callable[[], None]], None]:
    """Serves a witness that gives callers half a second."""
    store = WitnessStore.create(tmp_path / "witness", "witness.example/w1", home=tmp_path / "home")
    return lambda listening, ready: serve_witness(
        store, listening, ready, patience=Patience(head_seconds=0.5, idle_seconds=1)
    )


def verifier_key(port: int) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/")
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.status == 200
    return text


@pytest.mark.parametrize("head", [b"", b"P", b"POST /add-checkpoint HTTP/1.1\r\nX-Slow: "])
def test_whoever_sends_the_head_byte_by_byte_is_told_and_cut_off(witness, monkeypatch, head: bytes) -> None:
    with serving_thread(monkeypatch, witness) as port:
        assert verifier_key(port).startswith("witness.example/w1+")
        received = drip(port, head)
        assert received.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 400 "))
        assert b"content-type: text/plain" in received.lower()
        assert verifier_key(port).startswith("witness.example/w1+")


def test_many_who_send_nothing_do_not_keep_others_out_for_long(witness, monkeypatch) -> None:
    with serving_thread(monkeypatch, witness) as port:
        idle = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(300)]
        for each in idle:
            assert each.recv(12) in (b"HTTP/1.1 408", b"HTTP/1.1 503")
            each.close()
        assert verifier_key(port).startswith("witness.example/w1+")


def test_a_head_without_end_is_refused(witness, monkeypatch) -> None:
    with serving_thread(monkeypatch, witness) as port:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as caller:
            caller.sendall(b"GET / HTTP/1.1\r\nX-Filler: " + b"a" * 20_000)
            assert caller.recv(12) in (b"HTTP/1.1 431", b"HTTP/1.1 400")
        assert verifier_key(port).startswith("witness.example/w1+")
