"""The node format that joins raw blocks into files and directories: dag-pb carrying UnixFS.

A node is one protobuf message with links first and data last, which is the one order the format allows; other bytes
that a lenient reader would take for the same node are refused, so that a node has one encoding and one name.

Source:
    https://ipld.io/specs/codecs/dag-pb/spec/ and https://specs.ipfs.tech/unixfs/. Differs: no mode, no mtime.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lichen.content.cid import DAG_PB, RAW, SHA256_PREFIX, Cid
from lichen.errors import EncodingError

__all__ = [
    "FileNode",
    "Link",
    "decode_file_node",
    "decode_varint",
    "directory_data",
    "encode_node",
    "encode_varint",
    "file_data",
    "link_to",
    "shard_data",
    "symlink_data",
]

RAW_CID_PREFIX = bytes([1, RAW]) + SHA256_PREFIX
NODE_CID_PREFIX = bytes([1, DAG_PB]) + SHA256_PREFIX

TYPE_DIRECTORY = 1
TYPE_FILE = 2
TYPE_SYMLINK = 4
TYPE_SHARD = 5
MURMUR3 = 0x22  # multihash code of the function that places names in shards


class Link(NamedTuple):
    """A node's pointer to another raw block.

    Args:
        cid: Binary CID of the block, 36 bytes.
        content_size: Bytes of file content below the link.
        total_size: Bytes of all raw blocks below the link, nodes included (dag-pb's ``Tsize``).
        name: File name in a directory; empty inside a file.
    """

    cid: bytes
    content_size: int
    total_size: int
    name: bytes = b""


class FileNode(NamedTuple):
    """A node of a file of several chunks.

    Args:
        children: The raw blocks it joins, in the order of their content.
        child_sizes: Bytes of content below each.
    """

    children: tuple[Cid, ...]
    child_sizes: tuple[int, ...]

    @property
    def content_size(self) -> int:
        """Bytes of content below the node."""
        return sum(self.child_sizes)


def encode_varint(value: int) -> bytes:
    """Encode a non-negative integer, seven bits per byte, least significant first."""
    if value < 0x80:
        return bytes([value])
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def encode_node(links: Iterable[Link], data: bytes) -> bytes:
    """Encode one node.

    Args:
        links: In the order they are to be written.
        data: The UnixFS message.
    """
    parts: list[bytes] = []
    for link in links:
        body = b"".join((
            b"\x0a", encode_varint(len(link.cid)), link.cid,
            b"\x12", encode_varint(len(link.name)), link.name,
            b"\x18", encode_varint(link.total_size),
        ))  # fmt: skip
        parts += (b"\x12", encode_varint(len(body)), body)
    parts += (b"\x0a", encode_varint(len(data)), data)
    return b"".join(parts)


def file_data(child_sizes: Iterable[int]) -> bytes:
    """UnixFS message of a file node whose children hold these many bytes each."""
    sizes = list(child_sizes)
    parts = [bytes([0x08, TYPE_FILE, 0x18]), encode_varint(sum(sizes))]
    for size in sizes:
        parts += (b"\x20", encode_varint(size))
    return b"".join(parts)


def directory_data() -> bytes:
    """UnixFS message of a plain directory."""
    return bytes([0x08, TYPE_DIRECTORY])


def symlink_data(target: bytes) -> bytes:
    """UnixFS message of a symbolic link to ``target``."""
    return bytes([0x08, TYPE_SYMLINK, 0x12]) + encode_varint(len(target)) + target


def shard_data(bitfield: bytes, fanout: int) -> bytes:
    """UnixFS message of one shard of a large directory.

    Args:
        bitfield: Which slots are taken, one bit each, the last slot's first, without leading zero bytes.
        fanout: How many slots there are.
    """
    return b"".join((
        bytes([0x08, TYPE_SHARD, 0x12]), encode_varint(len(bitfield)), bitfield,
        b"\x28", encode_varint(MURMUR3),
        b"\x30", encode_varint(fanout),
    ))  # fmt: skip


def link_to(block: bytes, children: Sequence[Link], name: bytes = b"") -> Link:
    """Make the link to a node from its encoding and the links in it."""
    return Link(
        NODE_CID_PREFIX + hashlib.sha256(block).digest(),
        sum(child.content_size for child in children),
        len(block) + sum(child.total_size for child in children),
        name,
    )


def decode_varint(data: bytes, position: int) -> tuple[int, int]:
    """Read a varint.

    Returns:
        The value and the position after it.

    Raises:
        EncodingError: Cut short, above 63 bits, or not in its shortest form.
    """
    value = shift = 0
    for index in range(position, min(position + 9, len(data))):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and index > position:
                raise EncodingError("a varint is not in its shortest form")
            return value, index + 1
        shift += 7
    raise EncodingError("a varint is cut short or longer than nine bytes")


def decode_file_node(block: bytes) -> FileNode:
    """Read a node of a file of several chunks.

    Args:
        block: The node's raw block.

    Raises:
        EncodingError: Not such a node, or not the one way to write it.
    """
    position = 0
    cids: list[Cid] = []
    total_sizes: list[int] = []
    while position < len(block) and block[position] == 0x12:
        size, start = decode_varint(block, position + 1)
        position = start + size
        cid, total_size = _decode_nameless_link(block[start:position])
        cids.append(cid)
        total_sizes.append(total_size)
    if position >= len(block) or block[position] != 0x0A:
        raise EncodingError("a dag-pb node has no data after its links")
    _, start = decode_varint(block, position + 1)
    child_sizes = _decode_file_data(block[start:])
    if len(child_sizes) != len(cids):
        raise EncodingError(
            f"a file node gives the sizes of {len(child_sizes)} children and links to {len(cids)}"
        )
    links = [Link(cid.to_bytes(), 0, total) for cid, total in zip(cids, total_sizes, strict=True)]
    if encode_node(links, file_data(child_sizes)) != block:
        raise EncodingError("a file node is not written in the one way there is")
    return FileNode(tuple(cids), child_sizes)


def _decode_nameless_link(body: bytes) -> tuple[Cid, int]:
    """Read CID and total size; that the bytes are in order is checked by encoding the node again."""
    size, start = decode_varint(body, 1)
    cid = Cid.from_bytes(body[start : start + size])
    total_size, _ = decode_varint(body, start + size + 3)
    return cid, total_size


def _decode_file_data(data: bytes) -> tuple[int, ...]:
    """Read the sizes of a file node's children; what surrounds them is checked by encoding the node again."""
    if data[:3] != bytes([0x08, TYPE_FILE, 0x18]):
        raise EncodingError("a dag-pb node is not a file of several chunks")
    _, position = decode_varint(data, 3)
    sizes: list[int] = []
    while position < len(data):
        size, position = decode_varint(data, position + 1)
        sizes.append(size)
    return tuple(sizes)
