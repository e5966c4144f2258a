"""Seals: round trip, shape, and how one follows another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.seal import Seal, check_succession

FIRST = Seal(0, None, 5, bytes(32), bytes([1] * 32), 1_000)
SECOND = Seal(1, 5, 9, bytes([2] * 32), bytes([3] * 32), 1_000)


@pytest.mark.parametrize(
    "seal",
    [FIRST, SECOND, replace(SECOND, sealer="ada", consensus="pbft", evidence={"votes": ["AAAA"]})],
)
def test_a_seal_reads_back(seal: Seal) -> None:
    assert Seal.from_statement(Statement.from_bytes(seal.to_statement().to_bytes())) == seal


def test_a_seal_is_small() -> None:
    seal = Seal(999_999, 1_999_990, 1_999_999, bytes(32), bytes(32), 1_900_000_000_000)
    assert ENTRY_OVERHEAD_BYTES + len(seal.to_statement().to_bytes()) <= 560


def test_evidence_is_signed_over_the_seal_without_it() -> None:
    assert replace(SECOND, evidence={"votes": []}).signed_part() == SECOND.signed_part()
    assert SECOND.signed_part() == SECOND.to_statement().to_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"block_height": -1},
        {"block_height": True},
        {"block_height": 0},
        {"block_height": 6},
        {"previous_seal": None},
        {"previous_seal": 9},
        {"previous_seal": 0},
        {"tree_size": 0},
        {"time_unix_ms": -1},
        {"time_unix_ms": 2**53},
        {"sealer": ""},
        {"consensus": ""},
    ],
)
def test_a_seal_is_well_formed_from_the_start(changes: dict[str, Any]) -> None:
    with pytest.raises(EncodingError):
        replace(SECOND, **changes)


def test_the_first_seal_names_none_before_it() -> None:
    with pytest.raises(EncodingError):
        replace(FIRST, previous_seal=1)
    with pytest.raises(EncodingError):
        replace(FIRST, tree_size=0)


GOOD: dict[str, Any] = parse_canonical(SECOND.to_statement().to_bytes())


def predicate(**changes: Any) -> bytes:
    return canonical_json({**GOOD, "predicate": {**GOOD["predicate"], **changes}})


@pytest.mark.parametrize(
    "data",
    [
        canonical_json({**GOOD, "predicateType": "urn:lichen:seal:v2"}),
        canonical_json({**GOOD, "predicateType": "urn:lichen:run:v1"}),
        canonical_json({**GOOD, "subject": GOOD["subject"][:1]}),
        canonical_json({**GOOD, "subject": GOOD["subject"][::-1]}),
        predicate(more=1),
        predicate(block_height="1"),
        predicate(tree_size=0),
        predicate(tree_size=9.5),
        predicate(sealer=1),
        predicate(sealer="x" * 201),
        predicate(evidence=[]),
        canonical_json(
            {
                **GOOD,
                "predicate": {
                    name: GOOD["predicate"][name] for name in GOOD["predicate"] if name != "sealer"
                },
            }
        ),
    ],
)
def test_other_records_are_not_seals(data: bytes) -> None:
    with pytest.raises(EncodingError):
        Seal.from_statement(Statement.from_bytes(data))


def test_another_kind_of_record_is_not_a_seal() -> None:
    with pytest.raises(EncodingError, match="not a seal"):
        Seal.from_statement(Statement("run", (Subject("a", bytes(32)),), {}))


def test_the_second_seal_follows_the_first() -> None:
    check_succession(FIRST, None)
    check_succession(SECOND, FIRST)


@pytest.mark.parametrize(
    ("seal", "previous", "message"),
    [
        (SECOND, None, "height 0"),
        (FIRST, FIRST, "rise by one"),
        (replace(SECOND, block_height=2), FIRST, "rise by one"),
        (replace(SECOND, previous_seal=4), FIRST, "name the one before"),
        (replace(SECOND, time_unix_ms=999), FIRST, "must not fall"),
        (replace(SECOND, tree_size=6), FIRST, "at least one entry"),
    ],
)
def test_a_seal_that_does_not_follow_is_refused(seal: Seal, previous: Seal | None, message: str) -> None:
    with pytest.raises(VerificationError, match=message):
        check_succession(seal, previous)
