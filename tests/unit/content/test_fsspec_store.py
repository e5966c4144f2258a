"""A store behind a URL is not believed, tells no secrets, and shows nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lichen.content.directory_store import DirectoryStore
from lichen.content.fsspec_store import FsspecStore, without_secrets
from lichen.content.unixfs import CHUNK_SIZE, hash_bytes
from lichen.errors import NotFoundError, StorageError, UsageError, VerificationError

pytest.importorskip("fsspec")
LARGE = bytes(range(256)) * (2 * CHUNK_SIZE // 256) + b"end"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "bucket"


@pytest.fixture
def store(place: Path) -> FsspecStore:
    return FsspecStore(f"file://{place}")


def stored_file(place: Path, cid: object) -> Path:
    (path,) = place.glob(f"objects/*/{cid}")
    return path


def test_a_bucket_copied_to_a_directory_is_a_store(store: FsspecStore, place: Path) -> None:
    cids = [store.put_bytes(data).cid for data in (b"", b"a", LARGE)]
    copied = DirectoryStore(place)
    assert sorted(copied.list()) == sorted(cids)
    assert copied.read_bytes(cids[2]) == LARGE


@pytest.mark.parametrize("data", [b"small", LARGE])
def test_changed_bytes_are_noticed_by_every_way_of_reading_and_mended_by_a_put(
    store: FsspecStore, place: Path, tmp_path: Path, data: bytes
) -> None:
    cid = store.put_bytes(data).cid
    path = stored_file(place, cid)
    path.chmod(0o644)
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(VerificationError):
        store.read_bytes(cid)
    with pytest.raises(VerificationError):
        store.open(cid)
    with pytest.raises(VerificationError):
        store.fetch_to(cid, tmp_path / "restored")
    assert not (tmp_path / "restored").exists()
    path.write_bytes(data[:-1])
    assert store.put_bytes(data).cid == cid
    assert store.read_bytes(cid) == data


def test_a_store_that_sends_without_end_is_cut_off(
    store: FsspecStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cid = store.put_bytes(LARGE).cid
    given = 0

    class Endless:
        def __init__(self, *_: object) -> None:
            pass

        def __enter__(self) -> Endless:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def read(self, count: int) -> bytes:
            nonlocal given
            given += count
            return bytes(count)

    monkeypatch.setattr(store._files, "open", Endless)
    with pytest.raises(VerificationError):
        store.read_bytes(cid)
    assert given == len(LARGE) + 1


@pytest.mark.parametrize("at", ["open", "mv", "makedirs"])
def test_what_fails_half_way_is_told_and_leaves_nothing(
    store: FsspecStore, place: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    kept = store.put_bytes(b"kept").cid

    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("the cloud is gone")

    with monkeypatch.context() as patched:
        patched.setattr(store._files, at, fails)
        with pytest.raises(StorageError, match="could not be written: the cloud is gone"):
            store.put_bytes(LARGE)
    assert list(store.list()) == [kept]
    assert [path for path in place.rglob("*") if path.is_file()] == [stored_file(place, kept)]
    assert store.put_bytes(LARGE).size_bytes == len(LARGE)


def test_what_lies_there_besides_is_passed_over(store: FsspecStore, place: Path) -> None:
    cid = store.put_bytes(b"one").cid
    (place / "objects" / "zz").mkdir()
    (place / "objects" / "zz" / str(cid)).write_bytes(b"in the wrong place")
    (place / "objects" / "readme.txt").write_text("hello")
    other = hash_bytes(b"a directory has its name").cid
    (place / "objects" / str(other)[-3:-1] / str(other)).mkdir(parents=True)
    assert list(store.list()) == [cid]
    assert store.usage() == (1, 3)
    assert not store.has(other)
    assert not store.delete(other)
    with pytest.raises(NotFoundError):
        store.size(other)


def test_a_kind_of_url_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="carrier-pigeon://coop/x cannot be opened"):
        FsspecStore("carrier-pigeon://coop/x")


def test_names_and_passwords_are_not_told() -> None:
    assert without_secrets("sftp://ann:secret@host:22/path?key=secret") == "sftp://host:22/path"
    with pytest.raises(UsageError) as caught:
        FsspecStore("carrier-pigeon://ann:secret@coop/x")
    assert "secret" not in str(caught.value)
