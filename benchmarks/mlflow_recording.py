"""Recording runs: Lichen's ledger against MLflow's SQLite store, interleaved. Bar: >= 60 times faster, signed and with proofs.

10,000 runs each, 5 parameters and 3 metrics, one durable commit a run (``synchronous=FULL``), in batches that take turns. Lichen's side
builds, signs, checks and appends every record; sealing follows the ledger's default policy. What the scripts would say (digests,
metrics, joules) is drawn beforehand. Query tables are filled when they are asked: ``ratio_with_question`` asks one question after
each batch, inside the time taken. A third figure seals after every run, so that each has its receipt at once. Receipts of a
sample are verified at the end.

The limit is taken in the same run: the same entries, signed and put into a bare SQLite table with one commit each.

MLflow 3.17.2 lives in an environment of its own, made on first use.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import interval, paired_ratio, write_result

VERSION = "3.17.2"


def mlflow_python(place: Path) -> Path:
    """Return the interpreter of MLflow's environment, making it when absent."""
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"mlflow=={VERSION}"], check=True)
    return python


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--environment", type=Path, default=Path("build/mlflow-environment"))
    arguments = parser.parse_args()
    batch = arguments.runs // arguments.batches
    python = mlflow_python(arguments.environment.absolute())
    root = Path(tempfile.mkdtemp(prefix="lichen-mlflow-"))
    os.environ["LICHEN_HOME"] = str(root / "home")
    from synthetic import digest, make_ledger, run_predicate

    from lichen.contracts import default_contracts
    from lichen.crypto.key_file import read_key
    from lichen.encoding.entry import Entry
    from lichen.encoding.statement import Subject
    from lichen.ledger.ledger import Ledger
    from lichen.ledger.receipt import verify_receipt
    from lichen.runs.queries.views import default_views
    from lichen.runs.workspace.config import UserConfig
    from lichen.runs.workspace.workspace import LOG_KEY_FILE, read_identity

    make_ledger(root, 0)
    identity = read_identity(UserConfig.read(), "synthetic")
    worker = subprocess.Popen(
        [python, Path(__file__).parent / "mlflow_worker.py", root / "mlflow.db"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert worker.stdin is not None
    assert worker.stdout is not None
    ready = worker.stdout.readline().split()
    assert ready[:1] == ["ready"], ready
    rng = random.Random(1)
    number = 0

    bare = sqlite3.connect(root / "bare.sqlite", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        bare.execute(f"PRAGMA {pragma}")
    bare.execute("CREATE TABLE entries(idx INTEGER PRIMARY KEY, entry BLOB NOT NULL)")

    def drawn() -> list[tuple[dict[str, object], tuple[Subject, Subject]]]:
        nonlocal number
        made = []
        for _ in range(batch):
            number += 1
            subjects = (
                Subject("output/0", digest("model", number)),
                Subject("output/1", digest("summary", number)),
            )
            made.append((run_predicate(rng, number), subjects))
        return made

    def lichen_batch(ledger: Ledger, *, seal: bool) -> tuple[float, float]:
        """Seconds to record a batch, and to answer a question about it."""
        runs = drawn()
        started = time.perf_counter()
        for said, subjects in runs:
            statement = ledger.statement("run", subjects, said, member=identity.member)
            ledger.append_signed(statement, identity.key, seal=seal)
        recorded = time.perf_counter()
        (last,) = ledger.connection.execute("SELECT max(idx) FROM view_run").fetchone()
        assert last == ledger.size - (2 if seal else 1)
        return recorded - started, time.perf_counter() - recorded

    def limit_batch(ledger: Ledger) -> float:
        payloads = [
            ledger.statement("run", subjects, said, member=identity.member).to_bytes()
            for said, subjects in drawn()
        ]
        started = time.perf_counter()
        for payload in payloads:
            data = Entry.signed(payload, identity.key).to_bytes()
            bare.execute("BEGIN IMMEDIATE")
            bare.execute("INSERT INTO entries(entry) VALUES(?)", (data,))
            bare.execute("COMMIT")
        return time.perf_counter() - started

    ours: list[float] = []
    asked: list[float] = []
    sealed: list[float] = []
    limit: list[float] = []
    theirs: list[float] = []
    key = read_key(root / ".lichen" / LOG_KEY_FILE)
    with Ledger.open(root / ".lichen", default_contracts(), default_views(), log_key=key) as ledger:
        for _ in range(arguments.batches):
            worker.stdin.write(f"{batch}\n")
            worker.stdin.flush()
            theirs.append(float(worker.stdout.readline()))
            recorded, answered = lichen_batch(ledger, seal=False)
            ours.append(recorded)
            asked.append(recorded + answered)
            limit.append(limit_batch(ledger))
            sealed.append(lichen_batch(ledger, seal=True)[0])
        ledger.seal(force=True)
        for index in rng.sample(range(2, ledger.size), 200):
            verify_receipt(ledger.receipt(index), ledger.genesis.log_key, ledger.origin)
    worker.stdin.close()
    worker.wait()
    bare.close()
    sizes = {
        "lichen_bytes_per_run": (root / ".lichen" / "ledger.sqlite").stat().st_size / (2 * batch * len(ours)),
        "mlflow_bytes_per_run": (root / "mlflow.db").stat().st_size / arguments.runs,
    }
    shutil.rmtree(root)
    write_result(
        "mlflow_recording",
        {
            "runs_each": arguments.runs,
            "mlflow_version": ready[1],
            "lichen_runs_per_second": interval([batch / seconds for seconds in ours]),
            "lichen_sealed_each_runs_per_second": interval([batch / seconds for seconds in sealed]),
            "mlflow_runs_per_second": interval([batch / seconds for seconds in theirs]),
            "limit_runs_per_second": interval([batch / seconds for seconds in limit]),
            "ratio": paired_ratio(theirs, ours),
            "ratio_with_question": paired_ratio(theirs, asked),
            "ratio_of_the_limit": paired_ratio(theirs, limit),
            "lichen_seconds_per_limit": paired_ratio(ours, limit),
            "ratio_sealed_each": paired_ratio(theirs, sealed),
            **sizes,
        },
        bars={"ratio": ">= 60"},
        notes=[
            "ratio: seconds of MLflow over seconds of Lichen for the same number of runs, batch by batch.",
            "ratio_with_question: Lichen's query tables are filled inside the time taken, once per batch.",
            "ratio_of_the_limit: what signing and one bare SQLite commit for each run would reach.",
        ],
    )


if __name__ == "__main__":
    main()
