"""Artefacts: one CAR file of version 1 each, which must hold exactly the file that its CID names.

Exactly: every block of the file once, in the order in which a reader first meets it, and no other. So there is one CAR file
for an artefact, and no room in it for anything else. A small file can name a very large artefact, since a block may stand in it
many times; what is hashed is bounded by the size that the list of artefacts states, and the root must state the same.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import BinaryIO

from lichen.archive.standalone.faults import Fault

__all__ = ["cid_bytes", "measure_car"]

RAW, DAG_PB = 0x55, 0x70
CID_SIZE = 36
BLOCK_SIZE_MAX = 2**21
TREE_DEPTH_MAX = 16
HEADER = (b"\xa2\x65roots\x81\xd8\x2a\x58\x25\x00", b"\x67version\x01")
TOO_LARGE = "the artefact is larger than artefacts.jsonl says"
SEALED = b"lichen-sealed-v1\n"


def cid_bytes(text: str) -> bytes:
    """Read a CID of version 1 in base32.

    Raises:
        Fault: Not one, or not with SHA-256 and codec raw or dag-pb.
    """
    try:
        data = base64.b32decode(text[1:].upper() + "=" * 6) if len(text) == 59 and text.isascii() else b""
    except binascii.Error:
        data = b""
    if "b" + base64.b32encode(data).decode().rstrip("=").lower() != text or not is_cid(data):
        raise Fault("not a CID: %.80r" % text)
    return data


def is_cid(data: bytes) -> bool:
    """True for the binary form of such a CID."""
    return len(data) == CID_SIZE and data[0] == 1 and data[1] in (RAW, DAG_PB) and data[2:4] == b"\x12\x20"


def varint(data: bytes, at: int) -> tuple:
    """A number and where it ends."""
    number = shift = 0
    while at < len(data) and shift < 63:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise Fault("a number in the CAR file does not end")


def fields(data: bytes) -> list:
    """Fields of a protobuf message: number, and a number or bytes."""
    found, at = [], 0
    while at < len(data):
        tag, at = varint(data, at)
        value, at = varint(data, at)
        if tag & 7 == 2:
            if at + value > len(data):
                raise Fault("a node of the CAR file is cut short")
            found.append((tag >> 3, data[at : at + value]))
            at += value
        elif tag & 7 == 0:
            found.append((tag >> 3, value))
        else:
            raise Fault("a node of the CAR file has a field of unknown form")
    return found


def children_of(node: bytes) -> tuple:
    """CIDs of the children of a file's node, and the bytes of content below each."""
    message = fields(node)
    links = [dict(fields(value)) for number, value in message if number == 2]
    datas = [value for number, value in message if number == 1]
    inner = fields(datas[0]) if len(datas) == 1 and isinstance(datas[0], bytes) else []
    sizes = [value for number, value in inner if number == 4]
    names = [link.get(1) for link in links]
    if (1, 2) not in inner or len(sizes) != len(names) or any(n is None or not is_cid(n) for n in names):
        raise Fault("a node of the CAR file is not that of a file")
    return names, sizes


def measure_car(file: BinaryIO, cid: str, size_max: int) -> tuple:
    """Check a CAR file down to each block.

    Args:
        file: The CAR file, seekable.
        cid: What its root must be.
        size_max: Size of the artefact as it is stated; nothing is hashed when the root states more.

    Returns:
        SHA-256 and size of the artefact, and whether it is sealed with a group key.

    Raises:
        Fault: It is not whole, or not what the CID names.
    """
    root, places = read_blocks(file)
    if root != cid_bytes(cid):
        raise Fault("the CAR file is about another artefact")
    digest, size, start, met = hashlib.sha256(), 0, b"", 0
    ahead: list = [(root, None, 0)]
    while ahead:
        name, claimed, depth = ahead.pop()
        if name not in places:
            raise Fault("the CAR file lacks a block")
        at, length, order = places[name]
        if order > met:
            raise Fault("a block of the CAR file is out of its place, or is no part of the artefact")
        met += order == met
        file.seek(at)
        block = file.read(length)
        if name[1] == RAW:
            if claimed is not None and len(block) != claimed:
                raise Fault("a leaf of the CAR file is not as long as its node says")
            size += len(block)
            if size > size_max:
                raise Fault(TOO_LARGE)
            digest.update(block)
            start = (start + block[: len(SEALED)])[: len(SEALED)]
            continue
        names, sizes = children_of(block)
        if depth == TREE_DEPTH_MAX or 0 in sizes or (claimed is not None and sum(sizes) != claimed):
            raise Fault("a node of the CAR file does not fit the file it is in")
        if claimed is None and sum(sizes) > size_max:
            raise Fault(TOO_LARGE)
        ahead.extend((names[at], sizes[at], depth + 1) for at in reversed(range(len(names))))
    if met != len(places):
        raise Fault("a block of the CAR file is no part of the artefact")
    return digest.digest(), size, start == SEALED


def read_blocks(file: BinaryIO) -> tuple:
    """Root of a CAR file, and where each block lies (start, length, how many are before), every one compared with its name."""
    header = section(file)
    if header is None or not is_header(header):
        raise Fault("not a CAR file of version 1 with one root")
    places: dict = {}
    while True:
        block = section(file)
        if block is None:
            return header[13:49], places
        name, content = block[:CID_SIZE], block[CID_SIZE:]
        if not is_cid(name) or hashlib.sha256(content).digest() != name[4:]:
            raise Fault("a block of the CAR file does not hash to its name")
        if name in places:
            raise Fault("a block stands twice in the CAR file")
        places[name] = (file.tell() - len(content), len(content), len(places))


def is_header(data: bytes) -> bool:
    """True for the header of a CAR file of version 1 with one root, as DAG-CBOR writes it."""
    return data[:13] == HEADER[0] and is_cid(data[13:49]) and data[49:] == HEADER[1]


def section(file: BinaryIO) -> bytes | None:
    """A size and as many bytes; None at the end."""
    prefix = file.read(1)
    if not prefix:
        return None
    while prefix[-1] >= 128 and len(prefix) < 9:
        byte = file.read(1)
        if not byte:
            break
        prefix += byte
    size, _ = varint(prefix, 0)
    if len(prefix) > 1 and not prefix[-1]:
        raise Fault("a size in the CAR file is written longer than it need be")
    data = file.read(size) if size <= CID_SIZE + BLOCK_SIZE_MAX else b""
    if not data or len(data) != size:
        raise Fault("the CAR file is cut short")
    return data
