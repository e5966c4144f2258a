"""Files by columns and files one by one are the same table."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from lichen.content.columns import columns
from lichen.encoding.base import b64u
from lichen.encoding.canonical import canonical_json
from lichen.runs.work.file_table import FileColumns, FileTable
from lichen.runs.work.manifest import Manifest

FOLDERS = {
    "{project}/d/": ["1", "2", "3"],
    "{project}/d/e/": ["f"],
    "{project}/": ["d-", "z"],
    "/data/": ["a b"],
}
ODD = {"/data/": ["größe%", 'q"']}


def digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def size(name: str) -> int:
    return len(name) // 3


def whole(folders: dict[str, list[str]]) -> list[str]:
    return [start + end for start, ends in folders.items() for end in ends]


def one_by_one(names: list[str]) -> FileTable:
    table = FileTable()
    table.put_all(names, [b64u(digest(name)) for name in names], [size(name) for name in names])
    return table


def by_columns(folders: dict[str, list[str]], alone: list[str]) -> FileTable:
    table = FileTable()
    for name in alone[:1]:
        table.put(name, b64u(digest(name)), size(name))
    names = whole(folders)
    column = b"".join(digest(name) + b"\0" for name in names)
    table.put_columns(FileColumns(dict(folders), column, [size(name) for name in names]))
    for name in alone[1:]:
        table.put(name, b64u(digest(name)), size(name))
    return table


@pytest.fixture(params=["with the library", "without it"], autouse=True)
def with_and_without(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The library is used where it is loaded; else there is none."""
    if request.param == "without it":
        monkeypatch.setattr("lichen.runs.work.file_table.loaded", lambda: None)
    else:
        columns()
    yield


@pytest.mark.parametrize("folders", [FOLDERS, {**FOLDERS, **ODD}, {}])
@pytest.mark.parametrize("alone", [[], ["{project}/d/15", "{stdin}", "{project}/x"], ["{project}/d/2"]])
def test_a_table_by_columns_says_what_one_by_one_says(
    folders: dict[str, list[str]], alone: list[str]
) -> None:
    told = by_columns(folders, alone)
    names = list(dict.fromkeys([*whole(folders), *alone]))
    expected = one_by_one(names)
    assert told == expected == {name: b64u(digest(name)) for name in names}
    assert len(told) == len(names)
    assert all(name in told for name in names)
    assert "{project}/d/4" not in told
    assert "4" not in told
    assert told.all_sizes() == {name: size(name) for name in names}
    for limit in (1, 3, 5, 100):
        ordered = sorted(names, key=lambda name: (-size(name), name))[:limit]
        assert told.largest(limit) == expected.largest(limit) == [b64u(digest(name)) for name in ordered]
    manifests = [Manifest(("run",), ".", ("run",), data=table) for table in (told, expected, dict(expected))]
    assert len({manifest.to_bytes() for manifest in manifests}) == 1
    assert len({manifest.shape() for manifest in manifests}) == 1
    assert canonical_json(dict(expected)) in manifests[0].to_bytes()
    assert Manifest.from_bytes(manifests[0].to_bytes()).data == told


def test_a_name_that_came_by_columns_can_be_given_another_digest() -> None:
    table = by_columns(FOLDERS, [])
    table.put("{project}/d/2", "other", 9)
    assert table["{project}/d/2"] == "other"
    assert len(table) == len(whole(FOLDERS))
    assert table.largest(2) == ["other", b64u(digest("{project}/d/e/f"))]
