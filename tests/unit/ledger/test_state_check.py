"""The check of stored pieces: it passes what changes made, and names the first piece that nothing calls for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from lichen.errors import CorruptLedgerError
from lichen.ledger.state_bucket import Bucket
from lichen.ledger.state_check import Pieces, check_pieces
from lichen.ledger.state_map import EMPTY_STATE_ROOT, StateMap
from lichen.ledger.state_nodes import MemoryNodes
from lichen.ledger.state_tree import StateTree

VALUES = {hashlib.sha256(b"%d" % number).digest(): b"%d" % number for number in range(3_000)}


@pytest.fixture
def nodes() -> MemoryNodes:
    made = MemoryNodes()
    StateTree(made).apply(VALUES.items())
    return made


def test_an_empty_store_is_sound() -> None:
    assert check_pieces(MemoryNodes()) == Pieces(EMPTY_STATE_ROOT, 0, 0, 0)


def test_what_changes_made_is_sound(nodes: MemoryNodes) -> None:
    assert check_pieces(nodes) == Pieces(StateMap(VALUES).root(), 3_000, len(nodes.tiles), len(nodes.buckets))
    assert len(nodes.tiles) > 1


def first_bucket(nodes: MemoryNodes) -> tuple[int, list[tuple[bytes, bytes]]]:
    node = max(nodes.buckets)
    return node, list(Bucket.from_bytes(nodes.buckets[node]).items())


def replace_bucket(nodes: MemoryNodes, items: list[tuple[bytes, bytes]]) -> None:
    nodes.buckets[max(nodes.buckets)] = Bucket.from_items(items).to_bytes()


def change_a_value(nodes: MemoryNodes) -> None:
    _, items = first_bucket(nodes)
    replace_bucket(nodes, [(items[0][0], b"changed"), *items[1:]])


def drop_a_key(nodes: MemoryNodes) -> None:
    replace_bucket(nodes, first_bucket(nodes)[1][1:])


def misplace_a_key(nodes: MemoryNodes) -> None:
    replace_bucket(nodes, [(bytes(32), b"v"), *first_bucket(nodes)[1]])


def swap_two_keys(nodes: MemoryNodes) -> None:
    node = max(nodes.buckets, key=lambda node: len(nodes.buckets[node]))
    data = nodes.buckets[node]
    nodes.buckets[node] = data[:2] + data[34:66] + data[2:34] + data[66:]


def overfill(nodes: MemoryNodes) -> None:
    node, items = first_bucket(nodes)
    length = node.bit_length() - 1
    prefix = (node - (1 << length)) << (256 - length)
    extra = [((prefix + number).to_bytes(32, "big"), b"v") for number in range(64)]
    replace_bucket(nodes, sorted([*items, *extra]))


def flip_in_a_bucket(nodes: MemoryNodes) -> None:
    """Flip a bit of a node hash, which stands after the keys and the bits."""
    node = max(nodes.buckets)
    data = bytearray(nodes.buckets[node])
    count = data[1]
    data[2 + 33 * count] ^= 1
    nodes.buckets[node] = bytes(data)


def remove_a_bucket(nodes: MemoryNodes) -> None:
    del nodes.buckets[max(nodes.buckets)]


def remove_a_tile(nodes: MemoryNodes) -> None:
    del nodes.tiles[max(nodes.tiles)]


def flip_in_a_tile(nodes: MemoryNodes) -> None:
    data = bytearray(nodes.tiles[max(nodes.tiles)])
    data[100] ^= 1
    nodes.tiles[max(nodes.tiles)] = bytes(data)


def unknown_kind(nodes: MemoryNodes) -> None:
    data = bytearray(nodes.tiles[1])
    data[15] |= 3
    nodes.tiles[1] = bytes(data)


def uncalled_tile(nodes: MemoryNodes) -> None:
    """Keep the tiles of a map whose keys have all gone but a few."""
    few = dict(list(VALUES.items())[:70])
    nodes.tiles.clear()
    nodes.buckets.clear()
    tree = StateTree(nodes)
    tree.apply(few.items())
    tile = nodes.tiles[1]
    tree.apply((key, None) for key in list(few)[60:])
    nodes.tiles[1] = tile


@pytest.mark.parametrize(
    "spoil",
    [
        change_a_value,
        drop_a_key,
        misplace_a_key,
        swap_two_keys,
        overfill,
        flip_in_a_bucket,
        remove_a_bucket,
        remove_a_tile,
        flip_in_a_tile,
        unknown_kind,
        uncalled_tile,
    ],
)
def test_a_piece_that_nothing_calls_for_is_named(
    nodes: MemoryNodes, spoil: Callable[[MemoryNodes], None]
) -> None:
    spoil(nodes)
    with pytest.raises(CorruptLedgerError, match="stored state is damaged") as caught:
        check_pieces(nodes)
    assert "lichen verify" in caught.value.remedy
