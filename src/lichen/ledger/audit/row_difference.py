"""A row of a view that is not what the entries make of it, in words: which entry, which table, what is there, what should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lichen.ledger.audit.report import RowDiffersError

__all__ = ["ENTRY_COLUMNS", "VIEW_REMEDY", "differing_row", "in_words"]

VIEW_REMEDY: Final = (
    "The entries hold; only tables for questions are wrong, and answers may be. `lichen archive OUT` and"
    " `lichen restore OUT` in an empty directory make them anew from the entries."
)
ENTRY_COLUMNS: Final = ("idx", "child")
"""Columns in which tables of views keep the index of the entry that a row comes from; the first that a table has counts."""
SHOWN_COUNT_MAX: Final = 4
SHOWN_LENGTH_MAX: Final = 60

Row = Sequence[object]


def differing_row(
    table: str, columns: Sequence[str], keys: Sequence[str], ours: Row | None, theirs: Row | None
) -> RowDiffersError:
    """Say how two rows with one key differ, or which of two rows is there alone.

    Args:
        table: Name of the table.
        columns: Names of its columns.
        keys: Names of those that tell rows apart.
        ours: What the entries call for; None when they call for no such row.
        theirs: What the file holds; None when it holds no such row.
    """
    if ours is None and theirs is None:
        raise ValueError("two rows that are both missing do not differ")
    known = dict(zip(columns, ours or theirs or (), strict=True))
    entry = next((known[name] for name in ENTRY_COLUMNS if name in known), None)
    of = f"the row of {table}" + ("" if entry is None else f" for entry {entry}")
    named = ", ".join(f"{name} = {in_words(known[name])}" for name in keys or columns[:SHOWN_COUNT_MAX])
    if theirs is None:
        message = f"{of} is missing: there should be one with {named}"
    elif ours is None:
        message = f"{table} has a row that no entry calls for, with {named}"
    else:
        wrong = [
            f"{name} is {in_words(there)} and should be {in_words(here)}"
            for name, here, there in zip(columns, ours, theirs, strict=True)
            if here != there
        ]
        more = len(wrong) - SHOWN_COUNT_MAX
        tail = f"; {more} more columns differ" if more > 0 else ""
        which = "" if list(keys) == ["idx"] else f" with {named}"
        message = f"in {of}{which}, {'; '.join(wrong[:SHOWN_COUNT_MAX])}{tail}"
    return RowDiffersError(message, remedy=VIEW_REMEDY)


def in_words(value: object) -> str:
    """A value of a row as a person reads it; bytes in hexadecimal, what is long cut short."""
    if value is None:
        return "nothing"
    text = value.hex() if isinstance(value, bytes) else repr(value)
    return text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}…"
