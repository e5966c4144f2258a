"""Archives and backups of a workspace: which artefacts belong to a ledger is known here, where manifests are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.encoding.foreign_json import read_json
from lichen.errors import LichenError
from lichen.runs.workspace.workspace import LOG_KEY_FILE

if TYPE_CHECKING:
    from lichen.archive.restore import Restored
    from lichen.archive.writer import ArchiveReport
    from lichen.encoding.statement import Statement
    from lichen.ledger.backup import BackedUp
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Archived", "archive_ledger", "back_up_ledger", "restore_ledger"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Archived:
    """What an archive holds.

    Args:
        report: What was written.
        unread_count: Records whose manifest or table of contents could not be read, so that the artefacts it names are not
            even listed.
    """

    report: ArchiveReport
    unread_count: int

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        report = self.report
        names = [*type(report).__slots__]
        return {**{name: getattr(report, name) for name in names}, "unread_count": self.unread_count}


def archive_ledger(
    workspace: Workspace,
    target: Path,
    *,
    artefacts: bool = True,
    update: bool = False,
    progress: Progress | None = None,
) -> Archived:
    """Write the archive of a ledger, with the artefacts that its records name.

    Args:
        workspace: Ledger and store.
        target: Directory to make, or with ``update`` the archive that is there.
        artefacts: Whether artefacts are put into it.
        update: Add what was appended since.
        progress: Told how far it is.

    Raises:
        UsageError: There is something at the target, or nothing to update.
        VerificationError: The archive to update is not one of this ledger's past.
        StorageError: Disk full, or not writable; the target is as it was.
    """
    from lichen.archive.writer import write_archive

    within = _Within(workspace)
    report = write_archive(
        workspace.ledger,
        target,
        store=workspace.store if artefacts else None,
        named_within=within,
        update=update,
        progress=progress,
    )
    return Archived(report, within.unread_count)


class _Within:
    """Names what records name through a manifest, or through the table of contents of a directory."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.unread_count = 0

    def __call__(self, statement: Statement) -> Iterator[str]:
        said = statement.predicate
        try:
            if statement.kind == "run":
                manifest = self._workspace.manifest(said["manifest"])
                yield from (output.cid for output in manifest.outputs if output.cid)
                if manifest.detail is not None:
                    yield manifest.detail
            elif statement.kind in ("data", "model") and "detail" in said:
                table = read_json(self._workspace.get_private(said["detail"]))
                yield from (str(file["cid"]) for file in table["files"])
        except (LichenError, ValueError, KeyError, TypeError):
            self.unread_count += 1


def restore_ledger(archive: Path, directory: Path, progress: Progress | None = None) -> Restored:
    """Make a ledger directory of an archive.

    Args:
        archive: The archive.
        directory: Directory to make.
        progress: Told how many entries are done.

    Raises:
        UsageError: No archive, or something is in the way.
        VerificationError: The archive does not hold.
        EncodingError: It is malformed.
        StorageError: Disk full, or not writable.
    """
    from lichen.archive.restore import restore
    from lichen.contracts import default_contracts
    from lichen.runs.queries.views import default_views

    return restore(archive, directory, default_contracts(), default_views(), progress=progress)


def back_up_ledger(workspace: Workspace, target: Path, progress: Progress | None = None) -> BackedUp:
    """Copy the ledger file while others append to it.

    Args:
        workspace: The ledger.
        target: File to make.
        progress: Told how far it is.

    Raises:
        UsageError: Something is at the target.
        StorageError: Disk full, or not writable.
    """
    from lichen.contracts import default_contracts
    from lichen.ledger.backup import back_up

    return back_up(workspace.directory, target, default_contracts(), progress=progress)


def log_key_path(directory: Path) -> Path:
    """Where the log's secret key belongs."""
    return directory / LOG_KEY_FILE
