"""What every store promises."""

from __future__ import annotations

import io
import os
import stat

import pytest

from lichen.content.directory_store import DirectoryStore
from lichen.content.files import StatKey
from lichen.content.fsspec_store import FsspecStore
from lichen.content.memory_store import MemoryStore
from lichen.content.pipeline import BUFFER_SIZE
from lichen.content.store import ArtefactStore
from lichen.content.unixfs import CHUNK_SIZE, fill_from_reader, hash_bytes
from lichen.errors import FileChangedError, NotFoundError, UsageError, VerificationError

SIZES = [0, 1, CHUNK_SIZE, CHUNK_SIZE + 1, BUFFER_SIZE + 1]


@pytest.fixture(params=["directory", "memory", "file://", "memory://"])
def store(request, tmp_path) -> ArtefactStore:
    if request.param == "directory":
        return DirectoryStore(tmp_path / "store")
    if request.param == "memory":
        return MemoryStore()
    pytest.importorskip("fsspec")
    return FsspecStore(f"{request.param}{tmp_path}/store")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "out" / "restored"


class TestPutAndRead:
    @pytest.mark.parametrize("size", SIZES)
    def test_what_goes_in_comes_out(self, store, tmp_path, target, size):
        data = os.urandom(size)
        source = tmp_path / "source"
        source.write_bytes(data)
        names = store.put_file(source)
        assert names == hash_bytes(data)
        assert source.read_bytes() == data
        assert store.has(names.cid)
        assert store.size(names.cid) == size
        assert store.read_bytes(names.cid) == data
        with store.open(names.cid) as stream:
            assert stream.read() == data
        assert store.fetch_to(names.cid, target) == (True, size)
        assert target.read_bytes() == data
        assert list(store.list()) == [names.cid]
        assert store.usage() == (1, size)

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("durable", [True, False])
    def test_bytes_and_files_are_one(self, store, tmp_path, size, durable):
        data = os.urandom(size)
        (tmp_path / "source").write_bytes(data)
        assert store.put_bytes(data, durable=durable) == store.put_file(tmp_path / "source", durable=durable)
        assert store.usage() == (1, size)

    @pytest.mark.parametrize("size", SIZES)
    def test_a_stream_is_stored_under_the_name_it_has(self, store, size):
        data = os.urandom(size)
        names = hash_bytes(data)
        for expected in (None, names.cid):
            assert store.put_stream(fill_from_reader(io.BytesIO(data)), expected=expected) == names
        assert store.read_bytes(names.cid) == data

    @pytest.mark.parametrize("size", SIZES)
    def test_a_stream_that_is_not_what_was_asked_for_is_not_stored(self, store, size):
        expected = hash_bytes(b"something else").cid
        with pytest.raises(VerificationError, match=f"is not {expected}"):
            store.put_stream(fill_from_reader(io.BytesIO(bytes(size))), expected=expected)
        assert list(store.list()) == []

    def test_an_opened_artefact_can_be_searched(self, store):
        data = os.urandom(3 * CHUNK_SIZE + 100)
        with store.open(store.put_bytes(data).cid) as stream:
            assert stream.readable()
            assert stream.seekable()
            for offset in (0, CHUNK_SIZE - 1, 2 * CHUNK_SIZE, 5, 3 * CHUNK_SIZE + 99):
                assert stream.seek(offset) == offset
                assert stream.read(CHUNK_SIZE + 7) == data[offset : offset + CHUNK_SIZE + 7]
            assert stream.seek(-10, io.SEEK_END) == len(data) - 10
            assert stream.read() == data[-10:]
            assert stream.read() == b""
            assert stream.seek(len(data) + 1000) == len(data) + 1000
            assert stream.read() == b""
            assert stream.seek(-1000 - len(data), io.SEEK_CUR) == 0
            with pytest.raises((OSError, ValueError)):
                stream.seek(-1)

    def test_many_artefacts_are_listed_once_each(self, store):
        cids = {store.put_bytes(b"%d" % i, durable=False).cid for i in range(50)}
        for i in range(50):
            store.put_bytes(b"%d" % i, durable=False)
        assert sorted(store.list()) == sorted(cids)

    def test_reading_is_bounded(self, store):
        cid = store.put_bytes(b"0123456789").cid
        assert store.read_bytes(cid, 10) == b"0123456789"
        with pytest.raises(UsageError, match="has 10 bytes, at most 9"):
            store.read_bytes(cid, 9)

    def test_what_is_known_to_be_there_is_not_read_again(self, store, tmp_path):
        source = tmp_path / "source"
        source.write_bytes(b"content")
        names = store.put_file(source)
        told: list[int] = []
        assert store.put_file(source, known=names, progress=told.append) == names
        assert told == []
        store.delete(names.cid)
        assert store.put_file(source, known=names, progress=told.append) == names
        assert sum(told) == len(b"content")

    def test_progress_adds_up(self, store, tmp_path, target):
        data = os.urandom(BUFFER_SIZE + CHUNK_SIZE)
        (tmp_path / "source").write_bytes(data)
        told_put: list[int] = []
        told_fetch: list[int] = []
        names = store.put_file(tmp_path / "source", progress=told_put.append)
        store.fetch_to(names.cid, target, progress=told_fetch.append)
        assert sum(told_put) == sum(told_fetch) == len(data)

    @pytest.mark.parametrize("size", SIZES)
    def test_a_file_edited_while_it_is_put_is_not_stored(self, store, tmp_path, size):
        source = tmp_path / "source"
        source.write_bytes(bytes(size))

        def meddle(_count):
            source.write_bytes(b"other")

        if size > CHUNK_SIZE:
            with pytest.raises(FileChangedError, match="source changed"):
                store.put_file(source, progress=meddle)
            assert list(store.list()) == []

    @pytest.mark.parametrize("kind", ["missing", "directory", "pipe"])
    def test_what_is_not_a_file_is_not_stored(self, store, tmp_path, kind):
        source = tmp_path / "named-thing"
        if kind == "directory":
            source.mkdir()
        elif kind == "pipe":
            os.mkfifo(source)
        with pytest.raises(UsageError, match="named-thing"):
            store.put_file(source)
        assert list(store.list()) == []

    def test_a_link_to_a_file_is_stored_as_the_file(self, store, tmp_path):
        (tmp_path / "source").write_bytes(b"content")
        (tmp_path / "link").symlink_to("source")
        assert store.put_file(tmp_path / "link") == hash_bytes(b"content")


