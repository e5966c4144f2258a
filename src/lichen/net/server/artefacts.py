"""Artefacts by their CID: given to whoever may read, taken from members, verified both ways.

A body goes through in pieces, so a server needs no more memory for a large artefact than for a small one. Its CID is in the
path that the member signed, so the body cannot be another's; what does not hash to it is not stored.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lichen.content.cid import Cid
from lichen.errors import EncodingError, NotFoundError, VerificationError
from lichen.net.server.limits import too_large
from lichen.net.server.problem import Problem
from lichen.net.together import TOGETHER_BYTES_MAX, TOGETHER_COUNT_MAX, pack_artefacts

if TYPE_CHECKING:
    from starlette.types import Receive

    from lichen.net.server.service import Service

__all__ = ["get_artefact", "get_artefacts", "put_artefact"]

_PIECE_BYTES: Final = 2**18  # (= 262144)


def get_artefact(service: Service, request: Request) -> Response:
    """Give an artefact, every byte of it verified."""
    cid = _cid(request)
    size = service.store.size(cid)
    scope = "private" if service.access.is_private else "public"
    headers = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size),
        "Cache-Control": f"{scope}, max-age=31536000, immutable",
        "ETag": f'"{cid}"',
        "X-Content-Type-Options": "nosniff",
    }
    asked = request.headers.get("if-none-match", "")
    if headers["ETag"] in (tag.strip().removeprefix("W/") for tag in asked.split(",")):
        del headers["Content-Length"], headers["Content-Type"]
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers)
    return StreamingResponse(_pieces(service, service.store.open(cid)), headers=headers)


def get_artefacts(service: Service, request: Request) -> Response:
    """Give several small artefacts in one answer, every byte of them verified; see `lichen.net.together`."""
    texts = request.path_params["cids"].split(".", TOGETHER_COUNT_MAX)
    if len(texts) > TOGETHER_COUNT_MAX:
        raise Problem(400, "too-many", f"at most {TOGETHER_COUNT_MAX} artefacts are given in one answer")
    cids = [_parsed(text) for text in texts]
    body = pack_artefacts(_small(service, cid) for cid in cids)
    if request.method != "HEAD":
        service.metrics.moved("out", len(body))
    return Response(
        body, media_type="application/octet-stream",
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"},
    )  # fmt: skip


def _small(service: Service, cid: Cid) -> bytes | None:
    """Read an artefact that fits into an answer with others; None when it does not, is not held, or is damaged."""
    with contextlib.suppress(NotFoundError, VerificationError):
        if service.store.size(cid) <= TOGETHER_BYTES_MAX:
            return service.store.read_bytes(cid, TOGETHER_BYTES_MAX)
    return None


async def put_artefact(service: Service, request: Request) -> Response:
    """Take an artefact from a member."""
    cid = _cid(request)
    await run_in_threadpool(service.access.require_member, request.scope)
    if request.headers.get("content-type", "application/octet-stream") != "application/octet-stream":
        raise Problem(415, "unsupported-media-type", "an artefact comes as application/octet-stream")
    limit = service.settings.artefact_bytes_max
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
    if await run_in_threadpool(service.store.has, cid):
        return Response(status_code=200, headers={"Cache-Control": "no-store"})
    body = _Body(request.receive, limit, service.settings.body_seconds)
    names = await run_in_threadpool(service.store.put_stream, body.fill, expected=cid)
    service.metrics.moved("in", names.size_bytes)
    return Response(status_code=201, headers={"Location": f"/artefact/{cid}", "Cache-Control": "no-store"})


def _cid(request: Request) -> Cid:
    return _parsed(request.path_params["cid"])


def _parsed(text: str) -> Cid:
    try:
        return Cid.parse(text)
    except EncodingError as error:
        raise Problem(404, "not-found", error.message, remedy=error.remedy) from error


def _pieces(service: Service, stored: BinaryIO) -> Iterator[bytes]:
    with contextlib.closing(stored):
        while piece := stored.read(_PIECE_BYTES):
            service.metrics.moved("out", len(piece))
            yield piece


class _Body:
    """A request's body as a thread reads it: each piece is fetched from the event loop when it is needed.

    Args:
        receive: Gives the pieces, in the event loop.
        limit: Most bytes taken.
        seconds: Time for each piece.
    """

    def __init__(self, receive: Receive, limit: int, seconds: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._rest = memoryview(b"")
        self._size = 0
        self._is_over = False

    def fill(self, view: memoryview) -> int:
        """See `lichen.content.pipeline.Fill`; called in a thread.

        Raises:
            Problem: Too large, too slow, or cut short.
        """
        place = 0
        while place < len(view):
            if not self._rest:
                if self._is_over:
                    break
                self._rest = memoryview(asyncio.run_coroutine_threadsafe(self._piece(), self._loop).result())
                continue
            count = min(len(view) - place, len(self._rest))
            view[place : place + count] = self._rest[:count]
            self._rest = self._rest[count:]
            place += count
        return place

    async def _piece(self) -> bytes:
        try:
            async with asyncio.timeout(self._seconds):
                message: Any = await self._receive()
        except TimeoutError:
            raise Problem(408, "too-slow", f"nothing of the body came for {self._seconds:g} s") from None
        if message["type"] == "http.disconnect":
            raise Problem(400, "incomplete", "the request ended before its body did")
        piece: bytes = message.get("body", b"")
        self._is_over = not message.get("more_body", False)
        self._size += len(piece)
        if self._size > self._limit:
            raise too_large(self._limit)
        return piece
