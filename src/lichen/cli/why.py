"""`lichen why`: what the ledger would do with a command, and the first difference behind a miss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation
from lichen.cli.run import build_request, check_command, metric_options, request_options

__all__ = ["why_command"]


@click.command(
    "why",
    epilog=examples(
        "lichen why -- python train.py --depth 5",
        "lichen why --json -- python train.py --depth 5",
        "lichen why --prove no.receipt -- python train.py --depth 5",
    ),
    context_settings={"allow_interspersed_args": False},
)
@request_options
@metric_options
@click.option(
    "--prove",
    metavar="FILE",
    help="Write a receipt that proves that equal work is, or is not, on record; needs an earlier run of the command.",
)
@ledger_option
@json_option
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="-- COMMAND…")
@pass_invocation
def why_command(invocation: Invocation, /, command: tuple[str, ...], **options: Any) -> None:
    """Say why a command would be answered, or not.

    Runs nothing. Names the first item that changed since the last run of this command: a source file, data, a listing, a
    variable, a version.

    With --prove it also answers whether equal work is on record, with a receipt. The fingerprints asked for are computed from what
    runs of the command read before, as it is now: a run that turns out to read something else has another. A yes is no hit yet: it is
    said when such work was withdrawn or flagged, or does not know of something you declare.
    """
    from lichen.cli.narrator import nearest_lines
    from lichen.cli.sentences import describe_estimate
    from lichen.runs.reuse.why import explain
    from lichen.runs.workspace.project import Project

    check_command(command)
    project = Project.find(Path.cwd(), extra_ignore=options["ignore"])
    request = build_request(command, options, project)
    with invocation.workspace(options["ledger"], project=project) as workspace:
        explanation = explain(workspace, request)
        if options["prove"] is not None:
            from lichen.cli.proving import tell_proved
            from lichen.runs.queries.prove import planned_claims, planned_notes, prove, standing_notes

            proved = prove(workspace, planned_claims(workspace, explanation.answer))
            notes = planned_notes(explanation.answer, proved, explanation.lines)
            tell_proved(invocation, proved, Path(options["prove"]), notes + standing_notes(workspace, proved))
            return
    if invocation.as_json:
        invocation.output.json(explanation.to_json())
        return
    for line in (*explanation.lines, *nearest_lines(explanation.answer, explanation.nearest)):
        invocation.output.line(line)
    if explanation.estimate is not None:
        invocation.output.line(describe_estimate(explanation.estimate))
