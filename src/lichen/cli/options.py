"""What commands share: the options ``--ledger`` and ``--json``, and the invocation they fill in.

An :class:`Invocation` is made for each call of `lichen` and passed to the command as click's object. It knows how the
answer is to look and which ledger was opened, so that what the command itself cost can be booked there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lichen.cli.output import Output

if TYPE_CHECKING:
    from pathlib import Path

    from lichen.runs.workspace.config import UserConfig
    from lichen.runs.workspace.project import Project
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Invocation", "json_option", "ledger_option", "numbers", "pass_invocation"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Invocation:
    """One call of `lichen`.

    Attributes:
        output: Where the command writes.
        as_json: Whether the answer is wanted as JSON.
        command: Name of the command, such as ``publish data``.
        ledger_directory: Directory of the ledger that was opened; None while there is none.
    """

    def __init__(self) -> None:
        self.output = Output()
        self.as_json = False
        self.command = ""
        self.ledger_directory: Path | None = None

    @contextlib.contextmanager
    def workspace(
        self, option: str | None, *, project: Project | None = None, read_only: bool = False
    ) -> Iterator[Workspace]:
        """Open the ledger a command means, for as long as it needs it.

        Args:
            option: What ``--ledger`` says.
            project: Project of the command; found from the working directory when None.
            read_only: Open nothing for writing.

        Raises:
            NotALedgerError: There is none.
        """
        from lichen.runs.workspace.remotes import use_opener
        from lichen.runs.workspace.workspace import Workspace

        use_opener(self._open_remote)
        with Workspace.find(option, project=project, read_only=read_only) as workspace:
            self.works_on(workspace.directory)
            yield workspace
            self._tell_of_mark(workspace)

    def _tell_of_mark(self, workspace: Workspace) -> None:
        """Say that the high-water mark could not be raised: an older copy of the ledger would not be known for one."""
        ledger = vars(workspace).get("ledger")
        problem = getattr(ledger, "high_water_problem", None)
        if problem is not None:
            from lichen.cli.narrator import WarningNarrator

            WarningNarrator(self.output).warning(str(problem))

    def _open_remote(self, url: str, project: Project, user: UserConfig, read_only: bool) -> Workspace:
        """Open a ledger behind a URL; what the user should know about it goes to standard error."""
        from lichen.net.remote.workspace import open_remote

        return open_remote(url, project, user, read_only=read_only, notify=self.output.note)

    def send_waiting(self, workspace: Workspace) -> None:
        """Send what waits for the ledger, before more is recorded."""
        from lichen.cli.narrator import WarningNarrator
        from lichen.runs.session import flush_spool

        flush_spool(workspace, WarningNarrator(self.output))

    def works_on(self, directory: Path) -> None:
        """Remember the ledger to whose account this call goes."""
        self.ledger_directory = directory
        self.command = click.get_current_context().command_path.partition(" ")[2]

    def book_own_cost(self) -> None:
        """Write down what this call itself cost, beside the ledger it worked with; never fails."""
        directory, self.ledger_directory = self.ledger_directory, None
        if directory is None:
            return
        with contextlib.suppress(Exception):
            from lichen.runs.queries.balance import record_own_cost

            record_own_cost(directory, self.command)


pass_invocation = click.make_pass_decorator(Invocation, ensure=True)


def ledger_option(function: _Function) -> _Function:
    """Add ``--ledger``."""
    return click.option(
        "--ledger",
        metavar="DIR",
        help="Ledger to use, or the URL of a served one; found from here upward when not given. LICHEN_LEDGER says the same.",
    )(function)


def json_option(function: _Function) -> _Function:
    """Add ``--json``, which the invocation remembers, also for an error that comes later."""

    def remember(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
        if value:
            context.ensure_object(Invocation).as_json = True

    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=remember,
        help="Answer in JSON, for programs.",
    )(function)


def numbers(texts: Iterable[str], option: str, example: str) -> dict[str, float]:
    """Read the values of an option of the form ``NAME=NUMBER``.

    Args:
        texts: As typed.
        option: Name of the option, for the error.
        example: A value that would do, for the error.

    Raises:
        UsageError: One is not of that form.
    """
    import math

    from lichen.errors import UsageError

    values = {}
    for text in texts:
        name, _, number = text.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value):
            raise UsageError(
                f"{option} {text!r} is not NAME=NUMBER", remedy=f"For example: {option} {example}"
            )
        values[name] = value
    return values
