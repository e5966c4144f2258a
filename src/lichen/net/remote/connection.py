"""HTTP to one server: bounded answers, bounded waiting, one more try where the connection had gone stale.

Python's own client is enough: a colleague's machine needs no further package to use a served ledger. Every request here may
be repeated without harm: records are known by their payload, artefacts by their CID.
"""

from __future__ import annotations

import contextlib
import http.client
import time
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from lichen.encoding.foreign_json import read_json
from lichen.errors import (
    LichenError,
    NetworkError,
    NotFoundError,
    Rejected,
    RemoteProtocolError,
    UsageError,
)
from lichen.net.paced import PATIENCE_SECONDS, Pace, PacedSocket

__all__ = ["Connection", "Reply", "check_url", "meaning_of", "raise_for"]

TIMEOUT_SECONDS: Final = 20.0
AWAY_SECONDS: Final = 3.0  # a server that could not be reached is not tried again for so long
PROBLEM_BYTES_MAX: Final = 65_536

Body = bytes | Callable[[], Iterable[bytes]]
"""Bytes to send; or what gives them in pieces, anew each time it is called."""


def check_url(url: str) -> str:
    """Return the address of a ledger in its one spelling.

    Args:
        url: ``http://HOST[:PORT]`` or ``https://…``, with a path in front of the ledger's own if need be.

    Raises:
        UsageError: Not such an address.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urllib.parse.urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or "@" in parts.netloc:  # fmt: skip
        raise UsageError(
            f"{url[:200]!r} is not the address of a ledger", remedy="Write it as http://HOST:PORT."
        )
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise UsageError(f"{url[:200]!r} holds characters that no address has")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server answered.

    Attributes:
        status: Of HTTP.
        headers: By lower-case name; the last where one came twice.
        body: All of it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """Read the body as a JSON object.

        Raises:
            RemoteProtocolError: It is none.
        """
        try:
            value = read_json(self.body)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise RemoteProtocolError(f"the server sent {self.body[:60]!r} where a JSON object belongs")
        return value


class Connection:
    """A connection to one server, opened when it is needed and kept while it lasts.

    Args:
        url: As `check_url` returns it.
        timeout_seconds: How long one wait may take.
        patience_seconds: How long a request may take in all, beyond what the size of its bodies earns.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        url: str,
        timeout_seconds: float = TIMEOUT_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        parts = urllib.parse.urlsplit(url)
        self._is_encrypted = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self.prefix = parts.path
        self._timeout_seconds = min(timeout_seconds, patience_seconds)
        self._pace = Pace(timeout_seconds, patience_seconds, clock)
        self._open: http.client.HTTPConnection | None = None
        self._away_until = 0.0

    def ask(
        self,
        method: str,
        target: str,
        *,
        limit: int,
        body: Body | None = None,
        size_bytes: int | None = None,
        headers: Mapping[str, str] | None = None,
        sink: Callable[[http.client.HTTPResponse], None] | None = None,
    ) -> Reply:
        """Send a request and read the answer.

        Args:
            method: Of the request.
            target: Path and query, with `prefix`.
            limit: Most bytes of a body that are taken.
            body: What to send.
            size_bytes: Size of a body that comes in pieces.
            headers: Further headers.
            sink: Reads the body of a success itself; the reply then has none.

        Raises:
            NetworkError: The server cannot be reached, or the answer was lost.
            RemoteProtocolError: What came is no HTTP, or larger than it may be.
        """
        if time.monotonic() < self._away_until:
            raise self._unreachable("it could not be reached a moment ago", definite=True)
        is_reused = self._open is not None
        try:
            return self._exchange(method, target, limit, body, size_bytes, headers or {}, sink)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self.close()
            if not is_reused:
                raise self._unreachable(str(error), definite=False) from error
        except http.client.HTTPException as error:
            self.close()
            raise RemoteProtocolError(f"{self.url} does not speak HTTP: {error}") from error
        except OSError as error:
            self.close()
            raise self._unreachable(error.strerror or str(error), definite=_never_arrived(error)) from error
        except BaseException:
            self.close()
            raise
        return self.ask(
            method, target, limit=limit, body=body, size_bytes=size_bytes, headers=headers, sink=sink
        )

    def close(self) -> None:
        """Close the connection, if one is open."""
        if self._open is not None:
            with contextlib.suppress(OSError):
                self._open.close()
            self._open = None

    def _exchange(
        self,
        method: str,
        target: str,
        limit: int,
        body: Body | None,
        size_bytes: int | None,
        headers: Mapping[str, str],
        sink: Callable[[http.client.HTTPResponse], None] | None,
    ) -> Reply:
        self._pace.start()
        if self._open is None:
            kind = http.client.HTTPSConnection if self._is_encrypted else http.client.HTTPConnection
            self._open = kind(self._host, self._port, timeout=self._timeout_seconds)
        sent = {"Accept-Encoding": "identity", **headers}
        if size_bytes is not None:
            sent["Content-Length"] = str(size_bytes)
        if self._open.sock is None:
            self._open.connect()
            pacing: Any = self._open  # which takes whatever sends, closes, and can be read from
            pacing.sock = PacedSocket(pacing.sock, self._pace)
        self._pace.earn(is_earning=body is not None)
        self._open.request(method, target, body() if callable(body) else body, sent)
        self._pace.earn(is_earning=False)
        response = self._open.getresponse()
        self._pace.earn(is_earning=True)
        told = {name.lower(): value for name, value in response.getheaders()}
        if sink is not None and response.status == 200:
            sink(response)
            if not response.isclosed():  # not read to its end, so nothing can follow it
                self.close()
            return Reply(response.status, told, b"")
        most = limit if response.status < 400 else PROBLEM_BYTES_MAX
        data = response.read(most + 1)
        if len(data) > most:
            self.close()
            raise RemoteProtocolError(f"{self.url}{target[:80]} sent more than {most} bytes")
        return Reply(response.status, told, data)

    def _unreachable(self, why: str, *, definite: bool) -> NetworkError:
        self._away_until = max(self._away_until, time.monotonic() + AWAY_SECONDS)
        return NetworkError(
            f"{self.url} cannot be reached: {why}",
            definite=definite,
            remedy="Of a ledger that was used here before, runs and what you publish, flag or withdraw are kept and sent when the server is "
            "back; anything else, type again then.",
        )


