"""The authenticated map by its definition, worked out by hand for small maps, and its proofs."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from lichen.errors import EncodingError, VerificationError
from lichen.ledger.state_map import (
    EMPTY_STATE_ROOT,
    VALUE_BYTES_MAX,
    MapProof,
    StateMap,
    first_difference,
    key_bit,
    state_key,
    verify_absence,
    verify_membership,
)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def key(first_byte: int, last_byte: int = 0) -> bytes:
    return bytes([first_byte]) + bytes(30) + bytes([last_byte])


def leaf(at: bytes, value: bytes) -> bytes:
    return sha256(b"\x02" + at + sha256(value))


def node(bit: int, left: bytes, right: bytes) -> bytes:
    return sha256(b"\x03" + bytes([bit]) + left + right)


A, B, C = key(0b00000000), key(0b10000000), key(0b10100000)


def test_the_empty_map_is_the_hash_of_nothing() -> None:
    assert StateMap().root() == EMPTY_STATE_ROOT == sha256(b"")


def test_a_map_of_one_key_is_its_leaf() -> None:
    assert StateMap({A: b"v"}).root() == leaf(A, b"v")


def test_nodes_stand_where_keys_first_differ() -> None:
    expected = node(0, leaf(A, b"a"), node(2, leaf(B, b"b"), leaf(C, b"c")))
    assert StateMap({C: b"c", A: b"a", B: b"b"}).root() == expected


def test_keys_that_differ_in_the_last_bit_only() -> None:
    one, two = key(7, 0), key(7, 1)
    assert StateMap({one: b"1", two: b"2"}).root() == node(255, leaf(one, b"1"), leaf(two, b"2"))


def test_a_state_key_separates_contract_from_key() -> None:
    assert state_key("members", b"k") == sha256(b"lichen state v1\x00members\x00k")
    assert state_key("a", b"b\x00c") != state_key("a", b"b")
    for contract in ("", "a\0b", "größe"):
        with pytest.raises(EncodingError):
            state_key(contract, b"k")


def test_bits_count_from_the_most_significant() -> None:
    assert [key_bit(key(0b10100000), bit) for bit in range(4)] == [1, 0, 1, 0]
    assert first_difference(A, B) == 0
    assert first_difference(B, C) == 2
    assert first_difference(A, A) == 256


def test_every_key_of_a_map_is_proved_and_its_neighbours_are_proved_absent() -> None:
    state = StateMap({sha256(b"%d" % number): b"value %d" % number for number in range(100)})
    root = state.root()
    for at in state:
        value = state.get(at)
        assert value is not None
        verify_membership(root, at, value, state.prove(at))
        absent = bytes([*at[:-1], at[-1] ^ 1])
        verify_absence(root, absent, state.prove(absent))


def test_absence_from_the_empty_map_needs_no_steps() -> None:
    assert StateMap().prove(A) == MapProof(())
    verify_absence(EMPTY_STATE_ROOT, A, MapProof(()))


def test_a_removed_key_leaves_the_map_as_if_it_had_never_been() -> None:
    state = StateMap({A: b"a", B: b"b"})
    state.update({A: None, C: None})
    assert (state.root(), len(state)) == (leaf(B, b"b"), 1)


@pytest.mark.parametrize("value", [b"", bytes(VALUE_BYTES_MAX + 1), "text", 1])
def test_a_value_has_1_to_1024_bytes(value: Any) -> None:
    state = StateMap({A: b"a"})
    with pytest.raises(EncodingError):
        state.update({B: b"b", C: value})
    assert len(state) == 1, "a refused update changed the map"


@pytest.mark.parametrize("at", [b"", bytes(31), bytes(33), "k" * 32])
def test_a_key_has_32_bytes(at: Any) -> None:
    with pytest.raises(EncodingError):
        StateMap({at: b"v"})


STATE = StateMap({A: b"a", B: b"b", C: b"c"})
ROOT = STATE.root()
PROOF_B = STATE.prove(B)
D = key(0b11000000)
PROOF_D = STATE.prove(D)
LEAF_A = leaf(A, b"a")


@pytest.mark.parametrize(
    ("root", "at", "value", "proof"),
    [
        (bytes(32), B, b"b", PROOF_B),
        (ROOT[:31], B, b"b", PROOF_B),
        (ROOT, C, b"b", PROOF_B),
        (ROOT, B, b"c", PROOF_B),
        (ROOT, B, b"", PROOF_B),
        (ROOT, B, None, PROOF_B),
        (ROOT, b"short", b"b", PROOF_B),
        (ROOT, B, b"b", MapProof(PROOF_B.steps[:-1])),
        (ROOT, B, b"b", MapProof(PROOF_B.steps[::-1])),
        (ROOT, B, b"b", MapProof(((3, PROOF_B.steps[0][1]), PROOF_B.steps[1]))),
        (ROOT, B, b"b", MapProof(((256, LEAF_A), *PROOF_B.steps))),
        (ROOT, B, b"b", MapProof(((-1, LEAF_A),))),
        (ROOT, B, b"b", MapProof(((2, b"short"), PROOF_B.steps[1]))),
        (ROOT, B, b"b", MapProof((("2", LEAF_A),))),  # type: ignore[arg-type]
        (ROOT, B, b"b", STATE.prove(D)),
        (ROOT, B, b"b", None),
        (ROOT, D, b"d", PROOF_D),
        (EMPTY_STATE_ROOT, B, b"b", MapProof(())),
    ],
)
def test_false_or_malformed_membership_is_refused(root: Any, at: Any, value: Any, proof: Any) -> None:
    with pytest.raises(VerificationError):
        verify_membership(root, at, value, proof)


@pytest.mark.parametrize(
    ("root", "at", "proof"),
    [
        (ROOT, B, MapProof(PROOF_B.steps, (B, sha256(b"b")))),  # present, said to be absent
        (ROOT, D, PROOF_B),
        (ROOT, D, MapProof(())),
        (EMPTY_STATE_ROOT, D, PROOF_D),
        (ROOT, D, MapProof(STATE.prove(A).steps, (A, sha256(b"a")))),  # another leaf than the lookup reaches
        (ROOT, C, MapProof(PROOF_B.steps, (B, sha256(b"b")))),
        (ROOT, D, MapProof(PROOF_D.steps, (PROOF_D.other[0], sha256(b"x")))),  # type: ignore[index]
        (ROOT, D, MapProof(PROOF_D.steps[:-1], PROOF_D.other)),
        (ROOT, D, MapProof(PROOF_D.steps, (b"short", sha256(b"b")))),
        (EMPTY_STATE_ROOT, D, MapProof(((0, bytes(32)),))),
        (ROOT, D, "proof"),
    ],
)
def test_false_or_malformed_absence_is_refused(root: Any, at: Any, proof: Any) -> None:
    with pytest.raises(VerificationError):
        verify_absence(root, at, proof)


def test_a_proof_reads_back() -> None:
    for proof in (MapProof(()), PROOF_B, PROOF_D):
        assert MapProof.from_bytes(proof.to_bytes()) == proof


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x02",
        b"\x00" + bytes(32),
        b"\x00" + bytes(34),
        b"\x01" + bytes(63),
        b"\x01",
        b"\x00" + (b"\x05" + bytes(32)) * 2,  # equal bits
        b"\x00" + b"\x01" + bytes(32) + b"\x02" + bytes(32),  # bits fall towards the root
        b"\x00" + bytes(33 * 257),
    ],
)
def test_other_bytes_are_not_a_proof(data: bytes) -> None:
    with pytest.raises(EncodingError):
        MapProof.from_bytes(data)
