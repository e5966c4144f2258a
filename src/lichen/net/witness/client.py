"""The log's side of the witness protocol: ask for a cosignature, and believe nothing that does not verify.

Rules upheld:

* An answer is bounded in size and in time, wherever it comes from, and redirects are not followed.
* Of what a witness returns, only a cosignature that holds under the key the policy names is taken.
* A witness that is beyond the log, or that finds the log inconsistent, is news that somebody must hear: it is told apart
  from a witness that is away.

Source: C2SP tlog-witness, "add-checkpoint" and "Monitor Retrieval Mechanism".
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from lichen.crypto.note import NoteKey, NoteSignature, SignedNote
from lichen.errors import (
    EncodingError,
    LichenError,
    NetworkError,
    RemoteProtocolError,
    RollbackError,
    UsageError,
)
from lichen.ledger.checkpoint import parse_checkpoint
from lichen.ledger.policy import Witness, shown
from lichen.ledger.witness import AddCheckpoint
from lichen.ledger.witness_store import origin_digest
from lichen.net.paced import Pace, PacedSocket

__all__ = ["Cosigned", "Prover", "fetch_seen", "request_cosignature"]

TIMEOUT_SECONDS: Final = 10.0
ANSWER_BYTES_MAX: Final = 262_144
NOTE_BYTES_MAX: Final = 1_000_000
CONFLICT_COUNT_MAX: Final = 4  # another process of the same log may ask meanwhile
_SIZE_DIGITS_MAX: Final = 19
_PLAIN = re.compile(r"[!-~]+")

Prover = Callable[[int, int], list[bytes]]
"""``prove(size_first, size_second)``: a consistency proof between two sizes of the log."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """A cosignature that holds.

    Attributes:
        signature: Its line.
        time_unix_seconds: When the witness says it signed.
        size_before: Size the witness had on record before.
    """

    signature: NoteSignature
    time_unix_seconds: int
    size_before: int


def request_cosignature(
    witness: Witness,
    note: str,
    prove: Prover,
    size_known: int = 0,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Cosigned:
    """Ask one witness for its cosignature on a checkpoint.

    Args:
        witness: Whom; its URL is the submission prefix.
        note: The log's signed checkpoint.
        prove: Makes consistency proofs of this log.
        size_known: Size at which it last cosigned, as far as known; a wrong one costs one more question.
        timeout_seconds: For each question.

    Returns:
        Its cosignature, verified.

    Raises:
        UsageError: The policy gives no URL, or none of HTTP.
        NetworkError: It could not be reached, or is out of order.
        RemoteProtocolError: Its answer is not one.
        RollbackError: It saw another history of this log, or a longer one.
    """
    checkpoint, signed = parse_checkpoint(note)
    size = size_known if size_known <= checkpoint.tree_size else 0
    for _ in range(CONFLICT_COUNT_MAX):
        body = AddCheckpoint(size, tuple(prove(size, checkpoint.tree_size)), note).to_bytes()
        status, answer = _ask(witness, "POST", "add-checkpoint", body, timeout_seconds)
        if status == 200:
            return _cosignature(witness, signed, answer, size)
        if status != 409:
            raise _refused(witness, status, answer)
        size = _size_of(witness, answer)
        if size > checkpoint.tree_size:
            raise RollbackError(
                f"{_name(witness)} cosigned this log at {size} entries, the checkpoint has {checkpoint.tree_size}",
                expected=size,
                calculated=checkpoint.tree_size,
                remedy="Check that this ledger is not an old copy; `lichen monitor` compares it with what witnesses saw.",
            )
    raise RemoteProtocolError(f"{_name(witness)} changes what it has on record each time it is asked")


def fetch_seen(witness: Witness, origin: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> str | None:
    """Ask a witness for the latest checkpoint of a log that it cosigned.

    Args:
        witness: Whom; its URL is taken for the monitoring prefix too.
        origin: The log.
        timeout_seconds: How long to wait.

    Returns:
        The signed note with its cosignature, which holds; None when it never cosigned that log.

    Raises:
        UsageError: The policy gives no URL, or none of HTTP.
        NetworkError: It could not be reached, or is out of order.
        RemoteProtocolError: Its answer is not a checkpoint of that log with its cosignature.
    """
    status, answer = _ask(witness, "GET", f"{origin_digest(origin)}/checkpoint", None, timeout_seconds)
    if status == 404:
        return None
    if status != 200:
        raise _refused(witness, status, answer)
    try:
        text = answer.decode("utf-8")
        checkpoint, note = parse_checkpoint(text)
        note.verify([witness.key])
    except (UnicodeDecodeError, LichenError) as error:
        raise RemoteProtocolError(
            f"{_name(witness)} does not serve a checkpoint that it cosigned: {_first_line(error)}"
        ) from error
    if checkpoint.origin != origin:
        raise RemoteProtocolError(
            f"{_name(witness)} serves a checkpoint of another log, {checkpoint.origin[:80]}"
        )
    return text


# ---- one question -----------------------------------------------------------------------------------------------


def _ask(
    witness: Witness, method: str, path: str, body: bytes | None, timeout_seconds: float
) -> tuple[int, bytes]:
    """Send one request; return status and body.

    Raises:
        NetworkError: No answer, or not in time.
        RemoteProtocolError: An answer that is not HTTP, or too large.
    """
    parts = _address(witness)
    pace = Pace(timeout_seconds, timeout_seconds)
    connection = _connection(parts, timeout_seconds)
    target = f"{parts.path.rstrip('/')}/{path}"
    definite = method == "GET"
    try:
        connection.connect()
        pacing: Any = connection  # which takes whatever sends, closes, and can be read from
        pacing.sock = PacedSocket(pacing.sock, pace)
        connection.request(
            method, target, body, {"Content-Type": "text/plain; charset=utf-8"} if body else {}
        )
        response = connection.getresponse()
        return response.status, _read(response, witness)
    except (http.client.HTTPException, ValueError) as error:
        raise RemoteProtocolError(f"{_name(witness)} does not answer as HTTP says: {error!r}") from error
    except TimeoutError as error:
        raise NetworkError(
            f"{_name(witness)} did not answer within {timeout_seconds:g} s",
            definite=definite,
            remedy="Try again later; asking twice does no harm.",
        ) from error
    except OSError as error:
        raise NetworkError(
            f"{_name(witness)} cannot be reached: {error.strerror or error}",
            definite=definite,
            remedy="Check its URL in the policy, and try again later; asking twice does no harm.",
        ) from error
    finally:
        connection.close()


def _read(response: http.client.HTTPResponse, witness: Witness) -> bytes:
    """Read a body of bounded size."""
    data = b""
    while len(data) <= NOTE_BYTES_MAX:
        part = response.read1(65_536)
        if not part:
            return data
        data += part
    raise RemoteProtocolError(f"{_name(witness)} sends more than {NOTE_BYTES_MAX:,} bytes")


def _address(witness: Witness) -> urllib.parse.SplitResult:
    if witness.url is None:
        raise UsageError(
            f"the policy gives no URL for {_name(witness)}",
            remedy="Add its submission prefix at the end of its line, such as http://127.0.0.1:8760/.",
        )
    try:
        parts = urllib.parse.urlsplit(witness.url)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_web = False
    if not is_web or parts.query or parts.fragment or parts.username or not _PLAIN.fullmatch(witness.url):
        raise UsageError(
            f"the URL of {_name(witness)} is not one of HTTP: {witness.url[:120]!r}",
            remedy="Write it as http://HOST[:PORT]/[PATH/], or https://.",
        )
    return parts


def _connection(parts: urllib.parse.SplitResult, timeout_seconds: float) -> http.client.HTTPConnection:
    if parts.scheme == "https":
        return http.client.HTTPSConnection(
            parts.hostname or "", parts.port, timeout=timeout_seconds, context=ssl.create_default_context()
        )
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout_seconds)


# ---- what answers mean ------------------------------------------------------------------------------------------


def _cosignature(witness: Witness, signed: SignedNote, answer: bytes, size_before: int) -> Cosigned:
    """Find the witness's cosignature in the answer, and check it; signatures by unknown keys are ignored."""
    try:
        if len(answer) > ANSWER_BYTES_MAX or not answer.endswith(b"\n"):
            raise EncodingError("the answer is not a list of signature lines")
        note = SignedNote.from_text(f"{signed.text}\n{answer.decode('utf-8')}")
        time_unix_seconds = note.cosigned_at(witness.key, int(time.time()))
    except (UnicodeDecodeError, LichenError) as error:
        raise RemoteProtocolError(
            f"{_name(witness)} returned no cosignature that holds: {_first_line(error)}"
        ) from error
    if note.text != signed.text or time_unix_seconds == 0:
        raise RemoteProtocolError(
            f"{_name(witness)} returned a cosignature without a time, or over another text"
        )
    line = next(line for line in note.signatures if _is_of(line, witness.key))
    return Cosigned(line, time_unix_seconds, size_before)


