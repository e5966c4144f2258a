"""Many inputs at once are what each of them would be alone, and whatever is not so plain is left to be looked at."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.content.columns import MANY
from lichen.encoding.base import b64u
from lichen.runs.trace.trace import Access, PlainReads, StatKey, Trace
from lichen.runs.work.digest_texts import digest_texts
from lichen.runs.work.file_table import FileTable
from lichen.runs.work.inputs import find_links, plain_columns, plain_inputs
from lichen.runs.work.manifest import Manifest
from lichen.runs.work.surroundings import MISSING, STDIN

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic

    from lichen.runs.work.surroundings import Surroundings

LATER_NS = 2**62


def state(path: str) -> tuple[int, ...]:
    return tuple(StatKey.of(Path(path).stat()))


@pytest.fixture(params=["one by one", "at once"])
def surroundings(clinic: Clinic, request: pytest.FixtureRequest) -> Surroundings:
    """Surroundings that hash each file by itself, or many through the digest cache."""
    there = clinic.surroundings()
    return (
        there
        if request.param == "one by one"
        else replace(there, hash_files=clinic.workspace().digest_states)
    )


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=5))
def test_digests_written_together_are_as_written_alone(digests: list[bytes]) -> None:
    assert digest_texts(digests) == [b64u(digest) for digest in digests]


def test_plain_reads_are_described_by_name_digest_and_size(
    clinic: Clinic, surroundings: Surroundings
) -> None:
    names = ["a.csv", "deep/a.csv", "deep/100%.csv", "deep/größe.csv", os.fsdecode(b"deep/\xff.csv"), "empty"]
    for name in names:
        clinic.write(name, name.encode("utf-8", "surrogateescape") if name != "empty" else b"")
    reads = {clinic.path(name): state(clinic.path(name)) for name in names}
    found = plain_inputs(surroundings, reads, changed_since_ns=LATER_NS, own_places=())
    expected = [surroundings.project.name_of(path) for path in reads]
    assert sorted(found.names) == sorted(expected)
    assert dict(zip(found.names, found.digests, strict=True)) == {
        name: surroundings.digest_of(name) for name in expected
    }
    assert dict(zip(found.names, found.sizes, strict=True)) == {
        name: reads[path][2] for name, path in zip(expected, reads, strict=True)
    }
    assert found.rest == []


def test_what_is_not_plain_is_left_over(clinic: Clinic, surroundings: Surroundings) -> None:
    names = ["same", "edited", "gone", "replaced", "recent", "unknown", "skipped.log", ".lichen/x"]
    for name in names:
        clinic.write(name, "1")
    clinic.write(".lichenignore", "*.log\n")
    project = replace(surroundings.project, extra_ignore=("*.log",))
    surroundings = replace(surroundings, project=project)
    reads: dict[str, tuple[int, ...] | None] = {clinic.path(name): state(clinic.path(name)) for name in names}
    reads[clinic.path("unknown")] = None
    reads[clinic.path("recent")] = (*state(clinic.path("recent"))[:4], LATER_NS)
    clinic.start()
    clinic.write("edited", "2")
    Path(clinic.path("gone")).unlink()
    clinic.write("other", "1").replace(clinic.path("replaced"))
    own = (clinic.path(".lichen"),)
    found = plain_inputs(surroundings, reads, changed_since_ns=LATER_NS, own_places=own)
    assert found.names == ["{project}/same"]
    assert {Path(path).name for path in found.rest} == {"edited", "gone", "replaced", "recent", "unknown"}


def columns_of(reads: dict[str, tuple[int, ...]]) -> PlainReads:
    """The same reads as a trace keeps very many of them."""
    folders: dict[str, list[str]] = {}
    for path in sorted(reads):
        directory, _, name = path.rpartition("/")
        folders.setdefault(directory, []).append(name)
    paths = [f"{directory}/{name}" for directory, names in folders.items() for name in names]
    return PlainReads(folders, b"".join(struct.pack("<QQqqq", *reads[path]) for path in paths))


@pytest.fixture
def by_columns(clinic: Clinic, surroundings: Surroundings, request: pytest.FixtureRequest) -> Surroundings:
    """Surroundings that go by columns where many go through the digest cache."""
    if surroundings.hash_files is None:
        return surroundings
    return replace(surroundings, hash_columns=clinic.workspace().digest_columns)


def test_by_columns_reads_are_described_as_otherwise(clinic: Clinic, by_columns: Surroundings) -> None:
    names = [
        "same",
        "edited",
        "gone",
        "replaced",
        "recent",
        "skipped.log",
        ".lichen/x",
        "deep/100%",
        "deep/größe",
    ]
    names += [os.fsdecode(b"deep/\xff"), "deep/old.pyc", "deep/__pycache__/x.pyc", "empty"]
    for name in names:
        clinic.write(name, name.encode("utf-8", "surrogateescape") if name != "empty" else b"")
    project = replace(by_columns.project, extra_ignore=("*.log",))
    there = replace(by_columns, project=project)
    reads = {clinic.path(name): state(clinic.path(name)) for name in names}
    reads[clinic.path("recent")] = (*state(clinic.path("recent"))[:4], LATER_NS)
    clinic.start()
    clinic.write("edited", "2")
    Path(clinic.path("gone")).unlink()
    clinic.write("other", "1").replace(clinic.path("replaced"))
    own = (clinic.path(".lichen"),)
    expected = plain_inputs(there, reads, changed_since_ns=LATER_NS, own_places=own)
    found, odd = plain_columns(there, columns_of(reads), changed_since_ns=LATER_NS, own_places=own)
    table = FileTable()
    table.put_columns(found.files)
    sizes = table.all_sizes()
    told = {(name, digest, sizes[name]) for name, digest in table.items()}
    assert told == set(zip(expected.names, expected.digests, expected.sizes, strict=True))
    assert len(told) == 5
    assert {path for path, _ in odd} == set(expected.rest)
    assert dict(odd) == {path: reads[path] for path in expected.rest}


def test_a_run_is_observed_by_columns_as_otherwise(clinic: Clinic, by_columns: Surroundings) -> None:
    """Links that lead to inputs, sources among them, a listing, and a file edited after it was read."""
    names = ["d/a", "d/b", "deep/x/c", "config", "edited", "run"]
    for name in names:
        clinic.write(name, name)
    Path(clinic.path("current")).symlink_to("deep/x")
    accesses = [clinic.access("read", name) for name in names]
    others = (clinic.access("list", "d"), clinic.access("stat", "d/a", detail="mode"))
    reads = {access.path: tuple(access.stat or ()) for access in accesses}
    started = clinic.start()
    clinic.write("edited", "again")
    modules = {"run": clinic.path("run")}
    seen = [
        clinic.observe(trace, surroundings=by_columns.afresh(), started_ns=started)
        for trace in (
            Trace(accesses=(*others, *accesses), modules=modules),
            Trace(accesses=others, plain=columns_of(reads), modules=modules),
        )
    ]
    assert seen[0].manifest == seen[1].manifest
    assert seen[0].data.all_sizes() == seen[1].data.all_sizes()
    assert [reason.code for reason in seen[1].reasons] == [reason.code for reason in seen[0].reasons]
    assert [reason.code for reason in seen[1].reasons] == ["inputs-changed"]
    assert seen[1].manifest.present["{project}/current"] == "link deep/x"
    assert set(seen[1].manifest.code) == {"{project}/run", "{project}/train.py"} & set(seen[1].manifest.code)


def test_very_many_names_are_digested_as_each_alone(clinic: Clinic, by_columns: Surroundings) -> None:
    names = []
    for number in range(MANY + 10):
        names.append(f"{{project}}/d/{number:05d}")
        clinic.write(f"d/{number:05d}", str(number))
    Path(clinic.path("d/00007")).unlink()
    Path(clinic.path("d/00008")).unlink()
    Path(clinic.path("d/00008")).mkdir()
    together = by_columns.afresh().digests_of([*names, STDIN])
    assert together == {name: by_columns.afresh().digest_of(name) for name in [*names, STDIN]}
    assert [name for name in names if together[name] == MISSING] == names[7:9]


def test_many_names_are_digested_as_each_alone(clinic: Clinic, surroundings: Surroundings) -> None:
    clinic.write("a", "1")
    clinic.write("café", "2")
    os.mkfifo(clinic.path("pipe"))
    surroundings.stdin_digest = b"s" * 32
    names = [
        "{project}/a",
        "{project}/café",
        "{project}/pipe",
        "{project}",
        "{project}/none",
        "a\0b",
        "100%zz",
        STDIN,
    ]
    together = surroundings.digests_of(names)
    assert together == {name: surroundings.afresh().digest_of(name) for name in names}
    assert [name for name in names if together[name] == MISSING] == names[2:7]


def test_a_file_looked_at_before_the_run_is_looked_at_again_after_it(clinic: Clinic) -> None:
    """The look-up before a run must not lend it the digests of what has changed since."""
    clinic.write("a.csv", "before")
    surroundings = replace(clinic.surroundings(), hash_files=clinic.workspace().digest_states)
    before = surroundings.digest_of("{project}/a.csv")
    clinic.start()
    clinic.write("a.csv", "after")
    started = clinic.start()
    seen = clinic.observe(
        Trace(accesses=(clinic.access("read", "a.csv"),)), surroundings=surroundings, started_ns=started
    )
    assert seen.reusable
    assert seen.manifest.data["{project}/a.csv"] != before


def links(clinic: Clinic, surroundings: Surroundings, *inputs: str) -> list[str]:
    found = find_links(surroundings, [clinic.path(name) for name in inputs])
    return [os.path.relpath(path, clinic.root) for path in found]


def test_links_to_inputs_and_to_directories_above_them_are_found(
    clinic: Clinic, surroundings: Surroundings
) -> None:
    for name in ("runs/1/data", "runs/2/data", "elsewhere/file"):
        clinic.write(name, "1")
    for link, target in {
        "runs/current": "1", "runs/other": "2", "latest": "runs/1/data", "alias": "latest", "circle": "circle", "self": ".",
        "elsewhere/back": "../runs/1/data", ".hidden": "runs",
    }.items():  # fmt: skip
        Path(clinic.path(link)).symlink_to(target)
    assert links(clinic, surroundings, "runs/1/data") == [
        ".hidden", "alias", "elsewhere/back", "latest", "runs/current",
    ]  # fmt: skip
    assert links(clinic, surroundings.afresh(), "latest") == links(
        clinic, surroundings.afresh(), "runs/1/data"
    )
    assert links(clinic, surroundings.afresh(), "train.py") == []


def test_links_beside_inputs_outside_the_project_are_found(
    clinic: Clinic, surroundings: Surroundings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = tmp_path / "shared" / "v2"
    outside.mkdir(parents=True)
    (outside / "real.csv").write_text("1")
    (outside / "now.csv").symlink_to("real.csv")
    (outside.parent / "latest").symlink_to("v2")
    for limit in (20_000, 1):
        monkeypatch.setattr("lichen.runs.work.surroundings._ENTRIES_MAX", limit)
        found = find_links(surroundings.afresh(), [str(outside / "now.csv")])
        if limit > 1:
            assert {Path(path).name for path in found} == {"now.csv", "latest"}
        else:
            assert {Path(path).name for path in found} <= {"now.csv", "latest"}


def test_a_manifest_and_what_is_there_now_share_what_is_equal(
    clinic: Clinic, surroundings: Surroundings
) -> None:
    for name in ("a", "b"):
        clinic.write(name, name)
    bare = Manifest(("python",), "{project}", (), data={"{project}/a": "", "{project}/b": ""})
    before = surroundings.redo(bare)
    parts = before.parts(None)
    same = surroundings.afresh().redo(before)
    assert same.parts(None) == parts == replace(before).parts(None)
    clinic.start()
    clinic.write("b", "other")
    changed = surroundings.afresh().redo(before)
    assert changed.parts(None) == replace(changed).parts(None)
    assert {part for part in parts if parts[part] != changed.parts(None)[part]} == {"data"}


def test_accesses_of_other_kinds_take_a_read_out_of_the_plain_ones(clinic: Clinic) -> None:
    clinic.write("notes", "1")
    clinic.write("seen", "1")
    reads = [clinic.access("read", "notes"), clinic.access("append", "notes"), clinic.access("read", "seen")]
    looks = [clinic.access("stat", "seen"), clinic.access("stat", "train.py")]
    accesses: tuple[Access, ...] = (*reads, *looks)
    seen = clinic.observe(Trace(accesses=accesses))
    assert set(seen.manifest.data) == {"{project}/notes", "{project}/seen"}
    assert "{project}/seen" not in seen.manifest.present
    assert [reason.code for reason in seen.reasons] == ["appended"]


def test_what_counts_once_it_is_read_is_left_to_be_looked_at(
    clinic: Clinic, surroundings: Surroundings
) -> None:
    """Which commit is checked out counts for whoever asked, though the folder is ignored."""
    names = [".git/HEAD", ".git/config", "plain"]
    for name in names:
        clinic.write(name, "1")
    reads = {clinic.path(name): state(clinic.path(name)) for name in names}
    found = plain_inputs(surroundings, reads, changed_since_ns=LATER_NS, own_places=())
    assert found.names == ["{project}/plain"]
    assert found.rest == [clinic.path(".git/HEAD")]


def test_a_file_whose_times_were_looked_at_is_not_plain(clinic: Clinic) -> None:
    clinic.write("a.csv", "1")
    accesses = (clinic.access("read", "a.csv"), clinic.access("stat", "a.csv", detail="times"))
    manifest = clinic.observe(Trace(accesses=accesses)).manifest
    assert set(manifest.data) == {"{project}/a.csv"}
    assert " at " in manifest.present["{project}/a.csv"]
