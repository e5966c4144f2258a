"""Give a member a new key, so that at every moment one key file on disk is the one the ledger knows.

The new key is written beside the old one before the ledger hears of it, and takes its place after. A rotation that was
interrupted in between is finished by the next one: the waiting key is taken up, never a third one made. A key serves in
many ledgers, and each is told by a rotation of its own, which makes no further key.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.runs.keeping.setup import member_action
from lichen.runs.reuse.trust import other_keys

if TYPE_CHECKING:
    from lichen.crypto.keys import SigningKey
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Rotated", "rotate_own_key"]


@dataclass(frozen=True)
class Rotated:
    """A key that took another's place.

    Args:
        index: Entry that says so; None when an interrupted rotation was only finished.
        did_key: The new public key.
        path: Where the new key lies, which is where the old one was.
        retired_path: Where the old key lies.
    """

    index: int | None
    did_key: str
    path: Path
    retired_path: Path


def rotate_own_key(workspace: Workspace) -> Rotated:
    """Make a new key for the acting member and end the one in use.

    Where the key in use is new to the ledger, because it was rotated in another one, this ledger is told of it instead: the earlier
    key, which lies beside it, says so.

    Args:
        workspace: The ledger.

    Raises:
        KeyFileError: The key in use, or one that waits from an earlier attempt, cannot be read.
        StorageError: The new key cannot be written, or cannot take the old one's place.
        Rejected: The key in use no longer speaks for the member.
    """
    from lichen.crypto.key_file import key_at, put_in_place

    identity = workspace.identity
    path = identity.path
    earlier = _key_known_here(workspace)
    if earlier is not None:
        public = identity.key.public
        told = member_action(workspace, "rotate", identity.member, key=public, signer=earlier[1])
        return Rotated(told, public.did_key, path, earlier[0])
    waiting = path.with_name(path.name + ".next")
    key = key_at(waiting)
    index = None
    if not _speaks_for(workspace, key, identity.member):
        index = member_action(workspace, "rotate", identity.member, key=key.public)
    retired = put_in_place(
        waiting,
        path,
        identity.key,
        remedy="Put that right and run `lichen key rotate` again: it finishes the rotation.",
    )
    return Rotated(index, key.public.did_key, path, retired)


def _key_known_here(workspace: Workspace) -> tuple[Path, SigningKey] | None:
    """Return the earlier key of the member that this ledger still knows, after a rotation that only another one was told of."""
    from lichen.contracts.members import key_binding

    identity = workspace.identity
    if key_binding(workspace.ledger.state.get, identity.key.public.key_id) is not None:
        return None
    for path, key in other_keys(identity.path):
        if path.suffix == ".retired" and _speaks_for(workspace, key, identity.member):
            return path, key
    return None


def _speaks_for(workspace: Workspace, key: SigningKey, member: str) -> bool:
    from lichen.contracts.members import key_binding

    binding = key_binding(workspace.ledger.state.get, key.public.key_id)
    return binding is not None and binding.member == member and binding.end is None
