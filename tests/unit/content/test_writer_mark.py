"""Marks of writers: of this process, of one that ended, and of ones that cannot be judged from here."""

import subprocess
import sys

import pytest

from lichen.content.writer_mark import is_gone, mark_of_this_process

TELL = "from lichen.content.writer_mark import mark_of_this_process as mark; print(mark())"


def test_this_process_is_there() -> None:
    assert mark_of_this_process().count("-") == 2
    assert not is_gone(mark_of_this_process())


def test_a_process_that_ended_is_gone() -> None:
    mark = subprocess.run(
        [sys.executable, "-c", TELL], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert is_gone(mark)


def test_another_process_of_the_same_id_is_not_the_same() -> None:
    place, process, started = mark_of_this_process().split("-")
    assert is_gone(f"{place}-{process}-{int(started) + 1}")


@pytest.mark.parametrize("mark", ["", "x", "-", "--", "elsewhere-1-1", "elsewhere-x-"])
def test_what_cannot_be_judged_is_not_gone(mark: str) -> None:
    assert not is_gone(mark)
