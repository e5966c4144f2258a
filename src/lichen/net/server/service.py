"""What a server serves: one ledger opened twice (one writer, one reader), its artefacts, and what is published of it.

The reader has its own connection, so that readers do not wait while a commit waits for the disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.content.block_index import BlockIndex
from lichen.content.directory_store import DirectoryStore
from lichen.contracts import default_contracts
from lichen.crypto.hashes import sha256
from lichen.errors import KeyFileError, LichenError
from lichen.ledger.checkpoint import parse_checkpoint
from lichen.ledger.cosigned import CosignedCheckpoints
from lichen.ledger.ledger import Ledger
from lichen.net.server.access import Access
from lichen.net.server.committer import Committer
from lichen.net.server.limits import Buckets
from lichen.net.server.metrics import Metrics
from lichen.net.server.settings import ServerSettings
from lichen.net.witness.collector import Collector

if TYPE_CHECKING:
    from lichen.crypto.keys import SigningKey

_LOG = logging.getLogger("lichen.serve")

__all__ = ["Published", "Publisher", "Service", "etag_of"]


def etag_of(data: bytes) -> str:
    """Name the content of an answer, for ``ETag``."""
    return f'"{sha256(data)[:16].hex()}"'


class Published:
    """A checkpoint as it is shown.

    Attributes:
        text: The signed note.
        tree_size: How many entries it covers.
        etag: Name of this very text.
    """

    __slots__ = ("etag", "text", "tree_size")

    def __init__(self, text: str) -> None:
        self.text = text
        self.tree_size = parse_checkpoint(text)[0].tree_size
        self.etag = etag_of(text.encode())


class Publisher:
    """Shows the newest checkpoint, a new one at most every so often: so caches have something to hold.

    Args:
        reader: The ledger.
        seconds: Least time between two.
        clock: Seconds, rising.
    """

    def __init__(self, reader: Ledger, seconds: float, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._seconds = seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._shown: Published | None = None
        self._at = 0.0

    def current(self) -> Published:
        """The checkpoint that is shown now."""
        with self._lock:
            now = self._clock()
            if self._shown is None or now - self._at >= self._seconds:
                self._shown, self._at = Published(self._with_cosignatures(self._reader.checkpoint())), now
            return self._shown

    def _with_cosignatures(self, checkpoint: str) -> str:
        """Return a checkpoint with what witnesses have added to it so far."""
        head, note = parse_checkpoint(checkpoint)
        cosigned = CosignedCheckpoints(self._reader.directory).read(head.tree_size)
        return checkpoint if cosigned is None or cosigned.text != note.text else cosigned.to_text()


class Service:
    """One ledger being served.

    Args:
        directory: Where the ledger lies.
        log_key: The log's key.
        settings: What is allowed.
        home: Directory of the user's keys, for the high-water mark.
        clock: Seconds since 1970.
        rising_clock: Seconds, never set back.

    Attributes:
        ledger: The ledger, for the committer alone.
        reader: The ledger, for everything else.
        store: Artefacts beside it.
        blocks: Raw blocks of these artefacts.
        is_draining: True when nothing more is taken.
    """

    def __init__(
        self,
        directory: Path,
        log_key: SigningKey,
        settings: ServerSettings | None = None,
        *,
        home: Path | None = None,
        clock: Callable[[], float] = time.time,
        rising_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or ServerSettings()
        self._home = home
        self.ledger = self._open(directory, log_key)
        try:
            self.reader = Ledger.open(directory, default_contracts(), read_only=True)
        except BaseException:
            self.ledger.close()
            raise
        self.store = DirectoryStore(directory / "store")
        self.blocks = BlockIndex(self.store)
        self.access = Access(self.reader, clock)
        self.publisher = Publisher(self.reader, self.settings.publish_seconds, rising_clock)
        self.metrics = Metrics()
        self.requests = Buckets(self.settings.requests_per_second, self.settings.requests_burst, rising_clock)
        self.records = Buckets(self.settings.records_per_second, self.settings.records_burst, rising_clock)
        self.is_draining = False
        self._committer: Committer | None = None
        self._collector = Collector(self.reader, poll_seconds=self.settings.witness_poll_seconds)
        self._add_gauges(clock)

    @property
    def committer(self) -> Committer:
        """The writer; there from `start` on."""
        if self._committer is None:
            raise RuntimeError("the service has not been started")
        return self._committer

    @property
    def is_healthy(self) -> bool:
        """Whether the server has been started and is not ending."""
        return self._committer is not None and not self.is_draining

    def start(self) -> None:
        """Start the writer; inside the event loop that answers requests."""
        loop = asyncio.get_running_loop()
        self._committer = Committer(
            self.ledger,
            self.settings.waiting_max,
            loop,
            self.metrics,
            block_count_max=self.settings.block_count_max,
            reopen=self._open_again,
        )
        self._collector.start()

    def drain(self) -> None:
        """Take nothing more from now on."""
        self.is_draining = True

    def close(self) -> None:
        """Append what waits, seal, and let go of the ledger; blocks until that is durable."""
        self.is_draining = True
        if self._committer is not None:
            self._committer.close()
        self._collector.close()
        self.blocks.close()
        self.reader.close()
        try:
            self.ledger.close()
        except KeyFileError as error:  # told already; whoever opens the ledger with that key closes the block
            _LOG.error("the last block stays open: %s", error.message)

    def _open(self, directory: Path, log_key: SigningKey) -> Ledger:
        from lichen.runs.queries.views import default_views

        return Ledger.open(directory, default_contracts(), default_views(), log_key, home=self._home)

    def _open_again(self) -> Ledger:
        """Open the ledger with the key that its log has now.

        Raises:
            KeyFileError: It is not here.
        """
        from lichen.runs.keeping.log_succession import find_log_key

        directory = self.ledger.directory
        opened = self._open(directory, find_log_key(directory, self.reader.log_key))
        with contextlib.suppress(LichenError):  # it cannot seal any more, and need not
            self.ledger.close()
        self.ledger = opened
        return opened

    def _add_gauges(self, clock: Callable[[], float]) -> None:
        started = clock()
        self.metrics.gauges.update({
            "lichen_ledger_entries": ("Entries in the ledger, seals included.", lambda: self.reader.size),
            "lichen_ledger_sealed_entries": ("Entries under the newest checkpoint.", lambda: self.reader.sealed_size),
            "lichen_published_entries": ("Entries under the published checkpoint.", lambda: self.publisher.current().tree_size),
            "lichen_waiting_records": ("Records that wait for the disk.", lambda: 0 if self._committer is None else self._committer.waiting_count),
            "lichen_start_time_seconds": ("When this server was started, in seconds since 1970.", lambda: started),
        })  # fmt: skip
