"""A directory that appears under its name whole, or not at all.

It is filled beside its final place, under ``.<name>.partial``. What an interrupted attempt left there is taken over file by
file where it is still right, so a second attempt does not start from nothing. When everything is there and durable, the
directory gets its name in one step; where one of that name stands already, the two change places.

Rules upheld:

* Every file is written under another name and renamed, so what bears its name is whole.
* Everything is on the disk before the directory gets its name.
* Two processes never fill the same directory.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from lichen.errors import StorageError, UsageError

__all__ = ["Staging"]

READ_SIZE: Final = 2**20  # (= 1048576) bytes
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2
_TEMPORARY: Final = ".writing"


class Staging:
    """A directory being filled; a context manager that keeps other processes out of it.

    Args:
        target: The name it shall have.

    Attributes:
        path: Where it is filled.
        digests: SHA-256 by name of every file that was put into it.
        written_count: Files written; the others were taken over.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.parent / f".{target.name}.partial"
        self.digests: dict[str, bytes] = {}
        self.written_count = 0
        self._lock = -1

    def __enter__(self) -> Staging:
        with self._storing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise UsageError(
                f"another process is writing {self.target}", remedy="Wait until it is done, then try again."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._lock)

    def put(self, name: str, data: bytes) -> None:
        """Put a file with this content.

        Raises:
            StorageError: Disk full, or not writable; what is there already stays for another attempt.
        """
        path = self.path / name
        self.digests[name] = hashlib.sha256(data).digest()
        with self._storing(path):
            if _is_plain(path) and path.stat().st_size == len(data) and path.read_bytes() == data:
                return
            with self._replacing(path) as file:
                file.write(data)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[BinaryIO]:
        """Put a file piece by piece: it is there when the block ends, or not at all.

        Raises:
            StorageError: Disk full, or not writable.
        """
        path = self.path / name
        with self._storing(path):
            with self._replacing(path) as file:
                yield file
            self.digests[name] = _digest_of(path)

    def take(self, source: Path, name: str, digest: bytes) -> bool:
        """Take over a file of an earlier archive, without copying it where the file system can.

        Args:
            source: The file; it must never be written again.
            name: Its name here.
            digest: Its SHA-256, as the earlier archive lists it.

        Returns:
            False when there is no such plain file.
        """
        if not _is_plain(source):
            return False
        path = self.path / name
        with self._storing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            try:
                os.link(source, path, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK):
                    raise
                with self._replacing(path) as file, source.open("rb") as original:
                    shutil.copyfileobj(original, file, READ_SIZE)
                self.written_count -= 1
        self.digests[name] = digest
        return True

    def has(self, name: str) -> Path | None:
        """Where an earlier attempt left a whole file of this name, or None."""
        path = self.path / name
        return path if _is_plain(path) else None

    def keep(self, name: str) -> None:
        """Keep what an earlier attempt left, after it was checked."""
        with self._storing(self.path / name):
            self.digests[name] = _digest_of(self.path / name)

    def sums(self) -> bytes:
        """List all files with their SHA-256, as ``sha256sum`` does, in the order of their names."""
        return b"".join(
            b"%s  %s\n" % (self.digests[name].hex().encode(), name.encode()) for name in sorted(self.digests)
        )

    def publish(self) -> None:
        """Drop what does not belong here, make everything durable, and give the directory its name.

        Raises:
            UsageError: Something else came to stand under the name meanwhile.
            StorageError: The system refused; the directory stays where it was filled.
        """
        with self._storing(self.target):
            self._sweep()
            if _is_empty_directory(self.target) or not self.target.exists():
                self.path.rename(self.target)
            else:
                _exchange(self.path, self.target)
                shutil.rmtree(self.path)
            _sync(self.target.parent)

    def _sweep(self) -> None:
        """Remove files that were not put in this attempt, and make the directories durable."""
        for folder, _, names in os.walk(self.path, topdown=False):
            for name in names:
                path = Path(folder) / name
                if path.relative_to(self.path).as_posix() not in self.digests:
                    path.unlink()
            if Path(folder) != self.path and not os.listdir(folder):  # noqa: PTH208 - its names are all that is asked
                Path(folder).rmdir()
            else:
                _sync(Path(folder))

    @contextlib.contextmanager
    def _replacing(self, path: Path) -> Iterator[BinaryIO]:
        """Open a file under another name; durable and renamed at the end, gone when that is not reached."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + _TEMPORARY)
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self.written_count += 1

    @contextlib.contextmanager
    def _storing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            what = "the disk is full" if full else error.strerror
            raise StorageError(
                f"cannot write {path}: {what}",
                remedy="Make room and type the same again: what was written is taken over."
                if full
                else f"Mend the permissions of {self.target.parent}, or name another place.",
            ) from error


def _is_plain(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _is_empty_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _digest_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exchange(one: Path, other: Path) -> None:
    """Let two directories change places: at once where the system can, else with a moment in which one is missing.

    In that moment the earlier directory stands beside its place as ``<name>.earlier``.
    """
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        function = None
    if function is not None:
        names = (os.fsencode(one), os.fsencode(other))
        if function(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
            raise OSError(number, os.strerror(number), str(other))
    aside = other.with_name(other.name + ".earlier")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)
