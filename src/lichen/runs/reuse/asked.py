"""What a request asks of an answer beside its outputs: its metrics and its targets.

Metrics and targets are no part of what makes work equal, so an answer may come from a run of which other metrics, or none, were
asked. What is asked now is looked for where the run would have shown it: in the recorded output, and in the metrics file
if the run made it. Both are named by the entry's manifest. The entry itself stays as it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lichen.encoding.base import b64u_decode
from lichen.errors import EncodingError
from lichen.runs.records.metrics import collect_metrics

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lichen.runs.request import Narrator, RunRequest
    from lichen.runs.work.manifest import Manifest
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["metrics_asked", "recorded_output"]


def recorded_output(workspace: Workspace, manifest: Manifest) -> bytes | None:
    """Return the standard output of a recorded run, as far as it was kept; None when it is no longer at hand."""
    recorded = workspace.detail(manifest).get("stdout")
    if not isinstance(recorded, str):
        return None
    try:
        return b64u_decode(recorded)
    except EncodingError:
        return None


def metrics_asked(
    workspace: Workspace,
    request: RunRequest,
    manifest: Manifest,
    recorded: Mapping[str, float],
    narrator: Narrator,
) -> dict[str, float]:
    """Return the metrics of an answer: those on record, and over them what the request looks for.

    Args:
        workspace: Ledger and store.
        request: What is asked; its outputs are in place.
        manifest: Of the run that answers.
        recorded: Metrics in its entry.
        narrator: Told what could not be found.
    """
    file = _made_by_the_run(workspace, request.metrics_file, manifest)
    if request.metrics_file is not None and file is None and not recorded:
        narrator.warning(f"--metrics {request.metrics_file}: the run that answers made no such file")
    patterns = request.patterns
    output = recorded_output(workspace, manifest) if patterns else b""
    if output is None:
        for name, _ in patterns:
            known = f"{name} is as it was recorded" if name in recorded else f"there is no {name}"
            narrator.warning(
                f"--metric {name}: the recorded output is no longer at hand, so {known}; --rerun runs it again"
            )
        patterns, output = (), b""
    found, warnings = collect_metrics((), file, patterns, output.decode("utf-8", "replace"))
    for warning in warnings:
        narrator.warning(warning)
    return {**recorded, **found}


def _made_by_the_run(workspace: Workspace, file: Path | None, manifest: Manifest) -> Path | None:
    """Return a metrics file that is an output of the run; another file of that name tells nothing of it."""
    if file is None:
        return None
    made = {output.name for output in manifest.outputs}
    absolute = os.path.abspath(file)  # noqa: PTH100 - links are kept as typed
    names = {workspace.project.name_of(path) for path in (absolute, os.path.realpath(file))}
    return file if names & made else None
