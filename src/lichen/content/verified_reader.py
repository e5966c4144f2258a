"""A seekable stream over a stored artefact that checks every chunk against its leaf digest before giving a byte of it."""

from __future__ import annotations

import hashlib
import io
import os
from typing import TYPE_CHECKING

from lichen.content.cid import RAW, Cid
from lichen.content.store import damaged
from lichen.content.unixfs import BlockLayout

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["VerifiedReader"]


class VerifiedReader(io.RawIOBase):
    """Reads an open file against a layout that was verified to belong to its CID.

    Args:
        descriptor: Open for reading; owned, closed with the reader.
        layout: Digest of every chunk.
        cid: Name of the artefact, for the error.
    """

    def __init__(self, descriptor: int, layout: BlockLayout, cid: Cid) -> None:
        self._descriptor = descriptor
        self._layout = layout
        self._cid = cid
        self._position = 0
        self._chunk_index = -1
        self._chunk = b""

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def seekable(self) -> bool:
        """Whether it can be positioned: yes."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to an offset in bytes from start, position or end."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._layout.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"negative seek position {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the offset of the next byte."""
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read up to the end of the present chunk.

        Raises:
            VerificationError: The chunk is not what it was when the artefact was opened.
        """
        if self._position >= self._layout.size_bytes:
            return 0
        chunk_index, start = divmod(self._position, self._layout.chunk_size)
        if chunk_index != self._chunk_index:
            self._chunk = self._read_chunk(chunk_index)
            self._chunk_index = chunk_index
        view = memoryview(buffer).cast("B")
        count = min(len(view), len(self._chunk) - start)
        view[:count] = self._chunk[start : start + count]
        self._position += count
        return count

    def _read_chunk(self, chunk_index: int) -> bytes:
        leaf, offset, size = self._layout.leaf(chunk_index)
        chunk = os.pread(self._descriptor, size, offset)
        digest = hashlib.sha256(chunk).digest()
        if digest != leaf.digest:
            raise damaged(self._cid, Cid(RAW, digest))
        return chunk

    def close(self) -> None:
        """Close the file underneath."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()
