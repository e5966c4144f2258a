"""Names of files: the SHA-256 of the bytes and the CID that ``ipfs add --cid-version=1`` prints, in one pass.

A file is cut into chunks of 256 KiB. One chunk or less is named by its own hash. More become the leaves of a tree whose
nodes join up to 174 children each, every leaf at the same depth, and the file is named by its topmost node. A file of
any size is read once through a few buffers; what stays in memory is 32 bytes per chunk.

A file above one chunk needs two hashes of every byte. ``hashlib`` lets go of the interpreter while it works, so the two
run side by side with the reading.

Source:
    https://specs.ipfs.tech/unixfs/, balanced layout; parameters are Kubo's for ``--cid-version=1``.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from lichen.content.cid import DAG_PB, RAW, Cid
from lichen.content.dag_pb import NODE_CID_PREFIX, RAW_CID_PREFIX, Link, encode_node, file_data
from lichen.content.files import FileChangedError, StrPath, open_regular, show_path
from lichen.content.pipeline import stream_buffers

__all__ = [
    "CHUNK_SIZE",
    "NODE_WIDTH",
    "ArtefactHash",
    "BlockLayout",
    "hash_bytes",
    "hash_descriptor",
    "hash_file",
    "hash_stream",
]

CHUNK_SIZE = 2**18  # (= 262144) bytes in a leaf
NODE_WIDTH = 174  # children of a node
DIGEST_SIZE = 32  # bytes of a SHA-256

Fill = Callable[[memoryview], int]
"""Fills a buffer from its start and returns how many bytes it holds; 0 means the end."""


class ArtefactHash(NamedTuple):
    """The names of an artefact.

    Args:
        cid: What IPFS calls it.
        sha256: SHA-256 of all its bytes, 32 bytes.
        size_bytes: How many bytes it has.
    """

    cid: Cid
    sha256: bytes
    size_bytes: int


@dataclass(frozen=True, slots=True)
class BlockLayout:
    """Where each raw block of a file lies in it, and the nodes that join them.

    Args:
        leaf_digests: SHA-256 of every chunk in order, 32 bytes each.
        size_bytes: Size of the file.
        chunk_size: Bytes in every leaf but the last.
        node_width: Children of a node at most.
    """

    leaf_digests: bytes
    size_bytes: int
    chunk_size: int = CHUNK_SIZE
    node_width: int = NODE_WIDTH

    @property
    def leaf_count(self) -> int:
        """How many leaves the file has; an empty file has one, empty."""
        return len(self.leaf_digests) // DIGEST_SIZE

    def leaf(self, leaf_index: int) -> tuple[Cid, int, int]:
        """Return CID, offset and size in bytes of one leaf."""
        offset = leaf_index * self.chunk_size
        digest = self.leaf_digests[leaf_index * DIGEST_SIZE : (leaf_index + 1) * DIGEST_SIZE]
        return Cid(RAW, digest), offset, min(self.chunk_size, self.size_bytes - offset)

    def levels(self) -> Iterator[tuple[list[Link], list[bytes]]]:
        """Build the tree upward: for each level from the leaves, its links and the raw blocks of its nodes.

        Leaves come with no raw blocks: their bytes are the file's.
        """
        digests, size = self.leaf_digests, self.size_bytes
        links: list[Link] = []
        for leaf_index in range(self.leaf_count):
            leaf_size = min(self.chunk_size, size - leaf_index * self.chunk_size)
            digest = digests[leaf_index * DIGEST_SIZE : (leaf_index + 1) * DIGEST_SIZE]
            links.append(Link(RAW_CID_PREFIX + digest, leaf_size, leaf_size))
        yield links, []
        while len(links) > 1:
            parents: list[Link] = []
            blocks: list[bytes] = []
            for start in range(0, len(links), self.node_width):
                children = links[start : start + self.node_width]
                block = encode_node(children, file_data(child.content_size for child in children))
                parents.append(
                    Link(
                        NODE_CID_PREFIX + hashlib.sha256(block).digest(),
                        sum(child.content_size for child in children),
                        len(block) + sum(child.total_size for child in children),
                    )
                )
                blocks.append(block)
            links = parents
            yield links, blocks

    def root(self) -> Link:
        """Return the link to the topmost block."""
        links: list[Link] = []
        for links, _ in self.levels():  # noqa: B007 - the last level is the one wanted
            pass
        return links[0]

    def cid(self) -> Cid:
        """Return the name of the file."""
        if self.leaf_count == 1:
            return Cid(RAW, self.leaf_digests)
        return Cid(DAG_PB, self.root().cid[-DIGEST_SIZE:])


def hash_bytes(data: bytes) -> ArtefactHash:
    """Name an artefact held in memory."""
    whole = hashlib.sha256(data).digest()
    if len(data) <= CHUNK_SIZE:
        return ArtefactHash(Cid(RAW, whole), whole, len(data))
    view = memoryview(data)
    leaves = b"".join(
        hashlib.sha256(view[start : start + CHUNK_SIZE]).digest() for start in range(0, len(data), CHUNK_SIZE)
    )
    return ArtefactHash(BlockLayout(leaves, len(data)).cid(), whole, len(data))


def hash_stream(fill: Fill, *, sink: Callable[[memoryview], None] | None = None) -> ArtefactHash:
    """Name whatever a reader gives, in one pass and flat memory.

    Args:
        fill: Fills each buffer whole until the end of the stream; see ``Fill``.
        sink: Is handed every byte that was hashed, in order; used to copy while naming.

    Returns:
        The names of the bytes that were read.
    """
    whole = hashlib.sha256()
    layout = _read_layout(fill, (whole.update,), sink)
    return ArtefactHash(layout.cid(), whole.digest(), layout.size_bytes)


def layout_of_stream(fill: Fill, *, sink: Callable[[memoryview], None] | None = None) -> BlockLayout:
    """Hash only the chunks of a stream: half the work, for when the CID alone is to be checked."""
    return _read_layout(fill, (), sink)


def _read_layout(
    fill: Fill, lanes: tuple[Callable[[memoryview], None], ...], sink: Callable[[memoryview], None] | None
) -> BlockLayout:
    leaves = bytearray()

    def add_leaves(view: memoryview) -> None:
        for start in range(0, len(view), CHUNK_SIZE):
            leaves.extend(hashlib.sha256(view[start : start + CHUNK_SIZE]).digest())

    size = stream_buffers(fill, (add_leaves, *lanes), sink)
    if not size:
        leaves.extend(hashlib.sha256(b"").digest())
    return BlockLayout(bytes(leaves), size)


def hash_file(path: StrPath, *, follow_symlinks: bool = True) -> ArtefactHash:
    """Name a file, reading it once.

    Args:
        path: A regular file of any size.
        follow_symlinks: Whether ``path`` itself may be a symbolic link.

    Raises:
        UsageError: Nothing there, not a regular file, or not readable.
        FileChangedError: Edited while it was read.
        StorageError: The disk failed.
    """
    with open_regular(path, follow_symlinks=follow_symlinks) as (descriptor, status):
        result = hash_descriptor(descriptor, status.st_size)
        if result.size_bytes != status.st_size and status.st_size:
            raise FileChangedError(
                f"{show_path(path)} changed while it was being read",
                remedy="Wait until nothing writes to it, then try again.",
            )
        return result


def hash_descriptor(descriptor: int, size_bytes: int) -> ArtefactHash:
    """Name the rest of an open file.

    Args:
        descriptor: Positioned where reading starts.
        size_bytes: How many bytes are expected; more or fewer are read as they come.

    Raises:
        OSError: Reading failed.
    """
    head = b""
    if size_bytes <= CHUNK_SIZE:
        head = os.read(descriptor, size_bytes + 1)
        if len(head) <= size_bytes and not os.read(descriptor, 1):
            whole = hashlib.sha256(head).digest()
            return ArtefactHash(Cid(RAW, whole), whole, len(head))
        os.lseek(descriptor, 0, os.SEEK_SET)
    return hash_stream(fill_from_descriptor(descriptor))


def fill_from_descriptor(descriptor: int) -> Fill:
    """Make a reader of an open file that returns short only at its end."""

    def fill(view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            count = os.readv(descriptor, [view[filled:]])
            if not count:
                break
            filled += count
        return filled

    return fill


def fill_from_reader(reader: io.BufferedIOBase) -> Fill:
    """Make a reader of a binary stream that returns short only at its end."""

    def fill(view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            count = reader.readinto(view[filled:])
            if not count:
                break
            filled += count
        return filled

    return fill
