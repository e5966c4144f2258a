"""What may stand where a shell asks: files, programs, settings. Loaded when a shell asks, and at no other time.

Click completes commands, options and choices by itself. Of arguments it knows no more than that they are text; here they are told
apart by the names that the help shows, so that a command says once what it takes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

import click
from click.shell_completion import CompletionItem, FishComplete, ShellComplete, get_completion_class

__all__ = ["completion_class", "teach"]

PROGRAMS_MAX: Final = 500  # programs offered at most; a longer list helps nobody
_FILE_METAVARS = frozenset(("PATH", "FILE", "DIR"))
_FILE_ARGUMENTS = frozenset(("out", "archive", "directory", "file", "path", "receipt", "proposal"))


_Offer = Callable[[click.Context, str], list[CompletionItem]]


class _Offered(click.types.StringParamType):
    """Text, with what a shell offers for it.

    Args:
        offer: Gives the items for what was typed so far.
    """

    name = "text"

    def __init__(self, offer: _Offer) -> None:
        self._offer = offer

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return what may stand here."""
        return self._offer(ctx, incomplete)


def _files(_context: click.Context, incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(incomplete, type="file")]


def _command_words(context: click.Context, incomplete: str) -> list[CompletionItem]:
    """The first word of a command is a program, what follows are most often files."""
    is_first = not context.params.get("command")
    programs = sorted(_programs(incomplete)) if is_first and incomplete and os.sep not in incomplete else []
    return [*_files(context, incomplete), *(CompletionItem(name) for name in programs[:PROGRAMS_MAX])]


def _programs(beginning: str) -> set[str]:
    """Names on PATH that begin so."""
    found = set()
    for folder in os.get_exec_path():
        try:
            with os.scandir(folder) as entries:
                names = [entry.name for entry in entries if entry.name.startswith(beginning)]
        except OSError:
            continue
        found |= {name for name in names if os.access(f"{folder}/{name}", os.X_OK)}
    return found


def _entries(context: click.Context, incomplete: str) -> list[CompletionItem]:
    """An entry is named by its index, by what it made, or as the last one."""
    last = [CompletionItem("@last", help="The newest entry.")] if "@last".startswith(incomplete) else []
    return [*_files(context, incomplete), *last]


def _settings(_context: click.Context, incomplete: str) -> list[CompletionItem]:
    from lichen.runs.workspace.config import USER_SETTINGS

    return [CompletionItem(name) for name in USER_SETTINGS if name.startswith(incomplete)]


def _offer_of(group: str, parameter: click.Parameter) -> _Offer | None:
    """What to offer for a parameter; None where nothing is known, or click knows it."""
    if parameter.type not in (click.STRING, click.UNPROCESSED):
        return None
    if isinstance(parameter, click.Option):
        return _files if parameter.metavar in _FILE_METAVARS else None
    if parameter.name == "command":
        return _command_words
    if group == "config" and parameter.name == "name":
        return _settings
    if parameter.name == "reference":
        return _entries
    return _files if parameter.name in _FILE_ARGUMENTS else None


def teach(command: click.Command, group: str = "") -> click.Command:
    """Let a command, and those below it, offer what may stand in their arguments.

    Args:
        command: Loaded for a shell that asks; its arguments are read as text as before.
        group: Name of the command it stands below.
    """
    for parameter in command.params:
        offer = _offer_of(group, parameter)
        if offer is not None:
            parameter.type = _Offered(offer)
    if isinstance(command, click.Group):
        for below in command.commands.values():
            teach(below, command.name or "")
    return command


class _Fish(FishComplete):
    """Click's, but what explains an offer may have commas in it."""

    source_template = FishComplete.source_template.replace(
        'string split "," $completion', 'string split --max 1 "," $completion'
    )


def completion_class(shell: str) -> type[ShellComplete]:
    """Return what writes the script of a shell."""
    if shell == "fish":
        return _Fish
    kind = get_completion_class(shell)
    assert kind is not None
    return kind
