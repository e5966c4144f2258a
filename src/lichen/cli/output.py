"""What goes to the terminal: lines, tables, JSON, progress.

Rules upheld:

* standard output holds the answer and nothing else; remarks and progress go to standard error;
* colour appears only where a terminal reads it, and never when ``NO_COLOR`` is set;
* text that comes from a ledger or a file name may hold anything, so control characters and undecodable bytes are made
  visible before they reach a terminal.

Source: no-color.org for ``NO_COLOR``.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Output", "Painted", "Progress", "clean", "render", "wants_colour"]

_STYLES = {"bold": "1", "dim": "2", "good": "32", "warn": "33", "bad": "31", "name": "36"}
_QUIET_SECONDS = 1.0  # what is done within this needs no progress
_TERMINAL_STEP_SECONDS = 0.1
_LOG_STEP_SECONDS = 10.0


class Painted(NamedTuple):
    """A piece of text with a style: ``bold``, ``dim``, ``good``, ``warn``, ``bad`` or ``name``."""

    text: str
    style: str


def wants_colour(stream: IO[str], environ: dict[str, str] | None = None) -> bool:
    """Say whether a stream is a terminal whose reader did not ask for plain text.

    Args:
        stream: Where the text goes.
        environ: Environment to read; the process's own when None.
    """
    env = os.environ if environ is None else environ
    if env.get("NO_COLOR") or env.get("TERM") == "dumb":
        return False
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def clean(text: str, *, keep: str = "") -> str:
    r"""Make every control character and undecodable byte of a text visible.

    Args:
        text: Anything.
        keep: Control characters to leave as they are, such as a newline.

    Returns:
        Text that moves no cursor: ESC becomes ``\x1b``, the lone surrogate of byte 0xFF becomes ``\xff``.
    """
    if text.isprintable():
        return text
    return "".join(char if char in keep or char.isprintable() else _visible(char) for char in text)


def _visible(char: str) -> str:
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Output:
    """Where a command writes.

    Args:
        stdout: For the answer.
        stderr: For remarks and progress.
    """

    def __init__(self, stdout: IO[str] | None = None, stderr: IO[str] | None = None) -> None:
        self.stdout = stdout or sys.stdout
        self.stderr = stderr or sys.stderr
        self._colour = wants_colour(self.stdout)
        self._colour_err = wants_colour(self.stderr)

    def line(self, *pieces: str | Painted) -> None:
        """Write one line of the answer."""
        self.stdout.write(render(pieces, self._colour) + "\n")

    def text(self, text: str) -> None:
        """Write a text of several lines, as it is but for control characters."""
        self.stdout.write(clean(text, keep="\n\t").rstrip("\n") + "\n")

    def json(self, value: Any) -> None:
        """Write the answer as JSON, indented; the same value always gives the same text."""
        import json

        text = json.dumps(_finite(value), indent=2, ensure_ascii=True, default=_json_form, allow_nan=False)
        self.stdout.write(text + "\n")

    def json_line(self, value: Any) -> None:
        """Write one item of a long answer as a line of JSON."""
        import json

        self.stdout.write(
            json.dumps(
                _finite(value), separators=(",", ":"), ensure_ascii=True, default=_json_form, allow_nan=False
            )
            + "\n"
        )

    def note(self, *pieces: str | Painted) -> None:
        """Write one remark of Lichen's own to standard error; a standard error that is gone loses it."""
        text = render((Painted("lichen: ", "dim"), *pieces), self._colour_err)
        try:
            self.stderr.write(text + "\n")
            self.stderr.flush()
        except (OSError, ValueError):
            return

    def table(
        self, columns: Sequence[str], rows: Iterable[Sequence[str | Painted]], *, right: Sequence[int] = ()
    ) -> None:
        """Write a table with a heading, columns padded with blanks.

        Args:
            columns: Headings.
            rows: Cells, one per column.
            right: Positions of columns that are aligned to the right.
        """
        cells = [[_cell(cell) for cell in row] for row in rows]
        widths = [
            max([len(heading), *(len(row[place].text) for row in cells)])
            for place, heading in enumerate(columns)
        ]
        for row in ([Painted(heading, "dim") for heading in columns], *cells):
            last = len(row) - 1
            pieces: list[str | Painted] = []
            for place, cell in enumerate(row):
                gap = " " * (widths[place] - len(cell.text))
                pieces += [gap, cell] if place in right else [cell, gap if place < last else ""]
                pieces.append("  " if place < last else "")
            while pieces and not _cell(pieces[-1]).text.strip():
                pieces.pop()
            self.line(*pieces)

    def pairs(self, rows: Iterable[tuple[str, str]]) -> None:
        """Write names and values in two columns."""
        cells = [(clean(name), clean(value)) for name, value in rows]
        width = max((len(name) for name, _ in cells), default=0)
        for name, value in cells:
            self.line(Painted(name.ljust(width), "dim"), f"  {value}")

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Show how far something is, once it has taken longer than a second.

        Args:
            label: What is being done, such as ``verifying``.
        """
        progress = Progress(label, self.stderr, time.monotonic)
        try:
            yield progress
        finally:
            progress.close()


class Progress:
    """A counter on standard error: a line that is redrawn on a terminal, a line every ten seconds elsewhere.

    Args:
        label: What is being done.
        stream: Where to show it.
        clock: Seconds, never decreasing.
    """

    def __init__(self, label: str, stream: IO[str], clock: Callable[[], float]) -> None:
        self._label = label
        self._stream = stream
        self._clock = clock
        self._terminal = _is_terminal(stream)
        self._next = clock() + (_QUIET_SECONDS if self._terminal else _LOG_STEP_SECONDS)
        self._shown = False

    def __call__(self, done: int, total: int | None = None) -> None:
        """Tell how many of how many are done; cheap, may be called for each item."""
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (_TERMINAL_STEP_SECONDS if self._terminal else _LOG_STEP_SECONDS)
        counted = f"{done:,} of {total:,} ({done * 100 // total} %)" if total else f"{done:,}"
        text = f"lichen: {self._label} {counted}"
        self._write(f"\r\x1b[2K{text}" if self._terminal else text + "\n")
        self._shown = True

    def close(self) -> None:
        """Take the line away again."""
        if self._shown and self._terminal:
            self._write("\r\x1b[2K")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._next = float("inf")


def _is_terminal(stream: IO[str]) -> bool:
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def _cell(cell: str | Painted) -> Painted:
    if isinstance(cell, Painted):
        return Painted(clean(cell.text), cell.style)
    return Painted(clean(cell), "")


def render(pieces: Iterable[str | Painted], colour: bool) -> str:
    """Join pieces into text for a stream, cleaned, with or without colour."""
    return "".join(_styled(_cell(piece), colour) for piece in pieces)


def _styled(piece: Painted, colour: bool) -> str:
    style = _STYLES.get(piece.style)
    return f"\x1b[{style}m{piece.text}\x1b[0m" if colour and style and piece.text else piece.text


def _finite(value: Any) -> Any:
    """Put null for numbers that JSON has no form for: those without end, and those that are none (RFC 8259 section 6)."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(each) for each in value]
    return value


def _json_form(value: object) -> object:
    """Write what JSON has no form for: bytes as hexadecimal, paths as text, tuples and sets as lists."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    return str(value)
