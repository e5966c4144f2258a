"""Get an artefact out of the store under a name of one's choice; every byte is checked against its CID on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.encoding.foreign_json import read_json
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError, NotFoundError, UsageError
from lichen.runs.queries.reference import resolve
from lichen.runs.workspace.project import invisible

if TYPE_CHECKING:
    from lichen.content.cid import Cid
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["FetchedArtefact", "fetch", "listed_files"]


@dataclass(frozen=True)
class FetchedArtefact:
    """What was fetched.

    Args:
        path: Where it lies.
        cid: CID text of the file, or of the directory.
        size_bytes: Size, of all files together.
        file_count: Files written or found equal.
        index: Entry it belongs to, when it was named by one.
    """

    path: Path
    cid: str
    size_bytes: int
    file_count: int
    index: int | None


def fetch(
    workspace: Workspace,
    reference: str,
    target: Path | None = None,
    *,
    name: str | None = None,
    overwrite: bool = False,
) -> FetchedArtefact:
    """Fetch one artefact.

    Args:
        workspace: Ledger and store.
        reference: CID of anything in the store, or a name of an entry (see ``reference.resolve``): data and models give
            their artefact, a run gives its output.
        target: File or directory to write; named after the artefact, in the working directory, when None.
        name: Which output of a run, when it has several; as `lichen show` lists them, or the end of that.
        overwrite: Replace content that the store does not hold.

    Returns:
        Where it lies.

    Raises:
        NotFoundError: Nothing answers to the reference, or the store does not hold the artefact.
        UsageError: The entry has no artefact, or several and no name was given.
        VerificationError: The store's bytes are not what their CID says.
        StorageError: The target cannot be written.
    """
    cid = _as_cid(reference)
    if cid is not None and workspace.store.has(cid):
        return _fetch_file(workspace, cid, target or Path(str(cid)), None, overwrite=overwrite)
    index = resolve(workspace, reference)
    statement = Statement.from_bytes(workspace.ledger.entry(index).payload)
    said = statement.predicate
    if statement.kind == "run":
        return _fetch_output(workspace, index, said, target, name, overwrite=overwrite)
    if statement.kind not in ("data", "model"):
        raise UsageError(
            f"entry {index} is of kind {statement.kind}, which has no artefact",
            remedy="Name data, a model or a run.",
        )
    suggested = Path(_plain(said.get("title") or statement.subjects[0].name))
    if "detail" in said:
        return _fetch_directory(workspace, index, said, target or suggested, overwrite=overwrite)
    held = _as_cid(said["cid"])
    assert held is not None  # the contract lets nothing else in
    return _fetch_file(
        workspace, held, target or suggested, index, overwrite=overwrite, size_bytes=said["size_bytes"]
    )


def _as_cid(text: str) -> Cid | None:
    from lichen.content.cid import Cid

    try:
        return Cid.parse(text)
    except EncodingError:
        return None


def _plain(title: str) -> str:
    """Make a file name of a title."""
    kept = "".join(char if char.isalnum() or char in "._-" else "-" for char in title).strip("-.")
    return kept or "artefact"


def _fetch_file(
    workspace: Workspace,
    cid: Cid,
    target: Path,
    index: int | None,
    *,
    overwrite: bool,
    mode: int = 0o644,
    size_bytes: int | None = None,
) -> FetchedArtefact:
    if target.is_dir():
        raise UsageError(f"{target} is a directory", remedy="Name the file to write.")
    if size_bytes is not None:
        workspace.store.bring(cid, size_bytes)
    fetched = workspace.store.fetch_to(cid, target, mode=mode, overwrite=overwrite)
    return FetchedArtefact(target, str(cid), fetched.size_bytes, 1, index)


def _fetch_output(
    workspace: Workspace,
    index: int,
    said: Mapping[str, Any],
    target: Path | None,
    name: str | None,
    *,
    overwrite: bool,
) -> FetchedArtefact:
    outputs = workspace.manifest(said["manifest"]).outputs
    fitting = [
        output
        for output in outputs
        if name is None or output.name == name or output.name.endswith("/" + name)
    ]
    if not outputs:
        raise UsageError(
            f"entry {index} is a run that wrote no output, so there is nothing to get",
            remedy=f"`lichen show {index}` shows what it printed and measured; `lichen log --kind run` lists other runs.",
        )
    if len(fitting) != 1:
        listed = ", ".join(output.name for output in outputs[:8])
        what = f"no output {name!r}" if name is not None and not fitting else f"{len(fitting)} outputs"
        raise UsageError(f"entry {index} has {what}", remedy=f"Name one with --name: {listed}.")
    output = fitting[0]
    cid = _as_cid(output.cid)
    if cid is None:
        raise NotFoundError(f"output {output.name} of entry {index} has no CID")
    suggested = Path(invisible(output.name).rpartition("/")[2])
    return _fetch_file(
        workspace, cid, target or suggested, index,
        overwrite=overwrite, mode=output.mode, size_bytes=output.size_bytes,
    )  # fmt: skip


def _fetch_directory(
    workspace: Workspace, index: int, said: Mapping[str, Any], target: Path, *, overwrite: bool
) -> FetchedArtefact:
    """Fetch the files of a published directory, none of them outside the target."""
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} is a file", remedy="Name the directory to write.")
    target.mkdir(parents=True, exist_ok=True)
    size_bytes, files = 0, _files_of(index, workspace.get_private(said["detail"]))
    for file in files:
        relative = Path(invisible(file["path"]))
        if relative.is_absolute() or ".." in relative.parts:
            raise EncodingError(f"entry {index} lists {file['path']!r}, which leads out of its directory")
        cid = _as_cid(file["cid"])
        if cid is None:
            raise EncodingError(f"entry {index} lists {file['path']!r} without a CID")
        if isinstance(stated := file.get("size"), int):
            workspace.store.bring(cid, stated)
        size_bytes += workspace.store.fetch_to(
            cid, target / relative, overwrite=overwrite, within=target
        ).size_bytes
    return FetchedArtefact(target, said["cid"], size_bytes, len(files), index)


def listed_files(workspace: Workspace, index: int) -> list[dict[str, Any]] | None:
    """Return the files of a published directory, each with its ``path`` and ``cid``; None when the entry has no list of them.

    Raises:
        EncodingError: What the entry names as its detail is no such list.
        LichenError: The list is not at hand, or cannot be opened.
    """
    from lichen.encoding.statement import Statement

    detail = Statement.from_bytes(workspace.ledger.entry(index).payload).predicate.get("detail")
    return None if detail is None else _files_of(index, workspace.get_private(detail))


def _files_of(index: int, table: bytes) -> list[dict[str, Any]]:
    """Read the list of files in the detail of a published directory.

    Raises:
        EncodingError: It is something else.
    """
    try:
        files = read_json(table)["files"]
        is_list = all(type(file["path"]) is str and type(file["cid"]) is str for file in files)
    except (ValueError, TypeError, KeyError):
        is_list = False
    if not is_list:
        raise EncodingError(
            f"the detail of entry {index} is not a list of files",
            remedy="Ask its author to publish the directory again.",
        )
    return list(files)
