"""A running server whose log gets a new key: it goes on with that, or says that it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lichen.contracts import default_contracts
from lichen.crypto.key_file import write_key
from lichen.crypto.keys import SigningKey
from lichen.ledger.audit import audit
from lichen.ledger.receipt import Receipt, verify_receipt
from lichen.ledger.succession import Approval, Succession

from .conftest import Server, Team, problem

Start = Callable[..., Server]


def give_the_log_a_new_key(team: Team, place: Path) -> SigningKey:
    """What `lichen key succeed` does after all admins agreed; the new key is written where it is told."""
    new, old = SigningKey.generate(), team.log_key
    write_key(place, new)
    approvals = [Approval.sign(team.id, old.public, new.public, team.keys["bob"])]
    with team.open(read_only=False) as ledger:
        ledger.succeed_log_key(
            Succession.sign(team.id, old, new, approvals), "alice", team.keys["alice"], new
        )
    return new


def test_a_running_server_goes_on_with_the_logs_new_key(public_team: Team, serve: Start) -> None:
    team, server = public_team, serve(public_team)
    assert server.submit(team.entry(), receipt=True).status == 201
    new = give_the_log_a_new_key(team, team.directory / "log.key.next")
    (team.directory / "log.key.next").replace(team.directory / "log.key")
    assert server.submit(team.entry()).status == 201
    accepted = server.submit(team.entry(), receipt=True)
    assert accepted.status == 201, accepted.text
    told = verify_receipt(Receipt.parse(accepted.json()["receipt"]), new.public, f"lichen/{team.id}")
    assert told.index == accepted.json()["index"]
    assert server.get("/").json()["log_keys"] == [team.log_key.public.did_key, new.public.did_key]
    assert server.submit(team.entry()).status == 201
    assert server.stop() == 0
    assert "the log of the ledger has a new key; going on with it" in server.log()
    with team.open() as ledger:
        assert ledger.sealed_size == ledger.size
    assert audit(team.directory, default_contracts()).is_sound


def test_a_server_without_the_logs_new_key_refuses_until_it_has_it(public_team: Team, serve: Start) -> None:
    team, server, entry = public_team, serve(public_team), public_team.entry()
    elsewhere = team.home / "new.key"
    give_the_log_a_new_key(team, elsewhere)
    told = problem(server.submit(entry, receipt=True), 503, "log-key")
    assert "new key" in told["detail"]
    problem(server.get("/health"), 503, "log-key")
    problem(server.submit(entry), 503, "log-key")
    assert server.get("/checkpoint").status == 200
    assert str(team.directory) in server.log()
    assert server.log().count("no records are taken") == 1
    (team.directory / "log.key").unlink()
    elsewhere.rename(team.directory / "log.key")
    assert server.submit(entry, receipt=True).status == 201
    assert server.get("/health").status == 200
    assert server.stop() == 0
