"""Ask the ledger before working: has this been done, by whom, at what cost, with what result?

Two steps, as ccache's direct mode. The request (canonical command, working directory) leads to the *shapes* of what such requests
read before; each shape is looked at as it is now, which gives the parts and the fingerprint; the fingerprint leads to
the entries. An entry answers only if its receipt verifies under the ledger's checkpoint, its author may be believed,
and nothing the run found absent is now something else.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lichen.contracts.registry import exact_fingerprint, is_withdrawn, same_work_fingerprint
from lichen.encoding.statement import Statement
from lichen.errors import LichenError
from lichen.runs.queries.views import is_digest
from lichen.runs.reuse.trust import Trusted
from lichen.runs.work.collector import without_collector
from lichen.runs.work.differences import Difference, differences, gap_between
from lichen.runs.work.manifest import Manifest, command_key, family_key
from lichen.runs.work.surroundings import STDIN, Surroundings
from lichen.runs.workspace.project import PROJECT_MARK

if TYPE_CHECKING:
    import sqlite3

    from lichen.runs.reuse.objections import Objection
    from lichen.runs.work.command import Command
    from lichen.runs.workspace.workspace import Workspace

__all__ = [
    "Answer",
    "Asked",
    "EarlierRun",
    "Nearest",
    "ReusePolicy",
    "earlier_run",
    "look_up",
    "nearest_runs",
    "uncompared_line",
]

_SHAPES_MAX = 256
_CANDIDATES_MAX = 64
_COMPARED_MAX = 16
_COMPARED_ITEMS_MAX = 100_000  # of all manifests together that are compared to explain a miss
_HASHED_AT_ONCE = 256
_STRANGER_BYTES_MAX = 2**28  # (= 268435456) bytes hashed to compare with an author who is not trusted
_COLUMNS = (
    "idx, member, status, reusable, reason, time_unix_ms, exact, same_work, energy_joules, relative_u95, "
    "duration_seconds, method, boundary, exit_status, manifest, metrics"
)


@dataclass(frozen=True)
class EarlierRun:
    """A recorded run, as the entry tells it.

    Args:
        index: Place in the ledger.
        member: Author.
        status: ``trained``, ``missed``, ``failed`` or ``interrupted``.
        reusable: Whether it may answer requests.
        reason: Code why not.
        time_unix_ms: Claimed time, milliseconds since 1970.
        exact: Fingerprint, 32 bytes.
        same_work: Fingerprint without the seed, 32 bytes.
        energy_joules: What it cost.
        relative_u95: Relative uncertainty of that, 95 %.
        duration_seconds: Wall time.
        method: How the energy was measured.
        boundary: What it covers.
        exit_status: Of the command.
        manifest_cid: CID text of its manifest.
        metrics: Value by name.
    """

    index: int
    member: str
    status: str
    reusable: bool
    reason: str | None
    time_unix_ms: int
    exact: bytes
    same_work: bytes
    energy_joules: float
    relative_u95: float
    duration_seconds: float
    method: str
    boundary: str
    exit_status: int | None
    manifest_cid: str
    metrics: Mapping[str, float]

    @classmethod
    def from_row(cls, row: Sequence[Any]) -> EarlierRun:
        """Read a row of ``view_run``."""
        return cls(
            int(row[0]), row[1], row[2], bool(row[3]), row[4], int(row[5]), row[6], row[7], row[8], row[9], row[10], row[11],
            row[12], row[13], row[14], json.loads(row[15]),
        )  # fmt: skip

    @classmethod
    def from_record(cls, index: int, said: Mapping[str, Any]) -> EarlierRun:
        """Read the predicate of a run's entry; what comes out equals what a true row of ``view_run`` gives."""
        parts, energy = said["parts"], said["energy"]
        return cls(
            index, said["member"], said["status"], bool(said["reusable"]), said.get("reason"), int(said["time_unix_ms"]),
            exact_fingerprint(parts), same_work_fingerprint(parts), float(energy["joules"]), float(energy["u95"]),
            float(energy["seconds"]), energy["method"], energy["boundary"], said.get("exit_status"), said["manifest"],
            dict(said["metrics"]),
        )  # fmt: skip


