"""Names: one artefact, one text."""

from __future__ import annotations

import hashlib

import pytest

from lichen.content.cid import DAG_PB, RAW, Cid
from lichen.errors import EncodingError

EMPTY = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
EMPTY_DIRECTORY = "bafybeiczsscdsbs7ffqz55asqdf3smv6klcw3gofszvwlyarci47bgf354"


def test_the_empty_file_has_the_name_everyone_knows():
    cid = Cid(RAW, hashlib.sha256(b"").digest())
    assert str(cid) == EMPTY
    assert Cid.parse(EMPTY) == cid


def test_the_empty_directory_has_the_name_everyone_knows():
    cid = Cid(DAG_PB, hashlib.sha256(bytes.fromhex("0a020801")).digest())
    assert str(cid) == EMPTY_DIRECTORY
    assert Cid.parse(EMPTY_DIRECTORY) == cid


def test_binary_and_text_forms_agree():
    cid = Cid.parse(EMPTY)
    assert Cid.from_bytes(cid.to_bytes()) == cid
    assert cid.to_bytes()[2:] == cid.multihash
    assert cid.version == 1


def test_a_cid_is_a_value():
    assert {Cid.parse(EMPTY), Cid.parse(EMPTY)} == {Cid.parse(EMPTY)}
    assert Cid.parse(EMPTY) != Cid.parse(EMPTY_DIRECTORY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "not a CID", id="empty"),
        pytest.param("b", "not a CID", id="prefix-only"),
        pytest.param(EMPTY[:-1], "not a CID", id="one-character-short"),
        pytest.param(EMPTY + "a", "not a CID", id="one-character-long"),
        pytest.param(EMPTY.upper(), "not a CID", id="upper-case"),
        pytest.param("b" + EMPTY[1:].upper(), "one spelling", id="upper-case-digits"),
        pytest.param("z" + EMPTY[1:], "not a CID", id="base58-prefix"),
        pytest.param(EMPTY[:-1] + "v", "one spelling", id="non-zero-trailing-bits"),
        pytest.param(EMPTY[:-1] + "=", "not a CID", id="padding"),
        pytest.param(EMPTY[:-1] + "1", "not a CID", id="digit-outside-base32"),
        pytest.param(EMPTY[:-1] + "é", "not a CID", id="not-ascii"),
        pytest.param("QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH", "version 0", id="version-0"),
    ],
)
def test_anything_else_is_refused(text, says):
    with pytest.raises(EncodingError, match=says):
        Cid.parse(text)


@pytest.mark.parametrize(
    ("position", "value", "says"),
    [
        (0, 0, "version 0"),
        (0, 2, "version 2"),
        (1, 0x71, "codec 0x71"),
        (2, 0x13, "0x1320"),
        (3, 0x21, "0x1221"),
    ],
)
def test_foreign_binary_forms_are_named(position, value, says):
    data = bytearray(Cid.parse(EMPTY).to_bytes())
    data[position] = value
    with pytest.raises(EncodingError, match=says):
        Cid.from_bytes(bytes(data))


@pytest.mark.parametrize("size", [0, 35, 37])
def test_binary_forms_of_another_size_are_refused(size):
    with pytest.raises(EncodingError, match="36 bytes"):
        Cid.from_bytes(bytes(size))
