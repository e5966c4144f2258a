"""Putting a restored file where it belongs: whole or not at all, never outside, never over what cannot be had again.

The new file has no name while it is being written, where the file system allows that, so even a killed process leaves
nothing behind; elsewhere it has a hidden temporary name that only a kill leaves.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lichen.content.cid import Cid
from lichen.content.files import (
    StatKey,
    StrPath,
    kind_name,
    open_regular,
    raise_write_error,
    show_path,
)
from lichen.content.unixfs import fill_from_descriptor, layout_of_stream
from lichen.errors import FileChangedError, UsageError

__all__ = ["Destination"]

# A directory used only as a starting point needs no read permission.
PLACE_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Destination:
    """A path that is about to receive an artefact.

    Args:
        path: Where the file goes.
        within: Directory the path must stay inside; no directory between the two may be a symbolic link.

    Raises:
        UsageError: The path does not lie below ``within``.
    """

    def __init__(self, path: StrPath, within: StrPath | None = None) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - links are dealt with on the walk, not before
        self.within = None if within is None else Path(os.path.abspath(within))  # noqa: PTH100
        if self.within is not None and self.within not in self.path.parents:
            raise UsageError(
                f"{show_path(path)} lies outside {show_path(self.within)}",
                remedy="Name a path inside that directory.",
            )

    @contextmanager
    def directory(self) -> Iterator[int]:
        """Open the parent directory, making it when it is missing.

        Raises:
            UsageError: A parent below ``within`` is a symbolic link, or any parent is not a directory.
            StorageError: A directory could not be made or entered.
        """
        if self.within is None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(self.path.parent, PLACE_FLAGS)
            except (FileExistsError, NotADirectoryError) as error:
                raise _not_a_directory(self.path.parent) from error
            except OSError as error:
                raise_write_error(self.path.parent, error)
        else:
            descriptor = self._walk_from(self.within)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def _walk_from(self, base: Path) -> int:
        """Enter one directory after the other below ``base``, through no symbolic link."""
        here = base
        try:
            descriptor = os.open(base, PLACE_FLAGS)
            for part in self.path.parent.relative_to(base).parts:
                here /= part
                outer = descriptor
                try:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=outer)
                    descriptor = os.open(part, PLACE_FLAGS | os.O_NOFOLLOW, dir_fd=outer)
                finally:
                    os.close(outer)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise _not_a_directory(here) from error
            raise_write_error(here, error)
        return descriptor

    def what_lies_there(
        self, directory: int, cid: Cid, *, is_kept: Callable[[Cid], bool], overwrite: bool
    ) -> tuple[StatKey | None, bool]:
        """Look at what the path holds and decide whether it may be replaced.

        Args:
            directory: The open parent directory.
            cid: What is to be put there.
            is_kept: Whether the store could give back the content of this name.
            overwrite: Whether content may be lost.

        Returns:
            The state of the present file, ``None`` if there is none, and whether it is the artefact already.

        Raises:
            UsageError: Something lies there that must not be replaced.
        """
        name = self.path.name
        try:
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        except FileNotFoundError:
            return None, False
        except OSError as error:
            raise_write_error(self.path, error)
        if stat.S_ISLNK(status.st_mode) and overwrite:
            return StatKey.of(status), False
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(
                f"{show_path(self.path)} is {kind_name(status.st_mode)} and is not replaced",
                remedy="Move it away, or restore to another path.",
            )
        with open_regular(name, follow_symlinks=False, dir_fd=directory) as (descriptor, opened):
            present = layout_of_stream(fill_from_descriptor(descriptor)).cid()
        if present != cid and not overwrite and not is_kept(present):
            raise UsageError(
                f"{show_path(self.path)} holds content that the store does not have, so it is not overwritten",
                remedy="Move it away, publish it first, or allow it with --overwrite.",
            )
        return StatKey.of(opened), present == cid

    @contextmanager
    def incoming(self, directory: int, present: StatKey | None, *, mode: int, durable: bool) -> Iterator[int]:
        """Give a new file to write to; when the block ends well it takes its place, otherwise it vanishes.

        Args:
            directory: The open parent directory.
            present: State of the file to replace; ``None`` when the path must still be free.
            mode: Permission bits.
            durable: Survive a power cut.

        Raises:
            FileChangedError: The path was written to in the meantime.
            StorageError: The file could not be made.
        """
        temporary = f".{secrets.token_hex(12)}.lichen"
        try:
            descriptor, is_named = _open_new(directory, temporary)
        except OSError as error:
            raise_write_error(self.path, error)
        try:
            yield descriptor
            try:
                os.fchmod(descriptor, mode & 0o777)  # never set-user-id, whatever a record says
                if durable:
                    os.fsync(descriptor)
                self._check_unchanged(directory, present)
                if not is_named:
                    if present is None:
                        _link(descriptor, directory, self.path.name)
                    else:
                        _link(descriptor, directory, temporary)
                        is_named = True
                if is_named:
                    os.rename(temporary, self.path.name, src_dir_fd=directory, dst_dir_fd=directory)
                    is_named = False
                if durable:
                    _sync_directory(directory)
            except FileExistsError as error:
                raise self._taken() from error
            except OSError as error:
                raise_write_error(self.path, error)
        finally:
            os.close(descriptor)
            if is_named:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)

    def _check_unchanged(self, directory: int, present: StatKey | None) -> None:
        try:
            now = StatKey.of(os.stat(self.path.name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError:
            return
        if now != present:
            raise self._taken()

    def _taken(self) -> FileChangedError:
        return FileChangedError(
            f"{show_path(self.path)} was written to while it was about to be restored",
            remedy="Wait until nothing writes to it, then try again.",
        )


def _not_a_directory(path: Path) -> UsageError:
    return UsageError(
        f"{show_path(path)} is a symbolic link or a file, where a directory is meant",
        remedy="Restore to another directory, or put a directory there.",
    )


def _open_new(directory: int, temporary: str) -> tuple[int, bool]:
    """Open a new file for writing, nameless where possible; say whether it got the temporary name."""
    try:
        return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=directory), False
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT}:
            raise
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.open(temporary, flags, 0o600, dir_fd=directory), True


def _link(descriptor: int, directory: int, name: str) -> None:
    """Give a nameless file a name that must be free."""
    os.link(f"/proc/self/fd/{descriptor}", name, dst_dir_fd=directory, follow_symlinks=True)


def _sync_directory(directory: int) -> None:
    """Make the names in a directory survive a power cut."""
    readable = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.fsync(readable)
    finally:
        os.close(readable)
