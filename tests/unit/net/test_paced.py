"""Servers that send, but never enough: the caller leaves at a deadline, whatever drips."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from lichen.crypto.keys import SigningKey
from lichen.errors import NetworkError
from lichen.net.paced import BYTES_PER_SECOND_MIN, Pace
from lichen.net.remote.connection import Connection
from lichen.net.remote.remote_log import RemoteLog

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n"
WAYS = {
    "body": itertools.chain([HEAD], itertools.repeat(b" ")),
    "interim answers": itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "status line": itertools.chain([b"HTTP/1.1 200 "], itertools.repeat(b"O")),
    "headers": itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], itertools.repeat(b"y")),
    "chunks": itertools.chain([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], itertools.repeat(b"1\r\n \r\n")),
}  # fmt: skip


class Clock:
    """Time that passes whenever it is looked at."""

    def __init__(self, step_seconds: float) -> None:
        self.seconds = 0.0
        self.step_seconds = step_seconds

    def __call__(self) -> float:
        self.seconds += self.step_seconds
        return self.seconds


def drip(caller: socket.socket, pieces: Iterator[bytes]) -> None:
    """Send piece after piece, each only when the other side could have read the one before, until it leaves."""
    caller.settimeout(0.005)
    caller.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in pieces:
        try:
            caller.sendall(piece)
            while caller.recv(65_536):
                pass
            return
        except TimeoutError:
            continue
        except OSError:
            return


@pytest.fixture
def dripping() -> Iterator[Callable[[Iterator[bytes]], str]]:
    listening = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def start(pieces: Iterator[bytes]) -> str:
        def serve() -> None:
            caller, _ = listening.accept()
            with caller:
                drip(caller, pieces)

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for thread in threads:
        thread.join(30)
    listening.close()


@pytest.mark.parametrize("way", WAYS)
def test_a_server_that_drips_is_left(dripping: Callable[[Iterator[bytes]], str], way: str) -> None:
    clock = Clock(step_seconds=2.0)
    connection = Connection(dripping(WAYS[way]), patience_seconds=60.0, clock=clock)
    log = RemoteLog(connection, SigningKey.generate)
    with pytest.raises(NetworkError, match="no whole answer within 60 s"):
        log.about()
    assert clock.seconds < 100
    log.close()


def test_a_body_that_comes_earns_its_time_and_a_head_does_not() -> None:
    clock = Clock(step_seconds=0.0)
    pace = Pace(20.0, 60.0, clock)
    pace.passed(10 * BYTES_PER_SECOND_MIN)
    clock.seconds = 59.0
    assert pace.wait_seconds() == 1.0
    pace.earn(is_earning=True)
    pace.passed(10 * BYTES_PER_SECOND_MIN)
    assert pace.wait_seconds() == 11.0
    pace.passed(100 * BYTES_PER_SECOND_MIN)
    assert pace.wait_seconds() == 20.0
    clock.seconds = 171.0
    with pytest.raises(TimeoutError, match="60 s"):
        pace.wait_seconds()
    pace.start()
    pace.passed(10 * BYTES_PER_SECOND_MIN)
    clock.seconds += 61
    with pytest.raises(TimeoutError):
        pace.wait_seconds()
