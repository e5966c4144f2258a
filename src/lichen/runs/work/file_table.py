"""Digests and sizes of the files a run read, by manifest name.

Of very many files the digests stand in columns, as they came, and are taken apart only when somebody asks for one by name. What
a run always needs of them (the canonical form for the fingerprint and the artefact, the names in order, the largest files) is
written from the columns. Without the C library, or where a name needs an escape, all are taken apart; the result is the same.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from lichen.content.columns import DIGEST_STRIDE, TableText, loaded
from lichen.encoding.base import b64u, b64u_decode
from lichen.errors import EncodingError
from lichen.runs.work.digest_texts import texts_of_column

__all__ = ["FileColumns", "FileTable"]


@dataclass
class FileColumns:
    """Very many files.

    Attributes:
        names: Ends of manifest names by their beginning, which is a directory with its slash.
        digests: ``DIGEST_STRIDE`` bytes for each, in this order.
        sizes: Bytes of each.
    """

    names: dict[str, Sequence[str]] = field(default_factory=dict)
    digests: bytes = b""
    sizes: Sequence[int] = ()

    def __len__(self) -> int:
        """Return how many files they are."""
        return len(self.sizes)

    def whole_names(self) -> list[str]:
        """Return the manifest name of each."""
        return [f"{start}{end}" for start, ends in self.names.items() for end in ends]

    @cached_property
    def _sets(self) -> dict[str, frozenset[str]]:
        return {}

    def __contains__(self, name: object) -> bool:
        """Say whether a file of this name is among them."""
        if not isinstance(name, str):
            return False
        start, slash, end = name.rpartition("/")
        start += slash
        if start not in self.names:
            return False
        if start not in self._sets:
            self._sets[start] = frozenset(self.names[start])
        return end in self._sets[start]


class FileTable(Mapping[str, str]):
    """Digest text of files by manifest name.

    Attributes:
        sizes: Bytes of those that stand alone, where they are known.
    """

    def __init__(self) -> None:
        self._alone: dict[str, str] = {}
        self._columns = FileColumns()
        self._whole: dict[str, str] | None = None
        self.sizes: dict[str, int] = {}

    def put(self, name: str, digest: str, size_bytes: int = 0) -> None:
        """Add a file, or say something else of one."""
        if name in self._columns:
            self._take_apart()
        self._alone[name] = digest
        self.sizes[name] = size_bytes
        self._forget()

    def put_all(self, names: Sequence[str], digests: Sequence[str], sizes: Sequence[int]) -> None:
        """Add many files, before any that come by columns."""
        assert not len(self._columns)
        self._alone.update(zip(names, digests, strict=True))
        self.sizes.update(zip(names, sizes, strict=True))
        self._forget()

    def put_columns(self, columns: FileColumns) -> None:
        """Add very many files, or say something else of some."""
        if len(self._columns):
            self._take_apart()
        for name in [name for name in self._alone if name in columns]:
            del self._alone[name], self.sizes[name]
        self._columns = columns
        self._forget()

    def alone(self) -> Sequence[str]:
        """Return the names of those that did not come by columns."""
        return list(self._alone)

    def all_sizes(self) -> dict[str, int]:
        """Return the bytes of each by name."""
        return {**dict(zip(self._columns.whole_names(), self._columns.sizes, strict=True)), **self.sizes}

    def __len__(self) -> int:
        """Return how many files they are."""
        return len(self._alone) + len(self._columns)

    def __iter__(self) -> Iterator[str]:
        """Give each name."""
        return iter(self._rows())

    def __contains__(self, name: object) -> bool:
        """Say whether a file of this name is in the table."""
        return name in self._alone or name in self._columns

    def __getitem__(self, name: str) -> str:
        """Return the digest of a file."""
        return self._alone[name] if name in self._alone else self._rows()[name]

    def __repr__(self) -> str:
        """Show it as a table."""
        return f"FileTable({self._rows()!r})"

    def text(self) -> TableText | None:
        """Write the table, where that can be done from columns."""
        if not len(self._columns):
            return None
        return self._text

    def largest(self, limit: int) -> list[str]:
        """Return the digests of the largest files, of equal ones the first by name.

        Args:
            limit: Most digests wanted.
        """
        text = self.text()
        if text is None:
            sizes = self.all_sizes()
            ordered = heapq.nsmallest(limit, ((-sizes.get(name, 0), name) for name in self))
            return [self[name] for _, name in ordered]
        column = [*self._columns.sizes, *(self.sizes[name] for name in self._alone)]
        least = min(heapq.nlargest(limit, column), default=0)
        larger = [place for place, size in enumerate(column) if size > least]
        larger.sort(key=lambda place: (-column[place], self._name_at(place)))
        in_order = memoryview(text.order).cast("I")
        equal = itertools.islice((place for place in in_order if column[place] == least), limit - len(larger))
        return [self._digest_at(place) for place in (*larger, *equal)]

    def _name_at(self, place: int) -> str:
        for start, ends in self._columns.names.items():
            if place < len(ends):
                return f"{start}{ends[place]}"
            place -= len(ends)
        return self.alone()[place]

    def _digest_at(self, place: int) -> str:
        if place >= len(self._columns):
            return self._alone[self._name_at(place)]
        return b64u(self._columns.digests[DIGEST_STRIDE * place : DIGEST_STRIDE * (place + 1) - 1])

    @cached_property
    def _text(self) -> TableText | None:
        library = loaded()
        if library is None:
            return None
        names: dict[str, Sequence[str]] = dict(self._columns.names)
        digests = self._columns.digests
        try:
            if self._alone:
                names[""] = list(self._alone)
                digests += b"".join(b64u_decode(digest, 32) + b"\0" for digest in self._alone.values())
        except EncodingError:
            return None
        return library.text(names, digests)

    def _rows(self) -> dict[str, str]:
        if self._whole is None:
            texts = texts_of_column(self._columns.digests)
            self._whole = {**dict(zip(self._columns.whole_names(), texts, strict=True)), **self._alone}
        return self._whole

    def _take_apart(self) -> None:
        self._alone, self.sizes = dict(self._rows()), self.all_sizes()
        self._columns = FileColumns()

    def _forget(self) -> None:
        self._whole = None
        self.__dict__.pop("_text", None)
