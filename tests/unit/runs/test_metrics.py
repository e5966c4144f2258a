"""Metrics: where they come from, and targets."""

import json
import os
from pathlib import Path

import pytest

from lichen.errors import UsageError
from lichen.runs.records.metrics import (
    append_metrics,
    collect_metrics,
    misses_target,
    parse_pattern,
    parse_target,
)


def test_logging_outside_a_run_does_nothing() -> None:
    assert append_metrics(1, {"accuracy": 0.5}, {}) is False


def test_logged_rows_are_lines_of_json(tmp_path: Path) -> None:
    environ = {"LICHEN_RUN_DIR": str(tmp_path)}
    assert append_metrics(1, {"accuracy": 0.5}, environ)
    assert append_metrics(None, {"loss": 2}, environ)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"accuracy":0.5,"step":1}\n{"loss":2.0}\n'


def test_logging_into_a_directory_that_is_gone_is_no_error(tmp_path: Path) -> None:
    assert append_metrics(None, {"loss": 2}, {"LICHEN_RUN_DIR": str(tmp_path / "gone")}) is False


@pytest.mark.parametrize("values", [{"": 1.0}, {"a b": 1.0}, {"x": "many"}, {"x": None}])
def test_what_is_no_metric_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        append_metrics(None, values, {})


def test_later_sources_win_and_unfit_values_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text('{"loss": 0.25, "note": "text", "flag": true}')
    found, warnings = collect_metrics(
        [{"step": 1, "loss": 1.0, "bad": float("nan")}, {"step": 2, "loss": 0.5}],
        file,
        [parse_pattern(r"accuracy=acc: ([\d.]+)"), parse_pattern("never=zzz")],
        "acc: 0.1\nacc: 0.93\n",
    )
    assert found == {"loss": 0.25, "accuracy": 0.93}
    assert [text.rpartition(": ")[0] for text in warnings[1:]] == [
        "--metric never",
        "metric 'bad' (nan) is left out",
    ]
    assert "'note', 'flag' left out: only numbers at the top" in warnings[0]


@pytest.mark.parametrize("content", ["[1]", "{", "\xff"])
def test_unreadable_metrics_file_is_a_warning(tmp_path: Path, content: str) -> None:
    file = tmp_path / "m.json"
    file.write_text(content, encoding="latin-1")
    found, warnings = collect_metrics([], file, [], "")
    assert found == {}
    assert "m.json" in warnings[0]


def test_a_file_of_brackets_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text("[" * 200_000)
    found, warnings = collect_metrics([{"loss": 1.0}], file, [], "")
    assert found == {"loss": 1.0}
    assert "nested too deep" in warnings[0]


def test_a_pipe_in_the_place_of_the_file_is_not_waited_for(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    os.mkfifo(file)
    assert collect_metrics([], file, [], "") == ({}, [f"--metrics {file}: not a regular file"])


def test_a_file_without_end_is_not_read_whole() -> None:
    found, warnings = collect_metrics([], Path("/dev/zero"), [], "")
    assert found == {}
    assert "not a regular file" in warnings[0]


def test_whole_numbers_beyond_all_floats_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text('{"huge": 1' + "0" * 400 + ', "loss": 1}')
    found, warnings = collect_metrics([{"large": 10**400}], file, [], "")
    assert found == {"loss": 1.0}
    assert [text[:22] for text in warnings] == ["metric 'large' (inf) i", "metric 'huge' (inf) is"]
    with pytest.raises(UsageError, match="no number"):
        append_metrics(None, {"x": 10**5000}, {})


def test_many_unfit_names_are_counted_and_not_listed(tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    file.write_text(json.dumps({f"{number} {'x' * 500}": 1 for number in range(1000)}))
    found, warnings = collect_metrics([], file, [], "")
    assert found == {}
    assert len(warnings) == 9
    assert max(map(len, warnings)) < 200


@pytest.mark.parametrize("text", ["accuracy", "=x", "a b=x", "acc=(", "acc=" + "(" * 50_000])
def test_bad_pattern_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_pattern(text)


@pytest.mark.parametrize(
    ("text", "metrics", "missed"),
    [
        ("accuracy=0.9", {"accuracy": 0.95}, None),
        ("accuracy>=0.9", {"accuracy": 0.85}, "at least 0.9"),
        ("loss<=0.1", {"loss": 0.05}, None),
        ("loss<=0.1", {"loss": 0.2}, "at most 0.1"),
        ("accuracy=0.9", {}, "there is no metric accuracy (there is: none)"),
    ],
)
def test_targets(text: str, metrics: dict[str, float], missed: str | None) -> None:
    name, bound = parse_target(text)
    found = misses_target(metrics, {name: bound})
    assert (found is None) if missed is None else (found is not None and missed in found)


@pytest.mark.parametrize("text", ["accuracy", "accuracy=high", "=1", "accuracy=1e"])
def test_bad_target_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_target(text)
