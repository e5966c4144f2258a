"""The account of the ledger itself: joules avoided by hits, minus joules that ledger, store and meter spent.

Counterfactual rule: *without the ledger, the member who got an answer would have done the work once more, at the joules that were
measured when it was done*. Only answers that put something back count, once per fingerprint and member; answers of
class ``same-work`` count only because the member accepted them as an answer.

Spent: the processor seconds of every Lichen command on this ledger, each counted by the kernel when the command ended and
turned into joules by the same load model as any work; and the bytes of ledger and store for the time they lie there.
The commands' own seconds are kept in ``cache/own-cost.jsonl`` (one line a command), because what a command costs is only
known after its last entry is written.

Source: storage 0.88 kWh per TB and month for one copy on SSD, times 0.3 to 2 (Cloud Carbon Footprint).
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from lichen.encoding.foreign_json import read_json
from lichen.encoding.statement import Statement
from lichen.units import joules_from_kilowatt_hours

if TYPE_CHECKING:
    from lichen.energy.measurement import Measurement
    from lichen.runs.workspace.workspace import Workspace

__all__ = [
    "COUNTERFACTUAL",
    "OWN_COST_FILE",
    "Balance",
    "balance",
    "joules_of_own_seconds",
    "record_own_cost",
]

COUNTERFACTUAL = "without the ledger, the member who got an answer would have done the work once more, at the joules measured when it was done"
OWN_COST_FILE = "own-cost.jsonl"
_STORAGE_KWH_PER_TB_MONTH = (0.88 * 0.3, 0.88, 0.88 * 2.0)
_FIGURE_MAX = 1e15  # seconds or bytes; no process used more, and NaN is not below it
_MONTH_SECONDS = 365.25 / 12 * 86_400


@dataclass(frozen=True)
class Balance:
    """The account.

    Args:
        avoided_joules: Not spent, thanks to hits.
        avoided_u95: Absolute uncertainty of that, joules, 95 %; errors of runs fully correlated.
        hit_count: Hits that were booked.
        spent_joules: Spent by commands and storage.
        spent_u95: Absolute uncertainty of that, joules.
        by_command: Joules by command, and ``storage``.
        command_count: Commands metered.
        runs_joules: What all recorded runs cost, for comparison.
        run_count: How many they are.
        failed_joules: Of those, the joules of failed and interrupted runs.
        shared_relative_u95: Relative error that both sides have in common, because one load model on one machine gave both; 0
            when avoided and spent joules were measured in different ways or on different devices.
    """

    avoided_joules: float
    avoided_u95: float
    hit_count: int
    spent_joules: float
    spent_u95: float
    by_command: dict[str, float]
    command_count: int
    runs_joules: float
    run_count: int
    failed_joules: float
    shared_relative_u95: float = 0.0
    counterfactual: str = field(default=COUNTERFACTUAL)

    @property
    def net_joules(self) -> float:
        """Avoided minus spent."""
        return self.avoided_joules - self.spent_joules

    @property
    def net_u95(self) -> float:
        """Absolute uncertainty of the net, joules.

        An error that both sides share scales the net as a whole; what is not shared adds up.
        """
        own = (
            self.avoided_u95
            + self.spent_u95
            - self.shared_relative_u95 * (self.avoided_joules + self.spent_joules)
        )
        return abs(self.net_joules) * self.shared_relative_u95 + max(0.0, own)

    @property
    def verdict(self) -> str:
        """``pays`` or ``costs`` when the interval leaves no doubt, else ``open``."""
        if self.net_joules - self.net_u95 > 0:
            return "pays"
        return "costs" if self.net_joules + self.net_u95 < 0 else "open"

    def to_json(self) -> dict[str, Any]:
        """Return the account as a table for JSON."""
        absolute = {
            "avoided_u95": "avoided_joules_u95",
            "spent_u95": "spent_joules_u95",
            "by_command": "joules_by_command",
        }
        return {
            **{absolute.get(name, name): value for name, value in self.__dict__.items()},
            "net_joules": self.net_joules,
            "net_joules_u95": self.net_u95,
            "verdict": self.verdict,
        }


def record_own_cost(directory: Path, command: str, cpu_seconds: float | None = None) -> None:
    """Write down what this process has used so far, children that ran a user's command left out.

    Args:
        directory: Ledger directory.
        command: Name of the Lichen command.
        cpu_seconds: Processor time of Lichen's own, in a process that did other work too; that of the process when None.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    line = {
        "time_unix_ms": time.time_ns() // 1_000_000,
        "command": command,
        "cpu_seconds": round(used.ru_utime + used.ru_stime if cpu_seconds is None else cpu_seconds, 6),
        "peak_rss_bytes": used.ru_maxrss * 1024,
    }
    path = directory / "cache" / OWN_COST_FILE
    with contextlib.suppress(OSError):  # an account that cannot be kept must not fail the command it counts
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, (json.dumps(line, separators=(",", ":")) + "\n").encode())
        finally:
            os.close(handle)


def _own_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                with contextlib.suppress(ValueError):  # a torn last line
                    value = read_json(line)
                    if _makes_sense(value):
                        yield value
    except FileNotFoundError:
        return


