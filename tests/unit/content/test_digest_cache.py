"""The digest cache: never a stale name, never an error of its own."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
from pathlib import Path

import pytest

from lichen.content.digest_cache import PRELOAD_COUNT, SCHEMA_VERSION, DigestCache
from lichen.content.files import FileChangedError, StatKey
from lichen.content.unixfs import CHUNK_SIZE, hash_bytes
from lichen.errors import UsageError

SECOND = 1_000_000_000


class Clock:
    """A clock that is ahead of the files by as much as a test says."""

    def __init__(self, ahead_ns: int = 10 * SECOND) -> None:
        self.ahead_ns = ahead_ns

    def __call__(self) -> int:
        return time.time_ns() + self.ahead_ns


@pytest.fixture
def location(tmp_path):
    return tmp_path / "cache" / "digests.sqlite"


@pytest.fixture
def cache(location):
    with DigestCache(location, now_ns=Clock()) as opened:
        yield opened


def write(path, data):
    path.write_bytes(data)
    return path


def rows(location):
    connection = sqlite3.connect(location)
    try:
        return connection.execute("SELECT inode, size_bytes FROM digests ORDER BY inode").fetchall()
    finally:
        connection.close()


def poison(location):
    """Give every row a wrong digest under a right checksum's nose: only a read of the row can notice."""
    connection = sqlite3.connect(location)
    connection.execute("UPDATE digests SET sha256 = zeroblob(32)")
    connection.commit()
    connection.close()


def replant(location, sha256):
    """Make the cache answer with another digest, validly, to see whether it answered at all."""
    import zlib

    from lichen.content.digest_cache import KEY_PACKING

    connection = sqlite3.connect(location)
    found = connection.execute("SELECT device, inode, size_bytes, mtime_ns, ctime_ns FROM digests").fetchall()
    for key in found:
        checksum = zlib.crc32(KEY_PACKING.pack(*key) + sha256)
        connection.execute(
            "UPDATE digests SET sha256 = ?, root = NULL, checksum = ? WHERE device = ? AND inode = ?",
            (sha256, checksum, *key[:2]),
        )
    connection.commit()
    connection.close()


MARK = bytes(range(32))


