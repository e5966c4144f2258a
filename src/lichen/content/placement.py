"""Putting a restored file where it belongs: whole or not at all, never outside, never over what cannot be had again."""

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
    FileChangedError,
    StatKey,
    StrPath,
    open_regular,
    raise_write_error,
    show_path,
    type_names,
)
from lichen.content.unixfs import hash_descriptor
from lichen.errors import UsageError

__all__ = ["Destination"]

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Destination:
    """A path that is about to receive an artefact.

    Args:
        path: Where the file goes.
        within: Directory the path must stay inside; its parents below that are then walked without following links.
    """

    def __init__(self, path: StrPath, within: StrPath | None = None) -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - lexical: links are dealt with on the walk
        self.within = None if within is None else Path(os.path.abspath(within))  # noqa: PTH100
        if self.within is not None and (self.within not in self.path.parents):
            raise UsageError(
                f"{show_path(path)} lies outside {show_path(self.within)}",
                remedy="Name a path inside that directory.",
            )

    @contextmanager
    def directory(self) -> Iterator[int]:
        """Open the parent directory, making it when it is missing.

        Raises:
            UsageError: A parent is a symbolic link that leads out of ``within``, or not a directory.
            StorageError: A directory could not be made.
        """
        base = self.within if self.within is not None else Path(self.path.anchor)
        follow = 0 if self.within is None else os.O_NOFOLLOW
        try:
            descriptor = os.open(base, DIRECTORY_FLAGS)
        except OSError as error:
            raise_write_error(base, error)
        try:
            here = base
            for part in self.path.parent.relative_to(base).parts:
                here /= part
                descriptor = self._enter(descriptor, part, follow, here)
            yield descriptor
        finally:
            os.close(descriptor)

    def _enter(self, descriptor: int, part: str, follow: int, here: Path) -> int:
        """Open one directory below another, closing that one only when it worked."""
        try:
            try:
                inner = os.open(part, DIRECTORY_FLAGS | follow, dir_fd=descriptor)
            except FileNotFoundError:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=descriptor)
                inner = os.open(part, DIRECTORY_FLAGS | follow, dir_fd=descriptor)
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR}:
                raise UsageError(
                    f"{show_path(here)} is a symbolic link or a file, where a directory is meant",
                    remedy="Restore to another directory with --into, or put a directory there.",
                ) from error
            raise_write_error(here, error)
        os.close(descriptor)
        return inner

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
        kind = stat.S_IFMT(status.st_mode)
        if kind != stat.S_IFREG:
            if kind == stat.S_IFLNK and overwrite:
                return StatKey.of(status), False
            raise UsageError(
                f"{show_path(self.path)} is {type_names.get(kind, 'not a regular file')} and is not replaced",
                remedy="Move it away, or restore to another path.",
            )
        with open_regular(name, follow_symlinks=False, dir_fd=directory) as (descriptor, opened):
            present = hash_descriptor(descriptor, opened.st_size).cid
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
        temporary = f".{self.path.name[:40]}.{secrets.token_hex(8)}.lichen"
        try:
            descriptor = os.open(
                temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode=0o600, dir_fd=directory
            )
        except OSError as error:
            raise_write_error(self.path, error)
        placed = False
        try:
            yield descriptor
            try:
                os.fchmod(descriptor, mode)
                if durable:
                    os.fsync(descriptor)
                placed = self._take_place(directory, temporary, present)
                if durable:
                    os.fsync(directory)
            except OSError as error:
                raise_write_error(self.path, error)
        finally:
            os.close(descriptor)
            if not placed:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=directory)

    def _take_place(self, directory: int, temporary: str, present: StatKey | None) -> bool:
        name = self.path.name
        try:
            now = StatKey.of(os.stat(name, dir_fd=directory, follow_symlinks=False))
        except FileNotFoundError:
            now = None
        if now is not None and now != present:
            raise FileChangedError(
                f"{show_path(self.path)} was written to while it was about to be restored",
                remedy="Wait until nothing writes to it, then try again.",
            )
        os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)
        return True
