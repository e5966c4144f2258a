"""How facts read in a line: energy, metrics, age, earlier work. Pure functions from values to text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lichen.units import format_energy

if TYPE_CHECKING:
    from lichen.runs.request import Estimate
    from lichen.runs.reuse.lookup import EarlierRun, Nearest

__all__ = [
    "PUBLICITY",
    "describe_age",
    "describe_earlier",
    "describe_entry",
    "describe_estimate",
    "describe_metrics",
    "describe_nearest",
    "describe_number",
    "describe_title",
    "plural",
]

PUBLICITY = (
    "it is public: whoever reads it reads the command lines, file names, outputs and printed text of its runs;"
    " what looks like a secret is masked, other secrets are not found"
)

_METRICS_SHOWN_MAX = 4
_CHANGES_SHOWN_MAX = 4
_TITLE_LENGTH_MAX = 48
_AGES = ((365 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3_600, "hour"), (60, "minute"))


def plural(count: int, noun: str) -> str:
    """Return ``1 output``, ``2 outputs``."""
    if count == 1:
        return f"{count} {noun}"
    changes = noun.endswith("y") and noun[-2] not in "aeiou"
    return f"{count:,} {noun[:-1]}ies" if changes else f"{count:,} {noun}s"


def describe_number(value: float) -> str:
    """Write a metric's value with four significant digits, whole numbers whole."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def describe_metrics(metrics: Mapping[str, float], shown_max: int = _METRICS_SHOWN_MAX) -> str:
    """Return ``accuracy 0.951, loss 0.1``; empty when there are none."""
    told = [f"{name} {describe_number(value)}" for name, value in list(metrics.items())[:shown_max]]
    if len(metrics) > shown_max:
        told.append(f"{len(metrics) - shown_max} more")
    return ", ".join(told)


def describe_age(time_unix_ms: int, now_unix_ms: int) -> str:
    """Return ``3 days ago``; a time in the future is called that."""
    seconds = (now_unix_ms - time_unix_ms) / 1000
    if seconds < -60:
        return "in the future, by its author's clock"
    for length, noun in _AGES:
        if seconds >= length:
            return f"{plural(int(seconds // length), noun)} ago"
    return "just now"


def describe_earlier(run: EarlierRun, now_unix_ms: int) -> str:
    """Return ``entry 12 by hospital-a (3 days ago): accuracy 0.951, 310 ± 90 J``."""
    facts = [describe_metrics(run.metrics), format_energy(run.energy_joules, run.relative_u95)]
    told = ", ".join(fact for fact in facts if fact)
    return f"entry {run.index} by {run.member} ({describe_age(run.time_unix_ms, now_unix_ms)}): {told}"


def describe_nearest(nearest: Nearest, *, is_new_command: bool = False) -> str:
    """Return ``same data and code, max_depth 6 instead of 4: accuracy 0.951, 310 J (entry 12, by hospital-a)``.

    Args:
        nearest: Earlier work.
        is_new_command: Whether no run of the very command line is on record, so that one without other parameters is spelled otherwise.
    """
    same = [name for name, holds in (("data", nearest.same_data), ("code", nearest.same_code)) if holds]
    other = [name for name, holds in (("data", nearest.same_data), ("code", nearest.same_code)) if not holds]
    told = [f"same {' and '.join(same)}"] if same else []
    if other:
        told.append(f"other {' and '.join(other)}")
    changes = [_describe_change(name, *pair) for name, pair in nearest.changed.items()]
    told += changes[:_CHANGES_SHOWN_MAX]
    if len(changes) > _CHANGES_SHOWN_MAX:
        told.append(f"{len(changes) - _CHANGES_SHOWN_MAX} more parameters differ")
    if is_new_command and not changes and not other:
        told.append(
            "with the command line spelled otherwise, other options called seeds, or called from elsewhere"
        )
    run = nearest.run
    facts = [describe_metrics(run.metrics), format_energy(run.energy_joules)]
    result = ", ".join(fact for fact in facts if fact)
    missed = ", missed its target" if run.status == "missed" else ""
    return f"{', '.join(told)}: {result}{missed} (entry {run.index}, by {run.member})"


def _describe_change(name: str, earlier: str | None, requested: str | None) -> str:
    if requested is None:
        return f"{name} {earlier}, which is not given here"
    if earlier is None:
        return f"{name} not given instead of {requested}"
    return f"{name} {earlier} instead of {requested}"


def describe_entry(told: Mapping[str, Any]) -> str:
    """Return ``model 'model.pkl' by ada``, for those who named an entry otherwise than by its index."""
    title = f" {describe_title(str(told['title']))!r}" if told.get("title") else ""
    return f"{told['kind']}{title} by {told['member']}"


def describe_estimate(estimate: Estimate) -> str:
    """Return ``likely 280 to 340 J, from 3 runs of this script``."""
    low, high = format_energy(estimate.low_joules), format_energy(estimate.high_joules)
    if low.rpartition(" ")[2] == high.rpartition(" ")[2]:
        low = low.rpartition(" ")[0]
    of = "this command" if estimate.basis == "same request" else "this script"
    amount = high if low == high.rpartition(" ")[0] else f"{low} to {high}"
    return f"likely {amount}, from {plural(estimate.run_count, 'run')} of {of}"


def describe_title(title: str, length_max: int = _TITLE_LENGTH_MAX) -> str:
    """Return a command line without what every one of the project has in it; too long, without its middle.

    Both ends of a command line tell something, so neither is cut off.
    """
    text = title.replace("{project}/", "").replace("{param}", "")
    if len(text) <= length_max:
        return text
    head = length_max * 2 // 3
    return f"{text[:head]}…{text[head + 1 - length_max :]}"
