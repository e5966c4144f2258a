"""The port of artefact stores: whole artefacts under their CID, verified whenever they are read.

Rules every store upholds:

- what ``has`` answers yes to was once written whole; a put that fails or is killed leaves nothing visible
- bytes handed out, or restored to a path, hash to the CID that was asked for, or nothing is handed out
- restoring never destroys content that the store could not give back, unless told to
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Protocol

from lichen.content.cid import Cid
from lichen.content.files import StrPath
from lichen.content.pipeline import Fill
from lichen.content.unixfs import ArtefactHash, Progress
from lichen.errors import NotFoundError, UsageError, VerificationError

__all__ = ["READ_SIZE_MAX", "ArtefactStore", "Fetched", "StoreUsage"]

READ_SIZE_MAX = 2**26  # (= 67108864) bytes that ``read_bytes`` gives unless told otherwise


class Fetched(NamedTuple):
    """What a restore did.

    Args:
        written: False when the path already held exactly this artefact and was left alone.
        size_bytes: Size of the artefact.
    """

    written: bool
    size_bytes: int


class StoreUsage(NamedTuple):
    """How much a store holds.

    Args:
        artefact_count: Artefacts in it.
        size_bytes: Their bytes together.
    """

    artefact_count: int
    size_bytes: int


class ArtefactStore(Protocol):
    """Where artefacts lie."""

    def put_file(
        self,
        path: StrPath,
        *,
        known: ArtefactHash | None = None,
        durable: bool = True,
        progress: Progress | None = None,
    ) -> ArtefactHash:
        """Copy a file into the store and name it; what is stored is exactly what was named.

        Args:
            path: A regular file, or a symbolic link to one.
            known: The file's names when they are known to be current; the file is not read if the store has it.
            durable: Return only when the artefact would survive a power cut.
            progress: Told of every piece read.

        Raises:
            UsageError: Nothing there, not a regular file, or not readable.
            FileChangedError: Edited while it was read; nothing was stored.
            StorageError: Disk full, or the store may not be written; nothing was stored.
        """

    def put_bytes(self, data: bytes, *, durable: bool = True) -> ArtefactHash:
        """Store an artefact held in memory and name it.

        Raises:
            StorageError: Disk full, or the store may not be written; nothing was stored.
        """

    def put_stream(self, fill: Fill, *, expected: Cid | None = None, durable: bool = True) -> ArtefactHash:
        """Store what a reader gives and name it.

        Args:
            fill: Fills each buffer whole until the end of the stream.
            expected: Store it only if it has this name.
            durable: Return only when the artefact would survive a power cut.

        Raises:
            VerificationError: It has another name than ``expected``; nothing was stored.
            StorageError: Disk full, or the store may not be written; nothing was stored.
        """

    def has(self, cid: Cid) -> bool:
        """Whether the store holds the artefact; its bytes are verified on reading, not here."""

    def size(self, cid: Cid) -> int:
        """Return the size of an artefact in bytes.

        Raises:
            NotFoundError: The store does not hold it.
        """

    def open(self, cid: Cid) -> BinaryIO:
        """Open an artefact for reading, seekable; every byte it gives is verified.

        Raises:
            NotFoundError: The store does not hold it.
            VerificationError: What lies there is not what the CID names; it is set aside. Also raised by later
                reads if the bytes change underneath.
        """

    def read_bytes(self, cid: Cid, limit: int = READ_SIZE_MAX) -> bytes:
        """Return a whole artefact, verified.

        Args:
            cid: Its name.
            limit: Most bytes to return.

        Raises:
            NotFoundError: The store does not hold it.
            UsageError: It is larger than ``limit``.
            VerificationError: What lies there is not what the CID names; it is set aside.
        """

    def fetch_to(
        self,
        cid: Cid,
        path: StrPath,
        *,
        mode: int = 0o644,
        overwrite: bool = False,
        within: StrPath | None = None,
        durable: bool = False,
        progress: Progress | None = None,
    ) -> Fetched:
        """Restore an artefact to a path: verified while copied, then renamed into place.

        Args:
            cid: Its name.
            path: Where to; parent directories are made. What lies there is replaced only if the store holds the
                same content, so that nothing is lost; the same artefact is left alone.
            mode: Permission bits of the new file.
            overwrite: Replace whatever file lies there, even if the store lacks its content.
            within: Directory that ``path`` must stay inside; no parent below it may be a symbolic link.
            durable: Return only when the file would survive a power cut.
            progress: Told of every piece copied.

        Raises:
            NotFoundError: The store does not hold it.
            UsageError: Content would be lost, the path is a directory, link or pipe, or leads out of ``within``.
            VerificationError: What lies in the store is not what the CID names; nothing was restored.
            StorageError: Disk full, or the path may not be written; nothing was restored.
        """

    def delete(self, cid: Cid) -> bool:
        """Forget an artefact.

        Returns:
            Whether it was there.
        """

    def list(self) -> Iterator[Cid]:
        """Give the name of every artefact, in no order."""

    def usage(self) -> StoreUsage:
        """Count what the store holds."""


def absent(cid: Cid) -> NotFoundError:
    """Build the error for an artefact the store does not hold."""
    return NotFoundError(
        f"the store does not hold {cid}", remedy="Fetch it from whoever made it, or run the work again."
    )


def too_large(cid: Cid, size_bytes: int, limit: int) -> UsageError:
    """Build the error for an artefact larger than the caller takes."""
    return UsageError(
        f"{cid} has {size_bytes} bytes, at most {limit} are read at once",
        remedy="Open it as a stream, or fetch it.",
    )


def damaged(cid: Cid, calculated: Cid) -> VerificationError:
    """Build the error for an artefact whose bytes are not those it is named for."""
    return VerificationError(
        f"the bytes stored as {cid} are damaged",
        expected=str(cid),
        calculated=str(calculated),
        remedy="They were set aside; put the artefact again from a good copy, or run the work again.",
    )


def mismatched(expected: Cid, calculated: Cid) -> VerificationError:
    """Build the error for a stream that is not what was asked for."""
    return VerificationError(
        f"what arrived is not {expected}",
        expected=str(expected),
        calculated=str(calculated),
        remedy="Fetch it from somewhere else; nothing was stored.",
    )
