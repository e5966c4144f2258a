"""Laws of stores and of the digest cache, over random histories."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import tempfile
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lichen.content.digest_cache import DigestCache
from lichen.content.directory_store import DirectoryStore
from lichen.content.fsspec_store import FsspecStore
from lichen.content.memory_store import MemoryStore
from lichen.content.store import ArtefactStore
from lichen.content.unixfs import CHUNK_SIZE, hash_bytes
from lichen.errors import LichenError, NotFoundError, UsageError

FSSPEC = importlib.util.find_spec("fsspec") is not None
CONTENTS = [b"", b"a", b"b", bytes(CHUNK_SIZE), b"c" * (CHUNK_SIZE + 1), os.urandom(3 * CHUNK_SIZE)]


class StoreMachine(RuleBasedStateMachine):
    """Every store behaves as a dictionary from names to bytes, and restoring never loses content."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.target = self.directory / "target"
        self.stores: tuple[ArtefactStore, ...] = (DirectoryStore(self.directory / "store"), MemoryStore())
        if FSSPEC:
            self.stores += (FsspecStore(f"file://{self.directory}/files"),)
        self.model: dict[object, bytes] = {}

    def teardown(self) -> None:
        shutil.rmtree(self.directory)

    @rule(data=st.sampled_from(CONTENTS))
    def put_bytes(self, data):
        for store in self.stores:
            assert store.put_bytes(data, durable=False) == hash_bytes(data)
        self.model[hash_bytes(data).cid] = data

    @rule(data=st.sampled_from(CONTENTS))
    def put_file(self, data):
        source = self.directory / "source"
        source.write_bytes(data)
        for store in self.stores:
            assert store.put_file(source, durable=False) == hash_bytes(data)
        self.model[hash_bytes(data).cid] = data

    @rule(data=st.sampled_from(CONTENTS))
    def delete(self, data):
        cid = hash_bytes(data).cid
        expected = self.model.pop(cid, None) is not None
        for store in self.stores:
            assert store.delete(cid) == expected

    @rule(data=st.sampled_from(CONTENTS))
    def read(self, data):
        cid = hash_bytes(data).cid
        for store in self.stores:
            assert store.has(cid) == (cid in self.model)
            try:
                assert store.read_bytes(cid) == self.model[cid]
                with store.open(cid) as stream:
                    assert stream.read() == data
            except (NotFoundError, KeyError):
                assert cid not in self.model

    @rule(
        data=st.sampled_from(CONTENTS),
        there=st.none() | st.sampled_from([*CONTENTS, b"precious"]),
        overwrite=st.booleans(),
    )
    def fetch(self, data, there, overwrite):
        cid = hash_bytes(data).cid
        for store in self.stores:
            self.target.unlink(missing_ok=True)
            if there is not None:
                self.target.write_bytes(there)
            may_replace = overwrite or there is None or there == data or hash_bytes(there).cid in self.model
            try:
                fetched = store.fetch_to(cid, self.target, overwrite=overwrite)
            except NotFoundError:
                assert cid not in self.model
            except UsageError:
                assert not may_replace
            else:
                assert may_replace
                assert fetched.written == (there != data)
                assert self.target.read_bytes() == data
                continue
            assert (self.target.read_bytes() if self.target.exists() else None) == there

    @invariant()
    def both_hold_what_they_should(self):
        for store in self.stores:
            assert set(store.list()) == set(self.model)
            assert store.usage() == (len(self.model), sum(map(len, self.model.values())))


StoreMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=15, deadline=None)
TestStores = StoreMachine.TestCase


class CacheMachine(RuleBasedStateMachine):
    """Whatever happens to files, a digest cache never gives a name that is not theirs."""

    NAMES = ("one", "two")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.cache = DigestCache(self.directory / "digests.sqlite", now_ns=lambda: time.time_ns() + 10**10)

    def teardown(self) -> None:
        self.cache.close()
        shutil.rmtree(self.directory)

    def path(self, name):
        time.sleep(
            0.011
        )  # the clock is said to be ahead, so no two changes may fall into one tick of the kernel's
        return self.directory / name

    @rule(name=st.sampled_from(NAMES), data=st.sampled_from([b"aaaa", b"bbbb", b"longer"]))
    def write(self, name, data):
        self.path(name).write_bytes(data)

    @rule(name=st.sampled_from(NAMES), data=st.sampled_from([b"aaaa", b"bbbb"]))
    def edit_with_times_set_back(self, name, data):
        path = self.path(name)
        if path.exists():
            before = path.stat()
            path.write_bytes(data)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    @rule(name=st.sampled_from(NAMES))
    def remove(self, name):
        self.path(name).unlink(missing_ok=True)

    @rule()
    def swap(self):
        one, two = map(self.path, self.NAMES)
        if one.exists() and two.exists():
            one.rename(self.directory / "three")
            two.rename(one)
            (self.directory / "three").rename(two)

    @rule()
    def reopen(self):
        self.cache.close()
        self.cache = DigestCache(self.directory / "digests.sqlite", now_ns=lambda: time.time_ns() + 10**10)

    @invariant()
    def names_are_true(self):
        for name in self.NAMES:
            path = self.directory / name
            try:
                names = self.cache.hash_file(path)
            except LichenError:
                assert not path.exists()
            else:
                assert names == hash_bytes(path.read_bytes())
                assert self.cache.hash_files([path]) == [names]


CacheMachine.TestCase.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)
TestDigestCache = CacheMachine.TestCase


@given(
    st.integers(0, 4 * CHUNK_SIZE),
    st.lists(st.tuples(st.integers(0, 5 * CHUNK_SIZE), st.integers(0, 2 * CHUNK_SIZE)), max_size=10),
)
@settings(max_examples=20)
def test_an_opened_artefact_reads_like_memory(size, moves):
    data = os.urandom(size)
    with tempfile.TemporaryDirectory() as directory:
        store = DirectoryStore(directory)
        memory = io.BytesIO(data)
        with store.open(store.put_bytes(data, durable=False).cid) as stream:
            for offset, count in moves:
                assert stream.seek(offset) == memory.seek(offset)
                assert stream.read(count) == memory.read(count)
                assert stream.tell() == memory.tell()
