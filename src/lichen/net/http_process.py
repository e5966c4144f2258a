"""A server as a process: socket, impatience with slow callers, signals, and an end that loses nothing.

Rules upheld here:

* Whoever connects has to send the head of a request within a bounded time and size, first or tenth on the connection, and
  has to take the answer. A byte now and then does not prolong it.
* On SIGTERM or SIGINT nothing more is accepted; what is being answered is finished, then the process ends in order.

Source: RFC 9112 section 9; uvicorn's documentation for the hooks used.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from lichen.net.listening import BACKLOG

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["HEAD_BYTES_MAX", "HttpServer", "Patience", "Refusal", "serve_http"]

HEAD_BYTES_MAX: Final = 16_384

Refusal = Callable[[int, str, str], tuple[str, bytes]]
"""Says a refusal in a server's own words: status, stable name and what happened, to media type and body."""

_PHRASES: Final = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a server waits.

    Attributes:
        head_seconds: Time that the head of a request may take.
        taking_seconds: Time for which a caller may take nothing of an answer that is ready.
        idle_seconds: Time for which a connection may lie idle between two requests.
        shutdown_seconds: Time that requests under way have to end after the server was told to stop.
    """

    head_seconds: float = 10.0
    taking_seconds: float = 20.0
    idle_seconds: int = 30
    shutdown_seconds: float = 20.0


def serve_http(
    application: Any,
    listening: socket.socket,
    refusal: Refusal,
    patience: Patience,
    *,
    has_lifespan: bool,
    requests_max: int | None = None,
    on_ready: Callable[[], object] | None = None,
    on_stop: Callable[[], object] | None = None,
) -> None:
    """Serve an ASGI application until told to stop.

    Args:
        application: The application.
        listening: Bound socket; closed at the end.
        refusal: Words for what is refused before it reaches the application.
        patience: How long to wait.
        has_lifespan: Whether the application wants to hear when the server starts and ends.
        requests_max: Connections at a time; beyond, callers get status 503. None where the application bounds them.
        on_ready: Called when requests are answered.
        on_stop: Called at once when the server is told to stop.
    """
    config = uvicorn.Config(
        application,
        http=impatient(patience, refusal),
        ws="none",
        lifespan="on" if has_lifespan else "off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        limit_concurrency=requests_max,
        timeout_keep_alive=patience.idle_seconds,
        timeout_graceful_shutdown=max(1, round(patience.shutdown_seconds)),
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        backlog=BACKLOG,
    )
    with listening:
        HttpServer(config, on_ready, on_stop).run(sockets=[listening])


class HttpServer(uvicorn.Server):
    """Uvicorn's server, which says when it answers, and leaves the process in order after a signal.

    Args:
        config: Uvicorn's.
        on_ready: Called when requests are answered.
        on_stop: Called when a signal comes, before anything else.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        on_ready: Callable[[], object] | None = None,
        on_stop: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        if self._on_ready is not None and not self.should_exit:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """See uvicorn."""
        if self._on_stop is not None:
            self._on_stop()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT for as long as the server runs, and raise neither again afterwards."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def impatient(patience: Patience, refusal: Refusal) -> type[asyncio.Protocol]:
    """Uvicorn's fastest HTTP protocol here, less patient.

    Args:
        patience: How long to wait.
        refusal: Words for what is refused.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: Any = AutoHTTPProtocol

    class Impatient(base):  # type: ignore[misc, unused-ignore]
        _waiting: asyncio.TimerHandle | None = None
        _stuck: asyncio.TimerHandle | None = None
        _head_bytes = 0

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait_for_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
                self._head_bytes = 0
                return
            self._head_bytes += len(data)
            if self.transport.is_closing():
                return
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse(431, "too-large", f"the head of a request has at most {HEAD_BYTES_MAX} bytes")
            elif self._waiting is None:
                self._wait_for_head()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(patience.taking_seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._get_going()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            self._get_going()
            super().connection_lost(exc)

        def on_response_complete(self) -> None:
            self._stop_waiting()
            self._head_bytes = 0
            super().on_response_complete()

        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "malformed", msg)

        def _wait_for_head(self) -> None:
            self._waiting = self.loop.call_later(patience.head_seconds, self._lose_patience)

        def _stop_waiting(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _get_going(self) -> None:
            if self._stuck is not None:
                self._stuck.cancel()
                self._stuck = None

        def _lose_patience(self) -> None:
            self._waiting = None
            if not self.transport.is_closing():
                self._refuse(408, "too-slow", f"no whole request came within {patience.head_seconds:g} s")

        def _refuse(self, status: int, code: str, detail: str) -> None:
            media_type, body = refusal(status, code, detail)
            head = (
                f"HTTP/1.1 {status} {_PHRASES[status]}\r\nContent-Type: {media_type}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
            self.transport.close()

    return Impatient
