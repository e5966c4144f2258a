"""Patterns in printed output: found, bounded, and never the end of a run."""

import pytest

from lichen.runs.records import patterns
from lichen.runs.records.patterns import PatternError, find_last


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"acc: ([\d.]+)", "acc: 0.1\nacc: 0.93\n", "0.93"),
        (r"\d+", "7 8", "8"),
        ("zzz", "acc", None),
        ("(ä+)=", "ää= \U0001f33f", "ää"),
    ],
)
def test_the_last_match_is_found(pattern: str, text: str, found: str | None) -> None:
    assert find_last(pattern, text) == found


def test_a_pattern_without_end_is_ended() -> None:
    with pytest.raises(PatternError, match="one way only"):
        find_last("(a+)+$", "a" * 40 + "b", limit_seconds=0.5)


def test_a_group_that_takes_no_part_is_said() -> None:
    with pytest.raises(PatternError, match="no part"):
        find_last("(a)?b", "b")


def test_an_interruption_leaves_the_metric_out_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(patterns.subprocess, "run", interrupted)  # type: ignore[attr-defined]
    with pytest.raises(PatternError, match="interrupted"):
        find_last("a", "a")
