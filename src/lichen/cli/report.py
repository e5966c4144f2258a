"""`lichen report`: energy and CO2 of all the work behind a result, failed attempts included."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.runs.queries.paper import LifeCycle

__all__ = ["report_command"]


@click.command(
    "report",
    epilog=examples(
        "lichen report", "lichen report --paper --zone DE", "lichen report @last --paper --format latex"
    ),
)
@click.argument("reference", required=False)
@click.option("--paper", is_flag=True, help="Write sentences to paste into a paper.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "markdown", "latex"]),
    default="text",
    show_default=True,
    help="Of the sentences; markdown and latex write them without --paper too.",
)
@click.option(
    "--zone",
    metavar="ZONE",
    help="Grid zone for the CO2, such as DE; that of the entries when not given, else the whole range of the world.",
)
@ledger_option
@json_option
@pass_invocation
def report_command(
    invocation: Invocation,
    /,
    reference: str | None,
    *,
    paper: bool,
    form: str,
    zone: str | None,
    ledger: str | None,
) -> None:
    """Report energy and CO2, ready for a paper.

    Counts every run of the scripts behind REFERENCE (an index, @last, a CID, a digest or a file), or every run on record: also those that failed, were
    interrupted or missed their target.
    """
    from lichen.runs.queries.paper import life_cycle, paper_report

    with invocation.workspace(ledger) as workspace:
        if (paper or form != "text") and not invocation.as_json:
            invocation.output.text(paper_report(workspace, reference, zone, form))
            return
        cycle = life_cycle(workspace, reference, zone)
    if invocation.as_json:
        invocation.output.json(cycle.to_json())
    else:
        _show(invocation, cycle)


def _show(invocation: Invocation, cycle: LifeCycle) -> None:
    from lichen.cli.sentences import plural
    from lichen.units import format_carbon, format_duration, format_energy

    counts = ", ".join(f"{count} {status}" for status, count in sorted(cycle.status_counts.items()))
    rows = [
        ("counted", f"{cycle.subject}: {plural(cycle.run_count, 'run')} ({counts})"),
        ("energy", format_energy(cycle.energy_joules, cycle.relative_u95)),
        ("of it without result", format_energy(cycle.failed_joules)),
        ("computing time", format_duration(cycle.duration_seconds)),
        (
            "CO2",
            f"{format_carbon(cycle.carbon_gco2e, cycle.carbon_relative_u95)} at {cycle.intensity.describe()}",
        ),
        *([("zones of the runs", ", ".join(cycle.zones))] if len(cycle.zones) > 1 else []),
        ("measured by", ", ".join(f"{name} ({count})" for name, count in sorted(cycle.methods.items()))),
        ("boundary", ", ".join(sorted(cycle.boundaries))),
        ("on", ", ".join(cycle.devices)),
        ("avoided by reuse", format_energy(cycle.reused_joules)),
    ]
    invocation.output.pairs(rows)
