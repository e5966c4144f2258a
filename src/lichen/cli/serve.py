"""`lichen serve`: let a team use this ledger through HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["serve_command"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@click.command(
    "serve",
    epilog=examples(
        "lichen serve",
        "lichen serve --port 8750 --ledger team",
        "lichen run --ledger http://127.0.0.1:8750 -- python train.py",
    ),
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on."
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8750,
    show_default=True,
    help="Port to listen on; 0 for any.",
)
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
    import logging
    import sys

    from lichen.errors import KeyFileError, UsageError
    from lichen.runs.keeping.log_succession import find_log_key
    from lichen.runs.workspace.config import lichen_home
    from lichen.runs.workspace.workspace import LOG_KEY_FILE

    try:
        from lichen.net.listening import bind
        from lichen.net.server.process import serve
        from lichen.net.server.service import Service
        from lichen.net.server.settings import ServerSettings
    except ModuleNotFoundError as error:
        raise UsageError(
            f"serving needs the package {error.name}", remedy="Install it with: pip install 'lichen[web]'"
        ) from error
    key_path = workspace.directory / LOG_KEY_FILE
    if not key_path.exists():
        raise KeyFileError(
            f"{key_path} is missing, so nothing can be appended here",
            remedy="Serve the ledger where it was made, or where its log key was put.",
        )
    settings = ServerSettings(
        artefact_bytes_max=options["artefact_mib"] * 2**20,
        records_per_second=options["records_per_second"],
        records_burst=4 * options["records_per_second"],
    )
    logging.basicConfig(format="lichen: %(message)s", level=logging.WARNING)
    log_key = find_log_key(workspace.directory, workspace.ledger.log_key)
    ledger_id, name, access = (
        workspace.ledger.id,
        workspace.ledger.genesis.name,
        workspace.ledger.genesis.access,
    )
    workspace.close()
    listening = bind(host, port)
    try:
        service = Service(workspace.directory, log_key, settings, home=lichen_home())
    except BaseException:
        listening.close()
        raise
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{listening.getsockname()[1]}"

    def ready() -> None:
        say = invocation.output.line
        say(f"serving the {access} ledger {name!r} at {url}")
        say(f"its id is {ledger_id}")
        if host not in _LOOPBACK:
            say("what passes over the network is signed but not encrypted: use a proxy with TLS in front")
        say(f"colleagues type: lichen run --ledger {url} -- python train.py")
        sys.stdout.flush()

    serve(service, listening, ready)
