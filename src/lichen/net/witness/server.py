"""A witness as an HTTP service.

::

    POST /add-checkpoint              a cosignature, or 400, 403, 404, 409, 422
    GET  /<origin hash>/checkpoint    the latest checkpoint of a log, with this witness's cosignature
    GET  /                            the witness's verifier key

Rules upheld:

* Bodies are bounded in size and in time, requests in number: what is too large, too slow or too much is refused and
  leaves nothing behind.
* An answer of 200 goes out after its checkpoint is on the disk; when the disk fails, the answer is 503 and no
  cosignature leaves.

Source: C2SP tlog-witness, "HTTP Interface".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lichen.errors import LichenError
from lichen.ledger.witness import REQUEST_BYTES_MAX, Refusal

if TYPE_CHECKING:
    from types import FrameType

    from starlette.requests import Request

    from lichen.ledger.witness_store import WitnessStore

__all__ = ["serve_witness", "witness_application"]

BODY_SECONDS: Final = 10.0
REQUESTS_MAX: Final = 256  # at once; the next is answered with 503
KEEP_ALIVE_SECONDS: Final = 60
SHUTDOWN_SECONDS: Final = 10
HEAD_BYTES_MAX: Final = 16_384

_DIGEST = re.compile(r"[0-9a-f]{64}")
_LOG = logging.getLogger("lichen.witness")


def witness_application(
    store: WitnessStore, now_unix_seconds: Callable[[], int] = lambda: int(time.time())
) -> Starlette:
    """Make the ASGI application of a witness.

    Args:
        store: The witness; the caller closes it.
        now_unix_seconds: The clock.
    """

    async def add_checkpoint(request: Request) -> Response:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request)
        except TimeoutError:
            return _text("the request did not come in time", 408)
        if body is None:
            return _text(f"a request has at most {REQUEST_BYTES_MAX} bytes", 413)
        answer = await run_in_threadpool(store.add_checkpoint, body, now_unix_seconds())
        if isinstance(answer, Refusal):
            return Response(answer.body, int(answer.status), {"Content-Type": answer.content_type})
        return Response(answer, 200, {"Content-Type": "text/plain; charset=utf-8"})

    async def checkpoint(request: Request) -> Response:
        digest = request.path_params["digest"]
        note = await run_in_threadpool(store.checkpoint, digest) if _DIGEST.fullmatch(digest) else None
        if note is None:
            return _text("this witness has cosigned no checkpoint of such a log", 404)
        return Response(
            note, 200, {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "max-age=10"}
        )

    async def about(_request: Request) -> Response:
        return _text(store.identity.note_key.vkey, 200)

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/{digest}/checkpoint", checkpoint, methods=["GET"]),
            Route("/", about, methods=["GET"]),
        ],
        exception_handlers={LichenError: _failed},
    )


def serve_witness(
    store: WitnessStore, listening: socket.socket, on_ready: Callable[[], object] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; what is being answered then is finished first.

    Args:
        store: The witness; closed at the end.
        listening: Bound socket; closed at the end.
        on_ready: Called when requests are answered.
    """
    config = uvicorn.Config(
        witness_application(store),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=REQUESTS_MAX,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=SHUTDOWN_SECONDS,
        h11_max_incomplete_event_size=HEAD_BYTES_MAX,
    )
    with contextlib.closing(store), listening:
        _Server(config, on_ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Uvicorn's server, which says when it answers and leaves the process in order after a signal."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], object] | None) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._on_ready is not None and not self.should_exit:
            self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take SIGTERM and SIGINT for as long as the server runs, and raise neither again afterwards."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.handle_exit(number, frame)


async def _body(request: Request) -> bytes | None:
    """Read a body; None when it is larger than any request."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > REQUEST_BYTES_MAX:
            return None
        parts.append(part)
    return b"".join(parts)


async def _failed(_request: Request, error: Exception) -> Response:
    """Answer when the disk or the clock failed: nothing was signed, and asking again later may help."""
    _LOG.error("%s", error)
    return PlainTextResponse("the witness cannot sign at the moment\n", 503, {"Retry-After": "60"})


def _text(text: str, status: int) -> Response:
    return PlainTextResponse(f"{text}\n", status)
