"""No room for anything else: CAR files hold exactly their artefact, and what cannot be judged is counted."""

from __future__ import annotations

import hashlib
import io
import json
import re
import types
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.content.car import HEADER_END, HEADER_START, read_car
from lichen.content.cid import DAG_PB, RAW, Cid
from lichen.content.dag_pb import encode_varint
from lichen.content.unixfs import hash_bytes
from lichen.crypto.keys import SigningKey
from lichen.crypto.note import cosign_note
from lichen.errors import LichenError

if TYPE_CHECKING:
    from tests.unit.archive.conftest import Place, Verify

Refusal = Callable[[Path], LichenError | None]
Blocks = list[tuple[Cid, bytes]]

FOREIGN = (hash_bytes(b"foreign").cid, b"foreign")
CHANGES: dict[str, Callable[[Blocks], Blocks]] = {
    "extra-block": lambda blocks: [*blocks, FOREIGN],
    "extra-block-in-front": lambda blocks: [FOREIGN, *blocks],
    "block-doubled": lambda blocks: [*blocks, blocks[-1]],
    "blocks-exchanged": lambda blocks: [*blocks[:-2], blocks[-1], blocks[-2]],
    "block-left-out": lambda blocks: blocks[:-1],
}


def joined(root: Cid, blocks: Blocks, *, is_long: bool = False) -> bytes:
    """A CAR file, written by hand."""
    header = HEADER_START + root.to_bytes() + HEADER_END
    sections = [header, *(cid.to_bytes() + block for cid, block in blocks)]
    return b"".join(size_of(section, is_long=is_long) + section for section in sections)


def size_of(section: bytes, *, is_long: bool) -> bytes:
    size = encode_varint(len(section))
    return size[:-1] + bytes([size[-1] | 128, 0]) if is_long else size


def largest(archive: Path) -> Path:
    return max(archive.rglob("*.car"), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("change", [*CHANGES, "sizes-written-long"])
def test_a_car_file_holds_its_artefact_and_nothing_else(
    change: str, copy: Path, verify: Verify, restore_error: Refusal, resum: Callable[[Path], None]
):
    path = largest(copy)
    root, found = read_car(io.BytesIO(path.read_bytes()))
    blocks = list(found)
    assert len(blocks) > 2
    assert joined(root, blocks) == path.read_bytes()
    is_long = change not in CHANGES
    path.write_bytes(joined(root, blocks if is_long else CHANGES[change](blocks), is_long=is_long))
    resum(copy)
    assert verify(copy)[0] == 1
    assert restore_error(copy) is not None


def node(child: Cid, size: int, width: int) -> bytes:
    """A node of a file with the same child many times."""

    def field(number: int, value: bytes) -> bytes:
        return encode_varint(number << 3 | 2) + encode_varint(len(value)) + value

    link = field(1, child.to_bytes()) + field(2, b"") + b"\x18" + encode_varint(size)
    inner = b"\x08\x02\x18" + encode_varint(size * width) + (b"\x20" + encode_varint(size)) * width
    return field(2, link) * width + field(1, inner)


class Visited(io.BytesIO):
    """A file that counts how often a place in it is sought, which is once for each block on the way down."""

    visit_count = 0

    def seek(self, *place: int) -> int:
        self.visit_count += 1
        return super().seek(*place)


def test_a_small_file_does_not_make_work_without_end(verifier: types.ModuleType):
    leaf = b"A" * 1024
    cid, size = hash_bytes(leaf).cid, len(leaf)
    assert cid.codec == RAW
    blocks = [(cid, leaf)]
    for _ in range(6):
        block = node(cid, size, 174)
        cid, size = Cid(DAG_PB, hashlib.sha256(block).digest()), size * 174
        blocks.insert(0, (cid, block))
    file = Visited(joined(cid, blocks))
    with pytest.raises(verifier.Fault, match=re.escape("larger than artefacts.jsonl says")):
        verifier.measure_car(file, str(cid), 100_000)
    assert file.visit_count == 1


@pytest.mark.parametrize("field", ["size_bytes", "entry", "status"])
def test_a_list_of_artefacts_with_other_types_is_malformed(
    field: str, copy: Path, verify: Verify, resum: Callable[[Path], None]
):
    lines = (copy / "artefacts.jsonl").read_text().splitlines()
    place = next(at for at, line in enumerate(lines) if f'"{field}"' in line and "size_bytes" in line)
    row = {**json.loads(lines[place]), field: ["many"]}
    lines[place] = json.dumps(row, sort_keys=True, separators=(",", ":"))
    (copy / "artefacts.jsonl").write_text("\n".join(lines) + "\n")
    resum(copy)
    status, answer = verify(copy)
    assert (status, answer["why"]) == (1, "artefacts.jsonl has a malformed line")


def test_signatures_that_nobody_can_judge_are_counted(
    copy: Path, verify: Verify, restore_error: Refusal, resum: Callable[[Path], None]
):
    assert verify(copy)[1]["signatures_not_judged"] == 0
    path = copy / "checkpoint"
    note = path.read_text()
    text = note.partition("\n\n")[0] + "\n"
    line = cosign_note(text, "stranger.example/w", SigningKey.from_seed(bytes([7]) * 32), 1_760_000_000)
    path.write_text(note + line.line)
    resum(copy)
    status, answer = verify(copy)
    assert (status, answer["signatures_not_judged"]) == (0, 1)
    assert restore_error(copy) is None


def test_a_second_signature_in_the_logs_name_is_refused(
    copy: Path, verify: Verify, restore_error: Refusal, resum: Callable[[Path], None], written: Place
):
    path = copy / "checkpoint"
    note = path.read_text()
    text = note.partition("\n\n")[0] + "\n"
    with written.open(read_only=True) as ledger:
        line = cosign_note(text, ledger.origin, SigningKey.from_seed(bytes([7]) * 32), 1_760_000_000)
    path.write_text(note + line.line)
    resum(copy)
    assert verify(copy)[0] == 1
    assert restore_error(copy) is not None
