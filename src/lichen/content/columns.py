"""Many files at once, by the C library beside this file: a hundred thousand cost little more than the kernel's own work.

What it does is also done without it, file by file, by whoever asks here first: ``columns()`` is None where the library cannot
be had, and callers then go their slower way, which is the one that says what is meant. Loading it takes some ten
milliseconds, so it is asked for when there are ``MANY`` files and not before.
"""

from __future__ import annotations

import array
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "DIGEST_STRIDE",
    "MANY",
    "STATE_BYTES",
    "TYPE_DIRECTORY",
    "TYPE_LINK",
    "TYPE_REGULAR",
    "Columns",
    "SplitLog",
    "TableText",
    "columns",
    "loaded",
]

MANY = 2_000  # files for which the library is worth loading
STATE_BYTES = 40  # (= 5 * 8) device, inode, size, mtime and ctime, eight bytes each, as the machine has them
DIGEST_STRIDE = 33  # a digest of 32 bytes and a zero byte behind it
ENTRY_BYTES = 96  # of an entry of the digest table
TYPE_DIRECTORY, TYPE_REGULAR, TYPE_LINK = 4, 8, 10  # as in st_mode >> 12
_SOURCE = Path(__file__).parent / "columns.c"
_FLAGS = ("-shared", "-fPIC", "-O2", "-std=gnu11", "-fvisibility=hidden", "-w")


@dataclass(frozen=True, slots=True)
class SplitLog:
    """A log of the preload library, parted.

    Attributes:
        directories: In which plain reads were seen.
        names: Of the files read in each of them, sorted by their bytes.
        states: Of all files, directory by directory: ``STATE_BYTES`` each.
        times: Monotonic nanoseconds of each, eight bytes each.
        rest: All other records as they stood.
    """

    directories: list[str]
    names: list[list[str]]
    states: bytes
    times: bytes
    rest: bytes


@dataclass(frozen=True, slots=True)
class TableText:
    """A table of digests by name, written down.

    Attributes:
        members: Canonical JSON of it.
        names: Sorted, a zero byte between them.
        order: For each in this order its place among what was given, four bytes each.
    """

    members: bytes
    names: bytes
    order: bytes


