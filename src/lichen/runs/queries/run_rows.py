"""The runs that the ledger has entries of, as the local index asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from lichen.runs.queries.views import is_digest

if TYPE_CHECKING:
    import sqlite3

    from lichen.runs.reuse.local_index import Row

__all__ = ["RunRows"]

_ROW: Final = "SELECT idx, command, family, manifest FROM view_run"


class RunRows:
    """Rows of ``view_run``; see `lichen.runs.reuse.local_index.RunsOnRecord`.

    Args:
        connection: To the ledger's views.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of_command(self, command: bytes, start: int) -> Sequence[Row]:
        """Return the runs of a request from an index on, in order."""
        condition = is_digest("command", "?1")
        return self._connection.execute(
            f"{_ROW} WHERE {condition} AND idx >= ?2 ORDER BY idx",  # constants
            (command, start),
        ).fetchall()

    def of_family(self, family: bytes, limit: int) -> Sequence[Row]:
        """Return the latest runs of a script, newest first."""
        return self._connection.execute(
            f"{_ROW} WHERE family = ? ORDER BY idx DESC LIMIT ?", (family, limit)
        ).fetchall()

    def at(self, indexes: Sequence[int]) -> Sequence[Row]:
        """Return those of some entries that are runs."""
        found = (self._connection.execute(f"{_ROW} WHERE idx = ?", (index,)).fetchone() for index in indexes)
        return [row for row in found if row is not None]
