"""Proofs about the log: an entry is in it, and a later log extends an earlier one.

Rules upheld: a proof has exactly one valid length for its sizes; anything malformed, of whatever type, is refused with
:class:`lichen.errors.VerificationError` and nothing else. The names of the two ``verify`` functions and the order of
their arguments do not change: others' test suites call them.

Source: RFC 9162, sections 2.1.3 (inclusion) and 2.1.4 (consistency). Differs: a consistency proof from the empty tree
is defined, as the empty list against the root of nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from lichen.errors import UsageError, VerificationError
from lichen.ledger.tree import EMPTY_ROOT, HASH_BYTES, SubtreeReader, node_hash, split_point

__all__ = ["consistency_proof", "inclusion_proof", "verify_consistency", "verify_inclusion"]

TREE_SIZE_MAX = 2**63 - 1


def inclusion_proof(leaf_index: int, tree_size: int, subtree_root: SubtreeReader) -> list[bytes]:
    """Prove that a leaf stands at an index of a tree.

    Args:
        leaf_index: Which leaf, from 0.
        tree_size: How many leaves the tree has.
        subtree_root: Reads roots of ranges of leaves.

    Returns:
        Sibling hashes from the leaf's up to the root's child.

    Raises:
        UsageError: There is no such leaf.

    Source:
        RFC 9162, section 2.1.3.1 (PATH).
    """
    if not 0 <= leaf_index < tree_size:
        raise UsageError(f"a log of {tree_size} entries has no index {leaf_index}")
    path: list[bytes] = []
    start, end = 0, tree_size
    while end - start > 1:
        middle = start + split_point(end - start)
        if leaf_index < middle:
            path.append(subtree_root(middle, end))
            end = middle
        else:
            path.append(subtree_root(start, middle))
            start = middle
    path.reverse()
    return path


def consistency_proof(size_first: int, size_second: int, subtree_root: SubtreeReader) -> list[bytes]:
    """Prove that the tree of the first size is the beginning of the tree of the second.

    Args:
        size_first: Leaves of the earlier tree.
        size_second: Leaves of the later tree.
        subtree_root: Reads roots of ranges of leaves.

    Returns:
        The hashes :func:`verify_consistency` needs; none when the sizes are equal or the first is 0.

    Raises:
        UsageError: The first size is negative or larger than the second.

    Source:
        RFC 9162, section 2.1.4.1 (SUBPROOF).
    """
    if not 0 <= size_first <= size_second:
        raise UsageError(f"a log of {size_second} entries never had {size_first}")
    if size_first in (0, size_second):
        return []
    path: list[bytes] = []
    start, end = 0, size_second
    while end != size_first:
        middle = start + split_point(end - start)
        if size_first <= middle:
            path.append(subtree_root(middle, end))
            end = middle
        else:
            path.append(subtree_root(start, middle))
            start = middle
    if start > 0:  # otherwise the rest is the whole earlier tree, whose root the verifier has
        path.append(subtree_root(start, end))
    path.reverse()
    return path


def verify_inclusion(
    leaf_index: int, tree_size: int, leaf_hash: bytes, proof: Sequence[bytes], root_hash: bytes
) -> None:
    """Check that a leaf stands at an index of the tree with a given root.

    Args:
        leaf_index: Which leaf, from 0.
        tree_size: How many leaves the tree has.
        leaf_hash: Hash of the leaf, 32 bytes.
        proof: Sibling hashes from the leaf's up to the root's child.
        root_hash: Root of the tree, 32 bytes, trusted.

    Raises:
        VerificationError: It does not follow from the proof.

    Source:
        RFC 9162, section 2.1.3.2.
    """
    _check_sizes(leaf_index, tree_size)
    hashes = _checked_hashes(proof, leaf_hash, root_hash)
    if leaf_index >= tree_size:
        raise VerificationError(f"a log of {tree_size} entries has no index {leaf_index}")
    index, last = leaf_index, tree_size - 1
    root = leaf_hash
    for sibling in hashes:
        if last == 0:
            raise VerificationError("the inclusion proof is too long")
        if index & 1 or index == last:
            root = node_hash(sibling, root)
            while not index & 1 and index != 0:
                index >>= 1
                last >>= 1
        else:
            root = node_hash(root, sibling)
        index >>= 1
        last >>= 1
    if last != 0:
        raise VerificationError("the inclusion proof is too short")
    _check_equal(
        root, root_hash, f"entry {leaf_index} is not in the log of {tree_size} entries with this root"
    )


def verify_consistency(
    size_first: int, size_second: int, root_first: bytes, root_second: bytes, proof: Sequence[bytes]
) -> None:
    """Check that one tree is the beginning of another.

    Args:
        size_first: Leaves of the earlier tree.
        size_second: Leaves of the later tree.
        root_first: Root of the earlier tree, 32 bytes.
        root_second: Root of the later tree, 32 bytes.
        proof: Hashes as :func:`consistency_proof` gives them.

    Raises:
        VerificationError: It does not follow from the proof.

    Source:
        RFC 9162, section 2.1.4.2.
    """
    _check_sizes(size_first, size_second)
    hashes = _checked_hashes(proof, root_first, root_second)
    if size_first > size_second:
        raise VerificationError(f"a log of {size_second} entries never had {size_first}")
    if size_first in (0, size_second):
        if hashes:
            raise VerificationError("the consistency proof is too long")
        _check_equal(root_first, EMPTY_ROOT if size_first == 0 else root_second, "the logs differ")
        if size_second == 0:
            _check_equal(root_second, EMPTY_ROOT, "the root of an empty log is wrong")
        return
    if size_first & (size_first - 1) == 0:
        hashes.insert(0, root_first)
    if not hashes:
        raise VerificationError("the consistency proof is too short")
    index, last = size_first - 1, size_second - 1
    while index & 1:
        index >>= 1
        last >>= 1
    first = second = hashes[0]
    for sibling in hashes[1:]:
        if last == 0:
            raise VerificationError("the consistency proof is too long")
        if index & 1 or index == last:
            first = node_hash(sibling, first)
            second = node_hash(sibling, second)
            while not index & 1 and index != 0:
                index >>= 1
                last >>= 1
        else:
            second = node_hash(second, sibling)
        index >>= 1
        last >>= 1
    if last != 0:
        raise VerificationError("the consistency proof is too short")
    _check_equal(
        first, root_first, f"the proof does not start from the log of {size_first} entries with this root"
    )
    _check_equal(
        second, root_second, f"the proof does not end at the log of {size_second} entries with this root"
    )


def _check_sizes(*numbers: object) -> None:
    for number in numbers:
        if type(number) is not int or not 0 <= number <= TREE_SIZE_MAX:
            raise VerificationError(f"not an index or size of a log: {str(number)[:80]}")


def _checked_hashes(proof: Sequence[bytes], *roots: bytes) -> list[bytes]:
    """Return the proof as a list, after checking that it and the roots are 32-byte hashes."""
    if not isinstance(proof, (list, tuple)) or len(proof) > 2 * 64:
        raise VerificationError("a proof is a list of at most 128 hashes")
    for item in (*proof, *roots):
        if not isinstance(item, bytes) or len(item) != HASH_BYTES:
            raise VerificationError("the hashes of a proof must be 32 bytes each")
    return list(proof)


def _check_equal(calculated: bytes, expected: bytes, message: str) -> None:
    if calculated != expected:
        raise VerificationError(message, expected=expected, calculated=calculated)
