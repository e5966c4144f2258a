"""The authenticated map: what the entries so far add up to, under one root.

The map is a path-compressed binary prefix tree over 32-byte keys. A node exists exactly where the stored keys first
disagree, so the tree, and with it the root, depends only on the keys and values and not on the order in which they
came. Both presence and absence can be proved: the lookup of an absent key ends at another key's leaf, or at nothing
when the map is empty.

::

    empty map           SHA-256("")
    leaf                SHA-256(0x02 | key, 32 | SHA-256(value), 32)
    node at bit b       SHA-256(0x03 | b, 1 byte | left, 32 | right, 32)      keys agree before bit b, differ at it

Bit 0 is the most significant bit of the first byte of the key. The prefixes differ from those of the log's tree, so
that no hash of one can stand in the other.

:class:`StateMap` is the definition; :mod:`lichen.ledger.state_store` does the same on disk and is tested against it.

Source: torchwood's Merkle Patricia tree (shape, absence by the leaf that the lookup reaches). Differs: fixed-length
keys; a leaf commits to the digest of its value, so a proof of absence does not carry another key's value; the bit
position is one byte; other prefixes.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from lichen.errors import EncodingError, VerificationError

__all__ = [
    "EMPTY_STATE_ROOT",
    "KEY_BITS",
    "VALUE_BYTES_MAX",
    "MapProof",
    "StateMap",
    "check_write",
    "state_inner_hash",
    "state_key",
    "state_leaf_hash",
    "verify_absence",
    "verify_membership",
]

KEY_BYTES = 32
KEY_BITS = 8 * KEY_BYTES  # (= 256)
VALUE_BYTES_MAX = 1024
EMPTY_STATE_ROOT = hashlib.sha256(b"").digest()
_STEP_BYTES = 33
_NO_OTHER, _OTHER = b"\x00", b"\x01"


@functools.lru_cache(maxsize=1_024)
def state_key(contract: str, key: bytes) -> bytes:
    """Name a contract's key in the map.

    Args:
        contract: Name of the contract; ASCII without zero characters.
        key: What the contract calls it; any bytes.

    Returns:
        SHA-256 of ``lichen state v1 | 0x00 | contract | 0x00 | key``, 32 bytes.

    Raises:
        EncodingError: The contract's name is empty or not plain ASCII.
    """
    if not contract or not contract.isascii() or "\0" in contract:
        raise EncodingError(f"not the name of a contract: {contract!r}")
    return hashlib.sha256(b"lichen state v1\0%s\0%s" % (contract.encode("ascii"), key)).digest()


def state_leaf_hash(key: bytes, value_digest: bytes) -> bytes:
    """Hash a leaf from its key and the SHA-256 of its value."""
    return hashlib.sha256(b"\x02" + key + value_digest).digest()


def state_inner_hash(bit: int, left: bytes, right: bytes) -> bytes:
    """Hash a node from the bit at which its two subtrees part, and their hashes."""
    return hashlib.sha256(b"\x03%c%s%s" % (bit, left, right)).digest()


def key_bit(key: bytes, bit: int) -> int:
    """Return one bit of a key; bit 0 is the most significant one of the first byte."""
    return key[bit >> 3] >> (7 - (bit & 7)) & 1


def first_difference(one: bytes, other: bytes) -> int:
    """Return the first bit at which two keys differ; 256 when they are equal."""
    return KEY_BITS - (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).bit_length()


def check_write(key: bytes, value: bytes | None) -> None:
    """Check that a key and value can stand in the map.

    Raises:
        EncodingError: The key is not 32 bytes, or the value is neither None nor 1 to 1,024 bytes.
    """
    if not isinstance(key, bytes) or len(key) != KEY_BYTES:
        raise EncodingError("a key of the state must be 32 bytes")
    if value is not None and (not isinstance(value, bytes) or not 1 <= len(value) <= VALUE_BYTES_MAX):
        raise EncodingError(f"a value of the state must be 1 to {VALUE_BYTES_MAX} bytes")


@dataclass(frozen=True, slots=True)
class MapProof:
    """The way from a leaf to the root.

    Attributes:
        steps: Bit and sibling hash of each node passed, from the leaf up; bits strictly fall.
        other: For an absent key in a map that is not empty: key and value digest of the leaf its lookup reaches.
    """

    steps: tuple[tuple[int, bytes], ...]
    other: tuple[bytes, bytes] | None = None

    def to_bytes(self) -> bytes:
        """Write the proof: a tag, the other leaf if there is one, then 33 bytes for each step."""
        head = _NO_OTHER if self.other is None else _OTHER + self.other[0] + self.other[1]
        return head + b"".join([b"%c%s" % step for step in self.steps])

    @classmethod
    def from_bytes(cls, data: bytes) -> MapProof:
        """Read a proof.

        Args:
            data: Bytes as :meth:`to_bytes` writes them.

        Returns:
            The proof; it has not been verified.

        Raises:
            EncodingError: Not the encoding of a proof.
        """
        tag, start = data[:1], 1
        other = None
        if tag == _OTHER:
            other, start = (bytes(data[1:33]), bytes(data[33:65])), 65
        elif tag != _NO_OTHER:
            raise EncodingError("a proof about the state starts with 0x00 or 0x01")
        count, rest = divmod(len(data) - start, _STEP_BYTES)
        if rest or not 0 <= count <= KEY_BITS:
            raise EncodingError(f"a proof about the state cannot be {len(data)} bytes long")
        ends = range(start, len(data), _STEP_BYTES)
        steps = tuple((data[at], bytes(data[at + 1 : at + _STEP_BYTES])) for at in ends)
        if any(above[0] >= below[0] for below, above in pairwise(steps)):
            raise EncodingError("the steps of a proof about the state must rise towards the root")
        return cls(steps, other)


def verify_membership(root: bytes, key: bytes, value: bytes, proof: MapProof) -> None:
    """Check that the map with this root holds this value at this key.

    Args:
        root: Root of the map, 32 bytes, trusted.
        key: The key, 32 bytes.
        value: The value, 1 to 1,024 bytes.
        proof: The way from the key's leaf to the root.

    Raises:
        VerificationError: It does not follow from the proof.
    """
    _check_shape(root, key, proof)
    if not isinstance(value, bytes) or not 1 <= len(value) <= VALUE_BYTES_MAX:
        raise VerificationError(f"a value of the state must be 1 to {VALUE_BYTES_MAX} bytes")
    if proof.other is not None:
        raise VerificationError("a proof of absence was given for a key that is said to be present")
    _check_path(root, key, state_leaf_hash(key, hashlib.sha256(value).digest()), proof)


def verify_absence(root: bytes, key: bytes, proof: MapProof) -> None:
    """Check that the map with this root does not hold this key.

    It shows what whoever made the root committed to. That the root itself follows from the entries is shown by
    replaying them.

    Args:
        root: Root of the map, 32 bytes, trusted.
        key: The key, 32 bytes.
        proof: The way from the leaf that the key's lookup reaches to the root; no steps and no leaf for an empty map.

    Raises:
        VerificationError: It does not follow from the proof.
    """
    _check_shape(root, key, proof)
    if proof.other is None:
        if proof.steps or root != EMPTY_STATE_ROOT:
            raise VerificationError("a proof of presence was given for a key that is said to be absent")
        return
    other_key, value_digest = proof.other
    if other_key == key:
        raise VerificationError("the key that is said to be absent is present")
    for bit, _ in proof.steps:
        if key_bit(other_key, bit) != key_bit(key, bit):
            raise VerificationError("the lookup of the absent key does not reach the leaf shown")
    _check_path(root, other_key, state_leaf_hash(other_key, value_digest), proof)


def _check_shape(root: bytes, key: bytes, proof: MapProof) -> None:
    """Refuse what is malformed before any hashing, whoever built it."""
    if not isinstance(proof, MapProof):
        raise VerificationError("not a proof about the state")
    hashes: list[object] = [root, key, *(proof.other or ())]
    above = KEY_BITS
    for bit, sibling in proof.steps:
        if type(bit) is not int or not 0 <= bit < above:
            raise VerificationError("the steps of a proof about the state must rise towards the root")
        above = bit
        hashes.append(sibling)
    if any(not isinstance(item, bytes) or len(item) != KEY_BYTES for item in hashes):
        raise VerificationError("root, keys and hashes of a proof about the state must be 32 bytes each")


def _check_path(root: bytes, key: bytes, leaf: bytes, proof: MapProof) -> None:
    calculated = leaf
    for bit, sibling in proof.steps:
        if key_bit(key, bit):
            calculated = state_inner_hash(bit, sibling, calculated)
        else:
            calculated = state_inner_hash(bit, calculated, sibling)
    if calculated != root:
        raise VerificationError(
            "the proof does not lead to the root of the state", expected=root, calculated=calculated
        )


class StateMap:
    """The map in memory, computed from its definition each time: for auditors, for tests, for small ledgers.

    Args:
        items: Keys and values to start with.

    Raises:
        EncodingError: A key is not 32 bytes, or a value is not 1 to 1,024 bytes.
    """

    def __init__(self, items: Mapping[bytes, bytes] | None = None) -> None:
        self._values: dict[bytes, bytes] = {}
        self.update(items or {})

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[bytes]:
        return iter(sorted(self._values))

    def get(self, key: bytes) -> bytes | None:
        """Return the value at a key, or None."""
        return self._values.get(key)

    def update(self, writes: Mapping[bytes, bytes | None]) -> None:
        """Set some keys, and remove those whose value is None.

        Raises:
            EncodingError: A key or value cannot stand in the map; nothing has been changed then.
        """
        for key, value in writes.items():
            check_write(key, value)
        for key, value in writes.items():
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value

    def root(self) -> bytes:
        """Compute the root, in time proportional to the number of keys."""
        return self._subtree(sorted(self._values))

    def prove(self, key: bytes) -> MapProof:
        """Prove what :meth:`get` says about a key, in time proportional to the number of keys."""
        check_write(key, None)
        keys: Sequence[bytes] = sorted(self._values)
        if not keys:
            return MapProof(())
        steps: list[tuple[int, bytes]] = []
        while len(keys) > 1:
            bit, left, right = _parted(keys)
            near, far = (right, left) if key_bit(key, bit) else (left, right)
            steps.append((bit, self._subtree(far)))
            keys = near
        reached = keys[0]
        other = None if reached == key else (reached, hashlib.sha256(self._values[reached]).digest())
        return MapProof(tuple(reversed(steps)), other)

    def _subtree(self, keys: Sequence[bytes]) -> bytes:
        if not keys:
            return EMPTY_STATE_ROOT
        if len(keys) == 1:
            return state_leaf_hash(keys[0], hashlib.sha256(self._values[keys[0]]).digest())
        bit, left, right = _parted(keys)
        return state_inner_hash(bit, self._subtree(left), self._subtree(right))


def _parted(keys: Sequence[bytes]) -> tuple[int, Sequence[bytes], Sequence[bytes]]:
    """Part sorted keys at the first bit where any two of them differ."""
    bit = first_difference(keys[0], keys[-1])
    middle = next(at for at, key in enumerate(keys) if key_bit(key, bit))
    return bit, keys[:middle], keys[middle:]
