"""Ledger files of older schemas, brought to the present one when they are opened.

A schema says how a file holds what it holds; it is not part of the ledger's format, and entries, roots, signatures and
receipts are the same in each. Every step is one transaction that changes tables and version together, so a file is of one
schema or of the next, whatever happens on the way.

=======  ==========================================================================================
Schema   What differs from the one before
=======  ==========================================================================================
1        the first
2        state writes of unsealed entries are derived from them, no longer stored; views say how many
         entries they have been offered, because they are filled when somebody asks
3        the pieces of the state are cut every four bits of the keys instead of every five, and hold at
         most 48 keys instead of 64
=======  ==========================================================================================
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["SCHEMA_VERSION", "VIEWS_TABLE", "bring_up_to_date"]

SCHEMA_VERSION: Final = 3

VIEWS_TABLE: Final = (
    "CREATE TABLE views(name TEXT PRIMARY KEY, version INTEGER NOT NULL, objects TEXT NOT NULL,"
    " filled_to INTEGER NOT NULL) STRICT, WITHOUT ROWID"
)
"""Which views are built, in which version, what they made, and how many entries they have been offered."""


def bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Take all steps from the schema of a file to the present one.

    Args:
        connection: To a ledger file of this or an older schema, in autocommit mode, with the right to write.

    Raises:
        sqlite3.Error: The file cannot be written, or is damaged; it is as it was after the last whole step.
        CorruptLedgerError: The state in it is damaged; the same.
    """
    while True:
        connection.execute("BEGIN IMMEDIATE")
        try:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version >= SCHEMA_VERSION:
                return
            _STEPS[version](connection)
            connection.execute(f"PRAGMA user_version={version + 1}")
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")


def _to_2(connection: sqlite3.Connection) -> None:
    """Views of schema 1 were filled in every append, so they have been offered all entries."""
    (last,) = connection.execute("SELECT max(idx) FROM entries").fetchone()
    built = connection.execute("SELECT name, version, objects FROM views").fetchall()
    connection.execute("DROP TABLE views")
    connection.execute(VIEWS_TABLE)
    count = 0 if last is None else last + 1
    connection.executemany("INSERT INTO views VALUES(?,?,?,?)", [(*row, count) for row in built])
    connection.execute("DROP TABLE pending")


def _to_3(connection: sqlite3.Connection) -> None:
    """The state has the same keys, values and roots in other pieces."""
    from lichen.ledger.state_store import rebuild_pieces  # only here: it is needed once for a file

    rebuild_pieces(connection)


_STEPS: Final[Mapping[int, Callable[[sqlite3.Connection], None]]] = {1: _to_2, 2: _to_3}
