"""The directory store when the world is against it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import multiprocessing
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lichen.content.cid import Cid
from lichen.content.directory_store import DirectoryStore
from lichen.content.pipeline import BUFFER_SIZE
from lichen.content.unixfs import CHUNK_SIZE, hash_bytes
from lichen.errors import (
    FileChangedError,
    FormatVersionError,
    NotFoundError,
    StorageError,
    UsageError,
    VerificationError,
)

SMALL = b"content"
LARGE = bytes(range(256)) * (BUFFER_SIZE // 256) + b"tail"


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "store")


def objects(store):
    return sorted(path for path in (store.path / "objects").rglob("*") if not path.is_dir())


def object_of(store, cid):
    (found,) = [path for path in objects(store) if path.name == str(cid)]
    return found


def incoming(store):
    directory = store.path / "incoming"
    return sorted(directory.iterdir()) if directory.exists() else []


class TestOnDisk:
    def test_an_object_is_the_artefact_itself_under_its_name(self, store):
        for data in (SMALL, LARGE):
            cid = store.put_bytes(data).cid
            path = object_of(store, cid)
            assert path.read_bytes() == data
            assert path.parent.name == str(cid)[-3:-1]
        assert incoming(store) == []

    def test_nothing_is_made_before_the_first_put(self, store):
        assert not store.has(hash_bytes(SMALL).cid)
        assert list(store.list()) == []
        assert not store.path.exists()

    def test_another_instance_sees_it(self, store):
        cid = store.put_bytes(SMALL).cid
        assert DirectoryStore(store.path).read_bytes(cid) == SMALL

    @pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize(
        ("store_mode", "source_mode", "object_mode"),
        [
            (0o755, 0o644, 0o444),
            (0o755, 0o755, 0o444),
            (0o755, 0o600, 0o400),
            (0o750, 0o644, 0o440),
            (0o700, 0o666, 0o400),
        ],
    )
    def test_an_object_is_readable_by_no_more_users(
        self, store, tmp_path, data, store_mode, source_mode, object_mode
    ):
        store.path.mkdir()
        store.path.chmod(store_mode)
        source = tmp_path / "source"
        source.write_bytes(data)
        source.chmod(source_mode)
        path = object_of(store, store.put_file(source).cid)
        assert stat.S_IMODE(path.stat().st_mode) == object_mode

    def test_foreign_files_are_not_listed(self, store):
        cid = store.put_bytes(SMALL).cid
        (object_of(store, cid).parent / "notes.txt").write_text("mine")
        (store.path / "objects" / "stray").write_text("mine")
        (object_of(store, cid).parent / str(hash_bytes(b"x").cid)).mkdir()
        assert list(store.list()) == [cid]
        assert store.usage() == (1, len(SMALL))

    @pytest.mark.parametrize("kind", ["symlink", "directory", "pipe"])
    def test_what_is_not_a_file_is_no_object(self, store, tmp_path, kind):
        cid = store.put_bytes(SMALL).cid
        path = object_of(store, cid)
        path.rename(tmp_path / "aside")
        if kind == "symlink":
            path.symlink_to(tmp_path / "aside")
        elif kind == "directory":
            path.mkdir()
        else:
            os.mkfifo(path)
        assert not store.has(cid)
        with pytest.raises(NotFoundError):
            store.read_bytes(cid)


class TestFormat:
    def test_a_newer_store_is_not_touched(self, store):
        store.put_bytes(SMALL)
        (store.path / "format").write_text("lichen store 2\n")
        with pytest.raises(FormatVersionError, match="lichen store 2") as caught:
            DirectoryStore(store.path)
        assert caught.value.remedy

    @pytest.mark.parametrize("damage", [b"", b"\xff\xfe", b"lichen store 1"])
    def test_a_damaged_mark_is_refused(self, store, damage):
        store.put_bytes(SMALL)
        (store.path / "format").write_bytes(damage)
        with pytest.raises(FormatVersionError):
            DirectoryStore(store.path)

    def test_a_file_is_not_a_store(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(UsageError, match="file is not a directory"):
            DirectoryStore(tmp_path / "file")


def flip(path):
    path.chmod(0o600)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def shorten(path):
    path.chmod(0o600)
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path):
    path.chmod(0o600)
    with path.open("ab") as file:
        file.write(b"x")


def empty(path):
    path.chmod(0o600)
    path.write_bytes(b"")


class TestDamage:
    @pytest.mark.parametrize("damage", [flip, shorten, lengthen, empty])
    @pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("read", ["read_bytes", "open", "fetch_to"])
    def test_damaged_bytes_are_never_handed_out(self, store, tmp_path, damage, data, read):
        cid = store.put_bytes(data).cid
        damage(object_of(store, cid))
        ask = {
            "read_bytes": store.read_bytes,
            "open": store.open,
            "fetch_to": lambda cid: store.fetch_to(cid, tmp_path / "out" / "restored"),
        }[read]
        with pytest.raises(VerificationError, match=f"stored as {cid} are damaged") as caught:
            ask(cid)
        assert caught.value.expected == str(cid)
        assert caught.value.calculated != str(cid)
        assert caught.value.remedy
        assert not (tmp_path / "out" / "restored").exists()
        assert not store.has(cid)
        assert len(list((store.path / "damaged").iterdir())) == 1

    @pytest.mark.parametrize("damage", [flip, shorten, lengthen, empty])
    @pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
    def test_putting_again_heals(self, store, tmp_path, damage, data):
        (tmp_path / "source").write_bytes(data)
        cid = store.put_bytes(data).cid
        for put in (lambda: store.put_bytes(data), lambda: store.put_file(tmp_path / "source")):
            damage(object_of(store, cid))
            put()
            assert store.read_bytes(cid) == data

    def test_damage_after_opening_is_noticed(self, store):
        cid = store.put_bytes(LARGE).cid
        with store.open(cid) as stream:
            assert stream.read(10) == LARGE[:10]
            flip(object_of(store, cid))
            assert stream.read(CHUNK_SIZE // 2) == LARGE[10 : 10 + CHUNK_SIZE // 2]
            with pytest.raises(VerificationError, match="damaged"):
                stream.read()

    def test_truncation_after_opening_is_noticed(self, store):
        cid = store.put_bytes(LARGE).cid
        with store.open(cid) as stream:
            empty(object_of(store, cid))
            with pytest.raises(VerificationError, match="damaged"):
                stream.read(1)

    def test_a_wrong_object_under_a_name_is_noticed(self, store, tmp_path):
        one, two = store.put_bytes(b"one").cid, store.put_bytes(b"two").cid
        shutil.copy(object_of(store, one), tmp_path / "one")
        object_of(store, two).unlink()
        shutil.copy(tmp_path / "one", store._object_path(two))
        with pytest.raises(VerificationError):
            store.read_bytes(two)
        assert store.read_bytes(one) == b"one"


class TestPermissions:
    def test_a_store_that_may_not_be_written_is_read(self, public_directory, ordinary_user):
        store = DirectoryStore(public_directory / "store")
        cid = store.put_bytes(SMALL).cid
        with ordinary_user():
            if os.geteuid() == store.path.stat().st_uid:
                for path in (store.path, *store.path.rglob("*")):
                    path.chmod(0o555 if path.is_dir() else 0o444)
            again = DirectoryStore(store.path)
            assert again.read_bytes(cid) == SMALL
            assert again.fetch_to(cid, public_directory / "restored").written
            with pytest.raises(StorageError, match="may not be written") as caught:
                again.put_bytes(b"other")
            assert caught.value.remedy
        for path in store.path.rglob("*"):
            path.chmod(0o755)
        assert incoming(store) == []

    def test_a_store_that_may_not_be_read_says_so(self, public_directory, ordinary_user):
        store = DirectoryStore(public_directory / "store")
        cid = store.put_bytes(SMALL).cid
        (store.path / "objects").chmod(0)
        with ordinary_user():
            for ask in (store.has, store.size, store.read_bytes, store.open, lambda _cid: list(store.list())):
                with pytest.raises(StorageError, match="cannot be read"):
                    ask(cid)
        (store.path / "objects").chmod(0o755)

    def test_a_target_that_may_not_be_written_says_so(self, public_directory, ordinary_user):
        store = DirectoryStore(public_directory / "store")
        cid = store.put_bytes(SMALL).cid
        (public_directory / "locked").mkdir()
        (public_directory / "locked").chmod(0o555)
        with ordinary_user():
            for within in (None, public_directory):
                with pytest.raises(StorageError, match=r"locked.* may not be written"):
                    store.fetch_to(cid, public_directory / "locked" / "x", within=within)
                with pytest.raises(StorageError, match=r"locked.* may not be written"):
                    store.fetch_to(cid, public_directory / "locked" / "y" / "x", within=within)


@contextlib.contextmanager
def file_size_limit(size):
    """Let no file grow beyond a size: what a full disk does, without needing one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


