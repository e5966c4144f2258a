"""`lichen serve`: let a team use this ledger through HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, ledger_option, pass_invocation
from lichen.cli.sentences import PUBLICITY
from lichen.cli.serving import address_options, listening_at, needs_web, tell_unencrypted, url_of

if TYPE_CHECKING:
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["serve_command"]


@click.command(
    "serve",
    epilog=examples(
        "lichen serve",
        "lichen serve --port 8750 --ledger team",
        "lichen run --ledger http://127.0.0.1:8750 -- python train.py",
    ),
)
@address_options(8750)
@click.option(
    "--records-per-second",
    type=click.FloatRange(min=0, min_open=True),
    default=500.0,
    show_default=True,
    metavar="NUMBER",
    help="Records that one key may submit, on average.",
)
@click.option(
    "--artefact-mib",
    type=click.IntRange(min=1),
    default=1024,
    show_default=True,
    metavar="MIB",
    help="Largest artefact taken.",
)
@ledger_option
@pass_invocation
def serve_command(invocation: Invocation, /, host: str, port: int, **options: Any) -> None:
    """Serve this ledger to a team.

    Members submit records and artefacts, and read; where the ledger is public, anybody reads. The log's key must be here.
    Interrupt it with Ctrl-C, or SIGTERM: what was taken is finished and sealed first.

    What passes over the network is signed, but not encrypted: to serve other machines, put a proxy with TLS in front.
    """
    with invocation.workspace(options["ledger"], read_only=True) as workspace:
        _serve(invocation, workspace, host, port, options)


def _serve(
    invocation: Invocation, workspace: Workspace, host: str, port: int, options: dict[str, Any]
) -> None:
    from lichen.errors import KeyFileError
    from lichen.runs.keeping.log_succession import find_log_key
    from lichen.runs.workspace.config import lichen_home
    from lichen.runs.workspace.workspace import LOG_KEY_FILE

    with needs_web():
        from lichen.net.server.process import serve
        from lichen.net.server.service import Service
        from lichen.net.server.settings import ServerSettings
    directory, ledger = workspace.directory, workspace.ledger
    if not (directory / LOG_KEY_FILE).exists():
        raise KeyFileError(
            f"{directory / LOG_KEY_FILE} is missing, so nothing can be appended here",
            remedy="Serve the ledger where it was made, or where its log key was put.",
        )
    settings = ServerSettings(
        artefact_bytes_max=options["artefact_mib"] * 2**20,
        records_per_second=options["records_per_second"],
        records_burst=4 * options["records_per_second"],
    )
    log_key = find_log_key(directory, ledger.log_key)
    ledger_id, name, access = ledger.id, ledger.genesis.name, ledger.genesis.access
    workspace.close()
    with listening_at(host, port) as listening:
        service = Service(directory, log_key, settings, home=lichen_home())
        url = url_of(host, listening)

        def ready() -> None:
            say = invocation.output.line
            say(f"serving the {access} ledger {name!r} at {url}")
            say(f"its id is {ledger_id}")
            if access == "public":
                say(PUBLICITY)
            say(f"colleagues type: lichen run --ledger {url} -- python train.py")
            tell_unencrypted(invocation.output, host)

        serve(service, listening, ready)
