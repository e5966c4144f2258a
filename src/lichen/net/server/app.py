"""The application: every request passes the same bounds, and every failure becomes a problem document.

::

    request -> bounds (callers, concurrency) -> records, or the table of operations -> answer
                                 any exception -> problem details; an unforeseen one is logged and answered with 500

Source: ASGI 3.0; RFC 9457 for failures.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from lichen.errors import LichenError
from lichen.net.server.operations import OPERATIONS, Operation, openapi_document
from lichen.net.server.problem import CONTENT_TYPE, Problem, problem_of
from lichen.net.server.submitting import submit, submit_batch

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

    from lichen.net.server.service import Service

__all__ = ["LedgerApplication"]

_LOG = logging.getLogger("lichen.serve")
_DRAINED_BYTES_MAX = 2**22  # (= 4194304)
_DRAIN_SECONDS_MAX = 2.0
_SUBMITTING = {"/records": submit, "/records/batch": submit_batch}


class LedgerApplication:
    """An ASGI application over one ledger.

    Args:
        service: The ledger; closed when the application's lifespan ends.
    """

    def __init__(self, service: Service) -> None:
        self.service = service
        self._active_count = 0
        document = openapi_document(is_private=service.access.is_private)
        self._openapi = json.dumps(document, ensure_ascii=False).encode()
        self.routes = [
            self._route(operation) for operation in OPERATIONS if operation.path not in _SUBMITTING
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or live through the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            return
        started = time.perf_counter()
        body = _Body(scope, receive)
        receive = body.receive
        answer = _Answer(send, body)
        self._active_count += 1
        route = "(unknown)"
        try:
            self._check_bounds(scope)
            if scope["path"] in _SUBMITTING:
                route = scope["path"]
                await self._submit(scope, receive, answer)
            else:
                found, route = self._find(scope)
                await found(scope, receive, answer)
        except Exception as error:
            await self._fail(error, scope, answer)
        finally:
            self._active_count -= 1
            self.service.metrics.answered(
                scope["method"] if scope["method"] in _METHODS else "OTHER",
                route,
                answer.status,
                time.perf_counter() - started,
            )

    # -- one request -----------------------------------------------------------------------------------------------

    def _check_bounds(self, scope: Scope) -> None:
        client = scope.get("client")
        self.service.requests.take(client[0] if client else "")
        if self._active_count > self.service.settings.requests_max:
            raise Problem.busy(f"{self.service.settings.requests_max} requests are being answered already")

    async def _submit(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        if scope["method"] != "POST":
            raise _wrong_method("POST")
        if self.service.is_draining:
            raise Problem.busy("the server is shutting down; nothing was taken", code="shutting-down", seconds=5)  # fmt: skip
        status, headers, body = await _SUBMITTING[scope["path"]](self.service, scope, receive)
        await _send(answer, status, headers, body)

    def _find(self, scope: Scope) -> tuple[Callable[[Scope, Receive, Send], Awaitable[None]], str]:
        """Find the route of a request.

        Raises:
            Problem: No such path, or not a method of it.
        """
        allowed: set[str] = set()
        for route in self.routes:
            match, child = route.matches(scope)
            if match is Match.FULL:
                scope.update(child)
                return route.handle, route.path
            if match is Match.PARTIAL:
                allowed |= set(route.methods or ())
        if allowed:
            raise _wrong_method(", ".join(sorted(allowed)))
        raise Problem(
            404, "not-found", "there is nothing at this path", remedy="/openapi.json lists what there is"
        )

    async def _fail(self, error: Exception, scope: Scope, answer: _Answer) -> None:
        """Tell the caller what went wrong, unless an answer is under way already: then the connection breaks off."""
        if isinstance(error, (ClientDisconnect, ConnectionError)):
            return
        if isinstance(error, LichenError):
            problem = problem_of(error)
        elif isinstance(error, Problem):
            problem = error
        else:
            _LOG.exception("%s %s failed", scope["method"], scope["path"][:200])
            problem = Problem(500, "internal", "the server met a mistake of its own; it is in its log")
        if answer.status:
            raise error
        headers = [(b"content-type", CONTENT_TYPE.encode()), (b"cache-control", b"no-store")]
        headers += [
            (name.lower().encode(), value.encode("latin-1")) for name, value in problem.headers.items()
        ]
        with contextlib.suppress(OSError):
            await _send(
                answer, problem.status, headers, problem.body(), without_body=scope["method"] == "HEAD"
            )

    # -- routes ----------------------------------------------------------------------------------------------------

    def _route(self, operation: Operation) -> Route:
        path = operation.path.replace("{path}", "{path:path}")
        return Route(path, self._endpoint(operation), methods=[operation.method])

    def _endpoint(self, operation: Operation) -> Callable[[Request], Awaitable[Response]]:
        service, handler = self.service, operation.handler

        async def openapi(_request: Request) -> Response:
            return Response(
                self._openapi, media_type="application/json", headers={"Cache-Control": "public, max-age=60"}
            )

        async def read(request: Request) -> Response:
            def answer() -> Response:
                if operation.access == "read":
                    service.access.require_reader(request.scope)
                assert handler is not None
                response: Response = handler(service, request)
                return response

            return await run_in_threadpool(answer)

        async def write(request: Request) -> Response:
            assert handler is not None
            response: Response = await handler(service, request)
            return response

        if handler is None:
            return openapi
        return write if operation.is_slow else read

    # -- lifespan --------------------------------------------------------------------------------------------------

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                self.service.start()
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                try:
                    await asyncio.to_thread(self.service.close)
                except LichenError as error:
                    await send({"type": "lifespan.shutdown.failed", "message": str(error)})
                    raise
                await send({"type": "lifespan.shutdown.complete"})
                return

    @contextlib.asynccontextmanager
    async def living(self) -> AsyncIterator[LedgerApplication]:
        """Run the service without a server around it, for embedding it elsewhere."""
        self.service.start()
        try:
            yield self
        finally:
            await asyncio.to_thread(self.service.close)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


class _Answer:
    """Passes an answer on, and knows how far it is.

    Attributes:
        status: Of the answer; 0 before it has begun.
    """

    __slots__ = ("_body", "_send", "status")

    def __init__(self, send: Send, body: _Body) -> None:
        self._send = send
        self._body = body
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._body.drain()
            self.status = message["status"]
        await self._send(message)


class _Body:
    """The body of a request, of which whoever answers may have read nothing.

    A connection that is closed while something unread lies on it is reset, and the caller loses the answer. So what is left of a
    body is read before the answer goes out: a bounded part, for a bounded time.

    Args:
        scope: Of the request.
        receive: Gives its pieces.
    """

    __slots__ = ("_receive", "_rest_max")

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self._receive = receive
        self._rest_max = 0 if scope["method"] in {"GET", "HEAD"} else _DRAINED_BYTES_MAX

    async def receive(self) -> Message:
        """Give the next message, and notice the last."""
        message = await self._receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            self._rest_max = 0
        return message

    async def drain(self) -> None:
        """Read what is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS_MAX):
                while self._rest_max > 0:
                    message = await self.receive()
                    self._rest_max -= max(1, len(message.get("body", b"")))


async def _send(
    answer: _Answer,
    status: int,
    headers: list[tuple[bytes, bytes]],
    body: bytes,
    *,
    without_body: bool = False,
) -> None:
    all_headers: Any = [*headers, (b"content-length", b"%d" % len(body))]
    await answer({"type": "http.response.start", "status": status, "headers": all_headers})
    await answer({"type": "http.response.body", "body": b"" if without_body else body})


def _wrong_method(allowed: str) -> Problem:
    return Problem(405, "method-not-allowed", f"this path takes {allowed}", headers={"Allow": allowed})
