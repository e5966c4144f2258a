"""What can be asked of a server, in the ledger's words. Nothing that it answers has been checked."""

from __future__ import annotations

import http.client
import os
import time
import urllib.parse
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from lichen.content.unixfs import hash_bytes
from lichen.errors import (
    EncodingError,
    LichenError,
    NotFoundError,
    Rejected,
    RemoteProtocolError,
    UsageError,
    VerificationError,
)
from lichen.ledger.tree import HASH_BYTES, TILE_WIDTH
from lichen.net.remote.connection import Body, Connection, Reply, meaning_of, raise_for
from lichen.net.signed_request import sign_request
from lichen.net.tile_paths import BUNDLE_BYTES_MAX, TilePath, pack_bundle, unpack_bundle
from lichen.net.together import TOGETHER_BYTES_MAX, unpack_artefacts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lichen.content.cid import Cid
    from lichen.content.directory_store import DirectoryStore
    from lichen.crypto.keys import SigningKey
    from lichen.encoding.entry import Entry

__all__ = ["RemoteLog"]

NOTE_BYTES_MAX: Final = 1_000_000
ANSWER_BYTES_MAX: Final = 1_000_000
BATCH_COUNT_MAX: Final = 256  # records in one request, whatever a server offers
BATCH_ANSWER_BYTES_MAX: Final = 4_000_000
PATIENCE_COUNT: Final = 10  # so often a server may say that it is too much at once
PATIENCE_SECONDS_MAX: Final = 30
SIGNATURE_BYTES: Final = 64
CLOCK_OFFSET_MAX_SECONDS: Final = 3_600
_ATTEMPTS_MAX: Final = 8  # as asked, by the server's clock, with other keys
_PIECE_BYTES: Final = 2**18  # (= 262144)
_ENTRY_TYPE: Final = "application/vnd.lichen.entry"
_BUNDLE_TYPE: Final = "application/vnd.lichen.entries"


