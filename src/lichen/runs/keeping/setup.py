"""Make a ledger, make keys, admit members: everything that happens before the first run."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lichen.encoding.base import b64u, b64u_decode
from lichen.encoding.statement import Subject
from lichen.errors import EncodingError, Rejected, StorageError, UsageError
from lichen.runs.records.record import statement
from lichen.runs.workspace.config import UserConfig, lichen_home
from lichen.runs.workspace.workspace import GROUP_KEY_FILE, LOG_KEY_FILE, member_key_path

if TYPE_CHECKING:
    from lichen.crypto.keys import PublicKey, SigningKey
    from lichen.ledger.genesis import Genesis, Sealing
    from lichen.runs.workspace.workspace import Workspace

__all__ = [
    "LedgerCreated",
    "MemberRow",
    "admit_member",
    "check_admitted",
    "create_ledger",
    "list_members",
    "make_key",
    "member_action",
    "parse_public_key",
]


@dataclass(frozen=True)
class LedgerCreated:
    """A new ledger.

    Args:
        directory: Where it lies.
        ledger_id: Its id, 64 hexadecimal digits.
        name: What people call it.
        access: ``private`` or ``public``.
        member: Its first admin.
        key_path: Where that member's key lies.
        key_was_made: Whether the key is new.
        size: Count of entries.
    """

    directory: Path
    ledger_id: str
    name: str
    access: str
    member: str
    key_path: Path
    key_was_made: bool
    size: int


@dataclass(frozen=True)
class MemberRow:
    """A member's key, as the state has it now.

    Args:
        member: Member id.
        admin: Whether it may admit others.
        did_key: Public key as did:key text.
        first_index: First index the key may sign.
        end_index: First index it may no longer sign; None while it may.
        reason: Why it ended.
    """

    member: str
    admin: bool
    did_key: str
    first_index: int
    end_index: int | None
    reason: str | None


def make_key(user: UserConfig, member: str) -> tuple[Path, bool]:
    """Make a member's private key unless there is one.

    Args:
        user: The user's settings.
        member: Member id.

    Returns:
        Where the key lies, and whether it is new.

    Raises:
        EncodingError: Not a member id.
        KeyFileError: What is there is no key, or is open to others.
    """
    from lichen.crypto.key_file import read_key, write_key
    from lichen.crypto.keys import SigningKey
    from lichen.ledger.genesis import check_member_id

    check_member_id(member)
    path = member_key_path(user, member)
    if path.exists():
        read_key(path)
        return path, False
    _make_private_directory(path.parent)
    write_key(path, SigningKey.generate())
    return path, True


def _make_private_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StorageError(
            f"cannot make {path}: {error.strerror}", remedy="Set LICHEN_HOME to a directory of yours."
        ) from error


def create_ledger(
    directory: Path,
    *,
    name: str | None,
    access: str,
    member: str,
    user: UserConfig,
    fork_from: Path | None = None,
    sealing: Sealing | None = None,
) -> LedgerCreated:
    """Make a ledger of rung 0: one writer, embedded, nothing to start.

    Args:
        directory: Ledger directory, such as ``.lichen``; must not hold a ledger.
        name: What people call it; the parent directory's name when None.
        access: ``private`` or ``public``.
        member: Id of its first admin; a key is made when there is none.
        user: The user's settings; the identity is set when it was not.
        fork_from: Ledger directory that the new one stands in for, after a rollback say. The new ledger begins empty, with
            an id, log key, members and access of its own. Its genesis names the old one's id, size and root, so that
            what was before can be found and checked; the artefacts are copied, and between private ledgers the group
            key, so that equal work has equal fingerprints. Entries stay where they are, since each is signed for that
            ledger only: what the old one would have answered is trained anew.
        sealing: When a block is closed; None for the rule that a `lichen.ledger.genesis.Sealing` has by itself.

    Raises:
        UsageError: There is a ledger already, or an argument makes no sense.
        StorageError: The directory cannot be written.
    """
    from lichen.contracts import default_contracts
    from lichen.crypto.key_file import read_key, write_key
    from lichen.crypto.keys import SigningKey
    from lichen.ledger.ledger import Ledger
    from lichen.runs.queries.views import default_views

    if (directory / "ledger.sqlite").exists():
        raise UsageError(f"{directory} holds a ledger already", remedy="Use it, or choose another directory.")
    _check_no_keys(directory)
    if access not in ("private", "public"):
        raise UsageError(f"access {access!r} is neither private nor public")
    key_path, key_was_made = make_key(user, member)
    identity = read_key(key_path)
    _make_private_directory(directory)
    log_key = SigningKey.generate()
    made: list[
        Path
    ] = []  # by this call: what another process makes here at the same time is never taken away
    try:
        write_key(directory / LOG_KEY_FILE, log_key)
        made.append(directory / LOG_KEY_FILE)
        if access == "private":
            _write_group_key(directory / GROUP_KEY_FILE, fork_from)
            made.append(directory / GROUP_KEY_FILE)
        genesis = _genesis(
            name or _default_name(directory), access, member, identity, log_key, fork_from, sealing
        )
        with Ledger.create(
            directory,
            genesis,
            log_key,
            contracts=default_contracts(),
            views=default_views(),
            home=lichen_home(),
        ) as ledger:
            created = LedgerCreated(
                directory, ledger.id, genesis.name, access, member, key_path, key_was_made, ledger.size
            )
    except BaseException:
        for path in made:
            path.unlink(missing_ok=True)
        raise
    if fork_from is not None and (fork_from / "store").is_dir():
        shutil.copytree(fork_from / "store", directory / "store", dirs_exist_ok=True)
    (directory / ".gitignore").write_text("*\n", encoding="ascii")
    if user.get_text("identity.member") is None:
        user.values["identity.member"] = member
        user.write()
    return created


def _check_no_keys(directory: Path) -> None:
    """Leave the keys of a ledger alone whose file is gone: with a copy of the file they make it whole again.

    Raises:
        UsageError: There are such keys.
    """
    for name in (LOG_KEY_FILE, GROUP_KEY_FILE):
        if os.path.lexists(directory / name):
            raise UsageError(
                f"{directory} holds {name} of a ledger, but not its ledger.sqlite",
                remedy=f"Put ledger.sqlite back from a backup. If there is none, move {directory} away first: the key in it "
                "is never overwritten. Another `lichen init` under way here would look like this, too.",
            )


def _default_name(directory: Path) -> str:
    parent = directory.resolve()
    return (parent.parent.name if parent.name.startswith(".") else parent.name) or "ledger"


def _write_group_key(path: Path, fork_from: Path | None) -> None:
    """Write a new group key, or carry over the one that the forked ledger's fingerprints were made with."""
    text = secrets.token_bytes(32).hex() + "\n"
    try:
        if fork_from is not None and (fork_from / GROUP_KEY_FILE).exists():
            text = (fork_from / GROUP_KEY_FILE).read_text(encoding="ascii")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror}") from error
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise StorageError(f"cannot write {path}: {error.strerror}") from error


