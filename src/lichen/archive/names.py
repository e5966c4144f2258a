"""What lies where in an archive: a C2SP tlog-tiles log as static files, and a few files beside it.

::

    checkpoint                      newest signed head
    tile/<level>/<N>[.p/<width>]    hash tiles
    tile/entries/<N>[.p/<width>]    entry bundles: 2 bytes of length, then the compact entry
    checkpoints/<N>[.p/<width>]     for each seal in the bundle of that number: size, root, signature
    artefacts/<xy>/<cid>.car        one artefact each
    artefacts.jsonl                 what became of every artefact that is named
    keys.json, archive.json         whose key speaks for whom; which ledger this is
    README.md, verify_ledger.py     how to check it, and with what
    SHA256SUMS                      every file but itself, as `sha256sum --check` reads it

Source: C2SP tlog-tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from lichen.content.cid import Cid

__all__ = [
    "ARCHIVE_FORMAT",
    "ARTEFACTS_NAME",
    "CHECKPOINT_NAME",
    "FACTS_NAME",
    "KEYS_NAME",
    "README_NAME",
    "SUMS_NAME",
    "TILE_WIDTH",
    "VERIFIER_NAME",
    "Piece",
    "car_name",
    "pieces",
    "tile_count_by_level",
]

ARCHIVE_FORMAT: Final = 1
TILE_WIDTH: Final = 256
CHECKPOINT_NAME: Final = "checkpoint"
KEYS_NAME: Final = "keys.json"
FACTS_NAME: Final = "archive.json"
ARTEFACTS_NAME: Final = "artefacts.jsonl"
README_NAME: Final = "README.md"
VERIFIER_NAME: Final = "verify_ledger.py"
SUMS_NAME: Final = "SHA256SUMS"


class Piece(NamedTuple):
    """One tile, or what is cut as tiles are.

    Attributes:
        number: Its number on its level, from 0.
        width: How much it holds; 1 to 256.
    """

    number: int
    width: int

    @property
    def start(self) -> int:
        """Index of what it begins with."""
        return self.number * TILE_WIDTH

    @property
    def stop(self) -> int:
        """Index behind what it ends with."""
        return self.start + self.width

    @property
    def is_full(self) -> bool:
        """True when it will never change."""
        return self.width == TILE_WIDTH

    def name(self, folder: str) -> str:
        """Path below a folder, such as ``tile/0/x001/x234/067.p/12``."""
        digits = f"{self.number:03d}"
        digits = digits.zfill(-(-len(digits) // 3) * 3)
        groups = [digits[at : at + 3] for at in range(0, len(digits), 3)]
        path = "/".join([f"x{group}" for group in groups[:-1]] + groups[-1:])
        return f"{folder}/{path}" if self.is_full else f"{folder}/{path}.p/{self.width}"


def pieces(count: int) -> Iterator[Piece]:
    """Cut so many entries, or hashes of a level, into pieces.

    Args:
        count: How many there are; nothing is given for none.
    """
    for number in range(-(-count // TILE_WIDTH)):
        yield Piece(number, min(TILE_WIDTH, count - number * TILE_WIDTH))


def tile_count_by_level(size: int) -> list[int]:
    """Count of hashes on each level of the tiles of a log.

    Args:
        size: Entries of the log.
    """
    counts = []
    while size:
        counts.append(size)
        size //= TILE_WIDTH
    return counts


def car_name(cid: Cid) -> str:
    """Where an artefact lies."""
    text = str(cid)
    return f"artefacts/{text[-3:-1]}/{text}.car"
