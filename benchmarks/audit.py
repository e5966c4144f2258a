"""How fast an audit is beside what the signatures alone would take, and how much memory it needs.

A ledger of ``--entries`` runs is filled, with the views that `lichen run` keeps. Then, in one process tree each, interleaved:

* ``verify``: Ed25519 verifications of such entries, one after the other in one thread: the limit is the number of processors times that;
* ``audit``: everything derived again from scratch, views compared; ``audit_without_views`` leaves them out, as for a ledger nobody
  asked yet (in ledgers of at most 200,000 entries: above, it would only take time);
* ``resumed``: the same ledger audited once more, going on from what the first kept.

Peak memory is the sum over the audit's processes of the memory that each has for itself alone or shares in part (PSS), sampled.

    python benchmarks/audit.py --entries 1000000
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import synthetic
from harness import write_result

from lichen.contracts import default_contracts, default_versions
from lichen.crypto.keys import SigningKey
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Subject
from lichen.ledger.audit import AuditReport, audit
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger
from lichen.runs.queries.views import default_views

BATCH_COUNT = 1_000
WITHOUT_VIEWS_COUNT_MAX = 200_000
VERIFY_COUNT = 5_000
SAMPLE_SECONDS = 0.25


def fill(directory: Path, count: int, *, views: bool) -> list[Entry]:
    """Make the ledger, with a seal behind each batch; return some of its entries."""
    log_key, key = SigningKey.generate(), SigningKey.generate()
    genesis = Genesis(
        name="benchmark",
        created_unix_ms=0,
        admins=(Admin("alice", key.public),),
        log_key=log_key.public,
        contracts=default_versions(),
        nonce=os.urandom(12),
        sealing=Sealing("solo", BATCH_COUNT, 3_600_000),
    )
    rng = random.Random(7)
    chosen = default_views() if views else ()
    with Ledger.create(directory, genesis, log_key, default_contracts(), chosen) as ledger:
        for start in range(0, count, BATCH_COUNT):
            batch = []
            for number in range(start, min(start + BATCH_COUNT, count)):
                subjects = [
                    Subject(f"output/{place}", synthetic.digest("output", number, place))
                    for place in range(2)
                ]
                said = synthetic.run_predicate(rng, number)
                statement = ledger.statement("run", subjects, said, member="alice")
                batch.append(statement)
            ledger.append_all_signed(batch, key, seal=True)
        if views:
            ledger.connection.execute("SELECT count(*) FROM view_run").fetchone()
        own = (entry for _, entry in ledger.entries() if entry.key_id == key.public.key_id)
        return list(itertools.islice(own, VERIFY_COUNT))


def verifications_per_second(entries: list[Entry], directory: Path) -> dict[str, float]:
    """How many signatures one thread verifies in a second, by the clock and by processor time."""
    with Ledger.open(directory, default_contracts(), read_only=True) as ledger:
        key = ledger.genesis.admins[0].key
    started, busy = time.perf_counter(), time.thread_time()
    for entry in entries:
        entry.verify(key)
    wall, busy = time.perf_counter() - started, time.thread_time() - busy
    return {"wall": len(entries) / wall, "processor": len(entries) / busy}


class Memory:
    """Peak memory of this process and its children, in bytes; a context manager."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_over.wait(SAMPLE_SECONDS):
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            self.peak_bytes = max(self.peak_bytes, sum(map(shared_bytes, [str(os.getpid()), *children])))


def shared_bytes(process: str) -> int:
    try:
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1_024
    except OSError:
        pass  # it has ended
    return 0


def timed_audit(directory: Path, **options: Any) -> tuple[AuditReport, dict[str, float]]:
    before = os.times()
    started = time.perf_counter()
    with Memory() as memory:
        report = audit(directory, default_contracts(), **options)
    wall = time.perf_counter() - started
    after = os.times()
    busy = sum(after[:4]) - sum(before[:4])
    if not report.is_sound:
        raise SystemExit(f"the ledger is not sound: {report.problem}")
    return report, {
        "seconds": round(wall, 2),
        "processor_seconds": round(busy, 2),
        "entries_per_second": round(report.size / wall),
        "peak_memory_bytes": memory.peak_bytes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--directory", type=Path, help="where to work; a temporary directory otherwise")
    options = parser.parse_args()
    cores = os.cpu_count() or 1
    directory = Path(tempfile.mkdtemp(prefix="lichen-audit-", dir=options.directory))
    figures: dict[str, Any] = {"entries": options.entries, "cores": cores}
    try:
        entries = fill(directory / "ledger", options.entries, views=True)
        rates = []
        for name, chosen in (
            ("audit_without_views", {"views": ()}),
            ("audit", {"views": default_views(), "keep_in": directory / "kept"}),
            ("resumed", {"views": default_views(), "keep_in": directory / "kept"}),
        ):
            if name == "audit_without_views" and options.entries > WITHOUT_VIEWS_COUNT_MAX:
                continue
            rates.append(verifications_per_second(entries, directory / "ledger"))
            report, figures[name] = timed_audit(directory / "ledger", **chosen)
            if name != "resumed":
                limit = cores * rates[-1]["wall"]
                figures[name]["share_of_limit"] = round(figures[name]["entries_per_second"] / limit, 3)
                perfect = report.size / rates[-1]["processor"]
                figures[name]["share_of_limit_by_processor_time"] = round(
                    perfect / figures[name]["processor_seconds"], 3
                )
            else:
                figures[name]["resumed_from"] = report.resumed_from
        figures["verifications_per_second"] = [
            {name: round(rate) for name, rate in one.items()} for one in rates
        ]
        figures["ledger_bytes"] = (directory / "ledger" / "ledger.sqlite").stat().st_size
    finally:
        shutil.rmtree(directory)
    write_result(
        "audit",
        figures,
        bars={
            "audit share_of_limit": ">= 0.40 of cores x Ed25519 verifications per second, on 2 cores",
            "audit peak_memory_bytes": "< 300,000,000 at 1,000,000 entries",
        },
        notes=[
            "`share_of_limit` is by the clock and needs a quiet machine. `share_of_limit_by_processor_time` is what one entry's"
            " verification takes of all processor time that the audit spends on it: what the share by the clock would be, were"
            " the work spread evenly over processors that do nothing else.",
        ],
    )


if __name__ == "__main__":
    main()
