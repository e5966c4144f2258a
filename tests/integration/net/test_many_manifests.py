"""A ledger with hundreds of runs, used for the first time: manifests are fetched for the question alone, many in a request."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lichen.content.cid import Cid
from lichen.content.directory_store import DirectoryStore
from lichen.content.unixfs import hash_bytes
from lichen.crypto.sealed import open_bytes, seal_bytes
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.net.together import TOGETHER_COUNT_MAX
from lichen.runs.work.manifest import Manifest

from .conftest import PARTS, Server, Team, problem
from .test_remote_use import Colleague, await_publication

Start = Callable[..., Server]
OF_THE_SAME_REQUEST, OF_OTHERS = 150, 250


def artefact_requests(server: Server) -> dict[str, int]:
    """How often manifests and outputs were asked for, by route."""
    text = server.get("/metrics").text
    rows = re.findall(
        r'lichen_http_requests_total{method="GET",route="(/artefacts?/[^"]*)",status="200"} (\d+)', text
    )
    return {route: int(count) for route, count in rows}


def fill(team: Team, like: Statement) -> None:
    """Record hundreds of runs: some of the same request on other data, most of requests of their own."""
    group_key = bytes.fromhex((team.directory / "group.key").read_text())
    store = DirectoryStore(team.directory / "store")
    stored = store.read_bytes(Cid.parse(like.predicate["manifest"]))
    manifest = Manifest.from_bytes(open_bytes(stored, group_key))
    entries = []
    for number in range(OF_THE_SAME_REQUEST + OF_OTHERS):
        parts = {part: b64u(os.urandom(32)) for part in PARTS}
        if number < OF_THE_SAME_REQUEST:
            parts["command"] = like.predicate["parts"]["command"]
        other = replace(manifest, data={f"{{project}}/data-{number}.csv": b64u(bytes(32))})
        names = store.put_bytes(seal_bytes(other.to_bytes(), group_key, os.urandom(32)), durable=False)
        changes = {"parts": parts, "manifest": str(names.cid), "family": b64u(os.urandom(16))}
        entries.append(Entry.signed(team.statement(**changes).to_bytes(), team.keys["alice"]))
    with team.open(read_only=False) as ledger:
        ledger.append_many(entries, seal=True)


def test_a_hit_in_a_ledger_of_hundreds_of_runs_takes_few_requests(
    tmp_path: Path, private_team: Team, serve: Start
) -> None:
    team, server = private_team, serve(private_team)
    group_key = str(team.directory / "group.key")
    alice = Colleague(tmp_path, team, "alice", server.url)
    alice.type("join", server.url, "--group-key", group_key)
    recorded = alice.run()["record"]
    assert server.stop() == 0
    with team.open() as ledger:
        said = Statement.from_bytes(ledger.entry(recorded).payload)
    fill(team, said)
    server = serve(team)
    bob = Colleague(tmp_path, team, "bob", server.url)
    bob.type("join", server.url, "--group-key", group_key)
    assert artefact_requests(server) == {}, "to get to know a ledger takes none of its manifests"
    answered = bob.run()
    assert (answered["status"], answered["record"]) == ("hit", recorded)
    asked = artefact_requests(server)
    together = -(-(OF_THE_SAME_REQUEST + 1) // TOGETHER_COUNT_MAX)
    assert asked["/artefacts/{cids}"] <= together + 1
    assert asked["/artefact/{cid}"] <= 3, "the output and what the run printed"
    held = sum(1 for _ in DirectoryStore(bob.copy / "store").list())
    assert OF_THE_SAME_REQUEST < held < OF_THE_SAME_REQUEST + 20, "no manifest of another request is fetched"
    (bob.directory / "model.txt").unlink()
    await_publication()
    assert bob.run()["status"] == "hit"
    assert artefact_requests(server) == asked, "what was fetched once is not fetched again"


def test_artefacts_are_given_together_as_far_as_they_fit(public_team: Team, serve: Start) -> None:
    server, key = serve(public_team), public_team.keys["alice"]
    bodies = [b"one", bytes(3 * 2**20), b"", bytes(2 * 2**20), bytes(5 * 2**20)]
    cids = [str(hash_bytes(body).cid) for body in bodies]
    for cid, body in zip(cids, bodies, strict=True):
        assert server.ask("PUT", f"/artefact/{cid}", body, key=key).status == 201
    absent = str(hash_bytes(b"nobody has this").cid)
    first = server.get("/artefacts/" + ".".join([cids[0], absent, cids[4], *cids[1:4]])).body
    assert first == b"\0\0\0\x03one" + b"\xff" * 8 + b"\0\x30\0\0" + bodies[1] + bytes(4)
    assert server.get(f"/artefacts/{cids[3]}").body == b"\0\x20\0\0" + bodies[3]
    problem(server.get("/artefacts/" + ".".join([absent] * (TOGETHER_COUNT_MAX + 1))), 400, "too-many")
    problem(server.get(f"/artefacts/{absent}.."), 404, "not-found")
