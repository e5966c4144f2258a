"""Artefacts of a served ledger: those on this machine, and those that the server holds, brought here when they are wanted.

What is fetched is stored only if its bytes have the CID that was asked for, so it is as good as what was made here. A server
could send without end, so each artefact is bounded: by the size that the signed record behind it states, by what the caller
would read, or, where nobody has said a size, by a default.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from lichen.content.directory_store import DirectoryStore
from lichen.content.store import READ_SIZE_MAX, Fetched
from lichen.errors import LichenError, NotFoundError
from lichen.net.together import TOGETHER_COUNT_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.content.cid import Cid
    from lichen.content.files import StrPath
    from lichen.content.unixfs import Progress
    from lichen.net.remote.remote_log import RemoteLog

__all__ = ["UNSTATED_BYTES_MAX", "RemoteStore"]

UNSTATED_BYTES_MAX: Final = 2**30  # (= 1073741824) what servers take unless told otherwise


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
        self.bring(cid)
        return super().size(cid)

    def open(self, cid: Cid) -> BinaryIO:
        """See `ArtefactStore.open`."""
        self.bring(cid)
        return super().open(cid)

    def read_bytes(self, cid: Cid, limit: int = READ_SIZE_MAX) -> bytes:
        """See `ArtefactStore.read_bytes`."""
        self.bring(cid, min(limit, READ_SIZE_MAX))
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
        self.bring(cid)
        return super().fetch_to(
            cid, path, mode=mode, overwrite=overwrite, within=within, durable=durable, progress=progress
        )

    def bring(self, cid: Cid, size_bytes: int = UNSTATED_BYTES_MAX) -> None:
        """See `DirectoryStore.bring`."""
        if not self.keeps(cid):
            self._remote.fetch_artefact(cid, self, size_bytes)

    def bring_all(self, cids: Sequence[Cid], size_bytes: int) -> None:
        """See `DirectoryStore.bring_all`. A server that gives them only one by one is asked when each is read."""
        missing = [cid for cid in dict.fromkeys(cids) if not self.keeps(cid)]
        while len(missing) > 1:
            try:
                given = self._remote.fetch_artefacts(missing[:TOGETHER_COUNT_MAX])
            except NotFoundError:
                return
            for data in given:
                if data is not None and len(data) <= size_bytes:
                    self.put_bytes(
                        data, durable=False
                    )  # what a power cut harms is found harmed, and fetched again
            missing = missing[len(given) :]