def _never_arrived(error: OSError) -> bool:
    """Say whether a request certainly did not reach the server."""
    import socket

    return isinstance(error, (ConnectionRefusedError, socket.gaierror))


def raise_for(url: str, reply: Reply) -> None:
    """Raise what a refusal means here; do nothing for a success.

    Raises:
        Rejected: A rule of the ledger said no.
        NotFoundError: There is no such thing on the server.
        NetworkError: The server is busy or failing; nothing was taken.
        UsageError: The server wants another key, or none of what was asked.
        RemoteProtocolError: Anything else.
    """
    if not 200 <= reply.status < 300:
        raise _meaning(url, reply)


def _meaning(url: str, reply: Reply) -> LichenError:
    if reply.status < 400:
        return RemoteProtocolError(
            f"{url} answers with status {reply.status}", remedy="Name the address that it really has."
        )
    try:
        told = reply.json()
    except RemoteProtocolError:
        told = {}
    return meaning_of(url, reply.status, told)


def meaning_of(url: str, status: int, told: Mapping[str, Any]) -> LichenError:
    """Say a refusal in this program's words.

    Args:
        url: Who refused.
        status: Of HTTP, 400 or more.
        told: The problem document; empty where there was none.
    """
    detail = _line(told.get("detail"), f"status {status}")
    remedy, rule = _line(told.get("remedy"), ""), told.get("rule")
    if isinstance(rule, str):
        return Rejected(rule[:100], detail, remedy=remedy)
    if status == 404:
        return NotFoundError(f"{url}: {detail}", remedy=remedy)
    if status in (401, 403):
        return UsageError(f"{url} refuses: {detail}", remedy=remedy)
    if status == 429 or status >= 500:
        return NetworkError(
            f"{url} cannot answer now: {detail}", definite=status in (429, 503), remedy=remedy
        )
    return RemoteProtocolError(f"{url} refuses: {detail}", remedy=remedy)


def _line(value: object, otherwise: str) -> str:
    """One line of text that a server sent, without what a terminal would act on."""
    if not isinstance(value, str) or not value:
        return otherwise
    return "".join(character if character.isprintable() else "?" for character in value[:500])
