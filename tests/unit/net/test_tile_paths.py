"""Paths and bundles as C2SP tlog-tiles has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import EncodingError
from lichen.net.tile_paths import TilePath, pack_bundle, unpack_bundle


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (TilePath(0, 0), "0/000"),
        (TilePath(0, 1_234_067), "0/x001/x234/067"),
        (TilePath(3, 999, 1), "3/999.p/1"),
        (TilePath(None, 1_000, 255), "entries/x001/000.p/255"),
    ],
)
def test_paths_are_written_as_the_specification_shows(path: TilePath, text: str) -> None:
    assert path.to_text() == text
    assert TilePath.parse(text) == path


@given(
    st.builds(
        TilePath,
        st.none() | st.integers(0, 7),
        st.integers(0, 2**55 - 1),
        st.integers(1, 256),
    )
)
def test_a_path_reads_back_as_it_was_written(path: TilePath) -> None:
    assert TilePath.parse(path.to_text()) == path


@given(st.text(alphabet="entris0123456789x/.p", max_size=24))
def test_no_path_has_two_spellings(text: str) -> None:
    try:
        path = TilePath.parse(text)
    except EncodingError:
        return
    assert path.to_text() == text


@pytest.mark.parametrize(
    "text", ["", "0", "0/0", "8/000", "00/000", "0/x000/000", "0/000.p/0", "0/000.p/256", "0/000.p/01", "0/1234", "entries", "-1/000", "0/000/", "0/000.p/", "0/\u0660\u0660\u0660"],
)  # fmt: skip
def test_anything_else_is_no_path(text: str) -> None:
    with pytest.raises(EncodingError):
        TilePath.parse(text)


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_a_bundle_reads_back(entries: list[bytes]) -> None:
    assert unpack_bundle(pack_bundle(entries), len(entries)) == entries


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=8), st.data())
def test_a_bundle_that_is_cut_or_longer_is_refused(entries: list[bytes], data: st.DataObject) -> None:
    whole = pack_bundle(entries)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong, count in (
        (whole[:cut], len(entries)),
        (whole + b"\0\0", len(entries)),
        (whole, len(entries) + 1),
    ):
        with pytest.raises(EncodingError):
            unpack_bundle(wrong, count)
