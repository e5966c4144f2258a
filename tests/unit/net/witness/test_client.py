"""The log's side of the protocol, against witnesses that answer wrongly, slowly, hugely, or not at all."""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, NoteSignature, SignatureType, cosign_note
from lichen.errors import LichenError, NetworkError, RemoteProtocolError, RollbackError, UsageError
from lichen.ledger.checkpoint import Checkpoint, sign_checkpoint
from lichen.ledger.policy import Witness
from lichen.ledger.witness import AddCheckpoint
from lichen.net.witness.client import fetch_seen, request_cosignature

LOG, KEY, STRANGER = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
ORIGIN = "lichen/" + "ab" * 32
NOTE = sign_checkpoint(Checkpoint(ORIGIN, 20, bytes(range(32))), LOG)
BODY = NOTE.partition("\n\n")[0] + "\n"
WITNESS_KEY = NoteKey("w.example/1", KEY.public, SignatureType.COSIGNATURE_V1)
TIME = 1_760_000_000
GOOD = cosign_note(BODY, WITNESS_KEY.name, KEY, TIME).line.encode()


def http_answer(status: int, body: bytes, **headers: str) -> bytes:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


@dataclass
class Answers:
    """A server that gives each connection the next of some answers, byte for byte; the last one again and again."""

    given: list[bytes]
    heard: list[bytes] = field(default_factory=list)
    is_silent: bool = False

    def __post_init__(self) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port = self.listening.getsockname()[1]
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection:
                data = b""
                while b"\r\n\r\n" not in data:
                    data += connection.recv(65_536)
                head, _, body = data.partition(b"\r\n\r\n")
                length = next((int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0)  # fmt: skip
                while len(body) < length:
                    body += connection.recv(65_536)
                self.heard.append(body)
                if self.is_silent:
                    self.done.wait(20)
                    continue
                answer = self.given.pop(0) if len(self.given) > 1 else self.given[0]
                try:
                    connection.sendall(answer)
                except OSError:
                    continue

    def close(self) -> None:
        self.done.set()
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join(20)


@pytest.fixture
def answering() -> Iterator[Callable[..., tuple[Witness, Answers]]]:
    made: list[Answers] = []

    def make(*given: bytes, is_silent: bool = False) -> tuple[Witness, Answers]:
        answers = Answers(list(given), is_silent=is_silent)
        made.append(answers)
        return Witness(b"W", WITNESS_KEY, f"http://127.0.0.1:{answers.port}/prefix/"), answers

    yield make
    for answers in made:
        answers.close()


def prove(first: int, second: int) -> list[bytes]:
    return [] if first in (0, second) else [bytes([first]) * 32]


def test_a_cosignature_is_taken_and_others_beside_it_ignored(
    answering: Callable[..., tuple[Witness, Answers]],
) -> None:
    stranger = cosign_note(BODY, "else/where", STRANGER, TIME).line.encode()
    witness, answers = answering(http_answer(200, stranger + GOOD))
    found = request_cosignature(witness, NOTE, prove)
    assert found.time_unix_seconds == TIME
    assert found.signature.line.encode() == GOOD
    assert AddCheckpoint.from_bytes(answers.heard[0]) == AddCheckpoint(0, (), NOTE)


def test_a_conflict_is_answered_with_a_proof_from_the_size_on_record(
    answering: Callable[..., tuple[Witness, Answers]],
) -> None:
    witness, answers = answering(http_answer(409, b"7\n"), http_answer(200, GOOD))
    assert request_cosignature(witness, NOTE, prove, size_known=5).size_before == 7
    assert [AddCheckpoint.from_bytes(body).old_size for body in answers.heard] == [5, 7]
    assert AddCheckpoint.from_bytes(answers.heard[1]).proof == (bytes([7]) * 32,)


def test_a_size_that_is_known_but_beyond_the_log_is_asked_for_again(
    answering: Callable[..., tuple[Witness, Answers]],
) -> None:
    witness, answers = answering(http_answer(200, GOOD))
    request_cosignature(witness, NOTE, prove, size_known=50)
    assert AddCheckpoint.from_bytes(answers.heard[0]).old_size == 0


FALSE = NoteSignature(WITNESS_KEY.name, WITNESS_KEY.hash, bytes(7) + bytes(range(65))).line.encode()
BAD_ANSWERS: dict[str, tuple[bytes, type[LichenError]]] = {
    "no cosignature": (http_answer(200, b""), RemoteProtocolError),
    "a cosignature by somebody else": (http_answer(200, FALSE), RemoteProtocolError),
    "a cosignature by a stranger only": (
        http_answer(200, cosign_note(BODY, "else/where", STRANGER, TIME).line.encode()),
        RemoteProtocolError,
    ),
    "a false cosignature beside the true one": (http_answer(200, GOOD + FALSE), RemoteProtocolError),
    "a cosignature without a time": (
        http_answer(200, cosign_note(BODY, WITNESS_KEY.name, KEY, 0).line.encode()),
        RemoteProtocolError,
    ),
    "a cosignature on another checkpoint": (
        http_answer(
            200, cosign_note(BODY.replace("\n20\n", "\n21\n"), WITNESS_KEY.name, KEY, TIME).line.encode()
        ),
        RemoteProtocolError,
    ),
    "a cosignature without its newline": (http_answer(200, GOOD[:-1]), RemoteProtocolError),
    "an extension line before the cosignature": (
        http_answer(200, b"extension\n\n" + GOOD),
        RemoteProtocolError,
    ),
    "a web page": (http_answer(200, b"<html></html>\n"), RemoteProtocolError),
    "octets that are no text": (http_answer(200, b"\xff\xfe\n"), RemoteProtocolError),
    "a conflict without a size": (http_answer(409, b"conflict\n"), RemoteProtocolError),
    "a conflict with a leading zero": (http_answer(409, b"07\n"), RemoteProtocolError),
    "a conflict with a size of fifty digits": (http_answer(409, b"9" * 50), RemoteProtocolError),
    "a conflict again and again": (http_answer(409, b"7\n"), RemoteProtocolError),
    "a larger tree on record": (http_answer(409, b"21\n"), RollbackError),
    "another history on record": (http_answer(422, b"no\n"), RollbackError),
    "a log it does not know": (http_answer(404, b"who?\n"), RemoteProtocolError),
    "a key it does not trust": (http_answer(403, b"no\n"), RemoteProtocolError),
    "a request it cannot read": (http_answer(400, b"no\n"), RemoteProtocolError),
    "a redirect": (http_answer(302, b"", Location="http://127.0.0.1:1/"), RemoteProtocolError),
    "a full disk": (http_answer(503, b"later\n"), NetworkError),
    "too many requests": (http_answer(429, b"later\n"), NetworkError),
    "something that is not HTTP": (b"220 smtp ready\r\n\r\n", RemoteProtocolError),
    "nothing": (b"", RemoteProtocolError),
    "half an answer": (b"HTTP/1.1 200 X\r\nContent-Length: 500\r\n\r\n" + GOOD[:40], RemoteProtocolError),
    "two megabytes": (http_answer(200, bytes(2_000_000)), RemoteProtocolError),
    "a head without an end": (b"HTTP/1.1 200 X\r\n" + b"A: b\r\n" * 20_000, RemoteProtocolError),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_bad_answer_is_named_after_the_witness_and_yields_no_cosignature(
    name: str, answering: Callable[..., tuple[Witness, Answers]]
) -> None:
    answer, error = BAD_ANSWERS[name]
    witness, _ = answering(answer)
    with pytest.raises(error, match="witness W"):
        request_cosignature(witness, NOTE, prove)


def test_a_witness_that_never_answers_is_given_up(answering: Callable[..., tuple[Witness, Answers]]) -> None:
    witness, _ = answering(b"", is_silent=True)
    with pytest.raises(NetworkError, match="did not answer within") as caught:
        request_cosignature(witness, NOTE, prove, timeout_seconds=0.2)
    assert not caught.value.definite


def test_a_witness_that_is_not_there_is_told_of() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(NetworkError, match="cannot be reached"):
        request_cosignature(Witness(b"W", WITNESS_KEY, f"http://127.0.0.1:{port}"), NOTE, prove)


@pytest.mark.parametrize(
    "url",
    [None, "", "ftp://127.0.0.1/", "http:///", "http://127.0.0.1:x/", "http://a b/", "http://127.0.0.1/?q", "127.0.0.1",
     "http://user@127.0.0.1/", "http://[::1/", "http://m\u00fcnchen.example/", "file:///etc/passwd"],
)  # fmt: skip
def test_a_url_that_is_none_of_http_is_refused_before_anything_is_sent(url: str | None) -> None:
    with pytest.raises(UsageError, match="witness W"):
        request_cosignature(Witness(b"W", WITNESS_KEY, url), NOTE, prove, timeout_seconds=0.2)


# ---- what a witness serves --------------------------------------------------------------------------------------


def test_the_checkpoint_a_witness_serves_is_read(answering: Callable[..., tuple[Witness, Answers]]) -> None:
    witness, _ = answering(http_answer(200, NOTE.encode() + GOOD))
    assert fetch_seen(witness, ORIGIN) == NOTE + GOOD.decode()


def test_a_witness_that_never_saw_the_log_has_nothing(
    answering: Callable[..., tuple[Witness, Answers]],
) -> None:
    witness, _ = answering(http_answer(404, b"no\n"))
    assert fetch_seen(witness, ORIGIN) is None


@pytest.mark.parametrize(
    "served",
    [NOTE.encode(), NOTE.encode() + FALSE, b"junk\n", b"\xff", NOTE.encode()[:-9], b"",
     base64.b64encode(NOTE.encode() + GOOD)],
)  # fmt: skip
def test_what_it_serves_must_be_a_checkpoint_that_it_cosigned(
    served: bytes, answering: Callable[..., tuple[Witness, Answers]]
) -> None:
    witness, _ = answering(http_answer(200, served))
    with pytest.raises(RemoteProtocolError, match="witness W"):
        fetch_seen(witness, ORIGIN)


def test_a_checkpoint_of_another_log_is_not_taken(answering: Callable[..., tuple[Witness, Answers]]) -> None:
    witness, _ = answering(http_answer(200, NOTE.encode() + GOOD))
    with pytest.raises(RemoteProtocolError, match="another log"):
        fetch_seen(witness, "lichen/" + "cd" * 32)
