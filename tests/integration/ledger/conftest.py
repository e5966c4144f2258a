"""A terminal to type in, as the tests of the command line have it."""

from __future__ import annotations

from tests.integration.cli.conftest import newcomer, project, terminal

__all__ = ["newcomer", "project", "terminal"]
