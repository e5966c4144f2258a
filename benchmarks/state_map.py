"""The state map on disk: what a seal with two changed keys costs, and how large and fast proofs are, as the map grows.

Bars at 1,000,000 keys: a seal below 0.3 ms beside the commit; a proof below 2 KiB. Times are of this process's processor,
because other work on the machine shows in wall time; the commit is given in wall time, disk included. Other work also
slows the processor down, so the time of one SHA-256 call from Python is taken between the seals and given beside them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from harness import percentile, write_result

SIZES = (1_000, 10_000, 100_000, 1_000_000)
SEALS_COUNT = 2_000
PROOFS_COUNT = 2_000
NODE = bytes(66)  # as long as what a node of the map hashes


def key(number: int) -> bytes:
    return hashlib.sha256(b"%d" % number).digest()


def measure(path: Path, key_count: int) -> dict[str, Any]:
    from lichen.ledger.state_store import StateStore

    rng = random.Random(key_count)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA cache_size=-16384")
    StateStore.create_tables(connection)
    store = StateStore(connection)
    connection.execute("BEGIN")
    started = time.perf_counter()
    store.update(1, {key(number): os.urandom(9) for number in range(key_count)})
    connection.execute("COMMIT")
    load_seconds = time.perf_counter() - started
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file_bytes = path.stat().st_size
    figures: dict[str, Any] = {
        "bulk_load_seconds": load_seconds,
        "disk_bytes_per_key": file_bytes / key_count,
    }
    version = 2
    for label, fresh in (("existing", False), ("new", True)):
        update_us, commit_us, hash_us = [], [], []
        for _ in range(SEALS_COUNT):
            keys = [os.urandom(32) if fresh else key(rng.randrange(key_count)) for _ in range(2)]
            writes: dict[bytes, bytes | None] = {each: os.urandom(9) for each in keys}
            connection.execute("BEGIN IMMEDIATE")
            started = time.process_time()
            store.update(version, writes)
            update_us.append((time.process_time() - started) * 1e6)
            started = time.perf_counter()
            connection.execute("COMMIT")
            commit_us.append((time.perf_counter() - started) * 1e6)
            version += 1
            started = time.process_time()
            for _ in range(50):
                hashlib.sha256(NODE).digest()
            hash_us.append((time.process_time() - started) * 1e6 / 50)
        figures[f"sha256_call_beside_{label}_keys_median_us"] = percentile(hash_us, 0.5)
        figures[f"seal_{label}_keys_median_us"] = percentile(update_us, 0.5)
        figures[f"seal_{label}_keys_p99_us"] = percentile(update_us, 0.99)
        figures[f"commit_{label}_keys_median_us"] = percentile(commit_us, 0.5)
    figures |= proofs(store, key_count, rng)
    connection.close()
    return figures


def proofs(store: Any, key_count: int, rng: random.Random) -> dict[str, Any]:
    prove_us, sizes, get_us = [], [], []
    for number in range(PROOFS_COUNT):
        asked = key(rng.randrange(key_count)) if number % 2 else os.urandom(32)
        started = time.process_time()
        _, proof = store.prove(asked)
        prove_us.append((time.process_time() - started) * 1e6)
        sizes.append(len(proof.to_bytes()))
        started = time.process_time()
        store.get(asked)
        get_us.append((time.process_time() - started) * 1e6)
    oldest = next(iter(store.versions()))
    started = time.process_time()
    store.prove(key(0), oldest)
    return {
        "prove_median_us": percentile(prove_us, 0.5),
        "prove_p99_us": percentile(prove_us, 0.99),
        "prove_oldest_kept_us": (time.process_time() - started) * 1e6,
        "get_median_us": percentile(get_us, 0.5),
        "proof_bytes_median": percentile(sizes, 0.5),
        "proof_bytes_max": max(sizes),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--keys", type=int, nargs="+", default=list(SIZES))
    arguments = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="lichen-state-") as directory:
        for key_count in arguments.keys:
            found = measure(Path(directory) / f"{key_count}.sqlite", key_count)
            figures[f"{key_count}_keys"] = {name: round(value, 2) for name, value in found.items()}
    write_result(
        "state_map",
        figures,
        bars={
            "seal_*_keys_median_us at 1,000,000 keys": "< 300",
            "proof_bytes_max at 1,000,000 keys": "< 2,048",
        },
        notes=[
            "Two keys change in each seal.",
            "Half of the proofs are of keys that are absent.",
            "Proofs are verified before they are counted.",
        ],
    )


if __name__ == "__main__":
    main()
