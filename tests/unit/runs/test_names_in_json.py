"""One rule for names in JSON: a quantity says what it is of and in which unit, and the same thing has one name everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from lichen.runs.queries.balance import balance
from lichen.runs.queries.find import Query, find
from lichen.runs.queries.paper import life_cycle
from lichen.runs.queries.show import describe, summary
from lichen.runs.records.publish import DeclaredEnergy, publish
from lichen.runs.request import RunRequest, RunResult
from lichen.runs.reuse.hit import take_hit

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic

AS_RECORDED = frozenset({"statement", "manifest", "detail", "receipt"})
"""Parts of an answer that are what a format says, word for word."""
FORMER = frozenset(
    {"energy", "joules", "u95", "seconds", "relative_u95", "reused_joules", "did_key", "ledger"}
)


def names_in(value: Any) -> Iterator[str]:
    """Every name in an answer, at any depth, but for what a format says."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield name
            if name not in AS_RECORDED:
                yield from names_in(item)
    elif isinstance(value, list):
        for item in value:
            yield from names_in(item)


def test_every_answer_names_quantities_alike(clinic: Clinic) -> None:
    made = clinic.run(writes={"model.bin": "w"}, metrics={"accuracy": 0.9})
    workspace = clinic.workspace()
    (clinic.root / "model.bin").unlink()
    request = RunRequest(("python", "train.py"))
    hit = take_hit(workspace, request, clinic.ask(), clinic.listener, declared_outputs=())
    assert hit is not None
    model = publish(
        workspace, "model", clinic.write("other.bin", "v"), energy=DeclaredEnergy(50.0, duration_seconds=1.0)
    )
    answers = [
        describe(workspace, str(made.record)), hit.to_report(), RunResult("trained", 0).to_report(), model.to_json(),
        balance(workspace).to_json(), life_cycle(workspace, None, "DE").to_json(),
        *(summary(workspace, index) for index in range(workspace.ledger.size)),
        *(found.to_json() for found in find(workspace, Query())),
    ]  # fmt: skip
    names = set(names_in([dict(answer) for answer in answers]))
    assert not names & FORMER
    uncertain = {name for name in names if name.endswith("u95")}
    assert all(name.endswith(("_relative_u95", "_joules_u95")) for name in uncertain), uncertain
    assert {"energy_relative_u95", "avoided_relative_u95", "net_joules_u95"} <= uncertain
