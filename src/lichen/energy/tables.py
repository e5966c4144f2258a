"""The tables shipped with this room: CSV files with a comment block that names source and licence.

Source: each file's own head.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

__all__ = ["read_table"]

_DATA: Final = Path(__file__).with_name("data")


@functools.cache
def read_table(file_name: str) -> tuple[dict[str, str], ...]:
    """Return the rows of a shipped table, by column name.

    Args:
        file_name: A file of ``data/``; cells hold neither commas nor quotes, which a test checks.
    """
    text = (_DATA / file_name).read_text("utf-8")
    header, *rows = (line.split(",") for line in text.splitlines() if line and not line.startswith("#"))
    return tuple(dict(zip(header, row, strict=True)) for row in rows)
