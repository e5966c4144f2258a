"""The directory store: put, read, restore."""

from __future__ import annotations

import os

import pytest

from lichen.content.directory_store import DirectoryStore
from lichen.content.unixfs import CHUNK_SIZE, hash_bytes
from lichen.errors import NotFoundError


@pytest.fixture
def store(tmp_path):
    return DirectoryStore(tmp_path / "store")


@pytest.mark.parametrize("size", [0, 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * 2**20])
def test_what_goes_in_comes_out(store, tmp_path, size):
    data = os.urandom(size)
    source = tmp_path / "source"
    source.write_bytes(data)
    names = store.put_file(source)
    assert names == hash_bytes(data)
    assert store.has(names.cid)
    assert store.size(names.cid) == size
    assert store.read_bytes(names.cid) == data
    with store.open(names.cid) as stream:
        assert stream.read() == data
    assert store.fetch_to(names.cid, tmp_path / "a" / "b" / "restored") == (True, size)
    assert (tmp_path / "a" / "b" / "restored").read_bytes() == data
    assert list(store.list()) == [names.cid]


def test_an_absent_artefact_is_not_found(store, tmp_path):
    cid = hash_bytes(b"never stored").cid
    assert not store.has(cid)
    for ask in (store.size, store.open, store.read_bytes):
        with pytest.raises(NotFoundError, match=str(cid)):
            ask(cid)
    with pytest.raises(NotFoundError, match=str(cid)):
        store.fetch_to(cid, tmp_path / "restored")
    assert not store.delete(cid)
    assert not store.path.exists()
