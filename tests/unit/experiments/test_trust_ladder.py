"""The arithmetic of the trust ladder on made-up seconds, and a small climb for real."""

from pathlib import Path

import pytest

from lichen.experiments import trust_ladder
from lichen.experiments.port import Finding, load_experiment, read_settings
from lichen.experiments.trust_ladder import _BLOCKS, _DATABASE, _finding, _Kind, _label

KINDS = [_Kind(count, block) for count in (0, 4) for block in _BLOCKS]


def finding(cost: dict[_Kind, float]) -> Finding:
    seconds = {_DATABASE: [1e-4, 1e-4, 1e-4], **{_label(kind): [value] * 3 for kind, value in cost.items()}}
    return _finding({"seed": 1}, KINDS, seconds, 2.0, 0.5, 0.8)


def test_each_party_may_cost_ten_times_a_row() -> None:
    told = finding({kind: 9e-4 * (kind.witness_count + 1) for kind in KINDS})
    assert told.verdict == "confirmed"
    assert told.figures[_DATABASE]["joules_per_record"] == pytest.approx(2e-4)
    assert told.figures[_label(KINDS[-1])]["times_database"] == pytest.approx((45.0, 45.0, 45.0))


def test_what_holds_for_large_blocks_only_depends() -> None:
    told = finding(
        {kind: 1e-3 * (kind.witness_count + 1) * (20 if kind.block == 1 else 0.5) for kind in KINDS}
    )
    assert told.verdict == "depends"
    assert finding(dict.fromkeys(KINDS, 1.0)).verdict == "not confirmed"


@pytest.mark.slow
def test_a_small_climb_for_real(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("uvicorn")
    settings = read_settings(load_experiment("trust-ladder"), {"records": 100, "rounds": 3, "witnesses": 1})
    told: list[tuple[int, int]] = []
    result = trust_ladder.run(settings, tmp_path, lambda done, of: told.append((done, of)))
    assert told[-1] == (4, 4)
    joules = {
        name: figure["joules_per_record"]
        for name, figure in result.figures.items()
        if "joules_per_record" in figure
    }
    assert len(joules) == 7
    assert all(value > 0 for value in joules.values())
    assert joules["1 witness, blocks of 1"] > joules["solo, blocks of 1"] > joules[_DATABASE]
    assert joules["1 witness, blocks of 1"] > joules["1 witness, blocks of 100"]
