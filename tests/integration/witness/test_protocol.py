"""The witness protocol over HTTP, sentence by sentence of the specification; and requests it does not foresee."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import signal
import socket
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from lichen.crypto.note import NoteKey, SignedNote
from lichen.ledger.witness_store import WitnessStore

if TYPE_CHECKING:
    from tests.integration.witness.conftest import WitnessProcess

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.integration.witness.conftest import LOG_KEY, ORIGIN, FakeLog

HONEST, FORK = FakeLog(), FakeLog(fork_at=3)
DIGEST = hashlib.sha256(ORIGIN.encode()).hexdigest()


def key_of(witness: WitnessProcess) -> NoteKey:
    return witness.policy_witness.key


def test_a_log_is_cosigned_and_served_as_the_specification_says(
    make_witness: Callable[..., WitnessProcess],
) -> None:
    witness = make_witness()
    assert witness.ask("GET", f"/{DIGEST}/checkpoint")[0] == 404
    for old, size in [(0, 5), (5, 8), (8, 8)]:
        status, _, body = witness.ask("POST", "/add-checkpoint", HONEST.request(old, size))
        assert status == 200
        line = body.decode()
        assert line.startswith("— witness.example/w1 ")
        assert line.count("\n") == 1
        assert line.endswith("\n")
        assert SignedNote.from_text(HONEST.note(size) + line).cosigned_at(key_of(witness)) > 1_700_000_000
        status, _, served = witness.ask("GET", f"/{DIGEST}/checkpoint")
        assert (status, served.decode()) == (200, HONEST.note(size) + line)
        assert SignedNote.from_text(served.decode()).verify([LOG_KEY, key_of(witness)]) == (
            LOG_KEY,
            key_of(witness),
        )


def test_each_refusal_has_its_status_and_a_conflict_says_the_size(
    make_witness: Callable[..., WitnessProcess],
) -> None:
    witness = make_witness()
    witness.ask("POST", "/add-checkpoint", HONEST.request(0, 5))
    stranger = HONEST.request(0, 5).replace(ORIGIN.encode(), b"lichen/" + b"cd" * 32)
    tampered = HONEST.request(5, 8).replace(b"\n8\n", b"\n9\n")
    for body, expected in [
        (b"old five\n", 400), (b"", 400), (stranger, 404), (tampered, 403), (HONEST.request(0, 8), 409),
        (FORK.request(5, 8), 422), (FORK.request(5, 5), 422), (HONEST.request(4, 5), 409),
    ]:  # fmt: skip
        status, media_type, answer = witness.ask("POST", "/add-checkpoint", body)
        assert status == expected, answer
        if expected == 409:
            assert (media_type, answer) == ("text/x.tlog.size", b"5\n")
    assert witness.ask("POST", "/add-checkpoint", HONEST.request(5, 8))[0] == 200


def test_what_the_protocol_does_not_know_is_refused(make_witness: Callable[..., WitnessProcess]) -> None:
    witness = make_witness()
    assert witness.ask("GET", "/add-checkpoint")[0] == 405
    assert witness.ask("POST", "/sign-subtree", b"")[0] == 404
    assert witness.ask("GET", "/nothing/checkpoint")[0] == 404
    assert witness.ask("GET", f"/{DIGEST.upper()}/checkpoint")[0] == 404
    assert witness.ask("GET", "/")[2].decode() == key_of(witness).vkey + "\n"


def test_a_request_that_is_too_large_is_refused_and_the_witness_goes_on(
    make_witness: Callable[..., WitnessProcess],
) -> None:
    witness = make_witness()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may stop reading: refusal enough
        assert witness.ask("POST", "/add-checkpoint", bytes(400_000))[0] == 413
    with socket.create_connection((witness.host, witness.port), timeout=20) as junk:
        junk.sendall(b"\0\xff junk\r\n\r\n")
        assert b"400" in junk.recv(1_000)
    assert witness.ask("POST", "/add-checkpoint", HONEST.request(0, 5))[0] == 200


def test_a_connection_is_kept_for_the_next_request(make_witness: Callable[..., WitnessProcess]) -> None:
    witness = make_witness()
    connection = http.client.HTTPConnection(witness.host, witness.port, timeout=20)
    for size in (1, 2, 3):
        connection.request("POST", "/add-checkpoint", HONEST.request(size - 1, size))
        response = connection.getresponse()
        assert (response.status, response.read()[:3]) == (200, "—".encode())
    connection.close()


def test_requests_for_one_log_at_once_leave_one_history(make_witness: Callable[..., WitnessProcess]) -> None:
    witness = make_witness()
    signed: list[tuple[int, bytes]] = []

    def ask(log: FakeLog) -> None:
        size = 0
        for _ in range(12):
            status, _, answer = witness.ask("POST", "/add-checkpoint", log.request(size, size + 2))
            if status == 200:
                size += 2
                signed.append((size, log.root(size)))
            elif status == 409:
                size = int(answer)

    threads = [threading.Thread(target=ask, args=(FORK if n % 2 else HONEST,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert signed
    assert any(all(log.root(size) == root for size, root in signed) for log in (HONEST, FORK))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_witness_that_is_told_to_stop_ends_in_order(
    make_witness: Callable[..., WitnessProcess], number: int
) -> None:
    witness = make_witness()
    witness.ask("POST", "/add-checkpoint", HONEST.request(0, 5))
    assert witness.stop(number) == 0
    with WitnessStore.open(witness.directory, home=witness.home) as store:
        assert store.records()[0].seen.size == 5
