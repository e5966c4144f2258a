"""A store in a directory: one read-only file per artefact, named by its CID.

::

    store/
        format                      "lichen store 1"
        objects/<xy>/<cid>          whole artefacts; xy = the two characters before the CID's last
        incoming/<random>.<mark>    being written; locked by its writer, swept when the writer is gone
        damaged/<cid>.<random>      set aside when reading found other bytes than the name says

Objects hold the artefact's own bytes, not raw blocks, so a store costs no more than the files in it and can be searched
with ordinary tools. Because an object's name is its hash, two writers of one artefact write the same bytes, and the
last rename wins. An object is readable by nobody who could not read its source and the store's directory.
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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from lichen.content.cid import Cid
from lichen.content.files import StrPath, open_regular, raise_write_error, show_path, write_all
from lichen.content.pipeline import Fill
from lichen.content.placement import Destination
from lichen.content.store import READ_SIZE_MAX, Fetched, StoreUsage, absent, damaged, mismatched, too_large
from lichen.content.unixfs import (
    CHUNK_SIZE,
    ArtefactHash,
    Progress,
    fill_from_descriptor,
    hash_bytes,
    hash_stream,
    layout_of_stream,
    report_to,
)
from lichen.content.verified_reader import VerifiedReader
from lichen.content.writer_mark import is_gone, mark_of_this_process
from lichen.errors import (
    EncodingError,
    FormatVersionError,
    NotFoundError,
    StorageError,
    UsageError,
    VerificationError,
)

__all__ = ["DirectoryStore"]

FORMAT = "lichen store 1\n"
FICLONE = 0x40049409  # ioctl of Linux: share the source's blocks, copy on write
ABANDONED_SECONDS = 600  # an incoming file untouched for this long and locked by nobody has no writer


class DirectoryStore:
    """Artefacts as files under a directory.

    Args:
        path: The store's directory; made at the first put.

    Raises:
        UsageError: The path is there but is not a directory.
        FormatVersionError: A newer Lichen made this store.
        StorageError: The directory cannot be read.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self._objects = self.path / "objects"
        self._incoming = self.path / "incoming"
        self._damaged = self.path / "damaged"
        self._readers_mask = 0  # permission bits that objects may have; 0 until the store is prepared
        self._check_format()
        self.sweep()

    # Putting

    def put_file(
        self,
        path: StrPath,
        *,
        known: ArtefactHash | None = None,
        durable: bool = True,
        progress: Progress | None = None,
    ) -> ArtefactHash:
        """Copy a file into the store and name it; see ``ArtefactStore.put_file``."""
        if known is not None and self._present_size(known.cid) == known.size_bytes:
            return known
        with open_regular(path) as (source, status):
            small = os.read(source, CHUNK_SIZE + 1) if status.st_size <= CHUNK_SIZE else b""
        if small and len(small) == status.st_size:
            if progress is not None:
                progress(len(small))
            return self._put_small(small, status.st_mode, durable)
        with self._new_object() as incoming:
            with open_regular(path) as (source, status):
                names = self._copy_in(source, incoming.descriptor, progress)
            incoming.commit(names.cid, status.st_mode, durable)
        return names

    def put_bytes(self, data: bytes, *, durable: bool = True) -> ArtefactHash:
        """Store an artefact held in memory; see ``ArtefactStore.put_bytes``."""
        if len(data) <= CHUNK_SIZE:
            return self._put_small(data, 0o444, durable)
        names = hash_bytes(data)
        with self._new_object() as incoming:
            write_all(incoming.descriptor, memoryview(data), self.path)
            incoming.commit(names.cid, 0o444, durable)
        return names

    def put_stream(self, fill: Fill, *, expected: Cid | None = None, durable: bool = True) -> ArtefactHash:
        """Store what a reader gives and name it; see ``ArtefactStore.put_stream``."""
        with self._new_object() as incoming:
            names = hash_stream(fill, (_copier(incoming.descriptor, self.path),))
            if expected is not None and names.cid != expected:
                raise mismatched(expected, names.cid)
            incoming.commit(names.cid, 0o444, durable)
        return names

    def _put_small(self, data: bytes, source_mode: int, durable: bool) -> ArtefactHash:
        names = hash_bytes(data)
        if self._present_size(names.cid) == len(data):
            with contextlib.suppress(VerificationError, NotFoundError, StorageError):
                self.read_bytes(names.cid)
                return names
        with self._new_object() as incoming:
            write_all(incoming.descriptor, memoryview(data), self.path)
            incoming.commit(names.cid, source_mode, durable)
        return names

    def _copy_in(self, source: int, target: int, progress: Progress | None) -> ArtefactHash:
        """Copy an open file while naming it; share its blocks instead where the file system can."""
        if _clone(source, target):
            return hash_stream(fill_from_descriptor(target), report_to(progress))
        copy = _copier(target, self.path)
        return hash_stream(fill_from_descriptor(source), (copy, *report_to(progress)))

    # Reading

    def has(self, cid: Cid) -> bool:
        """Whether the store holds the artefact."""
        return self.keeps(cid)

    def keeps(self, cid: Cid) -> bool:
        """Whether the artefact lies in this directory; a store with more behind it may have others."""
        return self._present_size(cid) is not None

    def bring(self, cid: Cid, size_bytes: int) -> None:
        """Have an artefact of a known size here, where a store has more behind it; a directory alone has nothing to do.

        Args:
            cid: Its name.
            size_bytes: Its size as whoever names it states it; more is not taken.

        Raises:
            LichenError: It cannot be brought here.
        """

    def bring_all(self, cids: Sequence[Cid], size_bytes: int) -> None:
        """Have several small artefacts here that will be read one after another; see `bring`.

        Args:
            cids: Their names; those that cannot be brought are left out.
            size_bytes: The most that any of them may have.

        Raises:
            LichenError: None of the rest can be brought here.
        """

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
                return io.BytesIO(self._read_verified(cid, descriptor))
            layout = layout_of_stream(fill_from_descriptor(descriptor))
            self._check(cid, layout.cid())
            return io.BufferedReader(VerifiedReader(os.dup(descriptor), layout, cid), CHUNK_SIZE)

    def read_bytes(self, cid: Cid, limit: int = READ_SIZE_MAX) -> bytes:
        """Return a whole artefact, verified; see ``ArtefactStore.read_bytes``."""
        with self._object(cid) as (descriptor, size):
            if size > limit:
                raise too_large(cid, size, limit)
            return self._read_verified(cid, descriptor)

    def fetch_to(
        self,
        cid: Cid,
        path: StrPath,
        *,
        mode: int = 0o644,
        overwrite: bool = False,
        within: StrPath | None = None,
        durable: bool = False,
        progress: Progress | None = None,
    ) -> Fetched:
        """Restore an artefact to a path; see ``ArtefactStore.fetch_to``."""
        destination = Destination(path, within)
        with self._object(cid) as (source, size), destination.directory() as directory:
            present, is_same = destination.what_lies_there(
                directory, cid, is_kept=self.keeps, overwrite=overwrite
            )
            if is_same:
                return Fetched(False, size)
            with destination.incoming(directory, present, mode=mode, durable=durable) as target:
                if _clone(source, target):
                    layout = layout_of_stream(fill_from_descriptor(target), report_to(progress))
                else:
                    copy = _copier(target, destination.path)
                    layout = layout_of_stream(fill_from_descriptor(source), (copy, *report_to(progress)))
                self._check(cid, layout.cid())
        return Fetched(True, layout.size_bytes)

    # Keeping house

    def delete(self, cid: Cid) -> bool:
        """Forget an artefact; see ``ArtefactStore.delete``."""
        path = self._object_path(cid)
        try:
            path.unlink()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise_write_error(path, error)
        return True

    def list(self) -> Iterator[Cid]:
        """Give the name of every artefact, in no order."""
        for cid, _ in self._entries():
            yield cid

    def hash_stored(self, cid: Cid) -> ArtefactHash:
        """Name the bytes that lie under a name, and change nothing, whatever they are.

        Raises:
            NotFoundError: The store does not hold the artefact.
            StorageError: It cannot be read.
        """
        with self._object(cid) as (descriptor, _):
            return hash_stream(fill_from_descriptor(descriptor))

    def usage(self) -> StoreUsage:
        """Count what the store holds."""
        count = size = 0
        for _, entry in self._entries():
            with contextlib.suppress(FileNotFoundError):
                size += entry.stat(follow_symlinks=False).st_size
                count += 1
        return StoreUsage(count, size)

    def sweep(self, older_than_seconds: float = ABANDONED_SECONDS) -> int:
        """Remove what killed writers left behind; done whenever a store is opened, and at its first put.

        Args:
            older_than_seconds: Age below which an incoming file is left alone, unless its writer ran on this machine and is
                gone.

        Returns:
            Files removed.
        """
        removed = 0
        with contextlib.suppress(OSError), os.scandir(self._incoming) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    modified = entry.stat(follow_symlinks=False).st_mtime
                    if modified <= time.time() - older_than_seconds or is_gone(entry.name.partition(".")[2]):
                        removed += _unlink_unlocked(entry.path)
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
            raise self._unreadable(error) from error
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
            raise self._unreadable(error) from error
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise absent(cid)
            yield descriptor, status.st_size
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            os.close(descriptor)

    def _read_verified(self, cid: Cid, descriptor: int) -> bytes:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            data = file.read()
        self._check(cid, hash_bytes(data).cid)
        return data

    def _check(self, cid: Cid, calculated: Cid) -> None:
        """Compare what the stored bytes hash to with their name; set them aside when they differ."""
        if calculated == cid:
            return
        with contextlib.suppress(OSError):  # a store that may not be written is read all the same
            self._damaged.mkdir(exist_ok=True)
            self._object_path(cid).rename(self._damaged / f"{cid}.{secrets.token_hex(4)}")
        raise damaged(cid, calculated)

    def _entries(self) -> Iterator[tuple[Cid, os.DirEntry[str]]]:
        try:
            with contextlib.suppress(FileNotFoundError), os.scandir(self._objects) as shards:
                for shard in shards:
                    if shard.is_dir(follow_symlinks=False):
                        with os.scandir(shard.path) as entries:
                            for entry in entries:
                                with contextlib.suppress(EncodingError):
                                    cid = Cid.parse(entry.name)
                                    if entry.is_file(follow_symlinks=False):
                                        yield cid, entry
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> StorageError:
        return StorageError(
            f"the store {show_path(self.path)} cannot be read: {error.strerror}",
            remedy="Check its owner and mode, and the disk it lies on.",
        )

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
            raise self._unreadable(error) from error
        if text != FORMAT:
            raise FormatVersionError(
                f"the store {show_path(self.path)} says {text.strip()[:40]!r}, this Lichen reads {FORMAT.strip()!r}",
                remedy="Use the newer Lichen that made it.",
            )

    def _prepare(self) -> None:
        try:
            for directory in (self._objects, self._incoming):
                directory.mkdir(parents=True, exist_ok=True)
            marker = self.path / "format"
            if not marker.exists():
                temporary = self._incoming / f"format.{secrets.token_hex(8)}"
                temporary.write_text(FORMAT, "ascii")
                temporary.rename(marker)
            self._readers_mask = 0o400 | self.path.stat().st_mode & 0o044
        except OSError as error:
            raise_write_error(self.path, error)
        self.sweep()

    @contextlib.contextmanager
    def _new_object(self) -> Iterator[_Incoming]:
        """Open a new object; when the block ends without ``commit`` nothing of it remains."""
        if not self._readers_mask:
            self._prepare()
        incoming = _Incoming(self, self._incoming / f"{secrets.token_hex(16)}.{mark_of_this_process()}")
        try:
            yield incoming
        finally:
            incoming.close()

    def _place(self, temporary: Path, cid: Cid, durable: bool) -> None:
        """Give a finished object its name."""
        target = self._object_path(cid)
        try:
            temporary.rename(target)
        except FileNotFoundError:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary.rename(target)
            if durable:
                _sync_directory(self._objects)
        if durable:
            _sync_directory(target.parent)

    def _mode(self, source_mode: int) -> int:
        return 0o400 | source_mode & self._readers_mask


