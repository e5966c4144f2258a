"""Tensors of a safetensors file, read in one pass and never held.

The library of that name gives tensors to a framework and knows some types only beside PyTorch; only names and raw bytes are
needed here, and bounds to everything a hostile header can claim.

Source: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from lichen.content.weights.tensors import Tensor, hash_values, packed_size
from lichen.errors import EncodingError

__all__ = ["looks_like_safetensors", "safetensors_tensors"]

HEADER_BYTES_MAX = 100_000_000  # the format's own bound


def looks_like_safetensors(start: bytes) -> bool:
    """Whether the first bytes of a file may be a header of this format."""
    return (
        len(start) >= 9
        and start[8:9] == b"{"
        and 2 <= int.from_bytes(start[:8], "little") <= HEADER_BYTES_MAX
    )


def safetensors_tensors(stream: BinaryIO, file_bytes: int) -> Iterator[Tensor]:
    """Give every tensor of a file.

    Args:
        stream: The file from its start.
        file_bytes: Its size.

    Raises:
        EncodingError: Not such a file: cut short, with gaps, overlaps, or a header that contradicts itself.
    """
    header_bytes = int.from_bytes(stream.read(8), "little")
    if not 2 <= header_bytes <= min(HEADER_BYTES_MAX, file_bytes - 8):
        raise EncodingError(f"the header of the safetensors file claims {header_bytes} bytes")
    told = _header(stream.read(header_bytes))
    entries = sorted(
        (_entry(name, said) for name, said in told.items() if name != "__metadata__"), key=lambda e: e[3]
    )
    at = 0
    for name, dtype, shape, (start, end) in entries:
        if start != at or end < start:
            raise EncodingError(
                f"the values of tensor {name!r} do not follow those before them without a gap"
            )
        if packed_size(dtype, shape, f"tensor {name!r}") != end - start:
            raise EncodingError(
                f"tensor {name!r} has {end - start} bytes, which its type and shape contradict"
            )
        yield Tensor(name, dtype, shape, end - start, hash_values(stream, end - start, f"tensor {name!r}"))
        at = end
    if at != file_bytes - 8 - header_bytes:
        raise EncodingError("the safetensors file goes on behind its last tensor")


def _header(data: bytes) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) != len(pairs):
            raise EncodingError("the header of the safetensors file names something twice")
        return members

    try:
        told = json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise EncodingError(f"the header of the safetensors file is not JSON: {error}") from error
    if not isinstance(told, dict):
        raise EncodingError("the header of the safetensors file is not a JSON object")
    return told


def _entry(name: str, said: Any) -> tuple[str, str, tuple[int, ...], tuple[int, int]]:
    try:
        dtype, shape, (start, end) = said["dtype"], tuple(said["shape"]), said["data_offsets"]
    except (TypeError, KeyError, ValueError) as error:
        raise EncodingError(f"the header says too little of tensor {name!r}") from error
    if not isinstance(dtype, str) or type(start) is not int or type(end) is not int:
        raise EncodingError(f"the header says nonsense of tensor {name!r}")
    return name, dtype, shape, (start, end)
