"""The fenced blocks of the documents: found, run in order in an empty folder, and their output compared.

What a block means to the tests depends on its language and on an HTML comment in the line above its fence:

=============================  ==========================================================================
```` ```python ````            must compile
... after ``<!-- run -->``     also runs, with the interpreter of the tests
any, after ``<!-- file: N -->``  is written to the file N, so that later blocks can use it
```` ```console ````           its commands (lines starting with ``$``) run in bash, one after another
... after ``<!-- exits: S -->``  ... and the last one must end with status S instead of 0
... after ``<!-- not run: WHY -->``  is only shown; the reason is for whoever reads the source
=============================  ==========================================================================

The blocks of one document share a folder, which is empty at first, and the shell's folder and exported variables. A
command goes on over lines that start with ``>``, as at a prompt. What follows a command is its output, compared
loosely, because a reader wants to see real figures and those differ from run to run: numbers match numbers, units of
energy, time and size match their multiples, one machine's way of measuring matches another's, identifiers match
identifiers, an interval its other way of being written, runs of blanks match each other, and an ellipsis matches anything.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Block", "Command", "DocumentRun", "commands_of", "differs", "read_blocks"]

COMMAND_SECONDS_MAX = 180

_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>`{3,})(?P<language>[\w+-]*)[^`]*$")
_DIRECTIVE = re.compile(r"^\s*<!--\s*(?P<name>run|file|exits|not run)\s*(?::\s*(?P<value>.+?))?\s*-->\s*$")
_VARYING = re.compile(
    r"(?P<ellipsis>…|\.\.\.)"
    r"|(?P<method>\((?:meter|counter|sampled|allocated|model|declared)[^()]*\))"
    r"|(?P<identifier>(?<!\w)(?=[\w+=-]*\d)[\w+=-]{12,})"
    r"|(?P<interval>[\d.]+ (?:± [\d.]+|\(0 to [\d.]+\)) [nµmkMGT]?(?:J|W|gCO2e)\b)"
    r"|(?P<unit>(?<=\d )(?:[nµmkMGT]?(?:J|Wh|W|s|gCO2e)|[kMGT]?i?B|min|h|d)\b)"
    r"|(?P<number>\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?)"
    r"|(?P<blank>\s+)"
)
_MATCHES = {
    "ellipsis": ".*?",
    "method": r"\([^()]+\)",
    "identifier": r"[\w+=-]+",
    "interval": r"-?[\d.]+(?: ± [\d.]+| \(0 to [\d.]+\))? [µ\w]+",
    "unit": r"[µ\w]+",
    "number": r"\d+(?:[.,:]\d+)*(?:e[+-]?\d+)?",
    "blank": r"\s+",
}


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        path: The document.
        line: 1-based line of the opening fence.
        language: What the fence says, possibly empty.
        text: Content without the fences and their indentation, ending with a newline unless empty.
        directives: What the HTML comment above says: name to value, the value empty when there is none.
    """

    path: Path
    line: int
    language: str
    text: str
    directives: dict[str, str]

    @property
    def place(self) -> str:
        """Where the block stands, as editors read it."""
        return f"{self.path}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A command of a console block and the lines shown below it (none: the output is not compared)."""

    text: str
    output: tuple[str, ...]


def read_blocks(path: Path) -> list[Block]:
    """All fenced blocks of a Markdown document, in order.

    Raises:
        ValueError: A fence is never closed.
    """
    blocks = []
    lines = iter(enumerate(path.read_text(encoding="utf-8").splitlines(), 1))
    directives: dict[str, str] = {}
    for number, line in lines:
        directive = _DIRECTIVE.match(line)
        fence = _FENCE.match(line)
        if directive:
            directives = {**directives, directive["name"]: directive["value"] or ""}
        elif fence:
            text = "".join(_until_closed(lines, fence, f"{path}:{number}"))
            blocks.append(Block(path, number, fence["language"], text, directives))
            directives = {}
        elif line.strip():
            directives = {}
    return blocks


def _until_closed(lines: Iterator[tuple[int, str]], fence: re.Match[str], place: str) -> Iterator[str]:
    """The lines up to the closing fence, without the indentation of the opening one."""
    for _, line in lines:
        if line.strip().startswith(fence["ticks"]) and not line.strip().strip("`"):
            return
        yield line.removeprefix(fence["indent"]) + "\n"
    raise ValueError(f"{place}: the block is never closed")


