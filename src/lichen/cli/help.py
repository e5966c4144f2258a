"""How help reads: commands in groups, examples that can be typed, topics beside the commands."""

from __future__ import annotations

from collections.abc import Mapping

import click

__all__ = ["examples", "write_groups"]

EXIT_STATUS_LINE = "Exit statuses: `lichen help exit-codes`."


def examples(*lines: str) -> str:
    """Return the end of a command's help: commands that work as they stand, one per line.

    Args:
        lines: Commands; a line that starts with a blank continues the one before it.
    """
    title = "Example:" if sum(not line.startswith(" ") for line in lines) == 1 else "Examples:"
    return "\n".join(("\b", title, *(f"  {line}" for line in lines), "", "\b", EXIT_STATUS_LINE))


def write_groups(formatter: click.HelpFormatter, groups: Mapping[str, Mapping[str, str]]) -> None:
    """Write commands under the titles of their groups.

    Args:
        formatter: Of the help that is being written.
        groups: Title to commands; command to what it does.
    """
    width = max(len(name) for commands in groups.values() for name in commands)
    for title, commands in groups.items():
        with formatter.section(title):
            formatter.write_dl([(name.ljust(width), what) for name, what in commands.items()])