class TestAbsence:
    def test_an_absent_artefact_is_not_found(self, store, target):
        cid = hash_bytes(b"never stored").cid
        assert not store.has(cid)
        assert not store.delete(cid)
        for ask in (store.size, store.open, store.read_bytes, lambda cid: store.fetch_to(cid, target)):
            with pytest.raises(NotFoundError, match=str(cid)):
                ask(cid)
        assert not target.parent.exists()
        assert list(store.list()) == []
        assert store.usage() == (0, 0)

    def test_a_deleted_artefact_is_gone_and_can_come_back(self, store):
        cid = store.put_bytes(b"content").cid
        assert store.delete(cid)
        assert not store.has(cid)
        assert not store.delete(cid)
        assert store.put_bytes(b"content").cid == cid
        assert store.read_bytes(cid) == b"content"


class TestRestoring:
    @pytest.fixture
    def cid(self, store):
        return store.put_bytes(b"content").cid

    @pytest.mark.parametrize("mode", [0o644, 0o600, 0o755, 0o444, 0o6755, 0o100644])
    def test_the_mode_is_the_one_asked_for_without_special_bits(self, store, cid, target, mode):
        store.fetch_to(cid, target, mode=mode, durable=True)
        assert stat.S_IMODE(target.stat().st_mode) == mode & 0o777

    def test_nothing_else_appears_beside_it(self, store, cid, target):
        store.fetch_to(cid, target)
        assert [path.name for path in target.parent.iterdir()] == ["restored"]

    def test_a_restored_file_shares_nothing_with_the_store(self, store, cid, target):
        store.fetch_to(cid, target)
        with target.open("r+b") as file:
            file.write(b"another")
        assert store.read_bytes(cid) == b"content"
        assert target.stat().st_nlink == 1

    def test_the_same_artefact_is_left_alone(self, store, cid, target):
        store.fetch_to(cid, target)
        before = StatKey.of(target.stat())
        assert store.fetch_to(cid, target, mode=0o600) == (False, 7)
        assert StatKey.of(target.stat()) == before

    def test_content_the_store_has_is_replaced(self, store, cid, target):
        store.put_bytes(b"earlier")
        target.parent.mkdir()
        target.write_bytes(b"earlier")
        assert store.fetch_to(cid, target).written
        assert target.read_bytes() == b"content"

    def test_content_the_store_lacks_is_kept_unless_told_otherwise(self, store, cid, target):
        target.parent.mkdir()
        target.write_bytes(b"precious")
        with pytest.raises(
            UsageError, match=r"restored holds content that the store does not have"
        ) as caught:
            store.fetch_to(cid, target)
        assert "--overwrite" in caught.value.remedy
        assert target.read_bytes() == b"precious"
        assert store.fetch_to(cid, target, overwrite=True).written
        assert target.read_bytes() == b"content"

    @pytest.mark.parametrize("overwrite", [False, True])
    @pytest.mark.parametrize("kind", ["directory", "pipe"])
    def test_what_is_not_a_file_is_never_replaced(self, store, cid, target, kind, overwrite):
        target.parent.mkdir()
        target.mkdir() if kind == "directory" else os.mkfifo(target)
        with pytest.raises(UsageError, match=r"restored is a .* and is not replaced"):
            store.fetch_to(cid, target, overwrite=overwrite)
        assert not target.is_file()

    def test_a_link_is_replaced_only_when_told_and_never_followed(self, store, cid, target, tmp_path):
        (tmp_path / "precious").write_bytes(b"precious")
        target.parent.mkdir()
        target.symlink_to(tmp_path / "precious")
        with pytest.raises(UsageError, match="a symbolic link"):
            store.fetch_to(cid, target)
        assert store.fetch_to(cid, target, overwrite=True).written
        assert not target.is_symlink()
        assert (tmp_path / "precious").read_bytes() == b"precious"

    def test_an_odd_name_is_no_obstacle(self, store, cid, tmp_path):
        odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9\n")
        assert store.fetch_to(cid, odd).written
        longest = tmp_path / ("n" * 255)
        assert store.fetch_to(cid, longest).written
        assert longest.read_bytes() == b"content"


