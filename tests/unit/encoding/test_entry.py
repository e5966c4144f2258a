"""Entries: the compact form, the envelope derived from it, and what is signed."""

from __future__ import annotations

import base64
import json

import pytest

from lichen.crypto.keys import SigningKey
from lichen.encoding.canonical import canonical_json
from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX, Entry, pre_auth_encoding
from lichen.errors import EncodingError, VerificationError

KEY = SigningKey.from_seed(bytes(range(32)))
ENTRY = Entry.signed(b'{"a":1}', KEY)


def test_pre_auth_encoding_is_that_of_dsse() -> None:
    assert pre_auth_encoding(b"hello world") == b"DSSEv1 28 application/vnd.in-toto+json 11 hello world"


def test_an_entry_reads_back_in_both_forms() -> None:
    assert Entry.from_bytes(ENTRY.to_bytes()) == ENTRY
    assert Entry.from_dsse(ENTRY.to_dsse()) == ENTRY
    assert len(ENTRY.to_bytes()) == ENTRY_OVERHEAD_BYTES + 7


def test_the_envelope_is_what_dsse_tools_expect() -> None:
    envelope = json.loads(ENTRY.to_dsse())
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert base64.b64decode(envelope["payload"]) == ENTRY.payload
    KEY.public.verify(pre_auth_encoding(ENTRY.payload), base64.b64decode(envelope["signatures"][0]["sig"]))


def test_a_signature_holds_for_its_payload_and_key_only() -> None:
    ENTRY.verify(KEY.public)
    with pytest.raises(VerificationError, match="does not hold"):
        Entry(ENTRY.key_id, ENTRY.signature, b'{"a":2}').verify(KEY.public)
    with pytest.raises(VerificationError, match="another key"):
        ENTRY.verify(SigningKey.from_seed(bytes(32)).public)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        ENTRY.to_bytes()[:81],
        b"\x02" + ENTRY.to_bytes()[1:],
        ENTRY.to_bytes() + bytes(PAYLOAD_BYTES_MAX),
    ],
)
def test_other_bytes_are_not_an_entry(data: bytes) -> None:
    with pytest.raises(EncodingError):
        Entry.from_bytes(data)


def test_the_longest_payload_is_accepted() -> None:
    entry = Entry(bytes(16), bytes(64), bytes(PAYLOAD_BYTES_MAX))
    assert Entry.from_bytes(entry.to_bytes()) == entry
    assert len(entry.to_dsse()) < 2**16


def envelope(**members: object) -> bytes:
    return canonical_json({**json.loads(ENTRY.to_dsse()), **members})


SIGNATURE = json.loads(ENTRY.to_dsse())["signatures"][0]


@pytest.mark.parametrize(
    "data",
    [
        b"[]",
        json.dumps(json.loads(ENTRY.to_dsse())).encode(),
        envelope(payloadType="application/json"),
        envelope(more=1),
        envelope(payload="e30"),
        envelope(payload=""),
        envelope(signatures=[]),
        envelope(signatures=[SIGNATURE, SIGNATURE]),
        envelope(signatures=[{**SIGNATURE, "keyid": SIGNATURE["keyid"].upper()}]),
        envelope(signatures=[{**SIGNATURE, "keyid": "00"}]),
        envelope(signatures=[{**SIGNATURE, "sig": "AA=="}]),
        envelope(signatures=[{"sig": SIGNATURE["sig"]}]),
        envelope(signatures=["x"]),
    ],
)
def test_other_envelopes_are_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        Entry.from_dsse(data)
