"""A witness as an HTTP service.

::

    POST /add-checkpoint              a cosignature, or 400, 403, 404, 409, 422
    GET  /<origin hash>/checkpoint    the latest checkpoint of a log, with this witness's cosignature
    GET  /                            the witness's verifier key

Rules upheld:

* Heads and bodies are bounded in size and in time, requests in number: what is too large, too slow or too much is refused and
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
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lichen.errors import LichenError
from lichen.ledger.witness import REQUEST_BYTES_MAX, Refusal
from lichen.net.http_process import Patience, serve_http

if TYPE_CHECKING:
    from starlette.requests import Request

    from lichen.ledger.witness_store import WitnessStore

__all__ = ["serve_witness", "witness_application"]

BODY_SECONDS: Final = 10.0
REQUESTS_MAX: Final = 256  # at once; the next is answered with 503
KEEP_ALIVE_SECONDS: Final = 60
SHUTDOWN_SECONDS: Final = 10

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
    store: WitnessStore,
    listening: socket.socket,
    on_ready: Callable[[], object] | None = None,
    *,
    patience: Patience | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT; what is being answered then is finished first.

    Args:
        store: The witness; closed at the end.
        listening: Bound socket; closed at the end.
        on_ready: Called when requests are answered.
        patience: How long to wait for callers; None for this file's measures.
    """
    with contextlib.closing(store):
        serve_http(
            witness_application(store),
            listening,
            _refusal,
            patience or Patience(idle_seconds=KEEP_ALIVE_SECONDS, shutdown_seconds=SHUTDOWN_SECONDS),
            has_lifespan=False,
            requests_max=REQUESTS_MAX,
            on_ready=on_ready,
        )


def _refusal(_status: int, _code: str, detail: str) -> tuple[str, bytes]:
    return "text/plain; charset=utf-8", f"{detail}\n".encode()


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
