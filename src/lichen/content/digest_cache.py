"""Names of files that have not changed since they were last hashed, kept from one command to the next.

A file is known by device, inode, size, mtime and ctime. The kernel sets ctime at every change and programs cannot set
it back, so an equal key means equal content, with three exceptions, and how each is met:

- a change in the same clock tick as the one before leaves the times as they are: a file changed less than two seconds
  before it was hashed is not remembered
- a program may go on writing to a file it has mapped without the times moving: such a file is not remembered either, and
  nothing in a file system that lives in memory; see ``lichen.content.settled`` (programs of other users are not seen)
- the cache file itself may rot: every row carries a checksum, and a damaged file is thrown away

Many files at once are handled column by column: their states, then the rows of the table that can know them, then one
pass that hashes the rest. A hundred thousand small files cost little more than the system calls they need.

It is only ever a cache. Nothing that goes wrong with it is an error; the file is hashed instead.

Source:
    The racy rule is git's (Documentation/technical/racy-git.txt). Differs: judged by ctime, with a margin.
"""

from __future__ import annotations

import hashlib
import itertools
import operator
import os
import stat
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from lichen.content.cid import DAG_PB
from lichen.content.columns import DIGEST_STRIDE, STATE_BYTES, TYPE_REGULAR, Columns, columns
from lichen.content.digest_table import (
    BUCKET_BITS,
    BUSY_SECONDS,
    ENTRY,
    NO_ROOT,
    STATE,
    Bucket,
    BucketKey,
    DigestTable,
    Known,
    bucket_of,
)
from lichen.content.files import OPEN_FLAGS, StatKey, StrPath, file_changed, open_regular, raise_read_error
from lichen.content.settled import RACY_NS, Settling
from lichen.content.unixfs import CHUNK_SIZE, ArtefactHash, Progress, digest_descriptor, hash_descriptor
from lichen.errors import LichenError

__all__ = ["DigestCache"]