class TestStayingWithin:
    @pytest.fixture
    def cid(self, store):
        return store.put_bytes(b"content").cid

    @pytest.fixture
    def project(self, tmp_path):
        (tmp_path / "project").mkdir()
        (tmp_path / "outside").mkdir()
        return tmp_path / "project"

    def test_below_it_directories_are_made(self, store, cid, project):
        assert store.fetch_to(cid, project / "a" / "b" / "c", within=project).written
        assert store.fetch_to(cid, project / "a" / ".." / "d", within=project).written
        assert (project / "d").read_bytes() == b"content"

    @pytest.mark.parametrize(
        "path", ["../outside/x", "../project-twin/x", "/etc/x", ".", "a/../../outside/x", ".."]
    )
    def test_a_path_outside_is_refused(self, store, cid, project, path):
        with pytest.raises(UsageError, match="lies outside"):
            store.fetch_to(cid, project / path, within=project, overwrite=True)

    @pytest.mark.parametrize("path", ["link/x", "a/link/x", "a/link/b/x"])
    @pytest.mark.parametrize("to", ["outside", "inside"])
    def test_a_linked_directory_on_the_way_is_refused(self, store, cid, project, path, to):
        (project / "a").mkdir()
        (project / "inside").mkdir()
        goal = project.parent / "outside" if to == "outside" else project / "inside"
        for place in (project, project / "a"):
            (place / "link").symlink_to(goal)
        with pytest.raises(UsageError, match="link is a symbolic link or a file, where a directory is meant"):
            store.fetch_to(cid, project / path, within=project, overwrite=True)
        assert list(goal.iterdir()) == []

    def test_a_file_on_the_way_is_refused(self, store, cid, project):
        (project / "file").write_bytes(b"precious")
        for within in (project, None):
            with pytest.raises(UsageError, match="where a directory is meant"):
                store.fetch_to(cid, project / "file" / "x", within=within)

    def test_without_the_bound_links_on_the_way_are_followed(self, store, cid, project):
        (project / "link").symlink_to(project.parent / "outside")
        assert store.fetch_to(cid, project / "link" / "x").written
        assert (project.parent / "outside" / "x").read_bytes() == b"content"
