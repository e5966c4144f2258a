"""Hashing NumPy arrays in canonical form, whatever their layout in memory.

Structured arrays become one tensor per field, so that padding between fields, whose bytes mean nothing, counts for nothing.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lichen.content.weights.tensors import Tensor
from lichen.errors import EncodingError

if TYPE_CHECKING:
    import numpy

__all__ = ["array_tensors", "dtype_name"]

PIECE_BYTES = 2**20  # (= 1048576) about so many at a time
_KINDS = {"b": "BOOL", "i": "I", "u": "U", "f": "F", "c": "C"}
_LENGTH = struct.Struct("<Q")


def dtype_name(dtype: numpy.dtype[Any], where: str) -> str:
    """Name the element type of an array that has no fields.

    Raises:
        EncodingError: Python objects, or a type whose size depends on the machine.
    """
    kind = dtype.kind
    if kind == "b":
        return "BOOL"
    if (kind in "iu" and dtype.itemsize <= 8) or (kind == "f" and dtype.itemsize in {2, 4, 8}):
        return f"{_KINDS[kind]}{8 * dtype.itemsize}"
    if kind == "c" and dtype.itemsize in {8, 16}:
        return f"C{8 * dtype.itemsize}"
    if kind in "US":
        return "TEXT" if kind == "U" else "BYTES"
    if kind in "mM":
        return f"{'DURATION' if kind == 'm' else 'TIME'}[{dtype.str[4:-1]}]"
    raise EncodingError(
        f"{where} has elements of type {dtype}, whose bytes do not mean the same everywhere",
        remedy="Save numbers or text, not Python objects.",
    )


def array_tensors(name: str, array: numpy.ndarray[Any, Any]) -> Iterator[Tensor]:
    """Give an array as tensors: itself, or one for each of its fields.

    Args:
        name: Of the array.
        array: Any layout and byte order; it may be mapped from a file larger than memory.

    Raises:
        EncodingError: Its elements are Python objects, or of a type whose size depends on the machine.
    """
    if array.dtype.names is not None:
        for field in array.dtype.names:
            yield from array_tensors(f"{name}.{field}" if name else field, array[field])
        return
    dtype = dtype_name(array.dtype, f"array {name!r}")
    digest, size = hashlib.sha256(), 0
    for piece in _pieces(array):
        data = _packed_text(piece) if dtype in {"TEXT", "BYTES"} else _packed(piece)
        digest.update(data)
        size += len(data)
    yield Tensor(name, dtype, tuple(int(length) for length in array.shape), size, digest.digest())


def _pieces(array: numpy.ndarray[Any, Any]) -> Iterator[numpy.ndarray[Any, Any]]:
    """Cut an array along its first axes into parts that follow one another in row-major order."""
    if array.ndim == 0 or array.nbytes <= PIECE_BYTES:
        yield array
        return
    row_bytes = array.nbytes // len(array)
    if row_bytes > PIECE_BYTES:
        for row in array:
            yield from _pieces(row)
        return
    count = max(1, PIECE_BYTES // max(row_bytes, 1))
    for start in range(0, len(array), count):
        yield array[start : start + count]


def _packed(piece: numpy.ndarray[Any, Any]) -> bytes:
    little = piece.dtype.newbyteorder("<")
    return piece.astype(little, order="C", copy=False).tobytes(order="C")


def _packed_text(piece: numpy.ndarray[Any, Any]) -> bytes:
    parts = []
    for item in piece.ravel(order="C").tolist():
        data = item if isinstance(item, bytes) else item.encode("utf-8", "surrogatepass")
        parts += [_LENGTH.pack(len(data)), data]
    return b"".join(parts)
