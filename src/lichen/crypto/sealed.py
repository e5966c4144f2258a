"""Private bytes under a group's key: encrypted, and refused when anything was changed.

::

    lichen-sealed-v1<newline> | salt, 32 bytes | ciphertext and tag (plaintext + 16 bytes)

Each artefact gets a key of its own, derived from the group's key and the salt, so the cipher's nonce can be constant and no
count of uses has to be kept. The magic and the salt are authenticated with the text.

The caller brings the salt. Random bytes are always right. A salt derived from the plaintext under the group's key makes
equal plaintexts equal artefacts, which shows to outsiders which artefacts are equal and nothing else.

Source: RFC 5869 (HKDF), RFC 8439 (ChaCha20-Poly1305).
"""

from __future__ import annotations

import functools
import hmac
from typing import Any

from lichen.errors import EncodingError, VerificationError

__all__ = ["GROUP_KEY_BYTES", "SALT_BYTES", "SEALED_OVERHEAD_BYTES", "open_bytes", "seal_bytes"]

GROUP_KEY_BYTES = 32
SALT_BYTES = 32
TAG_BYTES = 16
MAGIC = b"lichen-sealed-v1\n"
SEALED_OVERHEAD_BYTES = len(MAGIC) + SALT_BYTES + TAG_BYTES  # (= 65)
PLAIN_BYTES_MAX = 2**31 - 1 - SEALED_OVERHEAD_BYTES  # what the cipher takes in one call

_INFO = b"lichen sealed artefact v1"
_NONCE = bytes(12)  # each derived key encrypts once


@functools.cache
def _cipher() -> Any:
    """Import the cipher once, when it is first needed."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    return ChaCha20Poly1305


def seal_bytes(plain: bytes, group_key: bytes, salt: bytes) -> bytes:
    """Encrypt bytes for a group.

    Args:
        plain: What to keep private; up to 2**31 - 66 bytes.
        group_key: The group's key, 32 bytes.
        salt: 32 bytes, never used for other bytes under the same group key.

    Returns:
        The artefact, 65 bytes longer.

    Raises:
        EncodingError: Key or salt is not 32 bytes, or there is too much to encrypt.
    """
    _check_key(group_key)
    if not isinstance(salt, bytes) or len(salt) != SALT_BYTES:
        raise EncodingError(f"the salt of a sealed artefact must be {SALT_BYTES} bytes")
    if len(plain) > PLAIN_BYTES_MAX:
        raise EncodingError(f"a sealed artefact holds at most {PLAIN_BYTES_MAX} bytes, got {len(plain)}")
    head = MAGIC + salt
    sealed: bytes = _cipher()(_derived(group_key, salt)).encrypt(_NONCE, plain, head)
    return head + sealed


def open_bytes(sealed: bytes, group_key: bytes) -> bytes:
    """Decrypt bytes that were encrypted for a group.

    Args:
        sealed: The artefact as :func:`seal_bytes` made it.
        group_key: The group's key, 32 bytes.

    Returns:
        The plain bytes.

    Raises:
        EncodingError: Not a sealed artefact, or the key is not 32 bytes.
        VerificationError: Sealed under another key, or changed since.
    """
    from cryptography.exceptions import InvalidTag

    _check_key(group_key)
    if not sealed.startswith(MAGIC) or not SEALED_OVERHEAD_BYTES <= len(sealed) < 2**31:
        raise EncodingError("not a sealed artefact: it does not start as one, or is too short or too long")
    head = sealed[: len(MAGIC) + SALT_BYTES]
    try:
        plain: bytes = _cipher()(_derived(group_key, head[len(MAGIC) :])).decrypt(
            _NONCE, sealed[len(head) :], head
        )
    except InvalidTag as error:
        raise VerificationError(
            "the sealed artefact does not open with this group key",
            remedy="Use the key of the ledger that it belongs to; if it is, the artefact was changed.",
        ) from error
    return plain


def _derived(group_key: bytes, salt: bytes) -> bytes:
    """Derive the key of one artefact: HKDF-SHA256, one block of output.

    Source:
        RFC 5869, sections 2.2 and 2.3.
    """
    extracted = hmac.digest(salt, group_key, "sha256")
    return hmac.digest(extracted, _INFO + b"\x01", "sha256")


def _check_key(group_key: bytes) -> None:
    if not isinstance(group_key, bytes) or len(group_key) != GROUP_KEY_BYTES:
        raise EncodingError(f"a group key must be {GROUP_KEY_BYTES} bytes")
