"""What a cosignature costs: the price of rung 1 of the trust ladder, per checkpoint and per record.

Interleaved in one run, block by block, over the same checkpoints:

* ``bare``: verify the log's Ed25519 signature, sign the cosignature, commit the note to an SQLite table (write-ahead log,
  ``synchronous=FULL``): what no witness can leave out;
* ``store``: `WitnessStore.add_checkpoint`, which also reads the request, verifies the consistency proof, and locks;
* ``http``: the same through `lichen witness serve` in a process of its own and the client that a ledger uses; processor
  time of both sides, the server's from the system's account of its process.

Joules are those of the load model for the processor seconds, as `lichen balance` books Lichen's own work. A checkpoint is
cosigned once by each witness, however many records are in its block, so the price of a record is that of a checkpoint
times the witnesses, divided by the records per block.

    python benchmarks/witness_price.py --rounds 20 --block 20 --entries 1000000
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import interval, paired_ratio, percentile, write_result

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, SignedNote, cosign_note
from lichen.ledger.checkpoint import Checkpoint, sign_checkpoint
from lichen.ledger.policy import Witness
from lichen.ledger.proof import consistency_proof
from lichen.ledger.tree import leaf_hash, node_hash, split_point
from lichen.ledger.witness import AddCheckpoint
from lichen.ledger.witness_store import WitnessStore
from lichen.net.witness.client import request_cosignature
from lichen.runs.queries.balance import joules_of_own_seconds

ORIGIN = "lichen/" + "ab" * 32
LOG = SigningKey.from_seed(b"p" * 32)
WITNESS_COUNT = 3
TICKS = os.sysconf("SC_CLK_TCK")


class GrowingLog:
    """A log of equal perfect subtrees, so that proofs of realistic length need no million leaves."""

    def __init__(self) -> None:
        self._perfect = [leaf_hash(b"leaf")]

    def subtree(self, start: int, end: int) -> bytes:
        count = end - start
        if count & (count - 1) == 0:
            level = count.bit_length() - 1
            while len(self._perfect) <= level:
                self._perfect.append(node_hash(self._perfect[-1], self._perfect[-1]))
            return self._perfect[level]
        middle = start + split_point(count)
        return node_hash(self.subtree(start, middle), self.subtree(middle, end))

    def note(self, size: int) -> str:
        return sign_checkpoint(Checkpoint(ORIGIN, size, self.subtree(0, size)), LOG)

    def prove(self, first: int, second: int) -> list[bytes]:
        return consistency_proof(first, second, self.subtree)

    def request(self, old: int, size: int) -> bytes:
        return AddCheckpoint(old, tuple(self.prove(old, size)), self.note(size)).to_bytes()


class Bare:
    """The two signatures and the commit, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self.connection = sqlite3.connect(directory / "bare.sqlite", isolation_level=None)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("PRAGMA synchronous=FULL")
        self.connection.execute("CREATE TABLE notes(origin TEXT PRIMARY KEY, note TEXT NOT NULL)")
        self.key = SigningKey.generate()
        self.log_key = NoteKey(ORIGIN, LOG.public)

    def add(self, note: str) -> None:
        signed = SignedNote.from_text(note)
        signed.verify([self.log_key])
        line = cosign_note(signed.text, "w", self.key, 1_760_000_000)
        self.connection.execute("REPLACE INTO notes VALUES(?, ?)", (ORIGIN, note + line.line))


class Served:
    """`lichen witness serve` in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self.home = directory / "served home"
        with WitnessStore.create(directory / "served", "w/served", home=self.home) as store:
            store.add_log(NoteKey(ORIGIN, LOG.public))
            key = store.identity.note_key
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "lichen",
                "witness",
                "serve",
                "--port",
                "0",
                "--directory",
                str(directory / "served"),
            ],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "LICHEN_HOME": str(self.home)},
        )
        assert self.process.stdout is not None
        url = self.process.stdout.readline().split(" at ")[1].split(",")[0]
        self.witness = Witness(b"W", key, url)

    def cpu_seconds(self) -> float:
        """Processor seconds of the server so far; the system counts them in hundredths."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(20)
        if self.process.stdout is not None:
            self.process.stdout.close()


