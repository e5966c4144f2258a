"""Put the outputs of an earlier run back, so that the work need not be done again.

What is put back is code in disguise (a model file may run when loaded) and lands in the user's directory, hence the rules: everything is
checked before anything is written; nothing leaves the project except to paths the user declared, or reaches into version control
or a ledger; inputs are never touched; another member's outputs go only to declared paths; a file that would be replaced
is kept in the store first; of what others made, a file that tools obey without being asked (hidden ones, settings, caches of bytecode)
goes back only where its own name was declared; a copy or reflink, never a hard link, so that later edits cannot reach the store.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.errors import EncodingError, StorageError, UsageError, VerificationError
from lichen.runs.work.manifest import Manifest, Output
from lichen.runs.workspace.config import PROJECT_FILE
from lichen.runs.workspace.project import LEDGER_DIRECTORY

if TYPE_CHECKING:
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["RestorePlan", "plan_restore", "restore", "undeclared_outputs"]

_OBEYED = frozenset(
    {
        PROJECT_FILE,
        "makefile",
        "conftest.py",
        "sitecustomize.py",
        "usercustomize.py",
        "pyproject.toml",
        "setup.py",
    }
)
_NAMED_MAX = 8  # paths told in one message
_GUARDED = frozenset({".git", ".hg", ".svn", LEDGER_DIRECTORY})


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


def undeclared_outputs(workspace: Workspace, manifest: Manifest, declared: Iterable[str]) -> list[str]:
    """Return the names of a run's outputs that are not among those declared: another member's are not put there.

    A file that tools obey must be declared by its own name, a directory around it does not do.

    Args:
        workspace: Where to.
        manifest: Of the run.
        declared: Absolute paths, of files, or of directories for all below them.
    """
    allowed = tuple(declared)
    names = [output.name for output in manifest.outputs]
    return [name for name in names if not _is_declared(name, workspace.project.path_of(name), allowed)]


def _is_declared(name: str, path: str, allowed: tuple[str, ...]) -> bool:
    return path in allowed or (not _is_obeyed(name) and _is_below_any(path, allowed))


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
        UsageError: An output would overwrite an input, leave the project, reach into version control or a ledger, or land
            on an undeclared path although another member made it.
        EncodingError: The manifest names what is no path.
    """
    from lichen.content.cid import Cid

    project = workspace.project
    allowed = tuple(declared)
    inputs = {*manifest.code, *manifest.data, *manifest.executables}
    write, present, replaced, missing = [], [], [], []
    for output in manifest.outputs:
        path = project.path_of(output.name)
        is_declared = _is_below_any(path, allowed)
        place = _place_of(workspace, path, is_declared=is_declared)
        if output.name in inputs or project.name_of(place) in inputs:
            raise _would_overwrite_input(output.name)
        if not own and not _is_declared(output.name, path, allowed):
            raise _not_declared(workspace, undeclared_outputs(workspace, manifest, allowed))
        info = _status(place)
        if info is not None and workspace.digests.digest_file(Path(place)) == output.sha256:
            present.append(output)
            continue
        if info is not None:
            replaced.append(place)
        if workspace.store.has(Cid.parse(output.cid)):
            if not own:
                output = _checked(workspace, output)  # noqa: PLW2901 - the same output, made harmless
            write.append((output, place))
        else:
            missing.append(output)
    _check_inputs_stay(workspace, inputs, replaced)
    directories = []
    for name in manifest.directories:
        path = project.path_of(name)
        is_declared = _is_below_any(path, allowed)
        if own or is_declared:
            directories.append(_place_of(workspace, path, is_declared=is_declared))
    return RestorePlan(tuple(write), tuple(present), tuple(replaced), tuple(missing), tuple(directories))


def _is_obeyed(name: str) -> bool:
    """Say whether tools act on a file by themselves, so that writing it can be as good as running it."""
    parts = [part.casefold() for part in name.split("/")]
    return parts[-1] in _OBEYED or any(part.startswith(".") or part == "__pycache__" for part in parts)


def _checked(workspace: Workspace, output: Output) -> Output:
    """Make sure that the bytes behind another member's CID are those whose digest the entry names.

    Returns:
        The output with permission bits that let nobody else write, and nobody run it as its owner.

    Raises:
        VerificationError: They are other bytes.
    """
    from lichen.content.cid import Cid

    digest = hashlib.sha256()
    workspace.store.bring(Cid.parse(output.cid), output.size_bytes)
    with workspace.store.open(Cid.parse(output.cid)) as stored:
        while chunk := stored.read(1 << 20):
            digest.update(chunk)
    if digest.digest() != output.sha256:
        raise VerificationError(
            f"what the store holds for {output.name} is not what the entry names",
            expected=output.sha256,
            calculated=digest.digest(),
            remedy="Its author published a false manifest: use --rerun, and flag the entry.",
        )
    return replace(output, mode=output.mode & 0o755)


