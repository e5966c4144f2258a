"""Facts about the interpreter and the numerical libraries a run used."""

# Paths are the run's own strings.
# ruff: noqa: PTH119

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

from lichen.runs.trace.agent_log import AgentLog

__all__ = ["describe_environment", "driver_version"]

_BLAS_NAMES = ("openblas", "mkl_rt", "libblis", "libflexiblas", "libatlas", "libblas.so")
_CUDA_NAMES = ("libcuda.so", "libhsa-runtime", "libamdhip")


def describe_environment(agents: Sequence[AgentLog], mapped: Iterable[str]) -> dict[str, str]:
    """Describe what the results of a run may depend on besides its files.

    Args:
        agents: Logs of its Python processes.
        mapped: Files that were in memory.

    Returns:
        ``machine``; for Python ``implementation`` and ``version``; ``blas`` (library file names, comma separated) and
        ``cuda`` (driver version) when such a library was loaded.
    """
    facts = {"machine": platform.machine()}
    if agents:
        facts["implementation"] = str(agents[0].facts.get("implementation", ""))
        facts["version"] = str(agents[0].facts.get("version", ""))
    names = {os.path.basename(path) for path in mapped}
    blas = sorted(name for name in names if any(part in name for part in _BLAS_NAMES))
    if blas:
        facts["blas"] = ",".join(blas)
    if any(name.startswith(_CUDA_NAMES) for name in names):
        facts["cuda"] = driver_version() or "unknown"
    return facts


def driver_version() -> str:
    """Return the NVIDIA driver's version, empty when there is none."""
    try:
        words = Path("/proc/driver/nvidia/version").read_text(encoding="ascii", errors="replace").split()
    except OSError:
        return ""
    return next((word for word in words if word[:1].isdigit() and "." in word), "")
