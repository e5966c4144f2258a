"""One entry, or all of them, told in full: what stands in the ledger, and what lies beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from lichen.encoding.base import b64u_decode
from lichen.encoding.foreign_json import read_json
from lichen.encoding.statement import Statement
from lichen.errors import KeyFileError, LichenError
from lichen.ledger.cosigned import CosignedCheckpoints
from lichen.runs.queries.reference import resolve

if TYPE_CHECKING:
    from lichen.runs.reuse.local_index import KnownRun
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["describe", "log", "summary"]


def describe(workspace: Workspace, reference: str) -> dict[str, Any]:
    """Tell everything about one entry.

    Args:
        workspace: Ledger and store.
        reference: See ``reference.resolve``.

    Returns:
        ``index``, ``kind``, ``size_bytes`` of the entry, its ``statement``; for a run ``manifest`` and ``detail`` when at
        hand; ``flags``, ``withdrawn``, ``reused`` and the text of its ``receipt``.
    """
    index = resolve(workspace, reference)
    told = summary(workspace, index)
    entry = workspace.ledger.entry(index)
    statement = Statement.from_bytes(entry.payload)
    told["statement"] = read_json(entry.payload)
    told["signature_key"] = entry.key_id.hex()
    if statement.kind == "run":
        told |= _describe_run(workspace, statement)
    connection = workspace.ledger.connection
    told["flags"] = [
        {"index": row[0], "kind": row[1], "member": row[2], **_unsealed(workspace, read_json(row[3]))}
        for row in connection.execute(
            "SELECT idx, kind, member, said FROM view_flag WHERE target = ?", (index,)
        )
    ]
    withdrawn = connection.execute(
        "SELECT idx, reason FROM view_withdrawn WHERE target = ?", (index,)
    ).fetchone()
    told["withdrawn"] = {"index": withdrawn[0], "reason": withdrawn[1]} if withdrawn else None
    told["reused"] = [
        {"index": row[0], "member": row[1], "avoided_joules": row[2]}
        for row in connection.execute(
            "SELECT idx, member, avoided_joules FROM view_reuse WHERE target = ?", (index,)
        )
    ]
    try:
        receipt = workspace.ledger.receipt(index)
        told["receipt"] = (
            CosignedCheckpoints(workspace.directory).upgrade(receipt, workspace.ledger).to_text()
        )
    except LichenError as error:
        told["receipt"] = None
        told["receipt_problem"] = error.message
    return told


def _unsealed(workspace: Workspace, said: dict[str, Any]) -> dict[str, Any]:
    """Put the text of a flag back that lies sealed beside a private ledger."""
    cid = said.get("detail")
    if isinstance(cid, str):
        with contextlib.suppress(LichenError, OSError, ValueError):  # without the group key it stays sealed
            detail = read_json(workspace.get_private(cid))
            if isinstance(detail, dict) and isinstance(detail.get("error"), str):
                return {**said, "error": detail["error"]}
    return said


def _describe_run(workspace: Workspace, statement: Statement) -> dict[str, Any]:
    try:
        manifest = workspace.manifest(statement.predicate["manifest"])
    except LichenError as error:
        return {"manifest": None, "manifest_problem": error.message}
    detail = workspace.detail(manifest)
    for stream in ("stdout", "stderr"):
        text = detail.get(stream)
        if isinstance(text, str):
            detail[stream] = b64u_decode(text).decode("utf-8", "replace")
    return {"manifest": read_json(manifest.to_bytes()), "detail": detail or None}


def summary(workspace: Workspace, index: int) -> dict[str, Any]:
    """Tell one entry in a line's worth of fields."""
    entry = workspace.ledger.entry(index)
    statement = Statement.from_bytes(entry.payload)
    said = statement.predicate
    told: dict[str, Any] = {
        "index": index,
        "kind": statement.kind,
        "member": said.get("member") or said.get("sealer") or "log",
        "time_unix_ms": said.get("time_unix_ms") or said.get("time") or said.get("created_unix_ms"),
        "size_bytes": len(entry.to_bytes()),
    }
    if statement.kind == "run":
        known = _known_run(workspace, index)
        told |= {
            "status": said["status"],
            "reusable": said["reusable"],
            "reason": said.get("reason"),
            **_energy_fields(said["energy"]),
            "metrics": said["metrics"],
            "title": known.title if known else None,
            "outputs": len(statement.subjects) if statement.subjects[0].name != "manifest" else 0,
        }
    elif statement.kind in ("data", "model"):
        told |= {
            "title": said.get("title") or statement.subjects[0].name,
            "cid": said["cid"],
            **_energy_fields(said.get("energy")),
            "metrics": said.get("metrics", {}),
            "artefact_size_bytes": said["size_bytes"],
        }
    else:
        told |= {
            key: said[key]
            for key in ("action", "subject_member", "of", "against", "level", "avoided_joules", "credit",
                        "error", "severity", "reason", "metrics", "block_height", "tree_size", "name", "access")
            if key in said
        }  # fmt: skip
        if "avoided_u95" in said:
            told["avoided_relative_u95"] = said["avoided_u95"]
        told |= _energy_fields(said.get("energy"))
    return told


def _energy_fields(energy: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what an entry says of its energy under the names that every answer has for it; nothing when it says nothing."""
    if energy is None:
        return {}
    told = {
        "energy_joules": energy["joules"], "energy_relative_u95": energy["u95"], "duration_seconds": energy["seconds"],
        "method": energy["method"], "boundary": energy["boundary"], "device": energy.get("device"), "zone": energy.get("zone"),
        "notes": energy.get("notes"),
    }  # fmt: skip
    return {name: value for name, value in told.items() if value is not None}


def _known_run(workspace: Workspace, index: int) -> KnownRun | None:
    """Return what is known of a run beyond its entry; nothing to who may read the ledger and has no key to its details."""
    try:
        return workspace.index.known_run(index)
    except KeyFileError:
        if not workspace.read_only:
            raise
        return None


def log(
    workspace: Workspace,
    *,
    limit: int | None = None,
    kind: str | None = None,
    member: str | None = None,
    reverse: bool = True,
    seals: bool = False,
) -> Iterator[dict[str, Any]]:
    """Tell the entries in order.

    Args:
        workspace: The ledger.
        limit: Most entries told.
        kind: Only this kind.
        member: Only this author.
        reverse: Newest first.
        seals: Tell seals too; they are most of a quiet ledger.
    """
    size = workspace.ledger.size
    told_count = 0
    for index in range(size - 1, -1, -1) if reverse else range(size):
        told = summary(workspace, index)
        if kind is None and told["kind"] == "seal" and not seals:
            continue
        if (kind is not None and told["kind"] != kind) or (member is not None and told["member"] != member):
            continue
        if limit is not None and told_count >= limit:
            return
        told_count += 1
        yield told
