"""Which format a file of weights has, by its content and not by its name; and its tensor digest.

Source: the formats' own magic numbers.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lichen.content.files import StrPath, open_regular, show_path
from lichen.content.weights.numpy_files import npy_tensors, npz_tensors
from lichen.content.weights.onnx_file import onnx_tensors
from lichen.content.weights.safetensors_file import looks_like_safetensors, safetensors_tensors
from lichen.content.weights.skops_file import SCHEMA, skops_tensors
from lichen.content.weights.tensors import Tensor, TensorDigest, digest_of
from lichen.content.weights.torch_file import looks_like_torch, torch_tensors
from lichen.errors import EncodingError, LichenError

__all__ = ["tensor_digest"]

START_BYTES = 16
_REFUSED = {
    b"\x80": "a pickle, which would have to be run to be read",
    b"\x89HDF": "an HDF5 file",
    b"GGUF": "a GGUF file",
    b"\x1f\x8b": "packed with gzip",
    b"x\x9c": "packed with zlib",
    b"x\x01": "packed with zlib",
}


def tensor_digest(path: StrPath) -> TensorDigest:
    """Name the weights in a file: the same tensors give the same digest in every file and format.

    Args:
        path: A safetensors, NumPy (``.npy``, ``.npz``), PyTorch, skops or ONNX file; which one is seen from its content.

    Returns:
        The digest, which is that of :mod:`lichen.content.weights.tensors`.

    Raises:
        EncodingError: None of these, or damaged.
        UsageError: No such file, or a package that its format needs is not installed.
        FileChangedError: Written to while it was read.
    """
    with open_regular(path) as (descriptor, status), os.fdopen(os.dup(descriptor), "rb") as stream:
        start = stream.read(START_BYTES)
        stream.seek(0)
        try:
            if start.startswith(b"PK\x03\x04"):
                return _archive(stream)
            file_format, tensors = _plain(stream, start, status.st_size, path)
            return digest_of(tensors, file_format)
        except EncodingError as error:
            raise EncodingError(f"{show_path(path)}: {error.message}", remedy=error.remedy) from error
        except (MemoryError, RecursionError) as error:
            raise EncodingError(f"{show_path(path)} asks for more memory than there is") from error


def _plain(stream: BinaryIO, start: bytes, size_bytes: int, path: StrPath) -> tuple[str, Iterator[Tensor]]:
    if start.startswith(b"\x93NUMPY"):
        return "npy", npy_tensors(stream)
    if looks_like_safetensors(start):
        return "safetensors", safetensors_tensors(stream, size_bytes)
    for magic, what in _REFUSED.items():
        if start.startswith(magic):
            raise EncodingError(
                f"this is {what}; its weights are not looked into",
                remedy="Its content id names it byte for byte. Save the weights as safetensors to name them alone.",
            )
    if start.startswith(b"\x08") or Path(os.fsdecode(path)).suffix == ".onnx":
        return "onnx", onnx_tensors(stream, Path(os.fsdecode(path)).parent)
    raise EncodingError(
        "this is no file of weights that is known here",
        remedy="Known are safetensors, NumPy, PyTorch, skops and ONNX files.",
    )


def _archive(stream: BinaryIO) -> TensorDigest:
    try:
        with zipfile.ZipFile(stream) as archive:
            names = archive.namelist()
            if SCHEMA in names:
                return digest_of(skops_tensors(archive), "skops")
            if looks_like_torch(names):
                return digest_of(torch_tensors(archive), "torch")
            if names and all(name.endswith(".npy") for name in names):
                return digest_of(npz_tensors(archive), "npz")
    except LichenError:
        raise
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, OSError) as error:
        raise EncodingError(f"the archive is damaged: {error}") from error
    raise EncodingError(
        "this archive holds no weights that are known here",
        remedy="Known are archives of NumPy, PyTorch and skops.",
    )
