"""Names of directories, against Kubo and an importer that shares no code with ours."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from lichen.content.cid import Cid
from lichen.content.dag_pb import Link
from lichen.content.digest_cache import DigestCache
from lichen.content.directory import build_directory, hash_directory
from lichen.content.hamt import build_shards, murmur3_64
from lichen.content.unixfs import hash_bytes, hash_file
from lichen.errors import FileChangedError, UsageError

VECTORS = Path(__file__).parents[2] / "vectors" / "unixfs"
ENTRIES = json.loads((VECTORS / "directories.json").read_text("utf-8"))
KUBO = json.loads((VECTORS / "kubo.json").read_text("utf-8"))


def content(size):
    return b"".join(number.to_bytes(8, "big") * 32 for number in range(-(-size // 256)))[:size]


def build(root, vector):
    """Make the directory a vector is about."""
    root.mkdir()
    for number in range(vector.get("count", 0)):
        (root / str(number).zfill(vector["digits"])).write_text(str(number))
    for name, value in vector.get("entries", {}).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if value is None:
            path.mkdir()
        else:
            path.write_bytes(value.encode() if isinstance(value, str) else content(value))
    for name, target in vector.get("symlinks", {}).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)
    return root


class TestVectors:
    @pytest.mark.parametrize(
        "title", [*(title for title in ENTRIES if "entries" in ENTRIES[title]), "numbered-4097-28"]
    )
    def test_directories_are_named_as_the_importer_names_them(self, tmp_path, title):
        vector = ENTRIES[title]
        named = hash_directory(build(tmp_path / "root", vector))
        assert str(named.cid) == vector["cid"]
        files = [value for value in vector.get("entries", {}).values() if value is not None]
        assert len(named.files) == vector.get("count", len(files))
        assert named.size_bytes == sum(file.names.size_bytes for file in named.files)
        assert named.left_out == ()

    @pytest.mark.parametrize("title", ["directory-with-symlinks", "directory-of-two-files"])
    def test_directories_are_named_as_kubo_names_them(self, tmp_path, title):
        named = hash_directory(build(tmp_path / "root", KUBO[title]))
        assert str(named.cid) == KUBO[title]["cid"]
        assert named.symlink_count == len(KUBO[title].get("symlinks", {}))

    @pytest.mark.parametrize("title", [title for title in ENTRIES if "count" in ENTRIES[title]])
    def test_directories_about_the_size_of_a_shard(self, title):
        vector = ENTRIES[title]
        root, blocks = build_directory(
            [link(str(number).zfill(vector["digits"]), str(number)) for number in range(vector["count"])]
        )
        assert str(Cid.from_bytes(root.cid)) == vector["cid"]
        assert root.total_size == sum(map(len, blocks)) + root.content_size
        assert (len(blocks) == 1) == (vector["count"] * (vector["digits"] + 36) <= 2**18)

    def test_shards_are_named_as_kubo_names_them(self):
        vector = KUBO["shards-of-2000-files"]
        numbers = range(vector["first"], vector["last"] + 1)
        root, _ = build_shards([link(f"file{number}", f"{number}\n") for number in numbers])
        assert str(Cid.from_bytes(root.cid)) == vector["cid"]


def link(name, text):
    names = hash_bytes(text.encode())
    return Link(names.cid.to_bytes(), names.size_bytes, names.size_bytes, name.encode())


class TestMurmur:
    @pytest.mark.parametrize(
        ("data", "digest"),
        [
            (b"", "0000000000000000"),
            (b"hello", "cbd8a7b341bd9b02"),
            (b"hello, world", "342fac623a5ebc8e"),
            (b"19 Jan 2038 at 3:14:07 AM", "b89e5988b737affc"),
            (b"The quick brown fox jumps over the lazy dog.", "cd99481f9ee902c9"),
        ],
    )
    def test_the_hash_is_the_published_one(self, data, digest):
        assert murmur3_64(data).hex() == digest

    def test_names_with_one_hash_are_refused_by_name(self):
        links = [Link(bytes(36), 0, 0, b"twin"), Link(bytes(36), 0, 0, b"twin")]
        with pytest.raises(UsageError, match="same hash, beginning with b'twin'"):
            build_shards(links)


class TestWhatCounts:
    @pytest.fixture
    def root(self, tmp_path):
        return build(tmp_path / "root", {"entries": {"a/x": "1", "a/y": "2", "b": "3"}})

    def test_files_are_listed_with_their_names(self, root):
        named = hash_directory(root)
        assert [file.path for file in named.files] == ["a/x", "a/y", "b"]
        assert [file.names for file in named.files] == [hash_bytes(b"1"), hash_bytes(b"2"), hash_bytes(b"3")]
        assert [hash_bytes(node).sha256 for node in named.nodes][-1] == named.cid.digest

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda root: (root / "a/x").write_text("changed"), id="content"),
            pytest.param(lambda root: (root / "a/x").rename(root / "a/z"), id="name"),
            pytest.param(lambda root: (root / "b").rename(root / "a/b"), id="place"),
            pytest.param(lambda root: (root / "c").mkdir(), id="an-empty-directory"),
            pytest.param(lambda root: (root / "c").symlink_to("b"), id="a-symlink"),
            pytest.param(lambda root: (root / "b").unlink(), id="one-less"),
        ],
    )
    def test_every_name_and_byte_counts(self, root, change):
        before = hash_directory(root).cid
        change(root)
        assert hash_directory(root).cid != before

    def test_times_modes_and_place_do_not(self, root, tmp_path):
        before = hash_directory(root)
        os.utime(root / "b", (0, 0))
        (root / "b").chmod(0o600)
        root.rename(tmp_path / "elsewhere")
        assert hash_directory(tmp_path / "elsewhere") == before

    def test_hidden_entries_are_left_out_and_reported(self, root):
        before = hash_directory(root)
        (root / ".git").mkdir()
        (root / ".git" / "config").write_text("secret")
        (root / "a" / ".hidden").write_text("secret")
        after = hash_directory(root)
        assert after.cid == before.cid
        assert after.left_out == (".git", "a/.hidden")
        with_hidden = hash_directory(root, hidden=True)
        assert with_hidden.cid != before.cid
        assert with_hidden.left_out == ()
        assert ".git/config" in [file.path for file in with_hidden.files]

    def test_a_hidden_directory_that_is_named_itself_counts(self, root):
        root.rename(root.with_name(".root"))
        assert len(hash_directory(root.with_name(".root")).files) == 3

    def test_a_link_to_the_directory_itself_is_followed(self, root, tmp_path):
        (tmp_path / "link").symlink_to("root")
        assert hash_directory(tmp_path / "link") == hash_directory(root)

    def test_links_within_are_neither_followed_nor_lost(self, root, tmp_path):
        (root / "loop").symlink_to(".")
        (root / "out").symlink_to("/")
        named = hash_directory(root)
        assert named.symlink_count == 2
        assert len(named.files) == 3

    def test_the_text_of_a_link_counts_to_the_letter(self, root):
        (root / "link").symlink_to("a/x")
        plain = hash_directory(root).cid
        (root / "link").unlink()
        (root / "link").symlink_to("./a//x")
        assert hash_directory(root).cid != plain

    def test_undecodable_names_count_byte_by_byte(self, root):
        odd = os.fsdecode(os.fsencode(root) + b"/caf\xe9")
        Path(odd).write_bytes(b"content")
        named = hash_directory(root)
        assert [os.fsencode(file.path) for file in named.files][-1] == b"caf\xe9"
        assert b"\x12\x04caf\xe9" in named.nodes[-1]

    def test_files_are_named_by_whoever_is_asked_to(self, root, tmp_path):
        asked = []
        with DigestCache(tmp_path / "digests.sqlite") as cache:

            def hash_one(path):
                asked.append(path)
                return cache.hash_file(path)

            assert hash_directory(root, hash_one=hash_one) == hash_directory(root)
        assert len(asked) == 3

    def test_a_tree_deeper_than_the_interpreter_goes(self, tmp_path):
        levels = [tmp_path]
        for _ in range(1200):
            levels.append(levels[-1] / "d")
            levels[-1].mkdir()
        try:
            assert len(hash_directory(levels[1]).nodes) == 1200
        finally:
            for level in reversed(levels[1:]):  # too deep for those who clean up after tests
                level.rmdir()


class TestBadInput:
    @pytest.mark.parametrize("kind", ["missing", "file", "pipe-inside", "socket-inside"])
    def test_what_cannot_be_named_is_refused_by_name(self, tmp_path, kind):
        root = tmp_path / "root"
        if kind == "file":
            root.write_text("")
        elif kind != "missing":
            root.mkdir()
            culprit = root / "culprit"
            if kind == "pipe-inside":
                os.mkfifo(culprit)
            else:
                here = Path.cwd()
                os.chdir(root)
                try:
                    with socket.socket(socket.AF_UNIX) as listener:
                        listener.bind("culprit")
                finally:
                    os.chdir(here)
        with pytest.raises(UsageError) as caught:
            hash_directory(root)
        assert ("culprit" if kind.endswith("inside") else "root") in str(caught.value)
        assert caught.value.remedy

    def test_an_unreadable_directory_is_refused_by_name(self, public_directory, ordinary_user):
        locked = public_directory / "locked"
        locked.mkdir()
        locked.chmod(0)
        with ordinary_user(), pytest.raises(UsageError, match="locked may not be read"):
            hash_directory(public_directory)

    @pytest.mark.parametrize("where", ["root", "root/below"])
    def test_an_entry_that_appears_meanwhile_is_noticed(self, tmp_path, where, next_tick):
        root = build(tmp_path / "root", {"entries": {"below/x": "1", "y": "2"}})

        def meddle(path):
            next_tick()
            (tmp_path / where / "new").write_text("")
            return hash_file(path)

        with pytest.raises(FileChangedError, match="changed"):
            hash_directory(root, hash_one=meddle)
