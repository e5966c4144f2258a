"""Take an answer from the ledger: verify it, put its outputs back, book what was not spent."""

from __future__ import annotations

import time
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.encoding.base import b64u
from lichen.encoding.canonical import canonical_json
from lichen.errors import LichenError, NotFoundError, Rejected, VerificationError
from lichen.runs.queries.views import is_digest
from lichen.runs.records.metrics import misses_target
from lichen.runs.records.record import outputs_digest, reuse_statement
from lichen.runs.request import RunResult
from lichen.runs.reuse.asked import metrics_asked, recorded_output
from lichen.runs.reuse.lookup import EarlierRun
from lichen.runs.reuse.objections import objection_lines
from lichen.runs.reuse.restore import plan_restore, restore

if TYPE_CHECKING:
    from lichen.encoding.statement import Statement
    from lichen.runs.request import Narrator, RunRequest
    from lichen.runs.reuse.lookup import Answer
    from lichen.runs.work.manifest import Manifest
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["take_hit", "verify_answer"]


def verify_answer(workspace: Workspace, answer: Answer) -> tuple[EarlierRun, str]:
    """Verify that an answer is in the ledger as it was told.

    Checks the inclusion of the entry under the signed checkpoint, the author's signature, the state's count for the
    fingerprint, that the query table says what the entry says, and that the manifest is the one the entry names, with
    its outputs.

    Returns:
        The run as its signed entry tells it, and the text of the receipt.

    Raises:
        VerificationError: Something does not hold.
    """
    from lichen.encoding.statement import Statement
    from lichen.ledger.receipt import verify_receipt

    run, manifest = answer.run, answer.manifest
    assert run is not None
    assert manifest is not None
    ledger = workspace.ledger
    log_key = ledger.genesis.log_key
    receipt = ledger.receipt(run.index)
    verify_receipt(receipt, log_key, ledger.origin)
    standing = ledger.state_receipt("registry", b"exact/" + run.exact)
    if verify_receipt(standing, log_key, ledger.origin).value is None:
        raise VerificationError(f"the state has no run with the fingerprint of entry {run.index}")
    statement = Statement.from_bytes(ledger.entry(run.index).payload)
    signed = EarlierRun.from_record(run.index, statement.predicate)
    _check_row(run, signed)
    _check_manifest(workspace, run.index, statement, manifest)
    return signed, receipt.to_text()


def _check_row(told: EarlierRun, signed: EarlierRun) -> None:
    """Make sure that the query table, which nobody signed, says what the entry says."""
    for field in fields(EarlierRun):
        one, other = getattr(signed, field.name), getattr(told, field.name)
        if one != other:
            raise VerificationError(
                f"the query tables say something else of entry {told.index} than the entry itself: {field.name}",
                expected=_shown(one),
                calculated=_shown(other),
                remedy="Somebody changed the ledger's file: check it with `lichen verify`, and use --rerun.",
            )


def _shown(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)[:200]


def _check_manifest(workspace: Workspace, index: int, statement: Statement, manifest: Manifest) -> None:
    """Make sure that a manifest names the outputs and the work that the entry names."""
    named = {subject.name: subject.sha256 for subject in statement.subjects}
    if "outputs" in named:
        held = named["outputs"] == outputs_digest(manifest)
    elif "manifest" in named:
        held = not manifest.outputs
    else:
        held = sorted(named.values()) == sorted(output.sha256 for output in manifest.outputs)
    parts = statement.predicate["parts"]
    if not held or manifest.parts(workspace.group_key) != dict(parts):
        raise VerificationError(
            f"the manifest of entry {index} does not say what the entry says",
            expected=b64u(canonical_json(parts))[:60],
            calculated=b64u(canonical_json(manifest.parts(workspace.group_key)))[:60],
            remedy="Its author published a wrong manifest: use --rerun, and flag the entry.",
        )