def _not_declared(workspace: Workspace, names: Sequence[str]) -> UsageError:
    paths = [os.path.relpath(workspace.project.path_of(name)) for name in names[:_NAMED_MAX]]
    more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
    obeyed = ", but by its own name it must be: tools obey such files" if any(map(_is_obeyed, names)) else ""
    words = " ".join(f"--out {shlex.quote(path)}" for path in paths)
    return UsageError(
        f"{', '.join(names[:_NAMED_MAX])}{more}, made by another member, {'is' if len(names) == 1 else 'are'} "
        f"not among your declared outputs{obeyed}",
        remedy=f"Declare {'it' if len(names) == 1 else 'them'} with {words}, by a directory, or in lichen.toml, then ask again.",
    )


def _is_below_any(path: str, entries: Iterable[str]) -> bool:
    return any(path == entry or path.startswith(entry.rstrip("/") + "/") for entry in entries)


def _would_overwrite_input(name: str) -> UsageError:
    return UsageError(f"{name} is an input of the run as well as an output", remedy="Use --rerun.")


def _check_inputs_stay(workspace: Workspace, inputs: Iterable[str], replaced: Iterable[str]) -> None:
    """Refuse to replace a file that the run read under another name, by way of a link."""
    targets = {}
    for place in replaced:
        info = os.lstat(place)
        targets[info.st_dev, info.st_ino] = place
    if not targets:
        return
    for name in inputs:
        with contextlib.suppress(OSError, EncodingError):  # an input that is not there cannot be overwritten
            path = workspace.project.path_of(name)
            info = Path(path).stat()
            if os.path.realpath(path) == targets.get((info.st_dev, info.st_ino)):
                raise _would_overwrite_input(name)


def _status(path: str) -> os.stat_result | None:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(
            f"an output cannot be put at {path}: {error.strerror}",
            remedy="Move away what is in its place, or use --rerun.",
        ) from error
    if not stat.S_ISREG(info.st_mode):
        raise UsageError(
            f"{path} is not a regular file, so an output cannot be put there", remedy="Move it away."
        )
    return info


def _place_of(workspace: Workspace, path: str, *, is_declared: bool) -> str:
    """Return where a path really leads, links in its directories followed; refuse places that nothing is restored to.

    Raises:
        UsageError: Outside the project and not declared, or inside version control or a ledger.
    """
    root = str(workspace.project.root)
    if os.path.normpath(path) != path or not path.startswith("/") or path == root:
        raise UsageError(f"the ledger names an output {path!r} that is no plain path", remedy="Use --rerun.")
    parent = os.path.realpath(Path(path).parent)
    place = f"{parent.rstrip('/')}/{Path(path).name}"
    if not is_declared and not _is_below_any(place, (root,)):
        raise UsageError(
            f"output {path} would leave the project {root}",
            remedy=f"Declare it with --out {path} if that is intended, or use --rerun.",
        )
    parts = Path(place.removeprefix(f"{root}/")).parts
    if _is_below_any(place, (str(workspace.directory),)) or not _GUARDED.isdisjoint(
        part.casefold() for part in parts
    ):
        raise UsageError(
            f"the ledger names an output {path}, which belongs to version control or to a ledger",
            remedy="Use --rerun, and flag the entry if somebody else wrote it.",
        )
    return place


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
        _make_directory(directory)
    for path in plan.replaced:
        kept = workspace.store.put_file(Path(path))
        if on_replaced is not None:
            on_replaced(path, str(kept.cid))
    written = []
    for output, path in plan.write:
        workspace.store.bring(Cid.parse(output.cid), output.size_bytes)
        inside = workspace.project.root if workspace.project.contains(path) else None
        workspace.store.fetch_to(
            Cid.parse(output.cid), Path(path), mode=output.mode, overwrite=True, within=inside
        )
        written.append(path)
    return tuple(written)


def _make_directory(path: str) -> None:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UsageError(
            f"{path} is a file, where the run made a directory", remedy="Move it away, or use --rerun."
        ) from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be made: {error.strerror}", remedy="Check the permissions there, or use --rerun."
        ) from error
