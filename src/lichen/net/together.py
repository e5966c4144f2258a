"""Several small artefacts in one answer, so that whoever needs hundreds of manifests does not ask hundreds of times.

::

    GET /artefacts/<cid>.<cid>.…

    answer, for each in the order of the request: size in 4 bytes, most significant first, then that many bytes;
    or ff ff ff ff where it is not held, or is too large for this

The answer may end before all were answered, when there is no room for more; at least one is. Every artefact is checked
against its CID by whoever receives it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from lichen.errors import EncodingError

__all__ = ["TOGETHER_BYTES_MAX", "TOGETHER_COUNT_MAX", "pack_artefacts", "unpack_artefacts"]

TOGETHER_COUNT_MAX: Final = (
    2**6
)  # (= 64) in one request; its line stays below the 4 KiB that every server takes
TOGETHER_BYTES_MAX: Final = 2**22  # (= 4194304) of one answer
_SIZE_BYTES: Final = 4
_ABSENT: Final = b"\xff" * _SIZE_BYTES


def pack_artefacts(artefacts: Iterable[bytes | None]) -> bytes:
    """Write the answer: as many of the artefacts as there is room for, in order; None stands for one that is not given."""
    body = bytearray()
    for data in artefacts:
        if data is not None and _SIZE_BYTES + len(data) > TOGETHER_BYTES_MAX:
            data = None  # noqa: PLW2901 - it is for asking alone
        size = _SIZE_BYTES + len(data or b"")
        if len(body) + size > TOGETHER_BYTES_MAX:
            break
        body += _ABSENT if data is None else len(data).to_bytes(_SIZE_BYTES, "big") + data
    return bytes(body)


def unpack_artefacts(body: bytes, count_max: int) -> list[bytes | None]:
    """Read the answer.

    Args:
        body: What came.
        count_max: How many were asked for.

    Returns:
        What was given, in the order of the request; shorter where there was no room for more.

    Raises:
        EncodingError: Nothing, more than was asked for, or cut short.
    """
    found: list[bytes | None] = []
    place = 0
    while place < len(body):
        head = body[place : place + _SIZE_BYTES]
        place += _SIZE_BYTES
        size = 0 if head == _ABSENT else int.from_bytes(head, "big")
        if len(found) == count_max or place + size > len(body):
            found.clear()
            break
        found.append(None if head == _ABSENT else body[place : place + size])
        place += size
    if not found:
        raise EncodingError(f"1 to {count_max} artefacts were expected, this is not")
    return found
