"""What every benchmark shares: where results go, what machine this is, percentiles and paired ratios.

A result file says date, machine, commit and exact command, so that a figure can be traced to a run. Ratios are of
interleaved pairs within one run, with a bootstrap interval, because two runs on a shared machine are not comparable.
"""

from __future__ import annotations

import json
import os
import platform
import random
import resource
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Describe this machine without naming it."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model, "logical_cpus": os.cpu_count(), "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(), "python": platform.python_version(),
    }  # fmt: skip


def commit() -> str:
    """Return the commit, with a plus sign when the tree differs from it."""
    root = Path(__file__).parent.parent
    head = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    changed = subprocess.run(
        ["git", "status", "--porcelain", "-uno"], cwd=root, capture_output=True, text=True, check=False
    )
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def write_result(
    name: str, figures: dict[str, Any], *, bars: dict[str, str], notes: Sequence[str] = ()
) -> None:
    """Write ``results/NAME.json`` and print it.

    Args:
        name: Of the benchmark.
        figures: Numbers by name, units in the names.
        bars: What was asked for, by figure.
        notes: How to read them.
    """
    RESULTS.mkdir(exist_ok=True)
    result = {
        "benchmark": name,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "machine": machine(),
        "command": "python "
        + shlex.join([f"benchmarks/{Path(sys.argv[0]).name}", *map(_without_place, sys.argv[1:])]),
        "bars": bars,
        "figures": figures,
        "notes": list(notes),
    }
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def _without_place(word: str) -> str:
    """A word of the command line without where on this machine something lies."""
    return Path(word).name if word.startswith("/") else word


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def interval(
    values: Sequence[float], statistic: Callable[[Sequence[float]], float] = statistics.median
) -> dict[str, float]:
    """Return a statistic with its 95 % bootstrap interval."""
    rng = random.Random(1)
    draws = sorted(statistic(rng.choices(values, k=len(values))) for _ in range(2_000))
    return {"value": statistic(values), "low": draws[50], "high": draws[1949]}


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Return the median of the pairs' ratios with its 95 % bootstrap interval."""
    return interval([one / other for one, other in zip(ours, theirs, strict=True)])


def children_cpu_seconds(command: Sequence[str], **options: Any) -> tuple[float, float]:
    """Run a command; return its processor seconds, children included, and its wall seconds."""
    import time

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    subprocess.run(
        command,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
        **options,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall
