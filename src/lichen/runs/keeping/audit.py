"""Audit a ledger and the artefacts beside it: everything derived again, nothing believed.

`lichen.ledger.audit` does the ledger. Here the artefacts are added, which lie outside it: each file of the store is hashed and
compared with the CID that is its name. An artefact that entries name and the store lacks is counted and is no fault, because
artefacts may be deleted, or lie elsewhere; the entry keeps their digest.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.errors import LichenError

if TYPE_CHECKING:
    from lichen.content.cid import Cid
    from lichen.content.directory_store import DirectoryStore
    from lichen.ledger.audit import AuditReport
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["ArtefactReport", "LedgerAudit", "audit_ledger", "audits_directory"]

AHEAD_COUNT = 64


@dataclass
class ArtefactReport:
    """What lies in the store.

    Args:
        count: Artefacts that were hashed.
        size_bytes: Of all of them.
        damaged: CIDs whose file holds other bytes.
        named_count: Artefacts that runs and publications name.
        missing: Those of them that the store does not hold, by the first entry that names each: ``index`` and ``cid``, and ``path`` of a
            file of a published directory.
    """

    count: int = 0
    size_bytes: int = 0
    damaged: list[str] = field(default_factory=list)
    named_count: int = 0
    missing: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class LedgerAudit:
    """What an audit of ledger and store found.

    Args:
        ledger: Of the ledger.
        artefacts: Of the store; None when it was left out.
    """

    ledger: AuditReport
    artefacts: ArtefactReport | None

    @property
    def is_sound(self) -> bool:
        """True when everything held."""
        return self.ledger.is_sound and not (self.artefacts and self.artefacts.damaged)

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        artefacts = None if self.artefacts is None else self.artefacts.__dict__
        return {**self.ledger.to_json(), "is_sound": self.is_sound, "artefacts": artefacts}


def audits_directory() -> Path:
    """Where this user keeps what audits derived: beside the keys, since whoever writes there can make an audit believe things."""
    from lichen.runs.workspace.config import lichen_home

    return lichen_home() / "audits"


def audit_ledger(
    workspace: Workspace,
    *,
    progress: Callable[[int, int], None] | None = None,
    artefact_progress: Callable[[int, int], None] | None = None,
    keep: bool = True,
    from_scratch: bool = False,
    worker_count: int | None = None,
    with_artefacts: bool = True,
) -> LedgerAudit:
    """Derive a ledger again from its entries, and hash every artefact in its store.

    Args:
        workspace: The ledger.
        progress: Told how many entries are done, and how many there are.
        artefact_progress: Told the same of artefacts.
        keep: Go on from what an earlier audit by this user derived, and keep what this one derives.
        from_scratch: Forget what was kept first.
        worker_count: Processes beside this one; None for as many as there are processors, where that pays.
        with_artefacts: Hash the artefacts too.

    Returns:
        What was checked; with the first bad index and why, when something is wrong.
    """
    from lichen.contracts import default_contracts
    from lichen.ledger.audit import audit
    from lichen.runs.queries.views import default_views

    report = audit(
        workspace.directory,
        default_contracts(),
        views=default_views(),
        progress=progress,
        keep_in=audits_directory() if keep else None,
        from_scratch=from_scratch,
        worker_count=worker_count,
    )
    if not with_artefacts or not report.is_sound:
        return LedgerAudit(report, None)
    return LedgerAudit(report, _audit_artefacts(workspace, artefact_progress))


def _audit_artefacts(workspace: Workspace, progress: Callable[[int, int], None] | None) -> ArtefactReport:
    from lichen.content.cid import Cid

    store, found = workspace.store, ArtefactReport()
    total = store.usage().artefact_count
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="lichen-audit") as threads:
        names = store.list()
        while batch := [cid for cid, _ in zip(names, range(AHEAD_COUNT), strict=False)]:
            sizes = threads.map(functools.partial(_sound_size, store), batch)
            for cid, size in zip(batch, sizes, strict=True):
                found.count += 1
                found.size_bytes += size or 0
                if size is None:
                    found.damaged.append(str(cid))
            if progress is not None:
                progress(found.count, total)
    found.damaged.sort()
    for index, text in _named(workspace):
        found.named_count += 1
        if not store.has(Cid.parse(text)):
            found.missing += _missing(workspace, index, text)
    return found


def _missing(workspace: Workspace, index: int, text: str) -> list[dict[str, Any]]:
    """What of an artefact that is not in the store is really gone: a directory is kept as its files."""
    from lichen.content.cid import Cid
    from lichen.runs.queries.fetch import listed_files

    try:
        files = listed_files(workspace, index)
    except (LichenError, OSError):
        files = None
    if files is None:
        return [{"index": index, "cid": text}]
    return [
        {"index": index, "cid": file["cid"], "path": file["path"]}
        for file in files
        if not workspace.store.has(Cid.parse(file["cid"]))
    ]


def _sound_size(store: DirectoryStore, cid: Cid) -> int | None:
    """Size of an artefact in bytes; None when its bytes are not those that its name says, or cannot be read."""
    try:
        names = store.hash_stored(cid)
    except LichenError:
        return None
    return names.size_bytes if names.cid == cid else None


def _named(workspace: Workspace) -> Iterator[tuple[int, str]]:
    """CIDs in entries, manifests of runs and published artefacts, each with the first entry that names it."""
    rows = workspace.ledger.connection.execute(
        "SELECT MIN(idx), cid FROM (SELECT idx, manifest AS cid FROM view_run "
        "UNION ALL SELECT idx, cid FROM view_artefact WHERE cid IS NOT NULL) GROUP BY cid ORDER BY 1"
    )
    for index, cid in rows:
        yield int(index), str(cid)
