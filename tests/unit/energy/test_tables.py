from __future__ import annotations

import csv
from pathlib import Path

import pytest

import lichen.energy
from lichen.energy.tables import read_table

DATA = Path(lichen.energy.__file__).with_name("data")


@pytest.mark.parametrize("path", sorted(DATA.glob("*.csv")), ids=lambda path: path.name)
def test_a_shipped_table_is_plain_csv_and_names_its_source(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    head = " ".join(line for line in lines if line.startswith("#"))
    assert "Source:" in head or "data sheets" in head
    body = [line for line in lines if not line.startswith("#")]
    assert '"' not in "".join(body)
    assert list(read_table(path.name)) == list(csv.DictReader(body))
