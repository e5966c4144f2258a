"""Where searches led: programs found on ``PATH`` and libraries on ``LD_LIBRARY_PATH``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lichen.runs.trace.programs import find_library, find_program

if TYPE_CHECKING:
    from lichen.runs.trace.trace import Trace

__all__ = ["found_by_search"]


def found_by_search(environ: Mapping[str, str], trace: Trace) -> list[str]:
    """Name the programs and libraries that a search path led to: an earlier or another entry there would lead elsewhere.

    The run's own interpreter is left out: it is described by what it is, not by where it lies.
    """
    started = {os.path.realpath(path) for path in trace.execs}
    started |= {os.path.realpath(access.path) for access in trace.accesses if access.kind == "exec"}
    first = 1 if trace.processes and trace.processes[0].kind == "python" else 0
    started |= {os.path.realpath(process.path) for process in trace.processes[first:] if process.path}
    names = {_last(path) for process in trace.processes[first:] for path in (process.name, process.path)}
    names |= {_last(access.path) for access in trace.accesses if access.kind == "exec"}
    found = [
        f"program {name}"
        for name in sorted(names - {""})
        if (path := find_program(name, "/", environ)) and os.path.realpath(path) in started
    ]
    libraries = {_last(access.path) for access in trace.accesses if ".so" in access.path}
    found += [f"library {name}" for name in sorted(libraries) if find_library(name, "/", environ)]
    return found


def _last(path: str) -> str:
    return path.rpartition("/")[2]
