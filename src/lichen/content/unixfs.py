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
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from lichen.content.cid import DAG_PB, RAW, Cid
from lichen.content.dag_pb import RAW_CID_PREFIX, Link, encode_node, file_data, link_to
from lichen.content.files import StrPath, open_regular
from lichen.content.pipeline import Fill, Work, stream_buffers

__all__ = [
    "CHUNK_SIZE",
    "NODE_WIDTH",
    "PROFILE",
    "ArtefactHash",
    "BlockLayout",
    "Progress",
    "digest_descriptor",
    "fill_from_descriptor",
    "fill_from_reader",
    "hash_bytes",
    "hash_descriptor",
    "hash_file",
    "hash_stream",
    "layout_of_stream",
]

CHUNK_SIZE = 2**18  # (= 262144) bytes in a leaf
NODE_WIDTH = 174  # children of a node
DIGEST_SIZE = 32  # bytes of a SHA-256
PROFILE = "cidv1-raw-262144-174"
"""Name of the way files are cut, told beside CIDs: other ways give the same bytes other CIDs."""

Progress = Callable[[int], object]
"""Is told how many bytes were read since the last call."""


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
                parents.append(link_to(block, children))
                blocks.append(block)
            links = parents
            yield links, blocks

    def order(self) -> Iterator[tuple[Cid, bytes | None, int, int]]:
        """Give every raw block in the order a reader meets them: each node before its children, left to right.

        Yields:
            CID; the node's raw block, or ``None`` for a leaf, whose bytes are the file's; offset and size in bytes
            of the content below it.
        """
        levels = list(self.levels())

        def descend(level: int, index: int, offset: int) -> Iterator[tuple[Cid, bytes | None, int, int]]:
            links, blocks = levels[level]
            link = links[index]
            yield Cid.from_bytes(link.cid), blocks[index] if level else None, offset, link.content_size
            if level:
                first = index * self.node_width
                for child in range(first, min(first + self.node_width, len(levels[level - 1][0]))):
                    yield from descend(level - 1, child, offset)
                    offset += levels[level - 1][0][child].content_size

        yield from descend(len(levels) - 1, 0, 0)

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


def hash_stream(fill: Fill, sinks: Sequence[Work] = ()) -> ArtefactHash:
    """Name whatever a reader gives, in one pass and flat memory.

    Args:
        fill: Fills each buffer whole until the end of the stream.
        sinks: Are handed every byte that was hashed, in order; used to copy while naming.

    Returns:
        The names of the bytes that were read.
    """
    whole = hashlib.sha256()
    layout = _read_layout(fill, (whole.update,), sinks)
    return ArtefactHash(layout.cid(), whole.digest(), layout.size_bytes)


def layout_of_stream(fill: Fill, sinks: Sequence[Work] = ()) -> BlockLayout:
    """Hash only the chunks of a stream: half the work of ``hash_stream``, for when the CID alone is wanted."""
    return _read_layout(fill, (), sinks)


def _read_layout(fill: Fill, works: Sequence[Work], sinks: Sequence[Work]) -> BlockLayout:
    leaves = bytearray()

    def add_leaves(view: memoryview) -> None:
        for start in range(0, len(view), CHUNK_SIZE):
            leaves.extend(hashlib.sha256(view[start : start + CHUNK_SIZE]).digest())

    size = stream_buffers(fill, (add_leaves, *works), sinks)
    if not size:
        leaves.extend(hashlib.sha256(b"").digest())
    return BlockLayout(bytes(leaves), size)


def hash_file(
    path: StrPath, *, follow_symlinks: bool = True, progress: Progress | None = None
) -> ArtefactHash:
    """Name a file, reading it once.

    Args:
        path: A regular file of any size.
        follow_symlinks: Whether ``path`` itself may be a symbolic link.
        progress: Told of every piece read.

    Raises:
        UsageError: Nothing there, not a regular file, or not readable.
        FileChangedError: Written to while it was read.
        StorageError: The disk failed.
    """
    with open_regular(path, follow_symlinks=follow_symlinks) as (descriptor, status):
        return hash_descriptor(descriptor, status.st_size, progress=progress)


def hash_descriptor(descriptor: int, size_bytes: int, *, progress: Progress | None = None) -> ArtefactHash:
    """Name the rest of an open file.

    Args:
        descriptor: Positioned where reading starts.
        size_bytes: How many bytes are expected; more or fewer are read as they come.
        progress: Told of every piece read.

    Raises:
        OSError: Reading failed.
    """
    if size_bytes <= CHUNK_SIZE:
        data = os.read(descriptor, size_bytes + 1)
        if len(data) == size_bytes:
            whole = hashlib.sha256(data).digest()
            if progress is not None:
                progress(size_bytes)
            return ArtefactHash(Cid(RAW, whole), whole, size_bytes)
        os.lseek(descriptor, -len(data), os.SEEK_CUR)
    return hash_stream(fill_from_descriptor(descriptor), report_to(progress))


def digest_descriptor(
    descriptor: int, size_bytes: int, *, progress: Progress | None = None
) -> tuple[bytes, int]:
    """Return the SHA-256 of the rest of an open file and how many bytes it had; see ``hash_descriptor``."""
    if size_bytes <= CHUNK_SIZE:
        names = hash_descriptor(descriptor, size_bytes, progress=progress)
        return names.sha256, names.size_bytes
    whole = hashlib.sha256()
    size = stream_buffers(fill_from_descriptor(descriptor), (whole.update,), report_to(progress))
    return whole.digest(), size


def report_to(progress: Progress | None) -> tuple[Work, ...]:
    """Turn a progress callback into the sinks of a stream."""
    if progress is None:
        return ()
    return (lambda view: progress(len(view)),)


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


def fill_from_reader(reader: BinaryIO) -> Fill:
    """Make a reader of a binary stream that returns short only at its end."""

    def fill(view: memoryview) -> int:
        filled = 0
        while filled < len(view):
            piece = reader.read(len(view) - filled)
            if not piece:
                break
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    return fill
