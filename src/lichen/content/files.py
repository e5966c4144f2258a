"""Opening what others wrote, without being fooled by links, pipes and edits.

Every file Lichen hashes or stores is opened here: never blocking on a pipe, never a directory or a device, and with
the identity it had when opened, so that an edit during the read is noticed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, NoReturn

from lichen.errors import LichenError, StorageError, UsageError

__all__ = [
    "FileChangedError",
    "StatKey",
    "StrPath",
    "open_regular",
    "raise_read_error",
    "raise_write_error",
    "show_path",
]

type_names = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFLNK: "a symbolic link",
}

StrPath = str | os.PathLike[str]

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class FileChangedError(StorageError):
    """A file was edited, replaced or truncated while it was being read."""

    code = "file-changed"


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
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


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
            f"{shown} is a symbolic link that leads nowhere or in a circle",
            remedy="Name the file it should lead to.",
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
    if error.errno in FULL:
        raise StorageError(
            f"no room to write {shown}: {error.strerror}",
            remedy="Free space or raise the quota, then try again; nothing was kept.",
        ) from error
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        raise StorageError(
            f"{shown} may not be written: {error.strerror}",
            remedy="Check the owner and mode of its directory.",
        ) from error
    raise StorageError(
        f"{shown} could not be written: {error.strerror}", remedy="Check the disk it lies on."
    ) from error


@contextmanager
def open_regular(
    path: StrPath, *, follow_symlinks: bool = True, dir_fd: int | None = None
) -> Iterator[tuple[int, os.stat_result]]:
    """Open a regular file for reading, give its descriptor and status, and check at the end that it did not change.

    Args:
        path: File to read.
        follow_symlinks: Whether ``path`` itself may be a symbolic link.
        dir_fd: Directory that a relative ``path`` starts from.

    Raises:
        UsageError: Nothing there, or not a regular file, or not readable.
        FileChangedError: Edited, truncated or replaced in place while it was open.
        StorageError: The disk failed.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    try:
        descriptor = os.open(path, flags if follow_symlinks else flags | os.O_NOFOLLOW, dir_fd=dir_fd)
    except OSError as error:
        raise_read_error(path, error)
    try:
        status = os.fstat(descriptor)
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFREG:
            raise UsageError(
                f"{show_path(path)} is {type_names.get(kind, 'not a regular file')}, where a file is meant",
                remedy="Name a regular file.",
            )
        yield descriptor, status
        if StatKey.of(os.fstat(descriptor)) != StatKey.of(status):
            raise FileChangedError(
                f"{show_path(path)} changed while it was being read",
                remedy="Wait until nothing writes to it, then try again.",
            )
    except LichenError:
        raise
    except OSError as error:
        raise_read_error(path, error)
    finally:
        os.close(descriptor)