class TestWhenItAnswers:
    def test_an_unchanged_file_is_not_read_again(self, cache, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        assert cache.hash_file(file) == hash_bytes(b"content")
        replant(location, MARK)
        assert cache.hash_file(file).sha256 == MARK

    def test_a_large_file_keeps_both_names(self, cache, tmp_path):
        data = os.urandom(CHUNK_SIZE + 1)
        file = write(tmp_path / "data", data)
        assert cache.hash_file(file) == hash_bytes(data)
        file.chmod(0o600)  # moves ctime, so both answers below were looked up and hashed respectively
        assert cache.hash_file(file) == cache.hash_file(file) == hash_bytes(data)
        assert cache.hash_files([file]) == [hash_bytes(data)]

    def test_a_symlink_is_answered_by_the_file_it_leads_to(self, cache, tmp_path):
        write(tmp_path / "data", b"content")
        (tmp_path / "link").symlink_to("data")
        assert (
            cache.hash_file(tmp_path / "link") == cache.hash_file(tmp_path / "data") == hash_bytes(b"content")
        )

    def test_paranoid_reads_whatever_it_remembers(self, cache, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        cache.hash_file(file)
        replant(location, MARK)
        assert cache.hash_file(file, paranoid=True) == hash_bytes(b"content")

    @pytest.mark.parametrize("count", [3, PRELOAD_COUNT + 1])
    def test_many_files_at_once_are_answered_like_one_by_one(self, cache, location, tmp_path, count):
        files = [write(tmp_path / f"{i}", b"%d" % i) for i in range(count)]
        expected = [hash_bytes(b"%d" % i) for i in range(count)]
        assert cache.hash_files(files) == expected
        assert cache.hash_files(files) == expected
        assert len(rows(location)) == count
        replant(location, MARK)
        assert {names.sha256 for names in cache.hash_files(files)} == {MARK}
        assert cache.hash_files(files, paranoid=True) == expected

    def test_what_one_process_learnt_another_knows(self, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        with DigestCache(location, now_ns=Clock()) as first:
            first.hash_file(file)
        replant(location, MARK)
        with DigestCache(location) as second:
            assert second.hash_file(file).sha256 == MARK


class TestWhenItMustNotAnswer:
    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda file: file.write_bytes(b"CONTENT"), id="same-size-edit"),
            pytest.param(lambda file: file.write_bytes(b"more content"), id="other-size"),
            pytest.param(lambda file: file.write_bytes(b""), id="emptied"),
            pytest.param(lambda file: (file.unlink(), file.write_bytes(b"CONTENT")), id="replaced"),
        ],
    )
    def test_a_changed_file_is_read(self, cache, tmp_path, change, next_tick):
        file = write(tmp_path / "data", b"content")
        cache.hash_file(file)
        next_tick()
        change(file)
        assert cache.hash_file(file) == hash_bytes(file.read_bytes())

    def test_a_change_with_its_mtime_set_back_is_read(self, cache, tmp_path, next_tick):
        file = write(tmp_path / "data", b"content")
        before = file.stat()
        cache.hash_file(file)
        next_tick()
        file.write_bytes(b"CONTENT")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert cache.hash_file(file) == hash_bytes(b"CONTENT")

    def test_a_swap_of_two_files_is_noticed(self, cache, tmp_path):
        one, two = write(tmp_path / "one", b"1111"), write(tmp_path / "two", b"2222")
        cache.hash_files([one, two])
        one.rename(tmp_path / "three")
        two.rename(one)
        (tmp_path / "three").rename(two)
        assert cache.hash_file(one) == hash_bytes(b"2222")
        assert cache.hash_file(two) == hash_bytes(b"1111")

    @pytest.mark.parametrize(
        "ahead_ns", [0, SECOND, -3600 * SECOND], ids=["now", "a-second", "clock-set-back"]
    )
    def test_a_file_changed_a_moment_ago_is_not_remembered(self, location, tmp_path, ahead_ns):
        file = write(tmp_path / "data", b"content")
        with DigestCache(location, now_ns=Clock(ahead_ns)) as cache:
            assert cache.hash_file(file) == hash_bytes(b"content")
            assert cache.hash_files([file]) == [hash_bytes(b"content")]
        assert rows(location) == []

    def test_a_file_dated_beyond_the_calendar_is_hashed_each_time(self, cache, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        os.utime(file, ns=(0, 2**63 + SECOND))
        if file.stat().st_mtime_ns < 2**63:
            pytest.skip("this file system keeps no such date")
        assert cache.hash_file(file) == cache.hash_file(file) == hash_bytes(b"content")
        assert cache.hash_files([file] * PRELOAD_COUNT) == [hash_bytes(b"content")] * PRELOAD_COUNT
        assert rows(location) == []


class TestExpectedState:
    def test_a_file_still_in_the_expected_state_is_named(self, cache, tmp_path):
        file = write(tmp_path / "data", b"content")
        state = StatKey.of(file.stat())
        for paranoid in (False, True, False):
            assert cache.hash_file(file, expected=state, paranoid=paranoid) == hash_bytes(b"content")

    @pytest.mark.parametrize("paranoid", [False, True])
    def test_one_that_is_not_is_refused(self, cache, tmp_path, paranoid, next_tick):
        file = write(tmp_path / "data", b"content")
        state = StatKey.of(file.stat())
        next_tick()
        file.write_bytes(b"CONTENT")
        with pytest.raises(FileChangedError, match="data changed"):
            cache.hash_file(file, expected=state, paranoid=paranoid)


class TestBadFiles:
    def test_each_gets_its_own_error_and_the_rest_go_on(self, cache, tmp_path):
        good = write(tmp_path / "good", b"content")
        os.mkfifo(tmp_path / "pipe")
        results = cache.hash_files([tmp_path / "missing", good, tmp_path, tmp_path / "pipe"])
        assert results[1] == hash_bytes(b"content")
        assert [type(results[i]) for i in (0, 2, 3)] == [UsageError] * 3
        assert "there is no file" in str(results[0])
        assert "a directory" in str(results[2])
        assert "a named pipe" in str(results[3])

    @pytest.mark.parametrize("paranoid", [False, True])
    def test_a_missing_file_is_named_in_the_error(self, cache, tmp_path, paranoid):
        with pytest.raises(UsageError, match=r"there is no file .*nothing-here"):
            cache.hash_file(tmp_path / "nothing-here", paranoid=paranoid)


class TestBadCache:
    """Whatever happens to the cache file, files are still named, and rightly."""

    @pytest.mark.parametrize(
        "damage",
        [
            pytest.param(lambda path: path.write_bytes(b"not a database" * 1000), id="not-a-database"),
            pytest.param(lambda path: path.write_bytes(path.read_bytes()[:5000]), id="truncated"),
            pytest.param(lambda path: path.write_bytes(b""), id="emptied"),
            pytest.param(lambda path: (path.unlink(), path.mkdir()), id="a-directory"),
            pytest.param(lambda path: overwrite(path, 4096, os.urandom(4096)), id="page-of-noise"),
            pytest.param(lambda path: version(path, SCHEMA_VERSION + 1), id="newer-version"),
            pytest.param(lambda path: replace_table(path), id="another-schema"),  # noqa: PLW0108 - defined below
        ],
    )
    def test_a_damaged_cache_is_thrown_away(self, location, tmp_path, damage):
        file = write(tmp_path / "data", b"content")
        with DigestCache(location, now_ns=Clock()) as cache:
            cache.hash_file(file)
        damage(location)
        for _ in range(3):
            with DigestCache(location, now_ns=Clock()) as cache:
                assert cache.hash_file(file) == hash_bytes(b"content")
                assert cache.hash_files([file]) == [hash_bytes(b"content")]
                assert cache.hash_files([file] * PRELOAD_COUNT) == [hash_bytes(b"content")] * PRELOAD_COUNT
        if location.is_file():
            assert (file.stat().st_ino, len(b"content")) in rows(location)

    def test_damage_while_open_is_survived(self, location, tmp_path):
        files = [write(tmp_path / f"{i}", b"%d" % i) for i in range(200)]
        with DigestCache(location, now_ns=Clock()) as cache:
            cache.hash_files(files)
        with DigestCache(location, now_ns=Clock()) as cache:
            overwrite(location, 4096, os.urandom(location.stat().st_size - 4096))
            for i, file in enumerate(files):
                assert cache.hash_file(file) == hash_bytes(b"%d" % i)

    def test_a_rotten_row_is_not_believed(self, cache, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        cache.hash_file(file)
        poison(location)
        assert cache.hash_file(file) == hash_bytes(b"content")
        poison(location)
        assert cache.hash_files([file] * PRELOAD_COUNT) == [hash_bytes(b"content")] * PRELOAD_COUNT

    def test_a_place_that_cannot_be_written_means_no_cache(self, tmp_path):
        file = write(tmp_path / "data", b"content")
        write(tmp_path / "occupied", b"")
        with DigestCache(tmp_path / "occupied" / "digests.sqlite", now_ns=Clock()) as cache:
            assert cache.hash_file(file) == cache.hash_file(file) == hash_bytes(b"content")
            assert cache.hash_files([file] * PRELOAD_COUNT) == [hash_bytes(b"content")] * PRELOAD_COUNT

    def test_a_closed_cache_still_names_files(self, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        cache = DigestCache(location, now_ns=Clock())
        cache.close()
        cache.close()
        assert cache.hash_file(file) == hash_bytes(b"content")

    def test_a_writer_that_blocks_the_cache_costs_a_wait_and_nothing_else(
        self, location, tmp_path, monkeypatch
    ):
        monkeypatch.setattr("lichen.content.digest_cache.BUSY_SECONDS", 0.05)
        file = write(tmp_path / "data", b"content")
        with DigestCache(location, now_ns=Clock()) as cache:
            blocker = sqlite3.connect(location, isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            assert cache.hash_file(file) == hash_bytes(b"content")
            assert rows(location) == []
            blocker.execute("ROLLBACK")
            blocker.close()
            assert cache.hash_file(file) == hash_bytes(b"content")
        assert len(rows(location)) == 1


def overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def version(path, number):
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {number}")
    connection.close()


def replace_table(path):
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE digests")
    connection.execute("CREATE TABLE digests (something TEXT)")
    connection.close()


def _hash_them_all(location: str, directory: str) -> bool:
    files = sorted(Path(directory).iterdir())
    with DigestCache(location, now_ns=Clock()) as cache:
        one_by_one = [cache.hash_file(file) for file in files]
        return one_by_one == cache.hash_files(files) == [hash_bytes(file.read_bytes()) for file in files]


def test_processes_at_once_agree(location, tmp_path):
    directory = tmp_path / "files"
    directory.mkdir()
    for i in range(60):
        write(directory / f"{i}", b"%d" % i)
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert all(pool.starmap(_hash_them_all, [(str(location), str(directory))] * 6))
    assert len(rows(location)) == 60
