"""Opening what others wrote, without being fooled by links, pipes and edits.

Every file Lichen hashes or stores is opened here: never blocking on a pipe, never a directory or a device, and with
the state it had when opened, so that an edit during the read is noticed.
"""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType
from typing import NamedTuple, NoReturn

from lichen.errors import FileChangedError, StorageError, UsageError

__all__ = [
    "StatKey",
    "StrPath",
    "file_changed",
    "kind_name",
    "open_regular",
    "raise_read_error",
    "raise_write_error",
    "show_path",
    "write_all",
]

StrPath = str | os.PathLike[str]

OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

KIND_NAMES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link",
}


class StatKey(NamedTuple):
    """What tells one state of a file from another without reading it.

    Args:
        device: ``st_dev``.
        inode: ``st_ino``.
        size_bytes: ``st_size``.
        mtime_ns: When the content last changed, nanoseconds since 1970; programs can set it.
        ctime_ns: When content or metadata last changed; only the kernel sets it.
    """

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> StatKey:
        """Take the key out of a ``stat`` result."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def show_path(path: StrPath) -> str:
    """Spell a path so that it can always be printed: undecodable bytes and control characters become escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def kind_name(mode: int) -> str:
    """Say what kind of file a ``st_mode`` means, with its article."""
    return KIND_NAMES.get(stat.S_IFMT(mode), "not a regular file")


def file_changed(path: StrPath) -> FileChangedError:
    """Build the error for a file that was written to while it was read."""
    return FileChangedError(
        f"{show_path(path)} changed while it was being read",
        remedy="Wait until nothing writes to it, then try again.",
    )


def raise_read_error(path: StrPath, error: OSError) -> NoReturn:
    """Turn a failed open or read into the error that names the file and the remedy.

    Raises:
        UsageError: The path names nothing, or nothing that may be read.
        StorageError: The disk failed.
    """
    shown = show_path(path)
    if error.errno in {errno.ENOENT, errno.ENOTDIR}:
        raise UsageError(f"there is no file {shown}", remedy="Check the path.") from error
    if error.errno == errno.ELOOP:
        raise UsageError(
            f"{shown} is a symbolic link where none is followed, or one that leads in a circle",
            remedy="Name the file it should lead to.",
        ) from error
    if error.errno == errno.ENAMETOOLONG:
        raise UsageError(
            f"the path {shown[:200]}… is too long for this system", remedy="Shorten it."
        ) from error
    if error.errno in {errno.EACCES, errno.EPERM}:
        raise UsageError(
            f"{shown} may not be read by this user", remedy=f"Run `chmod u+r {shown}` as its owner."
        ) from error
    if error.errno == errno.ENXIO:
        raise UsageError(
            f"{shown} is a socket or a device, not a file", remedy="Name a regular file."
        ) from error
    raise StorageError(
        f"{shown} could not be read: {error.strerror}", remedy="Check the disk it lies on."
    ) from error


def raise_write_error(path: StrPath, error: OSError) -> NoReturn:
    """Turn a failed creation or write into the error that names the file and the remedy.

    Raises:
        StorageError: Always.
    """
    shown = show_path(path)
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        raise StorageError(
            f"no room to write {shown}: {error.strerror}",
            remedy="Free space or raise the limit, then try again; nothing half-written was kept.",
        ) from error
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        raise StorageError(
            f"{shown} may not be written: {error.strerror}",
            remedy="Check the owner and mode of its directory.",
        ) from error
    raise StorageError(
        f"{shown} could not be written: {error.strerror}", remedy="Check the disk it lies on."
    ) from error


def write_all(descriptor: int, view: memoryview, path: StrPath) -> None:
    """Write every byte to an open file.

    Args:
        descriptor: Open for writing.
        view: What to write.
        path: Named in the error.

    Raises:
        StorageError: The disk is full or failed.
    """
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except OSError as error:
            raise_write_error(path, error)


class open_regular:  # noqa: N801 - used as a function, in a ``with`` statement
    """Open a regular file for reading; gives its descriptor and status, and checks at the end that it did not change.

    A class and not a generator because it opens a hundred thousand files in a row.

    Args:
        path: File to read.
        follow_symlinks: Whether ``path`` itself may be a symbolic link.
        dir_fd: Directory that a relative ``path`` starts from.

    Raises:
        UsageError: Nothing there, or not a regular file, or not readable.
        FileChangedError: Written to while it was open.
        StorageError: The disk failed.
    """

    __slots__ = ("_descriptor", "_dir_fd", "_flags", "_key", "_path")

    def __init__(self, path: StrPath, *, follow_symlinks: bool = True, dir_fd: int | None = None) -> None:
        self._path = path
        self._flags = OPEN_FLAGS if follow_symlinks else OPEN_FLAGS | os.O_NOFOLLOW
        self._dir_fd = dir_fd

    def __enter__(self) -> tuple[int, os.stat_result]:
        try:
            descriptor = os.open(self._path, self._flags, dir_fd=self._dir_fd)
        except OSError as error:
            raise_read_error(self._path, error)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            os.close(descriptor)
            raise UsageError(
                f"{show_path(self._path)} is {kind_name(status.st_mode)}, where a file is meant",
                remedy="Name a regular file.",
            )
        self._descriptor = descriptor
        self._key = StatKey.of(status)
        return descriptor, status

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None and StatKey.of(os.fstat(self._descriptor)) != self._key:
                raise file_changed(self._path)
            if isinstance(error, OSError):
                raise_read_error(self._path, error)
        finally:
            os.close(self._descriptor)
