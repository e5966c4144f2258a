"""What is read: checkpoint, tiles, entries, receipts, state proofs, and who this ledger is.

Rules upheld here:

* Only what a seal covers is shown, so every answer can be checked under a checkpoint.
* What never changes says so (``immutable``); the rest carries an ``ETag``. In a private ledger no shared cache may keep
  anything.

Source: C2SP tlog-tiles; RFC 9111 and RFC 8246 for the caching headers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from lichen import __version__
from lichen.encoding.entry import Entry
from lichen.errors import EncodingError, NotFoundError, UsageError
from lichen.ledger.tree import TILE_WIDTH
from lichen.net.server.committer import no_log_key
from lichen.net.server.problem import Problem
from lichen.net.server.service import etag_of
from lichen.net.server.settings import BATCH_BYTES_MAX
from lichen.net.tile_paths import TilePath, pack_bundle

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lichen.net.server.service import Service

__all__ = [
    "about",
    "checkpoint",
    "checkpoint_signatures",
    "entry",
    "health",
    "metrics",
    "receipt",
    "state",
    "state_at",
    "tile",
]

_INDEX_MAX = 2**53
_STATE_KEY_BYTES_MAX = 1_024
_BYTES = "application/octet-stream"
_TEXT = "text/plain; charset=utf-8"


def about(service: Service, request: Request) -> Response:
    """Which ledger this is: what a client must know before it can sign a request."""
    genesis = service.reader.genesis
    told = {
        "lichen": __version__,
        "ledger": service.reader.id,
        "origin": service.reader.origin,
        "access": genesis.access,
        "log_key": genesis.log_key.did_key,
        "log_keys": [key.did_key for key in service.reader.log_keys],
        "artefact_bytes_max": service.settings.artefact_bytes_max,
        "batch_count_max": service.settings.batch_count_max,
        "batch_bytes_max": BATCH_BYTES_MAX,
    }
    return _revalidated(service, request, json.dumps(told).encode(), "application/json", is_open=True)


def health(service: Service, _request: Request) -> Response:
    """Whether records are taken now."""
    if not service.is_healthy:
        raise Problem.busy("the server is starting or shutting down", code="shutting-down")
    if service.committer.lacks_log_key:
        raise no_log_key()
    told = {"status": "ok", "entries": service.reader.size}
    return Response(json.dumps(told), media_type="application/json", headers={"Cache-Control": "no-store"})


def metrics(service: Service, _request: Request) -> Response:
    """Numbers for Prometheus."""
    from lichen.net.server.metrics import CONTENT_TYPE

    text = service.metrics.exposition()
    return Response(text, headers={"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store"})


def checkpoint(service: Service, request: Request) -> Response:
    """The published checkpoint: a signed note."""
    shown = service.publisher.current()
    return _revalidated(service, request, shown.text.encode(), _TEXT)


def tile(service: Service, request: Request) -> Response:
    """A tile of the tree, or an entry bundle."""
    path = _tile_path(request.path_params["path"])
    if path.level is None:
        start = path.number * TILE_WIDTH
        entries = service.reader.sealed_entries(start, start + path.width)
        return _tile_answer(service, request, pack_bundle(entries), path)
    hashes = service.reader.tile(path.level, path.number, path.width)
    return _tile_answer(service, request, hashes, path)


def checkpoint_signatures(service: Service, request: Request) -> Response:
    """The log's signature of every checkpoint whose seal stands in one entry bundle.

    For each seal its place in the bundle, one byte, and the signature, 64 bytes.
    """
    path = _tile_path("0/" + request.path_params["path"])
    start = path.number * TILE_WIDTH
    service.reader.sealed_entries(start + path.width - 1, start + path.width)
    rows = service.reader.seal_rows(start, start + path.width)
    data = b"".join(bytes([row.index - start]) + row.signature for row in rows)
    return _tile_answer(service, request, data, path)


def entry(service: Service, request: Request) -> Response:
    """One entry as a DSSE envelope."""
    index = _integer(request.path_params["index"], "index of an entry")
    data = service.reader.sealed_entries(index, index + 1)[0]
    return _immutable(service, request, Entry.from_bytes(data).to_dsse(), "application/json")


def receipt(service: Service, request: Request) -> Response:
    """The receipt of an entry under the first checkpoint that covers it."""
    index = _integer(request.path_params["index"], "index of an entry")
    try:
        text = service.reader.first_receipt(index).to_text()
    except UsageError as error:
        if isinstance(error, NotFoundError):
            raise
        raise Problem(
            404,
            "not-sealed",
            f"entry {index} is in the ledger, but no seal covers it yet",
            remedy="ask again later",
            headers={"Retry-After": "1"},
        ) from error
    return _immutable(service, request, text.encode(), _TEXT)


def state(service: Service, request: Request) -> Response:
    """What the newest published state says about a key, with the proof."""
    contract, key = _state_key(request.path_params)
    size = service.publisher.current().tree_size
    text = service.reader.state_receipt_at(size, contract, key).to_text()
    return _revalidated(service, request, text.encode(), _TEXT)


def state_at(service: Service, request: Request) -> Response:
    """What the state behind one checkpoint says about a key, with the proof."""
    contract, key = _state_key(request.path_params)
    size = _integer(request.path_params["size"], "size of a checkpoint")
    text = service.reader.state_receipt_at(size, contract, key).to_text()
    return _immutable(service, request, text.encode(), _TEXT)


def _tile_path(text: str) -> TilePath:
    try:
        return TilePath.parse(text)
    except EncodingError as error:
        raise Problem(404, "not-found", error.message, remedy=error.remedy) from error


def _integer(text: str, what: str) -> int:
    if (
        not (text.isascii() and text.isdigit())
        or len(text) > 16
        or int(text) >= _INDEX_MAX
        or text != str(int(text))
    ):
        raise Problem(404, "not-found", f"not the {what}: {text[:40]!r}")  # fmt: skip
    return int(text)


def _state_key(parameters: Mapping[str, str]) -> tuple[str, bytes]:
    contract, text = parameters["contract"], parameters["key"]
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if not contract.isascii() or len(contract) > 64 or not key or key.hex() != text or len(key) > _STATE_KEY_BYTES_MAX:  # fmt: skip
        raise Problem(
            404,
            "not-found",
            "no such key of the state",
            remedy="/state/<contract>/<key in lower-case hexadecimal>",
        )
    return contract, key


def _tile_answer(service: Service, request: Request, data: bytes, path: TilePath) -> Response:
    if path.width == TILE_WIDTH:
        return _immutable(service, request, data, _BYTES)
    return _revalidated(service, request, data, _BYTES, seconds=60)


def _immutable(service: Service, request: Request, data: bytes, media_type: str) -> Response:
    return _cached(service, request, data, media_type, "max-age=31536000, immutable")


def _revalidated(
    service: Service,
    request: Request,
    data: bytes,
    media_type: str,
    *,
    seconds: int = 1,
    is_open: bool = False,
) -> Response:
    return _cached(service, request, data, media_type, f"max-age={seconds}", is_open=is_open)


def _cached(
    service: Service, request: Request, data: bytes, media_type: str, how: str, *, is_open: bool = False
) -> Response:
    """Answer with a body that caches may keep as said, or with nothing when the caller has it already."""
    scope = "private" if service.access.is_private and not is_open else "public"
    headers = {"Cache-Control": f"{scope}, {how}", "ETag": etag_of(data)}
    asked = request.headers.get("if-none-match", "")
    if headers["ETag"] in (tag.strip().removeprefix("W/") for tag in asked.split(",")):
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers | {"Content-Type": media_type})
