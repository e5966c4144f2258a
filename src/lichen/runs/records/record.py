"""Records of this room, built: run, reuse, dispute, data, model, evaluation, flag, withdraw.

Every record carries ledger, member, a fresh nonce and the claimed time. In a private ledger file names do not appear:
subjects are called ``output/0``, ``output/1`` …, and data files are known by keyed digests. In a public one subjects are called by their
paths in the project, where those are such as an entry can hold.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lichen.crypto.hashes import keyed_digest
from lichen.encoding.base import b64u, b64u_decode
from lichen.encoding.canonical import canonical_json
from lichen.encoding.statement import Statement, Subject
from lichen.runs.work.manifest import Manifest, Output, family_key

if TYPE_CHECKING:
    from lichen.energy.measurement import Measurement
    from lichen.runs.reuse.lookup import EarlierRun
    from lichen.runs.workspace.workspace import Workspace

__all__ = [
    "RunFacts",
    "common_fields",
    "data_key",
    "reuse_statement",
    "run_statement",
    "statement",
    "subjects_of",
]

SUBJECTS_INLINE_MAX = 8
DATA_INLINE_MAX = 4
NAME_LENGTH_MAX = 512


def common_fields(workspace: Workspace) -> dict[str, Any]:
    """Return what every record says: ledger, member, nonce, claimed time."""
    return {
        "ledger": b64u(bytes.fromhex(workspace.ledger.id)),
        "member": workspace.identity.member,
        "nonce": b64u(os.urandom(12)),
        "time_unix_ms": time.time_ns() // 1_000_000,
    }


def statement(
    workspace: Workspace, kind: str, subjects: Sequence[Subject], fields: Mapping[str, Any]
) -> Statement:
    """Build a record of any kind; fields that are None are left out."""
    said = {**common_fields(workspace), **{key: value for key, value in fields.items() if value is not None}}
    return Statement(kind, tuple(subjects), said)


def data_key(sha256: bytes, group_key: bytes | None) -> bytes:
    """Return the digest under which a data file stands in entries, 32 bytes.

    Args:
        sha256: Digest of the file's bytes.
        group_key: Of a private ledger, where a small file must not be guessable from the entry; None in a public one.
    """
    return sha256 if group_key is None else keyed_digest(group_key, "lichen data v1", sha256)


@dataclass(frozen=True)
class RunFacts:
    """What is known of a finished run beside its manifest.

    Args:
        status: ``trained``, ``missed``, ``failed`` or ``interrupted``.
        reason: Code why it is not reusable; None when it is.
        metrics: Final value by name.
        target: Least value by metric name that was asked for.
        measurement: Its energy.
        exit_status: Of the command.
        data: Digests (text) of the data files that stand in the entry, largest first.
        parent: Id of the run this one was nested in.
        rank_count: Processes of a distributed run, when more than one.
    """

    status: str
    reason: str | None
    metrics: Mapping[str, float]
    target: Mapping[str, float]
    measurement: Measurement
    exit_status: int
    data: Sequence[str]
    parent: str | None = None
    rank_count: int | None = None


def run_statement(
    workspace: Workspace, manifest: Manifest, manifest_cid: str, manifest_sha256: bytes, facts: RunFacts
) -> Statement:
    """Build the record of a run.

    Args:
        workspace: Ledger and identity.
        manifest: What the run depended on and made.
        manifest_cid: Where the manifest lies.
        manifest_sha256: Digest of the manifest artefact as stored, 32 bytes.
        facts: The rest.

    Returns:
        The statement, about the outputs; about the manifest when there are none.
    """
    group_key = workspace.group_key
    fields = {
        "status": facts.status,
        "reusable": facts.reason is None,
        "reason": facts.reason,
        "parts": manifest.parts(group_key),
        "family": b64u(family_key(manifest.family, group_key)),
        "data": [b64u(data_key(b64u_decode(digest), group_key)) for digest in facts.data],
        "data_count": len(manifest.data) if len(manifest.data) > len(facts.data) else None,
        "metrics": dict(facts.metrics),
        "target": dict(facts.target) or None,
        "energy": facts.measurement.to_record(),
        "manifest": manifest_cid,
        "exit_status": facts.exit_status or None,
        "parent": facts.parent,
        "ranks": facts.rank_count,
    }
    return statement(workspace, "run", subjects_of(workspace, manifest, manifest_sha256), fields)


def subjects_of(workspace: Workspace, manifest: Manifest, manifest_sha256: bytes) -> list[Subject]:
    """Return what the record of a run is about: its outputs, or its manifest when there are none.

    Args:
        workspace: The ledger it stands in; in a private one outputs have no names.
        manifest: What the run made.
        manifest_sha256: Digest of the manifest artefact as stored, 32 bytes.
    """
    outputs = manifest.outputs
    if not outputs:
        return [Subject("manifest", manifest_sha256)]
    if len(outputs) > SUBJECTS_INLINE_MAX:
        return [Subject("outputs", outputs_digest(manifest))]
    private = workspace.group_key is not None
    return [
        Subject((None if private else _public_name(output)) or f"output/{place}", output.sha256)
        for place, output in enumerate(outputs)
    ]


def _public_name(output: Output) -> str | None:
    """Return the path under which an output may stand in an entry; None for one outside the project, or too long."""
    name = output.name.removeprefix("{project}/")
    fits = name != output.name and len(name) <= NAME_LENGTH_MAX and name not in ("manifest", "outputs")
    return name if fits else None


def outputs_digest(manifest: Manifest) -> bytes:
    """Return the digest that stands for a long list of outputs, 32 bytes."""
    return hashlib.sha256(canonical_json([output.to_json() for output in manifest.outputs])).digest()


def reuse_statement(
    workspace: Workspace, run: EarlierRun, *, level: str, restored: int, own: Measurement | None
) -> Statement:
    """Build the record of an answer taken instead of work.

    Args:
        workspace: Ledger and identity.
        run: The run whose result was taken. What it cost is booked as avoided: by the counterfactual rule this member would
            have spent it once more.
        level: ``exact`` or ``same-work``.
        restored: Files put back.
        own: What answering cost, when metered.
    """
    fields = {
        "of": run.index,
        "level": level,
        "credit": True,
        "avoided_joules": run.energy_joules,
        "avoided_u95": run.relative_u95,
        "restored": restored,
        "energy": own.to_record() if own is not None else None,
    }
    return statement(
        workspace, "reuse", [Subject(level, run.exact if level == "exact" else run.same_work)], fields
    )
