"""Plots of findings, by matplotlib (extra ``experiments``)."""

from __future__ import annotations

from pathlib import Path

from lichen.errors import UsageError
from lichen.experiments.port import Finding

__all__ = ["write_plot"]


def write_plot(finding: Finding, title: str, path: Path) -> None:
    """Draw the curves of a finding.

    Args:
        finding: With at least one curve.
        title: Heading.
        path: Ends in ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        UsageError: matplotlib is not installed, or the ending is none of these.
    """
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{path} does not end in .png, .svg or .pdf")
    try:
        import matplotlib as mpl

        mpl.use("Agg")
        from matplotlib import pyplot
    except ImportError as error:
        raise UsageError("plots need matplotlib", remedy="pip install 'lichen[experiments]'") from error
    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for curve in finding.curves:
        (line,) = axes.plot(curve.x, curve.y, label=curve.label)
        if curve.low and curve.high:
            axes.fill_between(curve.x, curve.low, curve.high, alpha=0.2, color=line.get_color())
    axes.axhline(0, color="0.4", linewidth=0.8)
    axes.set(title=title, xlabel=finding.x_label, ylabel=finding.y_label)
    axes.set_yscale("symlog", linthresh=1)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
