"""Whether a declared metric can be true, as far as its name tells: an accuracy of 1.7 cannot.

Only what is declared is asked, since nobody measured it here, and a search by metric ranks it beside what runs reported. A name is
taken apart at its marks; what remains unknown is plausible.

Source: definitions of the measures, as in Powers 2011, "Evaluation: from precision, recall and F-measure to ROC, informedness,
markedness and correlation".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["implausible_metrics"]

_SHARES = frozenset(
    [
        "acc",
        "accuracy",
        "auc",
        "auprc",
        "auroc",
        "dice",
        "f1",
        "fscore",
        "iou",
        "jaccard",
        "precision",
        "recall",
        "roc",
        "sensitivity",
        "specificity",
    ]
)
_CORRELATIONS = frozenset(["kappa", "mcc", "pearson", "spearman"])
_AT_MOST_ONE = frozenset({"r2"})
_PERCENT = frozenset({"pct", "percent"})
_OTHER_UNITS = frozenset(
    ["ce", "count", "error", "log", "loss", "n", "num", "seconds", "size", "std", "time", "var"]
)


def implausible_metrics(metrics: Mapping[str, float]) -> list[str]:
    """Say of each metric whose value its name rules out what is wrong with it.

    Args:
        metrics: Value by name.

    Returns:
        A sentence for each; empty when nothing is known against them.
    """
    found = []
    for name, value in metrics.items():
        bounds = _bounds_of(name)
        if bounds is not None and not bounds[0] <= value <= bounds[1]:
            low, high = bounds
            between = f"at most {high:g}" if low == float("-inf") else f"between {low:g} and {high:g}"
            found.append(f"{name} is {value:g}, and can only be {between}")
    return found


def _bounds_of(name: str) -> tuple[float, float] | None:
    words = set(re.split(r"[\W_]+", name.lower()))
    if words & _OTHER_UNITS:
        return None
    scale = 100.0 if words & _PERCENT else 1.0
    if words & _CORRELATIONS:
        return -scale, scale
    if words & _AT_MOST_ONE:
        return float("-inf"), scale
    return (0.0, scale) if words & _SHARES else None
