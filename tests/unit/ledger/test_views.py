"""Query tables: as new as the log, rebuilt when they change, never the only place of anything."""

from __future__ import annotations

import sqlite3

import pytest

from lichen.contracts import default_contracts
from lichen.errors import StorageError, UsageError
from lichen.ledger.audit import audit


class Counted:
    """Runs by member."""

    name = "counted"
    kinds = frozenset({"run"})

    def __init__(self, version=1, table="view_counted"):
        self.version = version
        self.table = table
        self.ddl = (
            f"CREATE TABLE IF NOT EXISTS {table} (idx INTEGER PRIMARY KEY, member TEXT NOT NULL, status TEXT) STRICT",
            f"CREATE INDEX IF NOT EXISTS {table}_member ON {table} (member)",
        )

    def insert(self, connection, record):
        connection.execute(
            f"INSERT INTO {self.table} VALUES (?,?,?)",
            (record.place, record.member, record.predicate["status"]),
        )


class Everything(Counted):
    name = "everything"
    kinds = frozenset({"run", "data", "member", "genesis"})

    def insert(self, connection, record):
        connection.execute(f"INSERT INTO {self.table} VALUES (?,?,NULL)", (record.place, record.kind))


def rows(ledger, table="view_counted"):
    return [index for (index,) in ledger.connection.execute(f"SELECT idx FROM {table} ORDER BY idx")]


def test_rows_come_with_the_entry_and_not_with_what_is_refused(site):
    ledger = site.create(views=[Counted()])
    entries = site.entries(ledger, 3)
    ledger.append_many([*entries, entries[0]])
    assert rows(ledger) == [2, 3, 4]


def test_a_view_gets_the_kinds_it_wants_and_never_a_seal(site):
    ledger = site.create(views=[Counted(), Everything(table="view_all")])
    ledger.append(site.entry(ledger), seal=True)
    assert rows(ledger, "view_all") == [0, 2]
    assert rows(ledger) == [2]


def test_a_view_added_later_is_filled(site, ledger):
    ledger.append_many(site.entries(ledger, 5), seal=True)
    ledger.close()
    seen = []
    reopened = site.open(views=[Counted()], progress=lambda done, total: seen.append((done, total)))
    assert rows(reopened) == [2, 3, 4, 5, 6]
    assert seen[-1] == (reopened.size, reopened.size)
    reopened.append(site.entry(reopened))
    assert rows(reopened) == [2, 3, 4, 5, 6, 8]


def test_a_newer_version_replaces_what_the_older_made(site):
    ledger = site.create(views=[Counted()])
    ledger.append(site.entry(ledger))
    ledger.close()
    newer = site.open(views=[Counted(version=2, table="view_other")])
    assert rows(newer, "view_other") == [2]
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        rows(newer, "view_counted")


def test_rebuilding_on_demand(site):
    ledger = site.create(views=[Counted()])
    ledger.append_many(site.entries(ledger, 3))
    with ledger._log.database.write() as connection:
        connection.execute("DELETE FROM view_counted")
    assert ledger.rebuild_views() == []
    assert ledger.rebuild_views(every=True) == ["counted"]
    assert rows(ledger) == [2, 3, 4]


class TestReaders:
    def test_up_to_date_views_are_read_from_the_file(self, site):
        ledger = site.create(views=[Counted()])
        ledger.append(site.entry(ledger))
        reader = site.open(read_only=True, views=[Counted()])
        assert rows(reader) == [2]
        ledger.append(site.entry(ledger))
        assert rows(reader) == [2, 3]

    def test_stale_views_are_built_in_memory(self, site):
        ledger = site.create(views=[Counted()])
        ledger.append(site.entry(ledger), seal=True)
        before = site.path.read_bytes()
        newer = Counted(version=2)
        newer.insert = lambda connection, record: connection.execute(
            "INSERT INTO view_counted VALUES (?,'new','')", (record.place,)
        )
        reader = site.open(read_only=True, views=[newer])
        assert reader.connection.execute("SELECT member FROM view_counted").fetchall() == [("new",)]
        assert reader.connection.execute("SELECT count(*) FROM entries").fetchone() == (4,)
        assert ledger.connection.execute("SELECT member FROM view_counted").fetchall() == [("alice",)]
        assert site.path.read_bytes() == before

    def test_the_file_cannot_be_written_through_the_query_connection(self, site):
        ledger = site.create(views=[Counted()])
        for statement in ("DELETE FROM view_counted", "DELETE FROM entries", "CREATE TABLE view_x(a)"):
            with pytest.raises(sqlite3.OperationalError, match="readonly"):
                ledger.connection.execute(statement)
        ledger.close()
        reader = site.open(read_only=True, views=[Counted(version=2)])
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.connection.execute("DELETE FROM ledger.entries")


class TestMistakesOfAView:
    def test_what_it_raises_is_told_to_who_asks_and_harms_no_entry(self, site):
        view = Counted()
        ledger = site.create(views=[view])
        view.insert = lambda connection, record: connection.execute("INSERT INTO view_counted VALUES (1,2)")
        assert ledger.append(site.entry(ledger), seal=True).index == 2
        with pytest.raises(StorageError):
            rows(ledger)
        view.insert = lambda connection, record: connection.execute(
            "INSERT INTO view_counted VALUES (1,NULL,NULL)"
        )
        with pytest.raises(StorageError, match="the view 'counted' cannot hold entry 2"):
            rows(ledger)
        ledger.close()
        assert audit(site.directory, default_contracts()).is_sound
        del view.insert
        assert rows(site.open(views=[view])) == [2]

    def test_its_tables_say_that_they_are_views(self, site):
        with pytest.raises(UsageError, match="names must start with 'view_'"):
            site.create(views=[Counted(table="mine")])
        assert site.create().size == 2

    def test_names_are_unique(self, site):
        with pytest.raises(UsageError, match="share a name"):
            site.create(views=[Counted(), Counted()])
