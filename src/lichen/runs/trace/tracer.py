"""Watch a run with every means there is, and say what it depended on.

Use::

    tracer = Tracer(project_root, watch_directories=[data])
    environment = tracer.environment(os.environ)
    tracer.start()
    ...  # start the command with that environment; call tracer.poll() now and then
    trace = tracer.finish()

``start`` comes before the command is started, ``finish`` after its last process has ended. Nothing here may disturb the
command: what fails makes the trace incomplete and says so.
"""

# Paths are the run's own strings, undecodable bytes and all, and there can be 100,000 of them.
# ruff: noqa: PTH100, PTH103

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lichen.errors import StorageError
from lichen.runs.trace.accesses import AccessTable
from lichen.runs.trace.agent_log import AgentLog, read_agent_logs
from lichen.runs.trace.modules import find_modules
from lichen.runs.trace.network import outside_peers
from lichen.runs.trace.places import Places
from lichen.runs.trace.trace import Trace
from lichen.runs.trace.variables import select_variables

__all__ = ["AGENT_DIRECTORY", "TRACE_DIRECTORY", "Tracer"]

AGENT_DIRECTORY = Path(__file__).parent / "agent"
TRACE_DIRECTORY = "LICHEN_TRACE_DIR"
RUN_DIRECTORY = "LICHEN_RUN_DIR"
METRICS_FILE = "metrics.jsonl"


class Tracer:
    """Traces one run.

    Args:
        project_root: Root of the project the run belongs to.
        watch_directories: Further directories with data.
        means: Any of ``audit``, ``inotify``, ``preload``; None takes what this machine offers.
        scratch_directory: Where logs of the run are kept while it lasts; a temporary directory by default.
        cache_directory: Where the compiled preload library is kept.

    Raises:
        StorageError: No scratch directory can be made.
    """

    def __init__(
        self,
        project_root: str | Path,
        watch_directories: Iterable[str | Path] = (),
        means: Sequence[str] | None = None,
        scratch_directory: str | Path | None = None,
        cache_directory: str | Path | None = None,
    ) -> None:
        self.project_root = os.path.abspath(project_root)
        self.watch_directories = [os.path.abspath(directory) for directory in watch_directories]
        self.means = tuple(means) if means is not None else ("audit",)
        self.cache_directory = cache_directory
        try:
            if scratch_directory is not None:
                os.makedirs(scratch_directory, exist_ok=True)
            self.run_directory = Path(tempfile.mkdtemp(prefix="trace-", dir=scratch_directory))
        except OSError as error:
            raise StorageError(
                f"no directory for the trace can be made in {scratch_directory or tempfile.gettempdir()}: {error}",
                remedy="Make room there, or make it writable.",
            ) from error
        self._base: dict[str, str] = {}

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment the command must be started with.

        Args:
            base: Environment it would have without Lichen.
        """
        self._base = dict(base)
        environment = dict(base)
        environment[TRACE_DIRECTORY] = str(self.run_directory)
        environment[RUN_DIRECTORY] = str(self.run_directory)
        if "audit" in self.means:
            before = base.get("PYTHONPATH")
            environment["PYTHONPATH"] = (
                f"{AGENT_DIRECTORY}{os.pathsep}{before}" if before else str(AGENT_DIRECTORY)
            )
        return environment

    def start(self) -> None:
        """Begin to watch; call it before the command is started."""

    def poll(self) -> None:
        """Look at the live processes; call it now and then while the command runs."""

    def finish(self) -> Trace:
        """Stop watching and say what was seen; call it when the command has ended. The logs are removed."""
        try:
            return self._collect()
        finally:
            shutil.rmtree(self.run_directory, ignore_errors=True)

    def _collect(self) -> Trace:
        logs, failures = read_agent_logs(self.run_directory)
        places = Places(self.project_root, [str(self.run_directory), str(AGENT_DIRECTORY)], self._base)
        for log in logs:
            facts = log.facts
            places.add_interpreter(
                (facts.get("prefix", ""), facts.get("base_prefix", "")), facts.get("stdlib", ""), log.sys_path
            )
        table = AccessTable(places)
        table.add_all(sorted(record for log in logs for record in log.records), "audit")
        accesses = table.finish()
        found = find_modules(logs, places, table.site_files)
        reasons = [f"agent: {failure}" for failure in failures]
        return Trace(
            accesses=accesses,
            modules=found.modules,
            imports=tuple(sorted(found.imports)),
            module_directories=tuple(found.directories),
            variables=select_variables(logs, self._base, places),
            distributions=found.distributions,
            environment=_facts(logs),
            network=outside_peers(
                (peer for log in logs for peer in log.connects), (own for log in logs for own in log.binds)
            ),
            stdin_used=table.stdin_opened or any(log.stdin_read for log in logs),
            complete=not reasons,
            reasons=tuple(reasons),
            metrics=tuple(self._metrics()),
            interpreter=str(logs[0].facts.get("executable", "")) if logs else "",
            process_count=len(logs),
        )

    def _metrics(self) -> list[Mapping[str, Any]]:
        """Rows of ``lichen.log``; a line torn by a crash is left out."""
        rows: list[Mapping[str, Any]] = []
        with contextlib.suppress(OSError):
            for line in (self.run_directory / METRICS_FILE).read_bytes().splitlines():
                with contextlib.suppress(ValueError):
                    row = json.loads(line)
                    if isinstance(row, dict):
                        rows.append(row)
        return rows


def _facts(logs: Sequence[AgentLog]) -> dict[str, str]:
    if not logs:
        return {}
    facts = logs[0].facts
    return {
        name: str(facts[name]) for name in ("implementation", "version", "machine", "build") if name in facts
    }
