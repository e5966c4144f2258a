"""A store in a directory: one read-only file per artefact, named by its CID.

::

    store/
        format                      "lichen store 1"
        objects/<xy>/<cid>          whole artefacts; xy = the two characters before the CID's last
        incoming/<random>           being written; locked by its writer, swept when the writer is gone
        damaged/<cid>.<random>      set aside when reading found other bytes than the name says

Objects hold the artefact's own bytes, not raw blocks, so a store costs no more than the files in it and can be searched
with ordinary tools. Because an object's name is its hash, two writers of one artefact write the same bytes, and the
last rename wins.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lichen.content.cid import Cid
from lichen.content.files import StrPath, open_regular, raise_write_error, show_path
from lichen.content.placement import Destination
from lichen.content.store import READ_SIZE_MAX, Fetched, StoreUsage, absent, damaged, too_large
from lichen.content.unixfs import (
    CHUNK_SIZE,
    ArtefactHash,
    fill_from_descriptor,
    hash_bytes,
    hash_stream,
    layout_of_stream,
)
from lichen.content.verified_reader import VerifiedReader
from lichen.errors import EncodingError, FormatVersionError, StorageError, UsageError, VerificationError

__all__ = ["DirectoryStore"]

FORMAT = "lichen store 1\n"
FICLONE = 0x40049409  # ioctl: share the source's blocks, copy on write
ABANDONED_SECONDS = 600  # an unlocked incoming file older than this has no writer


class DirectoryStore:
    """Artefacts as files under a directory.

    Args:
        path: The store's directory; made at the first put.

    Raises:
        UsageError: The path is there but is not a directory.
        FormatVersionError: A newer Lichen made this store.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._objects = self.path / "objects"
        self._incoming = self.path / "incoming"
        self._damaged = self.path / "damaged"
        self._is_prepared = False
        self._check_format()

    # Putting

    def put_file(
        self, path: StrPath, *, known: ArtefactHash | None = None, durable: bool = True
    ) -> ArtefactHash:
        """Copy a file into the store and name it; see ``ArtefactStore.put_file``."""
        if known is not None and self._present_size(known.cid) == known.size_bytes:
            return known
        with self._new_object(show_path(path)) as incoming:
            with open_regular(path) as (source, status):
                source_mode = status.st_mode
                names = self._copy_in(source, incoming.descriptor)
            incoming.commit(names.cid, 0o400 | source_mode & 0o044, durable)
        return names

    def put_bytes(self, data: bytes, *, durable: bool = True) -> ArtefactHash:
        """Store an artefact held in memory; see ``ArtefactStore.put_bytes``."""
        names = hash_bytes(data)
        if self._present_size(names.cid) == len(data) and len(data) <= CHUNK_SIZE:
            with contextlib.suppress(VerificationError):
                self.read_bytes(names.cid)
                return names
        with self._new_object(str(names.cid)) as incoming:
            incoming.write(memoryview(data))
            incoming.commit(names.cid, 0o444, durable)
        return names

    def _copy_in(self, source: int, target: int) -> ArtefactHash:
        """Copy an open file while naming it; share its blocks instead where the file system can."""
        if _clone(source, target):
            return hash_stream(fill_from_descriptor(target))
        return hash_stream(
            fill_from_descriptor(source), sink=lambda view: _write_all(target, view, self.path)
        )

    # Reading

    def has(self, cid: Cid) -> bool:
        """Whether the store holds the artefact."""
        return self._present_size(cid) is not None

    def size(self, cid: Cid) -> int:
        """Return the size of an artefact in bytes; see ``ArtefactStore.size``."""
        size = self._present_size(cid)
        if size is None:
            raise absent(cid)
        return size

    def open(self, cid: Cid) -> BinaryIO:
        """Open an artefact, verified; see ``ArtefactStore.open``."""
        with self._object(cid) as (descriptor, size):
            if size <= CHUNK_SIZE:
                return io.BytesIO(self._read_verified(cid, descriptor, size))
            layout = layout_of_stream(fill_from_descriptor(descriptor))
            self._check(cid, layout.cid())
            return io.BufferedReader(VerifiedReader(os.dup(descriptor), layout, cid), CHUNK_SIZE)

    def read_bytes(self, cid: Cid, limit: int = READ_SIZE_MAX) -> bytes:
        """Return a whole artefact, verified; see ``ArtefactStore.read_bytes``."""
        with self._object(cid) as (descriptor, size):
            if size > limit:
                raise too_large(cid, size, limit)
            return self._read_verified(cid, descriptor, size)

    def fetch_to(
        self,
        cid: Cid,
        path: StrPath,
        *,
        mode: int = 0o644,
        overwrite: bool = False,
        within: StrPath | None = None,
        durable: bool = False,
    ) -> Fetched:
        """Restore an artefact to a path; see ``ArtefactStore.fetch_to``."""
        destination = Destination(path, within)
        with self._object(cid) as (source, size), destination.directory() as directory:
            present, is_same = destination.what_lies_there(
                directory, cid, is_kept=self.has, overwrite=overwrite
            )
            if is_same:
                return Fetched(False, size)
            with destination.incoming(directory, present, mode=mode, durable=durable) as target:
                if _clone(source, target):
                    layout = layout_of_stream(fill_from_descriptor(target))
                else:
                    layout = layout_of_stream(
                        fill_from_descriptor(source),
                        sink=lambda view: _write_all(target, view, destination.path),
                    )
                self._check(cid, layout.cid())
        return Fetched(True, layout.size_bytes)

    # Keeping house

    def delete(self, cid: Cid) -> bool:
        """Forget an artefact; see ``ArtefactStore.delete``."""
        try:
            self._object_path(cid).unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise_write_error(self._object_path(cid), error)
        return True

    def list(self) -> Iterator[Cid]:
        """Give the name of every artefact, in no order."""
        for cid, _ in self._entries():
            yield cid

    def usage(self) -> StoreUsage:
        """Count what the store holds."""
        count = size = 0
        for _, entry in self._entries():
            with contextlib.suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_size
                count += 1
        return StoreUsage(count, size)

    def sweep(self, older_than_seconds: float = ABANDONED_SECONDS) -> int:
        """Remove what killed writers left behind.

        Args:
            older_than_seconds: Age below which an incoming file is left alone.

        Returns:
            Files removed.
        """
        removed = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self._incoming) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_mtime > time.time() - older_than_seconds:
                        continue
                    descriptor = os.open(
                        entry.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
                    )
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        os.unlink(entry.path)  # noqa: PTH108
                        removed += 1
                    finally:
                        os.close(descriptor)
        return removed

    # Inside

    def _object_path(self, cid: Cid) -> Path:
        text = str(cid)
        return self._objects / text[-3:-1] / text

    def _present_size(self, cid: Cid) -> int | None:
        try:
            status = self._object_path(cid).lstat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StorageError(
                f"the store {show_path(self.path)} cannot be read: {error.strerror}",
                remedy="Check its owner and mode.",
            ) from error
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    @contextlib.contextmanager
    def _object(self, cid: Cid) -> Iterator[tuple[int, int]]:
        """Open an object and give its descriptor and size in bytes."""
        try:
            descriptor = os.open(
                self._object_path(cid), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            )
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}:
                raise absent(cid) from error
            raise StorageError(
                f"{cid} in the store {show_path(self.path)} cannot be read: {error.strerror}",
                remedy="Check the owner and mode of the store.",
            ) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise absent(cid)
            yield descriptor, status.st_size
        except OSError as error:
            raise StorageError(
                f"{cid} in the store {show_path(self.path)} cannot be read: {error.strerror}",
                remedy="Check the disk it lies on.",
            ) from error
        finally:
            os.close(descriptor)

    def _read_verified(self, cid: Cid, descriptor: int, size: int) -> bytes:
        with os.fdopen(os.dup(descriptor), "rb", buffering=0) as file:
            data = file.readall()
        if data is None or len(data) != size:
            data = data or b""
        self._check(cid, hash_bytes(data).cid)
        return data

    def _check(self, cid: Cid, calculated: Cid) -> None:
        if calculated == cid:
            return
        with contextlib.suppress(OSError):
            self._damaged.mkdir(exist_ok=True)
            self._object_path(cid).rename(self._damaged / f"{cid}.{secrets.token_hex(4)}")
        raise damaged(cid, calculated)

    def _entries(self) -> Iterator[tuple[Cid, os.DirEntry[str]]]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self._objects) as shards:
            for shard in shards:
                if not shard.is_dir(follow_symlinks=False):
                    continue
                with os.scandir(shard.path) as entries:
                    for entry in entries:
                        with contextlib.suppress(EncodingError):
                            cid = Cid.parse(entry.name)
                            if entry.is_file(follow_symlinks=False):
                                yield cid, entry

    def _check_format(self) -> None:
        try:
            text = (self.path / "format").read_text("ascii", "replace")
        except FileNotFoundError:
            return
        except NotADirectoryError as error:
            raise UsageError(
                f"{show_path(self.path)} is not a directory", remedy="Name the store's directory."
            ) from error
        except OSError as error:
            raise StorageError(
                f"the store {show_path(self.path)} cannot be read: {error.strerror}",
                remedy="Check its owner and mode.",
            ) from error
        if text != FORMAT:
            raise FormatVersionError(
                f"the store {show_path(self.path)} says {text.strip()[:40]!r}, this Lichen reads {FORMAT.strip()!r}",
                remedy="Use the newer Lichen that made it.",
            )

    def _prepare(self) -> None:
        if self._is_prepared:
            return
        try:
            for directory in (self._objects, self._incoming):
                directory.mkdir(parents=True, exist_ok=True)
            marker = self.path / "format"
            if not marker.exists():
                temporary = self._incoming / f"format.{secrets.token_hex(8)}"
                temporary.write_text(FORMAT, "ascii")
                temporary.rename(marker)
        except OSError as error:
            raise_write_error(self.path, error)
        self.sweep()
        self._is_prepared = True

    @contextlib.contextmanager
    def _new_object(self, shown: str) -> Iterator[_Incoming]:
        self._prepare()
        incoming = _Incoming(self, self._incoming / secrets.token_hex(16), shown)
        try:
            yield incoming
        finally:
            incoming.close()


