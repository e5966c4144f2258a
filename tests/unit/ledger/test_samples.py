"""Ledgers of every schema so far: they open, hold, can be continued; newer ones are refused."""

from __future__ import annotations

import json
import lzma
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sample_ledger

from lichen.archive.restore import restore
from lichen.archive.writer import write_archive
from lichen.contracts import default_contracts
from lichen.errors import FormatVersionError
from lichen.ledger.audit import audit
from lichen.ledger.ledger import Ledger
from lichen.ledger.storage import LEDGER_FILE_NAME, SCHEMA_VERSION
from lichen.runs.queries.views import default_views

SAMPLES = Path(__file__).parents[2] / "vectors" / "samples"
FROZEN = sorted(SAMPLES.glob("schema-*.sqlite.xz"))
FACTS: dict[str, Any] = json.loads((SAMPLES / "facts.json").read_text(encoding="utf-8"))


@pytest.fixture(params=FROZEN, ids=lambda path: path.name.partition(".")[0])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    directory = tmp_path / "sample"
    directory.mkdir()
    (directory / LEDGER_FILE_NAME).write_bytes(lzma.decompress(request.param.read_bytes()))
    return directory


def test_the_schema_of_this_program_has_a_frozen_sample():
    names = {path.name for path in FROZEN}
    assert f"schema-{SCHEMA_VERSION}.sqlite.xz" in names, (
        "run tools/sample_ledger.py and commit what it makes"
    )
    assert "schema-1.sqlite.xz" in names, "the sample of a released schema was removed"


def test_a_sample_is_what_it_was(sample: Path):
    assert sample_ledger.facts_of(sample) == FACTS


def test_this_program_still_makes_the_same_entries(tmp_path: Path):
    sample_ledger.make_sample(tmp_path / "made")
    assert sample_ledger.facts_of(tmp_path / "made") == FACTS


def test_a_sample_is_continued(sample: Path, tmp_path: Path):
    with Ledger.open(
        sample, default_contracts(), default_views(), sample_ledger.LOG, home=tmp_path / "home"
    ) as ledger:
        (rows,) = ledger.connection.execute("SELECT count(*) FROM view_run").fetchone()
        assert rows == FACTS["kinds"]["run"]
        said = ledger.statement(
            "flag",
            ledger.record(5).statement.subjects,
            {"of": 5, "error": "found later"},
            member="ada",
        )
        index = ledger.append_signed(said, sample_ledger.ADA, seal=True).index
        assert index >= FACTS["size"]
        assert ledger.root_at(FACTS["size"]).hex() == FACTS["root"]
        assert ledger.root_at(FACTS["sealed_size"]).hex() == FACTS["sealed_root"]
        ledger.receipt(3)
    report = audit(sample, default_contracts())
    assert report.is_sound, report.problem
    assert report.kinds["flag"] == FACTS["kinds"]["flag"] + 1


def test_a_sample_is_archived_and_comes_back(sample: Path, tmp_path: Path):
    with Ledger.open(sample, default_contracts(), log_key=sample_ledger.LOG) as ledger:
        ledger.seal(force=True)
        report = write_archive(ledger, tmp_path / "out")
    assert report.size == FACTS["size"] + 1
    checked = subprocess.run(
        [sys.executable, "-I", "-S", str(tmp_path / "out" / "verify_ledger.py"), "--jobs", "1", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr
    found = json.loads(checked.stdout)
    assert found["ledger"] == FACTS["id"]
    assert found["kinds"] == {**FACTS["kinds"], "seal": FACTS["kinds"]["seal"] + 1}
    restore(tmp_path / "out", tmp_path / "back", default_contracts())
    with Ledger.open(tmp_path / "back", default_contracts(), read_only=True) as ledger:
        assert ledger.root_at(FACTS["size"]).hex() == FACTS["root"]
        assert ledger.root_at(FACTS["sealed_size"]).hex() == FACTS["sealed_root"]


def test_a_sample_opens_without_the_right_to_write(sample: Path):
    with Ledger.open(sample, default_contracts(), default_views(), read_only=True) as ledger:
        assert ledger.size == FACTS["size"]
        (rows,) = ledger.connection.execute("SELECT count(*) FROM view_run").fetchone()
        assert rows == FACTS["kinds"]["run"]


@pytest.mark.parametrize("read_only", [True, False], ids=["reading", "writing"])
def test_a_newer_schema_is_refused_and_left_alone(sample: Path, read_only: bool):
    path = sample / LEDGER_FILE_NAME
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(FormatVersionError, match=str(SCHEMA_VERSION + 1)) as refused:
        Ledger.open(sample, default_contracts(), log_key=None if read_only else sample_ledger.LOG)
    assert refused.value.remedy
    with pytest.raises(FormatVersionError):
        audit(sample, default_contracts())
    assert path.read_bytes() == before