@dataclass(frozen=True)
class ReusePolicy:
    """Whose results are taken without asking.

    Args:
        trust: Other authors whose results are taken; one's own always are.
        agree: How many trusted authors must have equal outputs before one of them is taken.
        accept: Extra classes the user accepts: ``same-work``, ``disputed`` and ``flagged``.
    """

    trust: Trusted = field(default_factory=Trusted)
    agree: int = 1
    accept: frozenset[str] = frozenset()

    def believes(self, workspace: Workspace, index: int, member: str) -> bool:
        """Say whether what an author recorded may be taken: one's own, and that of those who are trusted.

        Args:
            workspace: The ledger, and one's keys.
            index: Of the entry.
            member: Whom it names as its author.
        """
        if member in self.trust.members or workspace.is_own(index):
            return True
        return bool(self.trust.key_ids) and workspace.ledger.entry(index).key_id in self.trust.key_ids


@dataclass(frozen=True)
class Nearest:
    """Earlier work that is like the request.

    Args:
        run: The earlier run.
        changed: Parameters that differ: name to (earlier, requested); None where one side lacks it.
        same_data: Whether it read the same data, as far as its manifest tells now.
        same_code: Likewise for code.
    """

    run: EarlierRun
    changed: Mapping[str, tuple[str | None, str | None]]
    same_data: bool
    same_code: bool


@dataclass(frozen=True)
class Asked:
    """What was asked for because runs of this request read it before, as it is now.

    Args:
        latest: Newest run that read the same things.
        parts: Parts of the fingerprint.
        gap: What the request declares, or no longer ignores, and such a run does not answer for; None when there is nothing.
    """

    latest: int
    parts: Mapping[str, str]
    gap: Difference | None


@dataclass
class Answer:
    """What the ledger said.

    Args:
        kind: ``hit`` (may be restored), ``offer`` (equal work by an author who is not trusted), ``same-work`` (equal but
            for the seed) or ``miss``.
        run: The run it is about; None for a miss.
        manifest: Its manifest.
        note: Why an offer is not a hit.
        difference: On a miss, the first difference from the recorded run of the same request that is most like it now.
        compared: The run that difference is from.
        uncompared: On a miss, the newest run of the same request by an author who is not trusted, whose inputs were not looked at
            for what that would cost.
        parts: Parts computed now for the most recent shape; None when the request is new.
        level: ``exact`` or ``same-work``.
        disputed: Whether equal work with different outputs is on record.
        objections: Flags and disputes that concern a hit.
        takes: What to accept for an offer to be taken, where that is not the trust in its author.
        is_strangers: Whether it is an offer because its author is not trusted.
        found_again: Output files of a hit that its run looked for before it made them, and that are there as it left them.
        undeclared: Paths of outputs of somebody else's run that are not among those declared, for which it is only offered.
        asked: Everything asked for until this answer was found.
    """

    kind: str
    run: EarlierRun | None = None
    manifest: Manifest | None = None
    note: str = ""
    difference: Difference | None = None
    compared: EarlierRun | None = None
    uncompared: EarlierRun | None = None
    parts: Mapping[str, str] | None = None
    level: str = "exact"
    disputed: bool = False
    objections: Sequence[Objection] = ()
    takes: str = ""
    is_strangers: bool = False
    found_again: Sequence[str] = ()
    undeclared: Sequence[str] = ()
    asked: Sequence[Asked] = ()
    warnings: list[str] = field(default_factory=list)


def uncompared_line(run: EarlierRun) -> str:
    """Say that somebody else ran this, and why it was not looked at further."""
    return (
        f"entry {run.index} by {run.member} is of this command line and was not compared: its author is not among those you trust, "
        "and it read files outside the project, or many of them; to compare it: lichen config add reuse.trust "
        f"{shlex.quote(run.member)}"
    )


def earlier_run(connection: sqlite3.Connection, index: int) -> EarlierRun | None:
    """Return the run at an index, or None when that entry is no run."""
    row = connection.execute(f"SELECT {_COLUMNS} FROM view_run WHERE idx = ?", (index,)).fetchone()  # noqa: S608 - constant
    return EarlierRun.from_row(row) if row else None


