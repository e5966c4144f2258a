"""`lichen experiment`: a claim, put to the test on this machine."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, numbers, pass_invocation

if TYPE_CHECKING:
    from lichen.experiments.port import Experiment, Finding

__all__ = ["experiment_command"]

_STYLES = {"confirmed": "good", "not confirmed": "bad"}


@click.command(
    "experiment",
    epilog=examples(
        "lichen experiment list",
        "lichen experiment avoided-training --set requests=20 --set jobs=12 --set epochs=5 --set plain=5",
    ),
)
@click.argument("name")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=NUMBER",
    help="Change a setting of the experiment. Repeatable.",
)
@click.option(
    "--plot", metavar="FILE", help="Draw the curves into a .png, .svg or .pdf file; needs matplotlib."
)
@click.option("--keep", metavar="DIR", help="Work in this new directory, and leave it for a look.")
@json_option
@pass_invocation
def experiment_command(
    invocation: Invocation, /, name: str, *, settings: tuple[str, ...], plot: str | None, keep: str | None
) -> None:
    """Put a claim to the test, on this machine.

    NAME is an experiment, or `list` for the names of all. Its own joules are charged, and what it does not show is said.
    """
    from lichen.experiments.port import load_experiment, read_settings

    if name == "list":
        _list(invocation)
        return
    experiment = load_experiment(name)
    chosen = read_settings(experiment, numbers(settings, "--set", "requests=20"))
    if plot is not None:
        _check_plot(Path(plot))
    with _scratch(keep) as directory, invocation.output.progress(f"{name}:") as progress:
        finding = experiment.run(chosen, directory, progress)
    if plot is not None:
        from lichen.experiments.plot import write_plot

        write_plot(finding, experiment.CLAIM, Path(plot))
    if invocation.as_json:
        invocation.output.json(
            {"experiment": name, "claim": experiment.CLAIM, "settings": chosen, **finding.to_json()}
        )
    else:
        _tell(invocation, experiment, finding)


def _list(invocation: Invocation) -> None:
    from lichen.experiments.port import list_experiments, load_experiment

    rows = [(name, load_experiment(name)) for name in list_experiments()]
    if invocation.as_json:
        told = [
            {
                "name": name, "claim": each.CLAIM, "source": each.SOURCE,
                "settings": [dict(vars(setting)) for setting in each.SETTINGS],
            }
            for name, each in rows
        ]  # fmt: skip
        invocation.output.json(told)
        return
    for name, each in rows:
        invocation.output.line(f"{name}: {each.CLAIM}")
        invocation.output.pairs(
            [(f"  {setting.name}", f"{setting.default:g}: {setting.meaning}") for setting in each.SETTINGS]
        )


def _check_plot(path: Path) -> None:
    """Say before a long experiment that its plot could not be drawn."""
    from importlib.util import find_spec

    from lichen.errors import UsageError

    if path.suffix not in (".png", ".svg", ".pdf"):
        raise UsageError(f"--plot {path}: does not end in .png, .svg or .pdf")
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib", remedy="pip install 'lichen[experiments]'")


@contextlib.contextmanager
def _scratch(keep: str | None) -> Iterator[Path]:
    from lichen.errors import UsageError

    if keep is None:
        with tempfile.TemporaryDirectory(prefix="lichen-experiment-") as directory:
            yield Path(directory)
        return
    path = Path(keep)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(
            f"--keep {keep}: there is something already", remedy="Name a directory that is new or empty."
        )
    path.mkdir(parents=True, exist_ok=True)
    yield path


def _tell(invocation: Invocation, experiment: Experiment, finding: Finding) -> None:
    from lichen.cli.output import Painted
    from lichen.units import format_energy

    say = invocation.output.line
    say(f"claim: {experiment.CLAIM}")
    say(f"source: {experiment.SOURCE}")
    say(Painted(finding.verdict, _STYLES.get(finding.verdict, "warn")), f": {finding.summary}")
    invocation.output.table(finding.columns, [[_cell(value) for value in row] for row in finding.rows])
    for caveat in finding.caveats:
        say(f"it does not show: {caveat}")
    cost = format_energy(finding.energy_joules, finding.energy_relative_u95)
    say(f"the experiment itself took {cost}; seed {finding.seed}")


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
