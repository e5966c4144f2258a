"""Records of one ledger, said again for another: digests under its group key, indices of its entries, artefacts in its store.

What a record claims stays as it was: metrics, energy, outputs, the time it was said. What depends on the ledger it stands in is
made anew. In a private ledger fingerprints are keyed digests, so they are computed again from the manifest; what lay sealed with
the one group key is sealed with the other.

The same record gives the same bytes each time: its nonce follows from the entry it comes from, and the salt of what is sealed
follows from the bytes. So saying it twice is seen to be the same, and an interrupted import is simply started again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lichen.content.cid import Cid
from lichen.content.unixfs import fill_from_reader, hash_bytes
from lichen.encoding.base import b64u, b64u_decode
from lichen.encoding.foreign_json import read_json
from lichen.encoding.statement import Statement, Subject
from lichen.errors import LichenError, NotFoundError
from lichen.runs.records.record import data_key, subjects_of
from lichen.runs.work.manifest import Manifest, family_key

if TYPE_CHECKING:
    from lichen.ledger.ports import Record
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["IMPORTED_KINDS", "NotImported", "Translator"]

IMPORTED_KINDS: Final = ("run", "data", "model", "evaluation", "flag", "dispute", "withdraw")
NOTE_COUNT_MAX: Final = 8  # as a record of energy may have
_COMMON: Final = ("ledger", "member", "nonce", "time_unix_ms")
_REFERENCES: Final = ("of", "against", "run", "base")


class NotImported(Exception):  # noqa: N818 - a result, told to the user, and not a failure
    """A record that stays where it is; the message says why."""


@dataclass(slots=True)
class Translator:
    """Says records of one ledger again for another.

    Args:
        source: Where they stand; read only.
        target: Where they go.
        places: Index in the target by index in the source; filled by whoever appends.
        is_dry: Put nothing into the target's store.
        moved: CIDs of artefacts that the target's store lacked.
        missing: CIDs that the source's store does not hold.
    """

    source: Workspace
    target: Workspace
    places: dict[int, int]
    is_dry: bool = False
    moved: set[str] = dataclasses.field(default_factory=set)
    missing: list[str] = dataclasses.field(default_factory=list)

    def translate(self, record: Record) -> Statement:
        """Say a record again.

        Raises:
            NotImported: It cannot be: it names what was not imported, or what it stands on is gone.
        """
        said = {name: value for name, value in record.predicate.items() if name not in _COMMON}
        subjects: Sequence[Subject] = record.statement.subjects
        for name in _REFERENCES:
            if name in said:
                said[name] = self._place(said[name])
        if record.kind != "run" and "data" in said:
            said["data"] = [self._place(index) for index in said["data"]]
        if record.kind == "run":
            subjects = self._run(said)
            self._note(said, record)
        elif "cid" in said and "detail" not in said:
            self._copy(said["cid"])
        if record.kind != "run" and "detail" in said:
            said["detail"] = self._detail(said["detail"], has_files="cid" in said)
        common = {
            "ledger": b64u(bytes.fromhex(self.target.ledger.id)),
            "member": self.target.identity.member,
            "nonce": self.nonce(record.place),
            "time_unix_ms": record.predicate["time_unix_ms"],
        }
        return Statement(record.kind, tuple(subjects), {**said, **common}, record.statement.version)

    def references(self, record: Record) -> set[int]:
        """Entries of the source that a record names."""
        said = record.predicate
        named = {said[name] for name in _REFERENCES if name in said}
        return named | (set(said["data"]) if record.kind != "run" and "data" in said else set())

    def nonce(self, index: int | str) -> str:
        """Nonce of what an entry of the source becomes, 12 bytes as text."""
        text = f"lichen import v1\0{self.source.ledger.id}\0{self.target.ledger.id}\0{index}"
        return b64u(hashlib.sha256(text.encode()).digest()[:12])

    # -- references ------------------------------------------------------------------------------------------------

    def _place(self, index: int) -> int:
        if index not in self.places:
            raise NotImported(f"it names entry {index}, which was not imported")
        return self.places[index]

    def _note(self, said: dict[str, Any], record: Record) -> None:
        """Say in the entry itself where it comes from; the evidence says it with proof."""
        energy = dict(said["energy"])
        note = f"imported: ledger {self.source.ledger.id[:16]}, entry {record.place}, by {record.member}"[
            :200
        ]
        energy["notes"] = [*energy.get("notes", []), note][-NOTE_COUNT_MAX:]
        said["energy"] = energy

    # -- runs ------------------------------------------------------------------------------------------------------

    def _run(self, said: dict[str, Any]) -> Sequence[Subject]:
        """Make digests, manifest and subjects of a run anew."""
        manifest = self._manifest(said["manifest"])
        for output in manifest.outputs:
            if output.cid:
                self._copy(output.cid)
        detail = None if manifest.detail is None else self._sealed_again(manifest.detail)
        moved = dataclasses.replace(manifest, detail=detail)
        key = self.target.group_key
        named = {
            data_key(b64u_decode(digest), self.source.group_key): digest for digest in manifest.data.values()
        }
        kept = [named[raw] for raw in map(b64u_decode, said["data"]) if raw in named]
        if len(kept) != len(said["data"]):
            raise NotImported("its manifest does not list the data that the entry names")
        said["parts"] = moved.parts(key)
        said["family"] = b64u(family_key(moved.family, key))
        said["data"] = [b64u(data_key(b64u_decode(digest), key)) for digest in kept]
        cid, sha256 = self._put(moved.to_bytes())
        said["manifest"] = cid
        return subjects_of(self.target, moved, sha256)

    def _manifest(self, cid: str) -> Manifest:
        try:
            return self.source.manifest(cid)
        except LichenError as error:
            raise NotImported(f"its manifest cannot be read: {error.message}") from error

    # -- artefacts -------------------------------------------------------------------------------------------------

    def _copy(self, text: str) -> None:
        """Copy an artefact that is not sealed."""
        cid = Cid.parse(text)
        if self.target.store.has(cid):
            return
        try:
            with self.source.store.open(cid) as stream:
                self.moved.add(text)
                if not self.is_dry:
                    self.target.store.put_stream(fill_from_reader(stream), expected=cid)
        except NotFoundError:
            self.missing.append(text)

    def _detail(self, cid: str, *, has_files: bool) -> str:
        """Seal the detail of a record anew; copy the files of a directory that it lists."""
        detail = self._sealed_again(cid)
        if detail is None:
            raise NotImported(f"its detail {cid} is not in the store")
        if has_files:
            try:
                named = [file["cid"] for file in read_json(self.source.get_private(cid)).get("files", ())]
            except (ValueError, TypeError, KeyError, AttributeError):
                raise NotImported(f"its detail {cid} is not the list of files that it should be") from None
            for file in named:
                self._copy(file)
        return detail

    def _sealed_again(self, cid: str) -> str | None:
        """Move what may lie sealed from one group key to the other; None when it was deleted."""
        try:
            data = self.source.get_private(cid)
        except NotFoundError:
            self.missing.append(cid)
            return None
        return self._put(data)[0]

    def _put(self, data: bytes) -> tuple[str, bytes]:
        """Store bytes, sealed where the target is private: CID text and SHA-256 of what lies in the store."""
        stored = self.sealed(data)
        names = hash_bytes(stored)
        if not self.target.store.has(names.cid):
            self.moved.add(str(names.cid))
            if not self.is_dry:
                self.target.store.put_bytes(stored)
        return str(names.cid), names.sha256

    def sealed(self, data: bytes) -> bytes:
        """Seal bytes for the target's members, the same way each time; in a public ledger they stay as they are.

        The salt is a keyed digest of the bytes, so one salt never serves different bytes.
        """
        key = self.target.group_key
        if key is None:
            return data
        from lichen.crypto.sealed import seal_bytes

        return seal_bytes(data, key, hmac.digest(key, b"lichen import salt v1\0" + data, "sha256"))


def outputs_of(statement: Statement) -> Mapping[str, bytes]:
    """Digests of what a record is about, by name."""
    return {subject.name: subject.sha256 for subject in statement.subjects}
