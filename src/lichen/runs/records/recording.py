"""Write a finished run down: detail and manifest into the store, the record into the ledger, or into the spool.

A run that is described is never lost: a record that the ledger cannot take now waits in the spool. Equal work on record
with other outputs is disputed at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.content.cid import Cid
from lichen.content.unixfs import hash_bytes
from lichen.contracts.registry import exact_fingerprint
from lichen.encoding.base import b64u_decode
from lichen.encoding.statement import Statement, Subject
from lichen.errors import LichenError, NotFoundError, StorageError, VerificationError
from lichen.runs.records.appending import append_or_keep, spool_of, waiting_line
from lichen.runs.records.record import DATA_INLINE_MAX, RunFacts, run_statement, statement
from lichen.runs.records.spool import SpooledOutput, write_durably
from lichen.runs.reuse.lookup import runs_by
from lichen.runs.work.observe import Observation, data_digests

if TYPE_CHECKING:
    from lichen.runs.request import Narrator, RunRequest, RunResult
    from lichen.runs.work.manifest import Manifest
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["store_left_over", "write_down"]


def write_down(
    workspace: Workspace,
    request: RunRequest,
    observation: Observation,
    detail: bytes,
    result: RunResult,
    narrator: Narrator,
    *,
    parent: str | None = None,
    rank_count: int | None = None,
) -> None:
    """Store and record a run, and open a dispute when it contradicts equal work.

    Args:
        workspace: Ledger, store and identity.
        request: What was asked.
        observation: What the run depended on and made.
        detail: Content of the deletable detail artefact.
        result: Its measurement is there; manifest, record, receipt or spool are filled in.
        narrator: Hears warnings and, if asked for, the record.
        parent: Run this one is nested in.
        rank_count: Processes of a distributed run, all recorded in this one.

    Raises:
        LichenError: The store cannot take the manifest.
    """
    assert result.measurement is not None
    kept: list[SpooledOutput] = []
    detail_cid, _ = _put_or_keep(workspace, detail, kept)
    manifest = dataclasses.replace(observation.manifest, detail=detail_cid)
    manifest_cid, manifest_sha256 = _put_or_keep(workspace, manifest.to_bytes(), kept)
    result.manifest_cid = manifest_cid
    facts = RunFacts(
        status=result.status,
        reason=result.reasons[0][0] if result.reasons else None,
        metrics=result.metrics,
        target=request.target,
        measurement=result.measurement,
        exit_status=result.exit_status,
        data=data_digests(observation, DATA_INLINE_MAX),
        parent=parent,
        rank_count=rank_count,
    )
    said = run_statement(workspace, manifest, manifest_cid, manifest_sha256, facts)
    if request.show_record:
        narrator.record_shown(json.dumps(json.loads(said.to_bytes()), indent=2, ensure_ascii=False))
    try:
        if kept:
            raise StorageError("the store cannot be written")
        appended = workspace.ledger.append_signed(said, workspace.identity.key, seal=True)
    except LichenError as error:
        result.spooled = _spool(workspace, said, kept, error, narrator)
        return
    result.record = appended.index
    result.receipt = workspace.ledger.receipt(appended.index).to_text()
    parts = said.predicate["parts"]
    with contextlib.suppress(LichenError):  # the index is a cache; the next command catches up
        workspace.index.add(
            appended.index,
            b64u_decode(parts["command"]),
            b64u_decode(said.predicate["family"]),
            manifest_cid,
            manifest,
        )
    if result.reusable:
        _dispute_if_different(workspace, appended.index, parts, manifest, narrator)


def _put_or_keep(workspace: Workspace, data: bytes, kept: list[SpooledOutput]) -> tuple[str, bytes]:
    """Store private bytes; when the store fails, keep them in the fallback spool and say where."""
    try:
        return workspace.put_private(data)
    except (LichenError, OSError):
        sealed = workspace.seal_private(data)
        names = hash_bytes(sealed)
        directory = workspace.fallback_spool / "artefacts"
        path = write_durably(directory, str(names.cid), sealed)
        kept.append(SpooledOutput(str(path), names.sha256.hex(), len(sealed)))
        return str(names.cid), names.sha256


def store_left_over(workspace: Workspace, output: SpooledOutput) -> None:
    """Store an artefact that was kept beside the spool, and take it away from there.

    Doing it again does no harm: what an interrupted flush has stored is found in the store.

    Raises:
        NotFoundError: It is neither where it was kept nor in the store.
        VerificationError: It is not what it was when it was kept.
        StorageError: The store cannot take it yet.
    """
    path = Path(output.path)
    if not path.exists():
        if workspace.store.has(Cid.parse(path.name)):
            return
        raise NotFoundError(f"{path} is gone", remedy="What the run wrote can be made again with --rerun.")
    names = hash_bytes(path.read_bytes())
    if names.sha256.hex() != output.sha256:
        raise VerificationError(
            f"{path} is not what was kept there", expected=output.sha256, calculated=names.sha256.hex()
        )
    workspace.store.put_file(path)
    path.unlink()


def _spool(
    workspace: Workspace, said: Statement, kept: list[SpooledOutput], error: LichenError, narrator: Narrator
) -> str | None:
    try:
        place = spool_of(workspace).add(said.to_bytes(), outputs=kept, reason=error.message)
    except (LichenError, OSError) as second:
        narrator.warning(f"the record could not be kept ({error.message}; {second})")
        return None
    narrator.warning(waiting_line(error.message, str(place)))
    return str(place)


def _dispute_if_different(
    workspace: Workspace, index: int, parts: Mapping[str, str], manifest: Manifest, narrator: Narrator
) -> None:
    """Open a dispute when equal work is on record with other outputs."""
    made = [(output.name, output.sha256) for output in manifest.outputs]
    exact = exact_fingerprint(parts)
    for run in runs_by(workspace.ledger.connection, "exact", exact, 16):
        if run.index == index or not run.reusable:
            continue
        with contextlib.suppress(LichenError):
            if workspace.index.made(run.index) == manifest.made():
                continue
        try:
            theirs = workspace.manifest(run.manifest_cid)
        except LichenError:
            continue
        if [(output.name, output.sha256) for output in theirs.outputs] == made:
            continue
        differing = next(
            (name for name, digest in made if digest not in {output.sha256 for output in theirs.outputs}),
            "outputs",
        )
        narrator.warning(
            f"equal work is on record as entry {run.index} with a different {differing}: the script is not deterministic"
        )
        subjects = [Subject("exact", exact)]
        try:
            said = statement(workspace, "dispute", subjects, {"of": run.index, "against": index})
            append_or_keep(workspace, said)
        except LichenError as error:
            narrator.warning(f"the difference could not be recorded: {error}")
        return