class _Incoming:
    """An object being written: invisible until ``commit``, gone after ``close`` if never committed."""

    def __init__(self, store: DirectoryStore, path: Path) -> None:
        self._store = store
        self._path = path
        self._is_placed = False
        try:
            self.descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise_write_error(store.path, error)
        with contextlib.suppress(OSError):  # where files cannot be locked, the age limit alone protects them
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def commit(self, cid: Cid, source_mode: int, durable: bool) -> None:
        """Make the object visible under its name.

        Args:
            cid: What was written.
            source_mode: Mode of the file it came from; the object is readable by no more users.
            durable: Survive a power cut.
        """
        try:
            os.fchmod(self.descriptor, self._store._mode(source_mode))
            if durable:
                os.fsync(self.descriptor)
            self._store._place(self._path, cid, durable)
            self._is_placed = True
        except OSError as error:
            raise_write_error(self._store.path, error)

    def close(self) -> None:
        """Close the file, and remove it if it was not committed."""
        os.close(self.descriptor)
        if not self._is_placed:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _unlink_unlocked(path: str) -> bool:
    """Remove a file unless its writer still holds it.

    Raises:
        OSError: It is held, or gone, or may not be removed.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        Path(path).unlink()
    finally:
        os.close(descriptor)
    return True


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


def _copier(target: int, path: Path) -> Callable[[memoryview], None]:
    """Make the sink that writes a stream to an open file; ``path`` is named when that fails."""
    return lambda view: write_all(target, view, path)
