"""Ledgers behind a URL: which text names one, and who opens it.

This room knows no network. Whoever composes the program (the command line, the Python interface) says here how a ledger
behind a URL is opened.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lichen.errors import UsageError
from lichen.runs.workspace.project import LEDGER_DIRECTORY

if TYPE_CHECKING:
    from lichen.runs.workspace.config import UserConfig
    from lichen.runs.workspace.project import Project
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Opener", "is_remote", "open_remote_ledger", "remote_address", "use_opener"]


class Opener(Protocol):
    """Opens a ledger behind a URL."""

    def __call__(self, url: str, project: Project, user: UserConfig, read_only: bool) -> Workspace:
        """Return a workspace on it; nothing need be asked of the server yet."""


_openers: list[Opener] = []


def use_opener(opener: Opener) -> None:
    """Say who opens ledgers behind a URL from now on."""
    _openers[:] = [opener]


def is_remote(text: str | None) -> bool:
    """Say whether what names a ledger is a URL."""
    return text is not None and text.startswith(("http://", "https://"))


def remote_address(option: str | None, project: Project, user: UserConfig) -> str | None:
    """Return the URL of the ledger a command means; None when it means a directory.

    Looked for in the same order as `lichen.runs.workspace.project.locate_ledger` does.
    """
    if named := option or os.environ.get("LICHEN_LEDGER"):
        return named if is_remote(named) else None
    if project.config.ledger:
        return project.config.ledger if is_remote(project.config.ledger) else None
    cwd = Path.cwd()
    if any((place / LEDGER_DIRECTORY / "ledger.sqlite").exists() for place in (cwd, *cwd.parents)):
        return None
    default = user.get_text("ledger.default")
    return default if is_remote(default) else None


def open_remote_ledger(url: str, project: Project, user: UserConfig, *, read_only: bool) -> Workspace:
    """Open a ledger behind a URL.

    Raises:
        UsageError: This program was put together without that.
    """
    if not _openers:
        raise UsageError(
            f"{url} is on a server, which cannot be used from here", remedy="Name a ledger directory."
        )
    return _openers[0](url, project, user, read_only)
