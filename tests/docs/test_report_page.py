"""The page of `lichen run --report` has every field, and no other."""

from __future__ import annotations

import re
from pathlib import Path

from lichen.runs.request import RunResult

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "report.md"


def test_the_fields_of_a_report_are_documented() -> None:
    told = re.findall(r"^\| `(\w+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert told == list(RunResult("hit", 0).to_report())
