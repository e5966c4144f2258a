"""Artefacts in transit: one CAR file holds a header that names the root, then raw blocks, each under its CID.

Any IPFS tool reads and writes it. Here the same artefact always gives the same bytes (each block once, every node before
its children, left to right, as ``ipfs dag export`` does), and nothing read from it is used before its hash was checked.

Source:
    https://ipld.io/specs/transport/car/carv1/. Differs: CIDs of version 1 with SHA-256 and codec raw or dag-pb only.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, BinaryIO

from lichen.content.cid import CID_SIZE, RAW, Cid
from lichen.content.dag_pb import decode_file_node, decode_varint, encode_varint
from lichen.content.files import raise_write_error
from lichen.content.pipeline import Fill
from lichen.content.store import ArtefactStore
from lichen.content.unixfs import ArtefactHash, fill_from_reader, layout_of_stream
from lichen.errors import EncodingError, UsageError, VerificationError

__all__ = [
    "BLOCK_SIZE_MAX",
    "car_pieces",
    "export_artefact",
    "file_pieces",
    "fill_from_pieces",
    "import_artefact",
    "read_car",
    "write_car",
]

BLOCK_SIZE_MAX = 2**21  # (= 2097152) bytes; larger blocks do not travel in IPFS
VARINT_SIZE_MAX = 9
TREE_DEPTH_MAX = 16  # 174**16 chunks are more than any file has
ARTEFACT_SIZE_MAX = 2**40  # (= 1 TiB); a small CAR can spell out a much larger file

# The header is DAG-CBOR: a map of "roots" (a list of one CID, tag 42) and "version" (1).
HEADER_START = b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00"
HEADER_END = b"\x67version\x01"


def write_car(stream: BinaryIO, root: Cid, blocks: Iterable[tuple[Cid, bytes]]) -> int:
    """Write a CAR file.

    Args:
        stream: Where to; not closed.
        root: What the file is about.
        blocks: In the order to be written; one that was written already is left out.

    Returns:
        Bytes written.
    """
    return sum(stream.write(piece) for piece in car_pieces(root, blocks))


def car_pieces(root: Cid, blocks: Iterable[tuple[Cid, bytes]]) -> Iterator[bytes]:
    """Give the bytes of a CAR file piece by piece, to be sent or written; see :func:`write_car`."""
    header = HEADER_START + root.to_bytes() + HEADER_END
    yield encode_varint(len(header)) + header
    written: set[Cid] = set()
    for cid, block in blocks:
        if cid not in written:
            written.add(cid)
            yield encode_varint(CID_SIZE + len(block)) + cid.to_bytes() + block


def read_car(stream: BinaryIO) -> tuple[Cid, Iterator[tuple[Cid, bytes]]]:
    """Read a CAR file block by block.

    Args:
        stream: Positioned at its start; read to its end.

    Returns:
        The root, and its blocks in the order they lie in the file, each verified before it is given.

    Raises:
        EncodingError: Not a CAR file, or cut short; from the iterator as well.
        VerificationError: From the iterator: a block does not hash to its CID.
    """
    header = _read_section(stream, limit=len(HEADER_START) + CID_SIZE + len(HEADER_END), what="the header")
    if header is None or not (header.startswith(HEADER_START) and header.endswith(HEADER_END)):
        raise EncodingError("this is not a CAR file of version 1 with one root", remedy="Export it again.")
    return Cid.from_bytes(header[len(HEADER_START) : -len(HEADER_END)]), _read_blocks(stream)


def _read_blocks(stream: BinaryIO) -> Iterator[tuple[Cid, bytes]]:
    while (section := _read_section(stream, limit=CID_SIZE + BLOCK_SIZE_MAX, what="a block")) is not None:
        cid, block = Cid.from_bytes(section[:CID_SIZE]), section[CID_SIZE:]
        digest = hashlib.sha256(block).digest()
        if digest != cid.digest:
            raise VerificationError(
                f"a block of the CAR file does not hash to its name {cid}",
                expected=str(cid),
                calculated=str(Cid(cid.codec, digest)),
                remedy="Fetch the CAR file again.",
            )
        yield cid, block


def _read_section(stream: BinaryIO, *, limit: int, what: str) -> bytes | None:
    """Read one size and as many bytes; nothing at the end of the file."""
    prefix = b""
    while not prefix or (prefix[-1] >= 0x80 and len(prefix) < VARINT_SIZE_MAX):
        byte = stream.read(1)
        if not byte:
            if prefix:
                raise EncodingError(f"the CAR file ends within the size of {what}")
            return None
        prefix += byte
    size, _ = decode_varint(prefix, 0)
    if size > limit:
        raise EncodingError(f"{what} of the CAR file claims {size} bytes, at most {limit} are allowed")
    section = stream.read(size)
    if len(section) != size:
        raise EncodingError(f"the CAR file ends within {what}: {len(section)} of {size} bytes are there")
    return section


def export_artefact(store: ArtefactStore, cid: Cid, stream: BinaryIO) -> int:
    """Write an artefact of a store as a CAR file.

    Args:
        store: Holds the artefact.
        cid: Its name.
        stream: Where to; not closed.

    Returns:
        Bytes written.

    Raises:
        NotFoundError: The store does not hold it.
        VerificationError: What lies there is not what the CID names.
    """
    with store.open(cid) as source:
        layout = layout_of_stream(fill_from_reader(source))

        def blocks() -> Iterator[tuple[Cid, bytes]]:
            for block_cid, node, offset, size in layout.order():
                if node is None:
                    source.seek(offset)
                    yield block_cid, source.read(size)
                else:
                    yield block_cid, node

        return write_car(stream, cid, blocks())


def import_artefact(
    store: ArtefactStore,
    stream: BinaryIO,
    *,
    expected: Cid | None = None,
    size_bytes_max: int = ARTEFACT_SIZE_MAX,
) -> ArtefactHash:
    """Put the file that a CAR file holds into a store.

    The blocks may lie in any order. All are verified before the first byte is stored.

    Args:
        store: Where to.
        stream: The CAR file from its start.
        expected: What its root must be.
        size_bytes_max: Largest file to accept.

    Raises:
        EncodingError: Not a CAR file, or its root is no file.
        UsageError: Blocks are missing, or the file is too large.
        VerificationError: A block does not hash to its CID; the root is not the expected one; or the file was cut
            into other chunks than Lichen's and so has another name here.
        StorageError: Disk full, or the store may not be written.
    """
    with tempfile.TemporaryFile() as spool:
        root, blocks = read_car(stream)
        if expected is not None and root != expected:
            raise VerificationError(
                f"the CAR file is about {root}, not {expected}",
                expected=str(expected),
                calculated=str(root),
                remedy="Ask for the artefact again, by its name.",
            )
        pieces = file_pieces(_Blocks(spool, blocks).block, root, size_bytes_max)
        return store.put_stream(fill_from_pieces(pieces), expected=root)


class _Blocks:
    """The verified raw blocks of a CAR file, to be read in any order."""

    def __init__(self, spool: IO[bytes], blocks: Iterable[tuple[Cid, bytes]]) -> None:
        self._spool = spool
        self._places: dict[Cid, tuple[int, int]] = {}
        offset = 0
        for cid, block in blocks:
            if cid not in self._places:
                self._places[cid] = (offset, len(block))
                offset += len(block)
                try:
                    spool.write(block)
                except OSError as error:
                    raise_write_error(tempfile.gettempdir(), error)

    def block(self, cid: Cid) -> bytes:
        """Return one block.

        Raises:
            UsageError: The CAR file did not hold it.
        """
        if cid not in self._places:
            raise UsageError(f"the CAR file lacks the block {cid}", remedy="Export all of the artefact.")
        offset, size = self._places[cid]
        self._spool.seek(offset)
        return self._spool.read(size)


def file_pieces(block: Callable[[Cid], bytes], root: Cid, size_bytes_max: int) -> Iterator[bytes]:
    """Give the content of a file leaf by leaf, from its raw blocks.

    What each node claims of its children is checked against them, so the claim of the root bounds the work.

    Args:
        block: Returns a block by its name, verified.
        root: Name of the file.
        size_bytes_max: Largest file to accept.

    Raises:
        EncodingError: A block is no part of a file, or contradicts the node above it.
        UsageError: The file is too large.
    """
    if root.codec == RAW:
        yield block(root)
        return
    claimed = decode_file_node(block(root)).content_size
    if claimed > size_bytes_max:
        raise UsageError(
            f"the file {root} has {claimed} bytes, at most {size_bytes_max} are accepted",
            remedy="Allow more, or do without it.",
        )
    ahead = [(root, claimed, 0)]
    while ahead:
        cid, claimed, depth = ahead.pop()
        data = block(cid)
        if cid.codec == RAW:
            if len(data) != claimed:
                raise EncodingError(f"the leaf {cid} has {len(data)} bytes, its node says {claimed}")
            yield data
            continue
        node = decode_file_node(data)
        if node.content_size != claimed or 0 in node.child_sizes or depth == TREE_DEPTH_MAX:
            raise EncodingError(f"the node {cid} does not fit the file it is in")
        children = zip(node.children, node.child_sizes, strict=True)
        ahead += [(child, size, depth + 1) for child, size in children][::-1]


def fill_from_pieces(pieces: Iterator[bytes]) -> Fill:
    """Make a reader of a sequence of byte strings."""
    piece = memoryview(b"")

    def fill(view: memoryview) -> int:
        nonlocal piece
        filled = 0
        while filled < len(view):
            if not piece:
                piece = memoryview(next(pieces, b""))
                if not piece:
                    break
            count = min(len(piece), len(view) - filled)
            view[filled : filled + count] = piece[:count]
            piece = piece[count:]
            filled += count
        return filled

    return fill
