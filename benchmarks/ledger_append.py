"""What the ledger adds to the two things nobody can leave out: one signature and one durable commit.

Interleaved in one run, block by block, over the same bytes:

* ``bare``: sign the payload with Ed25519, insert the entry into an SQLite table (write-ahead log, ``synchronous=FULL``), commit;
* ``append``: `Ledger.append_signed`, one durable transaction each;
* ``sealed``: the same with a seal and a signed checkpoint in the same transaction;
* ``sealed_with_views``: the same with every query table that `lichen run` keeps;
* ``bulk``: `Ledger.append_many` of 1,000 entries made elsewhere, beside verifying their 1,000 signatures.

Then a ledger of ``--entries`` runs: bytes in the file beside bytes of entries, and the time to open it, to give a receipt
of a random entry, and to prove a value and an absence.

    python benchmarks/ledger_append.py --rounds 24 --block 50 --entries 100000
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import synthetic
from harness import interval, paired_ratio, percentile, write_result

from lichen.contracts import default_contracts, default_versions
from lichen.contracts.registry import exact_fingerprint
from lichen.crypto.keys import PublicKey, SigningKey
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger
from lichen.runs.queries.views import default_views

BULK_COUNT = 1_000


class Subjects:
    """The things compared, each with its own file in one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.log_key, self.key = SigningKey.generate(), SigningKey.generate()
        self.rng = random.Random(7)
        self.numbers = iter(range(10**9))
        self.bare = sqlite3.connect(directory / "bare.sqlite", isolation_level=None)
        self.bare.execute("PRAGMA journal_mode=WAL")
        self.bare.execute("PRAGMA synchronous=FULL")
        self.bare.execute("CREATE TABLE entries(idx INTEGER PRIMARY KEY, entry BLOB NOT NULL)")
        self.ledgers = {
            "append": self.make("append"),
            "sealed": self.make("sealed"),
            "sealed_with_views": self.make("views", views=True),
            "bulk": self.make("bulk"),
        }

    def make(self, name: str, *, views: bool = False) -> Ledger:
        genesis = Genesis(
            name="benchmark",
            created_unix_ms=0,
            admins=(Admin("alice", self.key.public),),
            log_key=self.log_key.public,
            contracts=default_versions(),
            nonce=os.urandom(12),
            sealing=Sealing("solo", 1_000, 3_600_000),
        )
        chosen = default_views() if views else ()
        return Ledger.create(
            self.directory / name, genesis, self.log_key, default_contracts(), chosen, home=self.directory
        )

    def statements(self, ledger: Ledger, count: int) -> list[Statement]:
        made = []
        for _ in range(count):
            number = next(self.numbers)
            subjects = [
                Subject(f"output/{place}", synthetic.digest("output", number, place)) for place in range(2)
            ]
            predicate = synthetic.run_predicate(self.rng, number)
            made.append(ledger.statement("run", subjects, predicate, member="alice"))
        return made

    def blocks(self, block: int) -> Iterator[tuple[str, list[Callable[[], object]], int]]:
        """One block of each subject: name, what to time one by one, and how many entries each of these is."""
        payloads = [statement.to_bytes() for statement in self.statements(self.ledgers["append"], block)]
        yield "bare", [partial(self.append_bare, payload) for payload in payloads], 1
        for name in ("append", "sealed", "sealed_with_views"):
            ledger = self.ledgers[name]
            append = partial(ledger.append_signed, key=self.key, seal=name != "append")
            yield name, [partial(append, record) for record in self.statements(ledger, block)], 1
        ledger = self.ledgers["bulk"]
        records = self.statements(ledger, BULK_COUNT)
        entries = [Entry.signed(record.to_bytes(), self.key) for record in records]
        yield "verify", [partial(verify_all, entries, self.key.public)], BULK_COUNT
        yield "bulk", [partial(ledger.append_many, entries)], BULK_COUNT

    def append_bare(self, payload: bytes) -> None:
        data = Entry.signed(payload, self.key).to_bytes()
        self.bare.execute("BEGIN IMMEDIATE")
        self.bare.execute("INSERT INTO entries(entry) VALUES(?)", (data,))
        self.bare.execute("COMMIT")

    def close(self) -> None:
        self.bare.close()
        for ledger in self.ledgers.values():
            ledger.close()


def verify_all(entries: list[Entry], key: PublicKey) -> None:
    for entry in entries:
        entry.verify(key)


