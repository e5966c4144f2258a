"""The OpenAPI document is true: every route is in it, and whatever is generated from it is answered, never with 5xx."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from lichen.content.unixfs import hash_bytes
from lichen.net.server.app import LedgerApplication
from lichen.net.server.operations import OPERATIONS, openapi_document
from lichen.net.server.service import Service
from lichen.net.server.submitting import BUNDLE_TYPE, ENTRY_TYPE
from lichen.net.signed_request import sign_request
from lichen.net.tile_paths import pack_bundle

from .conftest import Server, Team

Start = Callable[..., Server]
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES_PER_OPERATION = 12


@schemathesis.serializer(ENTRY_TYPE, BUNDLE_TYPE)
def some_bytes(ctx: schemathesis.SerializationContext, value: object) -> bytes:
    """Bodies that are no JSON: what was generated as it is, or as an entry of a bundle, as two, or as one that is cut short."""
    text = json.dumps(value, default=str).encode()[:60_000]
    ways = (text, pack_bundle([text]), pack_bundle([text, b"\x01" + text]), pack_bundle([text])[:-1])
    return ways[len(text) % len(ways)]


def test_every_route_is_in_the_document_and_the_other_way_round(public_team: Team) -> None:
    service = Service(public_team.directory, public_team.log_key)
    try:
        application = LedgerApplication(service)
        served = {
            (method, route.path.replace(":path", ""))
            for route in application.routes
            for method in route.methods or ()
            if method != "HEAD"
        } | {("POST", "/records"), ("POST", "/records/batch")}
    finally:
        service.close()
    document = openapi_document(is_private=False)
    documented = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert served == documented


@pytest.mark.parametrize("access", ["public", "private"])
def test_what_is_generated_from_the_document_is_answered_as_it_says(
    access: str, tmp_path, serve: Start
) -> None:
    team = Team(tmp_path / "ledger", tmp_path / "server", access=access).found()
    server, key = serve(team), team.keys["alice"]
    for _ in range(3):
        assert server.submit(team.entry(), receipt=True).status == 201
    artefact = b"a model"
    assert server.ask("PUT", f"/artefact/{hash_bytes(artefact).cid}", artefact, key=key).status == 201
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    seen = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        seen.add(operation.label)

        @given(case=operation.as_strategy())
        @settings(
            max_examples=EXAMPLES_PER_OPERATION,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def holds(case) -> None:
            prepared = case.as_transport_kwargs()
            target = prepared["url"].removeprefix(server.url)
            headers = sign_request(
                key, team.id, case.method.upper(), target, created=int(time.time()), nonce=os.urandom(16)
            )
            response = case.call(headers=headers)
            case.validate_response(response, checks=CHECKS)

        holds()
    assert seen | {"GET /openapi.json"} == {f"{each.method} {each.path}" for each in OPERATIONS}
    assert server.get("/health").json()["status"] == "ok"
