"""How far a ledger was when something was last acknowledged or signed for on this machine.

A ledger restored from an old backup looks whole. Signing on top of it would give two different entries the same index
under one signature, which no later explanation undoes. And a ledger whose write-ahead log was cut looks whole, too, while
entries that no seal covers yet, and that somebody was told are durable, are gone. So size and root behind the newest commit are
kept outside the ledger's directory, beside the user's keys, and looked at before anything is signed.

Rules upheld here:

* The mark is written after the commit it tells of, so it is never ahead of the ledger. It is handed to the operating system and not
  waited for, since an append waits for the disk once: a process that is killed loses nothing of it; after a power cut it may be
  behind, which costs nothing but sharpness.
* It only rises, also when several processes write it.
* A torn write loses at most the newest mark: two lines are written in turn, each with its own check.

File: ``<home>/high-water/<ledger id>.json``, two lines of 192 bytes, each a JSON object padded with spaces.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lichen.errors import RollbackError, StorageError, VerificationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["HighWater", "Mark", "check_mark"]

LINE_BYTES: Final = 192
LINE_COUNT: Final = 2
_LINE: Final = re.compile(
    rb'\{"check": "[0-9a-f]{16}", "root": "([0-9a-f]{64})", "size": ([0-9]{1,19})\} *\n'
)


@dataclass(frozen=True, slots=True)
class Mark:
    """How far a log was: a commit that was acknowledged here, or a checkpoint that was signed here.

    Attributes:
        size: Tree size.
        root: Root at that size, 32 bytes.
    """

    size: int
    root: bytes

    def to_line(self) -> bytes:
        """Write the mark as one padded line of JSON."""
        said = b'"root": "%s", "size": %d' % (self.root.hex().encode(), self.size)
        check = hashlib.sha256(said).hexdigest()[:16].encode()
        return (b'{"check": "%s", %s}' % (check, said)).ljust(LINE_BYTES - 1) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Mark | None:
        """Read a line; None when it is torn, blank or not one."""
        found = _LINE.match(line)
        if found is None:
            return None
        mark = cls(int(found[2]), bytes.fromhex(found[1].decode()))
        return mark if mark.to_line() == line else None


class HighWater:
    """The mark of one ledger.

    Args:
        home: Directory of the user's keys and settings; ``high-water/`` is made in it when needed.
        ledger_id: 64 hexadecimal digits.
    """

    def __init__(self, home: Path, ledger_id: str) -> None:
        self.path = home / "high-water" / f"{ledger_id}.json"
        self._descriptor: int | None = None

    def read(self) -> Mark | None:
        """The highest mark, or None when this machine never wrote to the ledger.

        Raises:
            StorageError: The file cannot be read.
            VerificationError: The file is there, but holds no mark.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageError(
                f"cannot read {self.path}: {error.strerror}", remedy="check its permissions"
            ) from error
        marks = _marks_of(data)
        if data.strip() and not marks:
            raise VerificationError(
                f"{self.path} is damaged",
                remedy="check with `lichen verify` that the ledger is as new as you remember, then remove this file",
            )
        return max(marks, key=lambda mark: mark.size, default=None)

    def check(self, size: int, root_at: Callable[[int], bytes]) -> None:
        """Refuse a ledger that is behind, or beside, what was signed before.

        Args:
            size: Count of its entries.
            root_at: Computes its root at a size up to that.

        Raises:
            RollbackError: It is older than the mark, or differs from it.
        """
        mark = self.read()
        if mark is not None:
            check_mark(mark, size, root_at)

    def raise_to(self, mark: Mark) -> None:
        """Write a mark, unless a higher one is there.

        Args:
            mark: Of entries that are durable.

        Raises:
            StorageError: The file cannot be written.
        """
        try:
            with self._locked() as descriptor:
                data = os.pread(descriptor, LINE_BYTES * LINE_COUNT, 0)
                lines = [data[at : at + LINE_BYTES] for at in range(0, LINE_BYTES * LINE_COUNT, LINE_BYTES)]
                sizes = [-1 if (found := Mark.from_line(line)) is None else found.size for line in lines]
                if mark.size > max(sizes):
                    os.pwrite(descriptor, mark.to_line(), sizes.index(min(sizes)) * LINE_BYTES)
        except OSError as error:
            raise StorageError(
                f"cannot write {self.path}: {error.strerror}",
                remedy="make room or mend permissions, so that an older copy of the ledger can be told from this one",
            ) from error

    def close(self) -> None:
        """Make the last mark durable and let go of the file."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.fsync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file, with every other process kept out; both lines have their room from the start."""
        if self._descriptor is None:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        descriptor = self._descriptor
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            if os.fstat(descriptor).st_size < LINE_BYTES * LINE_COUNT:
                os.pwrite(descriptor, (b" " * (LINE_BYTES - 1) + b"\n") * LINE_COUNT, 0)
            yield descriptor
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def check_mark(mark: Mark, size: int, root_at: Callable[[int], bytes], *, where: Path | None = None) -> None:
    """Refuse a ledger that is behind, or beside, a mark.

    Args:
        mark: Read *before* the picture of the ledger was taken: a mark that another process raised since would make a ledger
            look older than it is.
        size: Count of its entries.
        root_at: Computes its root at a size up to that.
        where: File of the ledger, for the message.

    Raises:
        RollbackError: It is older than the mark, or differs from it.
    """
    ledger = "this ledger" if where is None else str(where)
    remedy = (
        "put the newer ledger back, or an archive or backup made of it since; if it is lost, start a fork that says so, because somebody may "
        f"have been told of the entries that are missing, sealed or not: {_fork_command(where)}"
    )
    if size < mark.size:
        raise RollbackError(
            f"{ledger} has {size} entries, but {mark.size} were signed for or acknowledged on this machine: it is an older"
            " copy, or its last entries were lost",
            expected=mark.size,
            calculated=size,
            remedy=remedy,
        )
    root = root_at(mark.size)
    if root != mark.root:
        raise RollbackError(
            f"{ledger} differs within its first {mark.size} entries from the one signed for or acknowledged on this"
            " machine",
            expected=mark.root,
            calculated=root,
            remedy=remedy,
        )


def _fork_command(where: Path | None) -> str:
    """Return what to type, ready to be copied, and what to do then."""
    if where is None:
        return "`lichen init --fork-from` this ledger"
    old, new = (shlex.quote(str(where.parent) + end) for end in ("", "-fork"))
    return f"`lichen init --fork-from {old} {new}`, and then put {new} in the place of {old}"


def _marks_of(data: bytes) -> list[Mark]:
    lines = (data[at : at + LINE_BYTES] for at in range(0, len(data), LINE_BYTES))
    return [mark for line in lines if (mark := Mark.from_line(line)) is not None]
