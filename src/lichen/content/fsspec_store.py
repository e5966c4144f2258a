"""A store behind any URL that fsspec can open: ``s3://``, ``gs://``, ``az://``, ``sftp://``, ``file://``, ``memory://`` and more.

Its files lie as those of a :class:`~lichen.content.directory_store.DirectoryStore`, so a bucket can be copied to a directory and
used as one::

    <url>/objects/<xy>/<cid>        whole artefacts; xy = the two characters before the CID's last
    <url>/incoming/<random>         being written, where a file is seen while it is written

An object store shows a file when it is complete; elsewhere it is written aside and renamed. What is read is copied here and
verified before a byte of it is handed out, so a store need not be believed. Bytes that are not those their name says are left
where they are, named in the error, and replaced by the next put of the artefact.

Source: https://filesystem-spec.readthedocs.io/, the interface `AbstractFileSystem`.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit, urlunsplit

from lichen.content.cid import Cid
from lichen.content.files import StrPath, open_regular, raise_write_error, write_all
from lichen.content.pipeline import Fill
from lichen.content.placement import Destination
from lichen.content.store import READ_SIZE_MAX, Fetched, StoreUsage, absent, damaged, mismatched, too_large
from lichen.content.unixfs import (
    CHUNK_SIZE,
    ArtefactHash,
    Progress,
    fill_from_descriptor,
    fill_from_reader,
    hash_bytes,
    hash_stream,
    report_to,
)
from lichen.errors import EncodingError, LichenError, StorageError, UsageError, VerificationError

__all__ = ["FsspecStore", "without_secrets"]

_WHOLE_AT_ONCE: Final = frozenset(
    {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "memory"}
)
_PIECE_BYTES: Final = 2**20  # (= 1048576)


def without_secrets(url: str) -> str:
    """Spell a URL without what must not be printed: name and password before the host, and the query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


