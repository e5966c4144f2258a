"""Declared quality goes through a check: what its name rules out is refused, and ranked last when forced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from lichen.errors import Rejected, UsageError
from lichen.runs.queries.find import MetricBound, Query, find, parse_metric_bound
from lichen.runs.records.plausible_metrics import implausible_metrics
from lichen.runs.records.publish import evaluate, publish

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic


@pytest.mark.parametrize(
    ("name", "value", "plausible"),
    [
        ("accuracy", 0.93, True),
        ("accuracy", 1.7, False),
        ("accuracy", -0.1, False),
        ("val/top-5-accuracy", 93.0, False),
        ("accuracy_percent", 93.0, True),
        ("accuracy_percent", 193.0, False),
        ("roc_auc", 1.0, True),
        ("recall@5", 1.01, False),
        ("f1", 1.5, False),
        ("f1_loss", 1.5, True),
        ("log_accuracy", -2.0, True),
        ("mcc", -0.4, True),
        ("mcc", -1.4, False),
        ("r2", -30.0, True),
        ("r2", 1.2, False),
        ("loss", 17.0, True),
        ("racc", 17.0, True),
        ("bleu", 40.0, True),
    ],
)
def test_what_a_name_rules_out_is_implausible(name: str, value: float, plausible: bool) -> None:
    found = implausible_metrics({name: value})
    assert (not found) is plausible
    assert all(text.startswith(f"{name} is {value:g}, and can only be ") for text in found)


def test_an_implausible_claim_is_refused_and_ranks_last_when_forced(clinic: Clinic) -> None:
    workspace = clinic.workspace()
    good = publish(workspace, "model", clinic.write("good.bin", "g"), metrics={"accuracy": 0.9})
    path = clinic.write("boast.bin", "b")
    with pytest.raises(Rejected, match=r"accuracy is 1\.7, and can only be between 0 and 1") as caught:
        publish(workspace, "model", path, metrics={"accuracy": 1.7})
    assert caught.value.rule == "plausibility.metric"
    boast = publish(workspace, "model", path, metrics={"accuracy": 1.7}, force=True)
    assert boast.warnings[0].startswith("implausible: accuracy is 1.7")
    percent = clinic.run(metrics={"accuracy": 42.0})
    query = Query(metric=MetricBound("accuracy", "", 0.0), order="metric")
    assert [item.index for item in find(workspace, query)] == [percent.record, good.index, boast.index]


def test_an_evaluation_is_checked_too(clinic: Clinic) -> None:
    model = publish(clinic.workspace(), "model", clinic.write("m.bin", "m"))
    with pytest.raises(Rejected, match="f1 is 2"):
        evaluate(clinic.workspace(), model.index, {"f1": 2.0})
    forced = evaluate(clinic.workspace(), model.index, {"f1": 2.0}, force=True)
    assert forced.warnings == ("implausible: f1 is 2, and can only be between 0 and 1",)


@pytest.mark.parametrize("query", [Query(kind="foo"), Query(limit=0), Query(limit=-1)])
def test_a_search_that_makes_no_sense_is_refused(clinic: Clinic, query: Query) -> None:
    with pytest.raises(UsageError, match=r"knows no kind 'foo'|leaves nothing to find") as caught:
        find(clinic.workspace(), query)
    assert caught.value.remedy


@pytest.mark.parametrize("text", ["accuracy=>0.9", "accuracy~0.9", "accuracy<one"])
def test_a_bound_of_another_form_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_metric_bound(text)
    assert "accuracy>=0.9" in str(caught.value.remedy)
