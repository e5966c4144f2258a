"""Tensors of ONNX models: the initial values of their graphs, and the tables that operators such as tree ensembles carry.

Initial values have the names that the graph gives them, inner graphs included. Tables are named by the place and the kind of
their operator, since converters number operators as they like: ``3:TreeEnsembleClassifier.nodes_values``. Numbers that are no
table, such as an axis, belong to the program and not to the weights.

Source: the ONNX specification, "Tensor element types" and "External tensor data"; the library of that name reads the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from lichen.content.files import StrPath, open_regular
from lichen.content.weights.arrays import array_tensors
from lichen.content.weights.numpy_files import require
from lichen.content.weights.tensors import BITS, Tensor, hash_values, packed_size
from lichen.errors import EncodingError, UsageError

__all__ = ["MODEL_BYTES_MAX", "onnx_tensors"]

MODEL_BYTES_MAX = 2**31  # (= 2147483648) the bound of its encoding
DEPTH_MAX = 50
_DTYPES = {
    "FLOAT": "F32", "DOUBLE": "F64", "FLOAT16": "F16", "BFLOAT16": "BF16", "INT8": "I8", "INT16": "I16", "INT32": "I32",
    "INT64": "I64", "UINT8": "U8", "UINT16": "U16", "UINT32": "U32", "UINT64": "U64", "BOOL": "BOOL", "COMPLEX64": "C64",
    "COMPLEX128": "C128", "FLOAT8E4M3FN": "F8_E4M3", "FLOAT8E5M2": "F8_E5M2", "FLOAT8E4M3FNUZ": "F8_E4M3FNUZ",
    "FLOAT8E5M2FNUZ": "F8_E5M2FNUZ", "FLOAT8E8M0": "F8_E8M0",
}  # fmt: skip


def onnx_tensors(stream: BinaryIO, directory: StrPath) -> Iterator[Tensor]:
    """Give every tensor of a model.

    Args:
        stream: The model from its start.
        directory: Where it lies; values in files beside it are looked up there and nowhere else.

    Raises:
        EncodingError: Not a model, or a tensor contradicts itself.
        UsageError: The package ``onnx`` is not installed, or a file beside the model is missing.
    """
    onnx = require("onnx", "ONNX models")
    try:
        model = onnx.load_model_from_string(stream.read(MODEL_BYTES_MAX))
    except Exception as error:  # of the decoder of protocol buffers, which has several
        raise EncodingError(f"the file is no ONNX model: {error}") from error
    yield from _graph(onnx, model.graph, "", Path(directory), 0)


def _graph(onnx: Any, graph: Any, prefix: str, directory: Path, depth: int) -> Iterator[Tensor]:
    if depth > DEPTH_MAX:
        raise EncodingError("the graphs of the ONNX model nest deeper than models do")
    for tensor in graph.initializer:
        yield _tensor(onnx, tensor, prefix + tensor.name, directory)
    for place, node in enumerate(graph.node):
        for attribute in node.attribute:
            name = f"{prefix}{place}:{node.op_type}.{attribute.name}"
            yield from _attribute(onnx, attribute, name, directory, depth)


def _attribute(onnx: Any, attribute: Any, name: str, directory: Path, depth: int) -> Iterator[Tensor]:
    kinds = onnx.AttributeProto
    if attribute.type == kinds.TENSOR:
        yield _tensor(onnx, attribute.t, name, directory)
    elif attribute.type == kinds.TENSORS:
        for place, tensor in enumerate(attribute.tensors):
            yield _tensor(onnx, tensor, f"{name}.{place}", directory)
    elif attribute.type in {kinds.FLOATS, kinds.INTS, kinds.STRINGS}:
        numpy = require("numpy", "ONNX models")
        if attribute.type == kinds.FLOATS:
            array = numpy.asarray(attribute.floats, dtype="<f4")
        elif attribute.type == kinds.INTS:
            array = numpy.asarray(attribute.ints, dtype="<i8")
        else:
            array = numpy.asarray([text.decode("utf-8", "replace") for text in attribute.strings], dtype=str)
        yield from array_tensors(name, array)
    elif attribute.type == kinds.GRAPH:
        yield from _graph(onnx, attribute.g, f"{name}/", directory, depth + 1)
    elif attribute.type == kinds.GRAPHS:
        for place, graph in enumerate(attribute.graphs):
            yield from _graph(onnx, graph, f"{name}.{place}/", directory, depth + 1)


def _tensor(onnx: Any, tensor: Any, name: str, directory: Path) -> Tensor:
    kind = onnx.TensorProto.DataType.Name(tensor.data_type) if tensor.data_type else "UNDEFINED"
    where = f"tensor {name!r}"
    shape = tuple(int(length) for length in tensor.dims)
    if kind == "STRING":
        numpy = require("numpy", "ONNX models")
        texts = [text.decode("utf-8", "replace") for text in tensor.string_data]
        (made,) = array_tensors(
            name, numpy.asarray(texts, dtype=str).reshape(_fitting(shape, len(texts), where))
        )
        return made
    dtype = _DTYPES.get(kind, "")
    if dtype not in BITS:
        raise EncodingError(f"{where} has elements of type {kind}, which is not known here")
    size = packed_size(dtype, shape, where)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return Tensor(name, dtype, shape, size, _beside(tensor, directory, size, where))
    data = tensor.raw_data if tensor.HasField("raw_data") else _typed(tensor, dtype, where)
    if len(data) != size:
        raise EncodingError(f"{where} has {len(data)} bytes, which its type and shape contradict")
    return Tensor(name, dtype, shape, size, hashlib.sha256(data).digest())


def _fitting(shape: tuple[int, ...], count: int, where: str) -> tuple[int, ...]:
    product = 1
    for length in shape:
        product *= length
    if product != count or any(length < 0 for length in shape):
        raise EncodingError(f"{where} has {count} elements, which its shape contradicts")
    return shape


def _typed(tensor: Any, dtype: str, where: str) -> bytes:
    """Values that are not given as bytes, in the fields that the specification names for each type."""
    numpy = require("numpy", "ONNX models")
    fields = {"F32": ("float_data", "<f4"), "C64": ("float_data", "<f4"), "F64": ("double_data", "<f8")}
    fields |= {"C128": ("double_data", "<f8"), "I64": ("int64_data", "<i8")}
    fields |= {"U32": ("uint64_data", "<u4"), "U64": ("uint64_data", "<u8")}
    signed = {"I8": "<i1", "I16": "<i2", "I32": "<i4"}
    field, form = fields.get(dtype) or ("int32_data", signed.get(dtype, f"<u{BITS[dtype] // 8}"))
    try:
        wide = numpy.asarray(getattr(tensor, field), dtype=form if form[1] == "f" else None)
        values = wide.astype(form, casting="unsafe")
        if form[1] != "f" and not numpy.array_equal(values, wide):
            raise EncodingError(f"{where} has values that its type cannot hold")
    except (OverflowError, ValueError) as error:
        raise EncodingError(f"{where} has values that its type cannot hold") from error
    return bytes(values.tobytes())


def _beside(tensor: Any, directory: Path, size: int, where: str) -> bytes:
    """Hash values that lie in a file beside the model; it must be there, and be no link."""
    told = {entry.key: entry.value for entry in tensor.external_data}
    location = PurePosixPath(told.get("location", ""))
    if location.is_absolute() or ".." in location.parts or not location.parts:
        raise UsageError(
            f"{where} claims to lie in {str(location)!r}, which is not beside the model",
            remedy="Do not trust this model.",
        )
    try:
        offset, length = int(told.get("offset", "0")), int(told.get("length", str(size)))
    except ValueError as error:
        raise EncodingError(f"{where} lies nobody knows where") from error
    if offset < 0 or length != size:
        raise EncodingError(f"{where} has {length} bytes, which its type and shape contradict")
    place = directory
    for part in location.parts[:-1]:
        place /= part
        if place.is_symlink():
            raise UsageError(
                f"{where} lies behind the symbolic link {place}", remedy="Do not trust this model."
            )
    with (
        open_regular(directory / location, follow_symlinks=False) as (descriptor, status),
        open(descriptor, "rb", closefd=False) as file,
    ):
        if offset + size > status.st_size:
            raise EncodingError(f"{where} reaches beyond the end of {location}")
        file.seek(offset)
        return hash_values(file, size, where)
