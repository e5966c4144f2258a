"""Buckets: one change at a time gives the bytes that building anew gives."""

from __future__ import annotations

import hashlib
import itertools

import pytest

from lichen.errors import CorruptLedgerError
from lichen.ledger.state_bucket import Bucket, apply_changes, value_in
from lichen.ledger.state_map import StateMap

KEYS = [bytes([number]) + bytes(31) for number in (0, 1, 2, 3, 8, 9, 128, 255)]


def built(values: dict[bytes, bytes]) -> Bucket:
    return Bucket.from_items(sorted(values.items()))


def test_every_order_of_insertion_gives_the_same_bytes() -> None:
    expected = built(dict.fromkeys(KEYS[:5], b"v")).to_bytes()
    for order in itertools.permutations(KEYS[:5]):
        bucket = Bucket.from_items(())
        for key in order:
            apply_changes(bucket, [(key, b"v")])
        assert bucket.to_bytes() == expected


def test_every_removal_gives_the_bytes_of_the_rest() -> None:
    for gone in itertools.permutations(KEYS, 2):
        bucket = built(dict.fromkeys(KEYS, b"v"))
        assert apply_changes(bucket, [(key, None) for key in gone]) == [(key, b"v") for key in gone]
        assert bucket.to_bytes() == built({key: b"v" for key in KEYS if key not in gone}).to_bytes()


def test_values_of_any_length_take_each_others_place() -> None:
    values = {key: b"%d" % key[0] for key in KEYS}
    bucket = built(values)
    for key, value in zip(KEYS, (b"long" * 50, b"x", b"", b"yy", b"z", b"0", b"1", b"2"), strict=True):
        if value:
            apply_changes(bucket, [(key, value)])
            values[key] = value
        assert dict(bucket.items()) == values
        assert Bucket.from_bytes(bucket.to_bytes()).to_bytes() == built(values).to_bytes()


def test_hash_ways_and_ends_of_look_ups_are_those_of_the_map() -> None:
    values = {hashlib.sha256(b"%d" % number).digest(): b"%d" % number for number in range(60)}
    bucket, clear = built(values), StateMap(values)
    assert bucket.hash() == clear.root()
    for number in range(100):
        key = hashlib.sha256(b"%d" % number).digest()
        proof = clear.prove(key)
        at = bucket.reach(key)
        assert tuple(bucket.path(at)) == proof.steps
        assert bucket.keys[at] == (proof.other[0] if proof.other else key)


def test_the_last_key_can_go() -> None:
    bucket = built({KEYS[0]: b"v"})
    apply_changes(bucket, [(KEYS[0], None)])
    assert (len(bucket), list(bucket.items())) == (0, [])


def test_a_value_is_found_in_the_stored_form() -> None:
    values = {key: b"%d" % place * (place + 1) for place, key in enumerate(KEYS)}
    data = built(values).to_bytes()
    for key, value in values.items():
        assert value_in(data, key) == value
        assert value_in(data, key[:-1] + b"\x99") is None
    one, other = sorted(values)[:2]
    assert value_in(data, one[8:] + other[:8]) is None, "what lies across two keys is none"
    with pytest.raises(CorruptLedgerError, match="do not add up"):
        value_in(data + b"x", one)


@pytest.mark.parametrize("data", [b"", b"\0\0", b"\0\1", b"\0\2" + bytes(100), b"\xff\xff" + bytes(100)])
def test_other_bytes_are_not_a_bucket(data: bytes) -> None:
    with pytest.raises(CorruptLedgerError):
        Bucket.from_bytes(data)
    with pytest.raises(CorruptLedgerError):
        value_in(data, bytes(32))


def test_bytes_too_many_are_refused() -> None:
    with pytest.raises(CorruptLedgerError, match="do not add up"):
        Bucket.from_bytes(built({KEYS[0]: b"v"}).to_bytes() + b"x")
