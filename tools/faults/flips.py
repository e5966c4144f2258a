"""One byte of a sealed ledger changed at a time: the audit must find it.

A flip is *found* when the audit names a problem or refuses to open the file. One that is not found is *harmless* when every row
of every table reads as before, and SQLite finds every index in order; anything else is *missed*, and there must be none.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from faults.pages import Extent, FileMap, map_file
from faults.site import Site
from lichen.errors import LichenError, Rejected
from lichen.ledger.ledger import Ledger

__all__ = ["Flip", "Flips", "every_byte", "fill", "flip_many"]


@dataclass(frozen=True)
class Flip:
    """One changed byte.

    Args:
        offset: In the file.
        change: By what the byte was exclusive-ored, 1 to 255.
        table: Table or index it belongs to; empty for the file's own header.
        what: Kind of bytes there.
    """

    offset: int
    change: int
    table: str
    what: str


@dataclass
class Flips:
    """What came of many.

    Args:
        found: Count of those the audit found, by ``table what``.
        harmless: Count of those that changed no row and no index, by ``table what``.
        missed: Those that did and were not found.
        where: The index the audit named, or None, by how often.
    """

    found: Counter[str] = field(default_factory=Counter)
    harmless: Counter[str] = field(default_factory=Counter)
    missed: list[Flip] = field(default_factory=list)
    where: Counter[str] = field(default_factory=Counter)


def fill(site: Site, count: int, seed: int = 1) -> None:
    """Make a sealed and closed ledger with something in every table.

    Args:
        site: Where.
        count: Runs; 256 fill a hash tile.
        seed: What they say.
    """
    rng = random.Random(seed)
    with site.create(entries_max=40) as ledger:
        runs = _accepted(ledger, site.entries(ledger, rng, count))
        said = [
            site.said(ledger, "flag", runs[0], error="the labels are shifted by one"),
            site.said(ledger, "withdraw", runs[1], reason="wrong data"),
            site.said(ledger, "reuse", runs[2], credit=True, avoided_joules=0.5, avoided_u95=0.1),
            site.said(ledger, "evaluation", runs[3], metrics={"accuracy": 0.8}),
        ]
        _accepted(ledger, said)
        for part in (site.entries(ledger, rng, 1) for _ in range(3)):
            ledger.append_many(part, seal=True)
        ledger.connection.execute("SELECT count(*) FROM view_run").fetchone()
    with closing(sqlite3.connect(site.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def flip_many(
    site: Site,
    scratch: Path,
    count: int,
    seed: int,
    *,
    free_share: float = 0.02,
    names: Sequence[str] = (),
) -> Flips:
    """Flip so many bytes, one after the other, each table and index alike.

    Args:
        site: A ledger made by `fill`; it is not changed.
        scratch: Directory for the copy that is.
        count: How many flips.
        seed: Which.
        free_share: Share of them aimed at bytes that hold nothing, to count what is said of those.
        names: Tables and indexes to aim at; all of them when empty.
    """
    found = map_file(site.path)
    rng = random.Random(seed)
    if names:
        found.used = {name: found.used[name] for name in names}
        found.free = {name: found.free[name] for name in names}
    return _try(site, scratch, (_aimed(found, rng, free_share) for _ in range(count)))


def every_byte(site: Site, scratch: Path, start: int, stop: int, change: int = 0xFF) -> Flips:
    """Flip each byte of a range of the file."""
    found = map_file(site.path)
    flips = (Flip(offset, change, *found.owner_of(offset)) for offset in range(start, stop))
    return _try(site, scratch, flips)


def _accepted(ledger: Ledger, entries: list) -> list[int]:  # type: ignore[type-arg]
    indices = []
    for result in ledger.append_many(entries):
        if isinstance(result, Rejected):
            raise result
        indices.append(result.index)
    return indices


def _aimed(found: FileMap, rng: random.Random, free_share: float) -> Flip:
    extents = found.free if rng.random() < free_share else found.used
    name = rng.choice([name for name, runs in extents.items() if runs])
    run: Extent = rng.choices(extents[name], [run.size_bytes for run in extents[name]])[0]
    return Flip(run.start + rng.randrange(run.size_bytes), rng.randrange(1, 256), name, run.what)


def _try(site: Site, scratch: Path, flips: Iterator[Flip]) -> Flips:
    copy = Site(scratch / f"flips-{os.getpid()}", site.seed)
    shutil.rmtree(copy.root, ignore_errors=True)
    shutil.copytree(site.directory, copy.directory)
    before = copy.audit()
    if before.problem is not None or before.unchecked_views:
        raise RuntimeError(f"the ledger is not sound before anything was changed: {before.problem}")
    rows, result = _rows(copy.path), Flips()
    for flip in flips:
        label = f"{flip.table} {flip.what}"
        with copy.path.open("r+b") as file:
            _change(file.fileno(), flip)
            named = _named(copy)
            if named is not None:
                result.found[label] += 1
                result.where[named] += 1
            elif _rows(copy.path) == rows and _is_in_order(copy.path):
                result.harmless[label] += 1
            else:
                result.missed.append(flip)
            _change(file.fileno(), flip)
        for rest in ("-wal", "-shm"):
            copy.path.with_name(copy.path.name + rest).unlink(missing_ok=True)
    shutil.rmtree(copy.root)
    return result


def _change(descriptor: int, flip: Flip) -> None:
    (byte,) = os.pread(descriptor, 1, flip.offset)
    os.pwrite(descriptor, bytes([byte ^ flip.change]), flip.offset)


def _named(site: Site) -> str | None:
    """What the audit says; None when it finds nothing."""
    try:
        report = site.audit()
    except LichenError as error:
        return error.code
    if report.problem is None:
        return "a view it has no rules for, and says so" if report.unchecked_views else None
    return "beside the entries" if report.problem.index is None else "at an entry"


def _rows(path: Path) -> dict[str, list[tuple[object, ...]]] | None:
    """Every row of every table, as a full scan gives them; None when they cannot be read."""
    uri = f"{path.as_uri()}?mode=ro&immutable=1"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as connection:
            schema = connection.execute("SELECT * FROM sqlite_master").fetchall()
            rows: dict[str, list[tuple[object, ...]]] = {"": schema}
            for kind, name, *_ in schema:
                if kind == "table":
                    rows[name] = connection.execute(f'SELECT * FROM "{name}" NOT INDEXED').fetchall()  # noqa: S608
            return rows
    except sqlite3.Error:
        return None


def _is_in_order(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    except sqlite3.Error:
        return False
