"""One process of a distributed run: all follow one decision, rank 0 records, nobody waits for anybody.

Source: see ``ranks`` and ``rendezvous``.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.errors import LichenError
from lichen.runs.distributed.launchers import LAUNCHER_VARIABLE
from lichen.runs.distributed.rendezvous import Joined, RankPart, Rendezvous, total_energy
from lichen.runs.trace.exchange import merge_traces, read_trace, write_trace

if TYPE_CHECKING:
    from lichen.energy.measurement import Measurement
    from lichen.runs.distributed.ranks import Rank
    from lichen.runs.train import Watched
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Meeting", "as_first_rank"]


def as_first_rank(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what tells ranks and launches apart, so that every rank asks the same."""
    return {name: value for name, value in environ.items() if not LAUNCHER_VARIABLE.fullmatch(name)}


class Meeting:
    """What a process does with the others of its run.

    Args:
        workspace: Its ledger directory is where they meet.
        rank: Which process this is.
    """

    def __init__(self, workspace: Workspace, rank: Rank) -> None:
        self.rank = rank
        self._rendezvous = Rendezvous(workspace.directory / "ranks", rank)

    def agree(self, hit: int | None) -> int | None:
        """Propose a hit, or to train; return what the first of all decided.

        Args:
            hit: Entry that this process would take; None to train.

        Returns:
            Entry that all take; None when all train.

        Raises:
            StorageError: The decision cannot be written or read.
        """
        decided = self._rendezvous.agree("train" if hit is None else f"hit {hit}")
        index = decided.removeprefix("hit ")
        return int(index) if index != decided and index.isdigit() else None

    def leave(self, watched: Watched) -> None:
        """Leave this process's part to rank 0."""
        outcome = watched.outcome
        with tempfile.TemporaryDirectory(prefix="lichen-rank-") as directory:
            trace = Path(directory, "trace")
            write_trace(watched.trace, trace)
            self._rendezvous.leave(
                RankPart(
                    rank=self.rank.index,
                    host=socket.gethostname(),
                    started_unix_ms=outcome.started_ns // 1_000_000,
                    ended_unix_ms=outcome.ended_ns // 1_000_000,
                    exit_status=outcome.exit_status,
                    interrupted=outcome.interrupted,
                    energy=_record(watched.measurement),
                    energy_with_inner_runs=_record(watched.with_inner_runs),
                    trace=trace,
                )
            )

    def join(self, watched: Watched) -> tuple[Watched, Joined]:
        """Put the parts of the others to that of rank 0.

        Returns:
            What all did together, and who is missing. A missing rank, one on another machine, or one that failed makes the
            trace incomplete.
        """
        joined = self._rendezvous.collect()
        host = socket.gethostname()
        reasons = [f"rank-missing: no part of rank {rank} arrived" for rank in joined.missing]
        traces = []
        for part in joined.parts:
            if part.host != host:
                reasons.append(
                    f"rank-elsewhere: rank {part.rank} ran on {part.host}, whose files are not seen from here"
                )
            if part.exit_status != 0:
                reasons.append(f"rank-failed: rank {part.rank} ended with status {part.exit_status}")
            try:
                if part.trace is None:
                    raise LichenError("it left no trace")  # noqa: TRY301 - one handling for both
                traces.append(read_trace(part.trace))
            except LichenError as error:
                reasons.append(f"rank-untraced: rank {part.rank}: {error.message}")
        trace = merge_traces(watched.trace, traces)
        if reasons:
            trace = replace(trace, complete=False, reasons=(*trace.reasons, *reasons))
        measurement, whole = watched.measurement, watched.with_inner_runs
        if measurement is not None:
            measurement = total_energy(measurement, host, joined.parts)
        if whole is not None:
            parts = [replace(part, energy=part.energy_with_inner_runs) for part in joined.parts]
            whole = total_energy(whole, host, parts)
        return replace(watched, trace=trace, measurement=measurement, with_inner_runs=whole), joined

    def close(self, run_id: str, joined: Joined) -> None:
        """Say that the run is recorded."""
        self._rendezvous.close(run_id, joined)


def _record(measurement: Measurement | None) -> dict[str, Any] | None:
    return measurement.to_record() if measurement is not None else None
