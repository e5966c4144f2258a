"""Digests and paths of many files as columns: one after the other, a zero byte behind each."""

from __future__ import annotations

import binascii
import os
from collections.abc import Sequence

__all__ = ["column_of", "digest_texts", "texts_of_column"]


def digest_texts(digests: Sequence[bytes]) -> list[str]:
    """Write many digests as unpadded base64url, as ``b64u`` writes each.

    Args:
        digests: 32 bytes each.

    Returns:
        43 characters each. One zero byte between makes all of them one text: it turns the last four bits of a digest, and
        nothing of the next, into a full group.
    """
    return texts_of_column(b"\0".join(digests) + b"\0") if digests else []


def texts_of_column(column: bytes) -> list[str]:
    """Write digests that stand in one column, a zero byte behind each, as :func:`digest_texts` writes them."""
    joined = binascii.b2a_base64(column, newline=False)
    text = joined.translate(bytes.maketrans(b"+/", b"-_")).decode("ascii")
    return [text[start : start + 43] for start in range(0, len(text), 44)]


def column_of(paths: Sequence[str]) -> bytes:
    """Write paths one after the other, a zero byte behind each."""
    return os.fsencode("\0".join(paths)) + b"\0"
