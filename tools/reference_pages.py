"""Writes the reference pages that can be read off the code: the commands and the errors.

Rules upheld here:

* What the code says is said once. Help texts, defaults, error codes and exit statuses stand in the source; these
  pages repeat them, and `make check` fails while a page says something else.
* A page does not depend on the version of click, the width of the terminal or the machine.

Usage: ``python tools/reference_pages.py [--check]``
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from lichen import errors
from lichen.cli.errors import OTHER_STATUSES
from lichen.cli.front_page import GROUPS
from lichen.cli.help import EXIT_STATUS_LINE
from lichen.cli.table import table as lichen_command

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
NOTICE = "<!-- Written by tools/reference_pages.py from the code; `make docs` writes it again. -->"
DIFFERENCE_LINES_SHOWN = 20


def cli_page() -> str:
    """Every command with its arguments and options, in the order and groups of `lichen --help`."""
    lines = [
        "# CLI: every command",
        "",
        NOTICE,
        "",
        "`lichen COMMAND --help` prints the same in a terminal. Exit statuses are listed under [errors](errors.md).",
        "",
    ]
    context = click.Context(lichen_command, info_name="lichen")
    lines += _own_lines(lichen_command, context, 2)
    for title, names in GROUPS.items():
        lines += [f"## {title}", ""]
        for name in names:
            command = lichen_command.get_command(context, name)
            assert command is not None  # the table of groups is what commands are found in
            if not command.hidden:
                lines += command_lines(command, click.Context(command, info_name=name, parent=context), 3)
    return _page(lines)


def command_lines(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    """One command, then its subcommands one level deeper."""
    yield from _own_lines(command, context, level)
    if not isinstance(command, click.Group):
        return
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        if child is not None and not child.hidden:
            yield from command_lines(child, click.Context(child, info_name=name, parent=context), level + 1)


def _own_lines(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    """Heading, usage, help and parameters of one command."""
    yield from ("#" * level + f" {context.command_path}", "")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    yield from ("```text", usage, "```", "")
    yield from _prose(command.help or "")
    arguments = [each for each in command.params if isinstance(each, click.Argument)]
    options = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    yield from _table("Argument", [(_argument_name(each), _argument_help(each)) for each in arguments])
    yield from _table("Option", [(_option_names(each), _option_help(each)) for each in options])
    yield from _prose(command.epilog or "")


def _prose(text: str) -> Iterator[str]:
    """A help text as Markdown; a paragraph that click leaves as typed becomes a block."""
    for paragraph in inspect.cleandoc(text.split("\f", maxsplit=1)[0]).split("\n\n"):
        lines = paragraph.strip("\n").splitlines()
        if EXIT_STATUS_LINE in lines:
            continue  # said once at the top of the page
        if lines and lines[0].strip() == "\b":
            yield from ("```text", *lines[1:], "```", "")
        elif lines:
            yield from (*(line.strip() for line in lines), "")


def _table(title: str, rows: list[tuple[str, str]]) -> Iterator[str]:
    """A table of two columns; nothing when there are no rows."""
    if rows:
        yield from (f"| {title} | Meaning |", "|---|---|")
        yield from (f"| {name} | {meaning} |" for name, meaning in rows)
        yield ""


def _value_name(option: click.Option) -> str:
    """What stands for the value: the option's own word, its name when it is a choice, else its type."""
    named = option.name if isinstance(option.type, click.Choice) else option.type.name
    return option.metavar or (named or "value").upper()


def _argument_name(argument: click.Argument) -> str:
    """An argument as the usage line calls it."""
    return f"`{argument.metavar or (argument.name or '').upper()}`"


def _argument_help(argument: click.Argument) -> str:
    """Whether an argument is needed and how many values it takes; click before 8.3 gives it no help text."""
    told = getattr(argument, "help", None)
    if argument.nargs < 0:
        notes = "one or more" if argument.required else "any number"
    else:
        notes = "required" if argument.required else "optional"
    return f"{_cell(told)} ({notes})" if told else notes


