"""Model errors on record, the data they point at, and withdrawals.

Each flag names a model (or run) and, if known, the data on which it erred. Data is suspected in proportion to how much more often it
stands behind flagged models than behind all models: the lift, with one pseudo-count so that a single flag proves little.

Source: the report, 6.1.2 (log detected errors so that biased data can be found); lift as in association rules.
Differs: no published value; the ranking is a pointer for people, never a verdict.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.encoding.statement import Statement, Subject
from lichen.errors import UsageError
from lichen.runs.queries.reference import resolve
from lichen.runs.records.appending import Recorded, append_or_keep, waiting_statements
from lichen.runs.records.publish import data_entries
from lichen.runs.records.record import data_key, statement

if TYPE_CHECKING:
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Suspect", "flag", "suspects", "withdraw"]

SEVERITIES = ("low", "medium", "high")
_WEIGHT = {"low": 1, "medium": 2, "high": 4}


@dataclass(frozen=True)
class Suspect:
    """Data that stands behind more flagged models than chance would have it.

    Args:
        digest: Keyed digest, hexadecimal.
        title: Name of the data where it is published, else its digest.
        index: Entry that published it, or None.
        score: Lift: 1 means no more than any other data.
        flag_count: Flags against work that used it.
        work_count: Runs and models that used it.
        descendants: Entries that used it.
    """

    digest: str
    title: str
    index: int | None
    score: float
    flag_count: int
    work_count: int
    descendants: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        return {**self.__dict__, "descendants": list(self.descendants)}


def flag(
    workspace: Workspace, reference: str, error: str, *, severity: str = "medium", data: tuple[Path, ...] = ()
) -> Recorded:
    """Put a model's error on record.

    Args:
        workspace: The ledger.
        reference: The model or run; see ``reference.resolve``.
        error: What went wrong; at most 500 characters.
        severity: ``low``, ``medium`` or ``high``.
        data: Files on which it erred, or which are suspected.

    Returns:
        Where the flag stands, or waits while the server is away.

    Raises:
        UsageError: No text, a text too long, or an unknown severity.
        Rejected: The entry is none that can be flagged.
    """
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity!r} is none of {', '.join(SEVERITIES)}")
    if not error.strip() or len(error) > 500:
        raise UsageError(
            "an error is told in 1 to 500 characters", remedy="Keep it short and publish details as data."
        )
    index = resolve(workspace, reference)
    fields: dict[str, Any] = {"of": index, "severity": severity, "data": data_entries(workspace, data)}
    if workspace.group_key is None:
        fields["error"] = error
    else:
        fields["detail"], _ = workspace.put_private(json.dumps({"detail": 1, "error": error}).encode())
    said = statement(workspace, "flag", [Subject("flagged", _digest_of(workspace, index))], fields)
    return append_or_keep(workspace, said)


def withdraw(workspace: Workspace, reference: str, reason: str | None = None) -> Recorded:
    """Withdraw an entry of one's own: it stays on record and answers no request any more.

    Returns:
        Where the withdrawal stands, or waits while the server is away; one that waits already is not made twice.

    Raises:
        Rejected: Somebody else wrote the entry, or it was withdrawn before.
    """
    index = resolve(workspace, reference)
    for waiting, place in waiting_statements(workspace, "withdraw"):
        if waiting.predicate["of"] == index:
            return Recorded(None, place, "it was withdrawn already, while the server was away")
    fields = {"of": index, "reason": reason or None}
    said = statement(workspace, "withdraw", [Subject("withdrawn", _digest_of(workspace, index))], fields)
    return append_or_keep(workspace, said)


def _digest_of(workspace: Workspace, index: int) -> bytes:
    return Statement.from_bytes(workspace.ledger.entry(index).payload).subjects[0].sha256


def suspects(workspace: Workspace, limit: int = 20) -> list[Suspect]:
    """Rank data by how much more often it stands behind flagged work than behind all work.

    Args:
        workspace: The ledger.
        limit: Most results.
    """
    connection = workspace.ledger.connection
    flagged: Counter[int] = Counter()
    named: Counter[bytes] = Counter()
    published = _published(workspace)
    digest_of = {index: digest for digest, (indices, _) in published.items() for index in indices}
    for target, text in connection.execute("SELECT target, said FROM view_flag WHERE kind = 'flag'"):
        said = json.loads(text)
        flagged[_work_behind(workspace, int(target))] += 1
        for entry in said.get("data", ()):
            named[digest_of[int(entry)]] += _WEIGHT[said.get("severity", "medium")]
    used = _uses(workspace)
    for digest in named:
        used.setdefault(digest, set())
    all_work = set().union(*used.values()) if used else set()
    base_rate = (sum(1 for index in all_work if flagged[index]) + 1) / (len(all_work) + 2)
    found = []
    for digest, work in used.items():
        entries, title = published.get(digest, ([None], f"data {digest.hex()[:12]}… (not published)"))
        hits = sum(1 for each in work if flagged[each])
        direct = named[digest]
        if not hits and not direct:
            continue
        score = ((hits + direct + 1) / (len(work) + direct + 2)) / base_rate
        flag_count = sum(flagged[each] for each in work) + direct
        found.append(
            Suspect(digest.hex(), title, entries[0], score, flag_count, len(work), tuple(sorted(work)))
        )
    return sorted(found, key=lambda item: (-item.score, -item.flag_count, item.digest))[:limit]


def _uses(workspace: Workspace) -> dict[bytes, set[int]]:
    """Map each data digest to the runs, or models without a run, that used it."""
    connection = workspace.ledger.connection
    used: dict[bytes, set[int]] = {}
    rows = connection.execute(
        "SELECT view_name.name, view_work.idx FROM view_work JOIN view_name ON view_name.id = view_work.data_id "
        "WHERE view_work.metric_id = 0"
    )
    for digest, index in rows:
        used.setdefault(digest, set()).add(_work_behind(workspace, int(index)))
    rows = connection.execute(
        "SELECT view_artefact.sha256, view_edge.child FROM view_edge JOIN view_artefact ON view_artefact.idx = view_edge.parent "
        "WHERE view_edge.relation = 'data'"
    )
    for sha256, index in rows:
        digest = data_key(sha256, workspace.group_key)
        used.setdefault(digest, set()).add(_work_behind(workspace, int(index)))
    return used


def _work_behind(workspace: Workspace, index: int) -> int:
    """Return the run behind a model, so that a model and its run count once."""
    row = workspace.ledger.connection.execute(
        "SELECT run FROM view_artefact WHERE idx = ?", (index,)
    ).fetchone()
    return int(row[0]) if row and row[0] is not None else index


def _published(workspace: Workspace) -> dict[bytes, tuple[list[int], str]]:
    """Return the entries and the first name of all published data, by keyed digest."""
    found: dict[bytes, tuple[list[int], str]] = {}
    for index, name, sha256 in workspace.ledger.connection.execute(
        "SELECT idx, name, sha256 FROM view_artefact WHERE kind = 'data' ORDER BY idx"
    ):
        found.setdefault(data_key(sha256, workspace.group_key), ([], str(name)))[0].append(int(index))
    return found
