"""Tensors of what PyTorch saves: a ZIP archive with a pickle that describes them and one member per storage.

The pickle is read for what it describes and never run (`lichen.content.weights.pickle_symbols`), so PyTorch need not be
installed and a hostile file can do nothing. Names of nested dictionaries and lists are joined by dots, so the state of a model
has the names that safetensors files of it have. What is not a tensor counts for nothing.

Source: PyTorch's note "Serialization semantics" and what `torch.save` of version 2.13 writes.
Differs: the format of versions before 1.6 is refused; a whole pickled module is refused, for only its code could name its parts.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from lichen.content.weights.arrays import array_tensors
from lichen.content.weights.numpy_files import check_archive, member_of, require
from lichen.content.weights.pickle_symbols import Call, Persistent, Symbol, described, items_of
from lichen.content.weights.tensors import BITS, Tensor, hash_values, packed_size
from lichen.errors import EncodingError, UsageError

__all__ = ["looks_like_torch", "torch_tensors"]

PICKLE_BYTES_MAX = 2**28  # (= 268435456)
DEPTH_MAX = 100
SPREAD_BYTES_MAX = 2**32  # (= 4 GiB) of a tensor that is not laid out in row-major order
_STORAGES = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128",
}  # fmt: skip
_DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "complex64": "C64", "complex128": "C128", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip
_REBUILDERS = {
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
}
_WRAPPERS = {"torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"}


class _Layout(NamedTuple):
    """Where a tensor's values lie."""

    storage: str
    dtype: str
    offset: int  # in elements
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def looks_like_torch(names: list[str]) -> bool:
    """Whether an archive with members of these names is one of PyTorch's."""
    return any(name == "data.pkl" or name.endswith("/data.pkl") for name in names)


def torch_tensors(archive: zipfile.ZipFile) -> Iterator[Tensor]:
    """Give every tensor of an archive.

    Raises:
        EncodingError: Damaged, or tensors reach beyond their storages.
        UsageError: It holds a whole pickled object instead of its state.
    """
    check_archive(archive)
    pickles = [member for member in archive.infolist() if looks_like_torch([member.filename])]
    if len(pickles) != 1 or pickles[0].file_size > PICKLE_BYTES_MAX:
        raise EncodingError("the archive has no one description of its tensors, or one beyond all measure")
    root = pickles[0].filename.removesuffix("data.pkl")
    with member_of(archive, pickles[0]) as stream:
        tree = described(stream.read())
    swapped = False
    if f"{root}byteorder" in archive.namelist():
        with member_of(archive, f"{root}byteorder") as stream:
            swapped = stream.read(16) == b"big"
    for name, layout in _walk(tree, "", 0, set()):
        yield _tensor(archive, f"{root}data/{layout.storage}", name, layout, swapped=swapped)


def _walk(node: object, name: str, depth: int, above: set[int]) -> Iterator[tuple[str, _Layout]]:
    """Find the tensors below a node; what contains itself is walked once."""
    if depth > DEPTH_MAX:
        raise EncodingError("the pickle in the file nests deeper than weights do")
    if id(node) in above:
        return
    inner: list[tuple[object, object]] | None = items_of(node)
    if inner is None and isinstance(node, list | tuple):
        inner = list(enumerate(node))
    if inner is not None:
        above.add(id(node))
        for key, value in inner:
            if isinstance(key, str | int):
                yield from _walk(value, f"{name}.{key}" if name else str(key), depth + 1, above)
        above.discard(id(node))
    elif isinstance(node, Call):
        if node.name in _WRAPPERS and isinstance(node.arguments, tuple) and node.arguments:
            yield from _walk(node.arguments[0], name, depth + 1, above)
        elif node.name in _REBUILDERS:
            yield name, _layout(node, name)
        elif isinstance(node.state, tuple) or items_of(node.state) is not None:
            raise UsageError(
                f"{name or 'the file'} is a whole pickled object ({node.name or 'of a class made on the way'}), not its state",
                remedy="Save the model's `state_dict()`, or its weights as safetensors.",
            )


