"""What stands at a standard input that is a file, and how it counts."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lichen.runs.process.standard_input import describe_standard_input


def digest_file(path: Path) -> bytes:
    """Hash a file."""
    return hashlib.sha256(path.read_bytes()).digest()


def test_a_file_counts_from_where_reading_begins(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("one\ntwo\nthree\n")
    descriptor = os.open(file, os.O_RDONLY)
    try:
        found = []
        for offset in (0, 4, 8):
            os.lseek(descriptor, offset, os.SEEK_SET)
            described = describe_standard_input(descriptor)
            assert (described.kind, described.offset) == ("file", offset)
            assert os.lseek(descriptor, 0, os.SEEK_CUR) == offset  # looking reads nothing
            found.append(described.digest(digest_file))
    finally:
        os.close(descriptor)
    assert found[0] == digest_file(file)
    assert len(set(found)) == 3


def test_what_is_no_named_file_has_no_digest(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    file = tmp_path / "gone.txt"
    file.write_text("x")
    unnamed = os.open(file, os.O_RDONLY)
    file.unlink()
    try:
        assert describe_standard_input(reading).digest(digest_file) is None
        assert describe_standard_input(unnamed).digest(digest_file) is None
    finally:
        for descriptor in (reading, writing, unnamed):
            os.close(descriptor)
