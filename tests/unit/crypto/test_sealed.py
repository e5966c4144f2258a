"""Sealed artefacts: what goes in comes out, and nothing that was changed does."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lichen.crypto.sealed import SEALED_OVERHEAD_BYTES, _derived, open_bytes, seal_bytes
from lichen.errors import EncodingError, VerificationError

KEY, SALT = bytes(range(32)), bytes(range(32, 64))


@pytest.mark.parametrize("plain", [b"", b"x", bytes(100_000)])
def test_what_is_sealed_opens(plain: bytes) -> None:
    sealed = seal_bytes(plain, KEY, SALT)
    assert len(sealed) == len(plain) + SEALED_OVERHEAD_BYTES
    assert sealed.startswith(b"lichen-sealed-v1\n" + SALT)
    assert open_bytes(sealed, KEY) == plain


def test_the_derivation_is_hkdf() -> None:
    assert _derived(KEY, SALT) == HKDF(SHA256(), 32, SALT, b"lichen sealed artefact v1").derive(KEY)


def test_the_salt_decides_the_bytes() -> None:
    assert seal_bytes(b"x", KEY, SALT) == seal_bytes(b"x", KEY, SALT)
    assert seal_bytes(b"x", KEY, SALT)[49:] != seal_bytes(b"x", KEY, bytes(32))[49:]


def test_every_byte_is_authenticated() -> None:
    sealed = seal_bytes(b"plain", KEY, SALT)
    for position in range(len(sealed)):
        changed = bytearray(sealed)
        changed[position] ^= 1
        with pytest.raises(EncodingError if position < 17 else VerificationError):
            open_bytes(bytes(changed), KEY)


def test_another_groups_key_does_not_open_it() -> None:
    with pytest.raises(VerificationError, match="does not open"):
        open_bytes(seal_bytes(b"plain", KEY, SALT), bytes(32))


@pytest.mark.parametrize("length", [0, 1, 17, 49, 64])
def test_a_part_is_not_an_artefact(length: int) -> None:
    with pytest.raises(EncodingError):
        open_bytes(seal_bytes(b"", KEY, SALT)[:length], KEY)


@pytest.mark.parametrize(("key", "salt"), [(b"", SALT), (KEY[:16], SALT), (KEY, b""), (KEY, bytes(33))])
def test_keys_and_salts_have_32_bytes(key: bytes, salt: bytes) -> None:
    with pytest.raises(EncodingError):
        seal_bytes(b"", key, salt)


def test_a_key_that_is_too_short_opens_nothing() -> None:
    with pytest.raises(EncodingError, match="group key"):
        open_bytes(seal_bytes(b"", KEY, SALT), KEY[:31])
