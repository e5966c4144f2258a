"""Two programs, written apart, agree on what an archive may be: `restore`, and the file that travels with the archive.

Every kind of file is spoilt in every way there is: a bit of each class of bytes flipped, cut, lengthened, left out, doubled,
exchanged. First as damage does it; then as a forger does it, who makes the list of files right again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.errors import LichenError

if TYPE_CHECKING:
    from tests.unit.archive.conftest import Place, Verify

Refusal = Callable[[Path], LichenError | None]

FLIPS_PER_FILE = 8
FREE_TEXT = {"README.md", "verify_ledger.py"}  # a forger may rewrite these, so nobody is to believe them


def kind_of(name: str) -> str:
    """Files of one kind are of one form; one of each kind stands for all."""
    parts = name.split("/")
    return "/".join(parts[:2]) if parts[0] == "tile" else parts[0]


def one_of_each(archive: Path) -> dict[str, Path]:
    """The longest file of each kind."""
    found: dict[str, Path] = {}
    for path in sorted(archive.rglob("*"), key=lambda path: path.stat().st_size):
        if path.is_file():
            found[kind_of(path.relative_to(archive).as_posix())] = path
    return found


def spoilt(data: bytes, step: int = 1) -> Iterator[tuple[str, bytes]]:
    """Every class of change to one file."""
    places = {
        0,
        1,
        len(data) - 1,
        *(len(data) * number // FLIPS_PER_FILE for number in range(FLIPS_PER_FILE)),
    }
    for number, place in enumerate(sorted(places)[::step]):
        flipped = bytearray(data)
        flipped[place] ^= 1 << number % 8
        yield f"byte-{place}-bit-{number % 8}", bytes(flipped)
    yield "cut", data[:-1]
    yield "halved", data[: len(data) // 2]
    yield "empty", b""
    yield "longer", data + b"\n"
    yield "doubled", data + data
    yield "without-its-first-byte", data[1:]


def test_the_archive_as_it_is_holds(written: Place, verify: Verify, restore_error: Refusal):
    status, answer = verify(written.out)
    assert (status, answer["why"]) == (0, None)
    assert answer["discredited"] == [7]
    assert restore_error(written.out) is None


KINDS = (
    "README.md",
    "SHA256SUMS",
    "archive.json",
    "artefacts",
    "artefacts.jsonl",
    "checkpoint",
    "checkpoints",
    "keys.json",
    "tile/0",
    "tile/entries",
    "verify_ledger.py",
)


def test_every_kind_of_file_is_tried(written: Place):
    assert tuple(sorted(one_of_each(written.out))) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_found(kind: str, copy: Path, verify: Verify, restore_error: Refusal):
    path = one_of_each(copy)[kind]
    before = path.read_bytes()
    for name, data in spoilt(before):
        path.write_bytes(data)
        assert verify(copy)[0] == 1, f"{kind}: {name}"
        assert restore_error(copy) is not None, f"{kind}: {name}"
    path.write_bytes(before)
    assert verify(copy)[0] == 0


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {*FREE_TEXT, "SHA256SUMS"}])
def test_forgery_is_found(kind: str, copy: Path, verify: Verify, restore_error: Refusal, resum: Refusal):
    path = one_of_each(copy)[kind]
    before = path.read_bytes()
    for name, data in spoilt(before):
        path.write_bytes(data)
        resum(copy)
        status, answer = verify(copy)
        assert status == 1, f"{kind}: {name}"
        assert answer["why"]
        assert restore_error(copy) is not None, f"{kind}: {name}"
    path.write_bytes(before)
    resum(copy)
    assert verify(copy)[0] == 0


def test_each_byte_of_an_entry_counts(copy: Path, verify: Verify, restore_error: Refusal, resum: Refusal):
    """The first bad index is named: version, key id, signature and payload of one entry in the middle."""
    (path,) = (copy / "tile/entries").rglob("[0-9]*/*")
    before = path.read_bytes()
    start = 0
    for _ in range(7):
        start += 2 + int.from_bytes(before[start : start + 2], "big")
    for place in (2, 3, 18, 19, 50, 51, 82, 83, 90, 400):
        flipped = bytearray(before)
        flipped[start + place] ^= 1
        path.write_bytes(flipped)
        resum(copy)
        status, answer = verify(copy)
        assert (status, answer["index"]) == (1, 7), f"byte {place}: {answer}"
        assert restore_error(copy) is not None, f"byte {place}"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("forged", [False, True], ids=["damaged", "forged"])
def test_a_missing_file_is_found(
    kind: str, forged: bool, copy: Path, verify: Verify, restore_error: Refusal, resum: Refusal
):
    one_of_each(copy)[kind].unlink()
    if forged and kind != "SHA256SUMS":
        resum(copy)
    assert verify(copy)[0] in (1, 2)
    assert restore_error(copy) is not None


@pytest.mark.parametrize(
    "name", ["notes.txt", "tile/0/001", "tile/entries/000.p/1", "artefacts/aa/x.car", "checkpoints/9"]
)
@pytest.mark.parametrize("forged", [False, True], ids=["damaged", "forged"])
def test_a_foreign_file_is_found(
    name: str, forged: bool, copy: Path, verify: Verify, restore_error: Refusal, resum: Refusal
):
    (copy / name).parent.mkdir(parents=True, exist_ok=True)
    (copy / name).write_text("x")
    if forged:
        resum(copy)
    assert verify(copy)[0] == 1
    assert restore_error(copy) is not None


@pytest.mark.parametrize("kind", KINDS)
def test_no_link_is_followed(kind: str, copy: Path, tmp_path: Path, verify: Verify, restore_error: Refusal):
    path = one_of_each(copy)[kind]
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert verify(copy)[0] in (1, 2)
    assert restore_error(copy) is not None


def test_neither_a_linked_folder_nor_a_pipe_is_read(
    copy: Path, tmp_path: Path, verify: Verify, restore_error: Refusal
):
    (copy / "tile").rename(tmp_path / "tile")
    (copy / "tile").symlink_to(tmp_path / "tile")
    assert verify(copy)[0] == 1
    assert restore_error(copy) is not None
    (copy / "tile").unlink()
    (tmp_path / "tile").rename(copy / "tile")
    (copy / "README.md").unlink()
    os.mkfifo(copy / "README.md")
    assert verify(copy)[0] == 1
    assert restore_error(copy) is not None


@pytest.mark.parametrize(
    "name",
    [
        "../outside",
        "/etc/passwd",
        "a/../../outside",
        "./README.md",
        "tile//0",
        "a b",
        "README.md\0",
        "..",
        "tile/.",
    ],
)
def test_names_that_lead_elsewhere_are_refused(
    name: str, copy: Path, tmp_path: Path, verify: Verify, restore_error: Refusal
):
    (tmp_path / "outside").write_text("x")
    lines = (copy / "SHA256SUMS").read_bytes().splitlines(keepends=True)
    lines.append(b"%s  %s\n" % (b"0" * 64, name.encode()))
    (copy / "SHA256SUMS").write_bytes(b"".join(sorted(lines, key=lambda line: line[66:])))
    assert verify(copy)[0] == 1
    error = restore_error(copy)
    assert error is not None
    assert "malformed" in error.message


def test_entries_that_changed_places_are_found(
    copy: Path, verify: Verify, restore_error: Refusal, resum: Refusal
):
    (path,) = (copy / "tile/entries").rglob("[0-9]*/*")
    data, parts = path.read_bytes(), []
    while data:
        size = 2 + int.from_bytes(data[:2], "big")
        parts.append(data[:size])
        data = data[size:]
    for name, changed in [
        ("exchanged", [*parts[:9], parts[10], parts[9], *parts[11:]]),
        ("doubled", [*parts[:9], parts[9], *parts[9:-1]]),
        ("left-out", [*parts[:9], *parts[10:], parts[9]]),
    ]:
        path.write_bytes(b"".join(changed))
        resum(copy)
        status, answer = verify(copy)
        assert (status, answer["index"]) == (1, 10 if name == "doubled" else 9), name
        assert restore_error(copy) is not None, name


def test_an_artefact_under_the_name_of_another_is_found(
    copy: Path, verify: Verify, restore_error: Refusal, resum: Refusal
):
    one, other, *_ = sorted((copy / "artefacts").rglob("*.car"))
    shutil.copy(other, one)
    resum(copy)
    status, answer = verify(copy)
    assert status == 1
    assert "another artefact" in answer["why"]
    assert restore_error(copy) is not None


class TestWhatIsNoArchive:
    def test_not_there(self, tmp_path: Path, verify: Verify, restore_error: Refusal):
        assert verify(tmp_path / "nowhere")[0] == 2
        assert "is not an archive" in str(restore_error(tmp_path / "nowhere"))

    def test_some_directory(self, tmp_path: Path, verify: Verify, restore_error: Refusal):
        (tmp_path / "some").mkdir()
        (tmp_path / "some" / "file").write_text("x")
        assert verify(tmp_path / "some")[0] == 2
        assert "is not an archive" in str(restore_error(tmp_path / "some"))

    def test_a_file(self, tmp_path: Path, verify: Verify, restore_error: Refusal):
        (tmp_path / "file").write_text("x")
        assert verify(tmp_path / "file")[0] == 2
        assert restore_error(tmp_path / "file") is not None

    def test_a_newer_format(self, copy: Path, verify: Verify, restore_error: Refusal, resum: Refusal):
        path = copy / "archive.json"
        path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":2'))
        resum(copy)
        assert verify(copy)[0] == 2
        error = restore_error(copy)
        assert error is not None
        assert error.code == "format-version"
