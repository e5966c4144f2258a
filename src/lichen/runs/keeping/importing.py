"""`lichen import`: what was recorded alone becomes part of a team's ledger.

Every record is signed again by the member who imports it, because a record names the ledger it stands in. Nothing is
believed on the way: the source ledger is audited first, and each record's receipt, with the source's genesis and the author's
key in it, goes into an artefact of evidence that an entry of the team's ledger names. So who said it first, and when, stays
provable, also when the source is gone.

Rules upheld:

* Only what the importing member's own key signed is imported; for others it has to be said that one vouches for them, since
  results are taken up on the word of whoever signed.
* Equal work with equal results is not recorded twice: it is mapped to the entry that is there.
* Answers stay behind: the joules that they avoided were booked in the ledger that gave them.
* Importing again changes nothing, and an interrupted import is completed by doing it again.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lichen.contracts.members import is_key_valid
from lichen.contracts.registry import exact_fingerprint
from lichen.crypto.keys import PublicKey
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.encoding.statement import Statement, Subject
from lichen.errors import Rejected, UsageError, VerificationError
from lichen.ledger.checkpoint import origin_of
from lichen.ledger.receipt import verify_receipt
from lichen.ledger.receipt_format import Receipt
from lichen.runs.keeping.import_records import IMPORTED_KINDS, NotImported, Translator, outputs_of
from lichen.runs.keeping.verify import verify_ledger

if TYPE_CHECKING:
    from lichen.ledger.ports import Record
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["EvidenceReport", "ImportReport", "import_ledger", "source_workspace", "verify_evidence"]

EVIDENCE_VERSION: Final = 1
TOGETHER_COUNT: Final = 256  # records appended at a time
_CLAIMS: Final = (
    "status",
    "metrics",
    "title",
    "licence",
    "error",
    "severity",
    "reason",
    "size_bytes",
    "time_unix_ms",
)
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class ImportReport:
    """What became of a ledger's records.

    Attributes:
        source_id: Id of the ledger they come from, hexadecimal.
        target_id: Id of the ledger they go into.
        is_dry: True when nothing was written.
        imported: New entries by kind.
        known: Records whose equal was there: imported earlier, or recorded by somebody.
        left: Reasons why records stay behind, and how many.
        unsealed_count: Entries of the source that no seal covers, which nothing can prove.
        artefact_count: Artefacts copied or sealed anew.
        missing: CIDs that the source's store does not hold.
        places: Index in the target by index in the source.
        evidence: Entry that names the evidence; None when nothing was written.
    """

    source_id: str
    target_id: str
    is_dry: bool
    imported: Counter[str] = field(default_factory=Counter)
    known: int = 0
    left: Counter[str] = field(default_factory=Counter)
    unsealed_count: int = 0
    artefact_count: int = 0
    missing: list[str] = field(default_factory=list)
    places: dict[int, int] = field(default_factory=dict)
    evidence: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        values = {name: getattr(self, name) for name in type(self).__slots__}
        places = {str(index): place for index, place in self.places.items()}
        return {**values, "imported": dict(self.imported), "left": dict(self.left), "places": places}


def import_ledger(
    source: Workspace,
    target: Workspace,
    *,
    vouch_for: Collection[str] = (),
    reveal: bool = False,
    is_dry: bool = False,
    progress: Progress | None = None,
) -> ImportReport:
    """Take a ledger's records over into another.

    Args:
        source: Where they stand; opened for reading.
        target: Where they go; the acting member must be admitted there.
        vouch_for: Members of the source whose records are imported as well, on the importing member's word.
        reveal: Import from a private ledger into a public one, where anybody reads what was sealed.
        is_dry: Write nothing; say what would happen.
        progress: Told how many entries are done.

    Returns:
        What became of each.

    Raises:
        UsageError: Both are the same ledger, the target cannot be written, or it is public and the source is not.
        VerificationError: The source does not hold.
        KeyFileError: A private ledger's group key is not there.
        Rejected: The acting member is not admitted in the target.
    """
    from lichen.runs.keeping.setup import check_admitted

    if source.ledger.id == target.ledger.id:
        raise UsageError(
            "both are the same ledger",
            remedy="Name the directory of the other: lichen import DIR --ledger TEAM.",
        )
    if not target.ledger.takes_records and not is_dry:
        raise UsageError(
            f"{target.directory} can only be read here", remedy="Import where the log.key of that ledger is."
        )
    if source.group_key is not None and target.group_key is None and not reveal:
        raise UsageError(
            f"{source.directory} is private and {target.directory} is public: names, commands and details would be there for anybody",
            remedy="If they may be, import with --reveal.",
        )
    check_admitted(target)
    audit = verify_ledger(source)
    if audit.problem is not None:
        raise VerificationError(
            f"{source.directory} does not hold: {audit.problem.message}",
            remedy="Nothing was imported. Go on from a copy of it that holds.",
        )
    return _Import(source, target, frozenset(vouch_for), is_dry=is_dry).run(progress)


class _Import:
    """One import under way."""

    def __init__(
        self, source: Workspace, target: Workspace, vouch_for: frozenset[str], *, is_dry: bool
    ) -> None:
        self._source = source
        self._target = target
        self._vouch_for = vouch_for
        self.report = ImportReport(source.ledger.id, target.ledger.id, is_dry)
        self._translator = Translator(source, target, self.report.places, is_dry)
        self._next = target.ledger.size  # where a new entry would stand, when nothing is written
        self._planned: dict[bytes, list[tuple[int, Statement]]] = {}
        self._waiting: list[tuple[int, Statement]] = []  # index in the source, and what it becomes
        self._waiting_marks: set[bytes] = set()

    def run(self, progress: Progress | None) -> ImportReport:
        """Take every record, then write the evidence."""
        ledger, report = self._source.ledger, self.report
        sealed = ledger.sealed_size
        report.unsealed_count = ledger.size - sealed
        for index in range(sealed):
            record = ledger.record(index)
            if record is not None and record.kind not in ("genesis", "member"):
                self._take(record)
            if progress is not None:
                progress(index + 1, sealed)
        self._append_waiting()
        report.artefact_count = len(self._translator.moved)
        report.missing = sorted(set(self._translator.missing))
        if report.places and not report.is_dry:
            report.evidence = self._write_evidence()
        return report

    def _take(self, record: Record) -> None:
        """Import one record, or note why it stays behind; it may wait for others, to be appended together with them."""
        try:
            self._check_wanted(record)
            if self._translator.references(record) & {index for index, _ in self._waiting}:
                self._append_waiting()  # it names one of them, so their places must be known
            statement = self._translator.translate(record)
            if _mark_of(statement) in self._waiting_marks:
                self._append_waiting()  # it may be equal to one of them
            known = self._known(statement)
            if known is not None:
                self.report.known += 1
                self.report.places[record.place] = known
            elif self.report.is_dry:
                self.report.imported[statement.kind] += 1
                self.report.places[record.place] = self._plan(statement)
            else:
                self._waiting.append((record.place, statement))
                self._waiting_marks.add(_mark_of(statement))
                if len(self._waiting) >= TOGETHER_COUNT:
                    self._append_waiting()
        except NotImported as reason:
            self.report.left[str(reason)] += 1

    def _append_waiting(self) -> None:
        """Append what waits, in one durable transaction where the ledger is here, in few requests where it is served."""
        waiting, self._waiting = self._waiting, []
        self._waiting_marks.clear()
        if not waiting:
            return
        statements = [statement for _, statement in waiting]
        results = self._target.ledger.append_all_signed(statements, self._target.identity.key)
        for (index, statement), result in zip(waiting, results, strict=True):
            if isinstance(result, Rejected):
                self.report.left[f"refused: {result.message} ({result.rule})"] += 1
            else:
                self.report.imported[statement.kind] += 1
                self.report.places[index] = result.index

    def _check_wanted(self, record: Record) -> None:
        if record.kind not in IMPORTED_KINDS:
            raise NotImported(f"{record.kind} records stay where their joules were booked")
        own = self._target.identity.key.public
        if record.key != own and record.member not in self._vouch_for:
            raise NotImported(
                f"by {record.member}, not signed with your key (--vouch-for {record.member} takes it on your word)"
            )
        if not is_key_valid(self._source.ledger.state_get, record.entry.key_id, record.place):
            raise NotImported(f"by {record.member}, with a key that was compromised then")

    def _known(self, statement: Statement) -> int | None:
        """Where the same record, or a run of equal work with equal results, stands already."""
        place = self._target.ledger.find_payload(hashlib.sha256(statement.to_bytes()).digest())
        if place is not None or statement.kind not in ("run", "data", "model"):
            return place
        return next((found for found, other in self._alike(statement) if is_equal(statement, other)), None)

    def _alike(self, statement: Statement) -> Iterator[tuple[int, Statement]]:
        """Records of the target, or planned for it, that may be equal."""
        yield from self._planned.get(_mark_of(statement), ())
        if statement.kind == "run":
            query, mark = "SELECT idx FROM view_run WHERE exact = ?", _mark_of(statement)
        else:
            query, mark = "SELECT idx FROM view_artefact WHERE sha256 = ?", statement.subjects[0].sha256
        for (index,) in self._target.ledger.connection.execute(f"{query} ORDER BY idx", (mark,)).fetchall():
            record = self._target.ledger.record(index)
            if record is not None:
                yield index, record.statement

    def _plan(self, statement: Statement) -> int:
        """Where a record would stand, when nothing is written."""
        self._planned.setdefault(_mark_of(statement), []).append((self._next, statement))
        self._next += 1
        return self._next - 1

    def _write_evidence(self) -> int:
        """Store the receipts of all that was imported, and record the artefact; its entry."""
        source, target, places = self._source.ledger, self._target.ledger, self.report.places
        evidence = canonical_json(
            {
                "import": EVIDENCE_VERSION,
                "into": target.id,
                "ledger": source.id,
                "log_key": source.genesis.log_key.did_key,
                "records": [
                    {"from": index, "receipt": source.receipt(index).to_text(), "to": place}
                    for index, place in sorted(places.items())
                ],
            }
        )
        stored = self._target.store.put_bytes(self._translator.sealed(evidence))
        said = {
            "cid": str(stored.cid),
            "size_bytes": stored.size_bytes,
            "title": f"evidence of {len(places)} records from ledger {source.id[:16]}",
            "media_type": "application/json",
            "ledger": self._ledger_text(),
            "member": self._target.identity.member,
            "nonce": self._translator.nonce(stored.sha256.hex()),
            "time_unix_ms": source.last_seal.time_unix_ms,
        }
        statement = Statement("data", (Subject("import", stored.sha256),), said)
        known = target.find_payload(hashlib.sha256(statement.to_bytes()).digest())
        if known is not None:
            return known
        return target.append_signed(statement, self._target.identity.key, seal=True).index

    def _ledger_text(self) -> str:
        from lichen.encoding.base import b64u

        return b64u(bytes.fromhex(self._target.ledger.id))


def is_equal(one: Statement, other: Statement) -> bool:
    """True for two records of one work with one result, or of one artefact."""
    if one.kind != other.kind:
        return False
    if one.kind == "run":
        is_same_work = _mark_of(one) == _mark_of(other)
        return (
            is_same_work
            and one.predicate["status"] == other.predicate["status"]
            and outputs_of(one) == outputs_of(other)
        )
    return one.predicate["cid"] == other.predicate["cid"] and one.subjects == other.subjects


def _mark_of(statement: Statement) -> bytes:
    """What equal records have in common: the fingerprint of a run, the digest of anything else."""
    if statement.kind == "run":
        return exact_fingerprint(statement.predicate["parts"])
    return statement.subjects[0].sha256


@dataclass(frozen=True, slots=True)
class EvidenceReport:
    """What an artefact of evidence proves.

    Attributes:
        source_id: Ledger that the records come from, hexadecimal.
        log_key: Its log's key, as did:key.
        record_count: Records whose receipt holds and whose claim stands in the entry it became.
        authors: How many of them were first said by whom.
    """

    source_id: str
    log_key: str
    record_count: int
    authors: dict[str, int]


def verify_evidence(workspace: Workspace, index: int) -> EvidenceReport:
    """Check what stands behind imported records: the receipts, and that the entries here claim what those claim.

    Args:
        workspace: The ledger they were imported into.
        index: Entry that names the evidence.

    Raises:
        UsageError: The entry names none.
        VerificationError: A receipt does not hold, or an entry claims something else.
        NotFoundError: The artefact is not in the store.
    """
    record = workspace.ledger.record(index)
    if record is None or record.kind != "data" or record.statement.subjects[0].name != "import":
        raise UsageError(
            f"entry {index} names no evidence of an import", remedy="`lichen import` says which does."
        )
    value = parse_canonical(workspace.get_private(record.predicate["cid"]))
    if (
        not isinstance(value, dict)
        or value.get("import") != EVIDENCE_VERSION
        or value.get("into") != workspace.ledger.id
    ):
        raise VerificationError(f"the artefact of entry {index} is no evidence for this ledger")
    authors: Counter[str] = Counter()
    key = PublicKey.from_did_key(str(value["log_key"]))
    for each in value["records"]:
        verified = verify_receipt(Receipt.parse(each["receipt"]), key, origin_of(str(value["ledger"])))
        here = workspace.ledger.record(each["to"])
        if verified.statement is None or here is None or verified.index != each["from"]:
            raise VerificationError(f"the evidence for entry {each['to']} is about something else")
        if claims_of(verified.statement) != claims_of(here.statement):
            raise VerificationError(
                f"entry {each['to']} claims something else than entry {each['from']} of ledger {value['ledger'][:16]}"
            )
        authors[str(verified.statement.predicate["member"])] += 1
    return EvidenceReport(str(value["ledger"]), key.did_key, sum(authors.values()), dict(authors))


def claims_of(statement: Statement) -> dict[str, Any]:
    """What a record claims that no ledger changes: kind, results, metrics, joules, and when."""
    said = statement.predicate
    kept = {name: said[name] for name in _CLAIMS if name in said}
    energy = {name: value for name, value in said.get("energy", {}).items() if name != "notes"}
    results = sorted(digest.hex() for name, digest in outputs_of(statement).items() if name != "manifest")
    return {"kind": statement.kind, "energy": energy, "results": results, **kept}


def source_workspace(directory: Path, target: Workspace) -> Workspace:
    """Open the ledger to import from, for reading.

    Args:
        directory: Directory of the ledger, or of a project with one.
        target: The ledger to import into; project and settings are shared.

    Raises:
        NotALedgerError: There is none.
    """
    from lichen.errors import NotALedgerError
    from lichen.runs.workspace.project import LEDGER_DIRECTORY
    from lichen.runs.workspace.workspace import Workspace

    for candidate in (directory, directory / LEDGER_DIRECTORY):
        if (candidate / "ledger.sqlite").is_file():
            return Workspace(target.project, candidate.resolve(), target.user, read_only=True)
    raise NotALedgerError(
        f"{directory} holds no ledger", remedy="Name the directory of the ledger to import from."
    )
