"""The ledger under harm, at campaign size: kills, cuts, flips, failing disks, concurrent writers, fuzzed decoders.

Each part is the large size of a test in ``tests/integration/ledger`` and ``tests/property/ledger``, with the same code in
``tools/faults``. Parts run one after the other, and each adds its result to ``results/faults.json`` with the date and commit of
its own, so that one part can be repeated alone.

    python benchmarks/ledger_faults.py
    python benchmarks/ledger_faults.py --only flips --flips 20000 --processes 2
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import RESULTS, commit, write_result

TOOLS = Path(__file__).resolve().parent.parent / "tools"
sys.path.insert(0, str(TOOLS))

from faults import cuts, disks, flips, writers  # noqa: E402 - found through the line above
from faults.site import Site  # noqa: E402 - likewise

CHUNK_COUNT = 50
LARGE_SHARE = 0.2  # of the flips hit a ledger with full hash tiles
FSYNC_FAILURES_MAX = 60


def kills(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Four writers, one of them killed at a random moment, so many times."""
    outcome = writers.run(scratch, writers=4, kills=options.kills, seed=options.seed)
    return {
        "kills": outcome.kill_count,
        "writers_that_failed_otherwise": outcome.failure_count,
        "seconds": outcome.seconds,
        **writers.check(Site(scratch), outcome),
    }


