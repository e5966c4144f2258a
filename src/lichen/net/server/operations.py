"""Every operation of the HTTP interface, once: routes, access and documentation are all made from this table.

The OpenAPI document is written from it, so it cannot name a route that is not there, or leave one out.

Source: OpenAPI Specification 3.1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lichen import __version__
from lichen.net.server import artefacts, gateway, reading
from lichen.net.server.submitting import BUNDLE_TYPE, ENTRY_TYPE, ENVELOPE_TYPE

if TYPE_CHECKING:
    from lichen.net.server.service import Service

__all__ = ["OPERATIONS", "Operation", "openapi_document"]

_TEXT: Final = "text/plain"
_JSON: Final = "application/json"
_BYTES: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Operation:
    """One method on one path.

    Attributes:
        method: ``GET``, ``PUT`` or ``POST``; ``GET`` answers ``HEAD`` too.
        path: Pattern, with parameters in braces.
        summary: What it does, in one line.
        access: ``open`` to anybody, ``read`` for members where the ledger is private, ``member`` always, or ``record`` where
            the signature of the record decides.
        answers: Status and what it means, with the media type of the body, or None where there is none.
        handler: Answers it: a function of service and request. None where the application itself does.
        parameters: Parameters of path and query: name to JSON schema and meaning.
        query: Names of those that stand in the query.
        body: Media type of each body that is taken, with its JSON schema.
        is_slow: Whether the handler is a coroutine that reads a body.
    """

    method: str
    path: str
    summary: str
    access: str
    answers: Mapping[int, tuple[str, str | None]]
    handler: Callable[[Service, Any], Any] | None = None
    parameters: Mapping[str, tuple[Mapping[str, Any], str]] = field(default_factory=dict)
    query: frozenset[str] = frozenset()
    body: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    is_slow: bool = False


_INDEX = ({"type": "integer", "minimum": 0}, "0-based place in the log")
_SIZE = ({"type": "integer", "minimum": 1}, "tree size of a checkpoint")
_CONTRACT = ({"type": "string", "pattern": "^[a-z][a-z0-9-]{0,63}$"}, "contract that owns the key")
_KEY = ({"type": "string", "pattern": "^(?:[0-9a-f]{2}){1,1024}$"}, "key, in hexadecimal")
_CID = ({"type": "string", "pattern": "^b[a-z2-7]{58}$"}, "CIDv1 of the artefact")
_CIDS = (
    {"type": "string", "pattern": "^b[a-z2-7]{58}(\\.b[a-z2-7]{58}){0,63}$"},
    "CIDs of the artefacts, with points between",
)
_ANY_CID = (
    {"type": "string", "pattern": "^[A-Za-z0-9]{1,128}$"},
    "CID; those this server holds are of version 1, in base32",
)
_FORMAT = (
    {"type": "string", "enum": ["raw", "car"]},
    "one block, or a CAR file of it and all below; the Accept header says it as well",
)
_SCOPE = (
    {"type": "string", "enum": ["block", "entity", "all"]},
    "how much a CAR file holds: the block alone, or all",
)
_NUMBER = "<number>[.p/<width>], the number in groups of three digits as C2SP tlog-tiles writes it"
_TILE = ({"type": "string"}, f"<level>/ or entries/, then {_NUMBER}")
_BUNDLE = ({"type": "string"}, _NUMBER)
_GONE = {404: ("There is no such thing, or no seal covers it yet.", "problem")}
_SAME = {304: ("Unchanged.", None)}

OPERATIONS: Final = (
    Operation("GET", "/", "Say which ledger this is.", "open", {200: ("Ledger id, origin, access and log key.", _JSON), **_SAME}, reading.about),
    Operation("GET", "/health", "Say whether records are taken.", "open", {200: ("They are.", _JSON), 503: ("They are not.", "problem")}, reading.health),
    Operation("GET", "/metrics", "Numbers for Prometheus.", "open", {200: ("Text exposition 0.0.4.", _TEXT)}, reading.metrics),
    Operation("GET", "/openapi.json", "This document.", "open", {200: ("OpenAPI 3.1.", _JSON)}, None),
    Operation("GET", "/checkpoint", "The published checkpoint, new at most once a second.", "read", {200: ("C2SP checkpoint.", _TEXT), **_SAME}, reading.checkpoint),
    Operation("GET", "/tile/{path}", "A tile of the tree, or an entry bundle.", "read", {200: ("Hashes of 32 bytes, or entries after their lengths.", _BYTES), **_SAME, **_GONE}, reading.tile, {"path": _TILE}),
    Operation("GET", "/checkpoint-signatures/{path}", "The log's signatures of the checkpoints in one entry bundle.", "read", {200: ("For each seal its place, 1 byte, and the signature, 64 bytes.", _BYTES), **_SAME, **_GONE}, reading.checkpoint_signatures, {"path": _BUNDLE}),
    Operation("GET", "/entry/{index}", "One entry as a DSSE envelope.", "read", {200: ("The envelope.", _JSON), **_SAME, **_GONE}, reading.entry, {"index": _INDEX}),
    Operation("GET", "/receipt/{index}", "The receipt of an entry under the first checkpoint that covers it.", "read", {200: ("C2SP tlog-proof.", _TEXT), **_SAME, **_GONE}, reading.receipt, {"index": _INDEX}),
    Operation("GET", "/state/{contract}/{key}", "What the newest published state says about a key, with the proof.", "read", {200: ("C2SP tlog-proof.", _TEXT), **_SAME, **_GONE}, reading.state, {"contract": _CONTRACT, "key": _KEY}),
    Operation("GET", "/state-at/{size}/{contract}/{key}", "The same as the seal behind one checkpoint left it; the last 16 are kept.", "read", {200: ("C2SP tlog-proof.", _TEXT), **_SAME, **_GONE}, reading.state_at, {"size": _SIZE, "contract": _CONTRACT, "key": _KEY}),
    Operation("GET", "/artefact/{cid}", "An artefact, verified.", "read", {200: ("Its bytes.", _BYTES), **_SAME, **_GONE}, artefacts.get_artefact, {"cid": _CID}),
    Operation("GET", "/artefacts/{cids}", "Several small artefacts in one answer, verified; those after the first may be left for another request.", "read", {200: ("For each its size, 4 bytes, and its bytes; ff ff ff ff for one that is not held or too large.", _BYTES)}, artefacts.get_artefacts, {"cids": _CIDS}),
    Operation("GET", "/ipfs/{cid}", "A block, or a CAR file of an artefact, as a trustless IPFS gateway.", "read", {200: ("What was asked for.", gateway.RAW_TYPE), 406: ("Neither a block nor a CAR file was asked for.", "problem"), **_SAME, **_GONE}, gateway.get_blocks, {"cid": _ANY_CID, "format": _FORMAT, "dag-scope": _SCOPE}, query=frozenset({"format", "dag-scope"})),
    Operation("GET", "/routing/v1/providers/{cid}", "Who holds a CID: this server, when it does.", "read", {200: ("Delegated routing: a list of providers.", _JSON)}, gateway.get_providers, {"cid": _ANY_CID}),
    Operation("PUT", "/artefact/{cid}", "Keep an artefact.", "member", {200: ("It was kept already.", None), 201: ("It is kept, durably.", None), 422: ("The bytes have another CID.", "problem")}, artefacts.put_artefact, {"cid": _CID}, body={_BYTES: {}}, is_slow=True),
    Operation(
        "POST", "/records", "Submit a signed record; the same payload again gets the same answer.", "record",
        {
            200: ("It was in the ledger already.", _JSON),
            201: ("It is in the ledger, durably.", _JSON),
            409: ("Its payload is there with another signature.", "problem"),
            422: ("A rule refused it.", "problem"),
        },
        None,
        {"receipt": ({"type": "string", "enum": ["yes", "no"]}, "close the block behind it and send the receipt")},
        query=frozenset({"receipt"}),
        body={ENTRY_TYPE: {}, ENVELOPE_TYPE: {"$ref": "#/components/schemas/Envelope"}},
    ),
    Operation(
        "POST", "/records/batch", "Submit several signed records; each gets its own answer.", "record",
        {200: ("What became of each, in their order; with seal=yes, the checkpoint behind them.", _JSON)},
        None,
        {"seal": ({"type": "string", "enum": ["yes", "no"]}, "close the block behind the last and send the checkpoint")},
        query=frozenset({"seal"}),
        body={BUNDLE_TYPE: {}},
    ),
)  # fmt: skip
"""Every operation, in the order of the reference."""

_EVERYWHERE: Final = {
    400: "The request is malformed.",
    405: "Not a method of this path.",
    429: "Too many requests; Retry-After says when to come back.",
    503: "Busy, shutting down, or the disk failed; Retry-After says when to come back.",
}
_AUTHENTICATED: Final = {
    401: "Not signed by a member, too old, or seen before.",
    403: "The key is no member's, or its time is over.",
}
_WITH_BODY: Final = {
    408: "The body came too slowly.",
    413: "The body is too large.",
    415: "The body is of another type.",
}
_SCHEMAS: Final[Mapping[str, Any]] = {
    "Problem": {
        "type": "object",
        "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "remedy": {"type": "string"},
            "rule": {"type": "string"},
        },
    },
    "Envelope": {
        "type": "object",
        "required": ["payload", "payloadType", "signatures"],
        "additionalProperties": False,
        "properties": {
            "payload": {"type": "string", "contentEncoding": "base64"},
            "payloadType": {"const": "application/vnd.in-toto+json"},
            "signatures": {
                "type": "array",
                "minItems": 1,
                "maxItems": 1,
                "items": {
                    "type": "object",
                    "required": ["keyid", "sig"],
                    "properties": {"keyid": {"type": "string"}, "sig": {"type": "string"}},
                },
            },
        },
    },
}


def openapi_document(*, is_private: bool) -> dict[str, Any]:
    """Write the OpenAPI document of a server.

    Args:
        is_private: Whether reading needs a signed request.
    """
    paths: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, is_private)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Lichen ledger",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": dict(_SCHEMAS),
            "securitySchemes": {
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Signature",
                    "description": "HTTP message signature (RFC 9421) with a member's Ed25519 key, with the headers "
                    "Signature-Input and Lichen-Ledger",
                }
            },
        },
    }


def _described(operation: Operation, is_private: bool) -> dict[str, Any]:
    needs_member = operation.access == "member" or (operation.access == "read" and is_private)
    told: dict[str, Any] = {
        "operationId": _name_of(operation),
        "summary": operation.summary,
        "responses": _responses(operation, needs_member),
    }
    if operation.parameters:
        told["parameters"] = [
            {
                "name": name,
                "in": "query" if name in operation.query else "path",
                "required": name not in operation.query,
                "schema": dict(schema),
                "description": meaning,
            }
            for name, (schema, meaning) in operation.parameters.items()
        ]
    if operation.body:
        content = {kind: ({"schema": dict(schema)} if schema else {}) for kind, schema in operation.body.items()}  # fmt: skip
        told["requestBody"] = {"required": True, "content": content}
    if needs_member:
        told["security"] = [{"signature": []}]
    return told


def _responses(operation: Operation, needs_member: bool) -> dict[str, Any]:
    texts: dict[int, tuple[str, str | None]] = {
        status: (text, "problem") for status, text in _EVERYWHERE.items()
    }
    if needs_member or operation.access == "record":
        texts |= {status: (text, "problem") for status, text in _AUTHENTICATED.items()}
    if operation.body:
        texts |= {status: (text, "problem") for status, text in _WITH_BODY.items()}
    if operation.parameters and operation.method != "POST":
        texts |= _GONE
    texts |= operation.answers
    return {str(status): _response(*texts[status]) for status in sorted(texts)}


def _response(text: str, kind: str | None) -> dict[str, Any]:
    if kind is None:
        return {"description": text}
    if kind == "problem":
        schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
        return {"description": text, "content": {"application/problem+json": schema}}
    return {"description": text, "content": {kind: {}}}


def _name_of(operation: Operation) -> str:
    words = [word for word in operation.path.replace("{", "").replace("}", "").split("/") if word]
    return "_".join([operation.method.lower(), *words]).replace("-", "_").replace(".", "_")
