"""The two trees: that of the log (RFC 6962), which only grows, and that of the state."""

from __future__ import annotations

import hashlib
from typing import Any

__all__ = ["Log", "State", "leaf_hash", "root_of_tile", "state_key"]


def leaf_hash(entry: bytes) -> bytes:
    """Hash of an entry as a leaf of the log."""
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of a node of the log."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of_tile(hashes: bytes) -> bytes:
    """Root over the 256 hashes of a full tile."""
    level = [hashes[at : at + 32] for at in range(0, len(hashes), 32)]
    while len(level) > 1:
        level = [node_hash(level[at], level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


class Log:
    """The log's tree, of which only the roots of whole subtrees are kept, largest first."""

    def __init__(self) -> None:
        self.size = 0
        self.peaks: list = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf at the right."""
        size, node = self.size, leaf
        while size & 1:
            node = node_hash(self.peaks.pop(), node)
            size >>= 1
        self.peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Root over all leaves so far."""
        if not self.peaks:
            return hashlib.sha256(b"").digest()
        root = self.peaks[-1]
        for peak in self.peaks[-2::-1]:
            root = node_hash(peak, root)
        return root


def state_key(contract: str, key: bytes) -> bytes:
    """Place of a contract's key in the state."""
    return hashlib.sha256(b"lichen state v1\x00" + contract.encode("ascii") + b"\x00" + key).digest()


def bit_of(key: bytes, bit: int) -> int:
    """One bit of a key; bit 0 is the most significant of the first byte."""
    return key[bit >> 3] >> (7 - (bit & 7)) & 1


class State:
    """The state: values by key, and the path-compressed tree over them.

    A leaf is 64 bytes, key and digest of the value; a node is a list of the bit at which its keys part, its two sides, and its
    hash or None when something below has changed. Contracts of version 1 remove nothing, so this tree only grows.
    """

    def __init__(self) -> None:
        self.values: dict = {}
        self.top: Any = None

    def get(self, contract: str, key: bytes) -> bytes | None:
        """Value of a contract's key, or None."""
        return self.values.get(state_key(contract, key))

    def put(self, contract: str, key: bytes, value: bytes) -> None:
        """Set the value of a contract's key."""
        place = state_key(contract, key)
        self.values[place] = value
        leaf = place + hashlib.sha256(value).digest()
        if self.top is None:
            self.top = leaf
            return
        node = self.top
        while isinstance(node, list):
            node = node[1 + bit_of(place, node[0])]
        difference = int.from_bytes(place, "big") ^ int.from_bytes(node[:32], "big")
        parting = 256 - difference.bit_length()
        above, side, node = None, 0, self.top
        while isinstance(node, list) and node[0] < parting:
            node[3] = None
            above, side = node, 1 + bit_of(place, node[0])
            node = node[side]
        placed: Any = leaf
        if parting < 256:
            sides = (node, leaf) if bit_of(place, parting) else (leaf, node)
            placed = [parting, sides[0], sides[1], None]
        if above is None:
            self.top = placed
        else:
            above[side] = placed

    def root(self) -> bytes:
        """Root over all keys and values."""
        return hashlib.sha256(b"").digest() if self.top is None else hash_below(self.top)


def hash_below(node: Any) -> bytes:
    """Hash of a leaf or node of the state; what did not change is not hashed again."""
    if not isinstance(node, list):
        return hashlib.sha256(b"\x02" + node).digest()
    if node[3] is None:
        node[3] = hashlib.sha256(
            b"\x03" + bytes([node[0]]) + hash_below(node[1]) + hash_below(node[2])
        ).digest()
    return node[3]
