"""The statement for a paper: the whole life cycle, with method, boundary and an interval."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from lichen.errors import NotFoundError, UsageError
from lichen.runs.queries.paper import life_cycle, paper_report
from lichen.runs.records.publish import publish
from lichen.runs.request import RunRequest
from lichen.runs.reuse.hit import take_hit
from lichen.runs.workspace.config import UserConfig

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic, Listener


@pytest.fixture
def clinic(clinic: Clinic) -> Clinic:
    clinic.write("other.py")
    clinic.run(writes={"model.bin": "w"}, joules=1000.0, seconds=10)
    clinic.run("python", "train.py", "--depth", "9", joules=300.0, status="missed", seconds=5)
    clinic.run("python", "train.py", "--bad", joules=200.0, status="failed", seconds=5)
    clinic.run("python", "other.py", joules=5000.0, seconds=50)
    return clinic


def test_failed_and_trial_runs_of_the_script_count(clinic: Clinic) -> None:
    model = publish(clinic.workspace(), "model", clinic.root / "model.bin")
    for reference in (str(model.index), "2", str(clinic.root / "model.bin")):
        cycle = life_cycle(clinic.workspace(), reference, "DE")
        assert cycle.run_count == 3
        assert cycle.status_counts == {"trained": 1, "missed": 1, "failed": 1}
        assert cycle.energy_joules == pytest.approx(1500)
        assert cycle.failed_joules == pytest.approx(500)
        assert cycle.duration_seconds == pytest.approx(20)
        assert cycle.relative_u95 == pytest.approx(0.2)
        assert (cycle.methods, cycle.boundaries) == ({"model": 3}, {"process": 3})
        assert cycle.devices == ("Ryzen 5 3600",)


def test_without_a_reference_every_run_counts(clinic: Clinic) -> None:
    cycle = life_cycle(clinic.workspace(), None, "DE")
    assert (cycle.run_count, cycle.subject) == (4, "all runs on record")
    assert cycle.energy_joules == pytest.approx(6500)


def place(clinic: Clinic, *zones: str | None) -> None:
    """Say where the runs took place, in the order of their entries."""
    connection = clinic.workspace().ledger.connection
    indices = [row[0] for row in connection.execute("SELECT idx FROM view_run ORDER BY idx").fetchall()]
    with sqlite3.connect(clinic.workspace().ledger.path) as writer:
        writer.executemany(
            "UPDATE view_run SET zone = ? WHERE idx = ?", list(zip(zones, indices, strict=True))
        )
    writer.close()


def test_runs_without_a_zone_were_in_the_usual_one(clinic: Clinic) -> None:
    place(clinic, "DE", "DE", None, None)
    unsure = life_cycle(clinic.workspace(), None, None)
    assert (unsure.zones, unsure.intensity.zone) == (("DE", "unknown"), "WORLD")
    assert "took place in several zones (DE, unknown); the intensity is that of WORLD" in paper_report(
        clinic.workspace(), None, None
    )
    user = UserConfig.read()
    user.set_text("energy.zone", "DE")
    user.write()
    sure = life_cycle(clinic.open(), None, None)
    assert (sure.zones, sure.intensity.zone) == (("DE",), "DE")
    assert "several zones" not in paper_report(clinic.open(), None, None)


def test_runs_in_several_zones_are_said_to_be(clinic: Clinic) -> None:
    place(clinic, "DE", "FR", "FR", "DE")
    told = paper_report(clinic.workspace(), None, "FR")
    assert "took place in several zones (DE, FR); the intensity is that of FR" in told
    assert life_cycle(clinic.workspace(), None, None).to_json()["zones"] == ["DE", "FR"]


def test_runs_without_a_result_are_counted_by_what_befell_them(clinic: Clinic) -> None:
    assert "took 4 runs: 2 successful, 1 failed, 1 below target." in paper_report(
        clinic.workspace(), None, "DE"
    )


def test_carbon_follows_from_the_zone_and_an_unknown_place_widens_it(clinic: Clinic) -> None:
    known = life_cycle(clinic.workspace(), None, "FR")
    expected = 6500 / 3.6e6 * known.intensity.g_per_kwh
    assert known.carbon_gco2e == pytest.approx(expected)
    assert known.carbon_relative_u95 >= known.relative_u95
    unknown = life_cycle(clinic.workspace(), None, None)
    assert unknown.carbon_relative_u95 > 2 * known.carbon_relative_u95
    assert life_cycle(clinic.workspace(), None, "DE").carbon_gco2e > 3 * known.carbon_gco2e
    with pytest.raises(NotFoundError, match="Atlantis"):
        life_cycle(clinic.workspace(), None, "Atlantis")


def test_what_was_reused_stands_beside_it(clinic: Clinic, listener: Listener) -> None:
    assert "avoided" not in paper_report(clinic.workspace(), None, "DE")
    (clinic.root / "model.bin").unlink()
    request = RunRequest(("python", "train.py"))
    assert take_hit(clinic.workspace(), request, clinic.ask(), listener, declared_outputs=()) is not None
    assert life_cycle(clinic.workspace(), None, "DE").reused_joules == pytest.approx(1000)
    assert "avoided a further" in paper_report(clinic.workspace(), None, "DE")


@pytest.mark.parametrize("form", ["text", "markdown", "latex", "json"])
def test_every_form_says_the_same(clinic: Clinic, form: str) -> None:
    told = paper_report(clinic.workspace(), "2", "DE", form)
    ledger = clinic.workspace().ledger.id[:16]
    if form == "json":
        value = json.loads(told)
        assert (value["run_count"], value["status_counts"]["failed"]) == (3, 1)
        assert value["intensity"]["zone"] == "DE"
        assert value["ledger_id"].startswith(ledger)
        return
    for words in (
        "3 runs: 1 successful, 1 failed, 1 below target",
        "Ryzen 5 3600",
        "model (3)",
        "boundary: process",
        "gCO2e",
        ledger,
    ):
        assert words in told, words


def test_latex_has_no_bare_special_characters(clinic: Clinic) -> None:
    import re

    told = paper_report(clinic.workspace(), None, "DE", "latex")
    assert told.startswith("\\paragraph{Energy and carbon.} ")
    assert not re.search(r"(?<!\\)[%#&_]", told)
    assert "±" not in told


def test_what_no_run_made_and_what_is_not_there_is_told(clinic: Clinic) -> None:
    elsewhere = publish(clinic.workspace(), "model", clinic.write("elsewhere.bin", "e"))
    with pytest.raises(UsageError, match="is no run, and no recorded run made it"):
        life_cycle(clinic.workspace(), str(elsewhere.index), "DE")
    with pytest.raises(UsageError, match="is no run"):
        life_cycle(clinic.workspace(), "0", "DE")
    with pytest.raises(NotFoundError):
        life_cycle(clinic.workspace(), "999", "DE")
    with pytest.raises(UsageError, match="none of text, markdown, latex, json"):
        paper_report(clinic.workspace(), None, "DE", "pdf")
