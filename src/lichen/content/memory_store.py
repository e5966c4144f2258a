"""A store in memory: for tests, and for work that leaves nothing behind."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import BinaryIO

from lichen.content.cid import Cid
from lichen.content.files import StrPath, open_regular, write_all
from lichen.content.pipeline import Fill
from lichen.content.placement import Destination
from lichen.content.store import READ_SIZE_MAX, Fetched, StoreUsage, absent, mismatched, too_large
from lichen.content.unixfs import (
    ArtefactHash,
    Progress,
    fill_from_descriptor,
    hash_bytes,
    hash_stream,
    report_to,
)

__all__ = ["MemoryStore"]


class MemoryStore:
    """Artefacts in a dictionary; the same port, the same restoring rules."""

    def __init__(self) -> None:
        self._artefacts: dict[Cid, bytes] = {}

    def put_file(
        self,
        path: StrPath,
        *,
        known: ArtefactHash | None = None,
        durable: bool = True,
        progress: Progress | None = None,
    ) -> ArtefactHash:
        """Keep a copy of a file; see ``ArtefactStore.put_file``."""
        if known is not None and known.cid in self._artefacts:
            return known
        kept = bytearray()
        with open_regular(path) as (descriptor, _):
            names = hash_stream(fill_from_descriptor(descriptor), (kept.extend, *report_to(progress)))
        self._artefacts[names.cid] = bytes(kept)
        return names

    def put_bytes(self, data: bytes, *, durable: bool = True) -> ArtefactHash:
        """Keep these bytes; see ``ArtefactStore.put_bytes``."""
        names = hash_bytes(data)
        self._artefacts[names.cid] = bytes(data)
        return names

    def put_stream(self, fill: Fill, *, expected: Cid | None = None, durable: bool = True) -> ArtefactHash:
        """Keep what a reader gives; see ``ArtefactStore.put_stream``."""
        kept = bytearray()
        names = hash_stream(fill, (kept.extend,))
        if expected is not None and names.cid != expected:
            raise mismatched(expected, names.cid)
        self._artefacts[names.cid] = bytes(kept)
        return names

    def has(self, cid: Cid) -> bool:
        """Whether the store holds the artefact."""
        return cid in self._artefacts

    def size(self, cid: Cid) -> int:
        """Return the size of an artefact in bytes; see ``ArtefactStore.size``."""
        return len(self._bytes(cid))

    def open(self, cid: Cid) -> BinaryIO:
        """Open an artefact; see ``ArtefactStore.open``."""
        return io.BytesIO(self._bytes(cid))

    def read_bytes(self, cid: Cid, limit: int = READ_SIZE_MAX) -> bytes:
        """Return a whole artefact; see ``ArtefactStore.read_bytes``."""
        data = self._bytes(cid)
        if len(data) > limit:
            raise too_large(cid, len(data), limit)
        return data

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
        """Restore an artefact to a path; see ``ArtefactStore.fetch_to``."""
        destination = Destination(path, within)
        data = self._bytes(cid)
        with destination.directory() as directory:
            present, is_same = destination.what_lies_there(
                directory, cid, is_kept=self.has, overwrite=overwrite
            )
            if is_same:
                return Fetched(False, len(data))
            with destination.incoming(directory, present, mode=mode, durable=durable) as target:
                write_all(target, memoryview(data), path)
        if progress is not None:
            progress(len(data))
        return Fetched(True, len(data))

    def delete(self, cid: Cid) -> bool:
        """Forget an artefact; see ``ArtefactStore.delete``."""
        return self._artefacts.pop(cid, None) is not None

    def list(self) -> Iterator[Cid]:
        """Give the name of every artefact, in no order."""
        yield from tuple(self._artefacts)

    def usage(self) -> StoreUsage:
        """Count what the store holds."""
        return StoreUsage(len(self._artefacts), sum(map(len, self._artefacts.values())))

    def _bytes(self, cid: Cid) -> bytes:
        try:
            return self._artefacts[cid]
        except KeyError:
            raise absent(cid) from None