def _makes_sense(value: object) -> bool:
    """Say whether a line is one that :func:`record_own_cost` can have written."""
    if not isinstance(value, dict) or not isinstance(value.get("command"), str):
        return False
    figures = (value.get("cpu_seconds"), value.get("peak_rss_bytes", 0))
    return all(_is_number(figure) and 0 <= figure < _FIGURE_MAX for figure in figures)


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def joules_of_own_seconds(cpu_seconds: float, peak_rss_bytes: int) -> Measurement:
    """Turn processor seconds of a mostly busy process into joules by the load model."""
    from lichen.energy import process_table
    from lichen.energy.attribution import TreeUsage
    from lichen.energy.load_model import LoadModelSource
    from lichen.energy.measurement import Measurement
    from lichen.energy.sources import Load

    usage = TreeUsage(
        cpu_seconds=cpu_seconds, cpu_seconds_low=cpu_seconds, cpu_seconds_high=cpu_seconds, process_count=1,
        peak_rss_bytes=peak_rss_bytes, mean_rss_bytes=float(peak_rss_bytes), read_bytes=0, write_bytes=0, method="self",
    )  # fmt: skip
    load = Load(
        duration_seconds=max(cpu_seconds, 1e-9),
        usage=usage,
        machine_busy_seconds=None,
        logical_cpu_count=os.cpu_count() or 1,
        memory_bytes=process_table.read_memory_bytes(),
    )
    source = LoadModelSource.detect()
    reading = source.open().close(load)
    return Measurement(reading.components, cpu_seconds, source.boundary, source.device)


def balance(workspace: Workspace) -> Balance:
    """Draw up the account of a ledger.

    Args:
        workspace: The ledger.
    """
    connection = workspace.ledger.connection
    row = connection.execute(
        "SELECT COUNT(*), TOTAL(avoided_joules), TOTAL(avoided_joules * avoided_u95) FROM view_reuse WHERE avoided_joules > 0"
    ).fetchone()
    hit_count, avoided, avoided_u95 = int(row[0]), float(row[1]), float(row[2])
    runs = connection.execute(
        "SELECT COUNT(*), TOTAL(energy_joules), TOTAL(CASE WHEN status IN ('failed', 'interrupted') THEN energy_joules ELSE 0 END) "
        "FROM view_run"
    ).fetchone()
    by_command: dict[str, float] = {}
    spent_u95 = 0.0
    command_count = 0
    totals: dict[str, tuple[float, int]] = {}
    for line in _own_lines(workspace.cache_directory / OWN_COST_FILE):
        command_count += 1
        seconds, peak = totals.get(str(line["command"]), (0.0, 0))
        totals[str(line["command"])] = (
            seconds + float(line["cpu_seconds"]),
            max(peak, int(line.get("peak_rss_bytes", 0))),
        )
    for command, (seconds, peak) in sorted(totals.items()):
        cost = joules_of_own_seconds(seconds, peak)
        by_command[command] = cost.energy_joules
        spent_u95 += cost.energy_joules * cost.relative_u95
    shared = _shared_relative_u95(workspace, avoided, avoided_u95, math.fsum(by_command.values()), spent_u95)
    storage, storage_u95 = _storage_joules(workspace)
    by_command["storage"] = storage
    return Balance(
        avoided_joules=avoided,
        avoided_u95=avoided_u95,
        hit_count=hit_count,
        spent_joules=math.fsum(by_command.values()),
        spent_u95=spent_u95 + storage_u95,
        by_command=by_command,
        command_count=command_count,
        runs_joules=float(runs[1]),
        run_count=int(runs[0]),
        failed_joules=float(runs[2]),
        shared_relative_u95=shared,
    )


def _shared_relative_u95(
    workspace: Workspace, avoided: float, avoided_u95: float, spent: float, spent_u95: float
) -> float:
    """Return the relative error that both sides share: rated power and load curve of one processor in one model."""
    from lichen.energy.load_model import LoadModelSource

    methods = workspace.ledger.connection.execute(
        "SELECT DISTINCT method FROM view_run JOIN view_reuse ON view_reuse.target = view_run.idx WHERE avoided_joules > 0"
    ).fetchall()
    row = workspace.ledger.connection.execute(
        "SELECT MAX(target) FROM view_reuse WHERE avoided_joules > 0"
    ).fetchone()
    if [method for (method,) in methods] != ["model"] or not avoided or not spent or row[0] is None:
        return 0.0
    device = (
        Statement.from_bytes(workspace.ledger.entry(int(row[0])).payload).predicate["energy"].get("device")
    )
    if device != LoadModelSource.detect().device:
        return 0.0
    return min(avoided_u95 / avoided, spent_u95 / spent)


def _storage_joules(workspace: Workspace) -> tuple[float, float]:
    """Return joules and absolute uncertainty of keeping today's bytes since the ledger was made: an upper bound on the bytes."""
    size = sum(file.stat().st_size for file in workspace.directory.glob("ledger.*") if file.is_file())
    size += workspace.store.usage().size_bytes
    months = max(0.0, time.time() - workspace.ledger.genesis.created_unix_ms / 1000) / _MONTH_SECONDS
    low, usual, high = (
        joules_from_kilowatt_hours(rate * size / 1e12 * months) for rate in _STORAGE_KWH_PER_TB_MONTH
    )
    return usual, max(high - usual, usual - low)
