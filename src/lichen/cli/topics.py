"""`lichen help`: a command's help, or a topic beside the commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, pass_invocation

__all__ = ["TOPICS", "help_command"]

_VARIABLES = (
    ("LICHEN_LEDGER", "ledger to use, as --ledger"),
    (
        "LICHEN_HOME",
        "directory of your keys and settings; $XDG_CONFIG_HOME/lichen, else ~/.config/lichen, when not set",
    ),
    ("LICHEN_MEMBER", "member to act as, instead of identity.member of the settings"),
    ("LICHEN_TRACEBACK", "when set, a bug in Lichen shows where it happened"),
    ("NO_COLOR", "when set, no colour on terminals either"),
)
_REFERENCES = (
    ("12, #12", "the entry at that index"),
    ("@last", "the newest run"),
    ("model.pkl", "the newest data, model or run with the content of this file"),
    ("bafy…", "the entry with this CID, or its beginning"),
    (
        "3f0c9a7e…",
        "the entry with this SHA-256 or fingerprint in hexadecimal, or its beginning (eight digits at least)",
    ),
)


def _exit_codes(invocation: Invocation) -> None:
    from lichen.cli.errors import exit_statuses

    rows = exit_statuses()
    if invocation.as_json:
        invocation.output.json([{"status": status, "codes": [code for code in codes.split(", ") if code], "meaning": meaning} for status, codes, meaning in rows])  # fmt: skip
        return
    invocation.output.line(
        "Exit statuses. `lichen run` ends as the command it ran; its own failures end it before that."
    )
    invocation.output.line("")
    for status, codes, meaning in rows:
        invocation.output.line(f"  {status:>3}  {codes}" if codes else f"  {status:>3}  {meaning}")
        if codes:
            invocation.output.line(f"       {meaning}")


def _list(title: str, rows: tuple[tuple[str, str], ...]) -> Callable[[Invocation], None]:
    def show(invocation: Invocation) -> None:
        if invocation.as_json:
            invocation.output.json(dict(rows))
            return
        invocation.output.line(title)
        invocation.output.line("")
        invocation.output.pairs([(f"  {name}", meaning) for name, meaning in rows])

    return show


TOPICS: dict[str, tuple[str, Callable[[Invocation], None]]] = {
    "exit-codes": ("what exit statuses mean", _exit_codes),
    "references": ("how to name an entry", _list("An entry can be named by", _REFERENCES)),
    "variables": ("environment variables", _list("Environment variables", _VARIABLES)),
}
"""Topic to what it is about and who shows it."""


@click.command(
    "help", epilog=examples("lichen help run", "lichen help publish model", "lichen help exit-codes")
)
@click.argument("topic", nargs=-1)
@json_option
@click.pass_context
@pass_invocation
def help_command(invocation: Invocation, context: click.Context, /, topic: tuple[str, ...]) -> None:
    """Explain a command or a topic."""
    from lichen.errors import NotFoundError

    root = context.find_root()
    if not topic:
        if invocation.as_json:
            topics = {name: what for name, (what, _) in TOPICS.items()}
            invocation.output.json({**_told(root), "topics": topics})
            return
        invocation.output.text(root.get_help())
        invocation.output.line("")
        invocation.output.line(
            "Topics: " + ", ".join(f"`lichen help {name}` ({what})" for name, (what, _) in TOPICS.items())
        )
        return
    if len(topic) == 1 and topic[0] in TOPICS:
        TOPICS[topic[0]][1](invocation)
        return
    command, within = root.command, root
    for word in topic:
        child = command.get_command(within, word) if isinstance(command, click.Group) else None
        if child is None:
            known = ", ".join(TOPICS)
            raise NotFoundError(
                f"there is no command or topic {' '.join(topic)!r}",
                remedy=f"`lichen --help` lists the commands; topics: {known}.",
            )
        within = click.Context(child, info_name=word, parent=within)
        command = child
    if invocation.as_json:
        invocation.output.json(_told(within))
        return
    invocation.output.text(within.get_help())


def _told(within: click.Context) -> dict[str, Any]:
    """Return the help of a command as a table for JSON: what it does, its arguments, its options and its commands."""
    import inspect  # only here: it is slow to import

    command = within.command
    told: dict[str, Any] = {
        "command": within.command_path,
        "help": inspect.cleandoc(command.help or ""),
        "arguments": [each.human_readable_name for each in command.params if isinstance(each, click.Argument)],
        "options": [
            {
                "names": [*each.opts, *each.secondary_opts], "help": each.help, "is_flag": each.is_flag,
                "is_required": each.required, "is_repeatable": each.multiple,
            }
            for each in command.get_params(within)
            if isinstance(each, click.Option)
        ],
    }  # fmt: skip
    if isinstance(command, click.Group):
        names = command.list_commands(within)
        told["commands"] = {
            name: child.get_short_help_str(limit=200)
            for name in names
            if (child := command.get_command(within, name)) is not None
        }
    return told
