"""A copy of a ledger file while others append to it.

The copy is one unmoving picture of the ledger: every transaction that was committed when it began, and none of the later
ones. Writers are not held back. It gets its name when it is whole, durable, and opened once as a ledger.

Source: SQLite documentation, "SQLite Backup API"; the read transaction held around it keeps the picture still.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lichen.errors import StorageError, UsageError
from lichen.ledger.ledger import Ledger
from lichen.ledger.storage import LEDGER_FILE_NAME

if TYPE_CHECKING:
    from lichen.ledger.ports import Contract
    from lichen.ledger.views import Progress

__all__ = ["BackedUp", "back_up"]

PAGES_PER_STEP: Final = 2_048  # (= 8 MiB)


@dataclass(frozen=True, slots=True)
class BackedUp:
    """A copy that was made.

    Attributes:
        path: The file.
        ledger_id: 64 hexadecimal digits.
        size: Entries in it.
        sealed_size: Tree size of its newest checkpoint.
        root: Root over all its entries, hexadecimal.
        size_bytes: Size of the file.
    """

    path: Path
    ledger_id: str
    size: int
    sealed_size: int
    root: str
    size_bytes: int


def back_up(
    directory: Path, target: Path, contracts: Sequence[Contract], *, progress: Progress | None = None
) -> BackedUp:
    """Copy the ledger file of a directory.

    Args:
        directory: Directory that holds ``ledger.sqlite``.
        target: File to make. Put into an empty directory as ``ledger.sqlite``, it is a ledger.
        contracts: Contracts this program has.
        progress: Told how many pages are copied, and how many there are.

    Returns:
        What is in the copy.

    Raises:
        UsageError: Something is at the target.
        NotALedgerError: There is no ledger.
        CorruptLedgerError: The ledger is damaged at its beginning or end; no copy was made.
        StorageError: Disk full, or not writable; no copy was made.
    """
    target = target.absolute()
    if target.is_symlink() or target.exists():
        raise UsageError(
            f"{target} is there already", remedy="Name a new file: a backup never replaces another."
        )
    temporary = target.with_name(f".{target.name}.{os.getpid()}.writing")
    with Ledger.open(directory, contracts, read_only=True):
        source = (
            directory / LEDGER_FILE_NAME
        )  # it is a ledger, whole at both ends, of a schema this program knows
    try:
        _copy(source, temporary, progress)
        found = _looked_at(temporary, target, contracts)
        os.link(temporary, target)
        _sync(target.parent)
    except (sqlite3.Error, OSError) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise StorageError(
            f"cannot write a backup to {target}: {what}",
            remedy="Make room, mend the permissions, or name another place.",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return found


def _copy(source: Path, target: Path, progress: Progress | None) -> None:
    def tell(_status: int, remaining: int, total: int) -> None:
        if progress is not None:
            progress(total - remaining, total)

    uri = f"{source.absolute().as_uri()}?mode=ro"
    with (
        contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=60)) as reading,
        contextlib.closing(sqlite3.connect(target, isolation_level=None)) as writing,
    ):
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_master").fetchone()
        reading.backup(writing, pages=PAGES_PER_STEP, progress=tell, sleep=0.01)
        writing.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
    with target.open("rb") as file:
        os.fsync(file.fileno())


def _looked_at(path: Path, target: Path, contracts: Sequence[Contract]) -> BackedUp:
    """Open the copy as a ledger, in a directory of its own."""
    import tempfile

    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".looking-") as directory:
        os.link(path, Path(directory) / LEDGER_FILE_NAME)
        with Ledger.open(Path(directory), contracts, read_only=True) as ledger:
            size = ledger.size
            root = ledger.root_at(size).hex()
            return BackedUp(target, ledger.id, size, ledger.sealed_size, root, path.stat().st_size)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