def _is_of(line: NoteSignature, key: NoteKey) -> bool:
    return (line.name, line.key_hash) == (key.name, key.hash)


def _size_of(witness: Witness, answer: bytes) -> int:
    """Read the size that comes with 409."""
    digits = answer.removesuffix(b"\n")
    if not digits.isdigit() or len(digits) > _SIZE_DIGITS_MAX or digits != b"%d" % int(digits):
        raise RemoteProtocolError(f"{_name(witness)} answered 409 without the size it has on record")
    return int(digits)


def _refused(witness: Witness, status: int, answer: bytes) -> LichenError:
    """Say what a status other than 200 and 409 means to the operator of the log."""
    said = answer[:200].decode("utf-8", "replace").strip()
    told = f"{_name(witness)} answered {status}{f': {said}' if said else ''}"
    if status == 404:
        return RemoteProtocolError(
            told,
            remedy="Give its operator the log's verifier key, to be added to the logs it knows: lichen key show --log --vkey",
        )
    if status == 403:
        return RemoteProtocolError(
            told,
            remedy="Its operator trusts another key for this log: compare it with `lichen key show --log --vkey`.",
        )
    if status == 422:
        return RollbackError(
            told,
            remedy="It saw another history of this log: `lichen monitor` compares them and keeps the evidence.",
        )
    if status >= 500 or status in (408, 429):
        return NetworkError(told, definite=True, remedy="Try again later.")
    return RemoteProtocolError(told)


def _name(witness: Witness) -> str:
    return f"witness {shown(witness.name)}"


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
