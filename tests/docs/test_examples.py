"""Every example runs, offline, from an empty folder, and says what it did."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.executes_docs
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_runs(example: Path, tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, str(example)], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout
    assert list(tmp_path.iterdir()) == []


def test_examples_are_numbered_in_the_order_to_read_them() -> None:
    numbers = [re.match(r"\d\d_", example.name) for example in EXAMPLES]
    assert all(numbers)
    assert [example.name[:2] for example in EXAMPLES] == [f"{i:02}" for i in range(1, len(EXAMPLES) + 1)]
