"""Names people give to entries: an index, ``@last``, a CID, a digest, or the path of a file.

Content means the entry that holds it: data, a model, or the run that made it. An evaluation is about content and holds none, so it
is meant by its index, or where nothing else is on record.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.errors import NotFoundError, UsageError
from lichen.runs.queries.views import is_digest_between

if TYPE_CHECKING:
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["entries_with_digest", "published_since", "resolve"]

_DIGEST_DIGITS_MIN = 8


def resolve(workspace: Workspace, reference: str) -> int:
    """Find the entry a reference means; the newest that holds the content where several fit.

    Args:
        workspace: The ledger.
        reference: ``12``, ``#12``, ``@last`` (the newest run), a CID or its beginning, a SHA-256 in hexadecimal or its
            beginning (eight digits at least), or the path of a file whose content is on record.

    Returns:
        Index of the entry.

    Raises:
        NotFoundError: Nothing answers to it.
        UsageError: The beginning of a CID or digest fits several contents.
    """
    ledger = workspace.ledger
    text = reference.strip()
    path = _file(text)
    if path is None and _is_index(text, ledger.size):
        index = int(text.lstrip("#"))
        if index >= ledger.size:
            raise NotFoundError(
                f"no entry {index}: the ledger has {ledger.size} entries, 0 to {ledger.size - 1}",
                remedy="`lichen log` lists them.",
            )
        return index
    if text == "@last":
        row = ledger.connection.execute("SELECT MAX(idx) FROM view_run").fetchone()
        if row[0] is None:
            raise NotFoundError("no run is on record yet", remedy="Record one: lichen run -- python train.py")
        return int(row[0])
    if path is not None:
        found = entries_with_digest(workspace, workspace.digests.digest_file(path))
        if not found:
            raise NotFoundError(
                f"the content of {text} is not on record", remedy="Publish it: lichen publish model FILE"
            )
        return found[0]
    if re.fullmatch(r"[0-9a-f]{8,64}", text):
        return _by_digest_prefix(workspace, text)
    if re.fullmatch(r"b[a-z2-7]{7,}", text):
        return _by_cid_prefix(workspace, text)
    raise NotFoundError(
        f"nothing answers to {reference!r}",
        remedy="Give an index, @last, a CID, a SHA-256 in hexadecimal, or the path of a file.",
    )


def published_since(workspace: Workspace, index: int) -> int | None:
    """Index of the newest data, model or evaluation that was published after an entry; None when nothing was."""
    row = workspace.ledger.connection.execute(
        "SELECT MAX(idx) FROM view_artefact WHERE idx > ?", (index,)
    ).fetchone()
    return None if row[0] is None else int(row[0])


def _file(text: str) -> Path | None:
    """Return the file of this name, if there is one; a text too long for a name is none."""
    try:
        return Path(text) if Path(text).is_file() else None
    except OSError:
        return None


def _is_index(text: str, size: int) -> bool:
    """Tell an index from the beginning of a digest that happens to have decimal digits only."""
    if re.fullmatch(r"#?[0-9]{1,15}", text) is None:
        return False
    return text.startswith("#") or len(text) < _DIGEST_DIGITS_MIN or (text[0] != "0" and int(text) < size)


def entries_with_digest(workspace: Workspace, sha256: bytes) -> list[int]:
    """Return the entries that are about a file's content: those that hold it first, evaluations last, each newest first."""
    rows = workspace.ledger.connection.execute(
        "SELECT idx, 0 FROM view_output WHERE sha256 = ?1 UNION "
        "SELECT idx, kind = 'evaluation' FROM view_artefact WHERE sha256 = ?1 ORDER BY 2, 1 DESC",
        (sha256,),
    )
    return [int(row[0]) for row in rows]


def _by_digest_prefix(workspace: Workspace, prefix: str) -> int:
    low = bytes.fromhex(prefix.ljust(64, "0"))
    high = bytes.fromhex(prefix.ljust(64, "f"))
    rows = workspace.ledger.connection.execute(
        "SELECT sha256, idx, 0 FROM view_output WHERE sha256 BETWEEN ?1 AND ?2 UNION "  # noqa: S608 - constants
        "SELECT sha256, idx, kind = 'evaluation' FROM view_artefact WHERE sha256 BETWEEN ?1 AND ?2 UNION "
        f"SELECT exact, idx, 0 FROM view_run WHERE {is_digest_between('exact', '?1', '?2')} ORDER BY 3, 2 DESC LIMIT 100",
        (low, high),
    ).fetchall()
    return _only_one(rows, prefix)


def _by_cid_prefix(workspace: Workspace, prefix: str) -> int:
    rows = workspace.ledger.connection.execute(
        "SELECT cid, idx, kind = 'evaluation' FROM view_artefact WHERE cid >= ? AND cid < ? UNION "
        "SELECT manifest, idx, 0 FROM view_run WHERE manifest >= ? AND manifest < ? ORDER BY 3, 2 DESC LIMIT 100",
        (prefix, prefix + "\x7f") * 2,
    ).fetchall()
    return _only_one(rows, prefix)


def _only_one(rows: list[tuple[object, int, int]], prefix: str) -> int:
    if not rows:
        raise NotFoundError(
            f"nothing on record begins with {prefix}", remedy="`lichen find` searches by content."
        )
    if len({content for content, *_ in rows}) > 1:
        raise UsageError(f"{prefix} fits {len(rows)} entries", remedy="Give more of it.")
    return int(rows[0][1])
