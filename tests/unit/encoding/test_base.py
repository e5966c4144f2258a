"""Text forms of bytes: one text per bytes, and nothing else is read."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lichen.encoding.base import b64, b64_decode, b64u, b64u_decode, hex_decode
from lichen.errors import EncodingError


@pytest.mark.parametrize("data", [b"", b"f", b"fo", b"foo", b"foob", bytes(32), bytes(range(256))])
def test_what_is_written_reads_back(data: bytes) -> None:
    assert b64u_decode(b64u(data)) == data
    assert b64_decode(b64(data)) == data
    assert hex_decode(data.hex()) == data


def test_32_bytes_are_43_characters() -> None:
    assert len(b64u(bytes(32))) == 43


@pytest.mark.parametrize(
    ("decode", "text"),
    [
        (b64u_decode, "Zg=="),
        (b64u_decode, "Zh"),  # trailing bits that no encoder writes
        (b64u_decode, "Z"),
        (b64u_decode, "+/"),
        (b64u_decode, "Zm 9v"),
        (b64u_decode, "Zm\n9v"),
        (b64u_decode, "Zm9v\u00e9"),
        (b64u_decode, None),
        (b64u_decode, b"Zm9v"),
        (b64_decode, "Zg"),
        (b64_decode, "Zh=="),
        (b64_decode, "-_=="),
        (b64_decode, 7),
        (hex_decode, "AB"),
        (hex_decode, "a"),
        (hex_decode, "a b"),
        (hex_decode, "ab "),
        (hex_decode, []),
    ],
)
def test_every_other_text_is_refused(decode: Callable[[object], bytes], text: object) -> None:
    with pytest.raises(EncodingError):
        decode(text)


@pytest.mark.parametrize(
    ("decode", "text"), [(b64u_decode, "Zm9v"), (b64_decode, "Zm9v"), (hex_decode, "abcdef")]
)
def test_the_size_that_was_asked_for_is_checked(decode: Callable[[object, int], bytes], text: str) -> None:
    assert len(decode(text, 3)) == 3
    with pytest.raises(EncodingError, match="32 bytes expected, got 3"):
        decode(text, 32)
