"""What reaches a terminal is plain, harmless and in its column."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from lichen.cli.output import Output, Painted, Progress, clean, wants_colour


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "expected"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
    ids=["terminal", "no-color", "empty-no-color", "dumb", "file"],
)
def test_colour_is_for_terminals(stream: io.StringIO, environ: dict[str, str], expected: bool) -> None:
    assert wants_colour(stream, environ) is expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ± µ", "plain ± µ"),
        ("\x1b]0;owned\x07", "\\x1b]0;owned\\x07"),
        ("two\nlines\tand\rback", "two\\nlines\\tand\\rback"),
        ("caf\udce9", "caf\\xe9"),
        ("right\u202eleft", "right\\u202eleft"),
    ],
)
def test_what_could_move_a_cursor_is_made_visible(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_control_characters_can_be_kept() -> None:
    assert clean("a\nb\x1b", keep="\n") == "a\nb\\x1b"


def test_a_style_is_written_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        Output(stream, io.StringIO()).line("a ", Painted("b\x1b[2J", "bad"))
    assert terminal.getvalue() == "a \x1b[31mb\\x1b[2J\x1b[0m\n"
    assert file.getvalue() == "a b\\x1b[2J\n"


def test_a_table_aligns_its_columns() -> None:
    stream = io.StringIO()
    Output(stream, io.StringIO()).table(
        ("index", "what"), [("7", "run"), ("1234567", Painted("model", "bold"))], right=(0,)
    )
    assert stream.getvalue().splitlines() == ["  index  what", "      7  run", "1234567  model"]


def test_json_has_no_form_for_numbers_without_end() -> None:
    stream = io.StringIO()
    output = Output(stream, io.StringIO())
    value = {"even": float("inf"), "rest": [float("nan"), (1.5, -float("inf"))]}
    output.json(value)
    output.json_line(value)
    decoder = json.JSONDecoder(parse_constant=pytest.fail)
    pretty, line = stream.getvalue().rsplit("\n", 2)[:2]
    assert decoder.decode(pretty) == decoder.decode(line) == {"even": None, "rest": [None, [1.5, None]]}


def test_json_writes_bytes_paths_and_sets() -> None:
    stream = io.StringIO()
    Output(stream, io.StringIO()).json({"digest": b"\xff", "path": Path("a/b"), "names": {"b", "a"}})
    assert json.loads(stream.getvalue()) == {"digest": "ff", "path": "a/b", "names": ["a", "b"]}


def test_a_note_outlives_a_closed_stream() -> None:
    stream = io.StringIO()
    stream.close()
    Output(io.StringIO(), stream).note("nobody reads this")
    assert stream.closed


def test_progress_keeps_silent_for_a_second_and_takes_its_line_away() -> None:
    now = [0.0]
    stream = Terminal()
    progress = Progress("verifying", stream, lambda: now[0])
    progress(1, 10)
    assert stream.getvalue() == ""
    now[0] = 1.5
    progress(5, 10)
    progress(6, 10)  # too soon after the last one
    assert stream.getvalue() == "\r\x1b[2Klichen: verifying 5 of 10 (50 %)"
    progress.close()
    assert stream.getvalue().endswith("\r\x1b[2K")


def test_progress_in_a_file_is_a_line_now_and_then() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = Progress("verifying", stream, lambda: now[0])
    for second in range(25):
        now[0] = float(second)
        progress(second * 1000)
    progress.close()
    assert stream.getvalue().splitlines() == ["lichen: verifying 10,000", "lichen: verifying 20,000"]
