"""The arithmetic of the experiment, on made-up requests."""

import math
from pathlib import Path

import pytest

from lichen.experiments import avoided_training
from lichen.experiments.avoided_training import _draw, _figures, _Request
from lichen.experiments.port import load_experiment, read_settings


def test_break_even_share_balances_hits_against_misses() -> None:
    requests = [_Request(0, False, 11.0, 0.0, 2.0), _Request(0, True, 0.0, 11.0, 1.0)]
    figures = _figures(requests, [10.0])
    assert figures["hit_share"] == 0.5
    assert figures["miss_cost_joules"] == pytest.approx(3.0)  # 2 J of its own, 1 J inside the job
    assert figures["hit_cost_joules"] == pytest.approx(1.0)
    assert figures["net_joules"] == pytest.approx(11.0 - 3.0 - 1.0)
    share = figures["break_even_share"]
    assert share * (10.0 - 1.0) == pytest.approx((1 - share) * 3.0)


def test_jobs_cheaper_than_a_look_up_never_break_even() -> None:
    requests = [_Request(0, False, 0.5, 0.0, 2.0), _Request(0, True, 0.0, 0.5, 1.0)]
    assert _figures(requests, [0.5])["break_even_share"] == math.inf


def test_draw_is_repeatable_and_popular_jobs_come_more_often() -> None:
    import random

    jobs = _draw(random.Random(1), 2_000, 20, 1.0)
    assert jobs == _draw(random.Random(1), 2_000, 20, 1.0)
    assert jobs.count(0) > 4 * jobs.count(19)


@pytest.mark.slow
def test_a_small_trace_runs_for_real(tmp_path: Path) -> None:
    experiment = load_experiment("avoided-training")
    settings = read_settings(experiment, {"requests": 10, "jobs": 4, "epochs": 5, "plain": 5})
    told: list[tuple[int, int]] = []
    finding = avoided_training.run(settings, tmp_path, lambda done, of: told.append((done, of)))
    assert told[-1] == (10, 10)
    assert finding.figures["hit_share"]["value"] >= 0.6  # at most four of ten can be new
    assert finding.verdict in ("confirmed", "not confirmed", "depends")
    assert finding.energy_joules > 0
