"""Facts read as a person would say them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from lichen.cli.narrator import answer_lines, found_line, hit_line, recorded_line
from lichen.cli.output import Painted
from lichen.cli.sentences import (
    describe_age,
    describe_earlier,
    describe_estimate,
    describe_metrics,
    describe_nearest,
    describe_number,
    describe_title,
    plural,
)
from lichen.energy.measurement import Boundary, Component, Measurement, Method
from lichen.runs.request import Estimate, RunResult
from lichen.runs.reuse.lookup import Answer, EarlierRun, Nearest
from lichen.runs.work.differences import Difference

NOW = 1_700_000_000_000
DAY = 86_400_000


def earlier(
    index: int = 12, member: str = "hospital-a", metrics: Mapping[str, float] | None = None
) -> EarlierRun:
    return EarlierRun(
        index=index, member=member, status="trained", reusable=True, reason=None, time_unix_ms=NOW - 3 * DAY, exact=b"",
        same_work=b"", energy_joules=310.0, relative_u95=0.29, duration_seconds=8.0, method="model", boundary="process",
        exit_status=0, manifest_cid="", metrics={"accuracy": 0.951} if metrics is None else metrics,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "noun", "text"),
    [
        (1, "output", "1 output"),
        (2, "output", "2 outputs"),
        (0, "run", "0 runs"),
        (12_000, "entry", "12,000 entries"),
    ],
)
def test_plural(count: int, noun: str, text: str) -> None:
    assert plural(count, noun) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.951, "0.951"),
        (0.95123456, "0.9512"),
        (3.0, "3"),
        (123456.7, "123457"),
        (1e-7, "1e-07"),
        (1e20, "1e+20"),
    ],
)
def test_a_metric_is_short(value: float, text: str) -> None:
    assert describe_number(value) == text


def test_metrics_beyond_the_fourth_are_counted() -> None:
    assert describe_metrics({"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}) == "a 1, b 2, c 3, d 4, 2 more"


@pytest.mark.parametrize(
    ("age_ms", "text"),
    [
        (0, "just now"),
        (59_000, "just now"),
        (60_000, "1 minute ago"),
        (2 * 3_600_000, "2 hours ago"),
        (3 * DAY, "3 days ago"),
        (400 * DAY, "1 year ago"),
        (-30_000, "just now"),
        (-DAY, "in the future, by its author's clock"),
    ],
)
def test_age(age_ms: int, text: str) -> None:
    assert describe_age(NOW - age_ms, NOW) == text


def test_an_earlier_run() -> None:
    assert (
        describe_earlier(earlier(), NOW) == "entry 12 by hospital-a (3 days ago): accuracy 0.951, 310 ± 90 J"
    )


@pytest.mark.parametrize(
    ("changed", "same_data", "same_code", "text"),
    [
        ({"max_depth": ("6", "4")}, True, True, "same data and code, max_depth 6 instead of 4"),
        ({"fast": ("true", None)}, True, False, "same data, other code, fast true, which is not given here"),
        ({"fast": (None, "true")}, False, True, "same code, other data, fast not given instead of true"),
        ({}, False, False, "other data and code"),
        (dict.fromkeys("abcdef", ("1", "2")), True, True, "same data and code, a 1 instead of 2, b 1 instead of 2, "
         "c 1 instead of 2, d 1 instead of 2, 2 more parameters differ"),
    ],
)  # fmt: skip
def test_nearest_work(
    changed: Mapping[str, tuple[str | None, str | None]], same_data: bool, same_code: bool, text: str
) -> None:
    told = describe_nearest(Nearest(earlier(), changed, same_data=same_data, same_code=same_code))
    assert told == f"{text}: accuracy 0.951, 310 J (entry 12, by hospital-a)"


@pytest.mark.parametrize(
    ("low", "high", "count", "basis", "text"),
    [
        (280, 340, 3, "same script", "likely 280 to 340 J, from 3 runs of this script"),
        (940, 1200, 1, "same request", "likely 940 J to 1.20 kJ, from 1 run of this command"),
        (5, 5, 2, "same script", "likely 5.00 J, from 2 runs of this script"),
    ],
)
def test_an_estimate(low: float, high: float, count: int, basis: str, text: str) -> None:
    assert describe_estimate(Estimate((low + high) / 2, low, high, count, basis)) == text


def lines(answer: Answer, nearest: list[Nearest] | None = None) -> list[str]:
    return answer_lines(answer, nearest or [], None, now_unix_ms=NOW)


def test_new_work_is_called_new() -> None:
    assert lines(Answer("miss")) == ["nothing like this is on record yet"]


def test_a_miss_names_the_first_difference() -> None:
    answer = Answer("miss", difference=Difference("data", "{project}/a.csv", "x", "y"), compared=earlier())
    assert lines(answer) == ["not answered by entry 12 by hospital-a: {project}/a.csv changed"]


def test_an_offer_says_how_to_take_it() -> None:
    answer = Answer(
        "offer", earlier(), note="its author hospital-a is not among those you trust", is_strangers=True
    )
    told = lines(answer, [Nearest(earlier(), {}, same_data=True, same_code=True)])
    assert told == [
        "equal work is on record: entry 12 by hospital-a (3 days ago): accuracy 0.951, 310 ± 90 J",
        "not taken: its author hospital-a is not among those you trust; to take such answers: "
        "lichen config add reuse.trust hospital-a",
    ]


def test_same_work_says_how_to_take_it() -> None:
    assert "--accept same-work" in lines(Answer("same-work", earlier(), level="same-work"))[1]


def test_disputed_work_says_how_to_take_it() -> None:
    answer = Answer(
        "offer",
        earlier(),
        note="equal work with different outputs is on record",
        disputed=True,
        takes="disputed",
    )
    assert "--accept disputed" in lines(answer)[1]


def test_an_answer_that_is_there_is_told_without_taking_it() -> None:
    assert found_line(Answer("hit", earlier()), NOW).startswith(
        "the ledger has the answer: entry 12 by hospital-a"
    )


def result(**more: object) -> RunResult:
    given: dict[str, object] = {
        "status": "trained", "exit_status": 0, "record": 12, "reusable": True, "metrics": {"accuracy": 0.951},
        "author": "hospital-a", "outputs": ["a", "b"], "receipt": "c2sp.org/tlog-proof@v1", **more,
    }  # fmt: skip
    return RunResult(**given)  # type: ignore[arg-type]


def test_a_hit() -> None:
    told = hit_line(
        result(
            status="hit",
            credited=True,
            avoided_joules=310.0,
            avoided_u95=0.29,
            answer=Answer("hit", earlier()),
        ),
        NOW,
    )
    assert told == (
        "answered from entry 12 by hospital-a (3 days ago): accuracy 0.951; 310 ± 90 J not spent; 2 outputs in place; "
        "receipt verified"
    )


def test_a_hit_that_books_nothing_says_so() -> None:
    told = hit_line(result(status="hit", answer=Answer("hit", earlier())), NOW)
    assert "310 ± 90 J not spent again, nothing newly booked" in told


MEASURED = Measurement({"cpu": Component(310.0, 0.29, Method.MODEL)}, 8.0, Boundary.PROCESS, "cpu")


def flat(pieces: list[str | Painted]) -> str:
    return "".join(piece.text if isinstance(piece, Painted) else piece for piece in pieces)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({}, "recorded as entry 12: accuracy 0.951, 310 ± 90 J (model, process), 2 outputs, reusable"),
        (
            {"reusable": False, "reasons": [("partial", "the queue overflowed"), ("network", "it talked to x")]},
            "recorded as entry 12: accuracy 0.951, 310 ± 90 J (model, process), 2 outputs, "
            "not reusable: partial: the queue overflowed, and 1 more reason",
        ),
        (
            {"status": "failed", "metrics": {}, "outputs": [], "reusable": False,
             "reasons": [("exit-status", "the command ended with status 1")]},
            "recorded as entry 12 (failed): 310 ± 90 J (model, process), "
            "not reusable: exit-status: the command ended with status 1",
        ),
        (
            {"status": "missed", "missed_target": "accuracy is 0.951, the target was at least 0.97"},
            "recorded as entry 12: accuracy 0.951, 310 ± 90 J (model, process), 2 outputs, "
            "target missed: accuracy is 0.951, the target was at least 0.97, reusable",
        ),
    ],
    ids=["reusable", "not-reusable", "failed", "missed"],
)  # fmt: skip
def test_a_recorded_run(more: dict[str, object], text: str) -> None:
    assert flat(recorded_line(result(measurement=MEASURED, **more))) == text


def test_a_title_is_short_at_both_ends() -> None:
    assert describe_title("python {project}/train.py {param}fold=2") == "python train.py fold=2"
    long = describe_title("python train.py " + " ".join(f"--option-{i} {i}" for i in range(20)) + " --last 9")
    assert len(long) == 48
    assert long.startswith("python train.py --option-0 0")
    assert long.endswith("--last 9")
