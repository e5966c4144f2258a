"""Several records in one request: each has its own answer, and there are bounds."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from lichen.crypto.keys import SigningKey
from lichen.encoding.entry import Entry
from lichen.errors import NetworkError
from lichen.ledger.checkpoint import open_checkpoint
from lichen.net.remote.connection import Connection
from lichen.net.remote.remote_log import RemoteLog
from lichen.net.server.settings import ServerSettings
from lichen.net.tile_paths import pack_bundle

from .conftest import ENTRY_TYPE, Server, Team, in_thread, problem

Start = Callable[..., Server]


def submit_batch(server: Server, entries: list[bytes], query: str = "?seal=yes"):
    headers = {"Content-Type": "application/vnd.lichen.entries"}
    return server.ask("POST", f"/records/batch{query}", pack_bundle(entries), headers)


def test_many_records_in_one_request_each_get_their_own_answer(team: Team, serve: Start) -> None:
    server, known = serve(team), team.entry()
    first = server.submit(known).json()
    stranger = Entry.signed(team.statement().to_bytes(), SigningKey.generate())
    forged = Entry.signed(team.statement("alice").to_bytes(), team.keys["bob"])
    new = [team.entry("bob") for _ in range(3)]
    sent = [new[0], known, stranger, forged, new[1], new[1], new[2]]
    answer = submit_batch(server, [*(each.to_bytes() for each in sent), b"no entry"])
    assert answer.status == 200
    told = answer.json()
    results = told["results"]
    assert [each["status"] for each in results] == [201, 200, 403, 403, 201, 200, 201, 400]
    assert results[1]["index"] == first["index"]
    assert results[4] == {**results[5], "status": 201}
    assert [results[place]["rule"] for place in (2, 3)] == ["members.not-admitted", "members.forged-author"]
    checkpoint = open_checkpoint(told["checkpoint"], f"lichen/{team.id}", team.log_key.public)
    assert checkpoint.tree_size == results[6]["index"] + 2
    with team.open() as ledger:
        for place in (0, 4, 6):
            assert ledger.entry(results[place]["index"]) == sent[place]
    again = submit_batch(server, [each.to_bytes() for each in sent[:2]]).json()
    assert [each["status"] for each in again["results"]] == [200, 200]
    assert "checkpoint" not in submit_batch(server, [], "").json()
    assert 'lichen_records_total{outcome="appended"} 4' in server.get("/metrics").text


def test_a_batch_is_bounded_in_number_bytes_and_rate(public_team: Team, monkeypatch) -> None:
    few = ServerSettings(records_per_second=0.01, records_burst=3)
    with in_thread(public_team, few, monkeypatch) as server:
        entries = [public_team.entry().to_bytes() for _ in range(4)]
        assert server.get("/").json()["batch_count_max"] == 3
        assert "at most 3" in problem(submit_batch(server, entries), 400, "malformed")["remedy"]
        with contextlib.suppress(OSError):  # it may be cut off while it is sending
            problem(submit_batch(server, [b"x" * 65_000] * 40), 413, "too-large")
        problem(server.ask("POST", "/records/batch", b"", {"Content-Type": ENTRY_TYPE}), 415, "unsupported-media-type")  # fmt: skip
        problem(submit_batch(server, entries[:1], "?receipt=yes"), 400, "bad-query")
        assert submit_batch(server, entries[:2]).status == 200
        problem(submit_batch(server, entries[2:]), 429, "too-many-requests")
        assert submit_batch(server, entries[3:]).status == 200
        assert server.get("/health").json()["entries"] == 2 + 3 + 2


def test_a_ledger_elsewhere_sends_many_records_in_one_request(public_team: Team, serve: Start) -> None:
    team, server = public_team, serve(public_team)
    log = RemoteLog(Connection(server.url), lambda: team.keys["alice"])
    assert log.batch_bounds() == (256, 2**21)
    entries = [team.entry() for _ in range(40)]
    places, checkpoint = log.submit_many(entries)
    assert places == list(range(2, 42))
    assert open_checkpoint(checkpoint, f"lichen/{team.id}", team.log_key.public).tree_size == 43
    refused, _ = log.submit_many([team.entry(ledger="A" * 43), entries[0]])
    assert [getattr(each, "rule", each) for each in refused] == ["ledger.wrong-ledger", 2]
    log.close()


def test_a_client_waits_when_it_is_too_much_at_once(public_team: Team, monkeypatch) -> None:
    with in_thread(public_team, ServerSettings(records_per_second=0.01, records_burst=3), monkeypatch) as server:  # fmt: skip
        slept: list[float] = []
        log = RemoteLog(Connection(server.url), lambda: public_team.keys["alice"], slept.append)
        assert log.submit_many([public_team.entry() for _ in range(3)])[0] == [2, 3, 4]
        with pytest.raises(NetworkError, match="cannot answer now"):
            log.submit_many([public_team.entry()])
        log.close()
    assert len(slept) == 10
    assert all(1 <= seconds <= 30 for seconds in slept)
