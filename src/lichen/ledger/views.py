"""Query tables beside the log: filled inside the append, rebuilt from the entries whenever their version changes.

Rules upheld here:

* Nothing exists only in a view. Dropping every ``view_`` table loses nothing but time.
* A view is either as new as the log or absent: rows are added in the transaction that adds the entry.
* A view makes only names that start with ``view_``, so it cannot touch the log's own tables by accident, and its size
  can be told apart.
* Whoever cannot write the file still gets up-to-date views: those that are stale are built in memory.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final

from lichen.errors import StorageError, UsageError
from lichen.ledger.ports import VIEW_PREFIX, Record, View

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Progress", "ViewSet"]

PROGRESS_EVERY_COUNT: Final = 1_000

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
        kinds = {kind for view in self._views for kind in view.kinds}
        self._by_kind = {kind: tuple(view for view in self._views if kind in view.kinds) for kind in kinds}

    @property
    def all(self) -> tuple[View, ...]:
        """Every view, in the order given."""
        return self._views

    def insert(self, connection: sqlite3.Connection, record: Record) -> None:
        """Offer an accepted record to every view that wants its kind.

        Raises:
            StorageError: A view refused it, which is a mistake of the view; the append is undone.
        """
        for view in self._by_kind.get(record.kind, ()):
            _insert(view, connection, record)

    def stale(self, connection: sqlite3.Connection) -> tuple[View, ...]:
        """Views that the file lacks or holds in another version."""
        built = dict(connection.execute("SELECT name, version FROM views"))
        return tuple(view for view in self._views if built.get(view.name) != view.version)

    def rebuild(
        self,
        connection: sqlite3.Connection,
        views: Iterable[View],
        records: Iterator[Record],
        *,
        total_count: int,
        progress: Progress | None = None,
    ) -> None:
        """Drop views, make their tables anew and fill them; inside the caller's transaction.

        Args:
            connection: Where.
            views: Which.
            records: Every record of the log, seals left out, in order.
            total_count: Entries of the log, for progress.
            progress: Told about it.

        Raises:
            UsageError: A view makes names that do not start with ``view_``.
        """
        wanted = tuple(views)
        for view in wanted:
            _drop(view, connection)
        for view in wanted:
            _make(view, connection)
        _fill(wanted, connection, records, total_count, progress)

    def build_in_memory(
        self,
        connection: sqlite3.Connection,
        views: Iterable[View],
        records: Iterator[Record],
        *,
        total_count: int,
        progress: Progress | None = None,
    ) -> None:
        """Make and fill views in a connection whose main database is in memory.

        Args:
            connection: Main database in memory; the ledger attached under another name, so that a view built here hides
                the stale one there.
            views: Which.
            records: Every record of the log, seals left out, in order.
            total_count: Entries of the log, for progress.
            progress: Told about it.
        """
        wanted = tuple(views)
        for view in wanted:
            for statement in view.ddl:
                connection.execute(statement)
        _fill(wanted, connection, records, total_count, progress)


def _insert(view: View, connection: sqlite3.Connection, record: Record) -> None:
    try:
        view.insert(connection, record)
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.InterfaceError) as error:
        raise StorageError(
            f"the view {view.name!r} cannot hold entry {record.index}: {error}",
            remedy="the ledger itself is whole; repair the view and rebuild it",
        ) from error


def _fill(
    views: Sequence[View],
    connection: sqlite3.Connection,
    records: Iterator[Record],
    total_count: int,
    progress: Progress | None,
) -> None:
    wanted = frozenset().union(*(view.kinds for view in views))
    for record in records:
        if record.kind in wanted:
            for view in views:
                if record.kind in view.kinds:
                    _insert(view, connection, record)
        if progress is not None and record.place % PROGRESS_EVERY_COUNT == 0:
            progress(record.place, total_count)
    if progress is not None:
        progress(total_count, total_count)


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
        "INSERT OR REPLACE INTO views VALUES(?,?,?)",
        (view.name, view.version, json.dumps(made, sort_keys=True)),
    )


def _drop(view: View, connection: sqlite3.Connection) -> None:
    """Drop what an earlier version of a view made; its indexes go with their tables."""
    row = connection.execute("SELECT objects FROM views WHERE name=?", (view.name,)).fetchone()
    if row is None:
        return
    for name, kind in json.loads(row[0]).items():
        if kind in ("table", "view") and name.startswith(VIEW_PREFIX):
            quoted = name.replace('"', '""')
            connection.execute(f'DROP {kind} IF EXISTS "{quoted}"')
    connection.execute("DELETE FROM views WHERE name=?", (view.name,))
