"""Traces of several processes as one: written to a file, read back, merged.

The processes of a distributed run are traced apart. Their accesses cannot be ordered among each other, so a path that one wrote and another read
stands with both kinds: whoever judges the run then finds it read and written, which is the careful reading. What one only
looked at and another made was there because the run made it, and is no input.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from lichen.encoding.foreign_json import read_json
from lichen.errors import EncodingError
from lichen.runs.trace.trace import Access, Exec, PlainReads, StatKey, Trace

__all__ = ["merge_traces", "read_trace", "write_trace"]

_PLAIN = (
    "links",
    "modules", "imports", "module_directories", "variables", "distributions", "environment", "execs", "network",
    "stdin_used", "complete", "reasons", "metrics", "interpreter", "process_count",
)  # fmt: skip
_TUPLES = ("imports", "module_directories", "links", "execs", "network", "reasons", "metrics")


def write_trace(trace: Trace, path: Path) -> None:
    """Write a trace as JSON; names that are not UTF-8 survive as escapes."""
    value: dict[str, Any] = {name: getattr(trace, name) for name in _PLAIN}
    value["accesses"] = [
        [a.path, a.kind, list(a.stat) if a.stat else None, a.order, sorted(a.by), a.detail, a.names]
        for a in trace.every_access()
    ]
    value["processes"] = [[p.name, p.path, list(p.argv), p.kind, p.observed] for p in trace.processes]
    path.write_text(json.dumps(value, default=dict), encoding="ascii")


def read_trace(path: Path) -> Trace:
    """Read a trace.

    Raises:
        EncodingError: It is damaged, or of another shape.
    """
    try:
        value = read_json(path.read_text(encoding="ascii"))
        accesses = tuple(
            Access(p, kind, StatKey(*stat) if stat else None, order, frozenset(by), detail, tuple(names) if names is not None else None)
            for p, kind, stat, order, by, detail, names in value.pop("accesses")
        )  # fmt: skip
        processes = tuple(
            Exec(n, p, tuple(argv), kind, seen) for n, p, argv, kind, seen in value.pop("processes")
        )
        known = {field.name for field in fields(Trace)} - {"plain"}
        rest: dict[str, Any] = {
            name: tuple(item) if name in _TUPLES else item for name, item in value.items() if name in known
        }
        return Trace(accesses=accesses, processes=processes, **rest)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EncodingError(f"the trace of another process in {path} cannot be read: {error}") from error


def merge_traces(first: Trace, others: Iterable[Trace]) -> Trace:
    """Merge the traces of processes that ran side by side.

    Args:
        first: Of the process that records the run; its variables and metrics stand.
        others: Of the rest.
    """
    accesses = {(access.path, access.kind): access for access in first.every_access()}
    merged = first
    for other in others:
        for access in other.every_access():
            accesses.setdefault((access.path, access.kind), access._replace(order=len(accesses)))
        merged = replace(
            merged,
            modules={**other.modules, **merged.modules},
            imports=tuple(sorted({*merged.imports, *other.imports})),
            module_directories=tuple(dict.fromkeys((*merged.module_directories, *other.module_directories))),
            variables={**other.variables, **merged.variables},
            distributions={**other.distributions, **merged.distributions},
            links=tuple(sorted({*merged.links, *other.links})),
            execs=tuple(sorted({*merged.execs, *other.execs})),
            processes=(*merged.processes, *other.processes),
            network=tuple(dict.fromkeys((*merged.network, *other.network))),
            stdin_used=merged.stdin_used or other.stdin_used,
            complete=merged.complete and other.complete,
            reasons=tuple(dict.fromkeys((*merged.reasons, *other.reasons))),
            process_count=merged.process_count + other.process_count,
        )
    made = {
        access.path
        for access in accesses.values()
        if access.detail.startswith("made-") or (access.kind == "write" and access.detail != "deleted")
    }
    kept = (a for a in accesses.values() if a.path not in made or a.kind not in ("stat", "list"))
    return replace(merged, accesses=tuple(kept), plain=PlainReads())
