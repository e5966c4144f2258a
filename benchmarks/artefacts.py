"""Naming, storing and restoring artefacts: against hashlib and a plain copy of the same file, in interleaved pairs.

Bars: restoring 100 MB, verified and file creation included, below 0.15 s; naming close to ``hashlib.file_digest``, which
computes one of the two hashes that a file above 256 KiB needs; memory flat for a file of 10 GB.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from harness import interval, paired_ratio, percentile, write_result

FILE_SIZE = 100_000_000  # bytes
SMALL_COUNT = 20_000  # files of some hundred bytes
STREAM = """
import re, sys, time
from lichen.content.unixfs import hash_file
started = time.perf_counter()
hash_file(sys.argv[1])
seconds = time.perf_counter() - started
print(seconds, re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def timed(work: Callable[[], object]) -> float:
    """Return the wall seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def own_cpu(work: Callable[[], object]) -> float:
    """Return the processor seconds of one call, in all threads of this process."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def large_file(directory: Path, pairs: int) -> dict[str, Any]:
    """One file of 100 MB in the page cache."""
    from lichen.content.directory_store import DirectoryStore
    from lichen.content.unixfs import hash_file

    source, restored, copied = directory / "source", directory / "restored", directory / "copied"
    source.write_bytes(os.urandom(FILE_SIZE))
    store = DirectoryStore(directory / "store")
    cid = store.put_file(source).cid
    os.sync()

    def file_digest() -> None:
        with source.open("rb") as file:
            hashlib.file_digest(file, "sha256")

    wall: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}

    def measure(name: str, work: Callable[[], object]) -> None:
        started = time.perf_counter()
        cpu.setdefault(name, []).append(own_cpu(work))
        wall.setdefault(name, []).append(time.perf_counter() - started)

    for _ in range(pairs):
        measure("file_digest", file_digest)
        measure("hash_file", lambda: hash_file(source))
        measure("copyfile", lambda: shutil.copyfile(source, copied))
        copied.unlink()
        measure("fetch", lambda: store.fetch_to(cid, restored))
        restored.unlink()
        store.delete(cid)
        measure("put_not_synced", lambda: store.put_file(source, durable=False))
    figures: dict[str, Any] = {
        "hash_file_over_file_digest": paired_ratio(wall["hash_file"], wall["file_digest"]),
        "fetch_over_copyfile": paired_ratio(wall["fetch"], wall["copyfile"]),
    }
    for name, seconds in wall.items():
        figures[f"{name}_seconds"] = interval(seconds)
        figures[f"{name}_seconds_min"] = min(seconds)
        figures[f"{name}_cpu_seconds_min"] = min(cpu[name])
    return figures


def small_files(directory: Path) -> dict[str, Any]:
    """Many small files, hashed for the first time and found unchanged the second."""
    from lichen.content.digest_cache import DigestCache

    files = [directory / f"{number}" for number in range(SMALL_COUNT)]
    for number, file in enumerate(files):
        file.write_bytes(b"%d" % number * 50)
    paths = list(map(str, files))
    time.sleep(2.1)  # the cache does not remember what was written a moment ago
    first, second = [], []
    for number in range(5):
        location = directory / f"cache{number}" / "digests.sqlite"
        with DigestCache(location) as cache:
            first.append(own_cpu(partial(cache.digest_files, paths)))
        with DigestCache(location) as cache:
            second.append(own_cpu(partial(cache.digest_files, paths)))
    return {
        "first_digest_cpu_us_per_file": min(first) / SMALL_COUNT * 1e6,
        "unchanged_digest_cpu_us_per_file": min(second) / SMALL_COUNT * 1e6,
    }


def small_artefacts(directory: Path) -> dict[str, Any]:
    """Putting artefacts of 3,000 bytes, such as manifests."""
    from lichen.content.directory_store import DirectoryStore

    store = DirectoryStore(directory / "small-store")
    figures = {}
    for name, durable in (("durable", True), ("not_synced", False)):
        taken = [timed(lambda: store.put_bytes(os.urandom(3000), durable=durable)) for _ in range(300)]  # noqa: B023
        figures[f"put_3000_bytes_{name}_median_us"] = percentile(taken, 0.5) * 1e6
    return figures


def stream(directory: Path, size: int) -> dict[str, Any]:
    """A large sparse file, in a process of its own."""
    path = directory / "sparse"
    with path.open("wb") as file:
        file.truncate(size)
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(path)], check=True, capture_output=True, text=True
    )
    seconds, resident = done.stdout.split()
    return {
        "stream_bytes": size,
        "stream_seconds": float(seconds),
        "stream_resident_mib_max": int(resident) / 1024,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--stream-bytes", type=int, default=10 * 2**30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lichen-artefacts-") as name:
        directory = Path(name)
        figures = large_file(directory, arguments.pairs)
        figures |= small_artefacts(directory)
        figures |= small_files(directory)
        figures |= stream(directory, arguments.stream_bytes)
    write_result(
        "artefacts",
        figures,
        bars={
            "fetch_seconds": "< 0.15, 100 MB, verified, file creation included",
            "stream_resident_mib_max": "< 150 for 10 GB",
        },
        notes=[
            "A name is two hashes above 256 KiB; file_digest computes one of them.",
            "Intervals are 95 % bootstrap intervals of medians; ratios are of interleaved pairs.",
            "The smallest times show the program; the medians also show what else the machine was doing.",
        ],
    )


if __name__ == "__main__":
    main()
