"""Names of files that have not changed since they were last hashed, kept from one command to the next.

A file is known by device, inode, size, mtime and ctime. The kernel sets ctime at every change and programs cannot set
it back, so an equal key means equal content, with three exceptions, and how each is met:

- a change in the same clock tick as the one before leaves the times as they are: a file changed less than two seconds
  before it was hashed is not remembered
- a program may go on writing to a file it has mapped without the times moving: ``paranoid`` reads the bytes again
- the cache file itself may rot: every row carries a checksum, and a damaged file is thrown away

It is only ever a cache. Nothing that goes wrong with it is an error; the file is hashed instead.

Source:
    The racy rule is git's (Documentation/technical/racy-git.txt). Differs: judged by ctime, with a margin.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from lichen.content.cid import DAG_PB
from lichen.content.digest_table import BUSY_SECONDS, DigestTable, Known
from lichen.content.files import StatKey, StrPath, file_changed, open_regular, raise_read_error
from lichen.content.unixfs import ArtefactHash, Progress, digest_descriptor, hash_descriptor
from lichen.errors import LichenError

__all__ = ["DigestCache"]

RACY_NS = 2_000_000_000  # longer than a tick of any file system's clock; FAT's is two seconds
PRELOAD_COUNT = 500  # questions from which reading the whole table is quicker than row by row
PRELOAD_ROWS_MAX = 300_000  # rows up to which it is read whole, about 100 MiB
PENDING_COUNT_MAX = 1000  # files learnt before they are written down together

NEVER = StatKey(0, 0, 0, 0, 2**63)  # the state of a file that is not to be remembered

Answer = TypeVar("Answer")


class DigestCache:
    """Names files, hashing only those that changed.

    Safe for many processes at once; not for several threads on one instance. What it learns is written down in
    batches and when it is closed.

    Args:
        path: The cache's SQLite file; made when missing, made anew when damaged.
        now_ns: Clock, nanoseconds since 1970.
        busy_seconds: How long to wait for another process that is writing to the cache.
    """

    def __init__(
        self, path: StrPath, *, now_ns: Callable[[], int] = time.time_ns, busy_seconds: float = BUSY_SECONDS
    ) -> None:
        self._now_ns = now_ns
        self._table = DigestTable(Path(path), busy_seconds)
        self._recent: dict[tuple[int, int], Known] = {}
        self._pending: list[Known] = []
        self._asked_count = 0
        self._is_preloaded = False

    def __enter__(self) -> DigestCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def flush(self) -> None:
        """Write down what was learnt."""
        if self._pending:
            self._table.put(self._pending)
            self._pending = []

    def close(self) -> None:
        """Write down what was learnt and close the file; the cache still names files afterwards."""
        self.flush()
        self._table.close()

    def hash_file(
        self,
        path: StrPath,
        *,
        paranoid: bool = False,
        expected: StatKey | None = None,
        progress: Progress | None = None,
    ) -> ArtefactHash:
        """Name a file.

        Args:
            path: A regular file, or a symbolic link to one.
            paranoid: Hash it even if it seems unchanged.
            expected: State the file was seen in earlier and must still be in.
            progress: Told of every piece read; of nothing when nothing is.

        Raises:
            UsageError: Nothing there, not a regular file, or not readable.
            FileChangedError: Written to while it was read, or since it was in the expected state.
            StorageError: The disk failed.
        """
        return self._know(path, True, paranoid, expected, progress).names()

    def digest_file(
        self,
        path: StrPath,
        *,
        paranoid: bool = False,
        expected: StatKey | None = None,
        progress: Progress | None = None,
    ) -> bytes:
        """Return the SHA-256 of a file, 32 bytes: half the work of ``hash_file`` for a file of several chunks.

        Args and errors are those of ``hash_file``.
        """
        return self._know(path, False, paranoid, expected, progress).sha256

    def hash_files(
        self, paths: Iterable[StrPath], *, paranoid: bool = False
    ) -> list[ArtefactHash | LichenError]:
        """Name many files, quicker than one by one.

        Args:
            paths: Regular files, or symbolic links to such.
            paranoid: Hash them even if they seem unchanged.

        Returns:
            For each path in order its names, or the error that ``hash_file`` would have raised.
        """
        return self._for_each(paths, lambda path: self._know(path, True, paranoid, None, None).names())

    def digest_files(self, paths: Iterable[StrPath], *, paranoid: bool = False) -> list[bytes | LichenError]:
        """Return the SHA-256 of many files, quicker than one by one; otherwise as ``hash_files``."""
        return self._for_each(paths, lambda path: self._know(path, False, paranoid, None, None).sha256)

    def _for_each(
        self, paths: Iterable[StrPath], answer: Callable[[StrPath], Answer]
    ) -> list[Answer | LichenError]:
        paths = list(paths)
        if len(paths) >= PRELOAD_COUNT:
            self._preload()
        answers: list[Answer | LichenError] = []
        for path in paths:
            try:
                answers.append(answer(path))
            except LichenError as error:
                answers.append(error)
        self.flush()
        return answers

    def _know(
        self,
        path: StrPath,
        with_cid: bool,
        paranoid: bool,
        expected: StatKey | None,
        progress: Progress | None,
    ) -> Known:
        if not paranoid and (self._recent or not self._is_preloaded):
            try:
                key = StatKey.of(os.stat(path))  # noqa: PTH116 - a third of the time of a Path
            except OSError as error:
                raise_read_error(path, error)
            if expected is not None and key != tuple(expected):
                raise file_changed(path)
            known = self._look_up(key)
            if known is not None and (known.has_cid or not with_cid):
                return known
        start_ns = self._now_ns()
        known = _hash(path, with_cid, expected, progress)
        if _is_settled(known.key, start_ns):
            self._learn(known)
        return known

    def _look_up(self, key: StatKey) -> Known | None:
        known = self._recent.get((key.device, key.inode))
        if known is not None and known.key == key:
            return known
        if self._is_preloaded:
            return None
        self._asked_count += 1
        if self._asked_count == PRELOAD_COUNT:
            self._preload()
        return self._table.get(key)

    def _preload(self) -> None:
        """Read the whole table, unless it is very large."""
        if self._is_preloaded or self._table.count() > PRELOAD_ROWS_MAX:
            return
        self._recent = {
            (known.key.device, known.key.inode): known for known in self._table.all()
        } | self._recent
        self._is_preloaded = True

    def _learn(self, known: Known) -> None:
        if len(self._recent) > PRELOAD_ROWS_MAX:
            self._recent = {}
            self._is_preloaded = False
        self._recent[known.key.device, known.key.inode] = known
        self._pending.append(known)
        if len(self._pending) >= PENDING_COUNT_MAX:
            self.flush()


def _hash(path: StrPath, with_cid: bool, expected: StatKey | None, progress: Progress | None) -> Known:
    with open_regular(path) as (descriptor, status):
        key = StatKey.of(status)
        if expected is not None and key != tuple(expected):
            raise file_changed(path)
        root = None
        if with_cid:
            cid, sha256, size_bytes = hash_descriptor(descriptor, status.st_size, progress=progress)
            if cid.codec == DAG_PB:
                root = cid.digest
        else:
            sha256, size_bytes = digest_descriptor(descriptor, status.st_size, progress=progress)
    if size_bytes != status.st_size:  # what the kernel makes up claims another size than it has
        return Known(NEVER._replace(size_bytes=size_bytes), sha256, root)
    return Known(key, sha256, root)


def _is_settled(key: StatKey, start_ns: int) -> bool:
    """Whether any later change must move the file's ctime, and the key fits a row, so that it may be remembered."""
    return key.ctime_ns < start_ns - RACY_NS and -(2**63) <= key.mtime_ns < 2**63
