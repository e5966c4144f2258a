"""Many files by columns: the C library says what Python says of each file alone, and survives any bytes."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content import columns as module
from lichen.content.columns import STATE_BYTES, Columns, columns
from lichen.content.compiled import compiled_library
from lichen.content.digest_cache import DigestCache
from lichen.content.digest_table import BUCKET_BITS, ENTRY, bucket_of
from lichen.content.files import StatKey
from lichen.encoding.base import b64u
from lichen.encoding.canonical import canonical_json

RECORD = struct.Struct("<IBBBBIIqQQqqqII")
REGULAR, DIRECTORY = 8, 4
LATER_NS = 10**10  # ahead of the files, so that their times have settled


@pytest.fixture(scope="module")
def library() -> Columns:
    found = columns()
    if found is None:
        pytest.skip("there is no compiler")
    return found


def record(
    path: bytes,
    time_ns: int = 1,
    *,
    kind: str = "O",
    flags: int = 0,
    type_: int = REGULAR,
    committed: int = 1,
) -> bytes:
    """A record as the preload library writes it."""
    size = (RECORD.size + len(path) + 7) // 8 * 8
    head = RECORD.pack(
        size, ord(kind), type_, flags, 0, 1, len(path), time_ns, 1, time_ns, 3, 4, 5, 0, committed
    )
    return (head + path).ljust(size, b"\0")


def reads_of(library: Columns, log: bytes) -> dict[str, int]:
    """Path -> time of the plain reads, after checking that the columns fit together."""
    split = library.split(log)
    assert split is not None
    paths = [
        f"{directory}/{name}"
        for directory, names in zip(split.directories, split.names, strict=True)
        for name in names
    ]
    assert all(names == sorted(names, key=os.fsencode) for names in split.names)
    times = [time_ns for (time_ns,) in struct.iter_unpack("<q", split.times)]
    assert len(split.states) == STATE_BYTES * len(paths)
    inodes = [state[1] for state in struct.iter_unpack("<QQqqq", split.states)]
    assert inodes == times, "a state belongs to its file"
    assert len(set(paths)) == len(paths)
    return dict(zip(paths, times, strict=True))


def test_plain_reads_are_parted_and_the_rest_stands_as_it_stood(library: Columns) -> None:
    plain = [
        record(b"/p/a", 3),
        record(b"/p/b", 2),
        record(b"/q/a", 4),
        record(b"/p/\xff", 5),
        record(b"/x", 6),
    ]
    others = [
        record(b"/p/w", flags=1),
        record(b"/p", type_=DIRECTORY),
        record(b"/p/looked-at", kind="S"),
        record(b"/p/.hidden"),
        record(b"/p//doubled"),
        record(b"/p/trailing/"),
        record(b"/p/module.py"),
        record(b"/p/module.pyc"),
        record(b"/p/libm.so.6"),
        record(b"relative"),
        record(b"/p/nul\0nul"),
        record(b"/p/torn", committed=0),
    ]
    again = [*plain, *plain[:2], *[b""] * 5]
    mixed = [entry for pair in zip(others, again, strict=True) for entry in pair]
    split = library.split(b"".join(mixed))
    assert split is not None
    assert split.rest == b"".join(others)
    assert reads_of(library, b"".join(mixed)) == {
        "/p/a": 3,
        "/p/b": 2,
        "/q/a": 4,
        os.fsdecode(b"/p/\xff"): 5,
        "/x": 6,
    }


def test_of_several_reads_of_a_file_the_earliest_stands(library: Columns) -> None:
    log = record(b"/p/a", 7) + record(b"/p/a", 3) + record(b"/p/a", 5)
    assert reads_of(library, log) == {"/p/a": 3}


@given(st.lists(st.tuples(st.sampled_from(["/a", "/b/b", "/b/c"]), st.integers(0, 400)), max_size=60))
def test_no_file_is_lost_or_doubled(library: Columns, chosen: list[tuple[str, int]]) -> None:
    paths = [f"{directory}/{number}" for directory, number in chosen]
    log = b"".join(record(path.encode(), time_ns) for time_ns, path in enumerate(paths))
    first = {path: time_ns for time_ns, path in reversed(list(enumerate(paths)))}
    assert reads_of(library, log) == first


@given(
    st.binary(max_size=400),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 255)), max_size=5),
    st.integers(0, 300),
)
def test_any_bytes_are_taken_and_none_is_lost(
    library: Columns, tail: bytes, flips: list[tuple[int, int]], cut: int
) -> None:
    log = bytearray((record(b"/p/a") + record(b"/p/w", flags=1) + record(b"/p/b"))[:cut] + tail)
    for place, value in flips:
        if place < len(log):
            log[place] = value
    split = library.split(bytes(log))
    assert split is not None
    assert len(split.rest) <= len(log)
    assert sum(map(len, split.names)) * RECORD.size + len(split.rest) <= len(log)


def test_looks_are_those_of_stat(library: Columns, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    names = ["a", "d/b", "d/c", "d", "missing", "d/missing", "missing/x", "link", "circle", "d/ä"]
    for name in ("a", "d/b", "d/c", "d/ä"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link").symlink_to("d/b")
    (tmp_path / "circle").symlink_to("circle")
    paths = [f"{tmp_path}/{name}" for name in names] + [
        "/",
        "/proc",
        "relative/none",
        "/" + "x" * 5000 + "/y",
    ]
    states, types = library.look(b"".join(os.fsencode(path) + b"\0" for path in paths), len(paths))
    for place, path in enumerate(paths):
        try:
            status = os.stat(path)  # noqa: PTH116 - some of them no Path would keep
            expected = tuple(StatKey.of(status)), status.st_mode >> 12
        except OSError:
            expected = (0,) * 5, 0
        assert (struct.unpack_from("<QQqqq", states, STATE_BYTES * place), types[place]) == expected, path


def test_a_listing_is_that_of_scandir(library: Columns, tmp_path: Path) -> None:
    assert library.entries(str(tmp_path)) == ([], b"")
    for number in range(3000):
        (tmp_path / f"{number}-{'x' * (number % 50)}").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "link").symlink_to("d")
    (tmp_path / os.fsdecode(b"\xff")).touch()
    os.mkfifo(tmp_path / "...")
    found = library.entries(str(tmp_path))
    if found is None:
        pytest.skip("this file system does not tell types")
    with os.scandir(tmp_path) as entries:
        expected = {entry.name: entry.stat(follow_symlinks=False).st_mode >> 12 for entry in entries}
    assert dict(zip(*found, strict=True)) == expected
    assert len(found[0]) == len(expected)
    for odd in ("/missing", "/d\0", str(tmp_path / "0-")):
        assert library.entries(odd) is None


def test_known_states_are_found_and_no_others(library: Columns) -> None:
    rng = random.Random(5)
    inodes = sorted(rng.sample(range(5000), 700))
    packed = {inode: struct.pack("<qqq", inode % 7, -inode, inode) for inode in inodes}
    table = b"".join(
        ENTRY.pack(inode, packed[inode] + inode.to_bytes(32, "little") + bytes(32)) for inode in inodes
    )
    asked = [(rng.choice([1, 1, 1, 2]), rng.randrange(5000), rng.random() < 0.8) for _ in range(3000)]
    asked += [(1, inode, True) for inode in inodes]
    states = b"".join(
        struct.pack("<QQ", device, inode)
        + (packed[inode] if known and inode in packed else struct.pack("<qqq", 1, 2, 3))
        for device, inode, known in asked
    )
    halves = len(inodes) // 2 * ENTRY.size
    digests, found = library.find(states, [(1, table[:halves]), (1, table[halves:])], ENTRY.size)
    for place, (device, inode, known) in enumerate(asked):
        assert found[place] == (device == 1 and known and inode in packed)
        if found[place]:
            assert digests[33 * place : 33 * (place + 1)] == inode.to_bytes(32, "little") + b"\0"


@pytest.mark.parametrize("known", ["none", "some", "all"])
@pytest.mark.parametrize("meant", [True, False])
def test_a_cache_says_by_columns_what_it_says_file_by_file(
    library: Columns, tmp_path: Path, known: str, meant: bool
) -> None:
    """Whatever happened to a file between its state being taken and the question."""
    files = [tmp_path / "d" / str(number % 3) / f"{number}" for number in range(60)]
    for number, file in enumerate(files):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d" % number)

    def clock() -> int:
        return max(file.stat().st_ctime_ns for file in files if file.exists()) + LATER_NS

    paths = [str(file) for file in files]
    states = [tuple(StatKey.of(file.stat())) for file in files]
    with DigestCache(tmp_path / "cache", now_ns=clock) as cache:
        if known != "none":
            cache.digest_states(paths[:: 1 if known == "all" else 3])
    if meant:
        files[4].write_bytes(b"other")
        files[5].unlink()
        files[6].unlink()
        files[6].mkdir()
        files[7].unlink()
        files[7].symlink_to(files[8])
    order = sorted(range(60), key=lambda place: paths[place])
    paths, states = [paths[place] for place in order], [states[place] for place in order]
    column = b"".join(struct.pack("<QQqqq", *state) for state in states) if meant else None
    with DigestCache(tmp_path / "cache", now_ns=clock) as cache:
        answer = cache.digest_columns(b"".join(os.fsencode(path) + b"\0" for path in paths), 60, column)
    with DigestCache(tmp_path / "other", now_ns=clock) as cache:
        expected = cache.digest_states(paths, states if meant else None)
    assert answer is not None
    told = [answer[0][33 * place : 33 * place + 32] if answer[1][place] else None for place in range(60)]
    assert told == expected
    assert told.count(None) == (4 if meant else 0)


def test_without_a_compiler_there_is_no_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    columns.cache_clear()
    try:
        assert columns() is None
        with DigestCache(tmp_path / "digests") as cache:
            assert cache.digest_columns(b"/x\0", 1, None) is None
    finally:
        columns.cache_clear()


def test_what_cannot_be_loaded_is_not_kept(tmp_path: Path) -> None:
    source = tmp_path / "odd.c"
    source.write_text("int odd;\n")
    found = compiled_library(
        [source], ["-shared", "-fPIC"], is_usable=module._loads, cache_directory=tmp_path / "cache"
    )
    assert found is None
    assert list((tmp_path / "cache").iterdir()) == []


@given(
    st.dictionaries(
        st.sampled_from(["", "a/", "a/b/", "a-/", 'q"/', "ä/", "{project}/"]), st.sets(st.text(max_size=6))
    ),
    st.randoms(use_true_random=False),
)
def test_a_table_is_written_as_canonical_json_writes_it(
    library: Columns, names: dict[str, set[str]], random: random.Random
) -> None:
    """Or not at all, where a name would need an escape or is there twice."""
    ends = {start: sorted(part) for start, part in names.items()}
    whole = [start + end for start, part in ends.items() for end in part]
    digests = [random.randbytes(32) for _ in whole]
    text = library.text(ends, b"".join(digest + b"\0" for digest in digests))
    plain = all(
        name.isascii() and name.isprintable() and not set('"\\') & set(name) for name in (*ends, *whole)
    )
    assert (text is not None) == (plain and len(set(whole)) == len(whole))
    if text is not None:
        table = {name: b64u(digest) for name, digest in zip(whole, digests, strict=True)}
        assert text.members == canonical_json(table)
        assert text.names.decode() == "\0".join(sorted(whole))
        assert [whole[place] for place in memoryview(text.order).cast("I")] == sorted(whole)


@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2**64 - 1]), st.integers(0, 2**64 - 1) | st.integers(0, 5000)),
        max_size=30,
    )
)
def test_buckets_are_those_of_each_state(library: Columns, files: list[tuple[int, int]]) -> None:
    states = b"".join(struct.pack("<QQqqq", device, inode, 1, 2, 3) for device, inode in files)
    assert library.buckets(states, BUCKET_BITS) == sorted({bucket_of(*file) for file in files})
