"""Torn writes and lost tails: the ledger file, its write-ahead log or both are cut, and the ledger is opened again.

What is left must be a ledger that verifies and is the beginning of the one that was, or be refused by one of Lichen's own errors.
Where the high-water mark knows of more, whoever holds the log key must be refused too, so that nothing is signed twice.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults.site import Site
from lichen.errors import LichenError, RollbackError

__all__ = ["Cuts", "cut_everywhere", "leave_open"]

BLOCK_BYTES = 4_096
FILE, LOG = "ledger.sqlite", "ledger.sqlite-wal"


@dataclass
class Cuts:
    """What came of many.

    Args:
        outcomes: How often a cut led to what: ``prefix`` with all entries or fewer, or the code of the error.
        unsound: Cuts after which something that does not verify was opened without a word, or was no beginning of what was.
        unsigned: Cuts behind the high-water mark after which the log key could still sign.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    unsound: list[str] = field(default_factory=list)
    unsigned: list[str] = field(default_factory=list)


def leave_open(site: Site, still: Path, seed: int = 1) -> None:
    """Make a ledger with commits in the file and others in its write-ahead log, and copy both as a power cut would leave them.

    Args:
        site: Where the ledger is made.
        still: Directory for the copy.
        seed: What its records say.
    """
    rng = random.Random(seed)
    ledger = site.create(entries_max=20)
    ledger.append_many(site.entries(ledger, rng, 60))
    ledger.close()
    with site.opened() as again:
        for _ in range(12):
            again.append_many(site.entries(again, rng, 3), seal=rng.random() < 0.5)
        again.append(site.entry(again, rng), seal=True)
        shutil.copytree(site.directory, still)
    for rest in still.glob("*-shm"):
        rest.unlink()  # it is made anew from the write-ahead log


def cut_everywhere(site: Site, still: Path, scratch: Path, random_count: int, seed: int = 1) -> Cuts:
    """Cut at every 4 KiB boundary of both files, at random bytes of each, and at random bytes of both.

    Args:
        site: Whose keys and marks they are.
        still: What `leave_open` copied; it is not changed.
        scratch: Directory for copies.
        random_count: How many cuts at random bytes, of each of the three sorts.
        seed: Which.
    """
    sizes = {name: (still / name).stat().st_size for name in (FILE, LOG)}
    result = Cuts()
    roots = _roots(site, still, scratch)
    for lengths in _plans(sizes, random.Random(seed), random_count):
        _cut(site, still, scratch, lengths, roots, result)
    return result


def _plans(sizes: dict[str, int], rng: random.Random, count: int) -> Iterator[dict[str, int]]:
    for name, size in sizes.items():
        for at in range(0, size + 1, BLOCK_BYTES):
            yield {name: at}
        for _ in range(count):
            yield {name: rng.randrange(size + 1)}
    for _ in range(count):
        yield {name: rng.randrange(size + 1) for name, size in sizes.items()}


def _copied(site: Site, still: Path, scratch: Path) -> Site:
    copy = Site(scratch / "cut", site.seed)
    shutil.rmtree(copy.root, ignore_errors=True)
    shutil.copytree(still, copy.directory)
    shutil.copytree(site.home, copy.home)
    return copy


def _roots(site: Site, still: Path, scratch: Path) -> list[bytes]:
    """Root of the whole ledger at every size."""
    copy = _copied(site, still, scratch)
    with copy.opened(read_only=True) as ledger:
        return [ledger.root_at(size) for size in range(ledger.size + 1)]


def _cut(
    site: Site, still: Path, scratch: Path, lengths: dict[str, int], roots: list[bytes], result: Cuts
) -> None:
    copy = _copied(site, still, scratch)
    for name, length in lengths.items():
        with (copy.directory / name).open("r+b") as file:
            file.truncate(length)
    size = None
    try:
        with copy.opened(read_only=True, home=False) as ledger:
            size = ledger.size
            if ledger.root_at(size) != roots[size]:
                result.unsound.append(f"{lengths}: {size} entries that were never the first {size}")
        problem = copy.audit().problem
        result.outcomes["whole" if size == len(roots) - 1 else "prefix"] += problem is None
        if problem is not None:
            result.outcomes[f"audit: {problem.code}"] += 1
    except LichenError as error:
        result.outcomes[error.code] += 1
    try:
        with copy.opened() as ledger:
            if ledger.size < len(roots) - 1:
                result.unsigned.append(f"{lengths}: {ledger.size} of {len(roots) - 1} entries")
    except RollbackError:
        result.outcomes["signing refused: rollback"] += 1
    except LichenError as error:
        result.outcomes[f"signing refused: {error.code}"] += 1