def measure(options: argparse.Namespace, directory: Path) -> dict[str, Any]:
    log, bare, served = GrowingLog(), Bare(directory), Served(directory)
    store = WitnessStore.create(directory / "w", "w/store", home=directory / "home")
    store.add_log(NoteKey(ORIGIN, LOG.public))
    log_start = options.entries
    wall: dict[str, list[float]] = {"bare": [], "store": [], "http": []}
    cpu: dict[str, list[float]] = {"bare": [], "store": [], "client": []}
    latencies: list[float] = []
    size, known, server_cpu, server_count = 0, 0, 0.0, 0
    try:
        for number in range(options.rounds + 1):  # the first round warms up
            sizes = [size or log_start]
            while len(sizes) <= options.block:
                sizes.append(sizes[-1] + options.step)
            pairs = list(itertools.pairwise(sizes))
            if size == 0:
                store.add_checkpoint(log.request(0, sizes[0]), int(time.time()))
                request_cosignature(served.witness, log.note(sizes[0]), log.prove)
            size = sizes[-1]
            notes = {each: log.note(each) for each in sizes}
            requests = [log.request(old, new) for old, new in pairs]
            began, began_cpu = time.perf_counter(), time.process_time()
            for _, new in pairs:
                bare.add(notes[new])
            middle, middle_cpu = time.perf_counter(), time.process_time()
            for body in requests:
                answer = store.add_checkpoint(body, int(time.time()))
                assert isinstance(answer, str), answer
            end, end_cpu = time.perf_counter(), time.process_time()
            before = served.cpu_seconds()
            for old, new in pairs:
                asked = time.perf_counter()
                request_cosignature(served.witness, notes[new], log.prove, old)
                latencies.append(time.perf_counter() - asked)
            last, last_cpu = time.perf_counter(), time.process_time()
            if number == 0:
                latencies.clear()
                continue
            server_cpu += served.cpu_seconds() - before
            server_count += len(pairs)
            for name, value in (("bare", middle - began), ("store", end - middle), ("http", last - end)):
                wall[name].append(value / len(pairs))
            for name, value in (
                ("bare", middle_cpu - began_cpu),
                ("store", end_cpu - middle_cpu),
                ("client", last_cpu - end_cpu),
            ):
                cpu[name].append(value / len(pairs))
            known = new
    finally:
        served.close()
        store.close()
    assert known == size
    return figures(wall, cpu, latencies, server_cpu / server_count, len(log.prove(size - options.step, size)))


def figures(
    wall: dict[str, list[float]],
    cpu: dict[str, list[float]],
    latencies: list[float],
    server_cpu: float,
    proof: int,
) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    both_sides = server_cpu + statistics.median(cpu["client"])
    price = joules_of_own_seconds(both_sides, 0)
    in_store = joules_of_own_seconds(statistics.median(cpu["store"]), 0)
    return {
        "proof_hashes": proof,
        "bare_ms": interval([value * 1e3 for value in wall["bare"]]),
        "store_ms": interval([value * 1e3 for value in wall["store"]]),
        "http_ms": interval([value * 1e3 for value in wall["http"]]),
        "http_p99_ms": percentile(latencies, 0.99) * 1e3,
        "store_over_bare": paired_ratio(wall["store"], wall["bare"]),
        "bare_cpu_ms": interval([value * 1e3 for value in cpu["bare"]]),
        "store_cpu_ms": interval([value * 1e3 for value in cpu["store"]]),
        "client_cpu_ms": interval([value * 1e3 for value in cpu["client"]]),
        "server_cpu_ms": server_cpu * 1e3,
        "store_joules_per_checkpoint": in_store.energy_joules,
        "joules_per_checkpoint_and_witness": price.energy_joules,
        "joules_relative_u95": price.relative_u95,
        "joules_per_record": {
            f"{count}_records_per_block_{WITNESS_COUNT}_witnesses": WITNESS_COUNT
            * price.energy_joules
            / count
            for count in (1, 10, 100, 1_000)
        },
        "peak_rss_bytes": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--block", type=int, default=20, help="checkpoints per round")
    parser.add_argument("--step", type=int, default=101, help="entries between two checkpoints")
    parser.add_argument("--entries", type=int, default=1_000_000, help="entries of the log at the start")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(options, Path(directory))
    write_result(
        "witness_price",
        found,
        bars={"store_over_bare": "none was set; beside the limit, so that what is added is seen"},
        notes=[
            "CPU and joules of http are those of both sides: the witness's server, and the ledger that asks.",
            "Joules by the load model, with its uncertainty; memory is not in them, because a witness stands idle mostly.",
        ],
    )


if __name__ == "__main__":
    main()
