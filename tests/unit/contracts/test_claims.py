"""A claim is about one key of the state, and says in words what its absence or value shows."""

from __future__ import annotations

import struct

import pytest

from lichen.contracts.claims import (
    artefact_claim,
    flagged_claim,
    read_claim,
    withdrawn_claim,
    work_claim,
)
from lichen.errors import UsageError

WORK = bytes(range(32))
TALLY = struct.Struct(">IQ")

CLAIMS = [
    work_claim("exact", WORK),
    work_claim("same-work", WORK),
    artefact_claim(WORK),
    withdrawn_claim(7),
    flagged_claim(2**63),
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key.partition(b"/")[0].decode())
def test_a_claim_is_found_again_from_its_key(claim):
    again = read_claim(claim.contract, claim.key)
    assert (again.key, again.question, again.no) == (claim.key, claim.question, claim.no)
    assert claim.open_questions(None)[: len(claim.leaves_open)] == claim.leaves_open
    assert len(claim.open_questions(None)) > len(claim.open_questions(TALLY.pack(1, 1)))


def test_absence_and_values_are_told():
    work, withdrawn = work_claim("exact", WORK), withdrawn_claim(7)
    assert work.answer(None) == f"no run with the exact fingerprint {WORK.hex()} is on record"
    assert work.answer(TALLY.pack(1, 12)).startswith("1 run with")
    assert work.answer(TALLY.pack(1, 12)).endswith("is on record, as entry 12")
    assert work.answer(TALLY.pack(1_200, 12)).startswith("1,200 runs with")
    assert work.answer(TALLY.pack(2, 12)).endswith("are on record, the last as entry 12")
    assert withdrawn.answer(None) == "no withdrawal of entry 7 is on record"
    assert withdrawn.answer(struct.pack(">Q", 9)) == "entry 7 was withdrawn by entry 9"


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.key.partition(b"/")[0].decode())
@pytest.mark.parametrize("value", [b"\0", b"x" * 7, b"y" * 1024])
def test_a_value_of_another_form_is_called_that(claim, value):
    assert "is no " in claim.answer(value)


@pytest.mark.parametrize(
    ("contract", "key"),
    [
        ("members", CLAIMS[0].key),
        ("registry", b""),
        ("registry", b"exact"),
        ("registry", b"exact/" + WORK[:-1]),
        ("registry", b"exact/" + WORK + b"x"),
        ("registry", b"withdrawn/7"),
        ("registry", b"credit/" + WORK + b"ada"),
        ("registry", b"\xff/" + WORK),
    ],
)
def test_other_keys_are_no_claims(contract, key):
    assert read_claim(contract, key) is None


@pytest.mark.parametrize("wrong", [b"", WORK[:31], WORK + b"x", "a" * 32, None])
def test_what_is_no_digest_is_refused(wrong):
    with pytest.raises(UsageError):
        work_claim("exact", wrong)
    with pytest.raises(UsageError):
        artefact_claim(wrong)


@pytest.mark.parametrize("wrong", [-1, 2**64, "7", None, 1.0, True])
def test_what_is_no_index_is_refused(wrong):
    for claim in (withdrawn_claim, flagged_claim):
        with pytest.raises(UsageError):
            claim(wrong)


def test_there_are_two_classes_of_fingerprints():
    with pytest.raises(UsageError, match="exact, same-work"):
        work_claim("nearly", WORK)
