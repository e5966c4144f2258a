r"""The canonical form of a set of tensors, and the digest over it.

::

    digest = SHA-256( "lichen tensors v1\n" | line of each tensor, in the order of their names )
    line   = canonical JSON of {"dtype", "name", "sha256", "shape"} | "\n"

``sha256`` is over the values in row-major order, little-endian, without gaps. Element types have the names that safetensors
gives them (``F32``, ``BF16``, ``I64``, ``BOOL``, …); complex numbers are ``C64`` and ``C128``, text is ``TEXT``: each item as UTF-8,
behind its length in 8 bytes, little-endian.

Values are compared as they are stored: zero and minus zero differ, as do two not-a-numbers of different bits.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

from lichen.encoding.canonical import canonical_json
from lichen.errors import EncodingError

__all__ = ["BITS", "Tensor", "TensorDigest", "digest_of", "hash_values", "packed_size"]

DOMAIN = b"lichen tensors v1\n"
READ_BYTES = 2**20  # (= 1048576) at a time
RANK_MAX = 64

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64, "C128": 128,
}  # fmt: skip
"""Bits of an element of each type that has a fixed size."""


class Tensor(NamedTuple):
    """One tensor, by what it holds.

    Args:
        name: As the file calls it; parts of a nested structure are joined by dots.
        dtype: Type of its elements.
        shape: Lengths of its axes; empty for a single value.
        size_bytes: Of the values.
        sha256: Of the values in canonical form, 32 bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int
    sha256: bytes


class TensorDigest(NamedTuple):
    """The identity of a set of tensors.

    Args:
        digest: 32 bytes.
        file_format: ``safetensors``, ``npy``, ``npz``, ``torch``, ``skops`` or ``onnx``; not part of the digest.
        tensor_count: How many there are; at least one.
        size_bytes: Of all values together.
    """

    digest: bytes
    file_format: str
    tensor_count: int
    size_bytes: int


def packed_size(dtype: str, shape: tuple[int, ...], where: str) -> int:
    """Return the bytes that values of a type and shape take without gaps.

    Args:
        dtype: Type of the elements.
        shape: Lengths of the axes.
        where: Names the tensor in the error.

    Raises:
        EncodingError: No such type, a negative length, or values that end within a byte.
    """
    if dtype not in BITS:
        raise EncodingError(f"{where} has elements of type {dtype!r}, which is not known here")
    if len(shape) > RANK_MAX or any(type(length) is not int or length < 0 for length in shape):
        raise EncodingError(f"{where} has an impossible shape")
    size, rest = divmod(BITS[dtype] * math.prod(shape), 8)
    if rest:
        raise EncodingError(f"the values of {where} end within a byte")
    return size


def hash_values(stream: BinaryIO, size_bytes: int, where: str) -> bytes:
    """Hash the next bytes of a stream.

    Raises:
        EncodingError: The stream ends before.
    """
    digest = hashlib.sha256()
    while size_bytes:
        piece = stream.read(min(size_bytes, READ_BYTES))
        if not piece:
            raise EncodingError(f"the file ends within {where}: {size_bytes} bytes are missing")
        digest.update(piece)
        size_bytes -= len(piece)
    return digest.digest()


def digest_of(tensors: Iterable[Tensor], file_format: str) -> TensorDigest:
    """Combine tensors, in whatever order they come.

    Raises:
        EncodingError: There is none, two have the same name, or a name is no text.
    """
    ordered = sorted(tensors, key=lambda tensor: tensor.name.encode("utf-8", "surrogatepass"))
    if not ordered:
        raise EncodingError(
            "there are no tensors in it",
            remedy="Name a file of weights; its content id names any other file.",
        )
    digest = hashlib.sha256(DOMAIN)
    above = None
    for tensor in ordered:
        if tensor.name == above:
            raise EncodingError(f"two tensors are called {tensor.name!r}")
        above = tensor.name
        said = {
            "name": tensor.name,
            "dtype": tensor.dtype,
            "shape": [str(length) if length >= 2**53 else length for length in tensor.shape],
            "sha256": tensor.sha256.hex(),
        }
        digest.update(canonical_json(said) + b"\n")
    return TensorDigest(
        digest.digest(), file_format, len(ordered), sum(tensor.size_bytes for tensor in ordered)
    )
