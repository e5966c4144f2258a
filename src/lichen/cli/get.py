"""`lichen get`: an artefact out of the store, checked against its CID."""

from __future__ import annotations

from pathlib import Path

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

__all__ = ["get_command"]


@click.command(
    "get",
    epilog=examples(
        "lichen get model.pkl --output fetched.pkl",
        "lichen get @last --name model.pkl --output fetched.pkl --overwrite",
    ),
)
@click.argument("reference")
@click.option(
    "--output", metavar="PATH", help="File or directory to write; named after the artefact when not given."
)
@click.option("--name", metavar="NAME", help="Which output of a run, when it has several.")
@click.option("--overwrite", is_flag=True, help="Replace content that the store does not hold.")
@ledger_option
@json_option
@pass_invocation
def get_command(
    invocation: Invocation,
    /,
    reference: str,
    *,
    output: str | None,
    name: str | None,
    overwrite: bool,
    ledger: str | None,
) -> None:
    """Get an artefact back, verified.

    REFERENCE is a CID, or an entry of data, of a model or of a run: an index, @last, a digest, a file with the same content.
    """
    from lichen.runs.queries.fetch import fetch
    from lichen.units import format_size

    with invocation.workspace(ledger) as workspace:
        fetched = fetch(
            workspace, reference, Path(output) if output is not None else None, name=name, overwrite=overwrite
        )
    if invocation.as_json:
        invocation.output.json(dict(vars(fetched)))
        return
    files = "" if fetched.file_count == 1 else f" in {fetched.file_count:,} files"
    invocation.output.line(
        f"{fetched.path}: {format_size(fetched.size_bytes)}{files}, verified as {fetched.cid}"
    )
