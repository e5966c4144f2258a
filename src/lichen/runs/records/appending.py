"""Append a record now, or keep it until the server is back.

A member's record that a served ledger cannot take because its server is away waits in the same spool as a run does, and the
next command that writes sends it. What it refers to are entries, so records that wait never depend on each other; they are
sent in the order in which they were made. Only an absent server makes a record wait: what a rule refuses, or a disk of this
machine cannot take, is said at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lichen.encoding.statement import Statement
from lichen.errors import LichenError, NetworkError
from lichen.runs.records.spool import Spool

if TYPE_CHECKING:
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Recorded", "append_or_keep", "spool_of", "waiting_line", "waiting_statements"]


@dataclass(frozen=True)
class Recorded:
    """What became of a record.

    Args:
        index: Its entry; None while it waits.
        waits_in: The file it waits in; None when it is in the ledger.
        reason: Why it waits.
    """

    index: int | None
    waits_in: str | None = None
    reason: str = ""

    @property
    def entry(self) -> int:
        """The entry of a record that is in the ledger."""
        assert self.index is not None
        return self.index


def waiting_line(reason: str, waits_in: str) -> str:
    """Say that a record waits, for what, and where."""
    return (
        f"the record was not taken yet: {reason}\n"
        f"The next command that can write to the ledger sends it; until then it waits in {waits_in}"
    )


def spool_of(workspace: Workspace) -> Spool:
    """The records of a ledger that wait."""
    return Spool(workspace.directory / "spool", workspace.fallback_spool)


def append_or_keep(workspace: Workspace, said: Statement) -> Recorded:
    """Sign a record and append it; when the server is away, keep it until it is back.

    Args:
        workspace: The ledger, and whose key signs.
        said: The record.

    Raises:
        Rejected: A rule said no.
        StorageError: The ledger of this machine cannot take it; or the server is away and nothing can be kept either.
    """
    try:
        return Recorded(workspace.ledger.append_signed(said, workspace.identity.key, seal=True).index)
    except NetworkError as error:
        place = spool_of(workspace).add(said.to_bytes(), reason=error.message)
        return Recorded(None, str(place), error.message)


def waiting_statements(workspace: Workspace, kind: str) -> Iterator[tuple[Statement, str]]:
    """Yield the acting member's records of a kind that wait, each with the file it waits in, oldest first."""
    for spooled in spool_of(workspace).waiting():
        with contextlib.suppress(LichenError):
            statement = Statement.from_bytes(spooled.record)
            if statement.kind == kind and statement.predicate["member"] == workspace.member:
                yield statement, str(spooled.path)
