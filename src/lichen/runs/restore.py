"""Put the outputs of an earlier run back, so that the work need not be done again.

What is put back is code in disguise (a model file may run when loaded) and lands in the user's directory, hence the rules: everything is
checked before anything is written; nothing leaves the project except to paths the user declared; inputs are never
touched; another member's outputs go only to declared paths; a file that would be replaced is kept in the store first;
a copy or reflink, never a hard link, so that later edits cannot reach the store.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.errors import UsageError
from lichen.runs.manifest import Manifest, Output

if TYPE_CHECKING:
    from lichen.runs.workspace import Workspace

__all__ = ["RestorePlan", "plan_restore", "restore"]


@dataclass(frozen=True)
class RestorePlan:
    """What restoring would do.

    Args:
        write: Outputs to fetch, with the absolute path of each.
        present: Outputs that are there already, byte for byte.
        replaced: Paths whose present content will be kept in the store and replaced.
        missing: Outputs the store does not hold.
        directories: Directories to make.
    """

    write: tuple[tuple[Output, str], ...]
    present: tuple[Output, ...]
    replaced: tuple[str, ...]
    missing: tuple[Output, ...]
    directories: tuple[str, ...]


def plan_restore(
    workspace: Workspace, manifest: Manifest, *, own: bool, declared: Iterable[str]
) -> RestorePlan:
    """Check that outputs may be put back, and say what that takes.

    Args:
        workspace: Where to.
        manifest: Of the run whose outputs are wanted.
        own: Whether the requester made the run.
        declared: Absolute paths the requester declared as outputs (files, or directories for all below them).

    Returns:
        The plan; nothing has been written.

    Raises:
        UsageError: An output would overwrite an input, leave the project, pass through a link, or land on an undeclared
            path although another member made it.
    """
    from lichen.content.cid import Cid

    project = workspace.project
    allowed = tuple(declared)
    inputs = set(manifest.code) | set(manifest.data) | set(manifest.executables)
    write, present, replaced, missing = [], [], [], []
    for output in manifest.outputs:
        path = project.path_of(output.name)
        if output.name in inputs:
            raise UsageError(
                f"{output.name} is an input of the run as well as an output", remedy="Use --rerun."
            )
        is_declared = any(path == entry or path.startswith(entry.rstrip("/") + "/") for entry in allowed)
        _check_place(path, str(project.root), is_declared)
        if not own and not is_declared:
            raise UsageError(
                f"{output.name} was made by another member and is not among your declared outputs",
                remedy=f"Declare it with --out {os.path.relpath(path)} or in lichen.toml, then ask again.",
            )
        info = _status(path)
        if info is not None and workspace.digests.digest_file(Path(path)) == output.sha256:
            present.append(output)
            continue
        if info is not None:
            replaced.append(path)
        if workspace.store.has(Cid.parse(output.cid)):
            write.append((output, path))
        else:
            missing.append(output)
    directories = tuple(
        project.path_of(name) for name in manifest.directories if project.contains(project.path_of(name))
    )
    return RestorePlan(tuple(write), tuple(present), tuple(replaced), tuple(missing), directories)


def _status(path: str) -> os.stat_result | None:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(info.st_mode):
        raise UsageError(
            f"{path} is not a regular file, so an output cannot be put there", remedy="Move it away."
        )
    return info


def _check_place(path: str, root: str, is_declared: bool) -> None:
    """Refuse places outside the project and places reached through links out of it."""
    if os.path.normpath(path) != path or not path.startswith("/"):
        raise UsageError(f"the ledger names an output {path!r} that is no plain path", remedy="Use --rerun.")
    parent = os.path.realpath(Path(path).parent)
    inside = (parent + "/").startswith(root.rstrip("/") + "/")
    if not inside and not is_declared:
        raise UsageError(
            f"output {path} would leave the project {root}",
            remedy=f"Declare it with --out {path} if that is intended, or use --rerun.",
        )


def restore(
    workspace: Workspace, plan: RestorePlan, on_replaced: Callable[[str, str], object] | None = None
) -> tuple[str, ...]:
    """Carry out a plan.

    Args:
        workspace: Where to.
        plan: What to do.
        on_replaced: Told the path of every file with other content, and the CID under which the store keeps that content.

    Returns:
        Paths written. Every file appears whole or not at all, verified against its CID.

    Raises:
        LichenError: The store, the disk or a digest failed; files already in place stay, and are correct.
    """
    from lichen.content.cid import Cid

    for directory in plan.directories:
        Path(directory).mkdir(parents=True, exist_ok=True)
    for path in plan.replaced:
        kept = workspace.store.put_file(Path(path))
        if on_replaced is not None:
            on_replaced(path, str(kept.cid))
    written = []
    for output, path in plan.write:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        inside = workspace.project.root if workspace.project.contains(path) else None
        workspace.store.fetch_to(
            Cid.parse(output.cid), Path(path), mode=output.mode, overwrite=True, within=inside
        )
        written.append(path)
    return tuple(written)
