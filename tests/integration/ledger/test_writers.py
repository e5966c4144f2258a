"""Concurrent writers, killed and not: a total order, nothing acknowledged is lost, nothing counts twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from faults import writers
from faults.site import Site

from lichen.ledger.high_water import HighWater


@pytest.mark.slow
def test_sixty_kills_under_four_writers_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    site = Site(tmp_path)
    outcome = writers.run(tmp_path, writers=4, kills=60, seed=20)
    assert (outcome.kill_count, outcome.failure_count) == (60, 0), outcome.complaints
    found = writers.check(site, outcome)
    assert found["acknowledged"] > 60
    assert (found["lost"], found["twice"], found["problem"]) == (0, 0, None)
    assert 0 <= found["unacknowledged"] <= 60 * writers.BATCH_COUNT_MAX, "at most one batch for each kill"


@pytest.mark.slow
def test_eight_writers_agree_on_one_order(tmp_path: Path) -> None:
    site = Site(tmp_path)
    outcome = writers.run(tmp_path, writers=8, appends=60, seed=21)
    assert outcome.failure_count == 0
    assert all(told == sorted(told) and len(told) == 60 for told in outcome.told_by)
    assert len({index for told in outcome.told_by for index in told}) == 480
    found = writers.check(site, outcome)
    assert (found["acknowledged"], found["lost"], found["twice"], found["problem"]) == (480, 0, 0, None)
    assert found["unacknowledged"] == 0


def test_a_mark_raised_by_another_writer_while_opening_is_no_rollback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever opens reads the mark first and looks at the ledger afterwards, so the ledger is never the older of the two."""
    import random

    site, rng = Site(tmp_path), random.Random(1)
    with site.create() as other:
        read = HighWater.read

        def appended_meanwhile(mark: HighWater):
            other.append(site.entry(other, rng), seal=True)
            return read(mark)

        monkeypatch.setattr(HighWater, "read", appended_meanwhile)
        with site.opened() as ledger:
            monkeypatch.undo()
            assert ledger.size == other.size == 4
