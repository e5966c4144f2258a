"""The digest cache: never a stale name, never an error of its own."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import time
import zlib
from pathlib import Path

import pytest

from lichen.content.digest_cache import DigestCache
from lichen.content.digest_table import BUCKET_KEY, ENTRY, NO_ROOT, SCHEMA_VERSION
from lichen.content.files import StatKey
from lichen.content.unixfs import CHUNK_SIZE, hash_bytes
from lichen.errors import FileChangedError, UsageError

SECOND = 1_000_000_000


class Clock:
    """A clock that is ahead of the files by as much as a test says."""

    def __init__(self, ahead_ns: int = 1000 * SECOND) -> None:
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
    """Give (inode, size) of every file the cache knows."""
    connection = sqlite3.connect(location)
    try:
        found = connection.execute("SELECT entries FROM buckets").fetchall()
    finally:
        connection.close()
    return sorted(
        (inode, int.from_bytes(known[:8], "little"))
        for (entries,) in found
        for inode, known in ENTRY.iter_unpack(entries)
    )


def change_rows(location, sql, *parameters):
    connection = sqlite3.connect(location)
    connection.execute(sql, parameters)
    connection.commit()
    connection.close()


MARK = bytes(range(32))
MANY = 500


def mark(location):
    """Make a cache file answer with another digest, under a right checksum, to see whether it answered at all."""
    connection = sqlite3.connect(location)
    for device, bucket, entries in connection.execute(
        "SELECT device, bucket, entries FROM buckets"
    ).fetchall():
        marked = b"".join(
            ENTRY.pack(inode, known[:24] + MARK + NO_ROOT) for inode, known in ENTRY.iter_unpack(entries)
        )
        connection.execute(
            "UPDATE buckets SET entries = ?, checksum = ? WHERE device = ? AND bucket = ?",
            (marked, zlib.crc32(BUCKET_KEY.pack(device, bucket) + marked), device, bucket),
        )
    connection.commit()
    connection.close()


@pytest.fixture
def learn(location):
    """Give a function that lets one command hash files, and ends it."""

    def run(*files, digest_only=False):
        with DigestCache(location, now_ns=Clock()) as cache:
            for file in files:
                cache.digest_file(file) if digest_only else cache.hash_file(file)

    return run


class TestWhenItAnswers:
    def test_an_unchanged_file_is_not_read_again(self, learn, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        learn(file)
        mark(location)
        with DigestCache(location) as cache:
            assert cache.hash_file(file).sha256 == MARK
            assert cache.digest_file(file) == MARK
            assert cache.hash_files([file]) == [cache.hash_file(file)]
            assert cache.digest_files([file]) == [MARK]

    def test_nor_within_one_command(self, cache, tmp_path):
        file = write(tmp_path / "data", b"content")
        told: list[int] = []
        for _ in range(3):
            assert cache.hash_file(file, progress=told.append) == hash_bytes(b"content")
            assert cache.digest_file(file, progress=told.append) == hash_bytes(b"content").sha256
        assert told == [len(b"content")]

    def test_a_large_file_keeps_both_names(self, learn, location, tmp_path):
        data = os.urandom(CHUNK_SIZE + 1)
        file = write(tmp_path / "data", data)
        learn(file)
        told: list[int] = []
        with DigestCache(location) as cache:
            assert cache.hash_file(file, progress=told.append) == hash_bytes(data)
            assert cache.digest_file(file, progress=told.append) == hash_bytes(data).sha256
        assert told == []

    def test_what_was_only_digested_is_named_when_asked(self, learn, location, tmp_path):
        large, small = os.urandom(3 * CHUNK_SIZE), b"small"
        files = [write(tmp_path / "large", large), write(tmp_path / "small", small)]
        learn(*files, digest_only=True)
        told: list[int] = []
        for _ in range(2):
            with DigestCache(location, now_ns=Clock()) as cache:
                assert cache.digest_file(files[0], progress=told.append) == hash_bytes(large).sha256
                assert [cache.hash_file(file, progress=told.append) for file in files] == [
                    hash_bytes(large),
                    hash_bytes(small),
                ]
        assert sum(told) == len(large)

    def test_a_symlink_is_answered_by_the_file_it_leads_to(self, cache, tmp_path):
        write(tmp_path / "data", b"content")
        (tmp_path / "link").symlink_to("data")
        assert (
            cache.hash_file(tmp_path / "link") == cache.hash_file(tmp_path / "data") == hash_bytes(b"content")
        )

    def test_paranoid_reads_whatever_it_remembers(self, learn, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        learn(file)
        mark(location)
        with DigestCache(location) as cache:
            assert cache.hash_file(file, paranoid=True) == hash_bytes(b"content")
            assert cache.digest_files([file], paranoid=True) == [hash_bytes(b"content").sha256]

    @pytest.mark.parametrize("count", [3, MANY + 1])
    @pytest.mark.parametrize("at_once", [False, True])
    def test_many_files_are_answered_like_one(self, learn, location, tmp_path, count, at_once):
        files = [write(tmp_path / f"{i}", b"%d" % i) for i in range(count)]
        expected = [hash_bytes(b"%d" % i) for i in range(count)]
        learn(*files[: count // 2])
        with DigestCache(location, now_ns=Clock()) as cache:
            for _ in range(2):
                assert (
                    cache.hash_files(files) if at_once else [cache.hash_file(file) for file in files]
                ) == expected
                assert cache.digest_files(files) == [names.sha256 for names in expected]
        assert len(rows(location)) == count
        mark(location)
        with DigestCache(location) as cache:
            answers = cache.digest_files(files) if at_once else [cache.digest_file(file) for file in files]
            assert set(answers) == {MARK}

    def test_no_more_is_held_in_memory_than_allowed(self, learn, location, tmp_path, monkeypatch):
        monkeypatch.setattr("lichen.content.digest_cache.HELD_COUNT_MAX", 10)
        files = [write(tmp_path / f"{i}", b"%d" % i) for i in range(MANY + 1)]
        expected = [hash_bytes(b"%d" % i) for i in range(len(files))]
        learn(*files)
        assert len(rows(location)) == len(files)
        with DigestCache(location, now_ns=Clock()) as cache:
            assert cache.hash_files(files) == expected
        mark(location)
        with DigestCache(location) as cache:
            assert set(cache.digest_files(files)) == {MARK}
            assert set(cache.digest_states([str(file) for file in files])) == {MARK}


class TestStates:
    """Many files at once, each in the state it was seen in."""

    @staticmethod
    def states(files):
        return [tuple(StatKey.of(file.stat())) for file in files]

    @pytest.mark.parametrize("is_known", [False, True])
    def test_each_is_told_in_its_state(self, learn, location, tmp_path, is_known):
        files = [write(tmp_path / f"{i}", b"%d" % i) for i in range(MANY)]
        if is_known:
            learn(*files)
            mark(location)
        expected = [MARK if is_known else hash_bytes(b"%d" % i).sha256 for i in range(MANY)]
        paths, states = [str(file) for file in files], self.states(files)
        with DigestCache(location, now_ns=Clock()) as cache:
            for _ in range(2):
                assert cache.digest_states(paths, states) == expected
                assert cache.digest_states(paths) == expected
        assert len(rows(location)) == MANY

    @pytest.mark.parametrize("is_known", [False, True])
    def test_one_in_another_state_is_not_told(self, learn, cache, tmp_path, is_known, next_tick):
        files = [write(tmp_path / name, b"content") for name in ("same", "edited", "replaced", "removed")]
        states = self.states(files)
        if is_known:
            learn(*files)
        next_tick()
        files[1].write_bytes(b"CONTENT")
        files[2].unlink()
        write(files[2], b"content")
        files[3].unlink()
        told = cache.digest_states([str(file) for file in files], states)
        assert told == [hash_bytes(b"content").sha256, None, None, None]

    def test_without_a_state_any_will_do_but_it_must_be_a_file(self, cache, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        large = os.urandom(3 * CHUNK_SIZE)
        write(tmp_path / "large", large)
        (tmp_path / "link").symlink_to("large")
        (tmp_path / "circle").symlink_to("circle")
        undecodable = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
        write(Path(undecodable), b"")
        names = ["pipe", ".", "missing", "circle", "large/below", "null\0", "large", "link"]
        told = cache.digest_states([*(f"{tmp_path}/{name}" for name in names), undecodable])
        digest = hash_bytes(large).sha256
        assert told == [None] * 6 + [digest, digest, hash_bytes(b"").sha256]

    @pytest.mark.parametrize(
        "ahead_ns",
        [0, SECOND, 10 * SECOND, -3600 * SECOND],
        ids=["now", "a-second", "before-it-is-on-disk", "clock-set-back"],
    )
    def test_a_file_changed_a_moment_ago_is_told_and_not_remembered(self, location, tmp_path, ahead_ns):
        file = write(tmp_path / "data", b"content")
        with DigestCache(location, now_ns=Clock(ahead_ns)) as cache:
            for states in (None, self.states([file])):
                assert cache.digest_states([str(file)], states) == [hash_bytes(b"content").sha256]
        assert rows(location) == []

    def test_one_that_changes_while_it_is_read_is_not_told(
        self, cache, location, tmp_path, monkeypatch, next_tick
    ):
        files = [write(tmp_path / name, b"content") for name in ("one", "two")]
        states = self.states(files)
        read = os.read

        def edited_meanwhile(descriptor, count):
            data = read(descriptor, count)
            if os.fstat(descriptor).st_ino == files[0].stat().st_ino:
                next_tick()
                files[0].write_bytes(b"CONTENT")
            return data

        monkeypatch.setattr("lichen.content.digest_cache.os.read", edited_meanwhile)
        told = cache.digest_states([str(file) for file in files], states)
        assert told == [None, hash_bytes(b"content").sha256]
        cache.flush()
        assert rows(location) == [(files[1].stat().st_ino, 7)]

    def test_what_is_learnt_in_batches_is_kept_whole(self, location, tmp_path, monkeypatch):
        monkeypatch.setattr("lichen.content.digest_cache.BATCH_COUNT", 7)
        files = [write(tmp_path / f"{i}", b"%d" % i) for i in range(100)]
        expected = [hash_bytes(b"%d" % i).sha256 for i in range(100)]
        with DigestCache(location, now_ns=Clock()) as cache:
            assert cache.digest_states([str(file) for file in files], self.states(files)) == expected
        assert len(rows(location)) == 100


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
        "ahead_ns",
        [0, SECOND, 10 * SECOND, -3600 * SECOND],
        ids=["now", "a-second", "before-it-is-on-disk", "clock-set-back"],
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
        assert cache.hash_files([file] * MANY) == [hash_bytes(b"content")] * MANY
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
                assert cache.hash_files([file] * MANY) == [hash_bytes(b"content")] * MANY
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

    @pytest.mark.parametrize(
        "rot",
        [
            pytest.param("entries = zeroblob(length(entries))", id="zeros"),
            pytest.param("entries = substr(entries, 1, length(entries) - 1)", id="cut"),
            pytest.param("entries = CAST(entries || zeroblob(96) AS BLOB)", id="longer"),
            pytest.param("checksum = checksum + 1", id="checksum"),
            pytest.param("device = device + 1", id="device"),
            pytest.param("bucket = bucket + 1", id="bucket"),
        ],
    )
    def test_a_rotten_row_is_not_believed(self, learn, location, tmp_path, rot):
        file = write(tmp_path / "data", b"content")
        learn(file)
        change_rows(location, f"UPDATE buckets SET {rot}")
        for many in (1, MANY):
            with DigestCache(location) as cache:
                assert cache.hash_files([file] * many) == [hash_bytes(b"content")] * many
                assert cache.digest_file(file) == hash_bytes(b"content").sha256

    def test_a_place_that_cannot_be_written_means_no_cache(self, tmp_path):
        file = write(tmp_path / "data", b"content")
        write(tmp_path / "occupied", b"")
        with DigestCache(tmp_path / "occupied" / "digests.sqlite", now_ns=Clock()) as cache:
            assert cache.hash_file(file) == cache.hash_file(file) == hash_bytes(b"content")
            assert cache.hash_files([file] * MANY) == [hash_bytes(b"content")] * MANY

    def test_a_closed_cache_still_names_files(self, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        cache = DigestCache(location, now_ns=Clock())
        cache.close()
        cache.close()
        assert cache.hash_file(file) == hash_bytes(b"content")

    def test_a_writer_that_blocks_the_cache_costs_a_wait_and_nothing_else(self, location, tmp_path):
        file = write(tmp_path / "data", b"content")
        with DigestCache(location, now_ns=Clock(), busy_seconds=0.05) as cache:
            blocker = sqlite3.connect(location, isolation_level=None)
            blocker.execute("BEGIN IMMEDIATE")
            assert cache.hash_file(file) == hash_bytes(b"content")
            cache.flush()
            assert rows(location) == []
            blocker.execute("ROLLBACK")
            blocker.close()
            assert cache.hash_file(file, paranoid=True) == hash_bytes(b"content")
        assert len(rows(location)) == 1

    def test_a_command_that_is_killed_loses_only_what_it_learnt(self, learn, location, tmp_path):
        files = [write(tmp_path / f"{i}", b"%d" % i) for i in range(3)]
        learn(files[0])
        cache = DigestCache(location, now_ns=Clock())
        cache.hash_file(files[1])
        assert len(rows(location)) == 1
        cache.close()
        assert len(rows(location)) == 2


def overwrite(path, offset, data):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def version(path, number):
    change_rows(path, f"PRAGMA user_version = {number}")


def replace_table(path):
    change_rows(path, "DROP TABLE buckets")
    change_rows(path, "CREATE TABLE buckets (something TEXT)")


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
