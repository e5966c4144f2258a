"""What is kept of recorded output and what is not, sequence by sequence."""

from __future__ import annotations

import pytest

from lichen.runs.process.terminal import EscapeFilter, filter_escapes

KEPT = {
    "text": "plain text",
    "lines, tabs, returns": "one\n\ttwo\r\n 50%\r100%",
    "letters of many scripts": "Größe 模型 مرحبا 🙂 e\u0301",
    "colour": "\x1b[31mred\x1b[0m",
    "reset without parameter": "\x1b[1mbold\x1b[m",
    "indexed colour": "\x1b[38;5;8mgrey\x1b[0m",
    "true colour": "\x1b[48;2;8;8;8mdark\x1b[0m",
    "true colour with colons": "\x1b[38:2::10:20:30mx\x1b[0m",
    "curly underline": "\x1b[4:3mx\x1b[24m\x1b[0m",
    "right-to-left mark": "a\u200fb",
}

REMOVED = {
    "cursor up": ("a\x1b[2Ab", "ab"),
    "clear screen": ("a\x1b[2J\x1b[Hb", "ab"),
    "clear line": ("a\x1b[Kb", "ab"),
    "private mode": ("\x1b[?1049ha\x1b[?25l", "a"),
    "device status, which types an answer": ("a\x1b[6nb\x1b[cb", "abb"),
    "window manipulation": ("\x1b[8;1;1ta", "a"),
    "key modifier option that also ends in m": ("\x1b[>4;2ma", "a"),
    "title, ended by BEL": ("\x1b]0;owned\x07a", "a"),
    "title, ended by ST": ("\x1b]2;owned\x1b\\a", "a"),
    "clipboard": ("\x1b]52;c;cm0gLXJm\x07a", "a"),
    "link keeps its text": ("\x1b]8;;http://example.org\x1b\\text\x1b]8;;\x1b\\", "text"),
    "unfinished title does not swallow the next line": ("\x1b]0;owned\nnext", "\nnext"),
    "device control": ("\x1bP1$r0m\x1b\\a", "a"),
    "picture over lines": ("\x1bPq#0;2;0\n;0;0\n\x1b\\a", "a"),
    "application command": ("\x1b_Ga=d\x1b\\a", "a"),
    "privacy message": ("\x1b^x\x1b\\a", "a"),
    "start of string": ("\x1bXx\x1b\\a", "a"),
    "full reset": ("\x1bca", "a"),
    "save and restore cursor": ("\x1b7a\x1b8", "a"),
    "character set": ("\x1b(0a\x1b)Bb", "ab"),
    "bell and backspace": ("a\x07\x08b", "ab"),
    "NUL and DEL": ("a\x00\x7fb", "ab"),
    "C1 sequence": ("a\x9b2Jb", "ab"),
    "C1 command": ("a\x9d0;t\x9cb", "ab"),
    "C1 next line": ("a\x85b", "ab"),
    "bidirectional override": ("a\u202egnp.exe\u202cb", "agnp.exeb"),
    "bidirectional isolate": ("\u2066a\u2069", "a"),
    "conceal": ("\x1b[8mhidden", "hidden"),
    "conceal among others": ("\x1b[1;08;31mhidden", "hidden"),
    "conceal after a colour": ("\x1b[38;5;1;8mhidden", "hidden"),
    "colour cut off at the end": ("a\x1b[3", "a"),
    "escape at the end": ("a\x1b", "a"),
    "escape within a sequence begins a new one": ("\x1b[3\x1b[1Aa", "a"),
    "control within a sequence": ("\x1b[3\nAa", "\nAa"),
    "cancelled sequence": ("\x1b[3\x18ma", "ma"),
    "cancelled string": ("\x1bPabc\x1ada", "da"),
    "string ended by another sequence": ("\x1b]0;t\x1b[2Ja", "a"),
    "sequence of endless parameters": ("\x1b[" + "1;" * 500 + "ma", None),
}


@pytest.mark.parametrize("name", KEPT)
def test_is_kept(name: str) -> None:
    assert filter_escapes(KEPT[name].encode()).decode() == KEPT[name]


@pytest.mark.parametrize("name", REMOVED)
def test_is_removed(name: str) -> None:
    text, expected = REMOVED[name]
    filtered = filter_escapes(text.encode()).decode()
    assert "\x1b" not in filtered
    if expected is not None:
        assert filtered == expected


def test_a_colour_that_begins_with_c1_is_kept_in_its_usual_form() -> None:
    assert filter_escapes("a\x9b31mb\x9bm".encode()) == b"a\x1b[31mb\x1b[m"


def test_a_colour_left_on_is_switched_off() -> None:
    assert filter_escapes(b"\x1b[1;31mred") == b"\x1b[1;31mred\x1b[0m"


def test_bytes_outside_utf8_pass_unless_they_are_controls() -> None:
    assert filter_escapes(b"caf\xe9 \x9b2J \xff") == b"caf\xe9 2J \xff"


def test_a_string_that_never_ends_does_not_swallow_everything() -> None:
    filtered = filter_escapes(b"\x1bP" + b"x" * 2**21 + b"\nlast")
    assert filtered.endswith(b"\nlast")


def test_a_filter_can_be_used_again() -> None:
    filtering = EscapeFilter()
    assert filtering.feed(b"a\x1b[3") + filtering.finish() == b"a"
    assert filtering.feed(b"1mb") + filtering.finish() == b"1mb"
