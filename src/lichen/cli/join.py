"""`lichen join`: get to know a ledger that a colleague serves."""

from __future__ import annotations

from pathlib import Path

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, pass_invocation

__all__ = ["join_command"]


@click.command(
    "join",
    epilog=examples(
        "lichen join http://127.0.0.1:8750",
        "lichen join https://ledger.example.org --log-key did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
        "lichen join http://127.0.0.1:8750 --group-key group.key",
    ),
)
@click.argument("url")
@click.option(
    "--log-key", metavar="KEY", help="Public key of its log, as `lichen key show --log` prints it there."
)
@click.option(
    "--group-key", metavar="FILE", help="Group key of a private ledger, as a colleague gave it to you."
)
@json_option
@pass_invocation
def join_command(invocation: Invocation, /, url: str, log_key: str | None, group_key: str | None) -> None:
    """Use a ledger that is served at URL.

    Its id and its log's key are fixed now, and a copy of it is taken and verified, entry by entry. From then on a server that
    shows another history is refused. Without --log-key, the key that the server names is believed this once.
    """
    from lichen.net.remote.workspace import join
    from lichen.runs.keeping.setup import parse_public_key
    from lichen.runs.workspace.config import UserConfig
    from lichen.runs.workspace.project import Project

    with join(
        url,
        log_key=parse_public_key(log_key) if log_key is not None else None,
        group_key=Path(group_key) if group_key is not None else None,
        project=Project.find(Path.cwd()),
        user=UserConfig.read(),
        notify=invocation.output.note,
    ) as workspace:
        invocation.works_on(workspace.directory)
        ledger = workspace.ledger
        genesis = ledger.genesis
        genesis_id = ledger.id
        told = {
            "url": workspace.url, "ledger_id": ledger.id, "name": genesis.name, "access": genesis.access,
            "log_key": genesis.log_key.did_key, "size": ledger.size, "directory": str(workspace.directory),
        }  # fmt: skip
        needs_group_key = genesis.access != "public" and not (workspace.directory / "group.key").exists()
    if invocation.as_json:
        invocation.output.json(told)
        return
    say = invocation.output.line
    say(
        f"joined the {genesis.access} ledger {genesis.name!r}, id {genesis_id[:16]}…, {told['size']} entries, all verified"
    )
    if log_key is None:
        say(f"its log signs with {told['log_key']}; compare this with what a colleague says")
    if needs_group_key:
        say("it is private: ask a member for the group key file, then type this again with --group-key FILE")
    say(f"next: lichen run --ledger {told['url']} -- python train.py")
    say(f"to use it everywhere: lichen config set ledger.default {told['url']}")