class Columns:
    """The library, loaded.

    Args:
        path: Of the compiled library.

    Raises:
        OSError: It cannot be loaded.
    """

    def __init__(self, path: Path) -> None:
        import ctypes

        class Reads(ctypes.Structure):
            """``struct reads`` of the library."""

            _fields_ = [
                *((name, ctypes.c_uint64) for name in ("count", "directory_count", "names_bytes")),
                *((name, ctypes.c_uint64) for name in ("directories_bytes", "rest_bytes")),
                *((name, ctypes.c_void_p) for name in ("names", "directories", "rest")),
                *((name, ctypes.c_void_p) for name in ("counts", "states", "times")),
            ]

        self._ctypes: Any = ctypes
        library = ctypes.CDLL(str(path))
        self._split = library.columns_split
        self._split.restype = ctypes.POINTER(Reads)
        self._split.argtypes = [ctypes.c_char_p, ctypes.c_uint64]
        self._free = library.columns_free
        self._free.restype, self._free.argtypes = None, [ctypes.POINTER(Reads)]

        class Listing(ctypes.Structure):
            """``struct listing`` of the library."""

            _fields_ = [
                *((name, ctypes.c_uint64) for name in ("count", "bytes", "room")),
                *((name, ctypes.c_void_p) for name in ("names", "types")),
            ]

        self._list = library.columns_list
        self._list.restype, self._list.argtypes = ctypes.POINTER(Listing), [ctypes.c_char_p]
        self._free_listing = library.columns_free_listing
        self._free_listing.restype, self._free_listing.argtypes = None, [ctypes.POINTER(Listing)]
        self._look = library.columns_look
        self._look.restype = None
        self._look.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p]
        self._find = library.columns_find
        self._find.restype = None
        self._find.argtypes = [
            ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_void_p,
            ctypes.c_void_p,
        ]  # fmt: skip

        self._buckets = library.columns_buckets
        self._buckets.restype = ctypes.c_uint64
        self._buckets.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint32, ctypes.c_void_p]

        class Text(ctypes.Structure):
            """``struct text`` of the library."""

            _fields_ = [
                *((name, ctypes.c_uint64) for name in ("members_bytes", "names_bytes")),
                *((name, ctypes.c_void_p) for name in ("members", "names", "order")),
            ]

        self._text = library.columns_text
        self._text.restype = ctypes.POINTER(Text)
        self._text.argtypes = [
            ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_char_p,
            ctypes.c_uint64,
        ]  # fmt: skip
        self._free_text = library.columns_free_text
        self._free_text.restype, self._free_text.argtypes = None, [ctypes.POINTER(Text)]

    def split(self, log: bytes) -> SplitLog | None:
        """Part the plain reads of a preload log from its other records.

        A read is plain when it opened a regular file by a path in its usual form that can be no module's or library's. Of several
        reads of one path the earliest stands.

        Args:
            log: Records as the preload library wrote them.

        Returns:
            None without memory for it.
        """
        taken = self._split(log, len(log))
        if not taken:
            return None
        try:
            reads, at = taken.contents, self._ctypes.string_at
            names = os.fsdecode(at(reads.names, reads.names_bytes)).split("\0")
            directories = os.fsdecode(at(reads.directories, reads.directories_bytes)).split("\0")
            counts = memoryview(at(reads.counts, 4 * reads.directory_count)).cast("I")
            columns, start = [], 0
            for count in counts:
                columns.append(names[start : start + count])
                start += count
            return SplitLog(
                directories[:-1],
                columns,
                at(reads.states, STATE_BYTES * reads.count),
                at(reads.times, 8 * reads.count),
                at(reads.rest, reads.rest_bytes),
            )
        finally:
            self._free(taken)

    def look(self, paths: bytes, count: int) -> tuple[bytes, bytes]:
        """Look at files, symbolic links followed; those of one directory, one after the other, are looked at from there.

        Args:
            paths: Absolute, a zero byte behind each.
            count: How many.

        Returns:
            State of each, and its type (``st_mode >> 12``): 0, and a state of zeros, where there is nothing to look at.
        """
        assert paths.count(b"\0") == count
        states = self._ctypes.create_string_buffer(STATE_BYTES * count or 1)
        types = self._ctypes.create_string_buffer(count or 1)
        self._look(paths, count, states, types)
        return states.raw[: STATE_BYTES * count], types.raw[:count]

    def entries(self, directory: str) -> tuple[list[str], bytes] | None:
        """List a directory.

        Args:
            directory: Absolute path.

        Returns:
            Names in no order, and type of each (``st_mode >> 12``), symbolic links not followed. None when the directory cannot be
            listed, or its file system does not tell the types.
        """
        path = os.fsencode(directory)
        taken: Any = None if b"\0" in path else self._list(path)
        if not taken:
            return None
        try:
            listing, at = taken.contents, self._ctypes.string_at
            if not listing.count:
                return [], b""
            names = os.fsdecode(at(listing.names, listing.bytes - 1)).split("\0")
            return names, at(listing.types, listing.count)
        finally:
            self._free_listing(taken)

    def text(self, names: Mapping[str, Sequence[str]], digests: bytes) -> TableText | None:
        """Write a table of digests by name, as canonical JSON and as sorted names.

        Args:
            names: Ends of names by their beginning: together they are the names.
            digests: ``DIGEST_STRIDE`` bytes for each, in this order.

        Returns:
            None when a name would need an escape, two are equal, or there is no memory.
        """
        counts = array.array("I", map(len, names.values()))
        count = sum(counts)
        assert len(digests) == DIGEST_STRIDE * count
        try:
            prefixes = "".join([f"{prefix}\0" for prefix in names]).encode("ascii")
            ends = "".join(["\0".join(part) + "\0" for part in names.values() if part]).encode("ascii")
        except UnicodeEncodeError:
            return None
        if prefixes.count(b"\0") != len(names) or ends.count(b"\0") != count:
            return None
        taken = self._text(prefixes, counts.tobytes(), len(counts), ends, len(ends), digests, count)
        if not taken:
            return None
        try:
            text, at = taken.contents, self._ctypes.string_at
            return TableText(
                at(text.members, text.members_bytes),
                at(text.names, text.names_bytes),
                at(text.order, 4 * count),
            )
        finally:
            self._free_text(taken)

    def buckets(self, states: bytes, bits: int) -> list[tuple[int, int]]:
        """Name the buckets in which states lie.

        Args:
            states: ``STATE_BYTES`` each.
            bits: Lowest bits of an inode number that do not count.

        Returns:
            Device and inode number without these bits, sorted, each once.
        """
        count = len(states) // STATE_BYTES
        found = (self._ctypes.c_uint64 * (2 * count or 1))()
        number = self._buckets(states, count, bits, found)
        pairs = memoryview(found).cast("B").cast("Q")[: 2 * number].tolist()
        return sorted(set(zip(pairs[::2], pairs[1::2], strict=True)))

    def find(
        self, states: bytes, tables: Iterable[tuple[int, bytes]], entry_bytes: int
    ) -> tuple[bytes, bytes]:
        """Look up states among known ones.

        Args:
            states: ``STATE_BYTES`` each.
            tables: Device and entries of files on it, by inode without repetition: inode, size, mtime, ctime, digest, and more.
            entry_bytes: Size of an entry.

        Returns:
            ``DIGEST_STRIDE`` bytes for each state, and for each a byte that is 1 where the digest is known.
        """
        assert entry_bytes == ENTRY_BYTES
        count = len(states) // STATE_BYTES
        digests = self._ctypes.create_string_buffer(DIGEST_STRIDE * count or 1)
        found = self._ctypes.create_string_buffer(count or 1)
        for device, entries in tables:
            self._find(states, count, device, entries, len(entries) // entry_bytes, digests, found)
        return digests.raw[: DIGEST_STRIDE * count], found.raw[:count]


@cache
def columns() -> Columns | None:
    """Return the library, compiled and loaded at the first call; None where it cannot be had."""
    from lichen.content.compiled import compiled_library

    path = compiled_library([_SOURCE], _FLAGS, is_usable=_loads)
    if path is None:
        return None
    try:
        return Columns(path)
    except (OSError, AttributeError, ImportError):
        return None


def loaded() -> Columns | None:
    """Return the library if it is in use already: for work that is not worth loading it."""
    return columns() if columns.cache_info().currsize else None


def _loads(path: str) -> bool:
    try:
        Columns(Path(path))
    except (OSError, AttributeError, ImportError):
        return False
    return True
