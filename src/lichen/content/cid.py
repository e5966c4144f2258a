"""Content identifiers: the names artefacts carry in IPFS.

A CID says three things: its own version, what the named bytes are (``codec``) and their hash. Lichen writes one form
only, version 1 with SHA-256 in lower-case base32, so that one artefact has one text; other forms are refused with the
way to convert them.

Source:
    https://github.com/multiformats/cid, https://github.com/multiformats/multihash, RFC 4648 section 6.
    Differs: no version 0, no other hash than SHA-256, no other base than base32.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from lichen.errors import EncodingError

__all__ = ["DAG_PB", "RAW", "Cid"]

RAW = 0x55
"""Codec of plain bytes: a file of one chunk, or one leaf of a larger file."""

DAG_PB = 0x70
"""Codec of a node that links to others: a file of several chunks, or a directory."""

CODEC_NAMES = {RAW: "raw", DAG_PB: "dag-pb"}
SHA256_PREFIX = bytes([0x12, 0x20])  # multihash: function sha2-256, digest of 32 bytes
CID_SIZE = 36  # bytes: version, codec, two of multihash prefix, 32 of digest
TEXT_SIZE = 59  # characters: multibase prefix "b" and ceil(36 * 8 / 5) of base32


@dataclass(frozen=True, slots=True, order=True)
class Cid:
    """The name of an artefact.

    Args:
        codec: ``RAW`` or ``DAG_PB``.
        digest: SHA-256 of the named raw block, 32 bytes. For a file of one chunk that is the file's own SHA-256.
    """

    codec: int
    digest: bytes

    @property
    def version(self) -> int:
        """Version of the CID format; always 1."""
        return 1

    @property
    def multihash(self) -> bytes:
        """Hash function, digest size and digest, 34 bytes."""
        return SHA256_PREFIX + self.digest

    def to_bytes(self) -> bytes:
        """Return the binary form, 36 bytes."""
        return bytes([1, self.codec]) + SHA256_PREFIX + self.digest

    def __str__(self) -> str:
        return "b" + base64.b32encode(self.to_bytes()).decode("ascii").rstrip("=").lower()

    @classmethod
    def from_bytes(cls, data: bytes) -> Cid:
        """Read the binary form.

        Args:
            data: Exactly one CID.

        Raises:
            EncodingError: Not a version 1 CID of codec raw or dag-pb with SHA-256.
        """
        if len(data) != CID_SIZE:
            raise EncodingError(f"a CID has {CID_SIZE} bytes, these are {len(data)}")
        if data[0] != 1:
            raise EncodingError(f"CID version {data[0]} is not supported, only version 1")
        if data[1] not in CODEC_NAMES:
            raise EncodingError(
                f"CID codec 0x{data[1]:02x} is not supported, only raw (0x55) and dag-pb (0x70)"
            )
        if data[2:4] != SHA256_PREFIX:
            raise EncodingError(f"CID hash 0x{data[2:4].hex()} is not supported, only SHA-256 (0x1220)")
        return cls(data[1], bytes(data[4:]))

    @classmethod
    def parse(cls, text: str) -> Cid:
        """Read the text form, such as ``bafkrei…`` (raw) or ``bafybei…`` (dag-pb).

        Args:
            text: 59 characters of lower-case base32 after the prefix ``b``.

        Raises:
            EncodingError: Anything else, including a second spelling of the same CID.
        """
        if text.startswith("Qm") and len(text) == 46:
            raise EncodingError(
                f"{text} is a version 0 CID, which names a different tree of the same bytes",
                remedy="Add the file with `ipfs add --cid-version=1` and use the name it prints.",
            )
        if len(text) != TEXT_SIZE or not text.startswith("b") or not text.isascii():
            raise EncodingError(
                f"{text[:80]!r} is not a CID: {TEXT_SIZE} characters of base32 starting with 'b' are expected"
            )
        try:
            data = base64.b32decode(text[1:].upper() + "=" * 6)
        except binascii.Error as error:
            raise EncodingError(f"{text!r} is not a CID: {error}") from error
        cid = cls.from_bytes(data)
        if str(cid) != text:
            raise EncodingError(f"{text!r} is not the one spelling of {cid}", remedy=f"Write {cid}.")
        return cid
