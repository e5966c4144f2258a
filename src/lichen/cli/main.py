"""`lichen`: the table of commands, and what happens around each of them.

Rules upheld:

* nothing is imported here that takes time: a command's file is loaded when the command is called, and the help of the
  whole is written from the table (a test compares it with each command's own help);
* no exception leaves as a traceback: see ``errors``;
* what a command itself cost is booked in the ledger it worked with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import click

from lichen import __version__
from lichen.cli.help import write_groups
from lichen.cli.options import Invocation

__all__ = ["GROUPS", "main"]

GROUPS: Mapping[str, Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "Blockchain for AI": {
            "run": ("run", "Run a command, or answer it from the ledger."),
            "why": ("why", "Say why a command would be answered, or not."),
            "publish": ("publish", "Publish data, a model or an evaluation."),
            "find": ("find", "Find earlier work."),
            "show": ("show", "Show one entry, with all that is known of it."),
            "get": ("get", "Get an artefact back, verified."),
            "lineage": ("lineage", "Draw what a result came from and went into."),
            "flag": ("flag", "Report an error of a model or of data."),
            "withdraw": ("flag", "Withdraw something you published."),
        },
        "AI for blockchain": {
            "experiment": ("experiment", "Put a claim to the test, on this machine."),
        },
        "Assess": {
            "balance": ("balance", "Weigh the energy avoided against the energy spent."),
            "report": ("report", "Report energy and CO2, ready for a paper."),
            "verify": ("verify", "Verify a receipt, or the whole ledger."),
            "log": ("log", "List the entries of the ledger."),
        },
        "Set up": {
            "init": ("init", "Start a ledger here."),
            "key": ("key", "Manage keys and members."),
            "config": ("config", "Read and change settings."),
            "completion": ("completion", "Print the completion script of a shell."),
            "help": ("topics", "Explain a command or a topic."),
        },
    }
)
"""Title of a group to its commands; command to the file of this room that holds it and what it does."""

_SYNOPSIS = """A ledger for machine learning that pays for itself in kilowatt-hours.

Put `lichen run --` before a training command. The first time it is metered and recorded in a ledger that anyone can
verify; the next time the same work is asked for, the ledger answers.
"""
_EPILOG = """\b
First steps:
  lichen init
  lichen run -- python train.py
  lichen run -- python train.py     (answered from the ledger)

\b
`lichen COMMAND --help` shows examples. Exit statuses: `lichen help exit-codes`."""


class CommandTable(click.Group):
    """A group whose commands are loaded when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the help."""
        return [name for commands in GROUPS.values() for name in commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a command; None when there is none of that name."""
        for commands in GROUPS.values():
            if cmd_name in commands:
                from importlib import import_module

                module = import_module(f"lichen.cli.{commands[cmd_name][0]}")
                command = getattr(module, f"{cmd_name}_command")
                assert isinstance(command, click.Command)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, or say which one was probably meant."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"Did you mean `lichen {near[0]}`?" if near else "`lichen --help` lists the commands."
            if os.path.exists(name) or "/" in name:  # noqa: PTH110 - pathlib is not worth its import here
                hint = f"To run it: `lichen run -- {name} …`."
            raise _usage_error(f"there is no command {name!r}", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in their groups, without loading one of them."""
        told = {
            title: {name: what for name, (_, what) in commands.items()} for title, commands in GROUPS.items()
        }
        write_groups(formatter, told)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command line and leave the process with its status.

        Args:
            args: Words after `lichen`; those of the process when None.
            prog_name: What the usage line calls the program.
            complete_var: Variable that asks for completion.
            standalone_mode: False returns the command's result and lets exceptions through.
            extra: For click's context.
        """
        if not standalone_mode or "_LICHEN_COMPLETE" in os.environ:
            return super().main(args, prog_name or "lichen", complete_var, standalone_mode, **extra)
        sys.exit(_run(self, list(sys.argv[1:] if args is None else args), extra))


def _run(table: CommandTable, args: list[str], extra: dict[str, Any]) -> int:
    """Run a command line; return its exit status after saying what went wrong, if anything did."""
    invocation = Invocation()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with table.make_context("lichen", list(args), obj=invocation, **extra) as context:
            status = table.invoke(context)
        sys.stdout.flush()
        return status if isinstance(status, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError" and error.ctx is not None:
            click.echo(error.ctx.get_help())
            return 0
        return _fail(error, args, invocation)
    except BrokenPipeError:
        return _end_of_reader()
    except (KeyboardInterrupt, click.Abort, EOFError):
        sys.stderr.write("\nlichen: interrupted\n")
        sys.stderr.flush()
        return 130
    except Exception as error:
        return _fail(error, args, invocation)
    finally:
        invocation.book_own_cost()


def _fail(error: Exception, args: list[str], invocation: Invocation) -> int:
    from lichen.cli.errors import failure_of, show_failure

    if os.environ.get("LICHEN_TRACEBACK"):
        import traceback

        traceback.print_exc()
    if isinstance(error, click.ClickException):
        invocation.as_json |= _asks_for_json(error, args)
        error = _from_click(error)
    failure = failure_of(error)
    show_failure(failure, as_json=invocation.as_json)
    return failure.exit_status


def _asks_for_json(error: click.ClickException, args: list[str]) -> bool:
    """Say whether a command line that could not be parsed asked for JSON."""
    context = getattr(error, "ctx", None)
    takes_json = context is not None and any(parameter.name == "json" for parameter in context.command.params)
    return takes_json and "--json" in args


def _from_click(error: click.ClickException) -> Exception:
    """Say a mistake in the command line in our words, with the help that leads out of it."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "lichen"
    message = error.format_message().rstrip(".")
    return _usage_error(message[:1].lower() + message[1:], f"`{path} --help` shows what it takes.")


def _usage_error(message: str, remedy: str) -> Exception:
    from lichen.errors import UsageError

    return UsageError(message, remedy=remedy)


def _end_of_reader() -> int:
    """Leave quietly when whoever read our output stopped reading, as `head` does."""
    from lichen.cli.errors import STATUS_BROKEN_PIPE

    with open(os.devnull, "w", encoding="utf-8") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), sys.stdout.fileno())
    return STATUS_BROKEN_PIPE


main = CommandTable(
    name="lichen",
    help=_SYNOPSIS,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
main = click.version_option(
    __version__, "-V", "--version", prog_name="lichen", message="%(prog)s %(version)s"
)(main)
