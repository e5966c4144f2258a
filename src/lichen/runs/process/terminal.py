"""Make recorded output safe to show: keep text and colour, remove all that steers a terminal.

What stays: every printable character, line feed, tab, carriage return, and colour and style sequences (SGR). What
goes: cursor movement, clearing, title setting, clipboard access and links (OSC), device control, private, application and
start-of-string sequences, character-set switches, resets, the other control characters of C0 and C1, and the
characters that reorder text (bidirectional overrides and isolates), with which shown text can differ from what a
reader takes it to be. Style ``conceal`` goes too: text that cannot be seen is not shown, it is hidden.

The filter is a state machine over characters, so where a stream is cut into chunks makes no difference; a sequence
that never ends is dropped up to a bound and what follows is treated as text again.

Source: ECMA-48 5th edition, sections 5.4 (control sequences), 5.6 (control strings), 8.3.117 (SGR); Unicode Standard
Annex 9, section 2. Differs: an operating system command also ends at BEL, as in xterm, and at a line feed, so that an
unfinished one does not swallow the lines after it.
"""

from __future__ import annotations

import codecs
import functools
import re
from enum import Enum, auto
from typing import Final

__all__ = ["EscapeFilter", "filter_escapes"]

_ESC: Final = "\x1b"
_RESET: Final = "\x1b[0m"
_SEQUENCE_LENGTH_MAX: Final = 256  # characters of a control sequence; longer ones are no colours
_STRING_LENGTH_MAX: Final = 2**20  # (= 1048576) characters of a control string, such as a picture

# What text may not hold: C0 but tab, line feed and carriage return; DEL; C1; the same as lone bytes outside UTF-8
# (as ``surrogateescape`` shows them); and the characters that reorder text.
_SPECIAL: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\udc80-\udc9f\u202a-\u202e\u2066-\u2069\u206a-\u206f]"
)
_STYLE: Final = re.compile(r"\x1b\[([0-9;:]{0,64})m")
_SGR_PARAMETERS: Final = re.compile(r"[0-9]{1,4}([;:][0-9]{0,4})*|")
_CONCEAL: Final = "8"
_COLOUR_INTRODUCERS: Final = {"38", "48", "58"}
_COLOUR_LENGTHS: Final = {"5": 2, "2": 4}  # parameters that follow 38: 5 and an index, or 2 and three parts


class _State(Enum):
    """Where in a sequence the filter is."""

    TEXT = auto()
    ESCAPE = auto()  # after ESC, and its intermediate characters
    SEQUENCE = auto()  # after CSI
    COMMAND = auto()  # in an OSC string
    STRING = auto()  # in a DCS, SOS, PM or APC string
    COMMAND_ESCAPE = auto()  # ESC within an OSC: ends it when a backslash follows
    STRING_ESCAPE = auto()


# The characters that begin a sequence: after ESC, and as one C1 character.
_AFTER_ESCAPE: Final = {
    "[": _State.SEQUENCE,
    "]": _State.COMMAND,
    "P": _State.STRING,
    "X": _State.STRING,
    "^": _State.STRING,
    "_": _State.STRING,
}
_AS_C1: Final = {
    "\x9b": _State.SEQUENCE,
    "\x9d": _State.COMMAND,
    "\x90": _State.STRING,
    "\x98": _State.STRING,
    "\x9e": _State.STRING,
    "\x9f": _State.STRING,
}
_CANCELS: Final = "\x18\x1a"  # CAN and SUB end any sequence
_STRING_TERMINATOR: Final = "\x9c"


