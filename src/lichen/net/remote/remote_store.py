"""Artefacts of a served ledger: those on this machine, and those that the server holds, brought here when they are wanted.

What is fetched is stored only if its bytes have the CID that was asked for, so it is as good as what was made here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from lichen.content.directory_store import DirectoryStore
from lichen.content.store import READ_SIZE_MAX, Fetched
from lichen.errors import LichenError

if TYPE_CHECKING:
    from lichen.content.cid import Cid
    from lichen.content.files import StrPath
    from lichen.content.unixfs import Progress
    from lichen.net.remote.remote_log import RemoteLog

__all__ = ["RemoteStore"]


class RemoteStore(DirectoryStore):
    """A store in a directory, with a server behind it. Puts stay here: a record that names them takes them along.

    Args:
        path: The directory.
        remote: The server.
    """

    def __init__(self, path: Path, remote: RemoteLog) -> None:
        super().__init__(path)
        self._remote = remote

    def has(self, cid: Cid) -> bool:
        """Whether the artefact is here, or the server says that it holds it."""
        if self.keeps(cid):
            return True
        try:
            return self._remote.artefact_size(cid) is not None
        except LichenError:
            return False

    def size(self, cid: Cid) -> int:
        """See `ArtefactStore.size`."""
        self._bring(cid)
        return super().size(cid)

    def open(self, cid: Cid) -> BinaryIO:
        """See `ArtefactStore.open`."""
        self._bring(cid)
        return super().open(cid)

    def read_bytes(self, cid: Cid, limit: int = READ_SIZE_MAX) -> bytes:
        """See `ArtefactStore.read_bytes`."""
        self._bring(cid)
        return super().read_bytes(cid, limit)

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
        """See `ArtefactStore.fetch_to`."""
        self._bring(cid)
        return super().fetch_to(
            cid, path, mode=mode, overwrite=overwrite, within=within, durable=durable, progress=progress
        )

    def _bring(self, cid: Cid) -> None:
        if not self.keeps(cid):
            self._remote.fetch_artefact(cid, self)
