"""Publish data, models and evaluations: what was made elsewhere, or deserves a name of its own.

Work that `lichen run` did not measure can only be *declared*: it goes through the plausibility check, is marked as declared for
ever, and is shown as such. A model made by a recorded run points to that run, and its cost is the run's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.encoding.base import b64u
from lichen.encoding.canonical import canonical_json
from lichen.encoding.statement import Statement, Subject
from lichen.errors import FileChangedError, Rejected, UsageError
from lichen.runs.records.appending import Recorded, append_or_keep, waiting_line, waiting_statements
from lichen.runs.records.record import statement
from lichen.runs.workspace.project import visible

if TYPE_CHECKING:
    from lichen.content.directory import DirectoryHash
    from lichen.energy.measurement import Measurement
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["DeclaredEnergy", "Published", "data_entries", "evaluate", "publish"]


@dataclass(frozen=True)
class DeclaredEnergy:
    """Energy somebody states for work done elsewhere.

    Args:
        energy_joules: Total.
        relative_u95: Its uncertainty, 95 %; 0.5 unless better is known.
        duration_seconds: Wall time of the work; 0 when unknown.
        device: What did the work.
    """

    energy_joules: float
    relative_u95: float = 0.5
    duration_seconds: float = 0.0
    device: str = "declared elsewhere"

    def to_measurement(self) -> Measurement:
        """Return it as a measurement whose method says ``declared``.

        Raises:
            MeterError: Negative, NaN or infinite.
        """
        from lichen.energy.measurement import Boundary, Component, Measurement, Method

        part = Component(self.energy_joules, self.relative_u95, Method.DECLARED)
        return Measurement({"total": part}, self.duration_seconds, Boundary.SITE, self.device)


@dataclass(frozen=True)
class Published:
    """A published artefact or evaluation.

    Args:
        index: Its entry; None while it waits for the server.
        kind: Kind of record.
        title: Its name.
        cid: Where the artefact lies; None for an evaluation.
        sha256: Digest of its bytes, hexadecimal.
        size_bytes: Size.
        receipt: Text of the receipt; None while it waits.
        run: The run that made it, when on record.
        warnings: What a reader should know.
        is_new: An entry was written now; False when an earlier one of yours says all of it already.
        is_named: The entry holds a name for it, which in a private ledger only a given title is.
        waits_in: The file in which the record waits; None when it is in the ledger.
    """

    index: int | None
    kind: str
    title: str
    cid: str | None
    sha256: str
    size_bytes: int
    receipt: str | None
    run: int | None
    warnings: tuple[str, ...] = ()
    is_new: bool = True
    is_named: bool = True
    waits_in: str | None = None

    @property
    def entry(self) -> int:
        """The entry of what is in the ledger."""
        assert self.index is not None
        return self.index

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.__dict__.items()
        }


@dataclass
class _Claim:
    """Optional fields of an artefact's record, gathered and checked."""

    fields: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def add_energy(self, declared: DeclaredEnergy | None, *, force: bool) -> None:
        """Take declared energy through the plausibility check."""
        from lichen.energy.plausibility import check_claim

        if declared is None:
            return
        measurement = declared.to_measurement()
        violations = check_claim(measurement)
        if violations and not force:
            raise Rejected(
                f"plausibility.{violations[0].rule}",
                violations[0].message,
                remedy="Check the unit (J, kJ, Wh, kWh). Publish it all the same with --force; it is then marked implausible.",
            )
        self.fields["energy"] = measurement.to_record()
        for violation in violations:
            self.warnings.append(f"implausible: {violation.message}")
            notes = [f"implausible: {violation.rule}", *self.fields["energy"].get("notes", [])]
            self.fields["energy"]["notes"] = notes[:8]

    def add_metrics(self, metrics: Mapping[str, float] | None, *, force: bool) -> None:
        """Take declared metrics through the plausibility check."""
        from lichen.runs.records.plausible_metrics import implausible_metrics

        wrong = implausible_metrics(metrics or {})
        if wrong and not force:
            raise Rejected(
                "plausibility.metric",
                wrong[0],
                remedy="Give a share as one: 93 % is 0.93. Publish it all the same with --force; `lichen find` ranks it last.",
            )
        self.warnings += [f"implausible: {text}" for text in wrong]
        self.fields["metrics"] = dict(metrics) if metrics else None


