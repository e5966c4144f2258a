"""Artefacts as the peers of IPFS ask for them: block by block, or as a CAR file, nothing of which they need to believe.

A client asks for a name and checks what it gets against it, so any client of trustless gateways can use a ledger's server, and
the delegated routing call beside it says to such a client that this is where to ask. What a private ledger holds is given to its
members alone, as everywhere.

Source: https://specs.ipfs.tech/http-gateways/trustless-gateway/ and https://specs.ipfs.tech/routing/http-routing-v1/.
Differs: no paths behind a CID, no IPNS; ranges of a file (``entity-bytes``) are answered with all of it, which verifies as well.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lichen.content.car import car_pieces
from lichen.content.cid import Cid
from lichen.errors import EncodingError, NotFoundError, VerificationError
from lichen.net.server.problem import Problem

if TYPE_CHECKING:
    from lichen.net.server.service import Service

__all__ = ["CAR_TYPE", "RAW_TYPE", "get_blocks", "get_providers"]

RAW_TYPE: Final = "application/vnd.ipld.raw"
CAR_TYPE: Final = "application/vnd.ipld.car"
_CAR_AS_SENT: Final = f"{CAR_TYPE}; version=1; order=dfs; dups=n"
_NOTHING: Final = "bafkqaaa"  # the identity CID of no bytes, by which clients try whether this is a gateway
_FORMATS: Final = {"raw": RAW_TYPE, "car": CAR_TYPE}


def get_blocks(service: Service, request: Request) -> Response:
    """Give a raw block, or a CAR file of it and everything below it."""
    text = request.path_params["cid"]
    wanted = _wanted(request)
    scope = request.query_params.get("dag-scope", "all")
    if scope not in {"block", "entity", "all"}:
        raise Problem(400, "usage", "dag-scope is block, entity or all")
    kept = "private" if service.access.is_private else "public"
    ending = "car" if wanted == CAR_TYPE else "bin"
    headers = {
        "Cache-Control": f"{kept}, max-age=29030400, immutable",
        "ETag": f'"{text}.{wanted.rpartition(".")[2]}{"" if scope == "all" or ending == "bin" else "." + scope}"',
        "X-Content-Type-Options": "nosniff",
        "X-Ipfs-Path": f"/ipfs/{text}",
        "Content-Disposition": f'attachment; filename="{text}.{ending}"',
        "Vary": "Accept",
    }
    asked = request.headers.get("if-none-match", "")
    if text == _NOTHING:
        return Response(b"", media_type=wanted, headers=headers)
    cid = _cid(text)
    block = service.blocks.block(cid)
    if headers["ETag"] in (tag.strip().removeprefix("W/") for tag in asked.split(",")):
        return Response(status_code=304, headers=headers)
    if wanted == RAW_TYPE:
        if request.method != "HEAD":
            service.metrics.moved("out", len(block))
        return Response(block, media_type=RAW_TYPE, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Type": _CAR_AS_SENT})
    blocks: Iterable[tuple[Cid, bytes]] = [(cid, block)] if scope == "block" else service.blocks.blocks(cid)
    return StreamingResponse(
        _counted(service, car_pieces(cid, blocks)), headers=headers | {"Content-Type": _CAR_AS_SENT}
    )


def get_providers(service: Service, request: Request) -> Response:
    """Name this server as the one to ask, when it holds what is asked for."""
    providers = []
    with contextlib.suppress(NotFoundError, VerificationError, EncodingError):
        service.blocks.block(Cid.parse(request.path_params["cid"]))
        providers.append({
            "Schema": "peer",
            "ID": service.reader.log_key.peer_id,
            "Addrs": [_address(request)],
            "Protocols": ["transport-ipfs-gateway-http"],
        })  # fmt: skip
    return Response(
        json.dumps({"Providers": providers}), media_type="application/json",
        headers={"Cache-Control": "no-store", "Vary": "Accept"},
    )  # fmt: skip


def _wanted(request: Request) -> str:
    """Find out whether a block or a CAR file is wanted; the query goes before the header."""
    if (told := request.query_params.get("format")) is not None:
        if told not in _FORMATS:
            raise Problem(400, "usage", "format is raw or car")
        return _FORMATS[told]
    accepted = [part.partition(";")[0].strip() for part in request.headers.get("accept", "").split(",")]
    found = next((kind for kind in accepted if kind in _FORMATS.values()), None)
    if found is None:
        raise Problem(
            406, "not-acceptable", "this gateway gives blocks and CAR files, which verify themselves",
            remedy=f"Ask with ?format=raw, ?format=car, or Accept: {RAW_TYPE}.",
        )  # fmt: skip
    return found


def _cid(text: str) -> Cid:
    try:
        return Cid.parse(text)
    except EncodingError as error:
        raise Problem(404, "not-found", error.message, remedy=error.remedy) from error


def _address(request: Request) -> str:
    """Write as a multiaddress how the client reached this server."""
    host, port = request.url.hostname or "localhost", request.url.port
    secure = request.url.scheme == "https"
    kind = "ip6" if ":" in host else "ip4" if host.replace(".", "").isdigit() else "dns"
    return f"/{kind}/{host}/tcp/{port or (443 if secure else 80)}/{'https' if secure else 'http'}"


def _counted(service: Service, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        service.metrics.moved("out", len(piece))
        yield piece
