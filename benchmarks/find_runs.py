"""`find` in a ledger of many runs, in process: by fingerprint, and by data and metric ordered by energy.

Bars at 1,000,000 runs: by fingerprint p99 < 1 ms; by data + metric < 20 ms usual, < 1 s at worst (no run reaches the bound, so
every run on the data is looked at).

A million runs are not signed and appended one by one for this: the log has the first of them, and the query tables, which are all
that a search reads, have them all, put there by the code that fills them (``--signed`` appends every one). The plan of each
search is checked: none may go through a whole table.
"""

from __future__ import annotations

import argparse
import os
import random
import sqlite3
import tempfile
import time
from pathlib import Path

from harness import percentile, write_result


def plans(connection: sqlite3.Connection, statements: list[str]) -> list[str]:
    """Return the query plans of the statements that were run; none of them may scan a table.

    Raises:
        AssertionError: One does.
    """
    found: dict[str, None] = {}
    for statement in statements:
        if statement.lstrip().upper().startswith("SELECT"):
            for row in connection.execute("EXPLAIN QUERY PLAN " + statement):
                found[str(row[3])] = None
    small = ("SCAN views", "SCAN CONSTANT ROW")  # ``views`` has one row for each view
    scans = [line for line in found if line.startswith("SCAN") and line not in small]
    assert not scans, scans
    return list(found)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument(
        "--signed", action="store_true", help="append every run to the log too, which takes much longer"
    )
    parser.add_argument("--directory", type=Path, help="use or make the ledger here, and keep it")
    arguments = parser.parse_args()
    keep = arguments.directory
    directory = keep or Path(tempfile.mkdtemp(prefix="lichen-find-"))
    os.environ["LICHEN_HOME"] = str(directory / "home")
    from synthetic import DATA_SETS, digest, make_ledger, make_views

    from lichen.contracts.registry import exact_fingerprint
    from lichen.encoding.base import b64u
    from lichen.runs.queries.find import MetricBound, Query, find
    from lichen.runs.workspace.project import Project
    from lichen.runs.workspace.workspace import Workspace

    build_seconds = None
    if not (directory / ".lichen").exists():
        directory.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        make_ledger(directory, arguments.runs) if arguments.signed else make_views(directory, arguments.runs)
        build_seconds = time.perf_counter() - started
    rng = random.Random(3)
    by_fingerprint: list[float] = []
    usual: list[float] = []
    worst: list[float] = []
    started = time.perf_counter()
    with Workspace.find(str(directory / ".lichen"), project=Project(directory), read_only=True) as workspace:
        connection = workspace.ledger.connection
        open_seconds = time.perf_counter() - started
        _ = workspace.index
        searched: list[str] = []
        connection.set_trace_callback(searched.append)
        fingerprint = exact_fingerprint(
            {name: b64u(digest(name, 1)) for name in ("command", "code", "data", "rest")}
        )
        find(workspace, Query(fingerprint=fingerprint.hex(), kind="run"))
        some_data = Path(digest("data", 1).hex())
        for least in (0.9, 2.0):
            query = Query(
                data=some_data, metric=MetricBound("accuracy", ">=", least), order="energy", kind="run"
            )
            find(workspace, query)
        connection.set_trace_callback(None)
        used = plans(connection, searched)
        for _ in range(1_000):
            number = rng.randrange(arguments.runs)
            fingerprint = exact_fingerprint(
                {name: b64u(digest(name, number)) for name in ("command", "code", "data", "rest")}
            )
            started = time.perf_counter()
            found = find(workspace, Query(fingerprint=fingerprint.hex(), kind="run"))
            by_fingerprint.append(time.perf_counter() - started)
            assert len(found) == 1, found
        for place in range(200):
            sample = Path(digest("data", rng.randrange(DATA_SETS)).hex())
            bound = MetricBound("accuracy", ">=", 0.9)
            started = time.perf_counter()
            found = find(workspace, Query(data=sample, metric=bound, order="energy", kind="run"))
            usual.append(time.perf_counter() - started)
            assert len(found) == 20 or arguments.runs < 50_000
            costs = [item.energy_joules or 0.0 for item in found]
            assert costs == sorted(costs)
            if place < 20:
                started = time.perf_counter()
                found = find(
                    workspace,
                    Query(data=sample, metric=MetricBound("accuracy", ">=", 2.0), order="energy", kind="run"),
                )
                worst.append(time.perf_counter() - started)
                assert not found
    size = (directory / ".lichen" / "ledger.sqlite").stat().st_size
    write_result(
        "find_runs",
        {
            "runs": arguments.runs,
            "build_seconds": build_seconds,
            "open_seconds": open_seconds,
            "ledger_bytes_per_run": size / arguments.runs,
            "by_fingerprint_p50_seconds": percentile(by_fingerprint, 0.5),
            "by_fingerprint_p99_seconds": percentile(by_fingerprint, 0.99),
            "by_data_and_metric_p50_seconds": percentile(usual, 0.5),
            "by_data_and_metric_p99_seconds": percentile(usual, 0.99),
            "worst_case_max_seconds": max(worst),
            "query_plans": used,
        },
        bars={
            "by_fingerprint_p99_seconds": "< 0.001",
            "by_data_and_metric_p99_seconds": "< 0.020",
            "worst_case_max_seconds": "< 1",
        },
        notes=[
            "The data digest is given directly, because hashing the searched file is not the search.",
            "Every run was signed and appended to the log."
            if arguments.signed
            else "The log has the first 2,000 runs; the query tables have all of them.",
        ],
    )
    if keep is None:
        import shutil

        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
