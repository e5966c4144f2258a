"""Weights have one digest in whatever file they lie; nothing in a file of weights is run, believed or waited for."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.content.weights import tensor_digest
from lichen.content.weights.tensors import Tensor, digest_of
from lichen.errors import EncodingError, LichenError, UsageError

numpy = pytest.importorskip("numpy")

SAMPLES = Path(__file__).parents[2] / "vectors" / "weights"
LAYERS = sorted(path.name for path in SAMPLES.iterdir() if path.suffix not in {".md", ".skops"})


def line(name: str, dtype: str, shape: list[int], values: bytes) -> bytes:
    sha256 = hashlib.sha256(values).hexdigest()
    return f'{{"dtype":"{dtype}","name":"{name}","sha256":"{sha256}","shape":{json.dumps(shape, separators=(",", ":"))}}}\n'.encode()


def by_hand(*lines: bytes) -> bytes:
    return hashlib.sha256(b"lichen tensors v1\n" + b"".join(lines)).digest()


LAYERS_DIGEST = by_hand(
    line("dense.bias", "F16", [3], struct.pack("<3e", -1.5, 0, 2.25)),
    line("dense.weight", "F32", [3, 4], struct.pack("<12f", *[n / 8 for n in range(12)])),
    line("mask", "BOOL", [2], b"\1\0"),
    line("nothing", "F64", [0, 2], b""),
    line("steps", "I64", [], struct.pack("<q", 7)),
)


@pytest.mark.parametrize("name", LAYERS)
def test_the_same_tensors_have_one_digest_in_every_file_of_every_library(name: str) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    told = tensor_digest(SAMPLES / name)
    assert told.digest == LAYERS_DIGEST
    assert (told.tensor_count, told.size_bytes) == (5, 6 + 48 + 2 + 8)


def test_a_fitted_estimator_has_one_digest_whatever_version_of_its_libraries_saved_it() -> None:
    one, other = (tensor_digest(path) for path in sorted(SAMPLES.glob("*.skops")))
    assert one == other
    assert one.file_format == "skops"


def test_what_was_asked_of_an_estimator_does_not_count_and_what_was_fitted_does(tmp_path: Path) -> None:
    def rewritten(old: str, new: str) -> bytes:
        source = sorted(SAMPLES.glob("*.skops"))[0]
        path = tmp_path / "model.skops"
        with zipfile.ZipFile(source) as archive, zipfile.ZipFile(path, "w") as changed:
            for name in archive.namelist():
                data = archive.read(name)
                if name == "schema.json":
                    assert old in data.decode()
                    data = data.decode().replace(old, new).encode()
                changed.writestr(name, data)
        return tensor_digest(path).digest

    same = tensor_digest(sorted(SAMPLES.glob("*.skops"))[0]).digest
    assert rewritten('"shrink_threshold"', '"shrinkage"') == same
    assert rewritten('"centroids_"', '"centers_"') != same


def test_one_changed_bit_name_type_or_shape_changes_the_digest(tmp_path: Path) -> None:
    def digest(**arrays: Any) -> bytes:
        numpy.savez(tmp_path / "a.npz", **arrays)
        return tensor_digest(tmp_path / "a.npz").digest

    base = numpy.arange(6, dtype="int32")
    changed = base.copy()
    changed[5] ^= 1
    found = {
        digest(w=base), digest(w=changed), digest(v=base), digest(w=base.astype("uint32")), digest(w=base.reshape(2, 3)),
        digest(w=base, v=base), digest(w=base[:5]),
    }  # fmt: skip
    assert len(found) == 7


def test_padding_between_the_fields_of_a_structured_array_counts_for_nothing(tmp_path: Path) -> None:
    def digest(padding: int) -> bytes:
        form = numpy.dtype({"names": ["a", "b"], "formats": ["u1", "<f8"], "offsets": [0, 8], "itemsize": 16})
        array = numpy.frombuffer(bytes([1, *[padding] * 7, *[2] * 8]) * 3, dtype=form)
        numpy.save(tmp_path / "s.npy", array)
        return tensor_digest(tmp_path / "s.npy").digest

    assert digest(0) == digest(255)


def test_large_arrays_of_any_layout_are_hashed_piece_by_piece(tmp_path: Path) -> None:
    array = numpy.arange(3 * 700 * 900, dtype="float32").reshape(3, 700, 900)
    digests = set()
    for form in (array, numpy.asfortranarray(array), array.astype(">f4")):
        numpy.save(tmp_path / "a.npy", form)
        digests.add(tensor_digest(tmp_path / "a.npy").digest)
    assert digests == {by_hand(line("", "F32", [3, 700, 900], array.tobytes()))}


def test_text_counts_by_its_letters_and_not_by_the_width_of_its_column(tmp_path: Path) -> None:
    digests = set()
    for form in ("<U4", "<U40", ">U4"):
        numpy.save(tmp_path / "t.npy", numpy.array(["ill", "well"], dtype=form))
        digests.add(tensor_digest(tmp_path / "t.npy").digest)
    assert len(digests) == 1


# ---- PyTorch's pickles ---------------------------------------------------------------------------------------------


class Stands:
    """Pickled as a call of a function that is named and never there."""

    def __init__(self, name: str, *arguments: object) -> None:
        self.name, self.arguments = name, arguments


def torch_file(path: Path, described: bytes, storages: dict[str, bytes], byteorder: str = "little") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("model/data.pkl", described)
        archive.writestr("model/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"model/data/{key}", data)
    return path


def tensor_pickle(
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    offset: int = 0,
    storage: str = "FloatStorage",
    key: str = "0",
) -> bytes:
    """What `torch.save({"w": tensor})` writes, opcode by opcode."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def tuple_of(*parts: bytes) -> bytes:
        return b"(" + b"".join(parts) + b"t"

    reference = (
        tuple_of(text("storage"), f"ctorch\n{storage}\n".encode(), text(key), text("cpu"), number(4)) + b"Q"
    )
    arguments = tuple_of(
        reference,
        number(offset),
        tuple_of(*map(number, shape)),
        tuple_of(*map(number, stride)),
        b"\x89",
        b"N",
    )
    return b"\x80\x02}" + text("w") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


