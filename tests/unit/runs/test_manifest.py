"""Manifests: a lossless artefact, and parts that change exactly when something they cover does."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.encoding.canonical import canonical_json
from lichen.errors import EncodingError
from lichen.runs.work.manifest import Manifest, Output

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
TABLE = st.dictionaries(TEXT, TEXT, max_size=3)
OUTPUT = st.builds(
    Output, TEXT, st.binary(min_size=32, max_size=32), TEXT, st.integers(0, 2**50), st.integers(0, 0o7777)
)
MANIFEST = st.builds(
    Manifest,
    command=st.lists(TEXT, max_size=3).map(tuple),
    cwd=TEXT,
    family=st.lists(TEXT, max_size=2).map(tuple),
    seeds=TABLE,
    parameters=TABLE,
    code=TABLE,
    data=TABLE,
    absent=st.lists(TEXT, max_size=3).map(tuple),
    present=TABLE,
    listings=TABLE,
    imports=st.lists(TEXT, max_size=3).map(tuple),
    modules=TABLE,
    variables=st.dictionaries(TEXT, st.none() | TEXT, max_size=3),
    environment=TABLE,
    distributions=TABLE,
    executables=TABLE,
    outputs=st.lists(OUTPUT, max_size=2).map(tuple),
    directories=st.lists(TEXT, max_size=2).map(tuple),
    detail=st.none() | TEXT,
)
SECTIONS = {
    "code": "code", "data": "data", "seeds": "seed", "present": "rest", "listings": "rest", "modules": "rest",
    "variables": "rest", "environment": "rest", "distributions": "rest", "executables": "rest",
}  # fmt: skip


@given(MANIFEST)
def test_manifest_survives_its_artefact(manifest: Manifest) -> None:
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@given(MANIFEST)
def test_an_artefact_is_canonical_json(manifest: Manifest) -> None:
    """Large tables are joined where nothing needs an escape; that must not show."""
    data = manifest.to_bytes()
    assert canonical_json(json.loads(data)) == data


@given(st.binary(max_size=60) | st.just(b'{"manifest":1}') | st.just(b"[]"))
def test_other_bytes_are_refused_with_an_encoding_error(data: bytes) -> None:
    with pytest.raises(EncodingError):
        Manifest.from_bytes(data)


@given(MANIFEST, st.sampled_from(sorted(SECTIONS)))
def test_changing_a_section_changes_its_part_and_no_other(manifest: Manifest, section: str) -> None:
    changed: Any = {**getattr(manifest, section), "new item of the test": "x"}
    before, after = manifest.parts(None), replace(manifest, **{section: changed}).parts(None)
    changed_parts = {name for name in after if before.get(name) != after[name]}
    assert changed_parts == {SECTIONS[section]}
    assert before.keys() <= after.keys()


@given(MANIFEST)
def test_outputs_parameters_and_detail_are_not_part_of_the_work(manifest: Manifest) -> None:
    other = replace(manifest, outputs=(), directories=(), parameters={}, detail=None)
    assert other.parts(None) == manifest.parts(None)


@given(MANIFEST)
def test_group_key_hides_the_parts(manifest: Manifest) -> None:
    keyed = manifest.parts(b"k" * 32)
    assert keyed.keys() == manifest.parts(None).keys()
    assert not set(keyed.values()) & set(manifest.parts(None).values())
    assert keyed != manifest.parts(b"l" * 32)


def test_shape_depends_on_names_and_not_on_values() -> None:
    one = Manifest(command=("python",), cwd="{project}", family=(), data={"a": "1"})
    assert one.shape() == replace(one, data={"a": "2"}).shape()
    assert one.shape() != replace(one, data={"b": "1"}).shape()
