"""The glossary has every word that must mean one thing only, once, in order."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GLOSSARY = ROOT / "docs" / "reference" / "glossary.md"

CLASHING_WORDS = (
    *(
        "balance",
        "block",
        "checkpoint",
        "client",
        "contract",
        "count",
        "entry",
        "epoch",
        "fingerprint",
        "hit",
    ),
    *("index", "intensity", "measurement", "miss", "orderer", "practice", "proof", "record", "round", "seal"),
    *("size", "state", "view", "witness"),
)


def rows() -> list[list[str]]:
    """The cells of every row of the first table."""
    table = GLOSSARY.read_text(encoding="utf-8").partition("## ")[0]
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_words_stand_once_and_in_order() -> None:
    words = [row[0].lower() for row in rows()]
    assert words == sorted(set(words))


@pytest.mark.parametrize("word", CLASHING_WORDS)
def test_a_word_with_several_senses_is_explained(word: str) -> None:
    meanings = [row[1] for row in rows() if row[0] == word]
    assert len(meanings) == 1
    assert meanings[0]


def test_the_word_for_the_other_sense_is_not_a_word_of_ours() -> None:
    words = {row[0].lower() for row in rows()}
    others = [name for row in rows() for name in re.findall(r"\*([^*]+)\*", row[2])]
    clashing = [name for name in others if name in words and not is_cross_reference(name)]
    assert not clashing


def is_cross_reference(name: str) -> bool:
    """Whether a word of ours stands in the last column because it is the right one for that sense."""
    return name in {"count", "index", "size", "metric", "measurement", "fingerprint", "digest"}
