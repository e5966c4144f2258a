"""Flags that the ledger's state counts against an answer, also those that a query table does not show.

Query tables are made from the entries and are quick to ask, but nothing proves them: a row that is lost hides a flag. The state counts
flags by the entry they are against, disputes by fingerprint and publications by digest, and every seal commits to it. So the
counts are compared; where the tables show less, the entries are read one by one, which takes longer and is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from lichen.contracts.registry import exact_fingerprint, tally_of
from lichen.encoding.statement import Statement
from lichen.errors import LichenError
from lichen.runs.queries.views import is_digest

if TYPE_CHECKING:
    from lichen.runs.reuse.lookup import EarlierRun
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["CONTENTS_MAX", "Missing", "flags_the_tables_hide"]

CONTENTS_MAX: Final = (
    64  # files of a run whose publications are asked for, those it made before those it read
)


@dataclass
class Missing:
    """What the query tables do not show.

    Args:
        flags: Entries of flags and disputes, with what they are against: ``run``, ``output``, ``data`` or ``work``.
        unread_count: How many of those counted were not among the entries either.
    """

    flags: list[tuple[int, str]] = field(default_factory=list)
    unread_count: int = 0


@dataclass
class _Wanted:
    """What is looked for among the entries: flags by what they are against, with what about it that is."""

    about: dict[int, str]
    contents: dict[bytes, str]
    exact: bytes
    shown: set[int]


def flags_the_tables_hide(workspace: Workspace, run: EarlierRun, contents: dict[bytes, str]) -> Missing:
    """Compare what the state counts with what the tables show, and read the entries where that is less.

    Args:
        workspace: The ledger.
        run: The run that answers.
        contents: What each of the files that it made or read is to it, ``output`` or ``data``, by digest.

    Returns:
        What is missing; usually nothing.
    """
    contents = dict(list(contents.items())[:CONTENTS_MAX])
    about, short_count = {run.index: "run"}, 0
    for digest, what in contents.items():
        tally = tally_of(workspace.ledger.state_get, "artefact", digest)
        if tally is None:
            continue
        published, last = _published(workspace, digest), int(tally[1])
        if last not in published:
            published.append(last)
            short_count += _subjects(workspace, last)[:1] == [digest]  # tables have the first subject of each
        about |= {index: what for index in published if index not in about}
    shown = _shown_against(workspace, about)
    per_target = Counter(target for _, target in shown)
    short_count += sum(
        max(0, _count(workspace, "flagged", target.to_bytes(8, "big")) - per_target[target])
        for target in about
    )
    disputes = _shown_disputes(workspace, run.exact)
    short_count += max(0, _count(workspace, "disputed", run.exact) - len(disputes))
    if not short_count:
        return Missing()
    wanted = _Wanted(about, contents, run.exact, {index for index, _ in shown} | disputes)
    return _read(workspace, wanted)


def _count(workspace: Workspace, family: str, name: bytes) -> int:
    tally = tally_of(workspace.ledger.state_get, family, name)
    return 0 if tally is None else int(tally[0])


def _subjects(workspace: Workspace, index: int) -> list[bytes]:
    statement = Statement.from_bytes(workspace.ledger.entry(index).payload)
    return [subject.sha256 for subject in statement.subjects]


def _published(workspace: Workspace, digest: bytes) -> list[int]:
    rows = workspace.ledger.connection.execute(
        "SELECT idx FROM view_artefact WHERE sha256 = ?1 AND kind != 'evaluation'", (digest,)
    )
    return [int(index) for (index,) in rows]


def _shown_against(workspace: Workspace, targets: Iterable[int]) -> list[tuple[int, int]]:
    sql = "SELECT idx, target FROM view_flag WHERE kind = 'flag' AND target = ?1"
    return [row for target in targets for row in workspace.ledger.connection.execute(sql, (target,))]


def _shown_disputes(workspace: Workspace, exact: bytes) -> set[int]:
    rows = workspace.ledger.connection.execute(
        "SELECT view_flag.idx FROM view_run JOIN view_flag ON view_flag.target = view_run.idx "  # noqa: S608 - constants
        f"WHERE {is_digest('view_run.exact', '?1')} AND view_flag.kind = 'dispute'",
        (exact,),
    )
    return {int(index) for (index,) in rows}


def _read(workspace: Workspace, wanted: _Wanted) -> Missing:
    """Read all entries for what the tables do not show; a publication stands before whatever is said against it."""
    missing = Missing()
    runs: set[int] = set()
    found = set(wanted.shown)
    for index, statement in _statements(workspace):
        said = statement.predicate
        if statement.kind in ("data", "model"):
            for subject in statement.subjects:
                if subject.sha256 in wanted.contents:
                    wanted.about.setdefault(index, wanted.contents[subject.sha256])
        elif statement.kind == "run" and exact_fingerprint(said["parts"]) == wanted.exact:
            runs.add(index)
        elif statement.kind == "flag" and said["of"] in wanted.about:
            found.add(index)
            if index not in wanted.shown:
                missing.flags.append((index, wanted.about[said["of"]]))
        elif statement.kind == "dispute" and said["of"] in runs:
            found.add(index)
            if index not in wanted.shown:
                missing.flags.append((index, "work"))
    counted = sum(_count(workspace, "flagged", target.to_bytes(8, "big")) for target in wanted.about)
    counted += _count(workspace, "disputed", wanted.exact)
    missing.unread_count = max(0, counted - len(found))
    return missing


def _statements(workspace: Workspace) -> Iterator[tuple[int, Statement]]:
    for index in range(workspace.ledger.size):
        try:
            yield index, Statement.from_bytes(workspace.ledger.entry(index).payload)
        except LichenError:
            continue  # a seal is none, and what is damaged is missed when it is counted