def _option_names(option: click.Option) -> str:
    """All spellings of an option with the value it takes."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    takes_value = not option.is_flag and not option.count
    return f"{names} `{_value_name(option)}`" if takes_value else names


def _option_help(option: click.Option) -> str:
    """Meaning, default, repetition and environment variable of an option."""
    notes = []
    default = option.default
    if isinstance(option.type, click.Choice):
        notes.append("one of " + ", ".join(f"`{choice}`" for choice in option.type.choices))
    if option.required:
        notes.append("required")
    if option.multiple and "repeatable" not in (option.help or "").lower():
        notes.append("may be given several times")
    if option.show_default and isinstance(default, str | int | float) and not isinstance(default, bool):
        notes.append(f"default: `{default}`")
    if isinstance(option.envvar, str):
        notes.append(f"variable: `{option.envvar}`")
    return _cell(option.help or "") + (f" ({'; '.join(notes)})" if notes else "")


def _cell(text: str) -> str:
    """Text that fits in one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def errors_page() -> str:
    """Every class of error: its place in the tree, stable code, exit status and meaning."""
    classes = [getattr(errors, name) for name in errors.__all__]
    statuses: dict[int, str] = {}
    for each in classes:
        codes = statuses.get(each.exit_status)
        statuses[each.exit_status] = f"{codes}, `{each.code}`" if codes else f"`{each.code}`"
    statuses |= OTHER_STATUSES
    drawing = inspect.getdoc(errors) or ""
    tree = [line.removeprefix("    ") for line in drawing.splitlines() if line.startswith("    ")]
    lines = [
        "# Errors and exit statuses",
        "",
        NOTICE,
        "",
        "Every error says what happened, naming the file, argument or entry, and what to do about it. Programs read",
        "the code, which never changes its meaning: with `--json` it stands in `error.code` on standard error, and in",
        "Python it is the exception's `code`.",
        "",
        "## Exit statuses",
        "",
        "| Status | Codes of the errors, or what it means |",
        "|---|---|",
        *(f"| {status} | {meaning} |" for status, meaning in sorted(statuses.items())),
        "",
        "## The tree",
        "",
        "```text",
        *tree,
        "```",
        "",
        "## Each error",
        "",
    ]
    for each in classes:
        lines += [f"### {each.__name__}", "", f"Code `{each.code}`, exit status {each.exit_status}.", ""]
        lines += [(inspect.getdoc(each) or "").split("\n\n")[0], ""]
    return _page(lines)


def _page(lines: list[str]) -> str:
    """Lines as the text of a file, with one newline at its end."""
    return "\n".join(lines).rstrip("\n") + "\n"


PAGES: dict[str, Callable[[], str]] = {"cli.md": cli_page, "errors.md": errors_page}


def stale_pages() -> Iterator[str]:
    """For every page that does not say what the code says, how the two differ."""
    for name, compose in PAGES.items():
        path = REFERENCE / name
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        after = compose()
        if before != after:
            difference = difflib.unified_diff(
                before.splitlines(),
                after.splitlines(),
                f"{name} as it stands",
                f"{name} from the code",
                lineterm="",
            )
            shown = [line for _, line in zip(range(DIFFERENCE_LINES_SHOWN), difference, strict=False)]
            yield "\n".join(shown)


def main() -> int:
    """Write the pages, or with ``--check`` say which are out of date."""
    parser = argparse.ArgumentParser(description="Write docs/reference pages from the code.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is out of date")
    if parser.parse_args().check:
        stale = list(stale_pages())
        if stale:
            print(*stale, "Out of date; `make docs` writes them again.", sep="\n", file=sys.stderr)
        return 1 if stale else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, compose in PAGES.items():
        (REFERENCE / name).write_text(compose(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
