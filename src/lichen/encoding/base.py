"""Text forms of bytes, strict in both directions.

Python's own decoders are forgiving: they skip foreign characters, accept stray trailing bits and upper-case
hexadecimal. Two texts for the same bytes would be two records with different digests, so each decoder here accepts
exactly the text its encoder writes.

Source: RFC 4648, sections 3.5, 4 and 5.
"""

from __future__ import annotations

import base64
import binascii

from lichen.errors import EncodingError

__all__ = ["b64", "b64_decode", "b64u", "b64u_decode", "hex_decode"]

_TO_URL = bytes.maketrans(b"+/", b"-_")
_FROM_URL = bytes.maketrans(b"-_", b"+/")


def b64u(data: bytes) -> str:
    """Write bytes as base64url without padding.

    Args:
        data: Any bytes.

    Returns:
        ASCII text; 32 bytes become 43 characters.

    Source:
        RFC 4648, section 5, padding omitted as its section 3.2 allows.
    """
    return _url_form(data).decode("ascii")


def b64u_decode(text: object, size_bytes: int | None = None) -> bytes:
    """Read unpadded base64url.

    Args:
        text: Text as :func:`b64u` writes it.
        size_bytes: How many bytes it must hold, or None for any number.

    Returns:
        The bytes.

    Raises:
        EncodingError: Not text, not the one form of some bytes, or not ``size_bytes`` long.
    """
    if not isinstance(text, str):
        raise EncodingError(f"base64url text expected, got {type(text).__name__}")
    try:
        encoded = text.encode("ascii")
        raw = binascii.a2b_base64(encoded.translate(_FROM_URL) + b"===")
    except ValueError as error:
        raise EncodingError(f"not unpadded base64url: {_shown(text)}") from error
    if _url_form(raw) != encoded:  # Python's decoder skips what it does not know
        raise EncodingError(f"not the canonical base64url of any bytes: {_shown(text)}")
    _check_size(raw, size_bytes, text)
    return raw


def _url_form(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URL)


def b64(data: bytes) -> str:
    """Write bytes as standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(data).decode("ascii")


def b64_decode(text: object, size_bytes: int | None = None) -> bytes:
    """Read standard, padded base64.

    Args:
        text: Text as :func:`b64` writes it.
        size_bytes: How many bytes it must hold, or None for any number.

    Returns:
        The bytes.

    Raises:
        EncodingError: Not text, not the one form of some bytes, or not ``size_bytes`` long.
    """
    if not isinstance(text, str):
        raise EncodingError(f"base64 text expected, got {type(text).__name__}")
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise EncodingError(f"not base64: {_shown(text)}") from error
    if b64(raw) != text:
        raise EncodingError(f"not the canonical base64 of any bytes: {_shown(text)}")
    _check_size(raw, size_bytes, text)
    return raw


def hex_decode(text: object, size_bytes: int | None = None) -> bytes:
    """Read lower-case hexadecimal.

    Args:
        text: Text as ``bytes.hex()`` writes it.
        size_bytes: How many bytes it must hold, or None for any number.

    Returns:
        The bytes.

    Raises:
        EncodingError: Not text, not lower-case hexadecimal, or not ``size_bytes`` long.
    """
    if not isinstance(text, str):
        raise EncodingError(f"hexadecimal text expected, got {type(text).__name__}")
    try:
        raw = bytes.fromhex(text)
    except ValueError as error:
        raise EncodingError(f"not hexadecimal: {_shown(text)}") from error
    if raw.hex() != text:
        raise EncodingError(f"not lower-case hexadecimal: {_shown(text)}")
    _check_size(raw, size_bytes, text)
    return raw


def _check_size(raw: bytes, size_bytes: int | None, text: str) -> None:
    if size_bytes is not None and len(raw) != size_bytes:
        raise EncodingError(f"{size_bytes} bytes expected, got {len(raw)}: {_shown(text)}")


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")
