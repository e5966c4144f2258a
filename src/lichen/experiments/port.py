"""What an experiment is, and where the known ones are."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from lichen.errors import NotFoundError, UsageError

__all__ = [
    "VERDICTS",
    "Curve",
    "Experiment",
    "Finding",
    "Setting",
    "list_experiments",
    "load_experiment",
    "read_settings",
]

VERDICTS = ("confirmed", "not confirmed", "depends")
ENTRY_POINT_GROUP = "lichen.experiments"
_OWN = {
    "avoided-training": "lichen.experiments.avoided_training",
    "trust-ladder": "lichen.experiments.trust_ladder",
}


@dataclass(frozen=True)
class Setting:
    """A number an experiment can be called with.

    Args:
        name: As on the command line.
        default: Its value when not given.
        minimum: Least value.
        maximum: Greatest value.
        meaning: What it is, with unit.
    """

    name: str
    default: float
    minimum: float
    maximum: float
    meaning: str


@dataclass(frozen=True)
class Curve:
    """A line of a plot.

    Args:
        label: For the legend.
        x: Abscissae.
        y: Ordinates.
        low: Lower ends of a 95 % band, or empty.
        high: Upper ends.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Finding:
    """What came out.

    Args:
        verdict: One of ``VERDICTS``.
        summary: One or two sentences with the numbers.
        columns: Names of the table's columns, units included.
        rows: The table.
        figures: Every number, by name, for JSON.
        curves: For the plot.
        x_label: Of the plot, with unit.
        y_label: Of the plot, with unit.
        energy_joules: What the experiment itself cost.
        energy_relative_u95: Uncertainty of that.
        seed: That it was drawn with.
        caveats: What it does not show.
    """

    verdict: str
    summary: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    figures: Mapping[str, Any]
    curves: Sequence[Curve]
    x_label: str
    y_label: str
    energy_joules: float
    energy_relative_u95: float
    seed: int
    caveats: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        return {
            "verdict": self.verdict, "summary": self.summary, "columns": list(self.columns),
            "rows": [list(row) for row in self.rows], "figures": dict(self.figures),
            "energy_joules": self.energy_joules, "energy_relative_u95": self.energy_relative_u95, "seed": self.seed,
            "caveats": list(self.caveats),
        }  # fmt: skip


class Experiment(Protocol):
    """One claim and the way to test it; a module with these names, or an object."""

    NAME: str
    CLAIM: str
    SOURCE: str
    SETTINGS: tuple[Setting, ...]

    def run(
        self, settings: Mapping[str, float], directory: Path, progress: Callable[[int, int], None]
    ) -> Finding:
        """Carry it out.

        Args:
            settings: A value for every setting.
            directory: Scratch directory, empty.
            progress: Told how far it is.
        """


def list_experiments() -> list[str]:
    """Return the names of all experiments, third parties' included."""
    return sorted({*_OWN, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))})


def load_experiment(name: str) -> Experiment:
    """Load an experiment.

    Raises:
        NotFoundError: There is none of that name.
    """
    module: Any
    if name in _OWN:
        module = importlib.import_module(_OWN[name])
        return module  # type: ignore[no-any-return]  # a module with the names of the port
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            return point.load()  # type: ignore[no-any-return]
    raise NotFoundError(f"no experiment {name!r}", remedy=f"Known: {', '.join(list_experiments())}.")


def read_settings(experiment: Experiment, given: Mapping[str, float]) -> dict[str, float]:
    """Complete and check the settings somebody gave.

    Raises:
        UsageError: An unknown setting, or a value outside its bounds.
    """
    known = {setting.name: setting for setting in experiment.SETTINGS}
    for name, value in given.items():
        if name not in known:
            raise UsageError(
                f"{experiment.NAME} has no setting {name!r}", remedy=f"It has: {', '.join(known)}."
            )
        setting = known[name]
        if not setting.minimum <= value <= setting.maximum:
            raise UsageError(
                f"{name}={value:g} is outside {setting.minimum:g} to {setting.maximum:g}",
                remedy=setting.meaning,
            )
    return {name: given.get(name, setting.default) for name, setting in known.items()}
