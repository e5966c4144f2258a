"""Ignore lines, as people know them from gitignore."""

import pytest

from lichen.runs.ignore import IgnoreRules


@pytest.mark.parametrize(
    ("lines", "path", "ignored"),
    [
        (["*.log"], "a/b/c.log", True),
        (["*.log"], "a/b/c.logs", False),
        (["logs/"], "logs/today.txt", True),
        (["logs/"], "deep/logs/today.txt", True),
        (["/logs"], "deep/logs/today.txt", False),
        (["a/**/z"], "a/b/c/z", True),
        (["a/**/z"], "a/z", True),
        (["*.csv", "!keep.csv"], "keep.csv", False),
        (["!keep.csv", "*.csv"], "keep.csv", True),
        (["# note", "", "?.txt"], "a.txt", True),
        (["?.txt"], "ab.txt", False),
        (["\\#odd"], "#odd", True),
        (["data"], "data/x/y.bin", True),
        (["a.c"], "abc", False),
    ],
)
def test_last_matching_line_decides(lines: list[str], path: str, ignored: bool) -> None:
    assert IgnoreRules.parse(lines).is_ignored(path) is ignored
