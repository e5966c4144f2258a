"""Why a request would be answered or not: the first difference behind a miss, in words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lichen.runs.records.metrics import misses_target
from lichen.runs.request import SilentNarrator
from lichen.runs.reuse.asked import metrics_asked
from lichen.runs.reuse.lookup import uncompared_line
from lichen.runs.reuse.objections import objection_lines
from lichen.runs.session import ask, prepare

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lichen.runs.request import Estimate, RunRequest
    from lichen.runs.reuse.lookup import Answer, Nearest
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Explanation", "explain"]


@dataclass(frozen=True)
class Explanation:
    """What the ledger would do with a request, and why.

    Args:
        kind: ``hit``, ``offer``, ``same-work`` or ``miss``.
        lines: The reason, a sentence a line.
        answer: What the ledger said.
        nearest: Earlier work that is like it.
        estimate: What running it is likely to cost.
    """

    kind: str
    lines: tuple[str, ...]
    answer: Answer
    nearest: Sequence[Nearest]
    estimate: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        difference = self.answer.difference
        return {
            "kind": self.kind,
            "lines": list(self.lines),
            "record": self.answer.run.index if self.answer.run else None,
            "objections": [objection.to_json() for objection in self.answer.objections],
            "uncompared": self.answer.uncompared.index if self.answer.uncompared else None,
            "undeclared_outputs": list(self.answer.undeclared),
            "compared": self.answer.compared.index if self.answer.compared else None,
            "difference": difference.__dict__ if difference else None,
            "nearest": [
                {
                    "record": near.run.index,
                    "changed": {name: list(pair) for name, pair in near.changed.items()},
                }
                for near in self.nearest
            ],
            "estimate": self.estimate.__dict__ if self.estimate else None,
        }


def explain(workspace: Workspace, request: RunRequest) -> Explanation:
    """Ask the ledger about a request without running anything.

    Args:
        workspace: Ledger and store.
        request: The options as `lichen run` would get them.

    Raises:
        UsageError: The request makes no sense.
    """
    command, surroundings = prepare(workspace, request)
    answer, nearest, estimate = ask(workspace, request, command, surroundings)
    return Explanation(
        answer.kind, tuple(_lines(workspace, request, answer, nearest)), answer, nearest, estimate
    )


def _target_lines(workspace: Workspace, request: RunRequest, answer: Answer) -> list[str]:
    """Say whether an answer misses a target, as far as it can be told before its files are in place."""
    if answer.run is None or answer.manifest is None or not request.target:
        return []
    here = replace(request, metrics_file=None)
    metrics = metrics_asked(workspace, here, answer.manifest, answer.run.metrics, SilentNarrator())
    if (
        request.metrics_file is not None
        and not {name.rstrip("<") for name in request.target} <= metrics.keys()
    ):
        return []
    missed = misses_target(metrics, request.target)
    return [f"target missed: {missed}."] if missed else []


def _lines(
    workspace: Workspace, request: RunRequest, answer: Answer, nearest: Sequence[Nearest]
) -> list[str]:
    run = answer.run
    if answer.kind == "hit" and run is not None:
        own = (
            f" Its own {', '.join(answer.found_again)}, which it looked for before making, is as it left it; a script that goes on "
            "from there does so with --rerun."
            if answer.found_again
            else ""
        )
        return [
            f"entry {run.index} by {run.member} answers this request: every item it depended on is the same now.{own}",
            *(f"{line}." for line in objection_lines(answer)),
            *_target_lines(workspace, request, answer),
        ]
    if answer.kind == "offer" and run is not None:
        return [f"entry {run.index} by {run.member} is equal work, but {answer.note}."]
    if answer.kind == "same-work" and run is not None:
        return [
            f"entry {run.index} by {run.member} is the same work with another seed; --accept same-work takes it."
        ]
    lines = list(answer.warnings)
    if answer.compared is None and answer.uncompared is not None:
        return [*lines, f"{uncompared_line(answer.uncompared)}."]
    if answer.compared is None:
        lines.append("no run of this command line is on record.")
        if nearest:
            lines.append(f"nearest: entry {nearest[0].run.index}, which differs in {_changes(nearest[0])}.")
        return lines
    compared = answer.compared
    if answer.difference is not None:
        lines.append(f"since entry {compared.index}: {answer.difference.describe()}.")
    elif not compared.reusable:
        lines.append(
            f"entry {compared.index} is equal work, but it may not answer: {_reason(workspace, compared)}."
        )
    else:
        lines.append(f"entry {compared.index} is equal work, but {_unusable(workspace, compared.index)}.")
    return lines


def _unusable(workspace: Workspace, index: int) -> str:
    """Say why an entry that may answer, and from which nothing differs, does not."""
    from lichen.contracts.members import is_key_in_force
    from lichen.contracts.registry import is_withdrawn

    state_get = workspace.ledger.state_get
    if is_withdrawn(state_get, index):
        return "it was withdrawn"
    if not is_key_in_force(state_get, workspace.ledger.entry(index).key_id):
        return "its author's key no longer stands"
    return "something it depends on changed while it was compared: ask again"


def _changes(near: Nearest) -> str:
    if not near.changed and near.same_data and near.same_code:
        return "how its command line is spelled, which options are called seeds, or from where it was called"
    if not near.changed:
        return "its files or environment"
    return ", ".join(
        f"{name} ({before or 'not given'} there, {now or 'not given'} here)"
        for name, (before, now) in near.changed.items()
    )


def _reason(workspace: Workspace, compared: Any) -> str:
    """Return the sentence kept in the detail, else the code in the entry."""
    from lichen.errors import LichenError

    try:
        reasons = workspace.detail(workspace.manifest(compared.manifest_cid)).get("reasons")
    except LichenError:
        reasons = None
    if isinstance(reasons, list) and reasons and isinstance(reasons[0], dict):
        return str(reasons[0].get("text") or compared.reason)
    return str(compared.reason)
