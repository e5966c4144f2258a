"""`find` in a ledger of many runs, in process: by fingerprint, and by data and metric ordered by energy.

Bars at 1,000,000 runs: by fingerprint p99 < 1 ms; by data + metric < 20 ms usual, < 1 s at worst (no run reaches the bound, so
every run on the data is looked at).

The ledger is a whole one: every run is signed, judged, appended and sealed, and the query tables are filled from the entries.
That takes minutes at a million runs, so a ledger can be kept and asked again. The plan of each search is checked too: none may
go through a whole table.

    python benchmarks/find_runs.py                                      # 100,000 runs, under a minute
    python benchmarks/find_runs.py --runs 1000000 --ledger /tmp/many    # makes it there unless it is there, and keeps it
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness import percentile, write_result

if TYPE_CHECKING:
    from lichen.runs.queries.find import Found, Query
    from lichen.runs.workspace.workspace import Workspace

FINGERPRINT_COUNT, DATA_COUNT, WORST_COUNT = 2_000, 400, 40
SMALL_TABLES = ("SCAN views", "SCAN CONSTANT ROW")  # ``views`` has one row for each view


@contextlib.contextmanager
def ledger_at(kept: Path | None, count: int) -> Iterator[tuple[Path, float | None]]:
    """Give the directory of a ledger of many runs, and how many seconds it took to make, None when it was there."""
    directory = kept or Path(tempfile.mkdtemp(prefix="lichen-find-"))
    os.environ["LICHEN_HOME"] = str(directory / "home")
    from synthetic import make_ledger

    seconds = None
    try:
        if not (directory / ".lichen" / "ledger.sqlite").exists():
            directory.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            make_ledger(directory, count, progress=tell)
            seconds = time.perf_counter() - started
        yield directory, seconds
    finally:
        if kept is None:
            shutil.rmtree(directory)


def tell(done: int, count: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{done:,} of {count:,} runs appended", end="" if done < count else "\n", file=sys.stderr)


def plans(connection: sqlite3.Connection, statements: list[str]) -> list[str]:
    """Return the query plans of the statements that were run; none of them may scan a table.

    Raises:
        SystemExit: One does.
    """
    found: dict[str, None] = {}
    for statement in statements:
        if statement.lstrip().upper().startswith("SELECT"):
            for row in connection.execute("EXPLAIN QUERY PLAN " + statement):
                found[str(row[3])] = None
    if scans := [line for line in found if line.startswith("SCAN") and line not in SMALL_TABLES]:
        raise SystemExit(f"a search goes through a whole table: {scans}")
    return list(found)


class Seconds(NamedTuple):
    """How long one search took: by the clock, and of the processor alone."""

    wall: float
    processor: float


class Searches:
    """The three kinds of search over one open ledger.

    Args:
        workspace: The ledger.
        count: How many runs it has; run ``n`` has the parts that `synthetic.digest` makes of ``n``.
    """

    def __init__(self, workspace: Workspace, count: int) -> None:
        from synthetic import DATA_SETS

        self.workspace, self.count, self.data_sets = workspace, count, DATA_SETS
        self.rng = random.Random(3)

    def by_fingerprint(self) -> Query:
        """One run by the fingerprint of its work."""
        from synthetic import digest

        from lichen.contracts.registry import exact_fingerprint
        from lichen.encoding.base import b64u
        from lichen.runs.queries.find import Query

        number = self.rng.randrange(self.count)
        parts = {name: b64u(digest(name, number)) for name in ("command", "code", "data", "rest")}
        return Query(fingerprint=exact_fingerprint(parts).hex(), kind="run")

    def by_data_and_metric(self, least: float = 0.9) -> Query:
        """The cheapest runs on some data that are good enough; the digest is given, since hashing a file is not the search."""
        from synthetic import digest

        from lichen.runs.queries.find import MetricBound, Query

        data = Path(digest("data", self.rng.randrange(self.data_sets)).hex())
        return Query(data=data, metric=MetricBound("accuracy", ">=", least), order="energy", kind="run")

    def by_data_and_nothing_found(self) -> Query:
        """No run is as good as that, so all on the data are looked at."""
        return self.by_data_and_metric(least=2.0)

    def timed(self, make: Callable[[], Query], times: int) -> tuple[list[Seconds], list[list[Found]]]:
        """Search again and again, each time for something else; how long each took, and what was found."""
        from lichen.runs.queries.find import find

        seconds, answers = [], []
        for _ in range(times):
            query = make()
            started, used = time.perf_counter(), time.thread_time()
            found = find(self.workspace, query)
            seconds.append(Seconds(time.perf_counter() - started, time.thread_time() - used))
            answers.append(found)
        return seconds, answers

    def plans(self) -> list[str]:
        """Plans of every statement that one search of each kind runs."""
        connection, statements = self.workspace.ledger.connection, list[str]()
        connection.set_trace_callback(statements.append)
        for make in (self.by_fingerprint, self.by_data_and_metric, self.by_data_and_nothing_found):
            self.timed(make, 1)
        connection.set_trace_callback(None)
        return plans(connection, statements)


def check(by_fingerprint: list[list[Found]], usual: list[list[Found]], worst: list[list[Found]]) -> None:
    """Check that the answers are what was asked for.

    Raises:
        SystemExit: They are not.
    """
    costs = [[item.energy_joules or 0.0 for item in found] for found in usual]
    if any(len(found) != 1 for found in by_fingerprint):
        raise SystemExit("a fingerprint was not answered by its one run")
    if any(cost != sorted(cost) for cost in costs) or any(
        item.metrics["accuracy"] < 0.9 for found in usual for item in found
    ):
        raise SystemExit("an answer by data and metric is not what was asked for, cheapest first")
    if any(worst):
        raise SystemExit("a run was found that cannot be")


def distribution(name: str, seconds: list[Seconds]) -> dict[str, float]:
    wall, processor = [each.wall for each in seconds], [each.processor for each in seconds]
    return {
        f"{name}_p50_seconds": percentile(wall, 0.5),
        f"{name}_p99_seconds": percentile(wall, 0.99),
        f"{name}_max_seconds": max(wall),
        f"{name}_p99_processor_seconds": percentile(processor, 0.99),
        f"{name}_max_processor_seconds": max(processor),
    }


def measure(directory: Path) -> dict[str, Any]:
    """Search a ledger that is there; run count, seconds and plans."""
    from lichen.runs.workspace.project import Project
    from lichen.runs.workspace.workspace import Workspace

    started = time.perf_counter()
    with Workspace.find(str(directory / ".lichen"), project=Project(directory), read_only=True) as workspace:
        open_seconds = time.perf_counter() - started
        ledger = workspace.ledger
        (count,) = ledger.connection.execute("SELECT count(*) FROM view_run").fetchone()
        searches = Searches(workspace, count)
        used = searches.plans()
        by_fingerprint, ones = searches.timed(searches.by_fingerprint, FINGERPRINT_COUNT)
        usual, cheapest = searches.timed(searches.by_data_and_metric, DATA_COUNT)
        worst, nothing = searches.timed(searches.by_data_and_nothing_found, WORST_COUNT)
        check(ones, cheapest, nothing)
        size = ledger.size
    file_bytes = (directory / ".lichen" / "ledger.sqlite").stat().st_size
    return {
        "runs": count,
        "entries": size,
        "ledger_bytes_per_run": round(file_bytes / count, 1),
        "open_seconds": open_seconds,
        **distribution("by_fingerprint", by_fingerprint),
        **distribution("by_data_and_metric", usual),
        **distribution("worst_case", worst),
        "fewest_found_by_data_and_metric": min(map(len, cheapest)),
        "query_plans": used,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100_000, help="how many, when the ledger is made")
    parser.add_argument(
        "--ledger", type=Path, help="directory of a ledger to ask, made when absent, and kept"
    )
    arguments = parser.parse_args()
    with ledger_at(arguments.ledger, arguments.runs) as (directory, build_seconds):
        figures = measure(directory)
    if build_seconds is not None:
        figures["build_seconds"] = round(build_seconds, 1)
    write_result(
        "find_runs",
        figures,
        bars={
            "by_fingerprint_p99_seconds at 1,000,000 runs": "< 0.001",
            "by_data_and_metric_p99_seconds at 1,000,000 runs": "< 0.020",
            "worst_case_max_seconds at 1,000,000 runs": "< 1",
        },
        notes=[
            "Seconds are by the clock, and so include what other programs took of the processor; processor seconds do not.",
            "Every run was signed, judged, appended and sealed; the query tables were filled from the entries.",
            "Each search is for another run or other data; the file may be in the operating system's cache.",
            "Digests of data are given, because hashing the file that is searched for is not the search.",
        ],
    )


if __name__ == "__main__":
    main()
