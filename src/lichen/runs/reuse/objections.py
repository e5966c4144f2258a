"""What is on record against an answer: flags against the run, what it made or what it read, and disputes about the work.

Objections are told with every hit. One's own result answers all the same, since doing the same work again would give the same result;
a result of somebody else is only offered when oneself or a trusted author flagged it, or what it made, with high severity.
See decision 0015.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from lichen.contracts.registry import is_withdrawn
from lichen.encoding.base import b64u_decode
from lichen.encoding.foreign_json import read_json
from lichen.encoding.statement import Statement
from lichen.errors import LichenError
from lichen.runs.queries.views import is_digest
from lichen.runs.reuse.counted_flags import CONTENTS_MAX, Missing, flags_the_tables_hide

if TYPE_CHECKING:
    from lichen.runs.reuse.lookup import Answer, EarlierRun, ReusePolicy
    from lichen.runs.work.manifest import Manifest
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Objection", "objection_lines", "objections_to", "weigh_objections"]

_COMPARED_MAX = 4096  # newest flags whose targets are compared with what a run made and read
_TOLD_MAX = 3
_RUNS_COMPARED_MAX = 64  # flagged runs whose outputs are compared


@dataclass(frozen=True)
class Objection:
    """A flag or dispute that concerns an answer.

    Args:
        entry: Index of the flag or dispute.
        of: Index of the entry it is against.
        kind: ``flag`` or ``dispute``.
        member: Its author.
        severity: ``low``, ``medium`` or ``high``; None of a dispute.
        about: ``run``, ``output``, ``data`` or ``work``.
        text: What it says; empty when that is no longer at hand.
    """

    entry: int
    of: int
    kind: str
    member: str
    severity: str | None
    about: str
    text: str

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """Return ``flagged (high) by ben in entry 31, against its output (entry 30): wrong for the young``."""
        if self.kind == "dispute":
            return f"disputed by {self.member} in entry {self.entry}: equal work made other outputs"
        whose = {"run": "", "output": f", against its output (entry {self.of})"}.get(
            self.about, f", against data it read (entry {self.of})"
        )
        told = f": {self.text}" if self.text else ""
        return f"flagged ({self.severity}) by {self.member} in entry {self.entry}{whose}{told}"


def weigh_objections(workspace: Workspace, answer: Answer, policy: ReusePolicy) -> None:
    """Find what is on record against a hit, and make it an offer where that weighs enough.

    Args:
        workspace: Ledger and store.
        answer: A hit; its ``objections`` are set, and ``kind``, ``note`` and ``takes`` when it becomes an offer.
        policy: Whose flags weigh, and what the user accepts.
    """
    assert answer.run is not None
    assert answer.manifest is not None
    missing = flags_the_tables_hide(workspace, answer.run, _contents(answer.manifest))
    answer.objections = objections_to(workspace, answer.run, answer.manifest, missing)
    if missing.flags or missing.unread_count:
        answer.warnings.append(_hidden_line(workspace, answer.run, missing))
    if workspace.is_own(answer.run.index) or "flagged" in policy.accept:
        return
    if missing.unread_count:
        note = f"{missing.unread_count} flags or disputes about it are counted that no entry shows; `lichen audit` says more"
        answer.kind, answer.note, answer.takes = "offer", note, "flagged"
        return
    for objection in answer.objections:
        is_grave = objection.severity == "high" and objection.about in ("run", "output")
        if is_grave and policy.believes(workspace, objection.entry, objection.member):
            answer.kind, answer.note, answer.takes = "offer", f"it is {objection.describe()}", "flagged"
            return


def _hidden_line(workspace: Workspace, run: EarlierRun, missing: Missing) -> str:
    """Say that the query tables are damaged, and make them again."""
    try:
        workspace.ledger.rebuild_views(every=True)
        then = "they were made again from the entries"
    except LichenError as error:
        then = f"they could not be made again: {error.message}"
    return (
        f"query tables showed {len(missing.flags) + missing.unread_count} fewer flags or disputes about entry {run.index} than the "
        f"ledger's state counts; {then}"
    )


def _contents(manifest: Manifest) -> dict[bytes, str]:
    """Return what each file is to the run, those it made first."""
    made = {output.sha256: "output" for output in manifest.outputs}
    read = {b64u_decode(text): "data" for text in itertools.islice(manifest.data.values(), CONTENTS_MAX)}
    return {**made, **{digest: about for digest, about in read.items() if digest not in made}}


def objections_to(
    workspace: Workspace, run: EarlierRun, manifest: Manifest, missing: Missing | None = None
) -> tuple[Objection, ...]:
    """Return what is on record against a run, and not withdrawn: the gravest first, then the newest.

    Query tables say where to look; what an objection is, its entry says.

    Args:
        workspace: Ledger and store.
        run: The run.
        manifest: Its manifest, which names what it made and read.
        missing: What the tables do not show.
    """
    found: dict[int, Objection] = {}
    shown = (*_against_the_run(workspace, run), *_against_contents(workspace, manifest))
    hidden = () if missing is None else missing.flags
    for index, about in (*((row[0], about) for row, about in shown), *hidden):
        if index in found or is_withdrawn(workspace.ledger.state_get, index):
            continue
        objection = _as_its_entry_says(workspace, index, about)
        if objection is not None:
            found[index] = objection
    order = {"high": 0, "medium": 1, "low": 2}
    return tuple(
        sorted(found.values(), key=lambda each: (order.get(each.severity or "medium", 1), -each.entry))
    )


def _as_its_entry_says(workspace: Workspace, index: int, about: str) -> Objection | None:
    """Read a flag or dispute from its entry; None when it is neither, or a dispute one side of which was withdrawn."""
    statement = Statement.from_bytes(workspace.ledger.entry(index).payload)
    said = statement.predicate
    if statement.kind == "dispute":
        sides = (int(said["of"]), int(said["against"]))
        if any(is_withdrawn(workspace.ledger.state_get, side) for side in sides):
            return None
    elif statement.kind != "flag":
        return None
    severity = said.get("severity", "medium") if statement.kind == "flag" else None
    return Objection(
        index,
        int(said["of"]),
        statement.kind,
        str(said["member"]),
        severity,
        about,
        _text_of(workspace, said),
    )


def objection_lines(answer: Answer) -> list[str]:
    """Say what is on record against an answer, the gravest first."""
    if answer.run is None:
        return []
    lines = [
        f"entry {answer.run.index} is {objection.describe()}" for objection in answer.objections[:_TOLD_MAX]
    ]
    if answer.disputed and not any(objection.kind == "dispute" for objection in answer.objections):
        lines.append(f"equal work with other outputs than those of entry {answer.run.index} is on record")
    if len(answer.objections) > _TOLD_MAX:
        lines.append(f"{len(answer.objections) - _TOLD_MAX} more such objections: lichen log --kind flag")
    return lines


_Row = tuple[int, int]
_ROW = "view_flag.idx, view_flag.target"


def _against_the_run(workspace: Workspace, run: EarlierRun) -> Iterator[tuple[_Row, str]]:
    connection = workspace.ledger.connection
    for row in connection.execute(
        f"SELECT {_ROW} FROM view_flag WHERE kind = 'flag' AND target = ?1",  # noqa: S608 - constants
        (run.index,),
    ):
        yield row, "run"
    for row in connection.execute(
        f"SELECT {_ROW} FROM view_artefact JOIN view_flag ON view_flag.target = view_artefact.idx "  # noqa: S608 - constants
        "WHERE view_artefact.run = ?1 AND view_flag.kind = 'flag'",
        (run.index,),
    ):
        yield row, "output"
    for row in connection.execute(
        f"SELECT {_ROW} FROM view_run JOIN view_flag ON view_flag.target = view_run.idx "  # noqa: S608 - constants
        f"WHERE {is_digest('view_run.exact', '?1')} AND view_flag.kind = 'dispute'",
        (run.exact,),
    ):
        yield row, "work"


def _against_contents(workspace: Workspace, manifest: Manifest) -> Iterator[tuple[_Row, str]]:
    """Flags against entries that published or made the very bytes that the run made or read."""
    connection = workspace.ledger.connection
    flags = connection.execute(
        f"SELECT {_ROW} FROM view_flag WHERE kind = 'flag' ORDER BY idx DESC LIMIT ?1",  # noqa: S608 - constants
        (_COMPARED_MAX,),
    ).fetchall()
    if not flags:
        return
    made = {output.sha256 for output in manifest.outputs}
    read = {b64u_decode(text) for text in manifest.data.values()} if manifest.data else set()
    run_count = 0
    for row in flags:
        contents = _published(workspace, row[1])
        if not contents and run_count < _RUNS_COMPARED_MAX:
            run_count += 1
            contents = _made(workspace, row[1])
        if not made.isdisjoint(contents):
            yield row, "output"
        elif not read.isdisjoint(contents):
            yield row, "data"


def _published(workspace: Workspace, index: int) -> set[bytes]:
    """Return the digest of what an entry published; empty when it is no data and no model."""
    rows = workspace.ledger.connection.execute(
        "SELECT sha256 FROM view_artefact WHERE idx = ?1 AND kind != 'evaluation'",
        (index,),
    ).fetchall()
    return {row[0] for row in rows}


def _made(workspace: Workspace, index: int) -> set[bytes]:
    """Return the digests of what a run made; empty when the entry is none, or its manifest is not at hand."""
    row = workspace.ledger.connection.execute(
        "SELECT manifest FROM view_run WHERE idx = ?1", (index,)
    ).fetchone()
    try:
        return {output.sha256 for output in workspace.manifest(row[0]).outputs} if row else set()
    except LichenError:
        return set()


def _text_of(workspace: Workspace, said: Mapping[str, Any]) -> str:
    if "error" in said:
        return str(said["error"])
    try:
        detail = read_json(workspace.get_private(str(said["detail"])))
        return str(detail["error"])[:500]
    except (LichenError, ValueError, KeyError, TypeError):
        return ""