FLOATS = struct.pack("<6f", *range(6))


def test_a_tensor_is_read_by_its_strides_and_its_byte_order(tmp_path: Path) -> None:
    plain = torch_file(tmp_path / "a.pt", tensor_pickle((2, 3), (3, 1)), {"0": FLOATS})
    turned = struct.pack("<6f", 0, 3, 1, 4, 2, 5)
    strided = torch_file(tmp_path / "b.pt", tensor_pickle((2, 3), (1, 2)), {"0": turned})
    swapped = torch_file(
        tmp_path / "c.pt", tensor_pickle((2, 3), (3, 1)), {"0": struct.pack(">6f", *range(6))}, "big"
    )
    part = torch_file(tmp_path / "d.pt", tensor_pickle((2, 3), (3, 1), offset=2), {"0": b"\xff" * 8 + FLOATS})
    expected = by_hand(line("w", "F32", [2, 3], FLOATS))
    assert {tensor_digest(path).digest for path in (plain, strided, swapped, part)} == {expected}


@pytest.mark.parametrize(
    ("description", "storages"),
    [
        (tensor_pickle((2, 3), (3, 1)), {"0": FLOATS[:-1]}),
        (tensor_pickle((2, 3), (3, 1), offset=1), {"0": FLOATS}),
        (tensor_pickle((2, 3), (3, 1)), {}),
        (tensor_pickle((2, -3), (3, 1)), {"0": FLOATS}),
        (tensor_pickle((2, 3), (3,)), {"0": FLOATS}),
        (tensor_pickle((2, 3), (3, 1), storage="system"), {"0": FLOATS}),
        (tensor_pickle((2**40, 2**40), (0, 0)), {"0": FLOATS}),
        (tensor_pickle((2, 3), (3, 1), key="../../secret"), {"0": FLOATS}),
        (tensor_pickle((2, 3), (3, 1))[:-9], {"0": FLOATS}),
        (b"\x80\x02}.", {}),
        (b"\x80\x02\x82\x01.", {}),
        (b"(" * 100_000 + b".", {}),
        (b"\x80\x02]\x94h\x00a.", {}),
    ],
    ids=[
        "cut-short", "beyond-its-storage", "storage-missing", "negative-length", "too-few-strides", "no-storage-type",
        "spread-beyond-measure", "path-as-key", "pickle-cut-short", "no-tensors", "extension", "marks-only",
        "contains-itself",
    ],
)  # fmt: skip
def test_a_hostile_torch_file_is_refused(
    tmp_path: Path, description: bytes, storages: dict[str, bytes]
) -> None:
    path = torch_file(tmp_path / "a.pt", description, storages)
    with pytest.raises((EncodingError, UsageError)):
        tensor_digest(path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("touched-by-a-pickle"),))


