"""Signed notes and cosignatures: published examples, round trips, and every malformed note."""

from __future__ import annotations

import base64

import pytest

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, NoteSignature, SignatureType, SignedNote, cosign_note, sign_note
from lichen.errors import EncodingError, VerificationError

KEY = SigningKey.from_seed(bytes(range(32)))
WITNESS = SigningKey.from_seed(bytes(32))
TEXT = "example.com/log\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
LOG_KEY = NoteKey("example.com/log", KEY.public)
WITNESS_KEY = NoteKey("witness.example/w1", WITNESS.public, SignatureType.COSIGNATURE_V1)
NOTE = SignedNote(TEXT, (sign_note(TEXT, LOG_KEY.name, KEY),))

# The example of Go's golang.org/x/mod/sumdb/note.
PUBLISHED_VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PUBLISHED_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


def test_a_note_signed_by_another_program_verifies() -> None:
    key = NoteKey.from_vkey(PUBLISHED_VKEY)
    note = SignedNote.from_text(PUBLISHED_NOTE)
    assert note.verify([key]) == (key,)
    assert note.to_text() == PUBLISHED_NOTE
    assert key.vkey == PUBLISHED_VKEY


def test_the_key_of_the_go_checksum_database_has_its_published_hash() -> None:
    key = NoteKey.from_vkey("sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8")
    assert key.hash.hex() == "033de0ae"


@pytest.mark.parametrize("key", [LOG_KEY, WITNESS_KEY])
def test_a_verifier_key_reads_back(key: NoteKey) -> None:
    assert NoteKey.from_vkey(key.vkey) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name",
        "name+00000000",
        LOG_KEY.vkey.replace("+", "-", 1),
        LOG_KEY.vkey[:-4],
        LOG_KEY.vkey.replace("example", "exemple"),
        LOG_KEY.vkey.replace(LOG_KEY.hash.hex(), "00000000"),
        f"a b+{LOG_KEY.hash.hex()}+{LOG_KEY.vkey.rpartition('+')[2]}",
        "name+00000000+" + base64.b64encode(b"\x02" + bytes(32)).decode(),
        "name+00000000+" + base64.b64encode(b"\x01" + bytes(32)).decode(),
    ],
)
def test_other_verifier_keys_are_refused(text: str) -> None:
    with pytest.raises(EncodingError):
        NoteKey.from_vkey(text)


def test_a_witness_cosigns_with_its_time() -> None:
    note = NOTE.with_signature(cosign_note(TEXT, WITNESS_KEY.name, WITNESS, 1_679_315_147))
    assert SignedNote.from_text(note.to_text()) == note
    assert note.verify([LOG_KEY, WITNESS_KEY]) == (LOG_KEY, WITNESS_KEY)
    assert note.cosigned_at(WITNESS_KEY) == 1_679_315_147


def test_what_a_cosignature_signs_is_what_the_specification_says() -> None:
    line = cosign_note(TEXT, WITNESS_KEY.name, WITNESS, 1_679_315_147)
    message = b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    assert line.signature[:8] == (1_679_315_147).to_bytes(8, "big")
    WITNESS.public.verify(message, line.signature[8:])


@pytest.mark.parametrize("time", [-1, 2**63])
def test_a_cosignature_has_a_time_that_fits(time: int) -> None:
    with pytest.raises(EncodingError):
        cosign_note(TEXT, WITNESS_KEY.name, WITNESS, time)


def test_a_cosignature_for_another_time_does_not_hold() -> None:
    good = cosign_note(TEXT, WITNESS_KEY.name, WITNESS, 1)
    moved = NoteSignature(good.name, good.key_hash, (2).to_bytes(8, "big") + good.signature[8:])
    short = NoteSignature(good.name, good.key_hash, good.signature[:71])
    late = NoteSignature(good.name, good.key_hash, b"\xff" * 8 + good.signature[8:])
    for signature in (moved, short, late):
        with pytest.raises(VerificationError):
            NOTE.with_signature(signature).verify([LOG_KEY, WITNESS_KEY])


def test_a_plain_signature_is_no_cosignature() -> None:
    note = SignedNote(TEXT, (sign_note(TEXT, WITNESS_KEY.name, WITNESS),))
    with pytest.raises(VerificationError, match="no trusted key"):
        note.verify([WITNESS_KEY])


def test_signatures_of_unknown_keys_are_ignored_and_those_of_known_keys_must_hold() -> None:
    unknown = NoteSignature("someone", b"\0\0\0\0", b"anything")
    assert NOTE.with_signature(unknown).verify([LOG_KEY]) == (LOG_KEY,)
    same_name = NoteSignature(LOG_KEY.name, b"\0\0\0\0", bytes(64))
    assert NOTE.with_signature(same_name).verify([LOG_KEY]) == (LOG_KEY,)
    false = NoteSignature(LOG_KEY.name, LOG_KEY.hash, bytes(64))
    with pytest.raises(VerificationError, match="does not hold"):
        NOTE.with_signature(false).verify([LOG_KEY])
    with pytest.raises(VerificationError, match="no trusted key"):
        NOTE.verify([WITNESS_KEY])
    with pytest.raises(VerificationError):
        NOTE.verify([])


def test_the_text_may_hold_empty_lines() -> None:
    text = "a\n\nb\n"
    note = SignedNote(text, (sign_note(text, "n", KEY),))
    assert SignedNote.from_text(note.to_text()) == note


SIGNED = NOTE.to_text()
LINE = NOTE.signatures[0].line


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n",
        "\n\n",
        TEXT,
        TEXT + "\n",
        SIGNED[:-1],
        SIGNED + "\n",
        SIGNED.replace("\n\n", "\n"),
        SIGNED.replace("— ", "- "),
        SIGNED.replace("— ", "—"),
        SIGNED.replace("\n", "\r\n"),
        SIGNED.replace("example", "exam\tple"),
        SIGNED.replace("example", "exam\ud800ple"),
        f"{TEXT}\n— example.com/log {base64.b64encode(b'1234').decode()}\n",
        f"{TEXT}\n— example.com/log\n",
        f"{TEXT}\n—  {LINE.split()[2]}\n",
        f"{TEXT}\n— a+b {LINE.split()[2]}\n",
        f"{TEXT}\n— a\u00a0b {LINE.split()[2]}\n",
        SIGNED.replace("=\n", "\n"),
        SIGNED + LINE.replace("=", "=="),
        TEXT + "\n" + LINE * 65,
        "x" * 1_000_001,
    ],
)
def test_other_texts_are_not_notes(note: str) -> None:
    with pytest.raises(EncodingError):
        SignedNote.from_text(note)


def test_64_signatures_are_accepted() -> None:
    assert len(SignedNote.from_text(TEXT + "\n" + LINE * 64).signatures) == 64


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b"])
def test_names_that_cannot_stand_in_a_note_are_refused(name: str) -> None:
    with pytest.raises(EncodingError):
        sign_note(TEXT, name, KEY)


@pytest.mark.parametrize("text", ["", "no newline", "a\tb\n"])
def test_texts_that_cannot_stand_in_a_note_are_refused(text: str) -> None:
    with pytest.raises(EncodingError):
        sign_note(text, "n", KEY)
