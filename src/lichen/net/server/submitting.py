"""Records come in here: form, size, rate and author's key are looked at, then the committer decides.

Written against the bare ASGI interface, because this is what a busy server does most.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from starlette.concurrency import run_in_threadpool

from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, Entry
from lichen.errors import EncodingError
from lichen.net.server.limits import header, read_body
from lichen.net.server.problem import Problem
from lichen.net.server.settings import BATCH_BYTES_MAX, RECORD_BYTES_MAX
from lichen.net.tile_paths import unpack_at_most

if TYPE_CHECKING:
    from starlette.types import Receive, Scope

    from lichen.net.server.committer import Accepted
    from lichen.net.server.service import Service

__all__ = ["BUNDLE_TYPE", "ENTRY_TYPE", "ENVELOPE_TYPE", "submit", "submit_batch"]

ENTRY_TYPE: Final = "application/vnd.lichen.entry"
ENVELOPE_TYPE: Final = "application/vnd.dsse.envelope.v1+json"
BUNDLE_TYPE: Final = "application/vnd.lichen.entries"
"""An entry bundle: each entry in its compact form after its length in two bytes."""

_ENTRY_TYPE_BYTES: Final = ENTRY_TYPE.encode()
_ENVELOPE_TYPE_BYTES: Final = ENVELOPE_TYPE.encode()
_BUNDLE_TYPE_BYTES: Final = BUNDLE_TYPE.encode()
_OUTCOMES: Final = {200: "repeated", 201: "appended"}

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
    wants_receipt = _is_wanted(scope, b"receipt")
    media_type = _media_type(scope, _ENTRY_TYPE_BYTES, _ENVELOPE_TYPE_BYTES)
    is_compact = media_type == _ENTRY_TYPE_BYTES
    limit = ENTRY_OVERHEAD_BYTES + PAYLOAD_BYTES_MAX if is_compact else RECORD_BYTES_MAX
    body = await read_body(scope, receive, limit, service.settings.body_seconds)
    try:
        entry = Entry.from_bytes(body) if is_compact else Entry.from_dsse(body)
    except EncodingError as error:
        raise Problem(400, "malformed", error.message, remedy=error.remedy) from error
    service.records.take((_address(scope), entry.key_id))
    if not await _is_member(service, entry.key_id):
        service.metrics.record("refused")
        raise _not_admitted(entry.key_id)
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


async def submit_batch(service: Service, scope: Scope, receive: Receive) -> Answer:
    """Take several records that came in one request, each for itself.

    Args:
        service: The ledger.
        scope: The request.
        receive: Gives its body: an entry bundle.

    Returns:
        Status 200, headers, and what became of each.

    Raises:
        Problem: Nothing of it was taken.
    """
    wants_seal = _is_wanted(scope, b"seal")
    _media_type(scope, _BUNDLE_TYPE_BYTES)
    body = await read_body(scope, receive, BATCH_BYTES_MAX, service.settings.body_seconds)
    count_max = service.settings.batch_count_max
    try:
        bundle = unpack_at_most(body, count_max)
    except EncodingError as error:
        raise Problem(
            400, "malformed", error.message, remedy=f"send at most {count_max} records at a time"
        ) from error
    results: list[dict[str, Any]] = [{}] * len(bundle)
    entries: dict[int, Entry] = {}
    for place, data in enumerate(bundle):
        try:
            entries[place] = Entry.from_bytes(data)
        except EncodingError as error:
            results[place] = Problem(400, "malformed", error.message, remedy=error.remedy).told()
    keys = Counter(entry.key_id for entry in entries.values())
    for key_id, count in keys.items():
        service.records.take((_address(scope), key_id), count)
    members = {key_id for key_id in keys if await _is_member(service, key_id)}
    for place in [place for place, entry in entries.items() if entry.key_id not in members]:
        results[place] = _not_admitted(entries.pop(place).key_id).told()
    answers = service.committer.submit_many(list(entries.values()), wants_seal=wants_seal)
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    for place, outcome in zip(entries, outcomes, strict=True):
        results[place] = _told(outcome)
    failures = [each for each in outcomes if isinstance(each, Problem) and each.status >= 500]
    if failures and len(failures) == len(results):
        raise failures[0]
    _count(service, results)
    told: dict[str, Any] = {"results": results}
    if wants_seal:
        told["checkpoint"] = await run_in_threadpool(service.reader.checkpoint)
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    return 200, headers, json.dumps(told).encode("ascii")


def _told(outcome: Accepted | BaseException) -> dict[str, Any]:
    """What became of one record of several."""
    if isinstance(outcome, Problem):
        return outcome.told()
    if isinstance(outcome, BaseException):
        raise outcome
    status = 201 if outcome.is_new else 200
    return {"status": status, "index": outcome.index, "payload_sha256": outcome.payload_digest.hex()}


def _count(service: Service, results: list[dict[str, Any]]) -> None:
    for result in results:
        if result["status"] < 500:
            service.metrics.record(_OUTCOMES.get(result["status"], "refused"))


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


async def _is_member(service: Service, key_id: bytes) -> bool:
    """Say whether a key was ever a member's, without a thread where that is known."""
    access = service.access
    return access.is_known_without_asking(key_id) or await run_in_threadpool(access.knows, key_id)


def _not_admitted(key_id: bytes) -> Problem:
    return Problem(
        403,
        "rejected",
        f"key {key_id.hex()} belongs to no member of this ledger",
        remedy="ask an admin to admit it: `lichen key admit`",
        extra={"rule": "members.not-admitted"},
    )


def _media_type(scope: Scope, *taken: bytes) -> bytes:
    """Media type of a body.

    Raises:
        Problem: None of those that are taken.
    """
    media_type = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower()
    if media_type not in taken:
        names = b" or ".join(taken).decode()
        raise Problem(
            415,
            "unsupported-media-type",
            f"this is taken as {names}, not as {media_type.decode('latin-1')[:80]!r}",
            headers={"Accept-Post": b", ".join(taken).decode()},
        )
    return media_type


def _is_wanted(scope: Scope, name: bytes) -> bool:
    """Read the one parameter that a submission has.

    Raises:
        Problem: There is another, or another value.
    """
    query = scope["query_string"]
    if query not in (b"", name + b"=yes", name + b"=no"):
        text = name.decode()
        raise Problem(
            400, "bad-query", f"the one parameter here is {text}=yes or {text}=no", remedy="leave it out"
        )
    return bool(query == name + b"=yes")
