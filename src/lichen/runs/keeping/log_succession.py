"""Give the log of a ledger a new key, so that at every moment a key on disk can seal what is in it.

The new key waits as ``log.key.next`` beside ``log.key`` before anybody hears of it, and takes its place after the ledger
said so. What was interrupted in between is finished by whoever opens the ledger next. Where several admins must agree,
the proposal travels as a file: each adds an approval, and the last brings it back.

::

    <ledger>/log.key               the log's key
    <ledger>/log.key.next          the one that is to take its place
    <ledger>/log-key.proposal      consent, acceptance and approvals, canonical JSON
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lichen.encoding.base import b64u, b64u_decode
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.errors import EncodingError, KeyFileError, Rejected, StorageError, UsageError
from lichen.ledger.succession import Approval, Succession, read_succession

if TYPE_CHECKING:
    from lichen.crypto.keys import PublicKey, SigningKey
    from lichen.runs.workspace.workspace import Identity, Workspace

__all__ = [
    "PROPOSAL_FILE",
    "LogSucceeded",
    "approve_log_key",
    "find_log_key",
    "finish_succession",
    "succeed_log_key",
    "take_up_waiting_key",
]

LOG_KEY_FILE: Final = "log.key"
NEXT_FILE: Final = "log.key.next"
PROPOSAL_FILE: Final = "log-key.proposal"
_PROPOSAL_BYTES_MAX: Final = 65_536


@dataclass(frozen=True)
class LogSucceeded:
    """A log key that took another's place.

    Args:
        index: Entry that says so.
        did_key: The new public key.
        verifier_key: The same as witnesses and policies take it.
        path: Where it lies, which is where the old one was.
        retired_path: Where the old one lies.
    """

    index: int
    did_key: str
    verifier_key: str
    path: Path
    retired_path: Path


def succeed_log_key(workspace: Workspace, proposal: Path | None = None) -> LogSucceeded:
    """Make a new key for the log, and let the ledger say so.

    Args:
        workspace: The ledger; its log key must be here, and the acting member must be an admin.
        proposal: A proposal that other admins approved; None to take up the one beside the ledger, or make one.

    Raises:
        Rejected: Too few admins approved; the proposal is in the file that the remedy names.
        KeyFileError: The log's key is not here.
        UsageError: The proposal is for another ledger, or for a key that is not here.
        StorageError: A key cannot be written, or cannot take the old one's place.
    """
    from lichen.crypto.key_file import key_at, read_key
    from lichen.crypto.note import NoteKey

    directory, ledger = workspace.directory, workspace.ledger
    if not (directory / LOG_KEY_FILE).exists():
        raise KeyFileError(
            f"{directory / LOG_KEY_FILE} is missing",
            remedy="Do this where the ledger was made, or where its log key was put.",
        )
    old, new = read_key(directory / LOG_KEY_FILE), key_at(directory / NEXT_FILE)
    path = proposal or directory / PROPOSAL_FILE
    if proposal is not None or path.exists():
        said = _read(path, ledger.id)
        if said.key != new.public or said.previous != old.public:
            raise UsageError(
                f"{path} is about other keys than {LOG_KEY_FILE} and {NEXT_FILE} in {directory}",
                remedy="Name the proposal that was made here; or remove it, and type `lichen key succeed` for a new one.",
            )
    else:
        said = Succession.sign(ledger.id, old, new)
    said = _without(said, workspace.identity)
    _write(directory / PROPOSAL_FILE, said, ledger.id)
    try:
        index = ledger.succeed_log_key(said, workspace.identity.member, workspace.identity.key, new).index
    except Rejected as error:
        if error.rule == "members.log-key-majority":
            error.remedy = (
                f"Send {directory / PROPOSAL_FILE} to the other admins. Each types `lichen key approve FILE`;"
                " then type here `lichen key succeed FILE`, with what came back."
            )
        raise
    retired = _take_place(directory, old)
    with contextlib.suppress(OSError):
        (directory / PROPOSAL_FILE).unlink(missing_ok=True)
    vkey = NoteKey(ledger.origin, new.public).vkey
    return LogSucceeded(index, new.public.did_key, vkey, directory / LOG_KEY_FILE, retired)


def approve_log_key(path: Path, ledger_id: str, identity: Identity) -> int:
    """Add an admin's approval to a proposal.

    Args:
        path: The proposal; it is written anew.
        ledger_id: The ledger it must be about.
        identity: Who approves.

    Returns:
        How many approvals it carries now.

    Raises:
        UsageError: No proposal, or of another ledger.
        VerificationError: The log's old key did not consent to it, or the new one did not accept.
        StorageError: It cannot be written.
    """
    said = _without(_read(path, ledger_id), identity)
    approval = Approval.sign(ledger_id, said.previous, said.key, identity.key)
    said = replace(said, approvals=(*said.approvals, approval))
    _write(path, said, ledger_id)
    return len(said.approvals)


def find_log_key(directory: Path, public: PublicKey) -> SigningKey:
    """Return the secret half of a log's key, from its place or from where it waits for it.

    Args:
        directory: The ledger's.
        public: The key the log has now.

    Raises:
        KeyFileError: It is in neither, or cannot be read.
    """
    from lichen.crypto.key_file import read_key

    for path in (directory / LOG_KEY_FILE, directory / NEXT_FILE):
        if path.exists() and (key := read_key(path)).public == public:
            return key
    raise KeyFileError(
        f"the log's key of now, {public.did_key}, is not in {directory}",
        remedy=f"Put it there as {LOG_KEY_FILE}, readable by nobody else (chmod 600).",
    )


def take_up_waiting_key(directory: Path) -> SigningKey | None:
    """Return the log key that waits, when there is one: the ledger may know it already.

    Args:
        directory: The ledger's.
    """
    from lichen.crypto.key_file import read_key

    path = directory / NEXT_FILE
    return read_key(path) if path.exists() else None


def finish_succession(directory: Path) -> None:
    """Let the waiting key take the place of the old one, after the ledger opened with it.

    Raises:
        StorageError: It cannot.
    """
    from lichen.crypto.key_file import read_key

    _take_place(directory, read_key(directory / LOG_KEY_FILE))


def _take_place(directory: Path, old: SigningKey) -> Path:
    from lichen.crypto.key_file import put_in_place

    return put_in_place(
        directory / NEXT_FILE,
        directory / LOG_KEY_FILE,
        old,
        remedy="Put that right; the next command that opens the ledger for writing finishes it.",
    )


def _without(said: Succession, identity: Identity) -> Succession:
    """Drop an approval by this very key: signing the record, or anew, says the same."""
    kept = tuple(each for each in said.approvals if each.key_id != identity.key.public.key_id)
    return replace(said, approvals=kept)


def _read(path: Path, ledger_id: str) -> Succession:
    try:
        with path.open("rb") as file:
            data = file.read(_PROPOSAL_BYTES_MAX)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}", remedy="`lichen key succeed` makes a proposal."
        ) from error
    try:
        about, said = _parsed(data)
    except EncodingError as error:
        raise UsageError(
            f"{path} is no proposal of a log key: {error.message}", remedy="`lichen key succeed` makes one."
        ) from error
    if about != ledger_id:
        raise UsageError(
            f"{path} is about another ledger", remedy="Name the ledger it is about with --ledger DIR."
        )
    said.verify(ledger_id)
    return said


def _parsed(data: bytes) -> tuple[str, Succession]:
    value = parse_canonical(data.removesuffix(b"\n"))
    if not isinstance(value, dict):
        raise EncodingError("it is no object")
    about = b64u_decode(value.pop("ledger", None), 32).hex()
    return about, read_succession(value)


def _write(path: Path, said: Succession, ledger_id: str) -> None:
    data = canonical_json({**said.predicate(), "ledger": b64u(bytes.fromhex(ledger_id))}) + b"\n"
    partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror}", remedy="Check disk and permissions."
        ) from error
