"""The connection on which views are asked, brought in step with the log each time it is taken.

Rules upheld here:

* Whoever takes the connection sees every entry that was committed before, whoever appended it.
* Views are filled in the file when it can be written, with the log key or without: they say nothing that the entries do not.
  That is a transaction nobody waits for the disk for; a power cut loses it, and the next question repeats it.
* Where the file cannot be written, and where this program has a view in another version than the file, views are filled in
  a temporary database of this process, starting from the rows that the file has.
* Filling goes in chunks, so memory stays bounded and writers get their turn.
"""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Final

from lichen.errors import LichenError
from lichen.ledger.state_store import STATE_SCHEMA
from lichen.ledger.storage import Database

if TYPE_CHECKING:
    from collections.abc import Callable

    from lichen.ledger.log_file import LogFile
    from lichen.ledger.views import Progress, ViewSet

__all__ = ["Queries"]

CHUNK_COUNT: Final = 10_000  # entries offered in one transaction
FILE: Final = "ledger"  # what the ledger file is called beside a temporary database


class Queries:
    """Keeps the views of one open ledger in step.

    Args:
        log: The file.
        views: The query tables.
        progress: Told while much is filled.
    """

    def __init__(self, log: LogFile, views: ViewSet, progress: Progress | None) -> None:
        self._log = log
        self._views = views
        self._progress = progress
        self._reader: sqlite3.Connection | None = None
        self._beside: dict[str, int] | None = (
            None  # places of the views in the temporary database, if there is one
        )
        self._filler: Database | None = None if log.database.read_only else log.database
        self._may_fill = True

    def connection(self) -> sqlite3.Connection:
        """A connection that can only read, and whose views have every entry there is.

        Raises:
            StorageError: It cannot be opened, or a view cannot hold an entry.
        """
        with self._log.database.lock:
            if self._beside is None and not self._is_filled() and not self._fill_file():
                self._begin_beside()
            if self._beside is not None:
                self._fill_beside(self._beside)
            return self._opened()

    def fill(self, *, count_max: int | None = None) -> None:
        """Fill the views in the file, if it can be written.

        Args:
            count_max: Do nothing when more entries than this are missing.

        Raises:
            StorageError: A view cannot hold an entry.
        """
        with self._log.database.lock:
            if not self._is_filled(count_max):
                self._fill_file()

    def renew(self, *, every: bool, progress: Progress | None) -> list[str]:
        """Make views of the file anew and fill them; see `lichen.ledger.ledger.Ledger.rebuild_views`."""
        database = self._log.database
        with database.lock:
            with database.write(durable=False) as connection:
                views = self._views.all if every else self._views.stale(connection)
                self._views.renew(connection, views)
            self._fill_all(database, progress)
            if progress is not None:
                progress(self._log.size, self._log.size)
        return [view.name for view in views]

    def close(self) -> None:
        """Let go of the connections."""
        with contextlib.suppress(sqlite3.Error):
            if self._reader is not None:
                self._reader.close()
        if self._filler is not None and self._filler is not self._log.database:
            self._filler.close()
        self._reader, self._filler, self._may_fill = None, None, False

    # -- in the file -----------------------------------------------------------------------------------------------

    def _is_filled(self, count_max: int | None = None) -> bool:
        """True when the views in the file have every entry; with ``count_max``, also when they lack more than that."""
        if not self._views.all:
            return True
        reader = self._opened()
        with self._log.database.guard:
            missing = self._views.missing_count(reader)
        return missing == 0 or (count_max is not None and missing > count_max)

    def _fill_file(self) -> bool:
        """Fill the views in the file; False when this process cannot."""
        log = self._log
        with log.database.read() as connection:
            if self._views.stale(connection):
                return False
        if self._filler is None and self._may_fill:
            try:
                self._filler = Database.open(log.database.path, read_only=False, more=STATE_SCHEMA)
                with self._filler.write(durable=False):
                    pass
            except LichenError:
                self._may_fill = False
                if self._filler is not None:
                    self._filler.close()
                    self._filler = None
        if self._filler is None:
            return False
        self._fill_all(self._filler, self._progress)
        return True

    def _fill_all(self, database: Database, progress: Progress | None) -> None:
        """Fill chunk by chunk; the last one sees what others appended meanwhile."""
        log, views = self._log, self._views
        is_done = not views.all
        while not is_done:
            with database.write(durable=False) as connection, log.database.read():
                log.refresh()
                places = views.places(connection)
                start = min(places.values())
                stop = min(start + CHUNK_COUNT, log.size)
                is_done = stop == log.size
                views.fill(
                    connection, places, log.records(start, stop), stop, report=_teller(progress, log.size)
                )
                views.note(connection, [name for name, place in places.items() if place < stop], stop)

    # -- beside it -------------------------------------------------------------------------------------------------

    def _begin_beside(self) -> None:
        """Make a temporary database and copy into it what the file has of the views."""
        log = self._log
        connection = log.database.reader(beside_as=FILE)
        try:
            with log.database.guard:
                connection.execute("BEGIN")
                self._beside = self._views.copy(connection, FILE)
                connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        if self._reader is not None:
            self._reader.close()
        self._reader = connection

    def _fill_beside(self, places: dict[str, int]) -> None:
        log, connection = self._log, self._opened()
        with log.database.read():
            log.refresh()
            start = min(places.values())
            if start == log.size:
                return
            connection.execute("BEGIN")
            try:
                self._views.fill(
                    connection,
                    places,
                    log.records(start),
                    log.size,
                    report=_teller(self._progress, log.size),
                )
                connection.execute("COMMIT")
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            places.update(dict.fromkeys(places, log.size))

    def _opened(self) -> sqlite3.Connection:
        if self._reader is None:
            self._reader = self._log.database.reader()
        return self._reader


def _teller(progress: Progress | None, total_count: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda index: progress(index + 1, total_count)
