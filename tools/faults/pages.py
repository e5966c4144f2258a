"""Which byte of an SQLite file belongs to what: rows of which table, keys of which index, or nothing.

A byte flip is worth counting only where something lies. This walks every b-tree as the file format describes it and names each
byte's owner, so that flips can be aimed at every table alike and those in unused space told apart.

Source: SQLite documentation, "Database File Format", sections 1.3 (header), 1.6 (b-tree pages), 1.7 (overflow pages).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Extent", "FileMap", "map_file"]

INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE = 2, 5, 10, 13
FILE_HEADER_BYTES = 100


@dataclass(frozen=True)
class Extent:
    """A run of bytes with one owner.

    Args:
        start: Offset in the file.
        size_bytes: How many.
        what: ``cell``, ``pointers``, ``page-header`` or ``overflow``.
    """

    start: int
    size_bytes: int
    what: str


@dataclass
class FileMap:
    """Owners of bytes.

    Args:
        used: Extents by name of table or index.
        free: Extents on the same pages that hold nothing, by name.
        size_bytes: Of the file.
        unowned_page_count: Pages that belong to no b-tree (free list).
    """

    used: dict[str, list[Extent]] = field(default_factory=dict)
    free: dict[str, list[Extent]] = field(default_factory=dict)
    size_bytes: int = 0
    unowned_page_count: int = 0

    def owner_of(self, offset: int) -> tuple[str, str]:
        """Name and kind of what lies at an offset; ``("", "none")`` when nothing is known of it."""
        for extents in (self.used, self.free):
            for name, runs in extents.items():
                for run in runs:
                    if run.start <= offset < run.start + run.size_bytes:
                        return name, run.what
        return ("", "file-header") if offset < FILE_HEADER_BYTES else ("", "none")


def map_file(path: Path) -> FileMap:
    """Walk a database that nobody has open and whose write-ahead log is folded in.

    Raises:
        ValueError: It is not laid out as the format says.
    """
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
        roots = connection.execute("SELECT name, rootpage FROM sqlite_master WHERE rootpage > 0").fetchall()
    walker = _Walker(path.read_bytes())
    for name, root in [("sqlite_master", 1), *roots]:
        walker.walk(name, root)
    found = walker.map
    found.unowned_page_count = len(walker.data) // walker.page_size - len(walker.seen)
    return found


class _Walker:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.page_size = int.from_bytes(data[16:18], "big") or 65_536
        if self.page_size == 1:
            self.page_size = 65_536
        self.usable = self.page_size - data[20]
        self.map = FileMap(size_bytes=len(data))
        self.seen: set[int] = set()

    def walk(self, name: str, root: int) -> None:
        waiting = [root]
        self.map.used.setdefault(name, [])
        self.map.free.setdefault(name, [])
        while waiting:
            waiting += self._page(name, waiting.pop())

    def _page(self, name: str, number: int) -> list[int]:
        """Note everything on a b-tree page; return its children."""
        if number in self.seen:
            raise ValueError(f"page {number} has two owners")
        self.seen.add(number)
        base = (number - 1) * self.page_size
        start = base + (FILE_HEADER_BYTES if number == 1 else 0)
        kind, cell_count = self.data[start], self._number(start + 3, 2)
        is_interior = kind in (INTERIOR_INDEX, INTERIOR_TABLE)
        if kind not in (INTERIOR_INDEX, INTERIOR_TABLE, LEAF_INDEX, LEAF_TABLE):
            raise ValueError(f"page {number} is of no kind: {kind}")
        header = 12 if is_interior else 8
        runs = [Extent(start, header, "page-header"), Extent(start + header, 2 * cell_count, "pointers")]
        children = [self._number(start + 8, 4)] if is_interior else []
        for place in range(cell_count):
            at = base + self._number(start + header + 2 * place, 2)
            if is_interior:
                children.append(self._number(at, 4))
            size, overflow = self._cell(kind, at)
            runs.append(Extent(at, size, "cell"))
            runs += self._overflow(*overflow)
        self.map.used[name] += runs
        on_page = sorted(
            (run for run in runs if run.start // self.page_size == number - 1), key=lambda r: r.start
        )
        self.map.free[name] += _gaps(on_page, start, base + self.page_size)
        return children

    def _cell(self, kind: int, at: int) -> tuple[int, tuple[int, int]]:
        """Return a cell's bytes on its page, and the first overflow page with the bytes that lie there."""
        start = at + (4 if kind in (INTERIOR_INDEX, INTERIOR_TABLE) else 0)
        if kind == INTERIOR_TABLE:
            return start + self._varint(start)[1] - at, (0, 0)
        payload, size = self._varint(start)
        start += size
        if kind == LEAF_TABLE:
            start += self._varint(start)[1]
        local = self._local(payload, is_table=kind == LEAF_TABLE)
        if local == payload:
            return max(4, start + local - at), (0, 0)
        return start + local + 4 - at, (self._number(start + local, 4), payload - local)

    def _local(self, payload: int, *, is_table: bool) -> int:
        """Bytes of a payload that lie on the page itself."""
        most = self.usable - 35 if is_table else (self.usable - 12) * 64 // 255 - 23
        if payload <= most:
            return payload
        least = (self.usable - 12) * 32 // 255 - 23
        wanted = least + (payload - least) % (self.usable - 4)
        return wanted if wanted <= most else least

    def _overflow(self, page: int, size: int) -> Iterator[Extent]:
        while page:
            self.seen.add(page)
            at = (page - 1) * self.page_size
            here = min(size, self.usable - 4)
            yield Extent(at, 4 + here, "overflow")
            page, size = self._number(at, 4), size - here

    def _number(self, at: int, size: int) -> int:
        return int.from_bytes(self.data[at : at + size], "big")

    def _varint(self, at: int) -> tuple[int, int]:
        value = 0
        for place in range(8):
            byte = self.data[at + place]
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value, place + 1
        return value << 8 | self.data[at + 8], 9


def _gaps(runs: list[Extent], start: int, stop: int) -> Iterator[Extent]:
    """What lies between runs that are in order."""
    for run in runs:
        if run.start > start:
            yield Extent(start, run.start - start, "free")
        start = max(start, run.start + run.size_bytes)
    if stop > start:
        yield Extent(start, stop - start, "free")
