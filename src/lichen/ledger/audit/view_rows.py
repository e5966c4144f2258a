"""Rows of views compared with the entries, some entries at a time: by whoever has parsed them, on any processor.

Every row that the entries call for is looked up in the file by its key and compared there. How many rows there should be is
counted, so that `lichen.ledger.audit.stored` finds rows too many when it counts those that are there. Numbers for names are taken
from the file; the names are told in the order in which they were asked for, so that whoever goes through the entries in order
can tell whether the numbers are right.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lichen.ledger.audit.row_difference import differing_row

if TYPE_CHECKING:
    from lichen.ledger.ports import Record, RowView, View

__all__ = ["RowComparer", "RowsFound", "TableForm", "table_forms"]

NAME_COUNT_MAX: Final = 16_384  # kept in memory
VALUE_COUNT_MAX: Final = 640  # in one look-up
NO_NAME: Final = -1  # is no name's number


@dataclass(slots=True)
class RowsFound:
    """What came of comparing the rows of some entries.

    Attributes:
        counts: How many rows there should be, by table.
        names: Names that were not asked for before, by table of names, in order.
        wrong: What is wrong with the first row that differs, and the table it is in; None when all are there.
    """

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str | bytes]] = field(default_factory=dict)
    wrong: tuple[str, str] | None = None

    def pack(self) -> tuple[Any, ...]:
        """Write it in plain types."""
        return self.counts, self.names, self.wrong


@dataclass(frozen=True, slots=True)
class TableForm:
    """Columns of a view's table.

    Attributes:
        name: Of the table.
        columns: Names of its columns.
        types: Their types.
        keys: Names of those that tell rows apart, in the order of its key.
    """

    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    keys: tuple[str, ...]


def table_forms(view: View) -> list[TableForm]:
    """What tables a view makes, and of what form."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        for statement in view.ddl:
            connection.execute(statement)
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type='table' ORDER BY name")
        return [_form(connection, name) for (name,) in tables.fetchall()]


def _form(connection: sqlite3.Connection, table: str) -> TableForm:
    rows = connection.execute(
        "SELECT name, type, pk FROM pragma_table_info(?) ORDER BY cid", (table,)
    ).fetchall()
    keys = sorted((place, name) for name, _, place in rows if place)
    columns, types, _ = zip(*rows, strict=True)
    return TableForm(table, columns, types, tuple(name for _, name in keys))


class RowComparer:
    """Compares the rows of views with those that entries call for.

    Args:
        connection: To the file; it reads, and makes temporary tables in memory.
        views: Views, each with the number of entries it was offered.
    """

    def __init__(self, connection: sqlite3.Connection, views: Iterable[tuple[RowView, int]]) -> None:
        self._connection = connection
        self._views = tuple(views)
        self._tables: dict[str, _Expected] = {}
        self._names: dict[str, _Numbers] = {}
        for view, _ in self._views:
            for form in table_forms(view):
                if form.name == view.names_table:
                    self._names[view.name] = _Numbers(connection, form.name)
                else:
                    self._tables[form.name] = _Expected(connection, form)

    def compare(self, records: Sequence[Record]) -> RowsFound:
        """Look up every row that some records call for.

        Args:
            records: In the order of their indices.
        """
        found = RowsFound()
        rows: dict[str, list[tuple[Any, ...]]] = {}
        for view, filled_to in self._views:
            numbers, kinds = self._names.get(view.name), view.kinds
            id_of = _no_number if numbers is None else numbers.id_of
            for record in records:
                if record.kind in kinds and record.place < filled_to:
                    try:
                        for table, row in view.rows(record, id_of):
                            rows.setdefault(table, []).append(row)
                    except Exception as error:  # of a record that rules refuse, or a mistake of the view
                        found.wrong = found.wrong or (
                            view.name,
                            f"rows of the view {view.name!r} do not follow from entry {record.index}: {error!r}",
                        )
            if numbers is not None and (fresh := numbers.told()):
                found.names[numbers.table] = fresh
        for table, expected in rows.items():
            try:
                count, wrong = self._tables[table].compare(expected)
            except sqlite3.Error as error:
                count, wrong = len(expected), f"rows of {table} cannot be read: {error}"
            found.counts[table] = count
            if wrong is not None and found.wrong is None:
                found.wrong = table, wrong
        return found

    def rows(self, table: str, record: Record) -> list[tuple[Any, ...]]:
        """Rows that one record calls for in one table."""
        found: list[tuple[Any, ...]] = []
        for view, filled_to in self._views:
            if record.kind in view.kinds and record.place < filled_to:
                numbers = self._names.get(view.name)
                id_of = _no_number if numbers is None else numbers.id_of
                found += [row for name, row in view.rows(record, id_of) if name == table]
        return found


