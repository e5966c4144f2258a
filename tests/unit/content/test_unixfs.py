"""Names of files, against an importer that shares no code with ours, and what can go wrong while reading."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

from lichen.content.cid import RAW, Cid
from lichen.content.digest_cache import DigestCache
from lichen.content.directory_store import DirectoryStore
from lichen.content.files import show_path
from lichen.content.pipeline import BUFFER_SIZE, stream_buffers
from lichen.content.unixfs import (
    CHUNK_SIZE,
    BlockLayout,
    fill_from_descriptor,
    hash_bytes,
    hash_file,
    hash_stream,
    layout_of_stream,
)
from lichen.errors import FileChangedError, LichenError, UsageError

VECTORS = Path(__file__).parents[2] / "vectors" / "unixfs"


def content(size):
    blocks = b"".join(number.to_bytes(8, "big") * 32 for number in range(-(-size // 256)))
    return blocks[:size]


def vectors(name):
    return json.loads((VECTORS / name).read_text("utf-8"))


class TestVectors:
    @pytest.mark.parametrize("vector", vectors("files.json"), ids=lambda vector: str(vector["size_bytes"]))
    def test_files_are_named_as_ipfs_add_names_them(self, vector, tmp_path):
        data = content(vector["size_bytes"])
        names = hash_bytes(data)
        assert str(names.cid) == vector["cid"]
        assert names.sha256 == hashlib.sha256(data).digest()
        assert names.size_bytes == len(data)
        if len(data) < 50 * CHUNK_SIZE:
            (tmp_path / "file").write_bytes(data)
            assert hash_file(tmp_path / "file") == names

    def test_trees_of_up_to_five_levels(self):
        small = vectors("small-chunks.json")
        data = content(400)
        for size, cid in enumerate(small["cids"]):
            chunks = [data[start : min(start + 4, size)] for start in range(0, size, 4)] or [b""]
            leaves = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
            layout = BlockLayout(leaves, size, small["chunk_size"], small["node_width"])
            assert str(layout.cid()) == cid, f"{size} bytes"

    def test_kubo_itself_says_the_same(self):
        vector = vectors("kubo.json")["file-of-two-leaves"]
        key = hashlib.sha256(vector["seed"].encode()).digest()
        data = (
            Cipher(algorithms.ChaCha20(key, bytes(16)), None).encryptor().update(bytes(vector["size_bytes"]))
        )
        size = vector["chunk_size"]
        leaves = b"".join(hashlib.sha256(data[i : i + size]).digest() for i in range(0, len(data), size))
        assert str(BlockLayout(leaves, len(data), size, vector["node_width"]).cid()) == vector["cid"]


class TestLayout:
    def test_leaves_cover_the_file_in_order(self):
        data = content(3 * CHUNK_SIZE + 5)
        layout = layout_of_stream(filler(data))
        assert layout.leaf_count == 4
        pieces = []
        for leaf_index in range(layout.leaf_count):
            cid, offset, size = layout.leaf(leaf_index)
            pieces.append(data[offset : offset + size])
            assert cid == Cid(RAW, hashlib.sha256(pieces[-1]).digest())
        assert b"".join(pieces) == data

    def test_an_empty_file_is_one_empty_leaf(self):
        layout = layout_of_stream(filler(b""))
        assert layout.leaf_count == 1
        assert layout.leaf(0) == (hash_bytes(b"").cid, 0, 0)

    def test_every_node_is_named_by_its_raw_block(self):
        layout = BlockLayout(b"".join(bytes([i]) * 32 for i in range(10)), 40, 4, 3)
        levels = list(layout.levels())
        assert [len(links) for links, _ in levels] == [10, 4, 2, 1]
        for links, blocks in levels[1:]:
            assert [link.cid[4:] for link in links] == [hashlib.sha256(block).digest() for block in blocks]
            assert sum(link.content_size for link in links) == 40
        assert layout.root() == levels[-1][0][0]


def filler(data):
    """Read from memory in the way a file is read."""
    position = 0

    def fill(view):
        nonlocal position
        piece = data[position : position + len(view)]
        view[: len(piece)] = piece
        position += len(piece)
        return len(piece)

    return fill


class TestStreams:
    @pytest.mark.parametrize(
        "size", [0, 1, BUFFER_SIZE - 1, BUFFER_SIZE, BUFFER_SIZE + 1, 5 * BUFFER_SIZE, 6 * BUFFER_SIZE + 7]
    )
    def test_every_byte_goes_to_every_sink_in_order(self, size):
        data = content(size)
        copies = [bytearray(), bytearray()]
        assert hash_stream(filler(data), [copy.extend for copy in copies]) == hash_bytes(data)
        assert copies == [data, data]
        assert layout_of_stream(filler(data)).cid() == hash_bytes(data).cid

    @pytest.mark.parametrize("after", [0, 1, 7])
    def test_a_failure_to_read_is_raised_and_leaves_no_thread(self, after):
        served = 0

        def fill(view):
            nonlocal served
            if served == after:
                raise OSError("the cable was pulled")
            served += 1
            return len(view)

        with pytest.raises(OSError, match="cable"):
            hash_stream(fill)
        assert not lanes()

    @pytest.mark.parametrize("buffers", [0.5, 3])
    def test_a_failure_to_write_is_raised_and_leaves_no_thread(self, buffers):
        def sink(_view):
            raise LichenError("no room")

        with pytest.raises(LichenError, match="no room"):
            hash_stream(filler(bytes(int(buffers * BUFFER_SIZE))), [sink])
        assert not lanes()

    def test_a_failure_in_a_lane_is_raised_once_all_is_read(self):
        def work(_view):
            raise LichenError("the work failed")

        with pytest.raises(LichenError, match="the work failed"):
            stream_buffers(filler(bytes(6 * BUFFER_SIZE)), [work, len])
        assert not lanes()


def lanes():
    return [thread for thread in threading.enumerate() if thread.name == "lichen-hash"]


class TestFiles:
    def test_progress_adds_up_to_the_file(self, tmp_path):
        for size in (0, 10, CHUNK_SIZE + 1, 2 * BUFFER_SIZE + 1):
            (tmp_path / "file").write_bytes(content(size))
            told: list[int] = []
            hash_file(tmp_path / "file", progress=told.append)
            assert sum(told) == size

    def test_a_symlink_is_followed_unless_told_otherwise(self, tmp_path):
        (tmp_path / "file").write_bytes(b"content")
        (tmp_path / "link").symlink_to("file")
        assert hash_file(tmp_path / "link") == hash_bytes(b"content")
        with pytest.raises(UsageError, match="symbolic link"):
            hash_file(tmp_path / "link", follow_symlinks=False)

    @pytest.mark.parametrize("name", ["/proc/self/cmdline", "/sys/kernel/mm/transparent_hugepage/enabled"])
    def test_a_file_the_kernel_makes_up_is_read_to_its_end(self, name, tmp_path):
        path = Path(name)
        if not path.exists():
            pytest.skip(f"no {name} here")
        data = path.read_bytes()
        assert path.stat().st_size != len(data)
        assert hash_file(path) == hash_bytes(data)
        assert DirectoryStore(tmp_path / "store").put_file(path) == hash_bytes(data)
        with DigestCache(tmp_path / "digests.sqlite", now_ns=lambda: 2**62) as cache:
            assert cache.hash_file(path) == cache.hash_file(path) == hash_bytes(data)
            assert cache.digest_file(path) == hash_bytes(data).sha256

    def test_an_undecodable_name_is_no_obstacle(self, tmp_path):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n\x1b[31m")
        Path(path).write_bytes(b"content")
        assert hash_file(path) == hash_bytes(b"content")

    def test_a_name_is_always_printable(self):
        shown = show_path(os.fsdecode(b"caf\xe9\n\x1b[31m\xc3\xa4"))
        assert shown == r"caf\xe9\n\x1b[31mä"
        shown.encode("utf-8")

    @pytest.mark.parametrize(
        "kind", ["missing", "below-a-file", "directory", "pipe", "socket", "loop", "dangling", "too-long"]
    )
    def test_what_is_not_a_file_is_refused_by_name(self, tmp_path, kind):
        path = tmp_path / "named-thing"
        says = make_obstacle(path, kind)
        if kind == "below-a-file":
            path /= "below"
        if kind == "too-long":
            path = tmp_path / ("named-thing" * 40)
        with pytest.raises(UsageError, match=says) as caught:
            hash_file(path)
        assert "named-thing" in str(caught.value)
        assert caught.value.remedy

    def test_a_file_without_permission_is_refused_with_the_remedy(self, public_directory, ordinary_user):
        path = public_directory / "secret"
        path.write_bytes(b"content")
        path.chmod(0)
        with ordinary_user(), pytest.raises(UsageError, match="may not be read") as caught:
            hash_file(path)
        assert "chmod u+r" in caught.value.remedy


def make_obstacle(path, kind):
    """Put something that is not a file at a path, and return what the error says of it."""
    if kind == "below-a-file":
        path.write_bytes(b"")
    elif kind == "directory":
        path.mkdir()
        return "a directory, where a file is meant"
    elif kind == "pipe":
        os.mkfifo(path)
        return "a named pipe"
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            here = Path.cwd()
            os.chdir(path.parent)  # the name of a socket is limited to some hundred bytes
            try:
                listener.bind(path.name)
            finally:
                os.chdir(here)
        return "socket"
    elif kind == "loop":
        path.symlink_to(path.with_name("other"))
        path.with_name("other").symlink_to(path)
        return "in a circle"
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "too-long":
        return "too long"
    return "there is no file"


class TestChangesWhileReading:
    @pytest.mark.parametrize(
        "size", [1000, CHUNK_SIZE + 1, 3 * BUFFER_SIZE], ids=["small", "medium", "large"]
    )
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda path: os.truncate(path, 10), id="truncated"),
            pytest.param(lambda path: append(path, b"more"), id="appended"),
            pytest.param(lambda path: edit(path), id="edited"),  # noqa: PLW0108 - defined below
        ],
    )
    def test_an_edit_is_noticed(self, tmp_path, size, change, next_tick):
        path = tmp_path / "data"
        path.write_bytes(content(size))
        told: list[int] = []

        def meddle(count):
            if not told:
                next_tick()
                change(path)
            told.append(count)

        with pytest.raises(FileChangedError, match="data changed"):
            hash_file(path, progress=meddle)

    def test_a_replacement_by_rename_counts_as_a_change(self, tmp_path, next_tick):
        path = tmp_path / "data"
        path.write_bytes(content(3 * BUFFER_SIZE))
        (tmp_path / "new").write_bytes(b"new")

        def meddle(_count):
            if (tmp_path / "new").exists():
                next_tick()
                (tmp_path / "new").rename(path)

        with pytest.raises(FileChangedError):
            hash_file(path, progress=meddle)


def append(path, data):
    with path.open("ab") as file:
        file.write(data)


def edit(path):
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"X")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


STREAM_LARGE = """
import re, sys
from lichen.content.unixfs import hash_file
def most():
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read())[1])
before = most()
hash_file(sys.argv[1])
print(most() - before)
"""


def test_a_file_larger_than_memory_may_be_takes_little_of_it(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(256 * 2**20)
    done = subprocess.run(
        [sys.executable, "-c", STREAM_LARGE, str(path)], capture_output=True, check=True, text=True
    )
    assert int(done.stdout) < 40 * 1024  # KiB: a few buffers and thread stacks


def test_reading_needs_no_more_descriptors_than_one(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(content(3 * BUFFER_SIZE))
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 1, limits[1]))
    try:
        assert hash_file(path).size_bytes == 3 * BUFFER_SIZE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_descriptor_is_read_from_where_it_stands(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(content(1000))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.lseek(descriptor, 400, os.SEEK_SET)
        assert hash_stream(fill_from_descriptor(descriptor)) == hash_bytes(content(1000)[400:])
    finally:
        os.close(descriptor)
