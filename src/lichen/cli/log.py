"""`lichen log`: the entries, one a line."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.cli.output import Painted

__all__ = ["log_command"]

_KINDS = (
    "genesis",
    "member",
    "log-key",
    "run",
    "data",
    "model",
    "evaluation",
    "reuse",
    "flag",
    "dispute",
    "withdraw",
    "seal",
)


@click.command(
    "log",
    epilog=examples("lichen log", "lichen log --kind run --limit 5", "lichen log --oldest-first --json"),
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="COUNT",
    help="Most entries shown.",
)
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
@click.option("--kind", type=click.Choice(_KINDS), help="Only entries of this kind.")
@click.option("--member", metavar="ID", help="Only entries of this author.")
@click.option("--oldest-first", is_flag=True, help="In the order in which they came.")
@click.option("--seals", is_flag=True, help="Show the seals that close the blocks, too.")
@ledger_option
@json_option
@pass_invocation
def log_command(invocation: Invocation, /, **options: Any) -> None:
    """List the entries of the ledger.

    With --json, one entry is one line.
    """
    from lichen.runs.queries.show import log

    with invocation.workspace(options["ledger"]) as workspace:
        entries = log(
            workspace,
            limit=None if options["everything"] else options["limit"],
            kind=options["kind"],
            member=options["member"],
            reverse=not options["oldest_first"],
            seals=options["seals"],
        )
        if invocation.as_json:
            for told in entries:
                invocation.output.json_line(told)
            return
        rows = [_row(told) for told in entries]
        size = workspace.ledger.size
    if not rows:
        invocation.output.note("no entry fits")
        return
    invocation.output.table(("entry", "when", "by", "what", ""), rows, right=(0,))
    if not options["everything"] and len(rows) == options["limit"]:
        invocation.output.note(f"{len(rows)} of {size:,} entries; --all shows them all")


def _row(told: dict[str, Any]) -> list[str | Painted]:
    from lichen.cli.output import Painted

    when = time.strftime("%Y-%m-%d %H:%M", time.localtime((told["time_unix_ms"] or 0) / 1000))
    facts, marks = _facts(told)
    return [str(told["index"]), when, told["member"], facts, Painted(marks, "warn")]


def _facts(told: dict[str, Any]) -> tuple[str, str]:
    """Say what an entry is, in a line, and what is wrong with it."""
    from lichen.cli.sentences import describe_metrics, describe_title
    from lichen.units import format_energy

    kind = told["kind"]
    parts = [describe_title(str(told["title"]))] if told.get("title") else []
    if told.get("metrics"):
        parts.append(describe_metrics(told["metrics"], 2))
    if "energy_joules" in told:
        parts.append(format_energy(told["energy_joules"], told["energy_relative_u95"]))
    marks = ""
    if kind == "run" and told["status"] != "trained":
        marks = told["status"]
    elif kind == "run" and not told["reusable"]:
        marks = f"not reusable: {told.get('reason')}"
    if kind == "reuse":
        avoided = told.get("avoided_joules")
        saved = f", {format_energy(avoided, told.get('avoided_relative_u95'))} not spent" if avoided else ""
        parts.append(f"answered from entry {told['of']}{saved}")
    elif kind == "member":
        parts.append(f"{told['action']} {told['subject_member']}")
    elif kind == "seal":
        parts.append(f"block {told['block_height']}, entries before it {told['tree_size']}")
    elif kind == "genesis":
        parts.append(f"{told.get('access')} ledger {told.get('name')!r}")
    elif kind in ("flag", "withdraw", "evaluation", "dispute"):
        more = told.get("error") or told.get("reason") or told.get("severity")
        against = f" against entry {told['against']}" if "against" in told else ""
        parts.insert(0, f"of entry {told['of']}{against}" + (f": {more}" if more else ""))
    return f"{kind}: {', '.join(parts)}" if parts else kind, marks
