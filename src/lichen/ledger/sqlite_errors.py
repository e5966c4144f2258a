"""SQLite's failures in Lichen's words: what happened, to which file, and what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from lichen.errors import CorruptLedgerError, LichenError, NotALedgerError, StorageError, UsageError

__all__ = ["SqliteGuard", "translate_sqlite_error"]

_DAMAGE: Final = frozenset(
    # Too big: a length in the file says so, for nothing that long is ever written.
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_TOOBIG}
)


def translate_sqlite_error(path: Path, error: sqlite3.Error | UnicodeDecodeError) -> LichenError:
    """Say in Lichen's words what SQLite reported.

    Args:
        path: The ledger file.
        error: What was caught; a decoding error when damaged bytes stood where SQLite or its messages have text.

    Returns:
        The exception to raise instead: what happened, to which file, and the remedy.
    """
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return UsageError(f"the ledger {path} is closed", remedy="open it again before using it")
    if code == sqlite3.SQLITE_NOTADB:
        return NotALedgerError(
            f"{path} is not a Lichen ledger, or its first bytes are damaged: {error}",
            remedy="name a ledger made by `lichen init`, or restore this one from a copy",
        )
    if code in _DAMAGE or isinstance(error, UnicodeDecodeError) or "decode to UTF-8" in str(error):
        return CorruptLedgerError(
            f"the ledger file {path} is damaged: {error}",
            remedy="restore it from a copy, then run `lichen verify`; do not append to this file",
        )
    if code == sqlite3.SQLITE_FULL:
        return StorageError(
            f"no room left on the disk of {path}", remedy="free space and repeat; nothing was half-written"
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            f"another process keeps {path} locked",
            remedy="wait for it to finish, or end it, and repeat",
        )
    if code in (
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
    ):
        return StorageError(
            f"cannot open or write {path}: {error}",
            remedy=f"check the permissions of {path.parent} and the files in it",
        )
    return StorageError(
        f"the database under {path} failed: {error}",
        remedy="check the disk, then repeat; nothing was half-written",
    )


class SqliteGuard:
    """Context manager that turns SQLite's exceptions into Lichen's; cheap enough for every append."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, sqlite3.Error | UnicodeDecodeError):
            raise translate_sqlite_error(self._path, error) from error
