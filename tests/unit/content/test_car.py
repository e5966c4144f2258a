"""Artefacts in transit: what comes in is what went out, and nothing else gets in."""

from __future__ import annotations

import hashlib
import io

import pytest

from lichen.content.car import (
    BLOCK_SIZE_MAX,
    HEADER_END,
    HEADER_START,
    export_artefact,
    import_artefact,
    read_car,
    write_car,
)
from lichen.content.cid import DAG_PB, RAW, Cid
from lichen.content.dag_pb import Link, decode_file_node, decode_varint, encode_node, encode_varint, file_data
from lichen.content.memory_store import MemoryStore
from lichen.content.unixfs import CHUNK_SIZE, hash_bytes
from lichen.errors import EncodingError, NotFoundError, UsageError, VerificationError


def content(size):
    return b"".join(number.to_bytes(8, "big") * 32 for number in range(-(-size // 256)))[:size]


def block(data, codec=RAW):
    return Cid(codec, hashlib.sha256(data).digest()), data


def exported(data):
    store = MemoryStore()
    stream = io.BytesIO()
    size = export_artefact(store, store.put_bytes(data).cid, stream)
    assert size == len(stream.getvalue())
    return stream.getvalue()


def imported(car, **options):
    store = MemoryStore()
    try:
        return import_artefact(store, io.BytesIO(car), **options)
    finally:
        assert store.usage().artefact_count <= 1


def car_of(root, blocks):
    stream = io.BytesIO()
    write_car(stream, root, blocks)
    return stream.getvalue()


def blocks_of(car):
    root, blocks = read_car(io.BytesIO(car))
    return root, list(blocks)


SIZES = [0, 1, CHUNK_SIZE, CHUNK_SIZE + 1, 175 * CHUNK_SIZE + 5]


class TestRoundTrip:
    @pytest.mark.parametrize("size", SIZES)
    def test_what_goes_out_comes_in(self, size):
        data = content(size)
        names = hash_bytes(data)
        store = MemoryStore()
        assert import_artefact(store, io.BytesIO(exported(data)), expected=names.cid) == names
        assert store.read_bytes(names.cid) == data

    def test_the_root_comes_first_and_every_node_before_its_children(self):
        root, blocks = blocks_of(exported(content(175 * CHUNK_SIZE + 5)))
        assert blocks[0][0] == root
        seen = {root}
        for cid, data in blocks:
            assert cid in seen
            if cid.codec == DAG_PB:
                seen.update(decode_file_node(data).children)
        assert [cid.codec for cid, _ in blocks[:3]] == [DAG_PB, DAG_PB, RAW]
        assert len(blocks) == 1 + 2 + 176

    def test_a_block_travels_once(self):
        data = bytes(10 * CHUNK_SIZE)
        car = exported(data)
        assert len(car) < CHUNK_SIZE + 2000
        assert imported(car) == hash_bytes(data)

    def test_order_does_not_matter(self):
        root, blocks = blocks_of(exported(content(175 * CHUNK_SIZE + 5)))
        assert imported(car_of(root, blocks[::-1])) == hash_bytes(content(175 * CHUNK_SIZE + 5))

    def test_blocks_of_others_are_passed_over(self):
        root, blocks = blocks_of(exported(content(CHUNK_SIZE + 1)))
        car = car_of(root, [block(b"stray"), *blocks, block(encode_node((), b"\x08\x01"), DAG_PB)])
        assert imported(car) == hash_bytes(content(CHUNK_SIZE + 1))

    def test_an_empty_file_is_one_empty_block(self):
        cid = hash_bytes(b"").cid
        assert (
            exported(b"")
            == bytes([58]) + HEADER_START + cid.to_bytes() + HEADER_END + bytes([36]) + cid.to_bytes()
        )

    def test_an_absent_artefact_is_not_exported(self):
        stream = io.BytesIO()
        with pytest.raises(NotFoundError):
            export_artefact(MemoryStore(), hash_bytes(b"absent").cid, stream)
        assert stream.getvalue() == b""


DATA = content(2 * CHUNK_SIZE + 5)
CAR = exported(DATA)
ROOT, BLOCKS = blocks_of(CAR)
HEADER_SIZE = 1 + 58


class TestRefusal:
    @pytest.mark.parametrize("end", [0, 1, 30, HEADER_SIZE - 1])
    def test_a_file_that_ends_in_its_header(self, end):
        with pytest.raises(EncodingError):
            imported(CAR[:end])

    @pytest.mark.parametrize("end", [HEADER_SIZE + 1, HEADER_SIZE + 10, len(CAR) - 1])
    def test_a_file_that_ends_in_a_block(self, end):
        with pytest.raises(EncodingError, match="the CAR file ends within"):
            imported(CAR[:end])

    @pytest.mark.parametrize("index", range(len(BLOCKS)))
    def test_a_missing_block_is_named(self, index):
        with pytest.raises(UsageError, match=f"lacks the block {BLOCKS[index][0]}"):
            imported(car_of(ROOT, BLOCKS[:index] + BLOCKS[index + 1 :]))

    @pytest.mark.parametrize("index", range(len(BLOCKS)))
    def test_a_block_with_a_flipped_bit_is_named(self, index):
        cid, data = BLOCKS[index]
        flipped = bytes([data[0] ^ 1]) + data[1:]
        with pytest.raises(VerificationError, match=str(cid)) as caught:
            imported(car_of(ROOT, [*BLOCKS[:index], (cid, flipped), *BLOCKS[index + 1 :]]))
        assert caught.value.calculated == str(Cid(cid.codec, hashlib.sha256(flipped).digest()))

    def test_another_root_than_expected(self):
        with pytest.raises(VerificationError, match="is about"):
            imported(CAR, expected=hash_bytes(b"other").cid)

    @pytest.mark.parametrize(
        ("header", "says"),
        [
            pytest.param(b"", "claims|not a CAR", id="empty"),
            pytest.param(HEADER_START + ROOT.to_bytes() + b"\x67version\x02", "not a CAR", id="version-2"),
            pytest.param(b"\xa2\x65roots\x80\x67version\x01", "not a CAR", id="no-root"),
            pytest.param(b"\xa2\x65roots\x82" + HEADER_END, "not a CAR", id="two-roots"),
            pytest.param(HEADER_START + bytes(36) + HEADER_END, "version 0", id="not-a-cid"),
            pytest.param(bytes(58), "not a CAR", id="zeros"),
            pytest.param(bytes(70), "claims 70 bytes", id="too-long"),
        ],
    )
    def test_another_header(self, header, says):
        car = encode_varint(len(header)) + header + CAR[HEADER_SIZE:]
        with pytest.raises(EncodingError, match=says):
            imported(car)

    @pytest.mark.parametrize(
        "size",
        [
            b"\xff" * 9,
            b"\xff" * 20,
            encode_varint(2**62),
            encode_varint(BLOCK_SIZE_MAX + 37),
            b"\x80\x00",
            b"\x05",
        ],
    )
    def test_a_block_of_an_impossible_size(self, size):
        with pytest.raises(EncodingError):
            imported(CAR[:HEADER_SIZE] + size + bytes(100))

    def test_a_file_cut_into_other_chunks(self):
        leaves = [block(b"a" * 100), block(b"b" * 50)]
        links = [Link(cid.to_bytes(), len(data), len(data)) for cid, data in leaves]
        root = block(encode_node(links, file_data([100, 50])), DAG_PB)
        with pytest.raises(VerificationError, match="is not") as caught:
            imported(car_of(root[0], [root, *leaves]))
        assert caught.value.calculated == str(hash_bytes(b"a" * 100 + b"b" * 50).cid)

    def test_a_directory(self):
        root = block(encode_node((), b"\x08\x01"), DAG_PB)
        with pytest.raises(EncodingError, match="not a file"):
            imported(car_of(root[0], [root]))

    def test_more_than_is_accepted(self):
        with pytest.raises(UsageError, match=f"has {len(DATA)} bytes, at most 1000"):
            imported(CAR, size_bytes_max=1000)

    def test_a_small_file_that_spells_out_a_huge_one(self):
        data = bytes(CHUNK_SIZE)
        blocks = [block(data)]
        link = Link(blocks[0][0].to_bytes(), CHUNK_SIZE, CHUNK_SIZE)
        for _ in range(6):
            node = block(encode_node([link] * 174, file_data([link.content_size] * 174)), DAG_PB)
            blocks.append(node)
            link = Link(node[0].to_bytes(), link.content_size * 174, 0)
        car = car_of(blocks[-1][0], blocks)
        assert len(car) < 400_000
        with pytest.raises(UsageError, match="are accepted"):
            imported(car)

    def test_a_tree_of_nothing(self):
        """Nodes that claim no content would be walked for ever without giving a byte."""
        blocks = [block(b"")]
        for _ in range(12):
            cid = blocks[-1][0]
            blocks.append(
                block(encode_node([Link(cid.to_bytes(), 0, 0)] * 174, file_data([0] * 174)), DAG_PB)
            )
        with pytest.raises(EncodingError, match="does not fit"):
            imported(car_of(blocks[-1][0], blocks))

    def test_a_node_that_lies_about_its_child(self):
        leaf = block(b"x" * 10)
        inner = block(encode_node([Link(leaf[0].to_bytes(), 9, 9)], file_data([9])), DAG_PB)
        outer = block(encode_node([Link(inner[0].to_bytes(), 8, 8)], file_data([8])), DAG_PB)
        for root, says in ((inner, "has 10 bytes, its node says 9"), (outer, "does not fit")):
            with pytest.raises(EncodingError, match=says):
                imported(car_of(root[0], [leaf, inner, outer]))

    def test_a_tree_deeper_than_any_file(self):
        blocks = [block(b"x")]
        for _ in range(40):
            blocks.append(block(encode_node([Link(blocks[-1][0].to_bytes(), 1, 1)], file_data([1])), DAG_PB))
        with pytest.raises(EncodingError, match="does not fit"):
            imported(car_of(blocks[-1][0], blocks))


NODE = BLOCKS[0][1]


class TestNodes:
    def test_a_node_says_what_it_joins(self):
        node = decode_file_node(NODE)
        assert node.children == tuple(cid for cid, _ in BLOCKS[1:])
        assert node.child_sizes == (CHUNK_SIZE, CHUNK_SIZE, 5)
        assert node.content_size == len(DATA)

    @pytest.mark.parametrize(
        "data",
        [
            pytest.param(b"", id="empty"),
            pytest.param(NODE[:-1], id="cut-short"),
            pytest.param(NODE + b"\x00", id="trailing-byte"),
            pytest.param(NODE + NODE, id="twice"),
            pytest.param(
                NODE[NODE.index(b"\x0a\x10\x08") :] + NODE[: NODE.index(b"\x0a\x10\x08")], id="data-first"
            ),
            pytest.param(b"\x0a\x02\x08\x02", id="no-size"),
            pytest.param(b"\x0a\x04\x08\x02\x18\x05", id="size-without-children"),
            pytest.param(b"\x12\x00\x0a\x02\x08\x02", id="an-empty-link"),
            pytest.param(b"\x12\xff\xff\x7f", id="a-link-beyond-the-end"),
            pytest.param(b"\x08\x02", id="another-field"),
            pytest.param(encode_node((), b"\x08\x05\x12\x00\x28\x22\x30\x80\x02"), id="a-shard"),
        ],
    )
    def test_other_bytes_are_not_a_node(self, data):
        with pytest.raises(EncodingError):
            decode_file_node(data)

    @pytest.mark.parametrize("position", range(len(NODE)))
    def test_a_flipped_bit_is_another_node_or_none(self, position):
        flipped = bytearray(NODE)
        flipped[position] ^= 1
        try:
            node = decode_file_node(bytes(flipped))
        except EncodingError:
            return
        assert len(node.children) == len(node.child_sizes) == 3

    @pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**63 - 1])
    def test_integers_have_one_form(self, value):
        encoded = encode_varint(value)
        assert decode_varint(b"x" + encoded, 1) == (value, 1 + len(encoded))
        with pytest.raises(EncodingError):
            decode_varint(encoded[:-1] + bytes([encoded[-1] | 0x80, 0]), 0)
