"""The artefacts of an archive: one CAR file each, and a list that says what became of those that are not there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from lichen.archive.names import ARTEFACTS_NAME, car_name
from lichen.archive.staging import Staging
from lichen.content.car import export_artefact, read_car
from lichen.content.cid import Cid
from lichen.content.files import raise_read_error
from lichen.crypto.sealed import MAGIC
from lichen.encoding.base import hex_decode
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.encoding.fields import Fields
from lichen.errors import EncodingError, NotFoundError, VerificationError

if TYPE_CHECKING:
    from pathlib import Path

    from lichen.content.store import ArtefactStore

__all__ = ["ArtefactList", "ArtefactRow"]

_READ_SIZE: Final = 2**20
CID_LENGTH_MAX: Final = 201  # as the registry takes them; few of them are CIDs of Lichen
DIRECTORY, INCLUDED, LEFT_OUT, MISSING = "directory", "included", "left-out", "missing"


@dataclass(slots=True)
class ArtefactRow:
    """What became of one artefact.

    Attributes:
        cid: Its name, as the entry or manifest has it.
        entry: The first entry that names it; None when only an artefact does.
        status: ``included``, ``left-out`` (as asked), ``missing`` (not in the store), or ``directory`` (named by its tree; its
            files are artefacts of their own).
        sha256: Digest of its bytes; None unless included.
        size_bytes: Size; None unless included.
        sealed: True when only holders of the group key can read it; None unless included.
    """

    cid: str
    entry: int | None
    status: str = MISSING
    sha256: bytes | None = None
    size_bytes: int | None = None
    sealed: bool | None = None

    def to_line(self) -> bytes:
        """Write one line of the list: canonical JSON."""
        value: dict[str, Any] = {"cid": self.cid, "status": self.status}
        if self.entry is not None:
            value["entry"] = self.entry
        if self.sha256 is not None:
            value |= {"sealed": self.sealed, "sha256": self.sha256.hex(), "size_bytes": self.size_bytes}
        return canonical_json(value) + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> ArtefactRow:
        """Read one line of the list.

        Raises:
            EncodingError: Not one.
        """
        where = f"a line of {ARTEFACTS_NAME}"
        value = parse_canonical(line.removesuffix(b"\n"))
        is_there = isinstance(value, dict) and value.get("status") == INCLUDED
        required = ("cid", "status", "sealed", "sha256", "size_bytes") if is_there else ("cid", "status")
        fields = Fields(value, where, required, ("entry",))
        row = cls(
            fields.text("cid", CID_LENGTH_MAX),
            fields.integer("entry") if "entry" in fields else None,
            fields.choice("status", (DIRECTORY, INCLUDED, LEFT_OUT, MISSING)),
        )
        if is_there:
            row.sha256 = hex_decode(value["sha256"], 32)
            row.size_bytes = fields.integer("size_bytes")
            row.sealed = value["sealed"] is True
        return row


@dataclass(slots=True)
class ArtefactList:
    """The artefacts an archive is about.

    Attributes:
        rows: By CID text.
        damaged: Those whose bytes in the store are not what the CID names.
    """

    rows: dict[str, ArtefactRow] = field(default_factory=dict)
    damaged: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> ArtefactList:
        """Read the list of an archive.

        Raises:
            EncodingError: Not one.
        """
        found = cls()
        try:
            with path.open("rb") as file:
                for line in file:
                    row = ArtefactRow.from_line(line)
                    found.rows[row.cid] = row
        except OSError as error:
            raise_read_error(path, error)
        return found

    def name(self, cid: str, entry: int | None, *, directory: bool = False) -> None:
        """Note that an entry, or with None an artefact, names an artefact."""
        row = self.rows.setdefault(cid, ArtefactRow(cid, entry))
        if row.entry is None:
            row.entry = entry
        if directory:
            row.status = DIRECTORY

    def write_all(
        self, staging: Staging, store: ArtefactStore | None, earlier: Path | None, digests: dict[str, bytes]
    ) -> Iterator[int]:
        """Put every artefact that can be had, then the list.

        Args:
            staging: Where to.
            store: Where from; None leaves out what is not in the earlier archive.
            earlier: Directory of an earlier archive, or None.
            digests: What the earlier archive lists.

        Yields:
            How many were looked at.
        """
        for done, row in enumerate(self.rows.values(), 1):
            if row.status != DIRECTORY:
                self._put(row, staging, store, earlier, digests)
            yield done
        staging.put(ARTEFACTS_NAME, self.to_bytes())

    def to_bytes(self) -> bytes:
        """Write the list, in the order of the CIDs."""
        return b"".join(self.rows[cid].to_line() for cid in sorted(self.rows))

    def counts(self) -> dict[str, int]:
        """How many artefacts came to what."""
        found = dict.fromkeys((DIRECTORY, INCLUDED, LEFT_OUT, MISSING), 0)
        for row in self.rows.values():
            found[row.status] += 1
        return found

    def _put(
        self,
        row: ArtefactRow,
        staging: Staging,
        store: ArtefactStore | None,
        earlier: Path | None,
        digests: dict[str, bytes],
    ) -> None:
        try:
            cid = Cid.parse(row.cid)
        except EncodingError:
            row.status = MISSING
            return
        name = car_name(cid)
        is_there = row.status == INCLUDED and earlier is not None and name in digests
        if is_there and earlier is not None and staging.take(earlier / name, name, digests[name]):
            return
        row.sha256 = row.size_bytes = row.sealed = None
        if store is None:
            row.status = LEFT_OUT
            return
        try:
            self._measure(row, cid, store)
            left = staging.has(name)
            if left is not None and _is_whole(left, cid):
                staging.keep(name)
            else:
                with staging.writing(name) as file:
                    export_artefact(store, cid, file)
        except NotFoundError:
            row.status = MISSING
        except VerificationError:
            self.damaged.append(row.cid)
            row.status = MISSING
        if row.status != INCLUDED:
            row.sha256 = row.size_bytes = row.sealed = None

    def _measure(self, row: ArtefactRow, cid: Cid, store: ArtefactStore) -> None:
        with store.open(cid) as source:
            digest, size, start = hashlib.sha256(), 0, b""
            while piece := source.read(_READ_SIZE):
                start = start or piece[: len(MAGIC)]
                digest.update(piece)
                size += len(piece)
        row.status, row.sha256, row.size_bytes = INCLUDED, digest.digest(), size
        row.sealed = start == MAGIC


def _is_whole(path: Path, cid: Cid) -> bool:
    """True when a CAR file that an earlier attempt left holds this artefact, down to each block."""
    try:
        with path.open("rb") as file:
            root, blocks = read_car(file)
            for _ in blocks:
                continue
            return root == cid
    except (EncodingError, VerificationError, OSError):
        return False