class FsspecStore:
    """Artefacts behind a URL.

    Args:
        url: Where; a path below it is made when it is first written to.
        options: What the file system of this kind takes, such as ``endpoint_url`` of S3; see fsspec.

    Raises:
        UsageError: Fsspec, or the package it needs for this kind of URL, is not installed; or it does not know the kind.
        StorageError: It cannot be reached with these options.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self._shown = without_secrets(url)
        try:
            from fsspec.core import url_to_fs
        except ImportError as error:
            raise UsageError(
                f"the store {self._shown} needs the package fsspec, which is not installed",
                remedy="Install it with `pip install 'lichen[stores]'`.",
            ) from error
        try:
            self._files, root = url_to_fs(url, **options)
        except (ImportError, ValueError) as error:
            raise UsageError(
                f"the store {self._shown} cannot be opened: {error}",
                remedy="Install the package that fsspec needs for this kind of URL, or correct the URL.",
            ) from error
        except Exception as error:
            raise self._failed("opened", error) from error
        self._root = root.rstrip("/")
        protocol = self._files.protocol
        self._is_whole_at_once = bool(
            _WHOLE_AT_ONCE.intersection((protocol,) if isinstance(protocol, str) else protocol)
        )

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
        with _scratch_file() as file:
            with open_regular(path) as (descriptor, _):
                names = hash_stream(fill_from_descriptor(descriptor), (_copier(file), *report_to(progress)))
            self._put_copy(file, names)
        return names

    def put_bytes(self, data: bytes, *, durable: bool = True) -> ArtefactHash:
        """Store an artefact held in memory; see ``ArtefactStore.put_bytes``."""
        names = hash_bytes(data)
        if not self._holds(names):
            self._upload(io.BytesIO(data), names)
        return names

    def put_stream(self, fill: Fill, *, expected: Cid | None = None, durable: bool = True) -> ArtefactHash:
        """Store what a reader gives and name it; see ``ArtefactStore.put_stream``."""
        with _scratch_file() as file:
            names = hash_stream(fill, (_copier(file),))
            if expected is not None and names.cid != expected:
                raise mismatched(expected, names.cid)
            self._put_copy(file, names)
        return names

    def _put_copy(self, file: BinaryIO, names: ArtefactHash) -> None:
        """Store a copy whose name is certain, for nobody else can change it."""
        if not self._holds(names):
            file.seek(0)
            self._upload(file, names)

    def _holds(self, names: ArtefactHash) -> bool:
        """Whether the artefact is there and, where that is quickly seen, is what its name says."""
        if self._present_size(names.cid) != names.size_bytes:
            return False
        if names.size_bytes > CHUNK_SIZE:
            return True
        with contextlib.suppress(VerificationError):
            self.read_bytes(names.cid)
            return True
        return False

    def _upload(self, source: BinaryIO, names: ArtefactHash) -> None:
        target = self._place(names.cid)
        draft = target if self._is_whole_at_once else f"{self._root}/incoming/{secrets.token_hex(16)}"
        with self._failing("written"):
            try:
                self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._files.makedirs(draft.rpartition("/")[0], exist_ok=True)
                with self._files.open(draft, "wb") as sink:
                    while piece := source.read(_PIECE_BYTES):
                        sink.write(piece)
                if draft != target:
                    self._files.mv(draft, target)
            except BaseException:
                if draft != target:
                    with contextlib.suppress(Exception):
                        self._files.rm_file(draft)
                raise
            finally:
                self._files.invalidate_cache()
        if self._present_size(names.cid) != names.size_bytes:
            raise StorageError(
                f"the store {self._shown} does not have {names.cid} after it was written there",
                remedy="Check its quota and rights, then put the artefact again.",
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
        """Bring an artefact here, verified, and open it; see ``ArtefactStore.open``."""
        if self.size(cid) <= CHUNK_SIZE:
            return io.BytesIO(self.read_bytes(cid))
        file = _scratch_file()
        try:
            self._bring(cid, _copier(file), None)
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file

    def read_bytes(self, cid: Cid, limit: int = READ_SIZE_MAX) -> bytes:
        """Return a whole artefact, verified; see ``ArtefactStore.read_bytes``."""
        size = self.size(cid)
        if size > limit:
            raise too_large(cid, size, limit)
        data = bytearray()
        self._bring(cid, data.extend, None)
        return bytes(data)

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
        size = self.size(cid)
        with destination.directory() as directory:
            present, is_same = destination.what_lies_there(
                directory, cid, is_kept=self.has, overwrite=overwrite
            )
            if is_same:
                return Fetched(False, size)
            with destination.incoming(directory, present, mode=mode, durable=durable) as target:
                self._bring(cid, lambda view: write_all(target, memoryview(view), path), progress)
        return Fetched(True, size)

    def _bring(self, cid: Cid, sink: Callable[[memoryview], object], progress: Progress | None) -> None:
        """Copy an artefact to a sink; whoever uses what is there afterwards may, for it is verified then."""
        size = self.size(cid)
        with self._failing("read"):
            try:
                source = self._files.open(self._place(cid), "rb")
            except FileNotFoundError as error:
                raise absent(cid) from error
            with source:
                bounded = _Bounded(source, size)
                names = hash_stream(fill_from_reader(bounded), (sink, *report_to(progress)))  # type: ignore[arg-type]
        if names.cid != cid:
            raise damaged(cid, names.cid)

    # Keeping house

    def delete(self, cid: Cid) -> bool:
        """Forget an artefact; see ``ArtefactStore.delete``."""
        if not self.has(cid):
            return False
        with self._failing("written"):
            try:
                self._files.rm_file(self._place(cid))
            except FileNotFoundError:
                return False
            finally:
                self._files.invalidate_cache()
        return True

    def list(self) -> Iterator[Cid]:
        """Give the name of every artefact, in no order."""
        for cid, _ in self._entries():
            yield cid

    def usage(self) -> StoreUsage:
        """Count what the store holds."""
        sizes = [size for _, size in self._entries()]
        return StoreUsage(len(sizes), sum(sizes))

    # Inside

    def _place(self, cid: Cid) -> str:
        text = str(cid)
        return f"{self._root}/objects/{text[-3:-1]}/{text}"

    def _present_size(self, cid: Cid) -> int | None:
        with self._failing("read"):
            self._files.invalidate_cache()
            try:
                told = self._files.info(self._place(cid))
            except (FileNotFoundError, NotADirectoryError):
                return None
        return int(told["size"]) if told.get("type") == "file" else None

    def _entries(self) -> Iterator[tuple[Cid, int]]:
        with self._failing("read"):
            self._files.invalidate_cache()
            found = self._files.find(f"{self._root}/objects", detail=True)
        for path, told in found.items():
            with contextlib.suppress(EncodingError):
                cid = Cid.parse(path.rpartition("/")[2])
                if self._place(cid).endswith(path.rpartition("objects/")[2]):
                    yield cid, int(told["size"])

    @contextlib.contextmanager
    def _failing(self, done: str) -> Iterator[None]:
        """Turn what a file system raises, which is of no common kind, into one error."""
        try:
            yield
        except LichenError:
            raise
        except Exception as error:
            raise self._failed(done, error) from error

    def _failed(self, done: str, error: Exception) -> StorageError:
        why = str(error).replace(self.url, self._shown) or type(error).__name__
        return StorageError(
            f"the store {self._shown} could not be {done}: {why[:500]}",
            remedy="Check the URL, your rights there and the network.",
        )


class _Bounded:
    """A stream that gives no more than one byte beyond what is expected, so that a store cannot send without end."""

    def __init__(self, stream: BinaryIO, size_bytes: int) -> None:
        self._stream = stream
        self._left = size_bytes + 1

    def read(self, count: int) -> bytes:
        piece = self._stream.read(min(count, self._left))
        self._left -= len(piece)
        return piece


def _scratch_file() -> BinaryIO:
    """Make a file without a name, gone when it is closed."""
    try:
        return tempfile.TemporaryFile()
    except OSError as error:
        raise_write_error(tempfile.gettempdir(), error)


def _copier(file: BinaryIO) -> Callable[[memoryview], None]:
    return lambda view: write_all(file.fileno(), view, tempfile.gettempdir())