def runs_by(connection: sqlite3.Connection, column: str, fingerprint: bytes, limit: int) -> list[EarlierRun]:
    """Return the newest runs with a fingerprint.

    Args:
        connection: To the ledger's views.
        column: ``exact``, ``same_work``, ``command`` or ``family``.
        fingerprint: 32 bytes.
        limit: Most runs wanted.
    """
    assert column in ("exact", "same_work", "command", "family")
    condition = "family = ?1" if column == "family" else is_digest(column, "?1")
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM view_run WHERE {condition} ORDER BY idx DESC LIMIT ?2",  # noqa: S608 - asserted above
        (fingerprint, limit),
    )
    return [EarlierRun.from_row(row) for row in rows]


def look_up(
    workspace: Workspace, command: Command, surroundings: Surroundings, policy: ReusePolicy
) -> Answer:
    """Ask whether a request has been answered before.

    Args:
        workspace: Ledger, store and caches.
        command: The request.
        surroundings: What is there now.
        policy: Whose answers count.

    Returns:
        The best answer: a hit before an offer before same-work before a miss.
    """
    with without_collector():
        return _look_up(workspace, command, surroundings, policy)


def _look_up(
    workspace: Workspace, command: Command, surroundings: Surroundings, policy: ReusePolicy
) -> Answer:
    key = command_key(command.canonical, surroundings.project.name_of(command.cwd), workspace.group_key)
    best, asked = Answer("miss"), list[Asked]()
    shapes = workspace.index.shapes(key, _SHAPES_MAX)
    believed = {latest: _is_believed(workspace, latest, policy) for latest, _ in shapes}
    for latest, cid in sorted(shapes, key=lambda shape: not believed[shape[0]]):
        try:
            shape = workspace.manifest(cid)
        except LichenError as error:
            best.warnings.append(f"the manifest of entry {latest} cannot be read: {error.message}")
            continue
        if not believed[latest] and not _is_affordable(surroundings, shape):
            best.uncompared = best.uncompared or earlier_run(workspace.ledger.connection, latest)
            continue
        now = replace(surroundings.redo(shape), seeds=dict(command.seeds)).sharing(shape)
        parts = now.parts(workspace.group_key)
        asked.append(Asked(latest, parts, gap_between(surroundings, shape)))
        answer = _answer_for(workspace, surroundings, parts, policy) if asked[-1].gap is None else None
        if answer is not None and _RANK[answer.kind] > _RANK[best.kind]:
            answer.parts = parts
            answer.warnings = best.warnings + answer.warnings
            best = answer
        best.asked = asked
        if best.kind == "hit":
            return best
        best.parts = best.parts or parts
    if best.kind == "miss" and best.parts is not None:
        _explain_miss(workspace, command, surroundings, key, best)
    return best


def _is_believed(workspace: Workspace, index: int, policy: ReusePolicy) -> bool:
    """Say whether the author of an entry is one whose answers may be taken."""
    statement = Statement.from_bytes(workspace.ledger.entry(index).payload)
    return policy.believes(workspace, index, str(statement.predicate["member"]))


def _is_affordable(surroundings: Surroundings, manifest: Manifest) -> bool:
    """Say whether a stranger's manifest may be compared: it can lead to an offer at best, so it must not cost much.

    Only files of the project are looked at, and not more of them than a usual project has.
    """
    total = 0
    for name in (*manifest.code, *manifest.data, *manifest.executables):
        if not name.startswith(PROJECT_MARK + "/"):
            if name in manifest.executables or name == STDIN:
                continue
            return False
        presence = surroundings.presence_of(name)
        total += int(presence) if presence.isdigit() else 0
    return total <= _STRANGER_BYTES_MAX