def _genesis(
    name: str,
    access: str,
    member: str,
    identity: SigningKey,
    log_key: SigningKey,
    fork_from: Path | None,
    sealing: Sealing | None,
) -> Genesis:
    from lichen.contracts import default_contracts
    from lichen.ledger.genesis import Admin, ForkOf, Genesis, Sealing
    from lichen.ledger.ledger import Ledger

    fork_of = None
    if fork_from is not None:
        with Ledger.open(fork_from, default_contracts(), read_only=True) as old:
            fork_of = ForkOf(old.id, old.size, old.root_at(old.size))
    return Genesis(
        name=name,
        created_unix_ms=time.time_ns() // 1_000_000,
        admins=(Admin(member, identity.public),),
        log_key=log_key.public,
        contracts={contract.name: contract.version for contract in default_contracts()},
        nonce=os.urandom(12),
        access=access,
        fork_of=fork_of,
        sealing=sealing or Sealing(),
    )


def parse_public_key(text: str) -> PublicKey:
    """Read a public key given as did:key or as base64url.

    Raises:
        UsageError: Neither.
    """
    from lichen.crypto.keys import PublicKey

    try:
        if text.startswith("did:key:"):
            return PublicKey.from_did_key(text)
        return PublicKey(b64u_decode(text, 32))
    except EncodingError as error:
        raise UsageError(
            f"{text[:60]!r} is not a public key", remedy="`lichen key show` prints one: did:key:z6Mk…"
        ) from error