PENDING_COUNT_MAX = 1000  # files learnt one by one before they are written down together
HELD_COUNT_MAX = 300_000  # files of which something is held in memory, about 60 MiB
BATCH_COUNT = 50_000  # files handled at once
TABLE_BYTES_HELD_MAX = 2**24  # (= 16777216) of rows handed to the C library at once
COLUMN = struct.Struct("<QQqqq")  # a state in a column

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
        self._settling = Settling()
        self._buckets: dict[BucketKey, Bucket] = {}
        self._held_count = 0
        self._pending: dict[BucketKey, Bucket] = {}
        self._pending_count = 0

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
            self._pending = {}
            self._pending_count = 0

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

    def digest_states(
        self, paths: Sequence[str], states: Sequence[tuple[int, ...] | None] | None = None
    ) -> list[bytes | None]:
        """Return the SHA-256 of many regular files, as cheaply as it can be done.

        Args:
            paths: Files, or symbolic links to such.
            states: For each path the state (the fields of `StatKey`) it was seen in earlier, whose content is meant; None for
                any state. Without the list, any state of any file.

        Returns:
            For each path in order 32 bytes; None where they cannot be told: nothing there, not a regular file, not
            readable, written to meanwhile, or in another state than the one meant.
        """
        found: list[bytes | None] = []
        for start in range(0, len(paths), BATCH_COUNT):
            part = paths[start : start + BATCH_COUNT]
            meant = states[start : start + BATCH_COUNT] if states is not None else [None] * len(part)
            found += self._digest_part(part, meant)
            self.flush()
        return found

    def digest_columns(
        self, paths: bytes, count: int, states: bytes | None = None
    ) -> tuple[bytes, bytes] | None:
        """Say the same as ``digest_states`` of very many files, by the C library; see ``lichen.content.columns``.

        Args:
            paths: Absolute, a zero byte behind each; those of one directory one after the other.
            count: How many.
            states: Those that are meant, ``STATE_BYTES`` each; None for any.

        Returns:
            For each path a digest with a zero byte behind it, and a byte that is 1 where it could be told. None where there is
            no library.
        """
        library = columns()
        if library is None:
            return None
        self.flush()  # the library reads the rows
        now, types = b"", b""
        if states is None:
            now, types = library.look(paths, count)
        seen = now if states is None else states
        digests, found = library.find(seen, self._tables(library, seen), ENTRY.size)
        if states is not None and found.count(1) * 2 >= count:  # or most have to be opened anyway
            now, types = library.look(paths, count)
        regular = types.count(TYPE_REGULAR) == count and found.count(1) == count
        if regular and (states is None or now == states):
            return digests, found
        return self._digest_rest(paths, states, (now, types, bytearray(digests), bytearray(found)))

    def _digest_rest(
        self, paths: bytes, states: bytes | None, columns: tuple[bytes, bytes, bytearray, bytearray]
    ) -> tuple[bytes, bytes]:
        """Go file by file where a digest is not known, or the file is in another state than the one meant."""
        now, types, digests, found = columns
        names = paths.split(b"\0")
        odd = []
        for place in range(len(found)):
            at = slice(STATE_BYTES * place, STATE_BYTES * (place + 1))
            is_same = bool(now) and types[place] == TYPE_REGULAR and (states is None or now[at] == states[at])
            if not (is_same and found[place]):
                odd.append(place)
        for start in range(0, len(odd), BATCH_COUNT):
            part = odd[start : start + BATCH_COUNT]
            meant: list[tuple[int, ...] | None] = [None] * len(part)
            if states is not None:
                meant = [COLUMN.unpack_from(states, STATE_BYTES * place) for place in part]
            told = self._digest_part([os.fsdecode(names[place]) for place in part], meant)
            for place, digest in zip(part, told, strict=True):
                found[place] = digest is not None
                if digest is not None:
                    digests[DIGEST_STRIDE * place : DIGEST_STRIDE * (place + 1)] = digest + b"\0"
            self.flush()
        return bytes(digests), bytes(found)

    def _tables(self, library: Columns, states: bytes) -> Iterator[tuple[int, bytes]]:
        """Give what is known of the buckets that hold these states: device, and entries by inode, some megabytes at a time."""
        keys = library.buckets(states, BUCKET_BITS)
        for device, own in itertools.groupby(keys, key=operator.itemgetter(0)):
            held: list[bytes] = []
            size_bytes = 0
            for _, entries in self._table.entries(own):
                held.append(entries)
                size_bytes += len(entries)
                if size_bytes > TABLE_BYTES_HELD_MAX:
                    yield device, b"".join(held)
                    held, size_bytes = [], 0
            yield device, b"".join(held)

    def _digest_part(
        self, paths: Sequence[str], meant: Sequence[tuple[int, ...] | None]
    ) -> list[bytes | None]:
        start_ns = self._now_ns()
        look, pack, buckets = os.stat, STATE.pack, self._buckets
        found: list[bytes | None] = []
        for path, state in zip(paths, meant, strict=True):
            try:
                if state is None:
                    now = look(path)
                    device, inode, size = now.st_dev, now.st_ino, now.st_size
                    mtime, ctime = now.st_mtime_ns, now.st_ctime_ns
                    if not stat.S_ISREG(now.st_mode):
                        found.append(None)
                        continue
                else:
                    device, inode, size, mtime, ctime = state
                key = device, inode >> BUCKET_BITS
                bucket = buckets.get(key)
                if bucket is None:
                    bucket = self._bucket(key)
                packed = bucket.get(inode)
                if packed is None or packed[:24] != pack(size, mtime, ctime):
                    found.append(self._digest_now(path, (device, inode, size, mtime, ctime), start_ns))
                    continue
                if state is not None:  # is it still as it was seen earlier?
                    now = look(path)
                    if (
                        now.st_ctime_ns != ctime
                        or now.st_ino != inode
                        or now.st_size != size
                        or now.st_mtime_ns != mtime
                        or now.st_dev != device
                    ):
                        found.append(None)
                        continue
                found.append(packed[24:56])
            except (OSError, ValueError, struct.error, LichenError):
                found.append(None)
        return found

    def _digest_now(self, path: str, state: tuple[int, ...], start_ns: int) -> bytes | None:
        """Hash a file that must be in a state, before and after; remember it when its state will tell of any change."""
        if state[2] > CHUNK_SIZE:
            known = _hash(path, False, StatKey(*state), None)
            if self._settling.is_settled(known.key, start_ns):
                self._learn(known)
            return known.sha256
        descriptor = os.open(path, OPEN_FLAGS)
        try:
            if (
                state[4] >= start_ns - RACY_NS or not state[2]
            ):  # pipes and devices have no size, and are not read
                before = os.fstat(descriptor)
                if not _is_in(before, state) or not stat.S_ISREG(before.st_mode):
                    return None
            data = os.read(descriptor, state[2] + 1)
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        # In a settled state, one look afterwards tells of changes before and during the reading alike.
        if not _is_in(status, state) or len(data) != state[2] or not stat.S_ISREG(status.st_mode):
            return None
        sha256 = hashlib.sha256(data).digest()
        if self._settling.is_settled(state, start_ns):
            self._keep(state[0], state[1], STATE.pack(*state[2:]) + sha256 + NO_ROOT)
        return sha256

    def _for_each(
        self, paths: Iterable[StrPath], answer: Callable[[StrPath], Answer]
    ) -> list[Answer | LichenError]:
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
        if not paranoid:
            try:
                key = StatKey.of(os.stat(path))  # noqa: PTH116 - a third of the time of a Path
            except OSError as error:
                raise_read_error(path, error)
            if expected is not None and key != tuple(expected):
                raise file_changed(path)
            known = Known.from_packed(key, self._bucket(bucket_of(key.device, key.inode)).get(key.inode))
            if known is not None and (known.has_cid or not with_cid):
                return known
        start_ns = self._now_ns()
        known = _hash(path, with_cid, expected, progress)
        if self._settling.is_settled(known.key, start_ns):
            self._learn(known)
        return known

    def _bucket(self, key: BucketKey) -> Bucket:
        """Return what is known of the files of a bucket, reading it from the table the first time."""
        bucket = self._buckets.get(key)
        if bucket is None:
            if self._held_count > HELD_COUNT_MAX:
                self.flush()
                self._buckets.clear()
                self._held_count = 0
            bucket = self._buckets[key] = self._table.bucket(key)
            self._held_count += len(bucket) + 1
        return bucket

    def _learn(self, known: Known) -> None:
        self._keep(known.key.device, known.key.inode, known.packed())
        if self._pending_count >= PENDING_COUNT_MAX:
            self.flush()

    def _keep(self, device: int, inode: int, packed: bytes) -> None:
        key = bucket_of(device, inode)
        self._bucket(key)[inode] = packed
        self._pending.setdefault(key, {})[inode] = packed
        self._pending_count += 1
        self._held_count += 1


def _is_in(status: os.stat_result, state: tuple[int, ...]) -> bool:
    device, inode, size, mtime, ctime = state
    return (
        status.st_ctime_ns == ctime
        and status.st_ino == inode
        and status.st_size == size
        and status.st_mtime_ns == mtime
        and status.st_dev == device
    )


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
