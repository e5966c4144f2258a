"""The costly part, on all cores: signatures, digests of files, artefacts."""

from __future__ import annotations

import collections
import multiprocessing
import os
from collections.abc import Callable

from lichen.archive.standalone.cars import measure_car
from lichen.archive.standalone.ed25519 import Key
from lichen.archive.standalone.faults import Fault, Unreadable
from lichen.archive.standalone.files import Files, car_name

__all__ = ["Workers", "check_cars", "check_files", "check_signatures", "default_count"]

KEYS: dict = {}  # of this process, so that the tables of a key are made once in each
PENDING_MAX = 4  # batches under way for each process; more would only take memory


def check_signatures(jobs: list) -> list:
    """Check signatures; pairs of index and what is wrong."""
    wrong = []
    for index, what, raw, message, signature in jobs:
        if raw not in KEYS:
            KEYS[raw] = Key(raw)
        if not KEYS[raw].verify(message, signature):
            wrong.append((index, "%s does not hold" % what))
    return wrong


def bare(root: str, sums: dict) -> Files:
    """The files of an archive whose list was checked already."""
    files = Files.__new__(Files)
    files.root, files.sums = root, sums
    return files


def check_files(root: str, sums: dict) -> list:
    """Compare files with their digests; pairs of None and what is wrong."""
    files, wrong = bare(root, sums), []
    for name in sums:
        try:
            files.check_sum(name)
        except (Fault, Unreadable) as error:
            wrong.append((None, str(error)))
    return wrong


def check_cars(root: str, rows: list) -> list:
    """Compare artefacts with what is said of them; pairs of None and what is wrong."""
    wrong = []
    for row, digest in rows:
        name = car_name(row["cid"])
        files = bare(root, {name: digest})
        try:
            files.check_sum(name)
            with files.open(name) as file:
                sha256, size, sealed = measure_car(file, row["cid"], row["size_bytes"])
        except (Fault, Unreadable) as error:
            wrong.append((row.get("entry"), "%s: %s" % (name, error)))
            continue
        if (sha256.hex(), size, sealed) != (row["sha256"], row["size_bytes"], row["sealed"]):
            wrong.append((row.get("entry"), "%s is not what artefacts.jsonl says of it" % name))
    return wrong


class Workers:
    """Processes to hand batches to; with one, everything is done right here.

    Args:
        count: How many.

    Attributes:
        wrong: What was found, pairs of index or None and message.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.pool = multiprocessing.Pool(count) if count > 1 else None
        self.pending: collections.deque = collections.deque()
        self.wrong: list = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self.pool is not None:
            self.pool.terminate()
            self.pool.join()

    def submit(self, work: Callable, *arguments: object) -> None:
        """Hand out a batch; waits while too many are under way."""
        if self.pool is None:
            self.wrong += work(*arguments)
            return
        self.pending.append(self.pool.apply_async(work, arguments))
        while len(self.pending) > PENDING_MAX * self.count:
            self.wrong += self.pending.popleft().get()

    def settle(self) -> None:
        """Wait for all that is under way."""
        while self.pending:
            self.wrong += self.pending.popleft().get()


def default_count() -> int:
    """Processors this program may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
