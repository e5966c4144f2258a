"""What SQLite itself finds wrong with a file: pages out of order, cells that overlap, index keys without rows."""

from __future__ import annotations

import contextlib
import sqlite3

__all__ = ["damaged_pages"]


def damaged_pages(uri: str) -> str | None:
    """Let SQLite check every page and every index of a database.

    Args:
        uri: Of the file.

    Returns:
        The first thing it finds, or None.

    Raises:
        sqlite3.Error: It cannot even go on.
    """
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        connection.execute("PRAGMA cache_size=-8192")
        (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    return None if said == "ok" else str(said)