class _Incoming:
    """An object being written: invisible until ``commit``, gone after ``close`` if never committed."""

    def __init__(self, store: DirectoryStore, path: Path, shown: str) -> None:
        self._store = store
        self._path = path
        self._is_committed = False
        self._shown = shown
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise_write_error(store.path, error)
        with contextlib.suppress(OSError):  # a file system without locks still has the age limit
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def write(self, view: memoryview) -> None:
        _write_all(self.descriptor, view, self._store.path)

    def commit(self, cid: Cid, mode: int, durable: bool) -> None:
        """Make the object visible under its name.

        Args:
            cid: What was written.
            mode: Permission bits, before the umask.
            durable: Survive a power cut.
        """
        target = self._store._object_path(cid)
        try:
            os.fchmod(self.descriptor, mode & ~_umask())
            if durable:
                os.fsync(self.descriptor)
            try:
                self._path.rename(target)
            except FileNotFoundError:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._path.rename(target)
                if durable:
                    _sync_directory(target.parent.parent)
            self._is_committed = True
            if durable:
                _sync_directory(target.parent)
        except OSError as error:
            raise_write_error(self._store.path, error)

    def close(self) -> None:
        os.close(self.descriptor)
        if not self._is_committed:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _umask() -> int:
    """Return the process's umask; there is no way to read it without setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _clone(source: int, target: int) -> bool:
    """Share the source's blocks with an empty target, where the file system can."""
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError:
        return False
    return True


def _write_all(descriptor: int, view: memoryview, path: Path) -> None:
    """Write every byte.

    Raises:
        StorageError: The disk is full or failed.
    """
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except OSError as error:
            raise_write_error(path, error)
