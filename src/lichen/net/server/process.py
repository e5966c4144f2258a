"""The server as a process: socket, impatience with slow callers, signals, and an end that loses nothing.

Rules upheld here:

* Whoever connects has to send the head of a request within a bounded time and size, first or tenth on the connection, and
  has to take the answer.
* On SIGTERM or SIGINT nothing more is taken; what was taken is finished and answered, the block is sealed, then it ends.

Source: RFC 9112 section 9; uvicorn's documentation for the hooks used.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from lichen.net.listening import BACKLOG
from lichen.net.server.app import LedgerApplication
from lichen.net.server.problem import CONTENT_TYPE, Problem

if TYPE_CHECKING:
    from types import FrameType

    from lichen.net.server.service import Service

__all__ = ["serve"]

KEEP_ALIVE_SECONDS: Final = 30
SWITCH_SECONDS: Final = 0.0005
"""How long a thread may keep the interpreter while another wants it. The writer computes for milliseconds on end; with Python's 5 ms
each answer that is sent, and each request that is read, would wait so long for its turn."""
HEAD_BYTES_MAX: Final = 16_384

_LOG = logging.getLogger("lichen.serve")


def serve(service: Service, listening: socket.socket, on_ready: Callable[[], object] | None = None) -> None:
    """Serve until told to stop; the service is closed then.

    Args:
        service: The ledger.
        listening: Bound socket; closed at the end.
        on_ready: Called when requests are answered.
    """
    settings = service.settings
    config = uvicorn.Config(
        LedgerApplication(service),
        http=_impatient(settings.header_seconds, settings.body_seconds),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_seconds)),
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
        backlog=BACKLOG,
    )
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with listening:
            _Server(config, service, on_ready).run(sockets=[listening])
    finally:
        sys.setswitchinterval(before)


class _Server(uvicorn.Server):
    """Uvicorn's server, which tells the service about its end before anything else."""

    def __init__(
        self, config: uvicorn.Config, service: Service, on_ready: Callable[[], object] | None
    ) -> None:
        super().__init__(config)
        self._service = service
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None and not self.should_exit:
            self._on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._service.is_draining = True
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT for as long as the server runs; they end it, and with it the process, in order."""
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _impatient(seconds: float, taking_seconds: float) -> type[asyncio.Protocol]:
    """Uvicorn's fastest HTTP protocol here, less patient.

    Args:
        seconds: Time that the head of a request may take.
        taking_seconds: Time for which a caller may take nothing of an answer that is ready.
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
                self._refuse(
                    Problem(431, "too-large", f"the head of a request has at most {HEAD_BYTES_MAX} bytes")
                )
            elif self._waiting is None:
                self._wait_for_head()

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = self.loop.call_later(taking_seconds, self.transport.abort)

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
            self._refuse(Problem(400, "malformed", msg))

        def _wait_for_head(self) -> None:
            self._waiting = self.loop.call_later(seconds, self._lose_patience)

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
                self._refuse(Problem(408, "too-slow", f"no whole request came within {seconds:g} s"))

        def _refuse(self, problem: Problem) -> None:
            body = problem.body()
            head = (
                f"HTTP/1.1 {problem.status} {_PHRASES[problem.status]}\r\nContent-Type: {CONTENT_TYPE}\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode("ascii") + body)
            self.transport.close()

    return Impatient


_PHRASES: Final = {400: "Bad Request", 408: "Request Timeout", 431: "Request Header Fields Too Large"}