def _layout(call: Call, name: str) -> _Layout:
    where = f"tensor {name!r}"
    try:
        storage, offset, shape, stride = call.arguments[:4]  # type: ignore[index]
        kind, storage_type, key = storage.reference[:3]
        if kind != "storage" or not isinstance(storage, Persistent) or not isinstance(storage_type, Symbol):
            raise EncodingError(f"{where} refers to no storage")
        found = _STORAGES.get(storage_type.name.rpartition(".")[2], "")
        if call.name.endswith("_v3"):
            found = _DTYPES.get(call.arguments[6].name.rpartition(".")[2], "")  # type: ignore[index]
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise EncodingError(f"{where} is described in a way that is not known here: {error}") from error
    numbers = (offset, *shape, *stride)
    if any(type(number) is not int or number < 0 for number in numbers) or len(shape) != len(stride):
        raise EncodingError(f"{where} has an impossible shape")
    if not isinstance(key, str) or found not in BITS:
        raise EncodingError(f"{where} has elements of a type that is not known here")
    return _Layout(key, found, offset, tuple(shape), tuple(stride))


def _tensor(archive: zipfile.ZipFile, member: str, name: str, layout: _Layout, *, swapped: bool) -> Tensor:
    """Hash the values of a tensor: as they lie there when they follow one another, else gathered."""
    where = f"tensor {name!r}"
    item = BITS[layout.dtype] // 8
    size = packed_size(layout.dtype, layout.shape, where)
    end = layout.offset + 1 + sum((n - 1) * s for n, s in zip(layout.shape, layout.stride, strict=True))
    if size == 0:
        return Tensor(name, layout.dtype, layout.shape, 0, hash_values(io.BytesIO(), 0, where))
    with member_of(archive, member) as stream:
        if archive.getinfo(member).file_size < end * item:
            raise EncodingError(f"{where} reaches beyond the end of its storage")
        _skip(stream, layout.offset * item, where)
        if not swapped and _row_major(layout):
            digest = hash_values(stream, size, where)  # type: ignore[arg-type]  # a member reads like a file
            return Tensor(name, layout.dtype, layout.shape, size, digest)
        spread = (end - layout.offset) * item
        if max(size, spread) > SPREAD_BYTES_MAX:
            raise UsageError(
                f"{where} has {size} bytes that do not lie in row-major order; at most {SPREAD_BYTES_MAX} are taken",
                remedy="Call `contiguous()` on it before saving.",
            )
        data = stream.read(spread)
    numpy = require("numpy", "tensors that do not lie in row-major order")
    return _gathered(numpy, name, layout, data, swapped=swapped)


def _gathered(numpy: Any, name: str, layout: _Layout, data: bytes, *, swapped: bool) -> Tensor:
    item = BITS[layout.dtype] // 8
    parts = (
        2 if layout.dtype in {"C64", "C128"} else 1
    )  # byte order is that of the halves of a complex number
    part = numpy.dtype(f"{'>' if swapped else '<'}u{item // parts}")
    flat = numpy.frombuffer(data, dtype=part)
    strides = [part.itemsize * parts * stride for stride in layout.stride]
    shape = layout.shape
    if parts == 2:
        shape, strides = (*shape, 2), [*strides, part.itemsize]
    array = numpy.lib.stride_tricks.as_strided(flat, shape, strides, writeable=False)
    (tensor,) = array_tensors(name, array)
    return tensor._replace(dtype=layout.dtype, shape=layout.shape)


def _row_major(layout: _Layout) -> bool:
    expected = math.prod(layout.shape)
    for length, stride in zip(layout.shape, layout.stride, strict=True):
        expected //= length
        if length != 1 and stride != expected:
            return False
    return True


def _skip(stream: IO[bytes], count: int, where: str) -> None:
    while count:
        piece = stream.read(min(count, 2**20))
        if not piece:
            raise EncodingError(f"the file ends before {where}")
        count -= len(piece)
