"""Tensors of scikit-learn models saved with skops: a ZIP archive with a schema in JSON and one ``.npy`` member per array.

What was fitted counts, and what was asked for does not: scikit-learn ends the names of fitted attributes in an underscore or hides
them behind one, so parameters, whose defaults come and go with versions, are passed over, as are the names of classes and modules.
Numbers, text and truth values that were fitted are tensors of one element.

Source: what `skops.io.dump` of version 0.16 writes (its `PROTOCOL` 2), and scikit-learn's developer guide on estimated attributes.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from typing import Any

from lichen.content.weights.arrays import array_tensors
from lichen.content.weights.numpy_files import check_archive, member_of, npy_tensors, require
from lichen.content.weights.tensors import Tensor
from lichen.encoding.foreign_json import read_json
from lichen.errors import EncodingError

__all__ = ["SCHEMA", "skops_tensors"]

SCHEMA = "schema.json"
SCHEMA_BYTES_MAX = 2**28  # (= 268435456)
DEPTH_MAX = 200
VERSION_KEY = "_sklearn_version"


def skops_tensors(archive: zipfile.ZipFile) -> Iterator[Tensor]:
    """Give everything that was fitted.

    Raises:
        EncodingError: The schema is damaged, or names an array that is not there.
        UsageError: NumPy is not installed.
    """
    check_archive(archive)
    if archive.getinfo(SCHEMA).file_size > SCHEMA_BYTES_MAX:
        raise EncodingError("the schema of the skops file is beyond all measure")
    with member_of(archive, SCHEMA) as stream:
        try:
            schema = read_json(stream.read())
        except ValueError as error:
            raise EncodingError(f"the schema of the skops file is not JSON: {error}") from error
    nodes: dict[int, dict[str, Any]] = {}
    for name, node in _leaves(schema, "", 0, nodes, frozenset()):
        if node.get("is_json"):
            yield from _value(name, node.get("content"))
        else:
            with member_of(archive, str(node.get("file"))) as stream:
                yield from npy_tensors(stream, name)


def _leaves(
    node: Any, name: str, depth: int, nodes: dict[int, dict[str, Any]], above: frozenset[int]
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Find arrays and values below a node of the schema, under the names that lead to them."""
    if not isinstance(node, dict) or depth > DEPTH_MAX:
        raise EncodingError(f"the schema of the skops file is damaged at {name!r}")
    identity = node.get("__id__")
    if node.get("__loader__") == "CachedNode" and isinstance(identity, int):
        if identity in above:
            return  # it contains itself
        if identity not in nodes:
            raise EncodingError(f"the schema of the skops file refers to nothing at {name!r}")
        node = nodes[identity]
    elif isinstance(identity, int):
        nodes.setdefault(identity, node)
    if isinstance(identity, int):
        above |= {identity}
    if node.get("is_json") or isinstance(node.get("file"), str):
        yield name, node
        return
    for part, inner in _inner(node):
        yield from _leaves(
            inner, f"{name}.{part}" if name and part else name or part, depth + 1, nodes, above
        )


def _inner(node: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What is directly inside of a node: attributes, items, arguments."""
    content = node.get("content")
    if isinstance(content, dict) and "__loader__" in content:
        yield "", content
    elif isinstance(content, dict):
        estimator = VERSION_KEY in content
        for key, inner in content.items():
            if not estimator or (key != VERSION_KEY and (key.endswith("_") or key.startswith("_"))):
                yield key, inner
    elif isinstance(content, list):
        for place, inner in enumerate(content):
            yield str(place), inner
    for part in ("attrs", "args", "kwargs", "reduce", "state"):
        inner = node.get(part)
        if isinstance(inner, dict):
            yield part, inner


def _value(name: str, text: Any) -> Iterator[Tensor]:
    numpy = require("numpy", "skops files")
    try:
        value = read_json(text)
    except (TypeError, ValueError) as error:
        raise EncodingError(f"the value of {name!r} in the skops file is not JSON") from error
    if isinstance(value, bool | int | float | str):
        try:
            yield from array_tensors(name, numpy.asarray(value))
        except OverflowError:
            yield from array_tensors(name, numpy.asarray(str(value)))
