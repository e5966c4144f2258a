"""Whoever is not admitted, or says what they may not: refused with the rule's name, and the ledger stays as it was."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults.site import Site

from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, Rejected
from lichen.ledger.ledger import Ledger


class Gate:
    """A ledger with two members: ada, an admin, and bob, whose first key was revoked and whose third was stolen."""

    def __init__(self, root: Path) -> None:
        import random

        self.site = Site(root)
        self.rng = random.Random(8)
        self.ledger: Ledger = self.site.create()
        self.revoked, self.bob, self.stolen = (SigningKey.generate() for _ in range(3))
        self.member("admit", self.revoked)
        self.early = self.signed(self.revoked, "bob")
        self.ledger.append(self.early)
        self.member("add-key", self.bob)
        self.member("add-key", self.stolen)
        self.member("revoke", self.revoked)
        self.member("compromise", self.stolen, from_index=self.ledger.size)
        self.ledger.seal(force=True)

    def member(self, action: str, key: SigningKey, **more: int) -> None:
        said = {"action": action, "subject_member": "bob", "key": b64u(key.public.raw), **more}
        statement = self.ledger.statement("member", [Subject("key", key.public.raw)], said, member="ada")
        self.ledger.append(Entry.signed(statement.to_bytes(), self.site.member_key))

    def statement(self, member: str = "bob") -> Statement:
        made = self.site.statement(self.ledger, self.rng)
        return Statement(made.kind, made.subjects, {**made.predicate, "member": member})

    def signed(self, key: SigningKey, member: str = "bob") -> Entry:
        return Entry.signed(self.statement(member).to_bytes(), key)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    made = Gate(tmp_path)
    yield made
    made.ledger.close()


def from_elsewhere(gate: Gate) -> Entry:
    """A record that is good in another ledger of the same people with the same keys."""
    other = Site(gate.site.root / "other", seed=1)
    with other.create(entries_max=49) as ledger:
        entry = other.entry(ledger, gate.rng)
        ledger.append(entry)
    assert other.member_key.public == gate.site.member_key.public
    return entry


def with_other_payload(gate: Gate) -> Entry:
    """A signature that was made for something else."""
    return Entry(gate.bob.public.key_id, gate.signed(gate.bob).signature, gate.statement().to_bytes())


def re_encoded(gate: Gate) -> Entry:
    """The same JSON value in other bytes, under a signature that is good for these bytes."""
    value = json.loads(gate.statement().to_bytes())
    return Entry.signed(json.dumps(value, indent=1).encode(), gate.bob)


def of_a_reserved_kind(kind: str) -> Callable[[Gate], Entry]:
    def made(gate: Gate) -> Entry:
        statement = gate.statement("ada")
        payload = Statement(kind, statement.subjects, statement.predicate).to_bytes()
        return Entry.signed(payload, gate.site.member_key)

    return made


OUTSIDERS: dict[str, tuple[str, Callable[[Gate], Entry]]] = {
    "never-admitted": ("members.not-admitted", lambda gate: gate.signed(SigningKey.generate())),
    "the-logs-own-key": ("members.not-admitted", lambda gate: gate.signed(gate.site.log_key, "log")),
    "a-revoked-key": ("members.key-revoked", lambda gate: gate.signed(gate.revoked)),
    "a-stolen-key": ("members.key-revoked", lambda gate: gate.signed(gate.stolen)),
    "a-forged-author": ("members.forged-author", lambda gate: gate.signed(gate.bob, "ada")),
    "an-author-nobody-knows": ("members.forged-author", lambda gate: gate.signed(gate.bob, "eve")),
    "sent-again": ("ledger.duplicate", lambda gate: gate.early),
    "signed-again-by-its-author": (
        "ledger.duplicate",
        lambda gate: Entry.signed(gate.early.payload, gate.bob),
    ),
    "another-ledgers-record": ("ledger.wrong-ledger", from_elsewhere),
    "a-signature-for-something-else": ("ledger.bad-signature", with_other_payload),
    "a-signature-of-zeros": (
        "ledger.bad-signature",
        lambda gate: Entry(gate.bob.public.key_id, bytes(64), gate.statement().to_bytes()),
    ),
    "re-encoded": ("ledger.malformed", re_encoded),
    "no-json": ("ledger.malformed", lambda gate: Entry.signed(b"\xff{}", gate.bob)),
    "a-genesis": ("ledger.reserved-kind", of_a_reserved_kind("genesis")),
    "a-seal": ("ledger.reserved-kind", of_a_reserved_kind("seal")),
    "a-kind-nobody-rules": ("ledger.unknown-kind", of_a_reserved_kind("prophecy")),
}


@pytest.mark.parametrize("name", OUTSIDERS)
def test_outsiders_are_refused_by_name(gate: Gate, name: str) -> None:
    rule, make = OUTSIDERS[name]
    entry = make(gate)
    before = (gate.ledger.size, gate.ledger.root_at(gate.ledger.size), gate.ledger.checkpoint())
    with pytest.raises(Rejected) as caught:
        gate.ledger.append(entry, seal=True)
    assert caught.value.rule == rule
    assert caught.value.message
    assert (gate.ledger.size, gate.ledger.root_at(gate.ledger.size), gate.ledger.checkpoint()) == before
    good = gate.signed(gate.bob)
    results = gate.ledger.append_many([entry, good, entry])
    assert [type(one).__name__ for one in results] == ["Rejected", "Appended", "Rejected"]
    assert {one.rule for one in results if isinstance(one, Rejected)} == {rule}
    gate.ledger.close()
    assert gate.site.audit().is_sound


ENVELOPES: dict[str, Callable[[dict], bytes]] = {  # type: ignore[type-arg]
    "white-space": lambda value: json.dumps(value).encode() + b"\n",
    "other-order": lambda value: json.dumps(dict(reversed(value.items())), separators=(",", ":")).encode(),
    "url-safe-base64": lambda value: _envelope(
        value, payload=base64.urlsafe_b64encode(b"\xfb\xff\xfe").decode()
    ),
    "no-padding": lambda value: _envelope(value, payload=value["payload"].rstrip("=") + "A"),
    "two-signatures": lambda value: _envelope(value, signatures=value["signatures"] * 2),
    "another-type": lambda value: _envelope(value, payloadType="application/json"),
    "a-member-more": lambda value: _envelope(value, note="hello"),
    "a-member-twice": lambda value: _envelope(value)[:-1] + b',"payloadType":"application/vnd.in-toto+json"}',
}


def _envelope(value: dict, **changes: object) -> bytes:  # type: ignore[type-arg]
    return json.dumps({**value, **changes}, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("name", ENVELOPES)
def test_an_envelope_in_other_bytes_is_no_entry(gate: Gate, name: str) -> None:
    """So one record cannot be handed in twice in two guises, and whoever exports one gets back what was signed."""
    good = gate.signed(gate.bob)
    value = json.loads(good.to_dsse())
    assert Entry.from_dsse(good.to_dsse()) == good
    with pytest.raises(EncodingError):
        Entry.from_dsse(ENVELOPES[name](value))


def test_bytes_of_any_kind_leave_the_ledger_as_it_was(gate: Gate) -> None:
    size = gate.ledger.size
    for payload in (b"{}", b"null", os.urandom(300), b"[" * 900, gate.statement().to_bytes()[:-1]):
        with pytest.raises(Rejected) as caught:
            gate.ledger.append(Entry.signed(payload, gate.bob))
        assert caught.value.rule == "ledger.malformed"
    assert gate.ledger.size == size