def commands_of(block: Block) -> list[Command]:
    """The commands of a console block with their output.

    Raises:
        ValueError: The block shows output before any command.
    """
    commands: list[tuple[list[str], list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            commands.append(([line[2:]], []))
        elif not commands:
            raise ValueError(f"{block.place}: a console block starts with a command: '$ …'")
        elif line.startswith("> ") and not commands[-1][1]:
            commands[-1][0].append(line[2:])
        else:
            commands[-1][1].append(line)
    return [Command("\n".join(typed), tuple(shown)) for typed, shown in commands]


def differs(shown: tuple[str, ...], real: str) -> bool:
    """Whether a command's real output is something else than what the document shows, compared loosely."""
    pattern = "".join(_pattern_of("\n".join(shown).strip()))
    return re.fullmatch(pattern, real.strip(), flags=re.DOTALL) is None


def _pattern_of(text: str) -> Iterator[str]:
    """The pieces of a regular expression for one shown output."""
    end = 0
    for found in _VARYING.finditer(text):
        yield re.escape(text[end : found.start()])
        assert found.lastgroup is not None  # every alternative is a named group
        yield _MATCHES[found.lastgroup]
        end = found.end()
    yield re.escape(text[end:])


class DocumentRun:
    """A folder in which the blocks of one document run one after another.

    Args:
        folder: An empty folder; the blocks start in its subfolder ``work``.
        environment: Variables of the commands; the interpreter of the tests comes first on their ``PATH``.
    """

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.start = folder / "work"
        self.start.mkdir()
        self._exports = folder / "exports.sh"
        self._exports.write_text("", encoding="utf-8")
        self._place = folder / "place"
        self._place.write_text(str(self.start), encoding="utf-8")
        self._environment = {
            **environment,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}",
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "NO_COLOR": "1",
            "COLUMNS": "110",
        }

    @property
    def current(self) -> Path:
        """The folder in which the next block runs."""
        return Path(self._place.read_text(encoding="utf-8").rstrip("\n"))

    def run(self, block: Block) -> list[str]:
        """Do what a block asks for.

        Returns:
            What went wrong, as sentences that name the place; empty when all went as the document says.
        """
        if "not run" in block.directives:
            return []
        if "file" in block.directives:
            target = self.current / block.directives["file"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, encoding="utf-8")
            return []
        if block.language == "python" and "run" in block.directives:
            status, output = self._python(block.text)
            return [f"{block.place}: exit status {status}:\n{output}"] if status else []
        return list(self._run_commands(block)) if block.language == "console" else []

    def _run_commands(self, block: Block) -> Iterator[str]:
        """Run a console block and say what differs; a command that fails ends the block."""
        commands = commands_of(block)
        for number, command in enumerate(commands, 1):
            expected = int(block.directives.get("exits") or 0) if number == len(commands) else 0
            status, output = self._bash(command.text)
            if status != expected:
                yield f"{block.place}: `{command.text}` ended with {status}, not {expected}:\n{output}"
                return
            if command.output and differs(command.output, output):
                shown = "\n".join(command.output)
                yield f"{block.place}: `{command.text}` is shown to print\n{shown}\nbut prints\n{output}"

    def _bash(self, command: str) -> tuple[int, str]:
        """Run a command where the one before left off; return its status and all it printed."""
        script = (
            f'. "{self._exports}"\ncd "{self.current}" || exit 97\n{command}\n'
            f'status=$?\nexport -p > "{self._exports}"\npwd > "{self._place}"\nexit $status\n'
        )
        return self._finish(["bash", "-c", script], "")

    def _python(self, program: str) -> tuple[int, str]:
        """Run a Python program from standard input; return its status and all it printed."""
        return self._finish([sys.executable, "-"], program)

    def _finish(self, command: list[str], given: str) -> tuple[int, str]:
        """Run a process in the current folder to its end."""
        ended = subprocess.run(
            command,
            input=given,
            check=False,
            cwd=self.current,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=COMMAND_SECONDS_MAX,
        )
        return ended.returncode, ended.stdout