class _Numbers:
    """Numbers that stand for names, as the file has them."""

    def __init__(self, connection: sqlite3.Connection, table: str) -> None:
        self.table = table
        self._connection = connection
        self._query = f"SELECT id FROM main.{_quoted(table)} WHERE name=?"  # noqa: S608 - quoted
        self._known: dict[str | bytes, int] = {}
        self._fresh: list[str | bytes] = []

    def id_of(self, name: str | bytes) -> int:
        """The number of a name; one that no name has where the file does not have the name."""
        known = self._known.get(name)
        if known is None:
            if len(self._known) >= NAME_COUNT_MAX:
                self._known.clear()
            row = self._connection.execute(self._query, (name,)).fetchone()
            known = self._known[name] = NO_NAME if row is None else row[0]
            self._fresh.append(name)
        return known

    def told(self) -> list[str | bytes]:
        """Names that were asked for since the last call, and were not in memory."""
        fresh, self._fresh = self._fresh, []
        return fresh


def _no_number(name: str | bytes) -> int:
    raise KeyError(name)


class _Expected:
    """Rows that a table should have, looked up in it many at a time."""

    def __init__(self, connection: sqlite3.Connection, form: TableForm) -> None:
        self._connection = connection
        self._form = form
        self._group_count = max(1, VALUE_COUNT_MAX // len(form.columns))
        self._key_place = form.columns.index(form.keys[0])

    def _query(self, count: int) -> str:
        """Tells which of so many rows are not in the table as they should be, with what is there instead.

        Source: the names are those of the view's own statements, quoted.
        """
        columns = [_quoted(name) for name in self._form.columns]
        marks = ",".join(["(" + ",".join("?" * len(columns)) + ")"] * count)
        by_key = " AND ".join(f"s.{name}=e.{name}" for name in map(_quoted, self._form.keys))
        same = " AND ".join(f"s.{name} IS e.{name}" for name in columns)
        return (
            f"WITH e({','.join(columns)}) AS (VALUES {marks}) SELECT e.*, s.* FROM e"  # noqa: S608
            f" LEFT JOIN main.{_quoted(self._form.name)} s ON {by_key}"
            f" WHERE s.{_quoted(self._form.keys[0])} IS NULL OR NOT ({same}) LIMIT 1"
        )

    def compare(self, rows: list[tuple[Any, ...]]) -> tuple[int, str | None]:
        """How many rows these are, none counted twice, and what is wrong with the first that differs."""
        form = self._form
        distinct = sorted(set(rows)) if len(form.keys) > 1 else rows
        for start in range(0, len(distinct), self._group_count):
            group = distinct[start : start + self._group_count]
            values = tuple(itertools.chain.from_iterable(group))
            differing = self._connection.execute(self._query(len(group)), values).fetchone()
            if differing is not None:
                ours, theirs = differing[: len(form.columns)], differing[len(form.columns) :]
                there = None if theirs[self._key_place] is None else theirs
                return len(distinct), differing_row(form.name, form.columns, form.keys, ours, there).message
        return len(distinct), None


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