def publish(
    workspace: Workspace,
    kind: str,
    path: Path,
    *,
    title: str | None = None,
    licence: str | None = None,
    metrics: Mapping[str, float] | None = None,
    energy: DeclaredEnergy | None = None,
    run: int | None = None,
    data: tuple[Path, ...] = (),
    force: bool = False,
    again: bool = False,
) -> Published:
    """Store an artefact and record it, unless an entry of one's own says the same of it already.

    Args:
        workspace: Ledger and store.
        kind: ``data`` or ``model``.
        path: A file, or a directory of files.
        title: What to call it; in a private ledger nothing is published as its name unless given here.
        licence: SPDX expression or name.
        metrics: Declared quality.
        energy: Declared cost.
        run: The recorded run that made it; found by content when None.
        data: Files or directories it was made from.
        force: Publish an implausible claim, marked as such.
        again: Write another entry even when one of one's own says the same.

    Returns:
        Where it stands.

    Raises:
        UsageError: No such file, or nothing to publish.
        FileChangedError: Something writes to it meanwhile.
        Rejected: The claim is implausible, or a rule of the ledger said no.
    """
    if kind not in ("data", "model"):
        raise UsageError(f"{kind!r} is neither data nor model")
    if not path.exists():
        raise UsageError(f"{path} does not exist", remedy="Name a file, or a directory of files.")
    workspace.check_own()
    own_name = path.name if path.name not in ("", "..") else path.resolve().name
    claim = _Claim()
    claim.add_energy(energy, force=force)
    claim.add_metrics(metrics, force=force)
    stored = _put(workspace, path)
    if run is None and kind == "model":
        run = _run_that_made(workspace, stored.sha256)
    if run is not None and energy is not None:
        claim.warnings.append(
            f"entry {run} made this and its cost is measured there; the declared energy stands beside it"
        )
    private = workspace.group_key is not None
    claim.fields |= {
        "cid": stored.cid,
        "size_bytes": stored.size_bytes,
        "title": title,
        "licence": licence,
        "run": run,
        "data": data_entries(workspace, data),
    }
    before = None if again else _same_said_before(workspace, kind, stored.sha256, claim)
    is_new = before is None
    if before is None:
        claim.fields |= {"detail": stored.detail, "title": title or (None if private else own_name)}
        name = (title or kind) if private else own_name
        said = statement(workspace, kind, [Subject(name, stored.sha256)], claim.fields)
        recorded, is_named = append_or_keep(workspace, said), "title" in said.predicate
        _tell_waiting(recorded, claim)
    else:
        recorded, is_named = before
    return Published(
        recorded.index,
        kind,
        title or own_name,
        stored.cid,
        stored.sha256.hex(),
        stored.size_bytes,
        _receipt_of(workspace, recorded),
        run,
        tuple(claim.warnings),
        is_new,
        not private or is_named,
        recorded.waits_in,
    )


def _tell_waiting(recorded: Recorded, claim: _Claim) -> None:
    if recorded.waits_in is not None:
        claim.warnings.append(waiting_line(recorded.reason, recorded.waits_in))


def _receipt_of(workspace: Workspace, recorded: Recorded) -> str | None:
    return None if recorded.index is None else workspace.ledger.receipt(recorded.index).to_text()


def _same_said_before(
    workspace: Workspace, kind: str, sha256: bytes, claim: _Claim
) -> tuple[Recorded, bool] | None:
    """Return the newest record of this member that says of an artefact all that is to be said now, and whether it has a title.

    It is an entry, or waits for the server; None when there is none.

    Entries that say something else, or that others wrote, are named in a warning: theirs is another signature.
    """
    rows = workspace.ledger.connection.execute(
        "SELECT idx, member FROM view_artefact WHERE sha256 = ? AND kind = ? "
        "AND idx NOT IN (SELECT target FROM view_withdrawn) ORDER BY idx DESC",
        (sha256, kind),
    ).fetchall()
    given = {name: value for name, value in claim.fields.items() if value is not None}
    for index, member in rows:
        said = _predicate(workspace, index)
        if member == workspace.member and _says(said, given):
            return Recorded(int(index)), "title" in said
    for waiting, place in waiting_statements(workspace, kind):
        if waiting.subjects[0].sha256 == sha256 and _says(waiting.predicate, given):
            return Recorded(None, place), "title" in waiting.predicate
    if rows:
        index, member = rows[0]
        by = "you" if member == workspace.member else member
        claim.warnings.append(
            f"the same content is entry {index} already, by {by}; this entry stands beside it"
        )
    return None


def _says(said: Mapping[str, Any], given: Mapping[str, Any]) -> bool:
    return all(said.get(name) == value for name, value in given.items())


def _predicate(workspace: Workspace, index: int) -> Mapping[str, Any]:
    """Return what an entry says."""
    return Statement.from_bytes(workspace.ledger.entry(index).payload).predicate


@dataclass(frozen=True)
class _Stored:
    cid: str
    sha256: bytes
    size_bytes: int
    detail: str | None = None


