"""The identity of weights: one digest for the same tensors, in whatever file and by whatever version they were saved.

A file's CID changes when a library writes its header in another order; the tensors in it may be the same. The tensor digest
names the tensors alone: their names, element types, shapes and values.

- ``tensors``: the canonical form and the digest over it
- ``recognise``: which format a file has, by its content; :func:`tensor_digest` for any of them
- ``safetensors_file``, ``numpy_files``, ``torch_file``, ``skops_file``, ``onnx_file``: one format each
- ``arrays``: hashing NumPy arrays, whatever their layout in memory
- ``pickle_symbols``: reading what a pickle describes without doing what it says

Nothing here unpickles or imports what a file names, so looking at a hostile model is safe.
"""

from __future__ import annotations

from lichen.content.weights.recognise import tensor_digest
from lichen.content.weights.tensors import Tensor, TensorDigest

__all__ = ["Tensor", "TensorDigest", "tensor_digest"]
