"""Views are filled when somebody asks, by whoever asks, and nobody ever sees a stale one."""

from __future__ import annotations

import sqlite3
import threading

import pytest
from tests.unit.ledger.test_views import Counted, rows

from lichen.contracts import default_contracts
from lichen.errors import CorruptLedgerError, RollbackError, StorageError
from lichen.ledger import queries
from lichen.ledger.audit import audit
from lichen.ledger.storage import Database


def filled_to(ledger):
    reader = ledger._log.database.reader()
    try:
        return reader.execute("SELECT filled_to FROM views WHERE name='counted'").fetchone()[0]
    finally:
        reader.close()


def statements(ledger, work):
    """What SQLite is asked for meanwhile by the connection that writes."""
    seen: list[str] = []
    connection = ledger._log.database.connection
    connection.set_trace_callback(seen.append)
    try:
        work()
    finally:
        connection.set_trace_callback(None)
    return seen


def test_an_append_writes_its_entry_and_nothing_else(site):
    ledger = site.create(views=[Counted()])
    ledger.append(site.entry(ledger), seal=True)
    statement = site.run(ledger)
    seen = statements(ledger, lambda: ledger.append_signed(statement, site.alice))
    written = [text.split()[:3] for text in seen if not text.startswith(("SELECT", "BEGIN", "COMMIT"))]
    assert written == [["INSERT", "INTO", "entries"]]
    assert len(seen) <= 10, seen


def test_appends_leave_views_behind_until_someone_asks(site):
    ledger = site.create(views=[Counted()])
    assert rows(ledger) == []
    ledger.append_many(site.entries(ledger, 3))
    assert filled_to(ledger) == 2
    assert rows(ledger) == [2, 3, 4]
    assert filled_to(ledger) == 5


def test_whoever_closes_leaves_them_filled(site):
    ledger = site.create(views=[Counted()])
    ledger.append_many(site.entries(ledger, 3))
    ledger.close()
    reader = site.open(read_only=True, views=[Counted()])
    assert filled_to(reader) == 6
    assert rows(reader) == [2, 3, 4]


def test_a_reader_without_the_key_fills_them_for_all(site):
    ledger = site.create(views=[Counted()])
    ledger.append_many(site.entries(ledger, 3))
    reader = site.open(read_only=True, views=[Counted()])
    assert rows(reader) == [2, 3, 4]
    assert filled_to(ledger) == 5
    ledger.append(site.entry(ledger))
    assert rows(ledger) == rows(reader) == [2, 3, 4, 5]
    assert audit(site.directory, default_contracts()).is_sound


def test_who_cannot_write_the_file_sees_all_the_same(site, monkeypatch):
    ledger = site.create(views=[Counted()])
    ledger.append_many(site.entries(ledger, 3), seal=True)
    assert rows(ledger) == [2, 3, 4]
    ledger.append_many(site.entries(ledger, 2))

    def refused(*_, **__):
        raise StorageError("cannot write")

    offered = []

    def insert(view, connection, record):
        offered.append(record.index)
        counted(view, connection, record)

    reader = site.open(read_only=True, views=[Counted()])
    counted = Counted.insert
    monkeypatch.setattr(Database, "open", refused)
    monkeypatch.setattr(Counted, "insert", insert)
    assert rows(reader) == [2, 3, 4, 6, 7]
    assert offered == [6, 7], "what the file has is copied, not made again"
    ledger.append(site.entry(ledger))
    assert rows(reader) == [2, 3, 4, 6, 7, 8]
    assert filled_to(ledger) == 6, "the file was not touched"


def test_filling_goes_on_where_it_was_broken_off(site, monkeypatch):
    monkeypatch.setattr(queries, "CHUNK_COUNT", 4)
    view = Counted()
    ledger = site.create(views=[view])
    ledger.append_many(site.entries(ledger, 10))

    def broken(connection, record):
        if record.place == 7:
            raise RuntimeError("killed")
        Counted.insert(view, connection, record)

    view.insert = broken
    with pytest.raises(RuntimeError, match="killed"):
        rows(ledger)
    assert filled_to(ledger) == 4, "the first chunk stays, the second never happened"
    del view.insert
    assert rows(ledger) == list(range(2, 12))


def test_many_who_ask_at_once_fill_each_row_once(site):
    ledger = site.create(views=[Counted()])
    others = [site.open(read_only=True, views=[Counted()]) for _ in range(2)] + [site.open(views=[Counted()])]
    entries = site.entries(ledger, 60)
    seen = []

    def ask(reader):
        while len(found := rows(reader)) < 60:
            seen.append((len(found), reader.size))
        assert found == list(range(2, 62))

    threads = [threading.Thread(target=ask, args=(other,)) for other in others]
    for thread in threads:
        thread.start()
    for start in range(0, 60, 3):
        ledger.append_many(entries[start : start + 3])
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert rows(ledger) == list(range(2, 62))


def test_writers_that_take_turns_count_on_each_others_unsealed_work(site, ledger):
    """State writes of an open block are derived by each process; equal work is counted across them."""
    other = site.open()
    for number in range(6):
        writer = (ledger, other)[number % 2]
        writer.append_signed(site.run(writer, seed=1), site.alice)
    ledger.seal(force=True)
    other.append_signed(site.run(other, seed=1), site.alice, seal=True)
    report = audit(site.directory, default_contracts())
    assert report.is_sound, report.problem
    assert report.kinds["run"] == 7


@pytest.mark.parametrize("field", ["status", "member"])
def test_a_damaged_entry_is_said_to_be_damaged(site, field):
    """Whoever derives rows or state from an entry that lost a field says so, and nothing is sealed on top of it.

    On the machine that acknowledged it, the mark beside the keys tells so already when the ledger is opened.
    """
    ledger = site.create(views=[Counted()])
    ledger.append_many(site.entries(ledger, 3))
    index = 3
    data = ledger.entry(index).to_bytes()
    changed = data.replace(f'"{field}":'.encode(), f'"{field[:-1]}_":'.encode())
    ledger._log.database.close()
    with sqlite3.connect(site.path) as connection:
        connection.execute("UPDATE entries SET entry=? WHERE idx=?", (changed, index))
    connection.close()
    with pytest.raises(RollbackError, match="differs within its first 5 entries"):
        site.open(views=[Counted()])
    other = site.open(views=[Counted()], home=None)
    with pytest.raises(CorruptLedgerError, match=r"entr(y|ies) "):
        rows(other)
    with pytest.raises(CorruptLedgerError, match=f"entry {index} is damaged"):
        other.append(site.entry(other))
    with pytest.raises(CorruptLedgerError):
        other.close()
    ledger._is_closed = True
