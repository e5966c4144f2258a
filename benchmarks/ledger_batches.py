"""Signed durable appends in batches of 1,000, as a ledger grows: how much is left of what signature and disk allow.

The limit, taken in the same run over the same bytes, is Ed25519 signing alone plus one transaction that puts the 1,000
entries into a bare SQLite table (write-ahead log, ``synchronous=FULL``). Beside it, batch by batch:

* ``without_state``: `Ledger.append_all_signed` into an open block: rules, uniqueness, tree, entries; the state map is not
  updated;
* ``with_state``: the same with a seal behind each batch, so that 2,000 keys of the state map change and their root is signed;
* ``verified``: `Ledger.append_many` of entries that others signed, with a seal, beside verifying their signatures alone.

The ledger with state is filled to each size in turn, with the query tables of `lichen run`, which are then filled too. At the
end: bytes on disk beside bytes of entries, everything included, and proofs of entries and of absent keys at that size.

Records are drawn and written as canonical JSON beforehand, for the limit as for the ledger.

    python benchmarks/ledger_batches.py                                       # to 100,000 entries
    python benchmarks/ledger_batches.py --sizes 1000 10000 100000 1000000     # the whole curve, some minutes
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import synthetic
from harness import interval, paired_ratio, percentile, write_result

from lichen.contracts import default_contracts, default_versions
from lichen.crypto.keys import PublicKey, SigningKey
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger
from lichen.ledger.ports import View
from lichen.runs.queries.views import default_views

BATCH_COUNT = 1_000
FILL_COUNT = 5_000  # entries in a batch that only fills the ledger
PROOF_COUNT = 2_000
SIZES = (1_000, 10_000, 100_000)
BLOCK_ENTRIES_MAX = 1_000_000  # blocks close only when asked


class Bench:
    """The ledgers and the bare table, in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log_key, self.key = SigningKey.generate(), SigningKey.generate()
        self.rng = random.Random(7)
        self.number = 0
        self.bare = sqlite3.connect(directory / "bare.sqlite", isolation_level=None)
        for pragma in ("journal_mode=WAL", "synchronous=FULL"):
            self.bare.execute(f"PRAGMA {pragma}")
        self.bare.execute("CREATE TABLE entries(idx INTEGER PRIMARY KEY, entry BLOB NOT NULL)")
        self.stateless = self.make("stateless")
        self.grown = self.make("grown", default_views())

    def make(self, name: str, views: tuple[View, ...] = ()) -> Ledger:
        genesis = Genesis(
            name="benchmark",
            created_unix_ms=0,
            admins=(Admin("alice", self.key.public),),
            log_key=self.log_key.public,
            contracts=default_versions(),
            nonce=os.urandom(12),
            sealing=Sealing("solo", BLOCK_ENTRIES_MAX, 86_400_000),
        )
        return Ledger.create(
            self.directory / name, genesis, self.log_key, default_contracts(), views, home=self.directory
        )

    def statements(self, ledger: Ledger, count: int = BATCH_COUNT) -> list[Statement]:
        made = []
        for _ in range(count):
            self.number += 1
            subjects = [
                Subject(f"output/{place}", synthetic.digest("output", self.number, place))
                for place in range(2)
            ]
            said = synthetic.run_predicate(self.rng, self.number)
            made.append(ledger.statement("run", subjects, said, member="alice"))
        return made

    def fill_to(self, size: int) -> None:
        while (missing := size - self.grown.size) > 1:
            self.grown.append_all_signed(
                self.statements(self.grown, min(FILL_COUNT, missing - 1)), self.key, seal=True
            )

    def limit(self, payloads: list[bytes]) -> None:
        rows = [(Entry.signed(payload, self.key).to_bytes(),) for payload in payloads]
        self.bare.execute("BEGIN IMMEDIATE")
        self.bare.executemany("INSERT INTO entries(entry) VALUES(?)", rows)
        self.bare.execute("COMMIT")

    def round(self) -> dict[str, tuple[float, float]]:
        """Seconds for one batch of each, by the clock and of processors."""
        ours = self.statements(self.grown)
        payloads = [statement.to_bytes() for statement in ours]
        alone = self.statements(self.stateless)
        theirs = [Entry.signed(statement.to_bytes(), self.key) for statement in self.statements(self.grown)]
        self.stateless.seal(force=True)
        return {
            "limit": both_seconds(lambda: self.limit(payloads)),
            "without_state": both_seconds(lambda: self.stateless.append_all_signed(alone, self.key)),
            "with_state": both_seconds(lambda: self.grown.append_all_signed(ours, self.key, seal=True)),
            "verify": both_seconds(lambda: verify_all(theirs, self.key.public)),
            "verified": both_seconds(lambda: self.grown.append_many(theirs, seal=True)),
        }

    def close(self) -> None:
        self.bare.close()
        self.stateless.close()
        self.grown.close()


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def both_seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of processors by all threads of this process."""
    started = time.process_time()
    wall = seconds(work)
    return wall, time.process_time() - started


def verify_all(entries: list[Entry], key: PublicKey) -> None:
    for entry in entries:
        entry.verify(key)


def at_size(bench: Bench, size: int, rounds: int) -> dict[str, Any]:
    """Fill the ledger and compare."""
    fill_seconds = seconds(lambda: bench.fill_to(size))
    views_behind = bench.grown.size
    view_seconds = seconds(lambda: bench.grown.connection)
    bench.round()  # fills caches
    taken = [bench.round() for _ in range(rounds)]
    by_name = {name: [each[name][0] for each in taken] for name in taken[0]}
    busy = {name: [each[name][1] for each in taken] for name in taken[0]}
    figures: dict[str, Any] = {
        f"{name}_microseconds_per_entry": round(statistics.median(values) / BATCH_COUNT * 1e6, 1)
        for name, values in by_name.items()
    }
    for name in ("without_state", "with_state"):
        figures[f"{name}_share_of_limit"] = paired_ratio(by_name["limit"], by_name[name])
        figures[f"{name}_share_of_limit_by_processor_time"] = paired_ratio(busy["limit"], busy[name])
    figures["verified_per_verify"] = paired_ratio(by_name["verified"], by_name["verify"])
    figures["with_state_entries_per_second"] = interval(
        [BATCH_COUNT / value for value in by_name["with_state"]]
    )
    figures["fill_seconds"] = round(fill_seconds, 1)
    figures["views_seconds_for_all_before"] = round(view_seconds, 2)
    figures["entries_before"] = views_behind
    return figures


def proofs(ledger: Ledger) -> dict[str, Any]:
    """Milliseconds for an inclusion proof and for a receipt of absence, each verified before it is handed out."""
    rng = random.Random(3)
    absent: list[bytes] = [b"exact/" + rng.randbytes(32) for _ in range(PROOF_COUNT)]
    indices = [rng.randrange(ledger.sealed_size) for _ in range(PROOF_COUNT)]
    timed = {
        "inclusion_proof": [seconds(lambda index=index: ledger.prove_inclusion(index)) for index in indices],  # type: ignore[misc]
        "receipt": [seconds(lambda index=index: ledger.receipt(index)) for index in indices],  # type: ignore[misc]
        "absence_proof": [
            seconds(lambda key=key: ledger.state_receipt("registry", key))  # type: ignore[misc]
            for key in absent
        ],
    }
    return {
        f"{name}_milliseconds": {
            "median": round(statistics.median(values) * 1e3, 3),
            "p99": round(percentile(values, 0.99) * 1e3, 3),
        }
        for name, values in timed.items()
    }


def weigh(directory: Path) -> dict[str, Any]:
    """Bytes on disk, closed and at rest, beside bytes of the entries."""
    with Ledger.open(directory, default_contracts(), read_only=True) as ledger:
        sizes = [len(entry.to_bytes()) for _, entry in ledger.entries()]
    disk_bytes = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
    return {
        "disk_bytes": disk_bytes,
        "entries": len(sizes),
        "entry_bytes_mean": round(statistics.mean(sizes), 1),
        "disk_bytes_per_entry_byte": round(disk_bytes / sum(sizes), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="entries, rising")
    parser.add_argument("--rounds", type=int, default=20, help="interleaved batches of each at each size")
    parser.add_argument("--directory", type=Path, help="where to work; a temporary directory otherwise")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="lichen-batches-", dir=arguments.directory))
    try:
        bench = Bench(directory)
        curve = {
            f"at_{size}_entries": at_size(bench, size, arguments.rounds) for size in sorted(arguments.sizes)
        }
        shown = proofs(bench.grown)
        bench.grown.connection  # noqa: B018 - the last rows of the query tables are to be weighed too
        bench.close()
        weights = weigh(directory / "grown")
    finally:
        shutil.rmtree(directory)
    first, *_, last = [*curve.values(), *list(curve.values())[-1:]]
    cost = "with_state_microseconds_per_entry"
    write_result(
        "ledger_batches",
        {
            **curve,
            "with_state_cost_at_last_per_cost_at_first": round(last[cost] / first[cost], 2),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1_024,
            **shown,
            **weights,
        },
        bars={
            "without_state_share_of_limit": ">= 0.6",
            "with_state_share_of_limit at 1,000,000 entries": ">= 0.3",
            "with_state_cost_at_last_per_cost_at_first, 1,000,000 against 1,000 entries": "<= 3",
            "inclusion_proof_milliseconds, absence_proof_milliseconds at 1,000,000 entries": "p99 < 2",
            "disk_bytes_per_entry_byte": "<= 2, everything included",
        },
        notes=[
            "Shares are seconds of the limit over seconds of the ledger, batch by batch; 1 would be no cost at all.",
            "Each record is a run that changes two keys of the state; a seal of 1,000 runs changes 2,000.",
            "`verified` verifies, and the two others sign, in as many threads as there are processors; `limit` and `verify` are"
            " one thread. `*_by_processor_time` counts what all threads spent: what the share would be on one processor.",
            "`disk_bytes` is of all files in the ledger's directory, query tables included, after closing.",
        ],
    )


if __name__ == "__main__":
    main()
