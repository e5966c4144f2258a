"""`lichen show`: one entry, with all that is known of it here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from lichen.cli.help import examples
from lichen.cli.options import Invocation, json_option, ledger_option, pass_invocation

__all__ = ["show_command"]

_ITEMS_SHOWN_MAX = 12
_OUTPUT_LINES_MAX = 20

_Pairs = Iterator[tuple[str, str]]


@click.command(
    "show",
    epilog=examples(
        "lichen show", "lichen show model.pkl --json", "lichen show @last --receipt > run.receipt"
    ),
)
@click.argument("reference", default="@last")
@click.option("--receipt", is_flag=True, help="Print the receipt, which anyone can verify, and nothing else.")
@click.option("--all", "everything", is_flag=True, help="Every file and variable, however many.")
@ledger_option
@json_option
@pass_invocation
def show_command(
    invocation: Invocation, /, reference: str, *, receipt: bool, everything: bool, ledger: str | None
) -> None:
    """Show one entry, with all that is known of it.

    REFERENCE is an index, @last (the newest run, when not given), a CID, a digest, or a file whose content is on record.
    """
    from lichen.errors import VerificationError
    from lichen.runs.queries.show import describe

    with invocation.workspace(ledger) as workspace:
        told = describe(workspace, reference)
    if receipt:
        if told["receipt"] is None:
            raise VerificationError(f"entry {told['index']} has no receipt: {told['receipt_problem']}")
        invocation.output.stdout.write(told["receipt"])
    elif invocation.as_json:
        invocation.output.json(told)
    else:
        _tell(invocation, told, None if everything else _ITEMS_SHOWN_MAX)


def _tell(invocation: Invocation, told: dict[str, Any], items_max: int | None) -> None:
    from lichen.cli.output import Painted

    say = invocation.output.line
    head = f" by {told['member']}, {_when(told['time_unix_ms'])}, {told['size_bytes']:,} bytes"
    say(Painted(f"entry {told['index']}: {told['kind']}", "bold"), head)
    detail = told.get("detail") or {}
    invocation.output.pairs(
        [*_facts(told), *_standing(told), *_manifest(told, items_max), *_reasons(detail), *_receipt(told)]
    )
    lines = str(detail.get("stdout", "")).splitlines()
    if lines:
        shown = (
            f", in its last {_OUTPUT_LINES_MAX} of {len(lines):,} lines"
            if len(lines) > _OUTPUT_LINES_MAX
            else ""
        )
        say(f"it printed{shown}:")
        for line in lines[-_OUTPUT_LINES_MAX:]:
            say(f"  {line}")


def _when(time_unix_ms: int | None) -> str:
    if time_unix_ms is None:
        return "at an unknown time"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(time_unix_ms / 1000))


def _facts(told: dict[str, Any]) -> _Pairs:
    """Yield what the entry itself says."""
    from lichen.cli.sentences import describe_metrics
    from lichen.units import format_size

    said = told["statement"]["predicate"]
    if told["kind"] == "run":
        yield (
            "status",
            said["status"] + (", reusable" if said["reusable"] else f", not reusable: {said.get('reason')}"),
        )
        if said.get("exit_status"):
            yield "exit status", str(said["exit_status"])
    elif told.get("title"):
        yield "title", str(told["title"])
    if said.get("metrics"):
        yield "metrics", describe_metrics(said["metrics"], 64)
    if said.get("target"):
        yield (
            "target",
            ", ".join(
                f"{name}{'=' if name.endswith('<') else '>='}{value:g}"
                for name, value in said["target"].items()
            ),
        )
    if said.get("energy"):
        yield from _energy(said["energy"])
    if "cid" in said:
        yield "cid", str(said["cid"])
        yield "size", format_size(said["size_bytes"])
    for name in (
        "licence",
        "run",
        "of",
        "against",
        "level",
        "action",
        "subject_member",
        "severity",
        "error",
        "reason",
    ):
        if said.get(name) is not None and not (told["kind"] == "run" and name == "reason"):
            yield name.replace("_", " "), str(said[name])
    if said.get("avoided_joules"):
        from lichen.units import format_energy

        yield "not spent", format_energy(said["avoided_joules"], said.get("avoided_u95"))


def _energy(energy: dict[str, Any]) -> _Pairs:
    from lichen.energy.measurement import Measurement
    from lichen.errors import EncodingError
    from lichen.units import format_duration, format_energy

    try:
        measurement = Measurement.from_record(energy)
    except EncodingError as error:
        yield "energy", f"not readable: {error.message}"
        return
    yield "energy", measurement.describe()
    parts = [f"{name} {format_energy(part.energy_joules)}" for name, part in measurement.components.items()]
    if len(parts) > 1:
        yield "of it", ", ".join(parts)
    yield "took", f"{format_duration(measurement.duration_seconds)} on {measurement.device}"
    if measurement.zone is not None:
        yield "grid zone", measurement.zone
    for note in measurement.notes:
        yield "note", note


def _standing(told: dict[str, Any]) -> _Pairs:
    """Yield what others have said of the entry, and what came of it."""
    for flag in told["flags"]:
        more = flag.get("error") or flag.get("severity") or ""
        yield f"{flag['kind']}", f"entry {flag['index']} by {flag['member']}: {more}"
    if told["withdrawn"]:
        reason = told["withdrawn"]["reason"] or "no reason given"
        yield "withdrawn", f"by entry {told['withdrawn']['index']}: {reason}"
    if told["reused"]:
        takers = ", ".join(sorted({each["member"] for each in told["reused"]}))
        yield "reused", f"{len(told['reused'])} times, by {takers}"


def _manifest(told: dict[str, Any], items_max: int | None) -> _Pairs:
    """Yield what the run depended on and made."""
    from lichen.runs.work.command import spelt_out

    if told["kind"] != "run":
        return
    manifest = told.get("manifest")
    if manifest is None:
        yield "manifest", f"not at hand: {told.get('manifest_problem')}"
        return
    yield "command", " ".join(spelt_out(manifest["command"], manifest["seeds"]))
    yield "in", manifest["cwd"]
    set_variables = {name: value for name, value in manifest["variables"].items() if value is not None}
    sections: tuple[tuple[str, dict[str, str], str], ...] = (
        ("parameters", manifest["parameters"], " "), ("seeds", manifest["seeds"], " "), ("code", manifest["code"], ""),
        ("data", manifest["data"], ""), ("listings", manifest["listings"], ""), ("variables", set_variables, "="),
        ("environment", manifest["environment"], " "), ("distributions", manifest["distributions"], " "),
    )  # fmt: skip
    for title, items, joint in sections:
        if items:
            yield (
                title,
                _some(
                    [f"{name}{joint}{value}" if joint else name for name, value in items.items()], items_max
                ),
            )
    outputs = manifest["outputs"]
    for output in outputs[:items_max]:
        yield "output", f"{output['name']}  {output['cid']}  {output['size']:,} bytes"
    if items_max is not None and len(outputs) > items_max:
        yield "output", f"… and {len(outputs) - items_max} more"


def _some(items: list[str], items_max: int | None) -> str:
    shown = items if items_max is None else items[:items_max]
    return ", ".join(shown) + (f" … and {len(items) - len(shown)} more" if len(items) > len(shown) else "")


def _reasons(detail: dict[str, Any]) -> _Pairs:
    """Yield why the run is not reusable, in words."""
    for reason in detail.get("reasons", ()):
        yield "not reusable", f"{reason['code']}: {reason['text']}"


def _receipt(told: dict[str, Any]) -> _Pairs:
    if told["receipt"]:
        yield "receipt", f"verifiable offline: lichen show {told['index']} --receipt > FILE"
    else:
        yield "receipt", f"none yet: {told.get('receipt_problem')}"