def order(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Eight writers, so many appends each."""
    outcome = writers.run(scratch, writers=8, appends=options.appends, seed=options.seed)
    indices = [index for told in outcome.told_by for index in told]
    return {
        "writers": 8,
        "appends_each": options.appends,
        "each_writer_saw_rising_indices": all(told == sorted(told) for told in outcome.told_by),
        "indices_given_twice": len(indices) - len(set(indices)),
        "seconds": outcome.seconds,
        **writers.check(Site(scratch), outcome),
    }


def cut(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Database and write-ahead log cut at every 4 KiB and at random bytes."""
    total: Counter[str] = Counter()
    unsound, unsigned = [], []
    for seed in range(options.cut_ledgers):
        site = Site(scratch / str(seed), seed)
        cuts.leave_open(site, scratch / f"{seed}-still", seed)
        found = cuts.cut_everywhere(site, scratch / f"{seed}-still", scratch, options.cuts, seed)
        total += found.outcomes
        unsound += found.unsound
        unsigned += found.unsigned
    return {
        "ledgers": options.cut_ledgers,
        "outcomes": dict(total),
        "opened_but_wrong": unsound,
        "signed_behind_the_mark": unsigned,
    }


def flip(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Single bytes changed, the audit after each."""
    small, large = Site(scratch / "small"), Site(scratch / "large")
    flips.fill(small, 70)
    flips.fill(large, 262)
    chunk_count = -(-options.flips // CHUNK_COUNT)
    jobs = [
        (str(large.root if number < chunk_count * LARGE_SHARE else small.root), number)
        for number in range(chunk_count)
    ]
    random.Random(options.seed).shuffle(jobs)
    found: Counter[str] = Counter()
    harmless: Counter[str] = Counter()
    where: Counter[str] = Counter()
    missed: list[dict[str, Any]] = []
    started = time.monotonic()
    with ProcessPoolExecutor(options.processes) as pool:
        for one in pool.map(_flip_chunk, jobs, [options.seed] * len(jobs), [options.until] * len(jobs)):
            found += one.found
            harmless += one.harmless
            where += one.where
            missed += [change.__dict__ for change in one.missed]
    used = {label: count for label, count in harmless.items() if not label.endswith(" free")}
    return {
        "flips": sum(found.values()) + sum(harmless.values()) + len(missed),
        "found": sum(found.values()),
        "found_by_table": dict(sorted(_by_table(found).items())),
        "found_where": dict(where),
        "changed_no_row_in_unused_bytes": sum(harmless.values()) - sum(used.values()),
        "changed_no_row_elsewhere": used,
        "missed": missed,
        "seconds": round(time.monotonic() - started),
    }


def _by_table(found: Counter[str]) -> Counter[str]:
    total: Counter[str] = Counter()
    for label, count in found.items():
        total[label.split()[0]] += count
    return total


def _flip_chunk(job: tuple[str, int], seed: int, until: float) -> flips.Flips:
    root, number = job
    if time.time() > until:
        return flips.Flips()
    scratch = Path(tempfile.mkdtemp(prefix="flips-", dir=Path(root).parent))
    try:
        return flips.flip_many(Site(Path(root)), scratch, CHUNK_COUNT, seed * 1_000_003 + number)
    finally:
        shutil.rmtree(scratch)


def fsync(scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Disks whose fsync fails and then loses what was dirty, each followed by a power cut."""
    try:
        library = disks.build_failing_disk(scratch)
    except RuntimeError as error:
        return {"skipped": str(error)}
    rng = random.Random(options.seed)
    told: Counter[str] = Counter()
    lost, unsound = 0, []
    for trial in range(options.disks):
        site = Site(scratch / str(trial))
        site.create().close()
        for path in list(site.directory.iterdir()):
            shutil.copy(path, f"{path}.durable")
        failing = sorted(rng.sample(range(1, FSYNC_FAILURES_MAX), rng.choice((1, 2, 5, 20))))
        words = ["--appends", "40", "--fold-every", str(rng.choice((0, 5, 9)))]
        if rng.random() < 0.5:
            words.append("--reopen")
        result = disks.append_on(
            site.root,
            *words,
            environment={
                "LD_PRELOAD": str(library),
                "FAULTS_UNDER": str(site.directory),
                "FAULTS_FAIL": ",".join(map(str, failing)),
            },
        )
        disks.restore_durable(site)
        after = disks.check_durable(site, result["acknowledged"])
        told["acknowledged"] += len(result["acknowledged"])
        told.update(f"error: {code}" for code, _ in result["errors"])
        lost += len(after["lost"])
        if after["problem"] is not None:
            unsound.append(after["problem"])
        shutil.rmtree(site.root)
    return {"disks": options.disks, **told, "acknowledged_and_lost": lost, "audit_found": unsound}


def fuzz(_scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Every decoder, guided by coverage, for so many seconds."""
    words = [
        sys.executable,
        "-m",
        "faults.fuzz",
        "--seconds",
        str(options.fuzz_seconds),
        "--seed",
        str(options.seed),
    ]
    paths = os.pathsep.join([str(TOOLS), *filter(None, sys.path)])
    if options.own:
        words.append("--own")
    done = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"status": done.returncode, "said": (done.stdout + done.stderr)[-2_000:]}
    said: dict[str, Any] = json.loads(lines[-1])
    return {"status": done.returncode, "asked_seconds": options.fuzz_seconds, **said}


PARTS: dict[str, Callable[[Path, argparse.Namespace], dict[str, Any]]] = {
    "kills": kills,
    "order": order,
    "cuts": cut,
    "fsync": fsync,
    "flips": flip,
    "fuzz": fuzz,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=PARTS, action="append", help="these parts; repeatable")
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--appends", type=int, default=1_000, help="of each of eight writers")
    parser.add_argument(
        "--cuts", type=int, default=60, help="at random bytes, of each of three sorts, per ledger"
    )
    parser.add_argument("--cut-ledgers", type=int, default=3)
    parser.add_argument("--disks", type=int, default=200)
    parser.add_argument("--flips", type=int, default=20_000)
    parser.add_argument("--fuzz-seconds", type=int, default=600)
    parser.add_argument(
        "--own", action="store_true", help="fuzz with our own loop, also where atheris is installed"
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--minutes", type=float, help="stop flipping after so long, and say how many there were"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.until = time.time() + 60 * options.minutes if options.minutes else float("inf")
    path = RESULTS / "faults.json"
    figures: dict[str, Any] = json.loads(path.read_text())["figures"] if path.exists() else {}
    for name in options.only or PARTS:
        scratch = Path(tempfile.mkdtemp(prefix=f"lichen-{name}-"))
        try:
            found = PARTS[name](scratch, options)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        stamp = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "commit": commit()}
        figures[name] = {**stamp, **found}
        write_result(
            "faults",
            figures,
            bars={
                "kills": "1,000 kills, none of the acknowledged lost, the audit passes",
                "order": "8 x 1,000 appends, none lost, none twice",
                "cuts": "opens to a beginning that verifies, or is refused with the reason",
                "fsync": "nothing acknowledged is lost, also on a retry",
                "flips": ">= 20,000 flips, none missed",
                "fuzz": "10 minutes, every decoder accepts or raises its own error",
            },
            notes=[
                "A flip counts as missed when it changes a row of a table or the order of an index and the audit does not find it.",
                "Each part has the date and commit at which it ran.",
            ],
        )


if __name__ == "__main__":
    main()
