"""The account: joules avoided minus joules spent, each with its uncertainty, and nothing counted twice."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from lichen.runs.queries.balance import (
    OWN_COST_FILE,
    Balance,
    balance,
    joules_of_own_seconds,
    record_own_cost,
)
from lichen.runs.request import RunRequest
from lichen.runs.reuse.hit import take_hit

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.runs.conftest import Clinic, Listener


def account(
    avoided: float, avoided_u95: float, spent: float, spent_u95: float, shared: float = 0.0
) -> Balance:
    return Balance(avoided, avoided_u95, 1, spent, spent_u95, {}, 1, 0.0, 0, 0.0, shared)


def hit(clinic: Clinic, listener: Listener) -> None:
    (clinic.root / "model.bin").unlink()
    taken = take_hit(
        clinic.workspace(), RunRequest(("python", "train.py")), clinic.ask(), listener, declared_outputs=()
    )
    assert taken is not None


def test_an_empty_ledger_has_an_empty_account(clinic: Clinic) -> None:
    told = balance(clinic.workspace())
    assert (told.avoided_joules, told.hit_count, told.run_count, told.command_count) == (0, 0, 0, 0)
    assert set(told.by_command) == {"storage"}
    assert told.spent_joules == told.by_command["storage"] >= 0
    assert "would have done the work once more" in told.counterfactual


def test_hits_runs_and_commands_add_up(clinic: Clinic, listener: Listener) -> None:
    clinic.run(writes={"model.bin": "w"}, joules=400.0)
    clinic.run("python", "train.py", "--bad", joules=25.0, status="failed")
    clinic.run("python", "train.py", "--stop", joules=5.0, status="interrupted")
    hit(clinic, listener)
    hit(clinic, listener)
    for command, seconds in (("run", 1.5), ("run", 0.5), ("find", 0.25)):
        record_own_cost(clinic.directory, command, seconds)
    told = balance(clinic.workspace())
    assert told.avoided_joules == pytest.approx(400)
    assert told.avoided_u95 == pytest.approx(80)
    assert (told.hit_count, told.run_count, told.command_count) == (1, 3, 3)
    assert told.runs_joules == pytest.approx(430)
    assert told.failed_joules == pytest.approx(30)
    assert set(told.by_command) == {"run", "find", "storage"}
    assert told.by_command["run"] > 4 * told.by_command["find"] > 0
    assert told.spent_joules == pytest.approx(math.fsum(told.by_command.values()))
    assert told.net_joules == pytest.approx(told.avoided_joules - told.spent_joules)
    assert json.loads(json.dumps(told.to_json()))["verdict"] == told.verdict


def test_errors_that_are_not_shared_add_up() -> None:
    told = account(100, 20, 10, 5)
    assert (told.net_joules, told.net_u95, told.verdict) == (90, 25, "pays")
    assert account(10, 2, 100, 50).verdict == "costs"
    assert account(100, 90, 50, 30).verdict == "open"
    assert account(0, 0, 0, 0).verdict == "open"


def test_an_error_that_both_sides_share_scales_the_net() -> None:
    """One load model on one machine: where it is wrong by a factor, it is wrong by that factor on both sides."""
    told = account(100, 80, 50, 40, shared=0.8)
    assert told.net_u95 == pytest.approx(40)
    assert told.verdict == "pays", "which it is not when the errors are independent"
    assert account(100, 80, 50, 40).verdict == "open"
    partly = account(100, 90, 50, 40, shared=0.8)
    assert partly.net_u95 == pytest.approx(40 + 10)
    assert account(50, 40, 100, 80, shared=0.8).verdict == "costs"


def test_errors_of_runs_elsewhere_are_not_shared(clinic: Clinic, listener: Listener) -> None:
    """The recorded run was measured on another processor than this one."""
    clinic.run(writes={"model.bin": "w"})
    hit(clinic, listener)
    record_own_cost(clinic.directory, "run", 1.0)
    assert balance(clinic.workspace()).shared_relative_u95 == 0


def test_torn_and_foreign_lines_of_the_account_are_passed_over(clinic: Clinic) -> None:
    record_own_cost(clinic.directory, "run", 1.0)
    with (clinic.directory / "cache" / OWN_COST_FILE).open("ab") as file:
        file.write(
            b'[]\n{"command": "find"}\n\xff\xfe\n{"command": "find", "cpu_seconds": "much"}\n{"command": "fi'
        )
    told = balance(clinic.workspace())
    assert (told.command_count, set(told.by_command)) == (1, {"run", "storage"})


@pytest.mark.parametrize("line", ['{"cpu_seconds": 1}', '{"command": "x", "cpu_seconds": NaN}', '{"command": "x", "cpu_seconds": -5}', '{"command": "x", "cpu_seconds": 1, "peak_rss_bytes": "much"}', '{"command": "x", "cpu_seconds": true}'])  # fmt: skip
def test_a_line_that_makes_no_sense_does_not_stop_the_account(clinic: Clinic, line: str) -> None:
    record_own_cost(clinic.directory, "run", 1.0)
    with (clinic.directory / "cache" / OWN_COST_FILE).open("a") as file:
        file.write(line + "\n")
    told = balance(clinic.workspace())
    assert told.command_count == 1
    assert math.isfinite(told.spent_joules)


def test_an_account_that_cannot_be_kept_fails_nobody(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    record_own_cost(tmp_path, "run")
    record_own_cost(tmp_path / "missing", "run")
    assert (tmp_path / "cache").read_text() == "a file"
    assert not (tmp_path / "missing").exists()


def test_what_this_process_used_is_measured_and_private(tmp_path: Path) -> None:
    record_own_cost(tmp_path, "run")
    file = tmp_path / "cache" / OWN_COST_FILE
    line = json.loads(file.read_text())
    assert line["cpu_seconds"] > 0
    assert line["peak_rss_bytes"] > 1_000_000
    assert file.stat().st_mode & 0o077 == 0


def test_seconds_become_joules_in_proportion() -> None:
    one, ten = joules_of_own_seconds(1.0, 50_000_000), joules_of_own_seconds(10.0, 50_000_000)
    assert ten.energy_joules == pytest.approx(10 * one.energy_joules, rel=0.01)
    assert 0.1 < one.energy_joules < 1000
    assert 0 < one.relative_u95 < 10
    assert joules_of_own_seconds(0.0, 0).energy_joules == pytest.approx(0, abs=1e-6)
