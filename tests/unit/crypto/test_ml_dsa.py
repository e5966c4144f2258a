"""Cosignatures of type 0x06: built here from the words of C2SP tlog-cosignature, verified by what Lichen has."""

from __future__ import annotations

import base64
import hashlib
import struct
import sys
from typing import Any

import pytest

from lichen.crypto.keys import SigningKey
from lichen.crypto.ml_dsa import MlDsaPublicKey
from lichen.crypto.note import NoteKey, NoteSignature, SignatureType, SignedNote, sign_note
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.policy import cosignature_times, parse_policy

NAME, ORIGIN, SIZE, ROOT, TIME = (
    "witness.example/w1",
    "example.com/log",
    20852163,
    bytes(range(32)),
    1_679_315_147,
)
TEXT = f"{ORIGIN}\n{SIZE}\n{base64.b64encode(ROOT).decode()}\n"
LOG = SigningKey.from_seed(bytes(32))


@pytest.fixture(scope="module")
def secret() -> Any:
    """A witness's key, where the library can make one."""
    mldsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.mldsa")
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        return mldsa.MLDSA44PrivateKey.generate()
    except UnsupportedAlgorithm:
        pytest.skip("the library of primitives has no ML-DSA")


def message(
    *, name: str = NAME, origin: str = ORIGIN, size: int = SIZE, start: int = 0, time: int = TIME
) -> bytes:
    """The structure ``cosigned_message``."""
    head = b"subtree/v1\n\0" + struct.pack(">B", len(name)) + name.encode() + struct.pack(">Q", time)
    return head + struct.pack(">B", len(origin)) + origin.encode() + struct.pack(">QQ", start, size) + ROOT


def key_of(secret: Any, name: str = NAME) -> NoteKey:
    raw = secret.public_key().public_bytes_raw()
    digest = hashlib.sha256(name.encode() + b"\n\x06" + raw).hexdigest()[:8]
    return NoteKey.from_vkey(f"{name}+{digest}+{base64.b64encode(bytes([6]) + raw).decode()}")


def cosigned(secret: Any, said: bytes, *, text: str = TEXT, time: int = TIME, name: str = NAME) -> SignedNote:
    note = SignedNote(text, (sign_note(text, ORIGIN, LOG),))
    line = NoteSignature(name, key_of(secret, name).hash, struct.pack(">Q", time) + secret.sign(said))
    return SignedNote.from_text(note.with_signature(line).to_text())


def test_a_cosignature_as_the_specification_says_holds(secret: Any) -> None:
    key = key_of(secret)
    assert key.type is SignatureType.COSIGNATURE_ML_DSA_44
    assert NoteKey.from_vkey(key.vkey) == key
    note = cosigned(secret, message())
    assert note.verify([key]) == (key,)
    assert note.cosigned_at(key) == TIME
    extended = cosigned(secret, message(), text=TEXT + "an extension line\n")
    assert extended.verify([key]) == (key,), "extension lines are not signed"


@pytest.mark.parametrize(
    "changed",
    [
        {"name": "witness.example/w2"},
        {"origin": "example.com/other"},
        {"size": SIZE + 1},
        {"start": 1},
        {"time": TIME + 1},
    ],
)
def test_a_cosignature_over_anything_else_does_not(secret: Any, changed: dict[str, Any]) -> None:
    with pytest.raises(VerificationError, match="does not hold"):
        cosigned(secret, message(**changed)).verify([key_of(secret)])


@pytest.mark.parametrize("text", ["no checkpoint\n", f"{ORIGIN}\n-1\nAA==\n", f"{ORIGIN}\n{SIZE}\nAA==\n", f"{ORIGIN}\n007\n{base64.b64encode(ROOT).decode()}\n"])  # fmt: skip
def test_a_text_that_is_no_checkpoint_is_refused(secret: Any, text: str) -> None:
    with pytest.raises(VerificationError, match="is no checkpoint"):
        cosigned(secret, message(), text=text).verify([key_of(secret)])


def test_a_cosignature_of_another_length_is_refused(secret: Any) -> None:
    key = key_of(secret)
    short = NoteSignature(NAME, key.hash, bytes(72))
    with pytest.raises(VerificationError, match="malformed"):
        SignedNote(TEXT, (short,)).verify([key])


def test_such_a_witness_counts_in_a_policy(secret: Any) -> None:
    key = key_of(secret)
    log_key = NoteKey(ORIGIN, LOG.public)
    policy = parse_policy(f"log {log_key.vkey}\nwitness W1 {key.vkey}\nquorum W1\n".encode())
    note = cosigned(secret, message())
    assert policy.judge(note).is_reached
    assert not policy.judge(note, TIME - 10 * 86_400).is_reached, "it is from ahead of that clock"
    assert cosignature_times(note, key) == [TIME]
    with pytest.raises(EncodingError, match="signature type 0x01, this has 0x06"):
        parse_policy(f"log {key.vkey}\nquorum none\n".encode())


def test_a_key_that_is_none_or_cannot_be_used_here_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(EncodingError, match="1,312 bytes"):
        MlDsaPublicKey(bytes(32))
    with pytest.raises(EncodingError, match="of a type that is known here") as caught:
        NoteKey.from_vkey(f"n+00000000+{base64.b64encode(bytes([5]) + bytes(32)).decode()}")
    assert "0x06" in (caught.value.remedy or "")
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mldsa", None)
    with pytest.raises(EncodingError, match="cannot verify ML-DSA-44") as caught:
        MlDsaPublicKey(bytes(1_312))
    assert "pip install --upgrade cryptography" in (caught.value.remedy or "")