def _explain_miss(
    workspace: Workspace, command: Command, surroundings: Surroundings, key: bytes, answer: Answer
) -> None:
    """Find the recorded run of this request from which the fewest items differ now, and the first of them."""
    fewest, items = None, 0
    for run in runs_by(workspace.ledger.connection, "command", key, _COMPARED_MAX):
        try:
            manifest = workspace.manifest(run.manifest_cid)
        except LichenError:
            continue
        items += len(manifest.code) + len(manifest.data)
        if fewest is not None and items > _COMPARED_ITEMS_MAX:
            return
        now = replace(surroundings.redo(manifest), seeds=dict(command.seeds))
        found = list(differences(manifest, now))
        if (gap := gap_between(surroundings, manifest)) is not None:
            found.append(gap)
        if not found and (left := surroundings.contradicts_own_outputs(manifest)) is not None:
            found = [Difference("outputs", left, None, "there")]
        if fewest is None or len(found) < fewest:
            fewest = len(found)
            answer.difference = found[0] if found else None
            answer.compared = run


_RANK = {"miss": 0, "same-work": 1, "offer": 2, "hit": 3}


def _answer_for(
    workspace: Workspace, surroundings: Surroundings, parts: Mapping[str, str], policy: ReusePolicy
) -> Answer | None:
    connection = workspace.ledger.connection
    exact, same_work = exact_fingerprint(parts), same_work_fingerprint(parts)
    equal = runs_by(connection, "exact", exact, _CANDIDATES_MAX)
    for run, manifest in _with_manifests(workspace, [run for run in equal if workspace.is_own(run.index)]):
        if _stands(surroundings, manifest):
            return Answer("hit", run, manifest, disputed=_is_disputed(workspace, equal))
    usable = [
        (run, manifest)
        for run, manifest in _with_manifests(
            workspace, [run for run in equal if not workspace.is_own(run.index)]
        )
        if _stands(surroundings, manifest)
    ]
    if usable:
        return _choose(workspace, usable, policy)
    for run, manifest in _with_manifests(
        workspace, runs_by(connection, "same_work", same_work, _CANDIDATES_MAX)
    ):
        if _stands(surroundings, manifest):
            accepted = "same-work" in policy.accept and policy.believes(workspace, run.index, run.member)
            return Answer(
                "hit" if accepted else "same-work",
                run,
                manifest,
                note="equal but for the seed",
                level="same-work",
            )
    return None


def _stands(surroundings: Surroundings, manifest: Manifest) -> bool:
    """Say whether a run of equal work may answer: it knows of all that is declared, and found nothing absent that is there."""
    return (
        gap_between(surroundings, manifest) is None and surroundings.contradicts_own_outputs(manifest) is None
    )


def _with_manifests(
    workspace: Workspace, runs: Sequence[EarlierRun]
) -> Iterator[tuple[EarlierRun, Manifest]]:
    """Yield usable runs whose manifest is at hand; each manifest is read when it is its turn."""
    for run in runs:
        if not _is_usable(workspace, run):
            continue
        try:
            yield run, workspace.manifest(run.manifest_cid)
        except LichenError:
            continue


def _is_disputed(workspace: Workspace, runs: Sequence[EarlierRun]) -> bool:
    """Say whether usable runs made different outputs, as their signed entries name them."""
    made = set()
    for run in runs:
        if _is_usable(workspace, run):
            subjects = Statement.from_bytes(workspace.ledger.entry(run.index).payload).subjects
            made.add(tuple(subject.sha256 for subject in subjects if subject.name != "manifest"))
    return len(made) > 1


def _is_usable(workspace: Workspace, run: EarlierRun) -> bool:
    """Say whether an entry may answer: reusable, not withdrawn, by a key still good.

    Withdrawals and keys are asked of the ledger's state, which is proven, and not of a query table, which is not.
    """
    if not run.reusable or is_withdrawn(workspace.ledger.state_get, run.index):
        return False
    return _author_stands(workspace, run.index)


def _author_stands(workspace: Workspace, index: int) -> bool:
    """Say whether the key that signed an entry has not been revoked or compromised since."""
    from lichen.contracts.members import is_key_in_force

    return is_key_in_force(workspace.ledger.state_get, workspace.ledger.entry(index).key_id)


