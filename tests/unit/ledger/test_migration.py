"""Bringing a file of an older schema up to date: all of it or nothing. What the file then holds is in `test_samples`."""

from __future__ import annotations

import lzma
import sqlite3
from pathlib import Path

import pytest
import sample_ledger

from lichen.errors import CorruptLedgerError, FormatVersionError
from lichen.ledger import migration, storage
from lichen.runs.queries.views import default_views

SAMPLES = Path(__file__).resolve().parents[2] / "vectors" / "samples"


@pytest.fixture
def old(site):
    """The frozen file of schema 1, in the place of ``site`` and with its keys."""
    site.log_key, site.alice = sample_ledger.LOG, sample_ledger.ADA
    site.directory.mkdir(parents=True)
    site.path.write_bytes(lzma.decompress((SAMPLES / "schema-1.sqlite.xz").read_bytes()))
    return site


def asked(path, sql):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(sql).fetchall()
    finally:
        connection.close()


def test_every_older_schema_has_a_step():
    assert set(migration._STEPS) == set(range(1, migration.SCHEMA_VERSION))


@pytest.mark.parametrize("read_only", [False, True])
def test_entries_and_rows_are_those_of_before(old, read_only):
    entries = asked(old.path, "SELECT * FROM entries ORDER BY idx")
    runs = asked(old.path, "SELECT * FROM view_run ORDER BY idx")
    with old.open(read_only=read_only, views=default_views()) as ledger:
        assert ledger.connection.execute("SELECT * FROM view_run ORDER BY idx").fetchall() == runs != []
        found = ledger.connection.execute(f"SELECT * FROM entries WHERE idx<{len(entries)} ORDER BY idx")
        assert found.fetchall() == entries
    assert asked(old.path, "PRAGMA user_version") == [(migration.SCHEMA_VERSION,)]


def test_a_step_that_is_interrupted_leaves_the_older_schema(old, monkeypatch):
    def interrupted(connection):
        migration_step(connection)
        raise KeyboardInterrupt

    migration_step = migration._STEPS[1]
    monkeypatch.setattr(migration, "_STEPS", {1: interrupted})
    with pytest.raises(KeyboardInterrupt):
        old.open()
    assert asked(old.path, "PRAGMA user_version") == [(1,)]
    ((count,),) = asked(old.path, "SELECT count(*) FROM pending")
    assert count > 0
    monkeypatch.undo()
    size = old.open(read_only=True).size
    assert asked(old.path, "SELECT count(*) FROM entries") == [(size,)]


def test_where_it_cannot_be_written_the_remedy_is_said(old, monkeypatch):
    """A connection that may only read plays the place that cannot be written."""
    connect = storage._connect
    monkeypatch.setattr(storage, "_connect", lambda uri: connect(uri.replace("mode=rw", "mode=ro")))
    with pytest.raises(FormatVersionError, match=r"has ledger schema 1, .* cannot be written") as refused:
        old.open(read_only=True)
    assert "copy it" in refused.value.remedy


def test_an_older_file_that_is_cut_short_is_not_touched(old):
    whole = old.path.read_bytes()
    old.path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CorruptLedgerError, match=r"cut short|malformed"):
        old.open()
    assert old.path.read_bytes() == whole[: len(whole) // 2]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE state_buckets SET data=CAST(substr(data,1,length(data)-1) || x'ff' AS BLOB)"
        " WHERE node=(SELECT max(node) FROM state_buckets)",
        "DELETE FROM state_buckets WHERE node=(SELECT max(node) FROM state_buckets)",
        "UPDATE state_buckets SET data=substr(data,1,20)",
    ],
    ids=["value", "missing", "short"],
)
def test_a_damaged_state_is_not_taken_over(old, statement):
    connection = sqlite3.connect(old.path)
    connection.execute(statement)
    connection.commit()
    connection.close()
    before = asked(old.path, "SELECT * FROM state_buckets ORDER BY node")
    with pytest.raises(CorruptLedgerError, match="the stored state is damaged"):
        old.open()
    assert asked(old.path, "SELECT * FROM state_buckets ORDER BY node") == before
    assert asked(old.path, "PRAGMA user_version") == [(2,)]
