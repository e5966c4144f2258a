"""The registry of experiments and their settings."""

from pathlib import Path

import pytest

from lichen.errors import NotFoundError, UsageError
from lichen.experiments.plot import write_plot
from lichen.experiments.port import VERDICTS, Curve, Finding, list_experiments, load_experiment, read_settings


def test_every_experiment_has_the_names_of_the_port() -> None:
    for name in list_experiments():
        experiment = load_experiment(name)
        assert name == experiment.NAME
        assert experiment.CLAIM.endswith(".")
        assert experiment.SOURCE
        assert callable(experiment.run)
        for setting in experiment.SETTINGS:
            assert setting.minimum <= setting.default <= setting.maximum


def test_unknown_experiment_names_the_known() -> None:
    with pytest.raises(NotFoundError, match="avoided-training"):
        load_experiment("perpetual-motion")


def test_settings_are_completed_and_bounded() -> None:
    experiment = load_experiment("avoided-training")
    assert read_settings(experiment, {"seed": 5})["seed"] == 5
    assert read_settings(experiment, {})["requests"] == 100
    with pytest.raises(UsageError, match="no setting"):
        read_settings(experiment, {"sead": 5})
    with pytest.raises(UsageError, match="outside"):
        read_settings(experiment, {"requests": 1})


def test_verdicts_are_the_three_words_of_the_report_reader() -> None:
    assert set(VERDICTS) == {"confirmed", "not confirmed", "depends"}


def test_a_finding_is_drawn_as_a_picture(tmp_path: Path) -> None:
    finding = Finding(
        verdict="depends", summary="", columns=("x",), rows=((1,),), figures={},
        curves=(Curve("net", (0.0, 0.5, 1.0), (-1.0, 0.0, 1.0), (-2.0, -1.0, 0.0), (0.0, 1.0, 2.0)),),
        x_label="share", y_label="joules", energy_joules=1.0, energy_relative_u95=0.5, seed=1,
    )  # fmt: skip
    for name, sign in (("plot.png", b"\x89PNG"), ("plot.svg", b"<?xml"), ("plot.pdf", b"%PDF")):
        write_plot(finding, "A title", tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(sign)
    with pytest.raises(UsageError, match="does not end in"):
        write_plot(finding, "A title", tmp_path / "plot.gif")
