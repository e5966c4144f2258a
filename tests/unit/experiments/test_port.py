"""The registry of experiments and their settings."""

import pytest

from lichen.errors import NotFoundError, UsageError
from lichen.experiments.port import VERDICTS, list_experiments, load_experiment, read_settings


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
