"""Any single byte that is changed in any table of a sealed ledger is found by the audit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from faults import flips, pages
from faults.site import Site


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Something in every table but those that a full hash tile fills."""
    site = Site(tmp_path_factory.mktemp("small"))
    flips.fill(site, 70)
    return site


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A full hash tile, and the payload digests that go with it."""
    site = Site(tmp_path_factory.mktemp("large"))
    flips.fill(site, 262)
    return site


def test_every_byte_of_the_file_has_one_owner(large: Site) -> None:
    found = pages.map_file(large.path)
    runs = sorted(
        (run.start, run.size_bytes)
        for extents in (*found.used.values(), *found.free.values())
        for run in extents
    )
    assert runs[0][0] == pages.FILE_HEADER_BYTES
    assert all(one + size <= other for (one, size), (other, _) in pairwise(runs))
    covered = sum(size for _, size in runs) + pages.FILE_HEADER_BYTES
    with closing(sqlite3.connect(large.path)) as connection:
        (free_pages,) = connection.execute("PRAGMA freelist_count").fetchone()
        (page_size,) = connection.execute("PRAGMA page_size").fetchone()
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE rootpage > 0")}
    assert names | {"sqlite_master"} == set(found.used)
    assert found.size_bytes - covered <= page_size * (free_pages + 16), (
        "overflow pages end with a few spare bytes"
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_flips_in_every_table_and_index(small: Site, tmp_path: Path, seed: int) -> None:
    found = flips.flip_many(small, tmp_path, 100, seed=seed, free_share=0.0)
    assert found.missed == []
    assert sum(found.found.values()) >= 97, found.harmless
    assert len({label.split()[0] for label in found.found}) > 20, "every table and index gets its share"


@pytest.mark.slow
def test_flips_where_hash_tiles_are_full(large: Site, tmp_path: Path) -> None:
    found = flips.flip_many(large, tmp_path, 80, seed=52, free_share=0.0, names=("tiles", "payloads", "state_tiles", "entries"))  # fmt: skip
    assert found.missed == []
    assert {label.split()[0] for label in found.found} == {"tiles", "payloads", "state_tiles", "entries"}


@pytest.mark.slow
def test_flips_where_nothing_lies_change_nothing_or_are_found(small: Site, tmp_path: Path) -> None:
    found = flips.flip_many(small, tmp_path, 20, seed=53, free_share=1.0)
    assert found.missed == []
    assert sum(found.harmless.values()) > 12, "unused bytes are nobody's"