class EscapeFilter:
    """Filters a stream chunk by chunk."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._state = _State.TEXT
        self._parameters: list[str] = []
        self._length = 0
        self._is_styled = False

    def feed(self, chunk: bytes) -> bytes:
        """Filter the next chunk; what may be the beginning of a sequence is held back."""
        return self._filter(self._decoder.decode(chunk)).encode("utf-8", "surrogateescape")

    def finish(self) -> bytes:
        """Filter what was held back, and switch off a style that was left on."""
        text = self._filter(self._decoder.decode(b"", final=True))
        if self._is_styled:
            text += _RESET
        self.__init__()  # type: ignore[misc]
        return text.encode("utf-8", "surrogateescape")

    def _filter(self, text: str) -> str:
        kept: list[str] = []
        position = 0
        while position < len(text):
            if self._state is _State.TEXT:
                found = _SPECIAL.search(text, position)
                if found is None:
                    kept.append(text[position:])
                    break
                kept.append(text[position : found.start()])
                style = _STYLE.match(text, found.start())
                if style is not None:  # the usual case, in one step
                    self._keep_style(style.group(1), kept)
                    position = style.end()
                else:
                    position = found.end()
                    self._begin(found.group())
            else:
                position += self._continue(text[position], kept)
        return "".join(kept)

    def _begin(self, character: str) -> None:
        """Leave text for what a special character introduces; most introduce nothing and are just dropped."""
        self._enter(_State.ESCAPE if character == _ESC else _AS_C1.get(character, _State.TEXT))

    def _enter(self, state: _State) -> None:
        self._state = state
        self._parameters.clear()
        self._length = 0

    def _continue(self, character: str, kept: list[str]) -> int:
        """Take one character of a sequence.

        Returns:
            1 when it is used up, 0 when it belongs to what comes after the sequence.
        """
        self._length += 1
        if character in _CANCELS:
            self._enter(_State.TEXT)
            return 1
        match self._state:
            case _State.ESCAPE:
                return self._continue_escape(character)
            case _State.SEQUENCE:
                return self._continue_sequence(character, kept)
            case _State.COMMAND_ESCAPE | _State.STRING_ESCAPE:
                # The escape ended the string; a backslash completes it, anything else begins anew.
                self._enter(_State.TEXT if character == "\\" else _State.ESCAPE)
                return int(character == "\\")
            case _:
                return self._continue_string(character)

    def _continue_escape(self, character: str) -> int:
        if character in _AFTER_ESCAPE and self._length == 1:
            self._enter(_AFTER_ESCAPE[character])
        elif "\x20" <= character <= "\x2f" and self._length < _SEQUENCE_LENGTH_MAX:
            pass  # intermediate: the sequence goes on
        elif "\x30" <= character <= "\x7e":
            self._enter(_State.TEXT)  # final
        else:
            self._enter(_State.TEXT)
            return 0  # not part of an escape sequence, so judged on its own
        return 1

    def _continue_sequence(self, character: str, kept: list[str]) -> int:
        if "\x20" <= character <= "\x3f" and self._length < _SEQUENCE_LENGTH_MAX:
            self._parameters.append(character)
            return 1
        parameters = "".join(self._parameters)
        self._enter(_State.TEXT)
        if character == "m":
            self._keep_style(parameters, kept)
        return int("\x40" <= character <= "\x7e")

    def _keep_style(self, parameters: str, kept: list[str]) -> None:
        if _is_visible_style(parameters):
            kept.append(f"{_ESC}[{parameters}m")
            self._is_styled = parameters.strip("0;") != ""

    def _continue_string(self, character: str) -> int:
        is_command = self._state is _State.COMMAND
        if character == _ESC:
            self._state = _State.COMMAND_ESCAPE if is_command else _State.STRING_ESCAPE
        elif character == _STRING_TERMINATOR or (is_command and character == "\x07"):
            self._enter(_State.TEXT)
        elif (is_command and character in "\n\r") or self._length > _STRING_LENGTH_MAX:
            self._enter(_State.TEXT)
            return 0
        return 1


def filter_escapes(data: bytes) -> bytes:
    """Filter a whole recording.

    Args:
        data: What a command wrote; usually UTF-8, other bytes pass unless they are controls.

    Returns:
        The same text with no escape sequence but colour and style; a style left on at the end is switched off.
    """
    filtering = EscapeFilter()
    return filtering.feed(data) + filtering.finish()


@functools.lru_cache(maxsize=512)
def _is_visible_style(parameters: str) -> bool:
    """Whether these are parameters of SGR that hide nothing."""
    if _SGR_PARAMETERS.fullmatch(parameters) is None:
        return False
    values = parameters.split(";")
    position = 0
    while position < len(values):
        value = values[position].lstrip("0")
        if value == _CONCEAL:
            return False
        position += 1
        if value in _COLOUR_INTRODUCERS and position < len(values):  # 38;5;8 is a colour, not conceal
            position += _COLOUR_LENGTHS.get(values[position].lstrip("0"), 0)
    return True