def take_hit(
    workspace: Workspace,
    request: RunRequest,
    answer: Answer,
    narrator: Narrator,
    *,
    declared_outputs: tuple[str, ...],
) -> RunResult | None:
    """Answer a request from the ledger.

    Args:
        workspace: Ledger and store.
        request: What was asked.
        answer: A hit.
        narrator: Hears the recorded output.
        declared_outputs: Absolute paths the requester declared.

    Returns:
        The result, or None when outputs are no longer in the store, so the work must be done again.

    Raises:
        LichenError: The answer does not verify, or may not be put where it belongs.
    """
    started = time.monotonic()
    manifest = answer.manifest
    assert manifest is not None
    run, receipt = verify_answer(workspace, answer)
    answer = replace(answer, run=run)  # from here on nothing is told or booked that the entry does not say
    for line in objection_lines(answer):
        narrator.warning(line)
    plan = plan_restore(workspace, manifest, own=workspace.is_own(run.index), declared=declared_outputs)
    if plan.missing:
        narrator.warning(
            f"entry {run.index} has the answer, but {plan.missing[0].name} is no longer in the store"
        )
        return None
    try:
        written = restore(
            workspace,
            plan,
            lambda path, cid: narrator.warning(
                f"{path} held something else, which is kept: lichen get {cid}"
            ),
        )
    except (NotFoundError, VerificationError) as error:
        narrator.warning(f"entry {run.index} has the answer, but the store failed: {error.message}")
        return None
    if request.replay:
        _replay(workspace, manifest, narrator)
    metrics = metrics_asked(workspace, request, manifest, run.metrics, narrator)
    credited = bool(written) and _book(workspace, answer, len(written), narrator)
    return RunResult(
        status="hit",
        exit_status=run.exit_status or 0,
        record=run.index,
        reusable=True,
        avoided_joules=run.energy_joules if credited else 0.0,
        avoided_u95=run.relative_u95 if credited else 0.0,
        credited=credited,
        duration_seconds=time.monotonic() - started,
        metrics=metrics,
        missed_target=misses_target(metrics, request.target),
        receipt=receipt,
        author=run.member,
        answer=answer,
        objections=answer.objections,
        outputs=[output.name for output in manifest.outputs],
        manifest_cid=run.manifest_cid,
    )


def _replay(workspace: Workspace, manifest: Manifest, narrator: Narrator) -> None:
    from lichen.runs.process.terminal import filter_escapes

    recorded = recorded_output(workspace, manifest)
    if recorded is not None:
        try:
            narrator.replayed(filter_escapes(recorded))
        except BrokenPipeError:
            return  # the answer stands, whoever reads its output
        except OSError as error:
            narrator.warning(f"stdout could not be written: {error.strerror or error}")


def _book(workspace: Workspace, answer: Answer, restored: int, narrator: Narrator) -> bool:
    """Append the reuse record; one credit per fingerprint and member."""
    run = answer.run
    assert run is not None
    column = "exact" if answer.level == "exact" else "same_work"
    taken = workspace.ledger.connection.execute(
        "SELECT 1 FROM view_reuse JOIN view_run ON view_run.idx = view_reuse.target "  # noqa: S608 - constants
        f"WHERE {is_digest(f'view_run.{column}', '?1')} AND view_reuse.level = ?2 AND view_reuse.member = ?3"
        " AND view_reuse.avoided_joules > 0",
        (run.exact if answer.level == "exact" else run.same_work, answer.level, workspace.member),
    ).fetchone()
    from lichen.runs.records.appending import append_or_keep

    if taken or _is_booking_waiting(workspace, answer):
        return False
    try:
        said = reuse_statement(workspace, run, level=answer.level, restored=restored, own=None)
        recorded = append_or_keep(workspace, said)
    except LichenError as error:
        if not (isinstance(error, Rejected) and error.rule == "registry.double-credit"):
            narrator.warning(f"the joules not spent could not be booked: {error}")
        return False
    if recorded.waits_in is not None:
        narrator.warning(
            f"the joules not spent are booked when the server is back; until then that waits in {recorded.waits_in}"
        )
    return True


def _is_booking_waiting(workspace: Workspace, answer: Answer) -> bool:
    """Say whether these joules were booked while the server was away, and wait for it."""
    from lichen.runs.records.appending import waiting_statements

    assert answer.run is not None
    digest = answer.run.exact if answer.level == "exact" else answer.run.same_work
    return any(
        waiting.predicate.get("level") == answer.level and waiting.subjects[0].sha256 == digest
        for waiting, _ in waiting_statements(workspace, "reuse")
    )


def absolute_paths(paths: tuple[str, ...], root: Path) -> tuple[str, ...]:
    """Return declared paths in absolute form, links kept."""
    import os

    return tuple(os.path.normpath(root / path) for path in paths)