def admit_member(workspace: Workspace, member: str, public_key: str, *, admin: bool = False) -> int:
    """Let a member write, with a key.

    Args:
        workspace: The ledger; the acting identity must be an admin.
        member: Id of the new member.
        public_key: Theirs, as did:key or base64url.
        admin: Whether they may admit others.

    Returns:
        Index of the entry.

    Raises:
        Rejected: A rule said no.
    """
    key = parse_public_key(public_key)
    return member_action(workspace, "admit", member, key=key, admin=admin)


def member_action(
    workspace: Workspace,
    action: str,
    member: str,
    *,
    key: PublicKey | None = None,
    from_index: int | None = None,
    admin: bool = False,
    signer: SigningKey | None = None,
) -> int:
    """Record an action on members and keys.

    Args:
        workspace: The ledger.
        action: ``admit``, ``add-key``, ``rotate``, ``revoke`` or ``compromise``.
        member: Whom it is about.
        key: The key admitted, added, rotated to, revoked or compromised.
        from_index: For ``compromise``: first bad index.
        admin: For ``admit``: whether they may admit others.
        signer: Key of the acting member to sign with; the one in use when None.

    Returns:
        Index of the entry.

    Raises:
        Rejected: A rule said no.
    """
    fields = {
        "action": action,
        "subject_member": member,
        "key": b64u(key.raw) if key is not None else None,
        "from_index": from_index,
        "admin": True if admin else None,
    }
    subjects = [Subject("ledger", bytes.fromhex(workspace.ledger.id))]
    said = statement(workspace, "member", subjects, fields)
    return workspace.ledger.append_signed(said, signer or workspace.identity.key, seal=True).index


def check_admitted(workspace: Workspace) -> None:
    """Make sure, before work that is to be recorded, that the ledger will take the acting member's records.

    Raises:
        Rejected: The member's key was never admitted, is another member's, or speaks for nobody any more.
    """
    from lichen.contracts.members import key_binding

    member, key = workspace.identity.member, workspace.identity.key.public
    binding = key_binding(workspace.ledger.state.get, key.key_id)
    if binding is None:
        raise Rejected(
            "members.not-admitted",
            f"{member} is not a member of this ledger, or has another key there",
            remedy=_way_in(workspace),
        )
    if binding.member != member:
        raise Rejected(
            "members.forged-author",
            f"the key in {workspace.identity.path} is that of {binding.member!r}, not of {member!r}",
            remedy=f"Act as its member: lichen config set identity.member {binding.member}",
        )
    if not binding.covers(workspace.ledger.size):
        raise Rejected(
            "members.key-revoked",
            f"the key in {workspace.identity.path} speaks for {member} no more: it was {binding.reason}",
            remedy="Let an admin admit another key: lichen key add",
        )


def _way_in(workspace: Workspace) -> str:
    """Say what helps where the ledger does not know the key: an earlier key of the member, another member's key, or an admin."""
    from lichen.crypto.keys import PublicKey
    from lichen.runs.reuse.trust import own_key_ids

    identity = workspace.identity
    others: list[str] = []
    for row in list_members(workspace):
        if row.end_index is not None:
            continue
        path = member_key_path(workspace.user, row.member)
        if PublicKey.from_did_key(row.did_key).key_id not in own_key_ids(path):
            continue
        if row.member == identity.member:
            return "It knows an earlier key of yours; tell it of the one in use: lichen key rotate"
        others.append(row.member)
    way = f"Let an admin of it type: lichen key admit {identity.member} {identity.key.public.did_key}"
    if others:
        way += f" Or act as its member {others[0]}, whose key is here: LICHEN_MEMBER={others[0]} lichen …"
    return way


def list_members(workspace: Workspace) -> list[MemberRow]:
    """List every key of every member, in the order they came in."""
    from lichen.contracts.members import key_binding, member_of

    names = dict.fromkeys(admin.member for admin in workspace.ledger.genesis.admins)
    for (name,) in workspace.ledger.connection.execute("SELECT member FROM view_member ORDER BY idx"):
        names.setdefault(name)
    rows = []
    for name in names:
        member = member_of(workspace.ledger.state_get, name)
        if member is None:
            continue
        for key_id in member.keys:
            binding = key_binding(workspace.ledger.state_get, key_id)
            if binding is not None:
                rows.append(
                    MemberRow(
                        name, member.admin, binding.key.did_key, binding.first, binding.end, binding.reason
                    )
                )
    return rows
