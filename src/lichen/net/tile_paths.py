"""Where tiles and entry bundles lie below a log's address, and what an entry bundle looks like.

::

    tile/<level>/<number>[.p/<width>]
    tile/entries/<number>[.p/<width>]

Numbers are split into groups of three digits, all but the last after an ``x``: 1234067 is ``x001/x234/067``. Every path has
one spelling, so that a cache holds each tile once.

Source: C2SP tlog-tiles, "Merkle Tree" and "Log entries". Differs: levels up to 7 (the log holds less than 2**63 entries).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX
from lichen.errors import EncodingError
from lichen.ledger.tree import TILE_WIDTH

__all__ = ["BUNDLE_BYTES_MAX", "LENGTH_BYTES", "TilePath", "pack_bundle", "unpack_at_most", "unpack_bundle"]

LEVEL_MAX = 7
NUMBER_MAX = 2**55
LENGTH_BYTES = 2  # in front of each entry of a bundle
BUNDLE_BYTES_MAX = TILE_WIDTH * (LENGTH_BYTES + ENTRY_OVERHEAD_BYTES + PAYLOAD_BYTES_MAX)  # (= 12309248)

_PATH = re.compile(
    r"(?P<level>[0-9]|entries)/(?P<number>(?:x[0-9]{3}/){0,5}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?"
)


@dataclass(frozen=True, slots=True)
class TilePath:
    """A tile or an entry bundle.

    Attributes:
        level: Level of a tile; None for an entry bundle.
        number: Its place on the level.
        width: Hashes, or entries, in it: 256 when it is full, else 1 to 255.
    """

    level: int | None
    number: int
    width: int = TILE_WIDTH

    def to_text(self) -> str:
        """Write the path below ``tile/``."""
        digits = str(self.number)
        digits = digits.rjust(-(-len(digits) // 3) * 3, "0")
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        number = "/".join([*(f"x{group}" for group in groups[:-1]), groups[-1]])
        kind = "entries" if self.level is None else str(self.level)
        return f"{kind}/{number}" if self.width == TILE_WIDTH else f"{kind}/{number}.p/{self.width}"

    @classmethod
    def parse(cls, text: str) -> TilePath:
        """Read the path below ``tile/``.

        Raises:
            EncodingError: Not the one spelling of any tile.
        """
        found = _PATH.fullmatch(text) if len(text) <= 80 else None
        if found is not None:
            level = None if found["level"] == "entries" else int(found["level"])
            number = int(found["number"].replace("/", "").replace("x", ""))
            width = TILE_WIDTH if found["width"] is None else int(found["width"])
            path = cls(level, number, width)
            if (level or 0) <= LEVEL_MAX and number < NUMBER_MAX and path.to_text() == text:
                return path
        raise EncodingError(
            f"not the path of a tile: {text[:80]!r}",
            remedy="tile/<level>/<number>[.p/<width>], as C2SP tlog-tiles writes them",
        )


def pack_bundle(entries: Iterable[bytes]) -> bytes:
    """Write an entry bundle: each entry after its length in two bytes, most significant first."""
    return b"".join(len(entry).to_bytes(LENGTH_BYTES, "big") + entry for entry in entries)


def unpack_bundle(data: bytes, count: int) -> list[bytes]:
    """Read an entry bundle.

    Args:
        data: The bundle.
        count: Entries it must hold.

    Raises:
        EncodingError: It holds more or fewer, or is cut short.
    """
    entries = unpack_at_most(data, count)
    if len(entries) != count:
        raise EncodingError(f"an entry bundle of {count} entries was expected, this one has {len(entries)}")
    return entries


def unpack_at_most(data: bytes, count_max: int) -> list[bytes]:
    """Read an entry bundle of unknown length.

    Args:
        data: The bundle.
        count_max: Most entries it may hold.

    Raises:
        EncodingError: It holds more, or is cut short.
    """
    entries: list[bytes] = []
    place = 0
    while place < len(data) and len(entries) < count_max:
        begin = place + LENGTH_BYTES
        place = begin + int.from_bytes(data[place:begin], "big")
        entries.append(data[begin:place])
    if place != len(data):
        raise EncodingError(f"an entry bundle of at most {count_max} entries was expected, this one is not")
    return entries