def _put(workspace: Workspace, path: Path) -> _Stored:
    """Store a file, or a directory file by file.

    A directory is known by its IPFS CID; its record's subject is the digest of its table of contents, which lies
    beside the record as the detail artefact.
    """
    if not path.is_dir():
        stored = workspace.store.put_file(path)
        return _Stored(str(stored.cid), stored.sha256, stored.size_bytes)
    tree, table = _contents_of(workspace, path)
    for file in tree.files:
        if workspace.store.put_file(path / file.path, known=file.names) != file.names:
            raise FileChangedError(
                f"{path / file.path} changed while it was being published",
                remedy="Wait until nothing writes to the directory, then publish it again.",
            )
    detail, _ = workspace.put_private(table)
    return _Stored(str(tree.cid), hashlib.sha256(table).digest(), tree.size_bytes, detail)


def _contents_of(workspace: Workspace, path: Path) -> tuple[DirectoryHash, bytes]:
    """Name a directory, and write its table of contents: canonical JSON."""
    from lichen.content.directory import hash_directory

    tree = hash_directory(path, hash_one=lambda file: workspace.digests.hash_file(Path(file)))
    if not tree.files:
        raise UsageError(f"{path} holds no file", remedy="Name a directory with files, or a file.")
    contents = [
        {
            "path": visible(file.path),
            "sha256": b64u(file.names.sha256),
            "cid": str(file.names.cid),
            "size": file.names.size_bytes,
        }
        for file in tree.files
    ]
    return tree, canonical_json({"directory": 1, "cid": str(tree.cid), "files": contents})


def _directory_digest(workspace: Workspace, path: Path) -> bytes:
    """Return the digest under which a directory is published: that of its table of contents."""
    return hashlib.sha256(_contents_of(workspace, path)[1]).digest()


def _run_that_made(workspace: Workspace, sha256: bytes) -> int | None:
    row = workspace.ledger.connection.execute(
        "SELECT MIN(idx) FROM view_output WHERE sha256 = ?", (sha256,)
    ).fetchone()
    return int(row[0]) if row[0] is not None else None


def data_entries(workspace: Workspace, paths: tuple[Path, ...]) -> list[int] | None:
    """Return the entries that published some data.

    Raises:
        UsageError: There is no such path, or its content is not on record.
    """
    entries = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path} does not exist", remedy="Name the data the artefact was made from.")
        digest = _directory_digest(workspace, path) if path.is_dir() else workspace.digests.digest_file(path)
        row = workspace.ledger.connection.execute(
            "SELECT MAX(idx) FROM view_artefact WHERE kind = 'data' AND sha256 = ?", (digest,)
        ).fetchone()
        if row[0] is None:
            raise UsageError(
                f"{path} is not on record as data", remedy=f"Publish it first: lichen publish data {path}"
            )
        entries.append(int(row[0]))
    return entries or None


def evaluate(
    workspace: Workspace,
    of: int,
    metrics: Mapping[str, float],
    *,
    data: tuple[Path, ...] = (),
    title: str | None = None,
    energy: DeclaredEnergy | None = None,
    force: bool = False,
) -> Published:
    """Record how good a model or run is on some data.

    Args:
        workspace: The ledger.
        of: Entry of the model or run.
        metrics: Value by name; at least one.
        data: What it was evaluated on.
        title: A name for the evaluation.
        energy: Declared cost of evaluating.
        force: Publish an implausible claim all the same.

    Raises:
        UsageError: No metrics.
        Rejected: A claim is implausible, or there is no such model or run.
    """
    if not metrics:
        raise UsageError("an evaluation without a metric says nothing", remedy="Add --metric accuracy=0.93")
    claim = _Claim()
    claim.add_energy(energy, force=force)
    claim.add_metrics(metrics, force=force)
    row = workspace.ledger.connection.execute(
        "SELECT sha256 FROM view_artefact WHERE idx = ? UNION SELECT exact FROM view_run WHERE idx = ?",
        (of, of),
    ).fetchone()
    digest = row[0] if row else bytes.fromhex(workspace.ledger.id)
    claim.fields |= {
        "of": of,
        "data": data_entries(workspace, data),
        "title": title,
    }
    said = statement(workspace, "evaluation", [Subject("evaluated", digest)], claim.fields)
    recorded = append_or_keep(workspace, said)
    _tell_waiting(recorded, claim)
    return Published(
        recorded.index,
        "evaluation",
        title or f"evaluation of entry {of}",
        None,
        digest.hex(),
        0,
        _receipt_of(workspace, recorded),
        None,
        tuple(claim.warnings),
        waits_in=recorded.waits_in,
    )
