"""Recording runs: Lichen's ledger against MLflow's SQLite store, interleaved. Bar: >= 60 times faster, signed and with proofs.

10,000 runs on our side, 5 parameters and 3 metrics, one durable commit a run (``synchronous=FULL``), in batches that take turns with
MLflow's. MLflow records fewer in each turn (``--mlflow-runs``), because 10,000 of its runs alone take six minutes or more; what is compared
is seconds a run, turn by turn. MLflow does not become faster as its store grows, so fewer runs are no favour to us;
``--mlflow-runs 10000`` records as many on both sides. Lichen's side builds, signs, checks and appends every record; sealing follows the ledger's
default policy. The high-water mark, which `lichen` also raises after each commit, is not kept here. What the scripts would say (digests,
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
from typing import TYPE_CHECKING

from harness import interval, paired_ratio, write_result

if TYPE_CHECKING:
    from lichen.encoding.statement import Subject

VERSION = "3.17.2"


def mlflow_python(place: Path) -> Path:
    """Return the interpreter of MLflow's environment, making it when absent."""
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", f"mlflow=={VERSION}"], check=True)
    return python


class MLflow:
    """MLflow in a process of its own; a context manager.

    Args:
        python: Interpreter of its environment.
        store: Its SQLite file.
    """

    def __init__(self, python: Path, store: Path) -> None:
        self._process = subprocess.Popen(
            [python, Path(__file__).parent / "mlflow_worker.py", store],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.version = self._line().removeprefix("ready ")

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        if not line:
            raise SystemExit("MLflow's process ended early")
        return line

    def record(self, count: int) -> float:
        """Seconds to record so many runs."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        return float(self._line())

    def __enter__(self) -> MLflow:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait()


class Ours:
    """The ledger, and the bare table that is its limit; a context manager.

    Args:
        root: Directory that `synthetic.make_ledger` made a ledger in.
    """

    def __init__(self, root: Path) -> None:
        from lichen.contracts import default_contracts
        from lichen.crypto.key_file import read_key
        from lichen.ledger.ledger import Ledger
        from lichen.runs.queries.views import default_views
        from lichen.runs.workspace.config import UserConfig
        from lichen.runs.workspace.workspace import LOG_KEY_FILE, read_identity

        self.identity = read_identity(UserConfig.read(), "synthetic")
        log_key = read_key(root / ".lichen" / LOG_KEY_FILE)
        self.ledger = Ledger.open(root / ".lichen", default_contracts(), default_views(), log_key=log_key)
        self.bare = sqlite3.connect(root / "bare.sqlite", isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self.bare.execute(f"PRAGMA {pragma}")
        self.bare.execute("CREATE TABLE entries(idx INTEGER PRIMARY KEY, entry BLOB NOT NULL)")
        self.rng, self.number = random.Random(1), 0

    def __enter__(self) -> Ours:
        return self

    def __exit__(self, *_: object) -> None:
        self.ledger.close()
        self.bare.close()

    def drawn(self, count: int) -> list[tuple[dict[str, object], tuple[Subject, Subject]]]:
        """What the scripts of so many runs would say."""
        from synthetic import digest, run_predicate

        from lichen.encoding.statement import Subject

        made = []
        for _ in range(count):
            self.number += 1
            subjects = (
                Subject("output/0", digest("model", self.number)),
                Subject("output/1", digest("summary", self.number)),
            )
            made.append((run_predicate(self.rng, self.number), subjects))
        return made

    def record(self, count: int, *, seal: bool) -> tuple[float, float]:
        """Seconds to record a batch, and to answer a question about it."""
        ledger, runs = self.ledger, self.drawn(count)
        started = time.perf_counter()
        for said, subjects in runs:
            statement = ledger.statement("run", subjects, said, member=self.identity.member)
            appended = ledger.append_signed(statement, self.identity.key, seal=seal)
        recorded = time.perf_counter()
        (last,) = ledger.connection.execute("SELECT max(idx) FROM view_run").fetchone()
        assert last == appended.index
        return recorded - started, time.perf_counter() - recorded

    def limit(self, count: int) -> float:
        """Seconds to sign a batch and to put it into the bare table, one commit each."""
        from lichen.encoding.entry import Entry

        payloads = [
            self.ledger.statement("run", subjects, said, member=self.identity.member).to_bytes()
            for said, subjects in self.drawn(count)
        ]
        started = time.perf_counter()
        for payload in payloads:
            data = Entry.signed(payload, self.identity.key).to_bytes()
            self.bare.execute("BEGIN IMMEDIATE")
            self.bare.execute("INSERT INTO entries(entry) VALUES(?)", (data,))
            self.bare.execute("COMMIT")
        return time.perf_counter() - started

    def verify_sample(self, count: int) -> None:
        """Verify receipts of entries drawn at random."""
        from lichen.ledger.receipt import verify_receipt

        ledger = self.ledger
        ledger.seal(force=True)
        for index in self.rng.sample(range(2, ledger.size), min(count, ledger.size - 2)):
            verify_receipt(ledger.receipt(index), ledger.genesis.log_key, ledger.origin)


def rounds(ours: Ours, theirs: MLflow, turns: int, batch: int, their_batch: int) -> dict[str, list[float]]:
    """Seconds a run of each, turn by turn; a line on stderr after each turn."""
    taken: dict[str, list[float]] = {name: [] for name in ("theirs", "ours", "asked", "limit", "sealed")}
    started = time.monotonic()
    for turn in range(1, turns + 1):
        taken["theirs"].append(theirs.record(their_batch) / their_batch)
        recorded, answered = ours.record(batch, seal=False)
        taken["ours"].append(recorded / batch)
        taken["asked"].append((recorded + answered) / batch)
        taken["limit"].append(ours.limit(batch) / batch)
        taken["sealed"].append(ours.record(batch, seal=True)[0] / batch)
        elapsed_seconds = time.monotonic() - started
        print(
            f"turn {turn} of {turns}: {1 / taken['ours'][-1]:,.0f} runs/s, MLflow {1 / taken['theirs'][-1]:,.1f},"
            f" {taken['theirs'][-1] / taken['ours'][-1]:.1f} times; about"
            f" {elapsed_seconds / turn * (turns - turn):.0f} s to go",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return taken


def count_of_runs(text: str) -> int:
    """Read a count of runs from the command line."""
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=count_of_runs, default=10_000, help="on our side (default 10,000)")
    parser.add_argument(
        "--mlflow-runs", type=count_of_runs, default=3_000, help="on MLflow's side (default 3,000)"
    )
    parser.add_argument("--turns", type=count_of_runs, default=20, help="batches of each (default 20)")
    parser.add_argument("--environment", type=Path, default=Path("build/mlflow-environment"))
    arguments = parser.parse_args()
    batch, their_batch = (
        max(1, count // arguments.turns) for count in (arguments.runs, arguments.mlflow_runs)
    )
    python = mlflow_python(arguments.environment.absolute())
    root = Path(tempfile.mkdtemp(prefix="lichen-mlflow-"))
    os.environ["LICHEN_HOME"] = str(root / "home")
    from synthetic import make_ledger

    try:
        make_ledger(root, 0)
        with MLflow(python, root / "mlflow.db") as theirs, Ours(root) as ours:
            taken = rounds(ours, theirs, arguments.turns, batch, their_batch)
            ours.verify_sample(200)
        recorded, theirs_recorded = batch * arguments.turns, their_batch * arguments.turns
        sizes = {
            "lichen_bytes_per_run": (root / ".lichen" / "ledger.sqlite").stat().st_size / (2 * recorded),
            "mlflow_bytes_per_run": (root / "mlflow.db").stat().st_size / theirs_recorded,
        }
    finally:
        shutil.rmtree(root)

    def per_second(name: str) -> dict[str, float]:
        return interval([1 / seconds for seconds in taken[name]])

    write_result(
        "mlflow_recording",
        {
            "lichen_runs": recorded,
            "mlflow_runs": theirs_recorded,
            "turns": arguments.turns,
            "mlflow_version": theirs.version,
            "lichen_runs_per_second": per_second("ours"),
            "lichen_sealed_each_runs_per_second": per_second("sealed"),
            "mlflow_runs_per_second": per_second("theirs"),
            "limit_runs_per_second": per_second("limit"),
            "ratio": paired_ratio(taken["theirs"], taken["ours"]),
            "ratio_with_question": paired_ratio(taken["theirs"], taken["asked"]),
            "ratio_of_the_limit": paired_ratio(taken["theirs"], taken["limit"]),
            "lichen_seconds_per_limit": paired_ratio(taken["ours"], taken["limit"]),
            "ratio_sealed_each": paired_ratio(taken["theirs"], taken["sealed"]),
            **sizes,
        },
        bars={"ratio": ">= 60"},
        notes=[
            "ratio: seconds a run of MLflow over seconds a run of Lichen, turn by turn.",
            "ratio_with_question: Lichen's query tables are filled inside the time taken, once a turn.",
            "ratio_of_the_limit: what signing and one bare SQLite commit for each run would reach.",
        ],
    )


if __name__ == "__main__":
    main()