class TestNoRoom:
    @pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
    @pytest.mark.parametrize("put", ["put_bytes", "put_file"])
    def test_a_put_leaves_nothing(self, store, tmp_path, data, put):
        store.put_bytes(b"")
        (tmp_path / "source").write_bytes(data)
        with file_size_limit(len(data) // 2), pytest.raises(StorageError, match="no room to write") as caught:
            store.put_bytes(data) if put == "put_bytes" else store.put_file(tmp_path / "source")
        assert "Free space" in caught.value.remedy
        assert incoming(store) == []
        assert store.usage() == (1, 0)

    @pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
    def test_a_restore_leaves_what_was_there(self, store, tmp_path, data):
        cid = store.put_bytes(data).cid
        store.put_bytes(b"old")
        target = tmp_path / "out" / "restored"
        target.parent.mkdir()
        target.write_bytes(b"old")
        with (
            file_size_limit(len(data) // 2),
            pytest.raises(StorageError, match=r"no room to write .*restored"),
        ):
            store.fetch_to(cid, target)
        assert target.read_bytes() == b"old"
        assert list(target.parent.iterdir()) == [target]
        assert store.has(cid)

    def test_a_truly_full_disk(self, tmp_path):
        script = FULL_DISK.format(mount=str(tmp_path))
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=False,
        )
        if "cannot mount" in done.stderr or "unshare" in done.stderr:
            pytest.skip(f"no private mounts here: {done.stderr.strip()[-200:]}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == ["refused", "refused", "kept"]


FULL_DISK = """
import ctypes, os, pathlib, sys
mount = pathlib.Path({mount!r}) / "disk"
mount.mkdir()
if ctypes.CDLL(None, use_errno=True).mount(b"none", os.fsencode(mount), b"tmpfs", 0, b"size=1m"):
    sys.exit("cannot mount: " + os.strerror(ctypes.get_errno()))
from lichen.content.directory_store import DirectoryStore
from lichen.errors import StorageError
store = DirectoryStore(mount / "store")
cid = store.put_bytes(b"kept").cid
source = mount.parent / "source"
source.write_bytes(os.urandom(3_000_000))
for attempt in (lambda: store.put_file(source), lambda: store.put_bytes(os.urandom(3_000_000))):
    try:
        attempt()
    except StorageError as error:
        assert "no room to write" in str(error), error
        print("refused")
assert list((mount / "store" / "incoming").iterdir()) == []
assert list(store.list()) == [cid]
print(store.read_bytes(cid).decode())
"""


PUT_FOREVER = """
import sys, time
from lichen.content.directory_store import DirectoryStore
store = DirectoryStore(sys.argv[1])
print("ready", flush=True)
store.put_file(sys.argv[2], progress=lambda _count: print("moved", flush=True) or time.sleep(0.5))
"""

FETCH_FOREVER = """
import sys, time
from lichen.content.cid import Cid
from lichen.content.directory_store import DirectoryStore
store = DirectoryStore(sys.argv[1])
print("ready", flush=True)
store.fetch_to(Cid.parse(sys.argv[2]), sys.argv[3], progress=lambda _count: print("moved", flush=True) or time.sleep(0.5))
"""


def kill_in_the_middle(script, *arguments):
    """Start a script, kill it when it has moved some bytes, and wait for its end."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(3):
            assert process.stdout.readline() in {"ready\n", "moved\n"}
        process.kill()
        process.stdout.read()
    assert process.returncode == -signal.SIGKILL


class TestKilled:
    @pytest.fixture
    def sparse(self, tmp_path):
        path = tmp_path / "sparse"
        with path.open("wb") as file:
            file.truncate(2**24)
        return path

    def test_a_killed_put_leaves_nothing_visible_and_is_swept(self, store, sparse):
        kill_in_the_middle(PUT_FOREVER, store.path, sparse)
        assert len(incoming(store)) == 1
        again = DirectoryStore(store.path)
        assert list(again.list()) == []
        assert incoming(again) == [], "its writer ran here and is gone"
        again.put_bytes(SMALL)
        assert list(again.list()) == [hash_bytes(SMALL).cid]

    def test_what_a_writer_elsewhere_left_is_swept_by_its_age(self, store):
        store.put_bytes(SMALL)
        (store.path / "incoming" / "left.0123456789ab-77-77").write_bytes(b"half")
        again = DirectoryStore(store.path)
        assert len(incoming(again)) == 1, "too young to be swept"
        assert again.sweep(older_than_seconds=-1) == 1

    def test_an_abandoned_file_is_swept_at_the_next_first_put(self, store):
        store.put_bytes(SMALL)
        left = store.path / "incoming" / "left"
        left.write_bytes(b"half")
        os.utime(left, (time.time() - 3600, time.time() - 3600))
        DirectoryStore(store.path).put_bytes(b"other")
        assert incoming(store) == []

    def test_what_is_being_written_is_never_swept(self, store):
        store.put_bytes(SMALL)
        with store._new_object():
            assert store.sweep(older_than_seconds=-1) == 0
            assert len(incoming(store)) == 1
        assert incoming(store) == []

    def test_a_killed_restore_leaves_what_was_there(self, store, sparse, tmp_path):
        cid = store.put_file(sparse, durable=False).cid
        target = tmp_path / "out" / "restored"
        target.parent.mkdir()
        kill_in_the_middle(FETCH_FOREVER, store.path, cid, target)
        assert not target.exists()
        assert store.has(cid)
        if not has_nameless_files(tmp_path):
            pytest.skip("this file system needs a temporary name, which a kill leaves behind")
        assert list(target.parent.iterdir()) == []


def has_nameless_files(directory):
    try:
        os.close(os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o600))
    except OSError:
        return False
    return True


def _put_and_read(store_path: str, source: str) -> bytes:
    store = DirectoryStore(store_path)
    names = [store.put_file(source, durable=False) for _ in range(5)]
    return b"".join({each.cid.to_bytes() for each in names if store.read_bytes(each.cid)})


class TestAtOnce:
    def test_processes_putting_one_content_agree(self, store, tmp_path):
        for size in (100, len(LARGE)):
            source = tmp_path / f"source{size}"
            source.write_bytes(LARGE[:size])
            with multiprocessing.get_context("spawn").Pool(3) as pool:
                cids = pool.starmap(_put_and_read, [(str(store.path), str(source))] * 6)
            assert {Cid.from_bytes(cid) for cid in cids} == {hash_bytes(LARGE[:size]).cid}
        assert store.usage() == (2, 100 + len(LARGE))
        assert incoming(store) == []

    def test_threads_putting_and_reading_agree(self, store):
        wrong = []

        def work(number):
            for round_number in range(20):
                data = b"%d" % (round_number % 5)
                cid = store.put_bytes(data, durable=False).cid
                if store.read_bytes(cid) != data:
                    wrong.append(number)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert store.usage() == (5, 5)


@pytest.mark.parametrize("present", [False, True])
def test_a_path_written_meanwhile_is_kept(store, tmp_path, present):
    target = tmp_path / "out" / "restored"
    cid = store.put_bytes(LARGE).cid
    target.parent.mkdir()
    if present:
        store.put_bytes(b"earlier")
        target.write_bytes(b"earlier")
    with pytest.raises(FileChangedError, match="written to while it was about to be restored"):
        store.fetch_to(cid, target, progress=lambda _count: target.write_bytes(b"precious"))
    assert target.read_bytes() == b"precious"
    assert [path.name for path in target.parent.iterdir()] == ["restored"]


class TestLesserFileSystems:
    """What is not there everywhere is done without."""

    def test_without_nameless_files(self, store, tmp_path, monkeypatch):
        real_open = os.open

        def refuse(path, flags, *arguments, **options):
            if flags & os.O_TMPFILE == os.O_TMPFILE:
                raise OSError(errno.EOPNOTSUPP, "no nameless files")
            return real_open(path, flags, *arguments, **options)

        monkeypatch.setattr(os, "open", refuse)
        cid = store.put_bytes(LARGE).cid
        store.put_bytes(b"earlier")
        target = tmp_path / "out" / "restored"
        for before in (None, b"earlier"):
            if before is not None:
                target.write_bytes(before)
            assert store.fetch_to(cid, target).written
            assert target.read_bytes() == LARGE
            assert list(target.parent.iterdir()) == [target]
        with file_size_limit(1000), pytest.raises(StorageError):
            store.fetch_to(cid, target.with_name("other"))
        assert list(target.parent.iterdir()) == [target]

    def test_without_locks(self, store, monkeypatch):
        def refuse(*_arguments):
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(fcntl, "flock", refuse)
        assert store.read_bytes(store.put_bytes(SMALL).cid) == SMALL
        with store._new_object():
            assert store.sweep(older_than_seconds=-1) == 0

    def test_with_shared_blocks(self, store, tmp_path, monkeypatch):
        """A file system that shares blocks answers the request; this one is made to, by copying."""

        def share(target, request, source):
            assert request == 0x40049409
            Path(f"/proc/self/fd/{target}").write_bytes(Path(f"/proc/self/fd/{source}").read_bytes())

        (tmp_path / "source").write_bytes(LARGE)
        monkeypatch.setattr(fcntl, "ioctl", share)
        names = store.put_file(tmp_path / "source")
        assert names == hash_bytes(LARGE)
        assert store.fetch_to(names.cid, tmp_path / "restored").written
        assert (tmp_path / "restored").read_bytes() == LARGE
        flip(object_of(store, names.cid))
        with pytest.raises(VerificationError):
            store.fetch_to(names.cid, tmp_path / "other")
        assert not (tmp_path / "other").exists()
