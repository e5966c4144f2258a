"""The names of the package: there, lazy, and true to their word outside a run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import lichen
from lichen.errors import NotALedgerError, UsageError


@pytest.mark.parametrize("name", lichen.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(lichen, name)
    assert isinstance(value, str) or value.__doc__


def test_names_are_listed_and_others_are_not_there() -> None:
    assert set(lichen.__all__) <= set(dir(lichen))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = lichen.nonsense


def test_the_package_alone_imports_next_to_nothing() -> None:
    code = "import sys; before = set(sys.modules); import lichen; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded <= {"lichen", *sys.stdlib_module_names}
    assert "lichen." not in done.stdout


def test_logging_outside_a_run_does_nothing_and_imports_no_ledger() -> None:
    code = (
        "import sys, lichen; assert lichen.log(step=1, accuracy=0.5) is False; "
        "assert not {'sqlite3', 'cryptography', 'lichen.ledger'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_metric_that_is_no_number_is_refused_even_outside_a_run() -> None:
    with pytest.raises(UsageError, match="no number"):
        lichen.log(accuracy="high")  # type: ignore[arg-type]


def test_a_script_under_lichen_run_reports_its_metrics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICHEN_RUN_DIR", str(tmp_path))
    assert lichen.log(step=2, accuracy=0.5) is True
    assert (tmp_path / "metrics.jsonl").read_text() == '{"accuracy":0.5,"step":2}\n'


def test_find_refuses_unknown_conditions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotALedgerError):
        lichen.find("train.py")
    with pytest.raises(NotALedgerError):
        lichen.open(tmp_path)
