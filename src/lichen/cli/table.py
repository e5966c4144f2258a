"""The table of commands, and what happens around each of them.

Rules upheld:

* a command's file is loaded when the command is called, and none for the help of the whole;
* no exception leaves as a traceback: see ``errors``;
* what a command itself cost is booked in the ledger it worked with.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from lichen import __version__
from lichen.cli.front_page import EPILOG, GROUPS, SYNOPSIS, front_page
from lichen.cli.options import Invocation

__all__ = ["CommandTable", "table"]


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
                if ctx.resilient_parsing:  # a shell asks what could follow
                    from lichen.cli.completing import teach

                    teach(command)
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was typed, or say which one was probably meant."""
        name = args[0] if args else ""
        if ctx.resilient_parsing and self.get_command(ctx, name) is None:
            return None, None, args  # a shell asks what could follow: nothing does, and nobody is told off
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            import difflib

            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            hint = f"Did you mean `lichen {near[0]}`?" if near else "`lichen --help` lists the commands."
            if os.path.exists(name) or "/" in name:  # noqa: PTH110 - pathlib is not worth its import here
                hint = f"To run it: `lichen run -- {name} …`."
            raise _usage_error(f"there is no command {name!r}", hint)
        return super().resolve_command(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """Return the front page."""
        return front_page().rstrip("\n")

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


def _run(commands: CommandTable, args: list[str], extra: dict[str, Any]) -> int:
    """Run a command line; return its exit status after saying what went wrong, if anything did."""
    invocation = Invocation()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        with commands.make_context("lichen", list(args), obj=invocation, **extra) as context:
            status = commands.invoke(context)
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


table = CommandTable(
    name="lichen",
    help=SYNOPSIS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=True,
)
table = click.version_option(
    __version__, "-V", "--version", prog_name="lichen", message="%(prog)s %(version)s"
)(table)
