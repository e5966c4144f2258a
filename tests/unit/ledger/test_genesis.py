"""The first entry: round trip, its id, and everything it refuses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError, FormatVersionError, VerificationError
from lichen.ledger.genesis import Admin, ForkOf, Genesis, Sealing, check_member_id, ledger_id_of
from lichen.ledger.tree import leaf_hash

LOG, ADA, BOB = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
GENESIS = Genesis(
    name="Hospital ledger",
    created_unix_ms=1_760_000_000_000,
    admins=(Admin("ada@ward-1.example", ADA.public), Admin("bob", BOB.public)),
    log_key=LOG.public,
    contracts={"members": 1, "registry": 1},
    nonce=bytes(range(12)),
    sealing=Sealing("solo", 100, 5_000),
)
FORK = ForkOf("ab" * 32, 7, bytes(32))


@pytest.mark.parametrize(
    "genesis", [GENESIS, replace(GENESIS, access="public", fork_of=FORK, sealing=Sealing())]
)
def test_a_genesis_reads_back(genesis: Genesis) -> None:
    entry = genesis.to_entry(LOG)
    assert Genesis.from_entry(Entry.from_bytes(entry.to_bytes())) == genesis
    assert Genesis.from_entry(entry, ledger_id_of(entry)) == genesis


def test_the_id_of_a_ledger_is_the_leaf_hash_of_its_first_entry() -> None:
    entry = GENESIS.to_entry(LOG)
    assert ledger_id_of(entry) == leaf_hash(entry.to_bytes()).hex()
    assert ledger_id_of(replace(GENESIS, nonce=bytes(12)).to_entry(LOG)) != ledger_id_of(entry)


def test_a_genesis_of_another_ledger_is_refused() -> None:
    with pytest.raises(VerificationError, match="another ledger"):
        Genesis.from_entry(GENESIS.to_entry(LOG), "00" * 32)


def test_a_genesis_is_signed_by_the_key_it_names() -> None:
    with pytest.raises(EncodingError, match="own key"):
        GENESIS.to_entry(ADA)
    with pytest.raises(VerificationError):
        Genesis.from_entry(Entry.signed(GENESIS.to_statement().to_bytes(), ADA))


@pytest.mark.parametrize(
    "changes",
    [
        {"admins": ()},
        {"admins": (Admin("ada", ADA.public), Admin("ada", BOB.public))},
        {"admins": (Admin("ada", ADA.public), Admin("bob", ADA.public))},
        {"admins": (Admin("ada", LOG.public),)},
        {"contracts": {}},
        {"contracts": {"Members": 1}},
    ],
)
def test_a_genesis_is_well_formed_from_the_start(changes: dict[str, Any]) -> None:
    with pytest.raises(EncodingError):
        replace(GENESIS, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "x" * 201},
        {"access": "open"},
        {"nonce": bytes(11)},
        {"created_unix_ms": -1},
        {"fingerprint": 0},
        {"sealing": Sealing(entries_max=0)},
        {"sealing": Sealing(slot_ms=-1)},
        {"contracts": {"members": 0}},
        {"fork_of": ForkOf("ab" * 32, 0, bytes(32))},
    ],
)
def test_a_genesis_that_its_reader_would_refuse_is_not_signed(changes: dict[str, Any]) -> None:
    with pytest.raises(EncodingError):
        replace(GENESIS, **changes).to_entry(LOG)


GOOD: dict[str, Any] = parse_canonical(replace(GENESIS, fork_of=FORK).to_statement().to_bytes())


def predicate(**changes: Any) -> bytes:
    kept = {**GOOD["predicate"], **changes}
    return canonical_json(
        {**GOOD, "predicate": {name: value for name, value in kept.items() if value is not ...}}
    )


def test_the_unchanged_payload_of_the_edits_below_is_accepted() -> None:
    assert Genesis.from_statement(Statement.from_bytes(predicate())).fork_of == FORK


@pytest.mark.parametrize("name", sorted(set(GOOD["predicate"]) - {"fork_of"}))
def test_every_member_is_needed_and_typed(name: str) -> None:
    for value in (..., None, True, [None], {"a": None}, "", -1):
        with pytest.raises(EncodingError):
            Genesis.from_statement(Statement.from_bytes(predicate(**{name: value})))


@pytest.mark.parametrize(
    "data",
    [
        predicate(more=1),
        predicate(fork_of=None),
        predicate(fork_of={"ledger": b64u(bytes(32)), "root": b64u(bytes(32))}),
        predicate(log_key=b64u(ADA.public.raw)),
        predicate(log_key=b64u(bytes(32))),
        predicate(admins=[{"key": b64u(ADA.public.raw), "member": "log"}]),
        predicate(admins=[{"key": b64u(ADA.public.raw), "member": "a b"}]),
        predicate(admins=GOOD["predicate"]["admins"] * 40),
        predicate(contracts={"members": 1.5}),
        predicate(contracts={f"c{number}": 1 for number in range(65)}),
        canonical_json({**GOOD, "subject": [{**GOOD["subject"][0], "name": "key"}]}),
        canonical_json({**GOOD, "predicateType": "urn:lichen:run:v1"}),
    ],
)
def test_other_payloads_are_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        Genesis.from_statement(Statement.from_bytes(data))


@pytest.mark.parametrize(
    "data", [predicate(format=2), canonical_json({**GOOD, "predicateType": "urn:lichen:genesis:v2"})]
)
def test_a_later_format_is_named_as_such(data: bytes) -> None:
    with pytest.raises(FormatVersionError) as caught:
        Genesis.from_statement(Statement.from_bytes(data))
    assert "newer version" in caught.value.remedy


@pytest.mark.parametrize("member", ["a", "ada", "ada@ward-1.example", "org/ada_2", "A.B", "x" * 128])
def test_member_ids_that_are_accepted(member: str) -> None:
    assert check_member_id(member) == member


@pytest.mark.parametrize("member", ["", "log", "-a", "a-", "a b", "a\n", "größe", "x" * 129, "a+b", 1, None])
def test_member_ids_that_are_refused(member: Any) -> None:
    with pytest.raises(EncodingError):
        check_member_id(member)