def test_nothing_that_a_pickle_asks_for_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = torch_file(tmp_path / "a.pt", pickle.dumps({"w": Bomb()}), {})
    with pytest.raises(LichenError):
        tensor_digest(path)
    (tmp_path / "b.pkl").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(EncodingError, match="a pickle, which would have to be run"):
        tensor_digest(tmp_path / "b.pkl")
    numpy.save(tmp_path / "c.npy", numpy.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(EncodingError, match="only unpickling would show"):
        tensor_digest(tmp_path / "c.npy")
    assert not (tmp_path / "touched-by-a-pickle").exists()


def test_a_whole_pickled_model_is_refused_with_what_to_save_instead(tmp_path: Path) -> None:
    data = b"\x80\x02ctorch.nn.modules.linear\nLinear\n)\x81}X\x01\x00\x00\x00aK\x01sb."
    with pytest.raises(UsageError, match="state_dict"):
        tensor_digest(torch_file(tmp_path / "a.pt", data, {}))


# ---- safetensors, archives, and what is none of them ---------------------------------------------------------------


def safetensors_file(path: Path, header: Any, data: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


@pytest.mark.parametrize(
    ("header", "data"),
    [
        ({"w": ENTRY}, b"123"),
        ({"w": ENTRY}, b"12345"),
        ({"w": {**ENTRY, "shape": [2]}}, b"1234"),
        ({"w": {**ENTRY, "shape": [-1]}}, b"1234"),
        ({"w": {**ENTRY, "shape": [True]}}, b"1234"),
        ({"w": {**ENTRY, "dtype": "F31"}}, b"1234"),
        ({"w": {**ENTRY, "data_offsets": [4, 0]}}, b"1234"),
        ({"w": {**ENTRY, "data_offsets": [1, 5]}}, b"12345"),
        ({"w": ENTRY, "v": ENTRY}, b"1234"),
        ({"w": {"dtype": "F32"}}, b"1234"),
        ({"w": {**ENTRY, "dtype": ["F32"]}}, b"1234"),
        ({"w": 3}, b""),
        (b'{"w":1,"w":2}', b""),
        (b"{" + b'"a":{' * 50_000, b""),
        (b"{}", b""),
        ({"w": {"dtype": "F4", "shape": [3], "data_offsets": [0, 2]}}, b"12"),
    ],
)
def test_a_hostile_safetensors_file_is_refused(tmp_path: Path, header: Any, data: bytes) -> None:
    with pytest.raises(EncodingError, match=r"w\.safetensors"):
        tensor_digest(safetensors_file(tmp_path / "w.safetensors", header, data))


def test_types_that_numpy_lacks_are_named_all_the_same(tmp_path: Path) -> None:
    header = {"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    told = tensor_digest(safetensors_file(tmp_path / "w.safetensors", header, b"1234"))
    assert told.digest == by_hand(line("w", "BF16", [2], b"1234"))
    stored = torch_file(
        tmp_path / "w.pt", tensor_pickle((2,), (1,), storage="BFloat16Storage"), {"0": b"1234"}
    )
    assert tensor_digest(stored).digest == told.digest


def test_an_archive_that_unpacks_beyond_measure_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    numpy.savez(path, w=numpy.zeros(3))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 20 : at + 28] = struct.pack("<II", 0xFFFFFFFE, 0xFFFFFFFE)
    entry = bytes(data[at : data.rindex(b"PK\x05\x06")])
    copies = [
        entry.replace(b"w.npy", b"%c.npy" % letter) for letter in range(ord("0"), ord("z") + 1)
    ]  # 4 GiB each
    body = bytes(data[:at]) + b"".join(copies)
    count = len(copies)
    end = struct.pack("<4sHHHHIIH", b"PK\x05\x06", 0, 0, count, count, len(body) - at, at, 0)
    path.write_bytes(body + end)
    with pytest.raises(UsageError, match=f"unpacks to {count} members"):
        tensor_digest(path)


@pytest.mark.parametrize(
    "data",
    [b"", b"a", b"PK\x03\x04", b"\x93NUMPY\x01\x00\xff\xff", b"GGUF" + bytes(20), b"\x89HDF\r\n\x1a\n", b"\x08\x07garbage" * 9],
)  # fmt: skip
def test_a_file_that_holds_no_weights_is_named_with_the_reason(tmp_path: Path, data: bytes) -> None:
    if data.startswith(b"\x08"):
        pytest.importorskip("onnx")
    (tmp_path / "w.bin").write_bytes(data)
    with pytest.raises(EncodingError, match=r"w\.bin"):
        tensor_digest(tmp_path / "w.bin")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="directory"):
        tensor_digest(tmp_path)
    with pytest.raises(UsageError, match="there is no file"):
        tensor_digest(tmp_path / "nothing")


@pytest.mark.parametrize("location", ["../outside", "/etc/passwd", "", "link/values", "link"])
def test_values_of_an_onnx_model_lie_beside_it_or_nowhere(tmp_path: Path, location: str) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "outside").write_bytes(b"1234")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "link").symlink_to(tmp_path)
    (tmp_path / "m" / "beside").write_bytes(b"....1234")
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[1], data_location=1)
    for key, value in {"location": location, "offset": "4", "length": "4"}.items():
        tensor.external_data.add(key=key, value=value)
    model = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], [tensor]))
    path = tmp_path / "m" / "a.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(LichenError):
        tensor_digest(path)
    model.graph.initializer[0].external_data[0].value = "beside"
    path.write_bytes(model.SerializeToString())
    assert tensor_digest(path).digest == by_hand(line("w", "F32", [1], b"1234"))


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(path.name for path in SAMPLES.iterdir())), st.data())
def test_a_damaged_file_gives_a_digest_or_an_error_of_lichen(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    if name.endswith(".onnx"):
        pytest.importorskip("onnx")
    damaged = bytearray((SAMPLES / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(len(damaged) // 2, len(damaged)))]
    path = tmp_path_factory.mktemp("damaged") / name
    path.write_bytes(damaged)
    try:
        assert len(tensor_digest(path).digest) == 32
    except LichenError as error:
        assert error.message


@given(st.permutations(["a", "b", "ab", "é", "z"]))
def test_the_order_of_tensors_does_not_count(names: list[str]) -> None:
    tensors = [Tensor(name, "U8", (1,), 1, hashlib.sha256(name.encode()).digest()) for name in names]
    expected = digest_of(
        [Tensor(n, "U8", (1,), 1, hashlib.sha256(n.encode()).digest()) for n in sorted(names)], "npz"
    )
    assert digest_of(tensors, "npz") == expected


def test_two_tensors_of_one_name_are_refused() -> None:
    tensor = Tensor("a", "U8", (1,), 1, bytes(32))
    with pytest.raises(EncodingError, match="two tensors are called 'a'"):
        digest_of([tensor, tensor], "torch")


def test_names_beyond_plain_letters_are_taken(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    numpy.savez(buffer, **{"é ü\n": numpy.ones(1)})
    (tmp_path / "a.npz").write_bytes(buffer.getvalue())
    assert tensor_digest(tmp_path / "a.npz").tensor_count == 1
