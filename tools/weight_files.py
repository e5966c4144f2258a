"""Save the same weights with whatever libraries this interpreter has: samples for the tests of tensor digests.

::

    python tools/weight_files.py tests/vectors/weights

Each file is named after the library that wrote it and its version, ``safetensors-0.8.0.safetensors``. Run it again where other
versions are installed to add theirs; the digests that all of them must have are in ``digests.json`` there, written by hand.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


def library(name: str) -> ModuleType | None:
    """Import a library, or say that it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        print(f"without {name}, which is not installed here", file=sys.stderr)
        return None


def layers(numpy: Any) -> dict[str, Any]:
    """Small weights of several types; every value is exact in each of them."""
    return {
        "dense.weight": numpy.arange(12, dtype="float32").reshape(3, 4) / 8,
        "dense.bias": numpy.array([-1.5, 0.0, 2.25], dtype="float16"),
        "steps": numpy.array(7, dtype="int64"),
        "mask": numpy.array([True, False]),
        "nothing": numpy.zeros((0, 2), dtype="float64"),
    }


def save_arrays(place: Path, numpy: Any) -> None:
    """Save NumPy's archives, in several layouts, and safetensors."""
    made = layers(numpy)
    version = numpy.__version__
    numpy.savez(place / f"numpy-{version}.npz", **made)
    numpy.savez_compressed(place / f"numpy-{version}-compressed.npz", **made)
    swapped = {
        name: numpy.array(array, order="F").astype(array.dtype.newbyteorder(">"))
        for name, array in made.items()
    }
    numpy.savez(place / f"numpy-{version}-otherwise-laid-out.npz", **swapped)
    if (safetensors := library("safetensors.numpy")) is not None:
        from safetensors import __version__

        safetensors.save_file(
            made, place / f"safetensors-{__version__}.safetensors", metadata={"format": "np"}
        )


def save_torch(place: Path, numpy: Any) -> None:
    """Save PyTorch's archives, one with a transposed view."""
    if (torch := library("torch")) is None:
        return
    made = {name: torch.from_numpy(array) for name, array in layers(numpy).items()}
    name = f"torch-{torch.__version__.partition('+')[0]}"
    torch.save(made, place / f"{name}.pt")
    turned = {key: value.T.contiguous().T if value.ndim == 2 else value for key, value in made.items()}
    torch.save(turned, place / f"{name}-transposed.pt")


def save_onnx(place: Path, numpy: Any) -> None:
    """Save ONNX models that hold the weights as bytes and in typed fields."""
    if (onnx := library("onnx")) is None:
        return
    helper, numpy_helper = (
        importlib.import_module("onnx.helper"),
        importlib.import_module("onnx.numpy_helper"),
    )
    made = [numpy_helper.from_array(array, name) for name, array in layers(numpy).items()]
    shape = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = helper.make_node("Identity", ["x"], ["y"])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    model = helper.make_model(helper.make_graph([node], "layers", [shape], [out], made))
    (place / f"onnx-{onnx.__version__}.onnx").write_bytes(model.SerializeToString())
    typed = [
        helper.make_tensor(name, tensor.data_type, tensor.dims, layers(numpy)[name].ravel().tolist())
        for name, tensor in zip(layers(numpy), made, strict=True)
    ]
    model = helper.make_model(helper.make_graph([node], "layers", [shape], [out], typed))
    (place / f"onnx-{onnx.__version__}-typed.onnx").write_bytes(model.SerializeToString())


def save_estimators(place: Path, numpy: Any) -> None:
    """Save a fitted estimator, with skops."""
    if (skops := library("skops.io")) is None or (neighbors := library("sklearn.neighbors")) is None:
        return
    rows = numpy.arange(20, dtype="float64").reshape(10, 2) % 7
    labels = numpy.array(["ill", "well"] * 5)
    fitted = neighbors.NearestCentroid().fit(rows, labels)
    skops.dump(fitted, place / f"skops-{importlib.import_module('skops').__version__}.skops")


if __name__ == "__main__":
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    if (found := library("numpy")) is None:
        sys.exit("nothing can be saved without numpy")
    for save in (save_arrays, save_torch, save_onnx, save_estimators):
        save(directory, found)