def compare(directory: Path, rounds: int, block: int) -> dict[str, object]:
    subjects = Subjects(directory)
    wall: dict[str, list[list[float]]] = {}  # seconds per entry, by subject and round
    processor: dict[str, list[float]] = {}
    for turn in range(rounds + 1):
        for name, calls, count in subjects.blocks(block):
            taken = []
            cpu_started = time.process_time()
            for call in calls:
                started = time.perf_counter()
                call()
                taken.append((time.perf_counter() - started) / count)
            cpu = (time.process_time() - cpu_started) / (count * len(calls))
            if turn:  # the first round fills caches and the write-ahead logs
                wall.setdefault(name, []).append(taken)
                processor.setdefault(name, []).append(cpu)
    subjects.close()
    figures: dict[str, Any] = {}
    for name, blocks in wall.items():
        every = [seconds for block_seconds in blocks for seconds in block_seconds]
        figures[f"{name}_microseconds"] = {
            "p10": round(percentile(every, 0.1) * 1e6, 1),
            "median": round(statistics.median(every) * 1e6, 1),
            "processor_median": round(statistics.median(processor[name]) * 1e6, 1),
        }
    medians = {
        name: [statistics.median(block_seconds) for block_seconds in blocks] for name, blocks in wall.items()
    }
    for name, base in (
        ("append", "bare"),
        ("sealed", "bare"),
        ("sealed_with_views", "bare"),
        ("bulk", "verify"),
    ):
        figures[f"{name}_per_{base}"] = paired_ratio(medians[name], medians[base])
        figures[f"{name}_per_{base}_p10"] = round(
            figures[f"{name}_microseconds"]["p10"] / figures[f"{base}_microseconds"]["p10"], 2
        )
        figures[f"{name}_per_second"] = interval([1 / value for value in medians[name]])
        figures[f"{name}_per_second_p90"] = round(1e6 / figures[f"{name}_microseconds"]["p10"])
    figures["bare_per_second_p90"] = round(1e6 / figures["bare_microseconds"]["p10"])
    for name in ("append", "sealed", "bulk"):
        figures[f"{name}_file_per_entry_bytes"] = round(size_ratio(directory / name), 3)
    return figures


def size_ratio(directory: Path) -> float:
    """Bytes of the ledger file beside bytes of its entries; for a ledger without views."""
    with Ledger.open(directory, default_contracts(), read_only=True) as ledger:
        entry_bytes = sum(len(entry.to_bytes()) for _, entry in ledger.entries())
    return (directory / "ledger.sqlite").stat().st_size / entry_bytes


def large(directory: Path, count: int) -> dict[str, object]:
    """Fill a ledger without views, then open it and ask."""
    subjects = Subjects(directory)
    ledger = subjects.make("large")
    started = time.perf_counter()
    for start in range(0, count, BULK_COUNT):
        records = subjects.statements(ledger, min(BULK_COUNT, count - start))
        ledger.append_many([Entry.signed(record.to_bytes(), subjects.key) for record in records])
    filled_seconds = time.perf_counter() - started
    ledger.close()
    opened, receipts, present, absent = [], [], [], []
    rng = random.Random(3)
    for _ in range(30):
        started = time.perf_counter()
        ledger = Ledger.open(
            directory / "large", default_contracts(), log_key=subjects.log_key, home=directory
        )
        opened.append(time.perf_counter() - started)
        for _ in range(10):
            index = rng.randrange(ledger.size)
            started = time.perf_counter()
            ledger.receipt(index)
            receipts.append(time.perf_counter() - started)
            record = ledger.record(index)
            if record is not None and record.kind == "run":
                key = b"exact/" + exact_fingerprint(record.predicate["parts"])
                started = time.perf_counter()
                ledger.state_receipt("registry", key)
                present.append(time.perf_counter() - started)
            started = time.perf_counter()
            ledger.state_receipt("registry", b"exact/" + rng.randbytes(32))
            absent.append(time.perf_counter() - started)
        ledger.close()
    subjects.close()
    timed = {"open": opened, "receipt": receipts, "state_present": present, "state_absent": absent}
    figures: dict[str, object] = {
        f"large_{name}_milliseconds": {
            "median": round(statistics.median(values) * 1e3, 3),
            "p99": round(percentile(values, 0.99) * 1e3, 3),
        }
        for name, values in timed.items()
    }
    figures["large_entries"] = count
    figures["large_fill_seconds"] = round(filled_seconds, 1)
    figures["large_file_bytes"] = (directory / "large" / "ledger.sqlite").stat().st_size
    figures["large_file_per_entry_bytes"] = round(size_ratio(directory / "large"), 3)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=24, help="interleaved blocks of each subject")
    parser.add_argument("--block", type=int, default=50, help="entries in a block")
    parser.add_argument(
        "--entries", type=int, default=100_000, help="runs in the large ledger; 0 leaves it out"
    )
    parser.add_argument("--directory", type=Path, help="where to work; a temporary directory otherwise")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="lichen-append-", dir=arguments.directory))
    try:
        (directory / "compare").mkdir()
        figures = compare(directory / "compare", arguments.rounds, arguments.block)
        if arguments.entries:
            (directory / "many").mkdir()
            figures |= large(directory / "many", arguments.entries)
    finally:
        shutil.rmtree(directory)
    write_result(
        "ledger_append",
        figures,
        bars={
            "append_per_bare": "<= 2",
            "sealed_per_second": ">= 1,500 where a bare signed commit reaches 4,500",
            "bulk_per_verify": "bound by Ed25519",
            "append_file_per_entry_bytes": "<= 2",
            "large_open_milliseconds": "a few, whatever the number of entries",
            "large_receipt_milliseconds": "< 2",
        },
        notes=[
            "Ratios are of medians of neighbouring blocks in one run. p10 is what nine in ten appends take longer than: what"
            " the same append takes when nothing else wants the processor or the disk.",
            "`bare` signs and commits the same payloads without tree, state, rules, uniqueness or checkpoint.",
            "`bulk` verifies in as many threads as there are processors; `verify` is one thread.",
        ],
    )


if __name__ == "__main__":
    main()
