"""Why a delivery does not hold: whether the log forked, or only what was delivered is not what the log has.

The server's own tiles say. When they lead to the checkpoint that the log signed, they are the log's; then either the tree
over what was seen before is another one there (a fork, which they prove), or a delivered entry is not the one in the tree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lichen.errors import LichenError
from lichen.ledger.proof import consistency_proof, verify_consistency
from lichen.ledger.tree import HASH_BYTES, TILE_WIDTH, leaf_hash, subtree_reader

if TYPE_CHECKING:
    from lichen.ledger.checkpoint import Checkpoint
    from lichen.ledger.replica import Replica
    from lichen.net.remote.remote_log import RemoteLog

__all__ = ["Diagnosis", "diagnose"]

_CHECKED_COUNT_MAX = 1_024


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What the server's tiles say.

    Attributes:
        is_fork: Whether they prove that the log signed two histories.
        root: Root over what was seen before, in the tree that is offered now, 32 bytes; None when they do not say.
        proof: Consistency proof from it to the offered checkpoint.
        words: What is known beyond that; empty when nothing is.
    """

    is_fork: bool
    root: bytes | None = None
    proof: tuple[bytes, ...] = ()
    words: str = ""


def diagnose(
    copy: Replica, remote: RemoteLog, offered: Checkpoint, start: int, entries: Sequence[bytes]
) -> Diagnosis:
    """Look into the server's tiles.

    Args:
        copy: What was taken before; ends with a seal.
        remote: The server.
        offered: Checkpoint it offers, signed by the log.
        start: Index of the first delivered entry.
        entries: What was delivered.
    """
    size = offered.tree_size

    def read_hashes(level: int, first: int, count: int) -> bytes:
        number, place = divmod(first, TILE_WIDTH)
        width = min(TILE_WIDTH, (size >> (8 * level)) - number * TILE_WIDTH)
        return remote.tile(level, number, width)[place * HASH_BYTES : (place + count) * HASH_BYTES]

    subtree_root = subtree_reader(read_hashes)
    seen = copy.sealed_size
    try:
        root = subtree_root(0, seen)
        proof = tuple(consistency_proof(seen, size, subtree_root))
        verify_consistency(seen, size, root, offered.root, list(proof))
        if root != copy.root_at(seen):
            return Diagnosis(True, root, proof)
        for index, data in enumerate(entries[:_CHECKED_COUNT_MAX], start):
            if read_hashes(0, index, 1) != leaf_hash(data):
                return Diagnosis(False, words=f"entry {index} is not the one in the log's tree")
    except LichenError as error:
        return Diagnosis(False, words=f"its tiles do not lead to its checkpoint either: {error.message}")
    return Diagnosis(False)
