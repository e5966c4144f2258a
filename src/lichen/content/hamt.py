"""Directories too large for one node: a trie of shards, placed by a hash of each name.

Each shard has 256 slots. A name's hash gives its slot on every level, eight bits at a time; a slot with one name holds
its link, a slot with several holds a shard of the next level. Slots are written as two hexadecimal digits in front of
the name.

Source:
    https://specs.ipfs.tech/unixfs/ (HAMT-sharded directories); MurmurHash3 x64 by Austin Appleby, of which only the
    first half of the 128 bits is used.
"""

from __future__ import annotations

from collections.abc import Sequence

from lichen.content.dag_pb import Link, encode_node, link_to, shard_data
from lichen.errors import UsageError

__all__ = ["build_shards", "murmur3_64"]

FANOUT = 2**8  # (= 256) slots in a shard, one byte of the hash
HASH_SIZE = 8  # bytes, so a trie has at most 8 levels

MASK = 2**64 - 1
C1 = 0x87C37B91114253D5
C2 = 0x4CF5AD432745937F


def murmur3_64(data: bytes) -> bytes:
    """Return the first 64 bits of MurmurHash3 x64 with seed 0, most significant byte first."""
    h1 = h2 = 0
    whole = len(data) & ~15
    for start in range(0, whole, 16):
        h1 ^= _mix_k1(int.from_bytes(data[start : start + 8], "little"))
        h1 = ((_rotate(h1, 27) + h2) * 5 + 0x52DCE729) & MASK
        h2 ^= _mix_k2(int.from_bytes(data[start + 8 : start + 16], "little"))
        h2 = ((_rotate(h2, 31) + h1) * 5 + 0x38495AB5) & MASK
    tail = data[whole:]
    h2 ^= _mix_k2(int.from_bytes(tail[8:], "little"))
    h1 ^= _mix_k1(int.from_bytes(tail[:8], "little"))
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = (h1 + h2) & MASK
    h2 = (h2 + h1) & MASK
    return ((_finish(h1) + _finish(h2)) & MASK).to_bytes(HASH_SIZE, "big")


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & MASK


def _mix_k1(k1: int) -> int:
    return _rotate(k1 * C1 & MASK, 31) * C2 & MASK


def _mix_k2(k2: int) -> int:
    return _rotate(k2 * C2 & MASK, 33) * C1 & MASK


def _finish(h: int) -> int:
    h ^= h >> 33
    h = h * 0xFF51AFD7ED558CCD & MASK
    h ^= h >> 33
    h = h * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33


def build_shards(links: Sequence[Link]) -> tuple[Link, list[bytes]]:
    """Build the trie of a large directory.

    Args:
        links: The directory's entries, with distinct names.

    Returns:
        The link to the topmost shard, nameless, and the raw blocks of all shards, the topmost last.

    Raises:
        UsageError: Several names have one hash, so no trie separates them.
    """
    blocks: list[bytes] = []
    root = _build_shard([(murmur3_64(link.name), link) for link in links], 0, blocks)
    return root, blocks


def _build_shard(placed: Sequence[tuple[bytes, Link]], level: int, blocks: list[bytes]) -> Link:
    if level == HASH_SIZE:
        raise UsageError(
            f"{len(placed)} names in one directory have the same hash, beginning with {placed[0][1].name!r}",
            remedy="Rename one of them, or spread them over several directories.",
        )
    slots: dict[int, list[tuple[bytes, Link]]] = {}
    for placing, link in placed:
        slots.setdefault(placing[level], []).append((placing, link))
    children: list[Link] = []
    taken = 0
    for slot in sorted(slots):
        taken |= 1 << slot
        held = slots[slot]
        if len(held) == 1:
            link = held[0][1]
            children.append(link._replace(name=b"%02X" % slot + link.name))
        else:
            children.append(_build_shard(held, level + 1, blocks)._replace(name=b"%02X" % slot))
    bitfield = taken.to_bytes((taken.bit_length() + 7) // 8, "big")
    block = encode_node(children, shard_data(bitfield, FANOUT))
    blocks.append(block)
    return link_to(block, children)
