"""A capture keeps the beginning and the end, on disk, and never fails its writer."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.runs.process.capture import Capture


def test_a_short_stream_is_kept_whole() -> None:
    capture = Capture(10)
    capture.write(b"abc")
    capture.write(b"defghij")
    assert capture.read_bytes() == b"abcdefghij"
    assert (capture.total_bytes, capture.omitted_bytes, capture.truncated) == (10, 0, False)
    capture.close()


def test_a_long_stream_keeps_its_beginning_and_its_end() -> None:
    capture = Capture(10)
    capture.write(b"01234567890123456789accuracy=0.95"[:20])
    capture.write(b"=0.95")
    assert (capture.head(), capture.tail()) == (b"01234", b"=0.95")
    assert capture.read_bytes() == b"01234\n[... 15 bytes were not kept ...]\n=0.95"
    assert (capture.total_bytes, capture.omitted_bytes, capture.size_bytes) == (25, 15, 10)


@given(
    chunks=st.lists(st.binary(max_size=40), max_size=20),
    limit_bytes=st.integers(min_value=0, max_value=64),
)
def test_head_and_tail_are_the_ends_of_the_stream(chunks: list[bytes], limit_bytes: int) -> None:
    capture = Capture(limit_bytes)
    for chunk in chunks:
        capture.write(chunk)
    stream = b"".join(chunks)
    assert capture.total_bytes == len(stream)
    assert stream.startswith(capture.head())
    assert stream.endswith(capture.tail())
    assert capture.size_bytes == min(limit_bytes, len(stream))
    assert capture.size_bytes + capture.omitted_bytes == len(stream)
    assert len(capture.head()) + len(capture.tail()) == capture.size_bytes
    capture.close()


def test_a_full_disk_stops_the_capture_and_says_so(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    capture = Capture(1000, tmp_path)
    capture.write(b"a" * 100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        capture.write(b"b" * 100)
        capture.write(b"c" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert capture.failure is not None
    assert "byte 100" in capture.failure
    assert capture.truncated
    assert capture.head() == b"a" * 100


@pytest.mark.parametrize("directory", [Path("/no/such/directory"), None])
def test_a_directory_that_cannot_be_used_is_replaced(directory: Path | None) -> None:
    capture = Capture(100, directory)
    capture.write(b"kept")
    assert capture.read_bytes() == b"kept"
    assert capture.failure is None


def test_nothing_is_left_on_disk(tmp_path: Path) -> None:
    capture = Capture(100, tmp_path)
    capture.write(b"kept")
    assert list(tmp_path.iterdir()) == []
