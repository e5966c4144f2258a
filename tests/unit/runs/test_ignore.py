"""Ignore lines, as people know them from gitignore."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.runs.work.ignore import IgnoreRules


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


LINES = [
    "*.log",
    "logs/",
    "/out",
    "a/**/z",
    "**/deep/x",
    "!keep.log",
    "data",
    "?.txt",
    "b/*.csv",
    "/c/**",
    "*",
    "x*y/",
]


@given(
    lines=st.lists(st.sampled_from(LINES), max_size=5),
    directory=st.lists(st.sampled_from(["a", "b", "c", "logs", "out", "data", "deep", "x\ny"]), max_size=3),
    names=st.lists(
        st.sampled_from(
            ["z", "x", "k.log", "keep.log", "a.txt", "out", "n.csv", "logs", "xy", "a\n.log", "\n", "x\nz"]
        ),
        max_size=6,
        unique=True,
    ),
)
def test_a_directory_at_once_is_as_one_by_one(
    lines: list[str], directory: list[str], names: list[str]
) -> None:
    rules = IgnoreRules.parse(lines)
    expected = {name for name in names if rules.is_ignored("/".join([*directory, name]))}
    assert rules.ignored_in("/".join(directory), names) == expected
