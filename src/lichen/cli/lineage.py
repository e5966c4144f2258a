"""`lichen lineage`: what a result came from and went into, and which data its errors point at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

if TYPE_CHECKING:
    from lichen.runs.queries.lineage import Graph
    from lichen.runs.records.flags import Suspect

__all__ = ["lineage_command"]


@click.command(
    "lineage",
    epilog=examples(
        "lichen lineage model.pkl", "lichen lineage @last --format mermaid", "lichen lineage --suspects"
    ),
)
@click.argument("reference", required=False)
@click.option("--up", is_flag=True, help="Only what it came from.")
@click.option("--down", is_flag=True, help="Only what came of it.")
@click.option(
    "--depth",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="COUNT",
    help="Most steps from the entry.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "mermaid", "graphviz"]),
    default="text",
    show_default=True,
    help="How to draw it.",
)
@click.option(
    "--suspects", is_flag=True, help="Rank the data that stands behind flagged work, in the whole ledger."
)
@ledger_option
@json_option
@pass_invocation
def lineage_command(invocation: Invocation, /, reference: str | None, **options: Any) -> None:
    """Draw what a result came from and went into.

    REFERENCE is an index, @last (when not given), a CID, a digest, or a file. Whatever descends from flagged work is marked as suspect.
    """
    from lichen.runs.queries.lineage import lineage
    from lichen.runs.records.flags import suspects

    with invocation.workspace(options["ledger"]) as workspace:
        if options["suspects"]:
            _show_suspects(invocation, suspects(workspace))
            return
        both = options["up"] == options["down"]
        graph = lineage(
            workspace,
            reference or "@last",
            up=both or options["up"],
            down=both or options["down"],
            depth=options["depth"],
        )
        is_flagged = any(node.flag_count for node in graph.nodes.values())
        ranked = suspects(workspace) if is_flagged and options["form"] == "text" else []
    if invocation.as_json:
        invocation.output.json({**graph.to_json(), "suspects": [each.to_json() for each in ranked]})
        return
    invocation.output.text(_draw(graph, options["form"]))
    if ranked:
        invocation.output.line("")
        invocation.output.line("data behind flagged work, most suspected first:")
        _suspect_table(invocation, ranked)


def _draw(graph: Graph, form: str) -> str:
    if form == "mermaid":
        return graph.to_mermaid()
    return graph.to_graphviz() if form == "graphviz" else graph.to_text()


def _show_suspects(invocation: Invocation, ranked: list[Suspect]) -> None:
    if invocation.as_json:
        invocation.output.json([each.to_json() for each in ranked])
    elif ranked:
        _suspect_table(invocation, ranked)
    else:
        invocation.output.note(
            "no data is suspected: nothing is flagged, or no flagged work read data that is on record"
        )


def _suspect_table(invocation: Invocation, ranked: list[Suspect]) -> None:
    rows = [
        [
            f"{each.score:.2f}",
            each.title,
            str(each.flag_count),
            str(each.work_count),
            _entries(each.descendants),
        ]
        for each in ranked
    ]
    invocation.output.table(("score", "data", "flags", "used by", "entries"), rows, right=(0, 2, 3))
    invocation.output.line("a score of 1 is what any data would have; it is a pointer for people, no verdict")


def _entries(indices: tuple[int, ...], shown_max: int = 8) -> str:
    shown = ", ".join(str(index) for index in indices[:shown_max])
    return shown + (f" and {len(indices) - shown_max} more" if len(indices) > shown_max else "")
