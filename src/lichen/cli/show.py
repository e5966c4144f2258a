"""`lichen show`: one entry, with all that is known of it here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
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
    from lichen.runs.show import describe

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
    say(
        Painted(f"entry {told['index']}: {told['kind']}", "bold"),
        f" by {told['member']}, {_when(told['time_unix_ms'])}, {told['size_bytes']:,} bytes",
    )
    invocation.output.pairs([*_facts(told), *_standing(told)])
    if told["kind"] == "run":
        if told.get("manifest") is None:
            say(f"the manifest is not at hand: {told.get('manifest_problem')}")
        else:
            _tell_manifest(invocation, told["manifest"], items_max)
            _tell_output(invocation, told.get("detail") or {})
    receipt = "verifiable offline: lichen show {} --receipt > FILE" if told["receipt"] else "not yet: {}"
    invocation.output.pairs(
        [("receipt", receipt.format(told["index"] if told["receipt"] else told.get("receipt_problem")))]
    )


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
        yield "exit status", str(said.get("exit_status"))
    if told.get("title"):
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
    if said.get("avoided"):
        from lichen.units import format_energy

        yield "not spent", format_energy(said["avoided"]["joules"], said["avoided"]["u95"])


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


def _tell_manifest(invocation: Invocation, manifest: dict[str, Any], items_max: int | None) -> None:
    invocation.output.pairs([("command", " ".join(manifest["command"])), ("in", manifest["cwd"])])
    sections: tuple[tuple[str, Callable[[], list[str]]], ...] = (
        ("parameters", lambda: [f"{name} {value}" for name, value in manifest["parameters"].items()]),
        ("seeds", lambda: [f"{name} {value}" for name, value in manifest["seeds"].items()]),
        ("code", lambda: list(manifest["code"])),
        ("data", lambda: list(manifest["data"])),
        ("listings", lambda: list(manifest["listings"])),
        ("variables", lambda: [f"{name}={'(unset)' if value is None else value}" for name, value in manifest["variables"].items() if value is not None]),
        ("environment", lambda: [f"{name} {value}" for name, value in manifest["environment"].items()]),
        ("distributions", lambda: [f"{name} {version}" for name, version in manifest["distributions"].items()]),
    )  # fmt: skip
    for title, items in sections:
        listed = items()
        if listed:
            invocation.output.pairs([(title, _some(listed, items_max))])
    outputs = manifest["outputs"]
    for output in outputs[:items_max]:
        invocation.output.pairs([("output", f"{output['name']}  {output['cid']}  {output['size']:,} bytes")])
    if items_max is not None and len(outputs) > items_max:
        invocation.output.pairs([("output", f"… and {len(outputs) - items_max} more")])


def _some(items: list[str], items_max: int | None) -> str:
    shown = items if items_max is None else items[:items_max]
    return ", ".join(shown) + (f" … and {len(items) - len(shown)} more" if len(items) > len(shown) else "")


def _tell_output(invocation: Invocation, detail: dict[str, Any]) -> None:
    for reason in detail.get("reasons", ()):
        invocation.output.pairs([("not reusable", f"{reason['code']}: {reason['text']}")])
    lines = str(detail.get("stdout", "")).splitlines()
    if not lines:
        return
    left_out = len(lines) - _OUTPUT_LINES_MAX
    invocation.output.line(
        "it printed:"
        if left_out <= 0
        else f"it printed, in its last {_OUTPUT_LINES_MAX} of {len(lines):,} lines:"
    )
    for line in lines[-_OUTPUT_LINES_MAX:]:
        invocation.output.line(f"  {line}")
