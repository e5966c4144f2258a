"""Records come in here: form, size, rate and author's key are looked at, then the committer decides.

Written against the bare ASGI interface, because this is what a busy server does most.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool

from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, Entry
from lichen.errors import EncodingError
from lichen.net.server.limits import header, read_body
from lichen.net.server.problem import Problem
from lichen.net.server.settings import RECORD_BYTES_MAX

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from lichen.net.server.service import Service

__all__ = ["ENTRY_TYPE", "ENVELOPE_TYPE", "submit"]

ENTRY_TYPE: Final = "application/vnd.lichen.entry"
ENVELOPE_TYPE: Final = "application/vnd.dsse.envelope.v1+json"

_ENTRY_TYPE_BYTES: Final = ENTRY_TYPE.encode()
_ENVELOPE_TYPE_BYTES: Final = ENVELOPE_TYPE.encode()

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]


async def submit(service: Service, scope: Scope, receive: Receive) -> Answer:
    """Take one record.

    Args:
        service: The ledger.
        scope: The request.
        receive: Gives its body.

    Returns:
        Status 201 for a new record or 200 for one that was there, headers and body.

    Raises:
        Problem: It was not taken.
    """
    wants_receipt = _wants_receipt(scope)
    media_type = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type not in (_ENTRY_TYPE_BYTES, _ENVELOPE_TYPE_BYTES):
        raise Problem(
            415,
            "unsupported-media-type",
            f"a record comes as {ENTRY_TYPE} or {ENVELOPE_TYPE}, not as {media_type.decode('latin-1')[:80]!r}",
            headers={"Accept-Post": f"{ENTRY_TYPE}, {ENVELOPE_TYPE}"},
        )
    is_compact = media_type == _ENTRY_TYPE_BYTES
    limit = ENTRY_OVERHEAD_BYTES + PAYLOAD_BYTES_MAX if is_compact else RECORD_BYTES_MAX
    body = await read_body(scope, receive, limit, service.settings.body_seconds)
    try:
        entry = Entry.from_bytes(body) if is_compact else Entry.from_dsse(body)
    except EncodingError as error:
        raise Problem(400, "malformed", error.message, remedy=error.remedy) from error
    client = scope.get("client")
    service.records.take((client[0] if client else "", entry.key_id))
    access = service.access
    if not access.is_known_without_asking(entry.key_id) and not await run_in_threadpool(
        access.knows, entry.key_id
    ):
        service.metrics.record("refused")
        raise Problem(
            403,
            "rejected",
            f"key {entry.key_id.hex()} belongs to no member of this ledger",
            remedy="ask an admin to admit it: `lichen key admit`",
            extra={"rule": "members.not-admitted"},
        )
    try:
        accepted = await service.committer.submit(entry, wants_receipt=wants_receipt)
    except Problem as problem:
        if problem.status < 500:
            service.metrics.record("refused")
        raise
    service.metrics.record("appended" if accepted.is_new else "repeated")
    told: dict[str, Any] = {"index": accepted.index, "payload_sha256": accepted.payload_digest.hex()}
    if accepted.receipt is not None:
        told["receipt"] = accepted.receipt
    return (
        201 if accepted.is_new else 200,
        [
            (b"content-type", b"application/json"),
            (b"location", b"/receipt/%d" % accepted.index),
            (b"cache-control", b"no-store"),
        ],
        json.dumps(told).encode("ascii"),
    )


def _wants_receipt(scope: Scope) -> bool:
    query = scope["query_string"]
    if query not in (b"", b"receipt=yes", b"receipt=no"):
        raise Problem(
            400, "bad-query", "the one parameter here is receipt=yes or receipt=no", remedy="leave it out"
        )
    return bool(query == b"receipt=yes")
