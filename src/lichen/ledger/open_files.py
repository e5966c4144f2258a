"""Which ledger files this process has open, so that none of them is opened past SQLite.

POSIX takes all of a process's locks on a file away when the process closes *any* descriptor of it. A look at the first bytes of a
ledger that is open already would so take SQLite's lock from the other connection; another process that closes the ledger then
believes to be the last, folds the write-ahead log into the file and removes it, and what is appended here afterwards goes into a
file that has no name any more.

Source: SQLite documentation, "How To Corrupt An SQLite Database File", section 2.2; POSIX.1-2017, fcntl.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path

__all__ = ["OpenFile", "is_open"]

_Place = tuple[int, int]
"""Device and inode of a file."""

_lock = threading.RLock()  # taken again when garbage is collected while it is held
_open: Counter[_Place] = Counter()


class OpenFile:
    """Notes that this process has a file open, until it is closed or gone.

    Args:
        path: The file.
        check: Looks at the file without SQLite; left out when the file is open here already, and so was looked at.

    Raises:
        OSError: There is no such file, and nothing to check.
        LichenError: What the check raised.
    """

    def __init__(self, path: Path, check: Callable[[Path], None] | None = None) -> None:
        with _lock:
            if check is not None and not is_open(path):
                check(path)
            place = _place_of(path)
            _open[place] += 1
        self._forget = weakref.finalize(self, _forget, place)

    def close(self) -> None:
        """Note that the connection to it is closed; doing so twice does nothing."""
        self._forget()


def is_open(path: Path) -> bool:
    """Say whether this process has a file open."""
    try:
        return _place_of(path) in _open
    except OSError:
        return False


def _place_of(path: Path) -> _Place:
    found = path.stat()
    return found.st_dev, found.st_ino


def _forget(place: _Place) -> None:
    with _lock:
        _open[place] -= 1
        if not _open[place]:
            del _open[place]
