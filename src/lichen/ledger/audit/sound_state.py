"""The stored state checked piece by piece while the entries are gone through, by a process of its own."""

from __future__ import annotations

import contextlib
import sqlite3

from lichen.errors import LichenError
from lichen.ledger.state_store import StateStore

__all__ = ["sound_state"]


def sound_state(uri: str) -> tuple[int, bytes] | None:
    """Check that the stored pieces of the state are those that its keys and values call for, and lead to its root.

    Args:
        uri: Of the ledger file.

    Returns:
        Version and root of the state that was found sound. None when something is wrong, or could not be read: whoever asked looks
        again, and says what.
    """
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.execute("BEGIN")  # one snapshot, also while others append
            store = StateStore(connection)
            store.check()
            return None if store.version is None else (store.version, store.root)
    except (LichenError, sqlite3.Error, TypeError, ValueError, LookupError, OverflowError):
        return None
