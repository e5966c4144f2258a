"""Energy and CO2 of the work behind a result, ready to paste into a paper: failed and trial runs included.

The report asks publications to state energy and CO2 (7.2) and to count the whole training life cycle, failed runs too. What is
counted: every run on record of the same script family as the runs behind the result, or all runs of the ledger.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lichen.encoding.statement import Statement
from lichen.energy.grid import Intensity, lookup
from lichen.energy.measurement import combine_factors
from lichen.errors import NotFoundError, UsageError
from lichen.runs.queries.reference import resolve
from lichen.units import (
    compute_carbon_gco2e,
    format_carbon,
    format_duration,
    format_energy,
    kilowatt_hours_from_joules,
)

if TYPE_CHECKING:
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["LifeCycle", "life_cycle", "paper_report"]


_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "%": r"\%", "±": r"$\pm$", "µ": r"$\mu$", "_": r"\_", "#": r"\#", "&": r"\&", "$": r"\$",
        "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "…": r"\ldots{}",
    }
)  # fmt: skip


@dataclass(frozen=True)
class LifeCycle:
    """What all the work behind a result cost.

    Args:
        run_count: Runs counted.
        status_counts: Of those, by status.
        energy_joules: Of all of them.
        relative_u95: 95 %, errors of runs fully correlated.
        failed_joules: Of failed and interrupted ones, and those that missed their target.
        duration_seconds: Wall time of all of them.
        methods: Count of runs by method of measuring.
        boundaries: Count of runs by boundary.
        devices: What did the work.
        zones: Grid zones of the runs; one without a zone counts as in the zone of your settings, or as ``unknown``.
        intensity: Grid signal used.
        carbon_gco2e: Carbon.
        carbon_relative_u95: 95 %, joules and intensity independent.
        reused_joules: Not spent again, thanks to hits on these runs.
        subject: What was asked about.
        ledger_id: Where the entries stand.
        checkpoint_size: Entries at the time of reporting.
    """

    run_count: int
    status_counts: dict[str, int]
    energy_joules: float
    relative_u95: float
    failed_joules: float
    duration_seconds: float
    methods: dict[str, int]
    boundaries: dict[str, int]
    devices: tuple[str, ...]
    zones: tuple[str, ...]
    intensity: Intensity
    carbon_gco2e: float
    carbon_relative_u95: float
    reused_joules: float
    subject: str
    ledger_id: str
    checkpoint_size: int

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        names = {"relative_u95": "energy_relative_u95", "reused_joules": "avoided_joules"}
        return {
            **{names.get(name, name): value for name, value in self.__dict__.items() if name != "intensity"},
            "devices": list(self.devices),
            "zones": list(self.zones),
            "intensity": {
                "zone": self.intensity.zone, "gco2e_per_kwh": self.intensity.g_per_kwh,
                "gco2e_per_kwh_low": self.intensity.low_g_per_kwh, "gco2e_per_kwh_high": self.intensity.high_g_per_kwh,
                "vintage": self.intensity.vintage, "source": self.intensity.source, "signal": self.intensity.signal,
                "live": self.intensity.live,
            },
        }  # fmt: skip


def life_cycle(workspace: Workspace, reference: str | None, zone: str | None) -> LifeCycle:
    """Add up the work behind a result.

    Args:
        workspace: The ledger.
        reference: A run, a model or an evaluation of one (then all runs of the scripts behind it), or None for every run on record.
        zone: Grid zone; when None the zone in the entries, for those without one that of the settings, and the world's range where
            that leaves none or several.

    Raises:
        NotFoundError: There is no such entry or zone, or no run is on record.
        UsageError: The entry is neither a run nor a model.
    """
    connection = workspace.ledger.connection
    condition, values, subject = "1", list[object](), "all runs on record"
    if reference is not None:
        index = resolve(workspace, reference)
        run = _run_behind(workspace, index)
        row = connection.execute("SELECT family FROM view_run WHERE idx = ?", (run,)).fetchone()
        condition, values = "family = ?", [row[0]]
        subject = f"every run of the script behind entry {index}"
    rows = connection.execute(
        "SELECT idx, status, energy_joules, relative_u95, duration_seconds, method, boundary, zone FROM view_run "  # noqa: S608 - constants
        f"WHERE {condition}",
        values,
    ).fetchall()
    if not rows:
        raise NotFoundError("no run is on record", remedy="Record one: lichen run -- python train.py")
    energy = sum(row[2] for row in rows)
    relative = sum(row[2] * row[3] for row in rows) / energy if energy else max(row[3] for row in rows)
    usual = workspace.project.config.zone or workspace.user.get_text("energy.zone")
    zones = {row[7] or usual for row in rows}
    intensity = lookup(zone if zone is not None else (next(iter(zones)) if len(zones) == 1 else None))
    low, high = intensity.range_g_per_kwh
    spread = (
        max(high - intensity.g_per_kwh, intensity.g_per_kwh - low) / intensity.g_per_kwh
        if intensity.g_per_kwh
        else 0.0
    )
    marks = ",".join("?" * min(len(rows), 30_000))
    reused = connection.execute(
        f"SELECT TOTAL(avoided_joules) FROM view_reuse WHERE target IN ({marks})",  # noqa: S608 - question marks only
        [row[0] for row in rows[:30_000]],
    ).fetchone()[0]
    return LifeCycle(
        run_count=len(rows),
        status_counts=dict(Counter(row[1] for row in rows)),
        energy_joules=energy,
        relative_u95=relative,
        failed_joules=sum(row[2] for row in rows if row[1] != "trained"),
        duration_seconds=sum(row[4] for row in rows),
        methods=dict(Counter(row[5] for row in rows)),
        boundaries=dict(Counter(row[6] for row in rows)),
        devices=_devices(workspace, [row[0] for row in rows[-50:]]),
        zones=tuple(sorted(each or "unknown" for each in zones)),
        intensity=intensity,
        carbon_gco2e=compute_carbon_gco2e(energy, intensity.g_per_kwh),
        carbon_relative_u95=combine_factors(relative, spread),
        reused_joules=float(reused),
        subject=subject,
        ledger_id=workspace.ledger.id,
        checkpoint_size=workspace.ledger.size,
    )


def _run_behind(workspace: Workspace, index: int) -> int:
    connection = workspace.ledger.connection
    if connection.execute("SELECT 1 FROM view_run WHERE idx = ?", (index,)).fetchone():
        return index
    row = connection.execute(
        "SELECT coalesce(one.run, model.run) FROM view_artefact AS one LEFT JOIN view_artefact AS model ON model.idx = one.of "
        "WHERE one.idx = ?",
        (index,),
    ).fetchone()
    if row is None or row[0] is None:
        raise UsageError(
            f"entry {index} is no run, and no recorded run made it",
            remedy="Name a run, or a model that a recorded run made; leave it out for every run on record.",
        )
    return int(row[0])


def _devices(workspace: Workspace, indices: list[int]) -> tuple[str, ...]:
    names = dict.fromkeys(
        str(
            Statement.from_bytes(workspace.ledger.entry(index).payload)
            .predicate["energy"]
            .get("device", "unknown")
        )
        for index in indices
    )
    return tuple(names)


def paper_report(workspace: Workspace, reference: str | None, zone: str | None, form: str = "text") -> str:
    """Write the statement.

    Args:
        workspace: The ledger.
        reference: See :func:`life_cycle`.
        zone: See :func:`life_cycle`.
        form: ``text``, ``markdown``, ``latex`` or ``json``.

    Returns:
        Text to paste.

    Raises:
        UsageError: Unknown form.
    """
    cycle = life_cycle(workspace, reference, zone)
    if form == "json":
        return json.dumps(cycle.to_json(), indent=2, ensure_ascii=False)
    if form not in ("text", "markdown", "latex"):
        raise UsageError(f"format {form!r} is none of text, markdown, latex, json")
    lines = _sentences(cycle)
    if form == "markdown":
        return "\n".join(["### Energy and carbon of this work", "", *(f"- {line}" for line in lines)])
    text = " ".join(lines)
    if form == "latex":
        return "\\paragraph{Energy and carbon.} " + text.translate(_LATEX)
    return text


_WITHOUT_RESULT = {"failed": "failed", "interrupted": "interrupted", "missed": "below target"}


def _sentences(cycle: LifeCycle) -> list[str]:
    counts = [f"{cycle.status_counts.get('trained', 0)} successful"]
    counts += [
        f"{cycle.status_counts[status]} {words}"
        for status, words in _WITHOUT_RESULT.items()
        if status in cycle.status_counts
    ]
    kilowatt_hours = kilowatt_hours_from_joules(cycle.energy_joules)
    methods = ", ".join(f"{method} ({count})" for method, count in sorted(cycle.methods.items()))
    boundaries = ", ".join(sorted(cycle.boundaries))
    energy = format_energy(cycle.energy_joules, cycle.relative_u95)
    runs = f"{cycle.run_count} {'run' if cycle.run_count == 1 else 'runs'}"
    lines = [
        f"The work reported here ({cycle.subject}) took {runs}: {', '.join(counts)}.",
        f"Together they consumed {energy} ({kilowatt_hours:.3g} kWh; 95 % interval), "
        f"{format_energy(cycle.failed_joules)} of it in runs without a usable result.",
        f"They computed for {format_duration(cycle.duration_seconds)} on {', '.join(cycle.devices)}.",
        f"Energy was measured by: {methods}; boundary: {boundaries}.",
        f"At {cycle.intensity.describe()} this is {format_carbon(cycle.carbon_gco2e, cycle.carbon_relative_u95)}.",
    ]
    if len(cycle.zones) > 1:
        lines.append(
            f"The runs took place in several zones ({', '.join(cycle.zones)}); the intensity is that of {cycle.intensity.zone}."
        )
    if cycle.reused_joules:
        lines.append(f"Reusing recorded results avoided a further {format_energy(cycle.reused_joules)}.")
    lines.append(
        f"Every run is an entry of the Lichen ledger {cycle.ledger_id[:16]}… (size {cycle.checkpoint_size}), where it can be verified."
    )
    return lines
