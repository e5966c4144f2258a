"""What is asked of `lichen run`, what comes back, and who is told on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from lichen.energy.measurement import Measurement
    from lichen.runs.process.supervise import Outcome
    from lichen.runs.reuse.lookup import Answer, Nearest
    from lichen.runs.reuse.objections import Objection

__all__ = ["Estimate", "Narrator", "RunRequest", "RunResult", "SilentNarrator"]


@dataclass(frozen=True)
class RunRequest:
    """The options of `lichen run`, each under its own name.

    Args:
        argv: Command line after ``--``.
        data: Paths declared as inputs.
        code: Paths declared as code.
        out: Paths declared as outputs.
        env: Names of variables declared as inputs.
        params: Parameters declared by name, which count as part of the request.
        seed: Names of options or variables that are only seeds.
        target: Least (or, with ``<``, greatest) value by metric name.
        metrics_file: JSON file the script writes its metrics to.
        patterns: Metric names with the expression to find each in the output.
        accept: Classes taken beyond the policy: ``same-work``, ``disputed``, ``flagged``.
        repeat: How often equal work is wanted.
        rerun: Do not ask the ledger.
        exit_ok: A nonzero exit status is a finished run too.
        replay: Show the recorded output on a hit.
        wait_seconds_max: Longest wait for equal work in progress; None for no bound.
        trace: Names of tracing means, or None for the best available.
        zone: Grid zone, when the user says where this is.
        show_record: Show the record of the finished run before it is signed.
    """

    argv: tuple[str, ...]
    data: tuple[str, ...] = ()
    code: tuple[str, ...] = ()
    out: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    seed: tuple[str, ...] = ()
    target: Mapping[str, float] = field(default_factory=dict)
    metrics_file: Path | None = None
    patterns: tuple[tuple[str, re.Pattern[str]], ...] = ()
    accept: frozenset[str] = frozenset()
    repeat: int = 1
    rerun: bool = False
    exit_ok: bool = False
    replay: bool = True
    wait_seconds_max: float | None = None
    trace: str | None = None
    zone: str | None = None
    show_record: bool = False


@dataclass(frozen=True)
class Estimate:
    """What a run is likely to cost, from earlier ones.

    Args:
        energy_joules: Middle of the earlier runs.
        low_joules: Least of them, lowered by its uncertainty.
        high_joules: Most of them, raised by its uncertainty.
        run_count: How many they are.
        basis: ``same request`` or ``same script``.
    """

    energy_joules: float
    low_joules: float
    high_joules: float
    run_count: int
    basis: str


@dataclass
class RunResult:
    """How a request ended.

    Args:
        status: ``trained``, ``missed``, ``hit``, ``failed`` or ``interrupted``; ``estimated`` when only that was asked.
        exit_status: What the command line should end with.
        record: Index of the entry: of the new run, or of the run that answered.
        reusable: Whether the run may answer later requests.
        reasons: Code and sentence of each reason why not.
        measurement: Energy of this run; None on a hit.
        avoided_joules: Joules not spent, booked on a hit.
        avoided_u95: Relative uncertainty of that, 95 %.
        credited: Whether they were booked: once per fingerprint and member, and only when something was restored.
        duration_seconds: Wall time of the command, or of answering.
        metrics: Final value by name.
        receipt: Text of the receipt; None when the record is spooled.
        author: Member who made the run.
        answer: What the ledger said.
        objections: Flags and disputes on record against the answer, its outputs or its data.
        outputs: Manifest names of the outputs made or restored.
        manifest_cid: CID text of the manifest.
        missed_target: Which metric missed its target, in words.
        spooled: Where the record waits when the ledger could not take it.
        outcome: The command's end, for leaving as it left; None when nothing ran.
        with_inner_runs: Energy of this run and of the runs inside it.
    """

    status: str
    exit_status: int
    record: int | None = None
    reusable: bool = False
    reasons: Sequence[tuple[str, str]] = ()
    measurement: Measurement | None = None
    avoided_joules: float = 0.0
    avoided_u95: float = 0.0
    credited: bool = False
    duration_seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    receipt: str | None = field(default=None, repr=False)
    author: str | None = None
    answer: Answer | None = field(default=None, repr=False)
    objections: Sequence[Objection] = ()
    outputs: Sequence[str] = ()
    manifest_cid: str | None = None
    missed_target: str | None = None
    spooled: str | None = None
    estimate: Estimate | None = None
    nearest: Sequence[Nearest] = field(default=(), repr=False)
    outcome: Outcome | None = field(default=None, repr=False)
    with_inner_runs: Measurement | None = None

    def __str__(self) -> str:
        """Tell it in a line: ``trained, entry 12, accuracy 0.93, 310 ± 90 J (model, process), reusable``."""
        from lichen.units import format_energy

        told = [self.status]
        if self.record is not None:
            told.append(
                f"entry {self.record}{f' by {self.author}' if self.status == 'hit' and self.author else ''}"
            )
        told += [f"{name} {value:g}" for name, value in self.metrics.items()]
        if self.measurement is not None:
            told.append(self.measurement.describe())
        if self.credited:
            told.append(f"{format_energy(self.avoided_joules, self.avoided_u95)} not spent")
        if self.missed_target:
            told.append(f"target missed: {self.missed_target}")
        if self.reasons:
            told.append(f"not reusable: {', '.join(code for code, _ in self.reasons)}")
        elif self.reusable and self.status != "hit":
            told.append("reusable")
        if self.spooled:
            told.append(f"waits in {self.spooled}")
        return ", ".join(told)

    def to_report(self) -> dict[str, Any]:
        """Return the content of ``--report FILE``.

        ``energy_joules``, ``energy_relative_u95`` and ``method`` are those of the work itself: of this run, or, on a hit, None,
        with what was not spent in ``avoided_joules``.
        """
        measured = self.measurement
        return {
            "status": self.status,
            "record": self.record,
            "reusable": self.reusable,
            "reasons": [{"code": code, "text": text} for code, text in self.reasons],
            "energy_joules": measured.energy_joules if measured else None,
            "energy_relative_u95": measured.relative_u95 if measured else None,
            "method": str(measured.method) if measured else None,
            "boundary": str(measured.boundary) if measured else None,
            "avoided_joules": self.avoided_joules,
            "avoided_relative_u95": self.avoided_u95,
            "credited": self.credited,
            "duration_seconds": self.duration_seconds,
            "metrics": dict(self.metrics),
            "missed_target": self.missed_target,
            "exit_status": self.exit_status,
            "author": self.author,
            "objections": [objection.to_json() for objection in self.objections],
            "outputs": list(self.outputs),
            "manifest": self.manifest_cid,
            "receipt": self.receipt,
            "spooled": self.spooled,
        }


class Narrator(Protocol):
    """Who is told what happens; the command line prints, tests collect."""

    def missed(self, answer: Answer, nearest: Sequence[Nearest], estimate: Estimate | None) -> None:
        """The ledger has no answer to take; the run comes next."""

    def waiting(self, holder: str) -> None:
        """Equal work is in progress elsewhere; called about once a second."""

    def replayed(self, stdout: bytes) -> None:
        """Recorded output of a hit, filtered of terminal escapes."""

    def record_shown(self, text: str) -> None:
        """The record as it is about to be signed."""

    def sent(self, count: int) -> None:
        """Records that waited for the ledger, or its server, are in it now."""

    def warning(self, text: str) -> None:
        """Something beside the command went wrong."""


class SilentNarrator:
    """A narrator for callers who only want the result."""

    def missed(self, answer: Answer, nearest: Sequence[Nearest], estimate: Estimate | None) -> None:
        """Say nothing."""

    def waiting(self, holder: str) -> None:
        """Say nothing."""

    def replayed(self, stdout: bytes) -> None:
        """Say nothing."""

    def record_shown(self, text: str) -> None:
        """Say nothing."""

    def sent(self, count: int) -> None:
        """Say nothing."""

    def warning(self, text: str) -> None:
        """Say nothing."""