def _outcome(manifest: Manifest) -> tuple[tuple[str, bytes], ...]:
    """Return what a run made, for comparing: names and digests."""
    return tuple(sorted((output.name, output.sha256) for output in manifest.outputs))


def _choose(
    workspace: Workspace, usable: Sequence[tuple[EarlierRun, Manifest]], policy: ReusePolicy
) -> Answer:
    """Apply the reuse policy to runs of equal work by others."""
    disputed = len({_outcome(manifest) for _, manifest in usable}) > 1
    trusted = [pair for pair in usable if policy.believes(workspace, pair[0].index, pair[0].member)]
    run, manifest = (trusted or usable)[0]
    if not trusted:
        note = (
            f"it says {run.member}, as you do, but no key of yours signed it"
            if run.member == workspace.member
            else f"its author {run.member} is not among those you trust"
        )
        return Answer("offer", run, manifest, note=note, disputed=disputed, is_strangers=True)
    if disputed and "disputed" not in policy.accept:
        return Answer(
            "offer",
            run,
            manifest,
            note="equal work with different outputs is on record",
            disputed=True,
            takes="disputed",
        )
    agreeing = {other.member for other, theirs in trusted if _outcome(theirs) == _outcome(manifest)}
    if len(agreeing) < policy.agree:
        note = f"{len(agreeing)} of the {policy.agree} authors your settings ask for agree"
        return Answer("offer", run, manifest, note=note, disputed=disputed)
    return Answer("hit", run, manifest, disputed=disputed)


def nearest_runs(
    workspace: Workspace, command: Command, surroundings: Surroundings, limit: int = 3
) -> list[Nearest]:
    """Find earlier runs of the same script with the fewest different parameters.

    Args:
        workspace: Ledger, store and caches.
        command: The request.
        surroundings: What is there now.
        limit: Most runs wanted.

    Returns:
        Nearest first; finished runs only, the newest of each parameter set.
    """
    known = workspace.index.family(family_key(command.family, workspace.group_key), 512)
    wanted = {**command.parameters, **command.seeds}
    ranked, seen = [], set()
    for candidate in known:
        identity = tuple(sorted(candidate.parameters.items()))
        if identity in seen:
            continue
        run = earlier_run(workspace.ledger.connection, candidate.index)
        if run is None or run.status in ("failed", "interrupted"):
            continue
        seen.add(identity)
        names = sorted(wanted.keys() | candidate.parameters.keys())
        changed = {
            name: (candidate.parameters.get(name), wanted.get(name))
            for name in names
            if candidate.parameters.get(name) != wanted.get(name) and name not in command.seeds
        }
        ranked.append((len(changed), _distance(changed), -candidate.index, run, changed))
    ranked.sort(key=lambda item: item[:3])
    return [_compare(workspace, surroundings, run, changed) for *_, run, changed in ranked[:limit]]


def _distance(changed: Mapping[str, tuple[str | None, str | None]]) -> float:
    """Return how far apart parameters are: numbers by their relative difference, anything else by 1."""
    total = 0.0
    for before, now in changed.values():
        try:
            one, other = float(before or ""), float(now or "")
            total += abs(one - other) / max(abs(one), abs(other), 1e-12)
        except ValueError:
            total += 1.0
    return total


def _compare(
    workspace: Workspace,
    surroundings: Surroundings,
    run: EarlierRun,
    changed: Mapping[str, tuple[str | None, str | None]],
) -> Nearest:
    try:
        before = workspace.manifest(run.manifest_cid)
    except LichenError:
        return Nearest(run, changed, same_data=False, same_code=False)
    return Nearest(
        run,
        changed,
        same_data=_holds(surroundings, before.data),
        same_code=_holds(surroundings, before.code),
    )


def _holds(surroundings: Surroundings, before: Mapping[str, str]) -> bool:
    """Say whether files are as they were; those after a difference are not hashed."""
    names = list(before)
    for start in range(0, len(names), _HASHED_AT_ONCE):
        part = names[start : start + _HASHED_AT_ONCE]
        if surroundings.digests_of(part) != {name: before[name] for name in part}:
            return False
    return True
