"""Artefacts from trustless IPFS gateways: any server that gives blocks or CAR files by their names.

Nothing a gateway says is believed. What comes is checked block by block before any of it is stored, and no more is taken than
the file may have: a gateway that lies, hangs, sends without end or points elsewhere costs a bounded time and no wrong byte.

Source: https://specs.ipfs.tech/http-gateways/trustless-gateway/. Differs: redirections are not followed, so that a name that was
trusted to be near does not lead far away.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from lichen.content.car import BLOCK_SIZE_MAX, file_pieces, fill_from_pieces, import_artefact
from lichen.content.cid import Cid
from lichen.errors import LichenError, NetworkError, NotFoundError, RemoteProtocolError, VerificationError
from lichen.net.remote.connection import Connection, Reply, check_url, raise_for

if TYPE_CHECKING:
    import http.client

    from lichen.content.store import ArtefactStore
    from lichen.content.unixfs import ArtefactHash

__all__ = ["Gateway", "fetch_from_any"]

FILE_BYTES_MAX: Final = 2**34  # (= 16 GiB) of one file, unless told otherwise
_RAW: Final = "application/vnd.ipld.raw"
_CAR: Final = "application/vnd.ipld.car"
_FRAMES_SHARE: Final = 256  # a CAR file is larger than the file in it by less than one part in so many, and
_FRAMES_BYTES: Final = 2**20  # (= 1048576) so much


class Gateway:
    """A trustless gateway; a context manager.

    Args:
        url: Its address, without ``/ipfs``.
        connection: To it; made when not given.

    Raises:
        UsageError: Not an address.
    """

    def __init__(self, url: str, connection: Connection | None = None) -> None:
        self.url = check_url(url)
        self._connection = connection or Connection(self.url)

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def has(self, cid: Cid) -> bool:
        """Ask whether it has the topmost block of an artefact.

        Raises:
            NetworkError: It cannot be reached.
            RemoteProtocolError: It is no gateway.
        """
        reply = self._connection.ask(
            "HEAD", self._target(cid, "raw"), limit=BLOCK_SIZE_MAX, headers={"Accept": _RAW}
        )
        if reply.status in {404, 410}:
            return False
        raise_for(self.url, reply)
        return True

    def fetch(self, cid: Cid, store: ArtefactStore, size_bytes_max: int = FILE_BYTES_MAX) -> ArtefactHash:
        """Bring a file into a store: as a CAR file, or block by block from a gateway that gives no such files.

        Args:
            cid: Its name.
            store: Where to.
            size_bytes_max: Largest file that is taken.

        Returns:
            Its names.

        Raises:
            NotFoundError: The gateway does not have it.
            VerificationError: It sent other bytes; nothing was stored.
            EncodingError: What came is no CAR file, or no file.
            NetworkError: It cannot be reached, or gave up half-way.
            RemoteProtocolError: It sends more than the file may have, or is no gateway.
            UsageError: The file is larger than what is taken, or the gateway wants a key.
        """
        taken: list[ArtefactHash] = []
        bound = size_bytes_max + size_bytes_max // _FRAMES_SHARE + _FRAMES_BYTES

        def take(response: http.client.HTTPResponse) -> None:
            stream = _Bounded(response, bound, self.url, cid)
            taken.append(import_artefact(store, stream, expected=cid, size_bytes_max=size_bytes_max))  # type: ignore[arg-type]

        reply = self._connection.ask(
            "GET", self._target(cid, "car"), limit=0, headers={"Accept": _CAR}, sink=take
        )
        if taken:
            return taken[0]
        if reply.status in {400, 406, 415, 501}:  # it gives blocks and nothing else
            pieces = file_pieces(self.block, cid, size_bytes_max)
            return store.put_stream(fill_from_pieces(pieces), expected=cid)
        raise self._refusal(cid, reply)

    def block(self, cid: Cid) -> bytes:
        """Fetch one raw block, verified.

        Raises:
            NotFoundError: The gateway does not have it.
            VerificationError: It sent other bytes.
            NetworkError: It cannot be reached.
            RemoteProtocolError: It sends more than a block may have, or is no gateway.
        """
        reply = self._connection.ask(
            "GET", self._target(cid, "raw"), limit=BLOCK_SIZE_MAX, headers={"Accept": _RAW}
        )
        if reply.status != 200:
            raise self._refusal(cid, reply)
        digest = hashlib.sha256(reply.body).digest()
        if digest != cid.digest:
            raise VerificationError(
                f"{self.url} sent other bytes than {cid} names",
                expected=str(cid),
                calculated=str(Cid(cid.codec, digest)),
                remedy="Fetch it from somewhere else.",
            )
        return reply.body

    def _target(self, cid: Cid, form: str) -> str:
        return f"{self._connection.prefix}/ipfs/{cid}?format={form}"

    def _refusal(self, cid: Cid, reply: Reply) -> LichenError:
        if reply.status in {404, 410}:
            return NotFoundError(f"{self.url} does not have {cid}", remedy="Ask another gateway.")
        try:
            raise_for(self.url, reply)
        except LichenError as error:
            return error
        return RemoteProtocolError(f"{self.url} answers with status {reply.status} and no block")


def fetch_from_any(
    gateways: Sequence[Gateway], cid: Cid, store: ArtefactStore, size_bytes_max: int = FILE_BYTES_MAX
) -> tuple[ArtefactHash, list[LichenError]]:
    """Bring a file into a store from the first gateway that has it and tells no lies.

    Args:
        gateways: In the order in which they are asked.
        cid: Name of the file.
        store: Where to.
        size_bytes_max: Largest file that is taken.

    Returns:
        Its names, and what was wrong with the gateways asked before.

    Raises:
        NotFoundError: None of them has it; the message says of each why.
    """
    wrong: list[LichenError] = []
    for gateway in gateways:
        try:
            return gateway.fetch(cid, store, size_bytes_max), wrong
        except LichenError as error:
            wrong.append(error)
    reasons = "; ".join(error.message for error in wrong) or "no gateway was named"
    raise NotFoundError(f"{cid} could not be fetched: {reasons}", remedy="Name a gateway that has it.")


class _Bounded:
    """The body of an answer, no more than so many bytes of it.

    Args:
        response: Its body is read.
        size_bytes: The most that is taken.
        url: Names the gateway in the error.
        cid: Names what was asked for in the error.
    """

    def __init__(self, response: http.client.HTTPResponse, size_bytes: int, url: str, cid: Cid) -> None:
        self._response = response
        self._left = size_bytes
        self._url = url
        self._cid = cid

    def read(self, count: int) -> bytes:
        """Read so many bytes, fewer only at the end.

        Raises:
            RemoteProtocolError: More come than may.
            NetworkError: The answer broke off.
        """
        import http.client

        try:
            piece = self._response.read(count)
        except http.client.IncompleteRead as error:
            raise self._broken_off() from error
        if len(piece) < count and self._response.length:
            raise self._broken_off()
        self._left -= len(piece)
        if self._left < 0:
            raise RemoteProtocolError(
                f"{self._url} sends more than {self._cid} may have",
                remedy="Ask another gateway; nothing was kept.",
            )
        return piece

    def _broken_off(self) -> NetworkError:
        return NetworkError(
            f"{self._url} broke off while it sent {self._cid}",
            definite=True,
            remedy="Try again, or ask another gateway.",
        )
