"""`lichen init`: a ledger and a key, so that the next command can be `lichen run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, pass_invocation
from lichen.cli.sentences import PUBLICITY

if TYPE_CHECKING:
    from lichen.runs.keeping.setup import LedgerCreated

__all__ = ["init_command"]


@click.command(
    "init",
    epilog=examples(
        "lichen init",
        "lichen init --member hospital-a --name trials",
        "lichen init --public shared-ledger",
        "lichen init --fork-from .lichen forked-ledger",
    ),
)
@click.argument("directory", required=False)
@click.option(
    "--member",
    metavar="ID",
    help="Your name in the ledger; the login name, or identity.member of the settings, when not given.",
)
@click.option("--name", metavar="TEXT", help="Name of the ledger; that of the directory when not given.")
@click.option(
    "--private/--public",
    "private",
    default=True,
    help="Private (the default): entries hold no file names, and inputs only as keyed digests; outputs stand by their digest.",
)
@click.option(
    "--fork-from",
    metavar="DIR",
    help="Ledger that this one goes on from, such as a backup: its entries stay there, this one names their root.",
)
@json_option
@pass_invocation
def init_command(
    invocation: Invocation,
    /,
    *,
    directory: str | None,
    member: str | None,
    name: str | None,
    private: bool,
    fork_from: str | None,
) -> None:
    """Start a ledger here.

    Makes the directory .lichen (or DIRECTORY) with a ledger, its key and a store for artefacts, and your own key if you have
    none. Nothing leaves this machine.
    """
    from lichen.runs.keeping.setup import create_ledger
    from lichen.runs.workspace.config import UserConfig
    from lichen.runs.workspace.project import LEDGER_DIRECTORY
    from lichen.runs.workspace.workspace import default_member

    user = UserConfig.read()
    created = create_ledger(
        Path(directory) if directory is not None else Path(LEDGER_DIRECTORY),
        name=name,
        access="private" if private else "public",
        member=member or default_member(user),
        user=user,
        fork_from=_ledger_directory(fork_from) if fork_from is not None else None,
    )
    invocation.works_on(created.directory)
    if invocation.as_json:
        invocation.output.json(
            {"key_file" if name == "key_path" else name: value for name, value in vars(created).items()}
        )
    else:
        _tell(invocation, created)


def _ledger_directory(text: str) -> Path:
    from lichen.errors import NotALedgerError
    from lichen.runs.workspace.project import LEDGER_DIRECTORY

    for path in (Path(text), Path(text) / LEDGER_DIRECTORY):
        if (path / "ledger.sqlite").is_file():
            return path
    raise NotALedgerError(
        f"--fork-from {text}: there is no ledger", remedy="Name the directory that holds ledger.sqlite."
    )


def _tell(invocation: Invocation, created: LedgerCreated) -> None:
    from lichen.runs.workspace.config import UserConfig
    from lichen.runs.workspace.workspace import default_member

    say = invocation.output.line
    say(f"{created.access} ledger {created.name!r} in {created.directory}, id {created.ledger_id[:16]}…")
    made = "new key" if created.key_was_made else "key"
    say(f"you write as {created.member}, with the {made} in {created.key_path}")
    acting = default_member(UserConfig.read())
    if acting != created.member:
        say(
            f"your settings say {acting}: set LICHEN_MEMBER={created.member} here, or type "
            f"lichen config set identity.member {created.member}"
        )
    if created.access == "private":
        say(
            "to share it, give members the group key beside the ledger; whoever has it can read names and details"
        )
    else:
        say(PUBLICITY)
    say("next: lichen run -- python train.py")
