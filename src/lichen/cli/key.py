"""`lichen key`: keys on this machine, and whose keys may write to the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.runs.keeping.setup import MemberRow
    from lichen.runs.workspace.config import UserConfig

__all__ = ["key_command"]


@click.group("key", no_args_is_help=True)
def key_command() -> None:
    """Manage keys and members.

    A member signs with a key; which key speaks for which member, and from which entry to which, stands in the ledger.
    """


@key_command.command(
    "show",
    epilog=examples(
        "lichen key show", "lichen key show --public", "lichen key show --log", "lichen key show --log --vkey"
    ),
)
@click.argument("member", required=False)
@click.option("--public", is_flag=True, help="Print your public key and nothing else.")
@click.option("--log", "log", is_flag=True, help="Print the public key of the ledger's log and nothing else.")
@click.option(
    "--vkey", is_flag=True, help="With --log: as a C2SP verifier key, which witnesses and policies take."
)
@ledger_option
@json_option
@pass_invocation
def show_command(
    invocation: Invocation, /, member: str | None, *, public: bool, log: bool, vkey: bool, ledger: str | None
) -> None:
    """Show your key, and the key of the ledger here.

    The public key is what an admin needs to admit you. The key of the log is what others need to verify receipts.
    """
    from lichen.crypto.note import NoteKey
    from lichen.errors import NotALedgerError, UsageError
    from lichen.runs.workspace.config import UserConfig
    from lichen.runs.workspace.workspace import read_identity

    if vkey and not log:
        raise UsageError("--vkey goes with --log", remedy="Type: lichen key show --log --vkey")
    told: dict[str, str] = {}
    if not log:
        identity = read_identity(UserConfig.read(), member)
        did_key = identity.key.public.did_key
        told = {"member": identity.member, "public_key": did_key, "key_file": str(identity.path)}
    if log or not public or invocation.as_json:
        excused = () if log or ledger is not None else (NotALedgerError,)
        with contextlib.suppress(*excused), invocation.workspace(ledger, read_only=True) as workspace:
            log_key = workspace.ledger.log_key
            told |= {"ledger_id": workspace.ledger.id, "log_key": log_key.did_key}
            if vkey:
                told["log_vkey"] = NoteKey(workspace.ledger.origin, log_key).vkey
    if invocation.as_json:
        invocation.output.json(told)
    elif public or log:
        invocation.output.line(told["log_vkey" if vkey else "log_key" if log else "public_key"])
    else:
        invocation.output.pairs([(name.replace("_", " "), value) for name, value in told.items()])


@key_command.command("make", epilog=examples("lichen key make", "lichen key make hospital-b"))
@click.argument("member", required=False)
@json_option
@pass_invocation
def make_command(invocation: Invocation, /, member: str | None) -> None:
    """Make a key, readable by you alone.

    MEMBER is the name you will have in ledgers. A key that is there already is kept.
    """
    from lichen.runs.keeping.setup import make_key
    from lichen.runs.workspace.config import UserConfig
    from lichen.runs.workspace.workspace import default_member, read_identity

    user = UserConfig.read()
    name = member or default_member(user)
    path, is_new = make_key(user, name)
    became = _adopt(user, name)
    did_key = read_identity(user, name).key.public.did_key
    if invocation.as_json:
        invocation.output.json({"member": name, "key_file": path, "is_new": is_new, "public_key": did_key})
        return
    say = invocation.output.line
    say(f"{'made a key' if is_new else 'there is a key already'} for {name}: {path}")
    say(f"its public key is {did_key}")
    say(f"to be admitted to a ledger, let its admin type: lichen key admit {name} {did_key}")
    if became:
        say(f"you act as {name} from now on (identity.member of your settings)")


def _adopt(user: UserConfig, name: str) -> bool:
    """Act as this member when the user has no name in ledgers yet."""
    if user.get_text("identity.member") is not None:
        return False
    user.values["identity.member"] = name
    user.write()
    return True


@key_command.command("members", epilog=examples("lichen key members"))
@ledger_option
@json_option
@pass_invocation
def members_command(invocation: Invocation, /, ledger: str | None) -> None:
    """List the members of the ledger and their keys."""
    from lichen.runs.keeping.setup import list_members

    with invocation.workspace(ledger) as workspace:
        rows = list_members(workspace)
    if invocation.as_json:
        invocation.output.json([_named(vars(row)) for row in rows])
    else:
        invocation.output.table(
            ("member", "", "speaks for entries", "public key"), [_member_row(row) for row in rows]
        )


def _member_row(row: MemberRow) -> tuple[str, str, str, str]:
    if row.end_index is None:
        span = f"{row.first_index} and later"
    else:
        span = f"{row.first_index} to {row.end_index - 1}, then {row.reason}" if row.end_index > row.first_index else f"none, {row.reason}"  # fmt: skip
    return row.member, "admin" if row.admin else "", span, row.did_key


@key_command.command(
    "admit",
    epilog=examples("lichen key admit hospital-c did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"),
)
@click.argument("member")
@click.argument("public_key")
@click.option("--admin", is_flag=True, help="They may admit others, too.")
@ledger_option
@json_option
@pass_invocation
def admit_command(
    invocation: Invocation, /, member: str, *, public_key: str, admin: bool, ledger: str | None
) -> None:
    """Let someone write to the ledger.

    PUBLIC_KEY is what `lichen key show --public` prints on their machine. Only an admin may do this.
    """
    from lichen.runs.keeping.setup import admit_member

    with invocation.workspace(ledger) as workspace:
        index = admit_member(workspace, member, public_key, admin=admin)
        is_private = workspace.ledger.genesis.access != "public"
    _done(invocation, {"index": index, "member": member}, f"admitted {member}, as entry {index}")
    if is_private and not invocation.as_json:
        invocation.output.line(
            "this ledger is private: give them the file group.key beside it, over a channel you trust"
        )


@key_command.command(
    "add",
    epilog=examples("lichen key add hospital-b did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"),
)
@click.argument("member")
@click.argument("public_key")
@ledger_option
@json_option
@pass_invocation
def add_command(invocation: Invocation, /, member: str, *, public_key: str, ledger: str | None) -> None:
    """Give a member one more key, such as for a second machine.

    Only an admin may do this.
    """
    index = _act(invocation, ledger, "add-key", member, public_key)
    _done(
        invocation,
        {"index": index, "member": member},
        f"{member} may sign with that key too, as entry {index} says",
    )


@key_command.command("rotate", epilog=examples("lichen key rotate"))
@ledger_option
@json_option
@pass_invocation
def rotate_command(invocation: Invocation, /, ledger: str | None) -> None:
    """Replace your key by a new one.

    What the old key signed stays valid; it signs nothing from now on. A key serves in all of your ledgers: type this in each of them
    once. Where one still knows the old key, which stays beside the new one, it is told of the new one, and no further key is made.
    """
    from lichen.runs.keeping.key_rotation import rotate_own_key

    with invocation.workspace(ledger) as workspace:
        rotated = rotate_own_key(workspace)
    where = f", as entry {rotated.index}" if rotated.index is not None else ""
    _done(
        invocation,
        _named(vars(rotated)),
        f"you sign with a new key{where}: {rotated.did_key}\nthe old key lies in {rotated.retired_path}",
    )


@key_command.command("revoke", epilog=examples("lichen key revoke hospital-b"))
@click.argument("member")
@click.argument("public_key", required=False)
@ledger_option
@json_option
@pass_invocation
def revoke_command(
    invocation: Invocation, /, member: str, *, public_key: str | None, ledger: str | None
) -> None:
    """End a key, or every key of a member.

    What was signed before stays on record, and answers no request any more. Admins may do this to anyone, members to themselves.
    """
    index = _act(invocation, ledger, "revoke", member, public_key)
    what = "that key" if public_key is not None else "every key"
    _done(invocation, {"index": index, "member": member}, f"revoked {what} of {member}, as entry {index}")


@key_command.command(
    "compromise",
    epilog=examples(
        "lichen key compromise hospital-b did:key:z6Mkon3Necd6NkkyfoGoHxid2znGc59LU3K7mubaRcFbLfLX --from 7"
    ),
)
@click.argument("member")
@click.argument("public_key")
@click.option(
    "--from",
    "from_index",
    required=True,
    type=click.IntRange(min=0),
    metavar="INDEX",
    help="First entry not to be believed any more.",
)
@ledger_option
@json_option
@pass_invocation
def compromise_command(
    invocation: Invocation, /, member: str, *, public_key: str, from_index: int, ledger: str | None
) -> None:
    """Declare that a key was in other hands, from some entry on."""
    index = _act(invocation, ledger, "compromise", member, public_key, from_index=from_index)
    told = {"index": index, "member": member, "from_index": from_index}
    _done(
        invocation,
        told,
        f"entries by that key of {member} count no more from entry {from_index} on, as entry {index} says",
    )


@key_command.command("succeed", epilog=examples("lichen key succeed"))
@click.argument("proposal", required=False)
@ledger_option
@json_option
@pass_invocation
def succeed_command(invocation: Invocation, /, proposal: str | None, *, ledger: str | None) -> None:
    """Give the log of this ledger a new key.

    The log's key signs seals and checkpoints, so that more than one must agree: the old key, the new one, and a majority of the
    admins. Where you alone are not a majority, a proposal is written for the others to approve; PROPOSAL is the file with their approvals.
    Tell the witnesses of this ledger at once: under a key they do not know they cosign nothing.
    """
    from pathlib import Path

    from lichen.runs.keeping.log_succession import succeed_log_key

    with invocation.workspace(ledger) as workspace:
        done = succeed_log_key(workspace, None if proposal is None else Path(proposal))
    _done(
        invocation,
        _named(vars(done)),
        f"the log has a new key, as entry {done.index} says: {done.did_key}\n"
        f"for witnesses and policies: {done.verifier_key}\n"
        f"the old key lies in {done.retired_path}; readers that know it follow to the new one by receipts",
    )


@key_command.command("approve", epilog=examples("lichen key approve log-key.proposal"))
@click.argument("proposal")
@ledger_option
@json_option
@pass_invocation
def approve_command(invocation: Invocation, /, proposal: str, *, ledger: str | None) -> None:
    """Approve a new key for the log of a ledger.

    PROPOSAL is what `lichen key succeed` wrote on another admin's machine. Your approval is added to it; send it back.
    """
    from pathlib import Path

    from lichen.runs.keeping.log_succession import approve_log_key

    with invocation.workspace(ledger, read_only=True) as workspace:
        count = approve_log_key(Path(proposal), workspace.ledger.id, workspace.identity)
    _done(
        invocation,
        {"proposal": proposal, "approval_count": count},
        f"{proposal} carries {count} {'approval' if count == 1 else 'approvals'} now; send it back",
    )


def _act(
    invocation: Invocation,
    ledger: str | None,
    action: str,
    member: str,
    public_key: str | None,
    *,
    from_index: int | None = None,
) -> int:
    from lichen.runs.keeping.setup import member_action, parse_public_key

    key = parse_public_key(public_key) if public_key is not None else None
    with invocation.workspace(ledger) as workspace:
        return member_action(workspace, action, member, key=key, from_index=from_index)


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """A table for JSON, in which a public key and a key's file have the names that they have in every answer."""
    names = {"did_key": "public_key", "path": "key_file", "retired_path": "retired_key_file"}
    return {names.get(name, name): value for name, value in values.items()}


def _done(invocation: Invocation, told: dict[str, Any], text: str) -> None:
    if invocation.as_json:
        invocation.output.json(told)
    else:
        invocation.output.text(text)
