"""Which files' digests may be remembered: those whose state tells of every later change."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lichen.content.digest_cache import DigestCache
from lichen.content.settled import Settling
from lichen.content.unixfs import hash_bytes

SECOND = 1_000_000_000
MANY = 40  # more files changed lately than are hashed anew without asking who has them mapped


@pytest.fixture
def in_memory() -> Iterator[Path]:
    """A directory in a file system that lives in memory."""
    if not Path("/dev/shm").is_dir():
        pytest.skip("no shared memory here")
    directory = tempfile.mkdtemp(dir="/dev/shm", prefix="settled-")
    yield Path(directory)
    shutil.rmtree(directory)


def state(path: Path) -> tuple[int, ...]:
    """Return device, inode, size, mtime and ctime."""
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def fake_proc(directory: Path, maps: str = "", *, expire: int = 3000, mounts: str = "") -> Path:
    """Lay out what a kernel would show of one process."""
    for name, text in {
        "41/maps": maps,
        "self/mountinfo": mounts,
        "sys/vm/dirty_expire_centisecs": f"{expire}\n",
        "sys/vm/dirty_writeback_centisecs": "500\n",
    }.items():
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return directory


@pytest.mark.parametrize(
    ("age_seconds", "settled"), [(0, False), (1, False), (10, False), (59, False), (71, True)]
)
def test_few_files_settle_when_they_are_on_disk(tmp_path: Path, age_seconds: int, settled: bool) -> None:
    proc = fake_proc(tmp_path)
    changed = 10**18
    assert Settling(proc).is_settled((1, 7, 10, changed, changed), changed + age_seconds * SECOND) is settled


def test_a_disk_that_waits_longer_is_waited_for(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path, expire=60_000)
    changed = 10**18
    assert not Settling(proc).is_settled((1, 7, 10, 0, changed), changed + 600 * SECOND)
    assert Settling(proc).is_settled((1, 7, 10, 0, changed), changed + 1300 * SECOND)


def test_of_many_files_those_are_remembered_that_nobody_has_mapped(tmp_path: Path) -> None:
    maps = (
        "7f00-7f01 rw-s 00000000 fe:00 77                         /data/written to by another\n"
        "7f02-7f03 r--s 00000000 fe:00 78                         /data/only read\n"
        "7f04-7f05 rw-p 00000000 fe:00 79                         /data/private\n"
        "7f06-7f07 rw-s 00000000 00:01 0                          /dev/zero (deleted)\n"
    )
    settling = Settling(fake_proc(tmp_path, maps), spared_count_max=32)
    changed = 10**18
    now = changed + 10 * SECOND
    early = [settling.is_settled((1, inode, 10, 0, changed), now) for inode in range(1000, 1000 + MANY)]
    assert early.count(True) == MANY - 33
    assert {inode: settling.is_settled((1, inode, 10, 0, changed), now) for inode in (77, 78, 79)} == {
        77: False, 78: True, 79: True
    }  # fmt: skip


def test_what_changed_after_the_look_is_looked_for_again(tmp_path: Path) -> None:
    proc = fake_proc(tmp_path)
    settling = Settling(proc)
    changed = 10**18
    now = changed + 10 * SECOND
    assert [settling.is_settled((1, 5, 2**25, 0, changed), now) for _ in range(2)] == [False, True]
    fake_proc(tmp_path, "7f00-7f01 rw-s 00000000 fe:00 5     /data/large\n")
    later = now + 10 * SECOND
    assert [settling.is_settled((1, 5, 2**25, 0, later), later + 3 * SECOND) for _ in range(2)] == [
        False,
        False,
    ]


def test_nothing_in_memory_settles(tmp_path: Path, in_memory: Path) -> None:
    file = in_memory / "data"
    file.write_bytes(b"content")
    assert not Settling().is_settled(state(file), time.time_ns() + 3600 * SECOND)
    assert Settling(fake_proc(tmp_path)).is_settled(state(file), time.time_ns() + 3600 * SECOND)


def test_writing_to_a_mapped_file_in_memory_is_seen(tmp_path: Path, in_memory: Path) -> None:
    file = in_memory / "data"
    file.write_bytes(b"1" * 4096)
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 4096) as mapped:
        mapped[0:1] = b"2"
        with DigestCache(tmp_path / "cache", now_ns=lambda: time.time_ns() + 3600 * SECOND) as cache:
            first = cache.digest_file(file), cache.digest_states([str(file)])[0]
            before = state(file)
            mapped[0:1] = b"3"
            second = cache.digest_file(file), cache.digest_states([str(file)])[0]
    assert state(file) == before  # no time tells of it
    assert set(first) == {hash_bytes(b"2" + b"1" * 4095).sha256}
    assert set(second) == {hash_bytes(b"3" + b"1" * 4095).sha256}


def test_writing_to_a_mapped_file_on_disk_is_seen(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(b"1" * 4096)
    with file.open("r+b") as opened, mmap.mmap(opened.fileno(), 4096) as mapped:
        mapped[0:1] = b"2"
        os.utime(file, ns=(1, 1))
        with DigestCache(tmp_path / "cache", now_ns=lambda: time.time_ns() + 10 * SECOND) as cache:
            others = [tmp_path / f"other{number}" for number in range(MANY)]
            for other in others:
                other.write_bytes(b"x")
            cache.digest_files(others)
            assert cache.digest_file(file) == hash_bytes(b"2" + b"1" * 4095).sha256
            mapped[0:1] = b"3"
            assert cache.digest_file(file) == hash_bytes(b"3" + b"1" * 4095).sha256
