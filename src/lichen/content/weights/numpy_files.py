"""Tensors of NumPy's files: ``.npy`` holds one array, ``.npz`` is a ZIP archive of them.

Arrays in row-major order are hashed as they are read; others are mapped from the file, so that none is ever held whole.

Source: NumPy's own documentation of the format (numpy.lib.format, versions 1.0 to 3.0).
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from lichen.content.weights.arrays import array_tensors, dtype_name
from lichen.content.weights.tensors import Tensor, hash_values
from lichen.errors import EncodingError, UsageError

if TYPE_CHECKING:
    import types

    import numpy

__all__ = ["check_archive", "member_of", "npy_tensors", "npz_tensors", "require"]

UNPACKED_BYTES_MAX = 2**38  # (= 256 GiB) of one archive, compressed or not
MEMBERS_MAX = 1_000_000
_Header = tuple[tuple[int, ...], bool, "numpy.dtype[Any]"]


def require(name: str, what: str) -> types.ModuleType:
    """Import a library that only some formats need.

    Args:
        name: Of the module.
        what: The files that need it.

    Raises:
        UsageError: It is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{what} need the package {name.partition('.')[0]}, which is not installed",
            remedy="Install it with `pip install 'lichen[weights]'`.",
        ) from error


def npy_tensors(stream: IO[bytes], name: str = "") -> Iterator[Tensor]:
    """Give the array of a ``.npy`` file, or the fields of a structured one.

    Args:
        stream: The file from its start.
        name: What the array is called.

    Raises:
        EncodingError: Not such a file, cut short, or its elements are Python objects.
        UsageError: NumPy is not installed.
    """
    shape, fortran_order, dtype = _read_header(stream, name)
    where = f"array {name!r}"
    plain = dtype.names is None and dtype.kind in "biufcmM" and dtype.byteorder != ">"
    if plain and not (fortran_order and len(shape) > 1):
        size = math.prod(shape) * dtype.itemsize
        yield Tensor(name, dtype_name(dtype, where), shape, size, hash_values(_binary(stream), size, where))
    else:
        if dtype.hasobject:
            raise EncodingError(
                f"{where} holds Python objects, which only unpickling would show", remedy="Save numbers."
            )
        yield from _mapped(stream, name, (shape, fortran_order, dtype))
    if stream.read(1):
        raise EncodingError(f"there is something behind {where}")


def _read_header(stream: IO[bytes], name: str) -> _Header:
    form = require("numpy.lib.format", "NumPy files")
    try:
        version = form.read_magic(stream)
        read = form.read_array_header_1_0 if version == (1, 0) else form.read_array_header_2_0
        shape, fortran_order, dtype = read(stream)
    except (ValueError, TypeError, SyntaxError, OverflowError, MemoryError, RecursionError) as error:
        raise EncodingError(f"the header of array {name!r} is not one of NumPy's: {error}") from error
    if any(length < 0 for length in shape):
        raise EncodingError(f"array {name!r} has an impossible shape")
    return shape, fortran_order, dtype


def _binary(stream: IO[bytes]) -> BinaryIO:
    return stream  # type: ignore[return-value]  # members of an archive are read like files


def _mapped(stream: IO[bytes], name: str, header: _Header) -> Iterator[Tensor]:
    """Hash an array through a mapping of a file that holds just its values."""
    numpy = require("numpy", "NumPy files")
    shape, fortran_order, dtype = header
    size = math.prod(shape) * dtype.itemsize
    with tempfile.TemporaryFile() as values:
        left = size
        while left:
            piece = stream.read(min(left, 2**20))
            if not piece:
                raise EncodingError(f"the file ends within array {name!r}: {left} bytes are missing")
            values.write(piece)
            left -= len(piece)
        values.flush()
        order = "F" if fortran_order else "C"
        if size:
            array = numpy.memmap(values, dtype=dtype, mode="r", shape=shape, order=order)
        else:
            array = numpy.empty(shape, dtype=dtype, order=order)
        yield from array_tensors(name, array)


def npz_tensors(archive: zipfile.ZipFile) -> Iterator[Tensor]:
    """Give every array of an ``.npz`` archive under its name there.

    Raises:
        EncodingError: A member is damaged or is no array.
        UsageError: The archive unpacks to more than is taken.
    """
    check_archive(archive)
    for member in archive.infolist():
        with member_of(archive, member) as stream:
            yield from npy_tensors(stream, member.filename.removesuffix(".npy"))


def check_archive(archive: zipfile.ZipFile) -> None:
    """Check what an archive claims before anything of it is unpacked.

    Raises:
        EncodingError: Two members of one name.
        UsageError: Too many members, or too many bytes.
    """
    members = archive.infolist()
    if len({member.filename for member in members}) != len(members):
        raise EncodingError("two members of the archive have the same name")
    total = sum(member.file_size for member in members)
    if total > UNPACKED_BYTES_MAX or len(members) > MEMBERS_MAX:
        raise UsageError(
            f"the archive unpacks to {len(members)} members and {total} bytes; at most {MEMBERS_MAX} and"
            f" {UNPACKED_BYTES_MAX} are taken",
            remedy="Save the weights as safetensors.",
        )


@contextlib.contextmanager
def member_of(archive: zipfile.ZipFile, member: zipfile.ZipInfo | str) -> Iterator[IO[bytes]]:
    """Open a member of an archive; what is wrong with it is an `EncodingError`.

    Raises:
        EncodingError: It is missing, damaged, encrypted, or packed in a way that is not known here.
    """
    name = member if isinstance(member, str) else member.filename
    try:
        with archive.open(member) as stream:
            yield stream
    except KeyError as error:
        raise EncodingError(f"the archive has no member {name!r}") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise EncodingError(f"member {name!r} of the archive is damaged: {error}") from error
