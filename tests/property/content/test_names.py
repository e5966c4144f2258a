"""Laws of names: of CIDs, of files and of directories."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content.car import import_artefact, read_car
from lichen.content.cid import DAG_PB, RAW, Cid
from lichen.content.dag_pb import Link, decode_file_node, encode_node, encode_varint, file_data
from lichen.content.directory import build_directory
from lichen.content.hamt import build_shards
from lichen.content.memory_store import MemoryStore
from lichen.content.unixfs import BlockLayout, hash_bytes, hash_stream, layout_of_stream
from lichen.errors import EncodingError, LichenError

CIDS = st.builds(Cid, st.sampled_from([RAW, DAG_PB]), st.binary(min_size=32, max_size=32))


class TestCids:
    """A CID has one text and one binary form, and nothing else reads as one."""

    @given(CIDS)
    def test_both_forms_lead_back(self, cid):
        assert Cid.parse(str(cid)) == cid
        assert Cid.from_bytes(cid.to_bytes()) == cid
        assert len(str(cid)) == 59

    @given(st.text())
    def test_any_text_is_a_cid_or_an_encoding_error(self, text):
        try:
            assert str(Cid.parse(text)) == text
        except EncodingError:
            return

    @given(CIDS, st.integers(0, 58), st.characters())
    def test_a_changed_character_is_another_cid_or_an_encoding_error(self, cid, position, character):
        text = str(cid)[:position] + character + str(cid)[position + 1 :]
        try:
            assert (Cid.parse(text) == cid) == (text == str(cid))
        except EncodingError:
            assert text != str(cid)

    @given(st.binary(max_size=60))
    def test_any_bytes_are_a_cid_or_an_encoding_error(self, data):
        try:
            assert Cid.from_bytes(data).to_bytes() == data
        except EncodingError:
            return


def clear_tree(chunks, width):
    """The balanced layout as its specification says it: join neighbours, level by level, until one is left."""
    level = [
        Link(Cid(RAW, hashlib.sha256(chunk).digest()).to_bytes(), len(chunk), len(chunk)) for chunk in chunks
    ]
    while len(level) > 1:
        above = []
        while level:
            children, level = level[:width], level[width:]
            node = encode_node(children, file_data([child.content_size for child in children]))
            above.append(
                Link(
                    Cid(DAG_PB, hashlib.sha256(node).digest()).to_bytes(),
                    sum(child.content_size for child in children),
                    len(node) + sum(child.total_size for child in children),
                )
            )
        level = above
    return level[0]


class TestFiles:
    """A file's name depends on its bytes alone, and is the root of the balanced tree over its chunks."""

    @given(st.integers(0, 600), st.integers(1, 9), st.integers(2, 5), st.randoms(use_true_random=False))
    def test_the_layout_is_the_clear_one(self, size, chunk_size, width, randomness):
        data = randomness.randbytes(size)
        chunks = [data[start : start + chunk_size] for start in range(0, size, chunk_size)] or [b""]
        layout = BlockLayout(
            b"".join(hashlib.sha256(chunk).digest() for chunk in chunks), size, chunk_size, width
        )
        assert layout.root() == clear_tree(chunks, width)
        assert layout.cid().to_bytes() == layout.root().cid
        order = list(layout.order())
        assert b"".join(data[at : at + count] for _, node, at, count in order if node is None) == data
        assert {cid for cid, _, _, _ in order} >= {
            layout.leaf(index)[0] for index in range(layout.leaf_count)
        }
        for cid, node, _, count in order:
            if node is not None:
                assert cid.digest == hashlib.sha256(node).digest()
                assert decode_file_node(node).content_size == count

    @given(st.integers(0, 6_000_000), st.lists(st.integers(1, 3_000_000), max_size=8), st.integers(0, 2**32))
    def test_however_the_bytes_arrive(self, size, cuts, seed):
        data = random.Random(seed).randbytes(size)
        position = 0
        sizes = list(cuts)

        def fill(view):
            """Fill the buffer in uneven pieces, as a socket would, but whole."""
            nonlocal position
            filled = 0
            while filled < len(view) and position < size:
                step = min(sizes.pop() if sizes else size, len(view) - filled, size - position)
                view[filled : filled + step] = data[position : position + step]
                position += step
                filled += step
            return filled

        copy = bytearray()
        assert hash_stream(fill, [copy.extend]) == hash_bytes(data)
        assert copy == data
        position = 0
        assert layout_of_stream(fill).cid() == hash_bytes(data).cid


NAMES = st.lists(st.binary(min_size=1, max_size=12), unique=True, max_size=60)


class TestDirectories:
    """A directory's name depends on the names and contents in it, and on no order."""

    @given(NAMES, st.randoms(use_true_random=False), st.sampled_from([build_directory, build_shards]))
    def test_order_does_not_matter(self, names, randomness, build):
        links = [Link(hash_bytes(name).cid.to_bytes(), len(name), len(name), name) for name in names]
        before = build(links)
        randomness.shuffle(links)
        assert build(links) == before
        root, blocks = before
        assert root.cid[4:] == hashlib.sha256(blocks[-1]).digest()
        assert root.content_size == sum(map(len, names))
        assert root.total_size == sum(map(len, blocks)) + root.content_size

    @given(NAMES.filter(bool), st.data())
    def test_any_difference_matters(self, names, data):
        links = [Link(hash_bytes(name).cid.to_bytes(), len(name), len(name), name) for name in names]
        position = data.draw(st.integers(0, len(links) - 1))
        other = list(links)
        other[position] = links[position]._replace(cid=hash_bytes(b"another content").cid.to_bytes())
        assert build_directory(other)[0].cid != build_directory(links)[0].cid
        assert (
            build_directory(links[:position] + links[position + 1 :])[0].cid != build_directory(links)[0].cid
        )


class TestDecoders:
    """Whatever bytes come in: they are what they claim, or a Lichen error says why not."""

    @given(st.binary(max_size=300))
    def test_nodes(self, data):
        try:
            node = decode_file_node(data)
        except EncodingError:
            return
        assert len(node.children) == len(node.child_sizes)

    @given(st.binary(max_size=300), st.booleans())
    def test_car_files(self, data, has_header):
        car = data
        if has_header:
            stream = MemoryStore().put_bytes(b"x").cid.to_bytes()
            header = b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00" + stream + b"\x67version\x01"
            car = encode_varint(len(header)) + header + data
        store = MemoryStore()
        with pytest.raises(LichenError):
            import_artefact(store, _reader(car))
        assert list(store.list()) == []
        with pytest.raises((LichenError, StopIteration)):
            root, blocks = read_car(_reader(car))
            assert isinstance(root, Cid)
            while True:
                cid, block = next(blocks)
                assert hashlib.sha256(block).digest() == cid.digest


def _reader(data):
    import io

    return io.BytesIO(data)
