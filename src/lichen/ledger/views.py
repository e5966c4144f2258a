"""Query tables beside the log: filled from the entries, rebuilt from them whenever their version changes.

Rules upheld here:

* Nothing exists only in a view. Dropping every ``view_`` table loses nothing but time.
* The file says how many entries a view has been offered; rows and that number change in one transaction, so filling goes on
  where it stopped, whoever fills.
* A view makes only names that start with ``view_``, so it cannot touch the log's own tables by accident, and its size
  can be told apart.

When they are filled, and what those see who cannot write the file, is the business of `lichen.ledger.queries`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from lichen.errors import CorruptLedgerError, StorageError, UsageError
from lichen.ledger.ports import VIEW_PREFIX, BatchView, Record, View

__all__ = ["Progress", "ViewSet"]

BATCH_COUNT: Final = 500  # records offered to a view at a time

Progress = Callable[[int, int], None]
"""Called now and then with how many entries are done, and how many there are."""


class ViewSet:
    """The views a ledger was opened with.

    Args:
        views: Each name once.

    Raises:
        UsageError: Two views share a name.
    """

    def __init__(self, views: Sequence[View]) -> None:
        self._views = tuple(views)
        if len({view.name for view in views}) != len(self._views):
            raise UsageError("two views share a name", remedy="give each view its own name")

    @property
    def all(self) -> tuple[View, ...]:
        """Every view, in the order given."""
        return self._views

    def stale(self, connection: sqlite3.Connection) -> tuple[View, ...]:
        """Views that the file lacks or holds in another version."""
        built = dict(connection.execute("SELECT name, version FROM views"))
        return tuple(view for view in self._views if built.get(view.name) != view.version)

    def places(self, connection: sqlite3.Connection, schema: str = "main") -> dict[str, int]:
        """How many entries each view of the set has been offered; 0 for one that is stale or missing.

        Args:
            connection: Where they are.
            schema: Name of the database in it that has the table of views.
        """
        rows = connection.execute(f"SELECT name, version, filled_to FROM {schema}.views")  # noqa: S608 - a constant
        built = {(name, version): filled_to for name, version, filled_to in rows}
        return {view.name: built.get((view.name, view.version), 0) for view in self._views}

    def missing_count(self, connection: sqlite3.Connection) -> int:
        """How many entries the view that is most behind has not been offered; one look at the file."""
        rows = connection.execute(
            "SELECT name, version, filled_to, (SELECT max(idx) FROM entries) + 1 FROM views"
        ).fetchall()
        built = {row[:2]: row[3] - row[2] for row in rows}
        size = rows[0][3] if rows else 1
        return max((built.get((view.name, view.version), size) for view in self._views), default=0)

    def renew(self, connection: sqlite3.Connection, views: Iterable[View]) -> None:
        """Drop views and make their tables anew, empty; inside the caller's transaction.

        Raises:
            UsageError: A view makes names that do not start with ``view_``.
        """
        wanted = tuple(views)
        for view in wanted:
            _drop(view, connection)
        for view in wanted:
            _make(view, connection)

    def fill(
        self,
        connection: sqlite3.Connection,
        places: Mapping[str, int],
        records: Iterable[Record],
        stop: int,
        *,
        report: Callable[[int], None] | None = None,
    ) -> None:
        """Offer records to the views that have not been offered them; inside the caller's transaction.

        Args:
            connection: Where the tables are.
            places: As `places` gives them, of the views to fill.
            records: From the lowest of these places on, seals left out, in order.
            stop: One past the last entry; none of the records is behind it.
            report: Told now and then at which index it is.

        Raises:
            StorageError: A view refuses a record, which is a mistake of the view.
        """
        wanting = {name: place for name, place in places.items() if place < stop}
        views = [view for view in self._views if view.name in wanting]
        batch: list[Record] = []
        for record in records:
            batch.append(record)
            if len(batch) == BATCH_COUNT:
                _offer(views, wanting, connection, batch)
                if report is not None:
                    report(record.place)
                batch = []
        _offer(views, wanting, connection, batch)

    def note(self, connection: sqlite3.Connection, names: Iterable[str], stop: int) -> None:
        """Note in the file that views have been offered all entries before ``stop``; with the rows, in one transaction."""
        connection.executemany("UPDATE views SET filled_to=? WHERE name=?", [(stop, name) for name in names])

    def copy(self, connection: sqlite3.Connection, schema: str) -> dict[str, int]:
        """Make all views in a connection's main database, with the rows that another of its databases has of them.

        Args:
            connection: Its main database has no view yet.
            schema: Name of the other database, of the ledger file.

        Returns:
            How many entries each has been offered.
        """
        places = self.places(connection, schema)
        for view in self._views:
            for statement in view.ddl:
                connection.execute(statement)
            if places[view.name]:
                (made,) = connection.execute(
                    f"SELECT objects FROM {schema}.views WHERE name=?",  # noqa: S608 - a constant
                    (view.name,),
                ).fetchone()
                for table in _tables_in(made):
                    connection.execute(f"INSERT INTO main.{table} SELECT * FROM {schema}.{table}")  # noqa: S608 - quoted
        return places


def _offer(
    views: Sequence[View],
    places: Mapping[str, int],
    connection: sqlite3.Connection,
    records: Sequence[Record],
) -> None:
    for view in views:
        place, kinds = places[view.name], view.kinds
        wanted = [record for record in records if record.kind in kinds and record.place >= place]
        if not wanted:
            continue
        try:
            if isinstance(view, BatchView):
                view.insert_many(connection, wanted)
            else:
                for record in wanted:
                    view.insert(connection, record)
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError) as error:
            which = f"{wanted[0].index}" if len(wanted) == 1 else f"{wanted[0].index} to {wanted[-1].index}"
            raise StorageError(
                f"the view {view.name!r} cannot hold entry {which}: {error}",
                remedy="the ledger itself is whole; repair the view and rebuild it",
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptLedgerError(
                f"one of the entries {wanted[0].index} to {wanted[-1].index} does not say what its kind says: {error!r}",
                remedy="`lichen verify` names the entry that was changed; restore the ledger from a copy",
            ) from error


def _names(connection: sqlite3.Connection) -> dict[str, str]:
    """Type by name of everything in the main database that has a definition of its own."""
    return dict(connection.execute("SELECT name, type FROM sqlite_master WHERE sql IS NOT NULL"))


def _make(view: View, connection: sqlite3.Connection) -> None:
    """Make a view's tables and note what was made."""
    before = _names(connection)
    for statement in view.ddl:
        connection.execute(statement)
    made = {name: kind for name, kind in _names(connection).items() if name not in before}
    if foreign := sorted(name for name in made if not name.startswith(VIEW_PREFIX)):
        raise UsageError(
            f"the view {view.name!r} makes {', '.join(foreign)}; names must start with {VIEW_PREFIX!r}"
        )
    connection.execute(
        "INSERT OR REPLACE INTO views VALUES(?,?,?,0)",
        (view.name, view.version, json.dumps(made, sort_keys=True)),
    )


def _drop(view: View, connection: sqlite3.Connection) -> None:
    """Drop what an earlier version of a view made; its indexes go with their tables."""
    row = connection.execute("SELECT objects FROM views WHERE name=?", (view.name,)).fetchone()
    if row is None:
        return
    for table in _tables_in(row[0]):
        connection.execute(f"DROP TABLE IF EXISTS {table}")
    connection.execute("DELETE FROM views WHERE name=?", (view.name,))


def _tables_in(objects: str) -> list[str]:
    """Quoted names of the tables that a view made."""
    return [
        '"' + name.replace('"', '""') + '"'
        for name, kind in json.loads(objects).items()
        if kind == "table" and name.startswith(VIEW_PREFIX)
    ]
