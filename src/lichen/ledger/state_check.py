"""Whether the stored pieces of the state are exactly those that its keys and values call for.

A change trusts the hashes beside its way: checking them all each time would cost as much as having no pieces. So an
auditor checks them here, from keys and values alone, with no more in memory than one piece for each level.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from lichen.ledger.state_bucket import BUCKET_COUNT_MAX, Bucket, damaged
from lichen.ledger.state_map import EMPTY_STATE_ROOT, KEY_BITS
from lichen.ledger.state_nodes import (
    BUCKET,
    EMPTY,
    NOTHING,
    SLOT_COUNT,
    STRIDE_BITS,
    TILE,
    NodeStore,
    Tile,
)
from lichen.ledger.state_tree import DEPTH_MAX, ROOT_NODE

__all__ = ["Pieces", "check_pieces"]


@dataclass(slots=True)
class Pieces:
    """What was found.

    Attributes:
        root: Root of the map, 32 bytes.
        key_count: How many keys.
        tile_count: How many tiles lead to them.
        bucket_count: How many buckets hold them.
    """

    root: bytes = EMPTY_STATE_ROOT
    key_count: int = 0
    tile_count: int = 0
    bucket_count: int = 0


def check_pieces(nodes: NodeStore) -> Pieces:
    """Recompute every hash, count and place of the stored state from its keys and values.

    Args:
        nodes: Where the pieces lie.

    Returns:
        The root that the keys and values lead to, and how many pieces were visited on the way.

    Raises:
        CorruptLedgerError: A piece is missing, is damaged, or is not the one that its keys and values call for.
    """
    pieces = Pieces()
    if nodes.tile(ROOT_NODE) is not None:
        pieces.root = _check_tile(nodes, ROOT_NODE, 0, pieces)
    elif nodes.bucket(ROOT_NODE) is not None:
        pieces.root = _check_bucket(nodes, ROOT_NODE, 0, pieces)
    return pieces


def _check_tile(nodes: NodeStore, node: int, depth: int, pieces: Pieces) -> bytes:
    data = nodes.tile(node)
    if data is None or depth >= DEPTH_MAX:
        raise damaged(f"tile {node:x} is missing")
    pieces.tile_count += 1
    before = pieces.key_count
    stored, fresh = Tile(data, depth), Tile(None, depth)
    slots: set[int] = set()
    for slot in range(SLOT_COUNT):
        kind, child = stored.kind(slot), node << STRIDE_BITS | slot
        if kind == EMPTY:
            fresh.put(slot, EMPTY, NOTHING)
            continue
        if kind not in (BUCKET, TILE):
            raise damaged(f"slot {slot} of tile {node:x} is of no kind")
        below = _check_tile if kind == TILE else _check_bucket
        fresh.put(slot, kind, below(nodes, child, depth + 1, pieces))
        slots.add(slot)
    fresh.count = pieces.key_count - before
    own_hash = fresh.rehash(slots) if slots else NOTHING
    if fresh.count <= BUCKET_COUNT_MAX or fresh.to_bytes() != data:
        raise damaged(f"tile {node:x} is not the one that the keys below it call for")
    return own_hash


def _check_bucket(nodes: NodeStore, node: int, depth: int, pieces: Pieces) -> bytes:
    data = nodes.bucket(node)
    if data is None:
        raise damaged(f"bucket {node:x} is missing")
    bucket = Bucket.from_bytes(data)
    pieces.bucket_count += 1
    pieces.key_count += len(bucket)
    if len(bucket) > BUCKET_COUNT_MAX and depth < DEPTH_MAX:
        raise damaged(f"bucket {node:x} holds too many keys")
    if any(one >= other for one, other in pairwise(bucket.keys)):
        raise damaged(f"the keys of bucket {node:x} are not in order")
    prefix_bits = STRIDE_BITS * depth
    for key in bucket.keys:
        if 1 << prefix_bits | int.from_bytes(key, "big") >> (KEY_BITS - prefix_bits) != node:
            raise damaged(f"key {key.hex()} does not belong in bucket {node:x}")
    fresh = Bucket.from_items(list(bucket.items()))
    if fresh.to_bytes() != data:
        raise damaged(f"bucket {node:x} is not the one that its keys and values call for")
    return fresh.hash()
