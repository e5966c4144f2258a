"""SHA-256, plain and keyed.

A private ledger names its work by keyed digests, so that a member of the group recognises equal work while someone
outside cannot test guesses against small data. A public ledger uses the same construction without a key. ``domain``
keeps digests made for one purpose from being taken for digests made for another.

Source: FIPS 180-4; RFC 2104 (HMAC).
"""

from __future__ import annotations

import hashlib
import hmac

__all__ = ["DIGEST_BYTES", "keyed_digest", "sha256"]

DIGEST_BYTES = 32  # bytes of a SHA-256 digest


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 digest of some bytes, 32 bytes."""
    return hashlib.sha256(data).digest()


def keyed_digest(key: bytes | None, domain: str, data: bytes) -> bytes:
    """Digest some bytes for one purpose, under a group's key or without one.

    Args:
        key: The group's key, at least 16 bytes; None in a public ledger.
        domain: What the digest is for, such as ``lichen exact v1``; not empty, without a zero character.
        data: The bytes.

    Returns:
        HMAC-SHA256 (plain SHA-256 without a key) of ``domain | 0x00 | data``, 32 bytes.

    Raises:
        ValueError: The key is too short to protect anything, or the domain is ambiguous.
    """
    if not domain or "\0" in domain:
        raise ValueError(f"the domain of a digest must be text without zero characters, got {domain!r}")
    message = b"%s\0%s" % (domain.encode("utf-8"), data)
    if key is None:
        return hashlib.sha256(message).digest()
    if len(key) < 16:
        raise ValueError(f"a key for digests needs at least 16 bytes, got {len(key)}")
    return hmac.digest(key, message, "sha256")