class RemoteLog:
    """One ledger behind a URL.

    Args:
        connection: To its server.
        signer: Gives the key to sign requests with, when one must be signed.
        sleep: Waits for so many seconds, when the server asks for it.
        others: Gives the same member's other keys, tried in order when the server says that the key is not one: amid a rotation
            it knows the next already, and before one is told of a rotation elsewhere, the one before.

    Attributes:
        ledger_id: 64 hexadecimal digits; empty until it is known.
        is_private: Whether reading takes a signed request.
    """

    def __init__(
        self,
        connection: Connection,
        signer: Callable[[], SigningKey],
        sleep: Callable[[float], object] = time.sleep,
        others: Callable[[], Iterable[SigningKey]] = lambda: (),
    ) -> None:
        self._sleep = sleep
        self._others = others
        self._untried: list[SigningKey] | None = None
        self._connection = connection
        self._signer = self._key_in_use = signer
        self._clock_offset_seconds = 0
        self._batch_bounds: tuple[int, int] | None = None
        self.ledger_id = ""
        self.is_private = False

    @property
    def url(self) -> str:
        """Where the server is."""
        return self._connection.url

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    # -- reading ---------------------------------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """What the server says about itself: ledger id, access, log key."""
        return self._read("/", ANSWER_BYTES_MAX, is_open=True).json()

    def checkpoint(self) -> str:
        """The published checkpoint: a signed note.

        Raises:
            RemoteProtocolError: Not text.
        """
        return self._text("/checkpoint")

    def receipt(self, index: int) -> str:
        """The receipt of an entry, as text."""
        return self._text(f"/receipt/{index}")

    def tile(self, level: int, number: int, width: int) -> bytes:
        """Hashes of a tile.

        Raises:
            RemoteProtocolError: Not as many as were asked for.
        """
        data = self._tile(TilePath(level, number, width), width * HASH_BYTES)
        if len(data) != width * HASH_BYTES:
            raise RemoteProtocolError(f"{self.url} sent {len(data)} bytes where {width} hashes belong")
        return data

    def bundle(self, number: int, width: int) -> list[bytes]:
        """Entries of a bundle in their compact form.

        Raises:
            RemoteProtocolError: Not as many as were asked for.
        """
        try:
            return unpack_bundle(self._tile(TilePath(None, number, width), BUNDLE_BYTES_MAX), width)
        except EncodingError as error:
            raise RemoteProtocolError(f"{self.url}: {error.message}") from error

    def checkpoint_signatures(self, number: int, width: int) -> dict[int, bytes]:
        """The log's signature of each checkpoint behind a seal in a bundle, by the seal's index.

        Raises:
            RemoteProtocolError: Malformed.
        """
        path = TilePath(0, number, width).to_text().partition("/")[2]
        size = 1 + SIGNATURE_BYTES
        data = self._read(f"/checkpoint-signatures/{path}", TILE_WIDTH * size).body
        if len(data) % size:
            raise RemoteProtocolError(f"{self.url} sent checkpoint signatures that are cut short")
        return {
            number * TILE_WIDTH + data[place]: data[place + 1 : place + size]
            for place in range(0, len(data), size)
        }

    def _tile(self, path: TilePath, limit: int) -> bytes:
        """Read a tile or bundle; where a partial one is gone, the beginning of the full one cannot be told from here."""
        return self._read(f"/tile/{path.to_text()}", limit).body

    def _text(self, path: str) -> str:
        try:
            return self._read(path, NOTE_BYTES_MAX).body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RemoteProtocolError(f"{self.url}{path} is not text") from error

    # -- submitting ------------------------------------------------------------------------------------------------

    def submit(self, entry: Entry) -> tuple[int, str]:
        """Submit a record, and have the block closed behind it.

        Returns:
            The index it is said to have, and the text of its receipt.

        Raises:
            Rejected: A rule said no.
            NetworkError: It was not taken, or nobody knows (``definite``).
            RemoteProtocolError: The answer makes no sense.
        """
        reply = self._ask(
            "POST",
            "/records?receipt=yes",
            limit=ANSWER_BYTES_MAX,
            body=entry.to_bytes(),
            headers={"Content-Type": _ENTRY_TYPE},
        )
        raise_for(self.url, reply)
        told = reply.json()
        index, receipt = told.get("index"), told.get("receipt")
        if type(index) is not int or not isinstance(receipt, str):
            raise RemoteProtocolError(f"{self.url} took a record, but sent no receipt for it")
        return index, receipt

    def batch_bounds(self) -> tuple[int, int]:
        """How many records, and bytes of them, the server takes in one request; asked once. One record where it takes no more."""
        if self._batch_bounds is None:
            told = self.about()
            count, size = told.get("batch_count_max"), told.get("batch_bytes_max")
            if type(count) is int and type(size) is int and count > 0:
                self._batch_bounds = min(count, BATCH_COUNT_MAX), size
            else:
                self._batch_bounds = 1, 0
        return self._batch_bounds

    def submit_many(self, entries: Sequence[Entry]) -> tuple[list[int | Rejected], str]:
        """Submit several records in one request, and have the block closed behind them.

        Args:
            entries: No more than `batch_bounds` says.

        Returns:
            For each record the index it is said to have, or the refusal of a rule; and a checkpoint that covers them.

        Raises:
            NetworkError: At least one was not taken, or nobody knows (``definite``): submit all of them again.
            RemoteProtocolError: The answer makes no sense.
        """
        body = pack_bundle(entry.to_bytes() for entry in entries)
        for is_last in (False,) * PATIENCE_COUNT + (True,):
            reply = self._ask(
                "POST",
                "/records/batch?seal=yes",
                limit=BATCH_ANSWER_BYTES_MAX,
                body=body,
                headers={"Content-Type": _BUNDLE_TYPE},
            )
            if reply.status != 429 or is_last:
                break
            self._sleep(_seconds_of(reply.headers.get("retry-after", "")))
        raise_for(self.url, reply)
        told = reply.json()
        results, checkpoint = told.get("results"), told.get("checkpoint")
        if not isinstance(results, list) or len(results) != len(entries) or not isinstance(checkpoint, str):
            raise RemoteProtocolError(f"{self.url} took {len(entries)} records, but did not answer for each")
        return [self._result(result) for result in results], checkpoint

    def _result(self, told: object) -> int | Rejected:
        """Read what became of one record of several."""
        if not isinstance(told, dict) or type(status := told.get("status")) is not int:
            raise RemoteProtocolError(f"{self.url} did not say what became of a record")
        if status < 400:
            if type(index := told.get("index")) is not int:
                raise RemoteProtocolError(f"{self.url} took a record, but did not say where it stands")
            return index
        error = meaning_of(self.url, status, told)
        if isinstance(error, Rejected):
            return error
        if status == 400:
            return Rejected("ledger.malformed", error.message, remedy=error.remedy)
        raise error

    # -- artefacts -------------------------------------------------------------------------------------------------

    def artefact_size(self, cid: Cid) -> int | None:
        """Size of an artefact in bytes; None when the server does not hold it."""
        reply = self._ask("HEAD", f"/artefact/{cid}", limit=0, is_signed=self.is_private)
        if reply.status == 404:
            return None
        raise_for(self.url, reply)
        size = reply.headers.get("content-length", "")
        if not (size.isascii() and size.isdigit()):
            raise RemoteProtocolError(f"{self.url} does not say how large {cid} is")
        return int(size)

    def fetch_artefact(self, cid: Cid, store: DirectoryStore, size_bytes_max: int) -> None:
        """Bring an artefact into a store; it is stored only if its bytes have that CID.

        Args:
            cid: Its name.
            store: Where to.
            size_bytes_max: The most bytes taken; when more come, nothing is kept.

        Raises:
            NotFoundError: The server does not hold it.
            VerificationError: It sent something else.
            RemoteProtocolError: It sends more than ``size_bytes_max``.
        """

        def keep(response: http.client.HTTPResponse) -> None:
            left = size_bytes_max
            if response.length is not None and response.length > left:
                raise self._too_much(cid, size_bytes_max)

            def fill(view: memoryview) -> int:
                nonlocal left
                place = 0
                while place < len(view) and (count := response.readinto(view[place:])):
                    place += count
                left -= place
                if left < 0:
                    raise self._too_much(cid, size_bytes_max)
                return place

            store.put_stream(fill, expected=cid)

        reply = self._ask("GET", f"/artefact/{cid}", limit=0, is_signed=self.is_private, sink=keep)
        if reply.status == 404:
            raise NotFoundError(f"neither this machine nor {self.url} holds {cid}")
        raise_for(self.url, reply)

    def _too_much(self, cid: Cid, size_bytes_max: int) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"{self.url} sends more than {size_bytes_max:,} bytes as {cid}",
            remedy="Nothing of it was kept. Where only a CID was named, name the entry instead: its record states the size.",
        )

    def fetch_artefacts(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """Fetch several small artefacts in one request.

        Args:
            cids: Their names, at most `TOGETHER_COUNT_MAX`.

        Returns:
            The first of them, at least one, in order; None for each that the server does not hold or give this way.

        Raises:
            NotFoundError: The server gives artefacts only one by one.
            VerificationError: It sent something else.
            RemoteProtocolError: The answer makes no sense.
        """
        path = "/artefacts/" + ".".join(str(cid) for cid in cids)
        try:
            given = unpack_artefacts(self._read(path, TOGETHER_BYTES_MAX).body, len(cids))
        except EncodingError as error:
            raise RemoteProtocolError(f"{self.url}: {error.message}") from error
        for cid, data in zip(cids, given, strict=False):
            if data is not None and (calculated := hash_bytes(data).cid) != cid:
                raise VerificationError(
                    f"{self.url} sent other bytes than {cid} names",
                    expected=str(cid),
                    calculated=str(calculated),
                )
        return given

    def put_artefact(self, cid: Cid, store: DirectoryStore) -> None:
        """Let the server keep an artefact; nothing is sent when it does already.

        Raises:
            NotFoundError: The store does not hold it.
            NetworkError: The server did not take it.
        """
        if self.artefact_size(cid) is not None:
            return

        def pieces() -> Iterator[bytes]:
            with store.open(cid) as stored:
                while piece := stored.read(_PIECE_BYTES):
                    yield piece

        reply = self._ask(
            "PUT",
            f"/artefact/{cid}",
            limit=ANSWER_BYTES_MAX,
            body=pieces,
            size_bytes=store.size(cid),
            headers={"Content-Type": "application/octet-stream"},
            is_signed=True,
        )
        raise_for(self.url, reply)

    # -- one request -----------------------------------------------------------------------------------------------

    def _read(self, path: str, limit: int, *, is_open: bool = False) -> Reply:
        reply = self._ask("GET", path, limit=limit, is_signed=self.is_private and not is_open)
        raise_for(self.url, reply)
        return reply

    def _ask(
        self,
        method: str,
        path: str,
        *,
        limit: int,
        body: Body | None = None,
        size_bytes: int | None = None,
        headers: Mapping[str, str] | None = None,
        is_signed: bool = False,
        sink: Callable[[http.client.HTTPResponse], None] | None = None,
    ) -> Reply:
        target = self._connection.prefix + path
        for _ in range(_ATTEMPTS_MAX):
            sent = dict(headers or {})
            if is_signed:
                sent |= self._signature(method, target)
            reply = self._connection.ask(
                method, target, limit=limit, body=body, size_bytes=size_bytes, headers=sent, sink=sink
            )
            is_worth_another = (reply.status == 401 and self._learn_clock(reply)) or (
                is_signed and reply.status == 403 and self._take_other_key()
            )
            if not is_worth_another:
                break
        if is_signed and reply.status == 403:
            self._refuse_stranger(reply)
        return reply

    def _refuse_stranger(self, reply: Reply) -> None:
        """Say how to become a member, to whoever is none.

        Raises:
            UsageError: The server knows no member with this key.
        """
        try:
            told = reply.json()
        except LichenError:
            return
        if told.get("type") == "urn:lichen:problem:not-a-member":
            raise UsageError(
                f"{self.url} refuses: your key belongs to no member of its ledger",
                remedy=f"Let an admin of it type: lichen key admit NAME {self._signer().public.did_key}",
            )

    def _take_other_key(self) -> bool:
        """Sign with the next of the member's other keys from now on; False when all were tried."""
        if self._untried is None:
            self._untried = list(self._others())
        if not self._untried:
            self._signer = self._key_in_use
            return False
        key = self._untried.pop(0)
        self._signer = lambda: key
        return True

    def _signature(self, method: str, target: str) -> dict[str, str]:
        created = int(time.time()) + self._clock_offset_seconds
        quoted = urllib.parse.quote(target, safe="/?=&%:@.-_~")
        assert quoted == target  # paths made here need no quoting
        return sign_request(
            self._signer(), self.ledger_id, method, target, created=created, nonce=os.urandom(16)
        )

    def _learn_clock(self, reply: Reply) -> bool:
        """Take over the server's time when it says that the request's was too far from it; True when that helps."""
        try:
            said = reply.json().get("server_time_unix_seconds")
        except LichenError:
            return False
        if type(said) is not int:
            return False
        offset = said - int(time.time())
        if abs(offset) > CLOCK_OFFSET_MAX_SECONDS or offset == self._clock_offset_seconds:
            return False
        self._clock_offset_seconds = offset
        return True


def _seconds_of(retry_after: str) -> int:
    """How long a server wants to be left alone, within reason."""
    is_number = retry_after.isascii() and retry_after.isdigit() and len(retry_after) < 6
    return max(1, min(int(retry_after), PATIENCE_SECONDS_MAX)) if is_number else 1
