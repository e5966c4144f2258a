"""What a server allows: sizes, rates, waiting times. Every bound has a default that fits a team's ledger."""

from __future__ import annotations

from dataclasses import dataclass

from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES, PAYLOAD_BYTES_MAX
from lichen.errors import UsageError

__all__ = ["BATCH_BYTES_MAX", "BATCH_COUNT_MAX", "RECORD_BYTES_MAX", "ServerSettings"]

BATCH_COUNT_MAX = 2**8  # (= 256) records in one request
BATCH_BYTES_MAX = 2**21  # (= 2097152) of one request with several records

RECORD_BYTES_MAX = 2 * (
    ENTRY_OVERHEAD_BYTES + PAYLOAD_BYTES_MAX
)  # (= 96162) a DSSE envelope is longer by a third


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Bounds of one server.

    Attributes:
        artefact_bytes_max: Largest artefact taken.
        records_per_second: Records one key may submit from one address, averaged over the burst.
        records_burst: Records it may submit at once.
        requests_per_second: Requests of any kind from one address, averaged over the burst.
        requests_burst: Requests at once.
        block_count_max: Entries after which a block is closed, where the ledger itself would wait for more. Closing one updates
            the state with everything in it, and whoever submits meanwhile waits for that.
        waiting_max: Records that may wait for the disk; beyond, submitters are told to come back.
        requests_max: Requests answered at a time; beyond, callers are told to come back.
        header_seconds: Time a caller has for sending the head of a request.
        body_seconds: Time between two pieces of a body, either way; a record must be whole after so long.
        shutdown_seconds: Time that requests under way have to end after the server was told to stop.
        publish_seconds: Least time between two published checkpoints.
        witness_poll_seconds: How often to look for a checkpoint that witnesses have not been asked about.
    """

    artefact_bytes_max: int = 2**30
    records_per_second: float = 500.0
    records_burst: float = 2_000.0
    requests_per_second: float = 5_000.0
    requests_burst: float = 20_000.0
    block_count_max: int = 256
    waiting_max: int = 4_096
    requests_max: int = 1_024
    header_seconds: float = 10.0
    body_seconds: float = 20.0
    shutdown_seconds: float = 20.0
    publish_seconds: float = 1.0
    witness_poll_seconds: float = 2.0

    @property
    def batch_count_max(self) -> int:
        """Records taken in one request: never more than one key may submit at once, or that may wait."""
        return max(1, int(min(BATCH_COUNT_MAX, self.records_burst, self.waiting_max)))

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if not value > 0:
                raise UsageError(f"{name.replace('_', ' ')} must be more than zero, got {value}")
