"""The log's tree and proofs, against RFC 6962's recursive definition and its published test tree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lichen.errors import EncodingError, UsageError, VerificationError
from lichen.ledger.proof import consistency_proof, inclusion_proof, verify_consistency, verify_inclusion
from lichen.ledger.tree import (
    EMPTY_ROOT,
    TILE_HEIGHT,
    Frontier,
    leaf_hash,
    node_hash,
    perfect_root,
    root_of,
    split_point,
    subtree_reader,
)

# The eight inputs and roots of the Certificate Transparency reference tests.
INPUTS = [bytes.fromhex(text) for text in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
LEAVES = [leaf_hash(b"%d" % number) for number in range(700)]


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    middle = split_point(len(leaves))
    return node_hash(defined_root(leaves[:middle]), defined_root(leaves[middle:]))


def subtree_root(start: int, end: int) -> bytes:
    return defined_root(LEAVES[start:end])


@pytest.mark.parametrize("count", range(1, 9))
def test_the_published_roots(count: int) -> None:
    assert root_of(map(leaf_hash, INPUTS[:count])).hex() == ROOTS[count - 1]


def test_the_empty_root_is_the_hash_of_nothing() -> None:
    assert root_of([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_the_frontier_agrees_with_the_definition_at_every_size() -> None:
    frontier = Frontier()
    for size in range(260):
        assert frontier.root() == defined_root(LEAVES[:size])
        loaded = Frontier.load(size, subtree_root)
        assert (loaded.size, loaded.peaks) == (size, frontier.peaks)
        frontier.append(LEAVES[size])


def test_a_copy_of_a_frontier_grows_on_its_own() -> None:
    frontier = Frontier(1, [LEAVES[0]])
    frontier.copy().append(LEAVES[1])
    assert frontier.root() == LEAVES[0]


@pytest.mark.parametrize(
    ("size", "peaks"), [(0, [bytes(32)]), (3, [bytes(32)]), (1, [bytes(31)]), (-1, [bytes(32)])]
)
def test_a_frontier_of_the_wrong_shape_is_refused(size: int, peaks: list[bytes]) -> None:
    with pytest.raises(EncodingError):
        Frontier(size, peaks)


@pytest.mark.parametrize("data", [b"", bytes(31), bytes(96), bytes(33)])
def test_only_powers_of_two_make_a_perfect_root(data: bytes) -> None:
    with pytest.raises(EncodingError):
        perfect_root(data)


def tiles(size: int) -> Callable[[int, int, int], bytes]:
    levels = [LEAVES[:size]]
    while len(levels[-1]) >= 256:
        below = levels[-1]
        levels.append([defined_root(below[at : at + 256]) for at in range(0, len(below) - 255, 256)])

    def read(level: int, start: int, count: int) -> bytes:
        assert start // 256 == (start + count - 1) // 256, "a read crossed a tile"
        hashes = levels[level][start : start + count]
        assert len(hashes) == count, "a read went beyond what is stored"
        return b"".join(hashes)

    return read


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 300, 512, 513, 700])
def test_ranges_are_read_from_tiles(size: int) -> None:
    read = subtree_reader(tiles(size))
    assert read(0, size) == defined_root(LEAVES[:size])
    assert Frontier.load(size, read).root() == defined_root(LEAVES[:size])
    for index in {0, 1, size // 3, size - 1} & set(range(size)):
        verify_inclusion(
            index, size, LEAVES[index], inclusion_proof(index, size, read), defined_root(LEAVES[:size])
        )
    assert TILE_HEIGHT == 8


def test_every_inclusion_proof_up_to_70_leaves() -> None:
    for size in range(1, 71):
        root = subtree_root(0, size)
        for index in range(size):
            proof = inclusion_proof(index, size, subtree_root)
            verify_inclusion(index, size, LEAVES[index], proof, root)


def test_every_consistency_proof_up_to_40_leaves() -> None:
    for second in range(41):
        for first in range(second + 1):
            proof = consistency_proof(first, second, subtree_root)
            verify_consistency(first, second, subtree_root(0, first), subtree_root(0, second), proof)


def test_the_example_tree_of_rfc_6962() -> None:
    """Section 2.1.3: proofs in the tree of seven leaves, named there by letters."""
    abcdefgh = LEAVES[:7]
    a, b, c, d, e, f, j = abcdefgh
    g, h, i = node_hash(a, b), node_hash(c, d), node_hash(e, f)
    k = node_hash(g, h)
    assert inclusion_proof(0, 7, subtree_root) == [b, h, node_hash(i, j)]
    assert inclusion_proof(3, 7, subtree_root) == [c, g, node_hash(i, j)]
    assert inclusion_proof(4, 7, subtree_root) == [f, j, k]
    assert inclusion_proof(6, 7, subtree_root) == [i, k]
    assert consistency_proof(3, 7, subtree_root) == [c, d, g, node_hash(i, j)]
    assert consistency_proof(4, 7, subtree_root) == [node_hash(i, j)]
    assert consistency_proof(6, 7, subtree_root) == [i, j, k]


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 4), (7, 7)])
def test_no_proof_of_what_is_not_there(index: int, size: int) -> None:
    with pytest.raises(UsageError):
        inclusion_proof(index, size, subtree_root)


@pytest.mark.parametrize(("first", "second"), [(2, 1), (-1, 3)])
def test_no_proof_that_a_log_shrank(first: int, second: int) -> None:
    with pytest.raises(UsageError):
        consistency_proof(first, second, subtree_root)


ROOT7 = subtree_root(0, 7)
PROOF = inclusion_proof(4, 7, subtree_root)


@pytest.mark.parametrize(
    ("index", "size", "leaf", "proof", "root"),
    [
        (3, 7, LEAVES[4], PROOF, ROOT7),
        (4, 8, LEAVES[4], PROOF, subtree_root(0, 8)),
        (4, 6, LEAVES[4], PROOF, ROOT7),
        (4, 4, LEAVES[4], PROOF, ROOT7),
        (4, 0, LEAVES[4], PROOF, ROOT7),
        (4, 7, LEAVES[5], PROOF, ROOT7),
        (4, 7, LEAVES[4], PROOF[:-1], ROOT7),
        (4, 7, LEAVES[4], [*PROOF, ROOT7], ROOT7),
        (4, 7, LEAVES[4], [], ROOT7),
        (4, 7, LEAVES[4], PROOF[::-1], ROOT7),
        (4, 7, LEAVES[4], [*PROOF[:-1], b""], ROOT7),
        (4, 7, LEAVES[4], [*PROOF[:-1], None], ROOT7),
        (4, 7, LEAVES[4], PROOF, subtree_root(0, 6)),
        (4, 7, LEAVES[4][:31], PROOF, ROOT7),
        (4, 7, "leaf", PROOF, ROOT7),
        (4, 7, LEAVES[4], "proof", ROOT7),
        (4, 7, LEAVES[4], None, ROOT7),
        (-1, 7, LEAVES[4], PROOF, ROOT7),
        (4.0, 7, LEAVES[4], PROOF, ROOT7),
        (True, 7, LEAVES[1], PROOF, ROOT7),
        (4, 2**63, LEAVES[4], PROOF, ROOT7),
        (4, 7, LEAVES[4], [ROOT7] * 1000, ROOT7),
        (0, 1, LEAVES[0], [LEAVES[0]], LEAVES[0]),
    ],
)
def test_false_or_malformed_inclusion_is_refused(
    index: Any, size: Any, leaf: Any, proof: Any, root: Any
) -> None:
    with pytest.raises(VerificationError):
        verify_inclusion(index, size, leaf, proof, root)


ROOT3 = subtree_root(0, 3)
STEPS = consistency_proof(3, 7, subtree_root)


@pytest.mark.parametrize(
    ("first", "second", "root_first", "root_second", "proof"),
    [
        (3, 7, ROOT7, ROOT3, STEPS),
        (4, 7, ROOT3, ROOT7, STEPS),
        (3, 8, ROOT3, subtree_root(0, 8), STEPS),
        (7, 3, ROOT7, ROOT3, STEPS),
        (3, 7, ROOT3, ROOT7, STEPS[:-1]),
        (3, 7, ROOT3, ROOT7, [*STEPS, ROOT7]),
        (3, 7, ROOT3, ROOT7, []),
        (3, 7, ROOT3, ROOT7, [bytes(32), *STEPS[1:]]),
        (4, 7, subtree_root(0, 4), ROOT7, []),
        (7, 7, ROOT7, ROOT3, []),
        (7, 7, ROOT7, ROOT7, [ROOT7]),
        (0, 7, EMPTY_ROOT, ROOT7, [ROOT7]),
        (0, 7, ROOT3, ROOT7, []),
        (0, 0, EMPTY_ROOT, ROOT7, []),
        (-1, 7, ROOT3, ROOT7, STEPS),
        (3, 7, ROOT3, b"", STEPS),
        (3, 7, ROOT3, ROOT7, ["x"] * 4),
        (3, "7", ROOT3, ROOT7, STEPS),
    ],
)
def test_false_or_malformed_consistency_is_refused(
    first: Any, second: Any, root_first: Any, root_second: Any, proof: Any
) -> None:
    with pytest.raises(VerificationError):
        verify_consistency(first, second, root_first, root_second, proof)
