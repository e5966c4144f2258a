"""What a ledger stores beside its entries, compared with what the entries call for.

Everything here could be made anew from the entries: hash tiles, payload digests, the state in pieces, the rows of views. But
answers are given from it, so a byte that was changed in it must be found as well. Rows are compared one by one in the order of
their keys; pages and indexes are SQLite's own business, and it is asked (`lichen.ledger.audit.pages`).
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from lichen.crypto.hashes import sha256
from lichen.encoding.entry import ENTRY_OVERHEAD_BYTES
from lichen.errors import CorruptLedgerError
from lichen.ledger.audit.report import AtEntryError, RowDiffersError
from lichen.ledger.audit.row_difference import ENTRY_COLUMNS, VIEW_REMEDY, differing_row
from lichen.ledger.audit.view_rows import RowComparer, TableForm, table_forms
from lichen.ledger.ports import RowView
from lichen.ledger.state_map import EMPTY_STATE_ROOT
from lichen.ledger.state_store import STATE_SCHEMA, VERSION_COUNT_KEPT
from lichen.ledger.storage import SCHEMA
from lichen.ledger.tree import HASH_BYTES, TILE_WIDTH

if TYPE_CHECKING:
    from lichen.ledger.audit.replay import Replay
    from lichen.ledger.audit.report import AuditReport
    from lichen.ledger.audit.scratch import Scratch
    from lichen.ledger.log_file import LogFile
    from lichen.ledger.ports import View

__all__ = ["check_payloads", "check_stored", "known_views", "repeated_payload"]

FETCH_COUNT: Final = 1_000
LEVEL_SHIFT: Final = 56


def check_stored(
    log: LogFile,
    scratch: Scratch,
    replay: Replay,
    views: Mapping[View, int],
    report: AuditReport,
    offered: Sequence[View],
    sound_state: tuple[int, bytes] | None,
) -> None:
    """Compare everything that is stored beside the entries.

    Args:
        log: The ledger.
        scratch: What the entries call for.
        replay: The pass over them, which is over.
        views: Views whose rows were derived, with the number of entries they were offered.
        report: Told which views were compared.
        offered: All views this program has.
        sound_state: Version and root of the stored state, when its pieces were checked already and found sound.

    Raises:
        CorruptLedgerError: The first thing that differs.
    """
    if replay.seal is None:
        raise CorruptLedgerError("the ledger has no seal")
    _check_tiles(log, replay.frontier.root())
    _check_state(log, scratch, sound_state)
    check_payloads(log, scratch)
    _check_schema(log, views)
    _check_view_names(log, offered)
    for view, filled_to in views.items():
        if not 0 <= filled_to <= log.size:
            raise CorruptLedgerError(
                f"the view {view.name!r} is said to hold {filled_to} of {log.size} entries"
            )
        if isinstance(view, RowView):
            _check_row_view(log, scratch, replay, view, filled_to)
        else:
            for form in table_forms(view):
                _check_rows(log, scratch, form)
        report.views[view.name] = filled_to


def known_views(log: LogFile, views: Sequence[View], report: AuditReport) -> dict[View, int]:
    """Which views of the file can be compared, and how many entries each was offered.

    Args:
        log: The ledger.
        views: Those this program has.
        report: Told which views of the file are not among them.

    Returns:
        Count of entries by view; a count that cannot be is left for `check_stored` to find.
    """
    by_name = {view.name: view for view in views}
    known = {}
    for name, version, filled_to in log.database.connection.execute(
        "SELECT name, version, filled_to FROM views ORDER BY name"
    ):
        view = by_name.get(name)
        if view is None or view.version != version:
            report.unchecked_views.append(str(name))
            continue
        known[view] = filled_to
    return known


def repeated_payload(log: LogFile, scratch: Scratch) -> int | None:
    """Index of the first record whose payload stands in the log before it, or None."""
    found = []
    for indices in scratch.payload_twins():
        seen: set[bytes] = set()
        for index in indices:
            data = log.tables.entry_bytes(index) or b""
            digest = sha256(data[ENTRY_OVERHEAD_BYTES:])
            if digest in seen:
                found.append(index)
            seen.add(digest)
    return min(found, default=None)


def check_payloads(log: LogFile, scratch: Scratch) -> None:
    """Compare the payload digests on file, those of entries in full hash tiles, with the records'.

    Raises:
        AtEntryError: One is missing, wrong or too many.
    """
    scratch.flush_payloads()
    indexed = log.size - log.size % TILE_WIDTH
    derived = scratch.connection.execute(
        "SELECT prefix, idx FROM derived_payloads WHERE idx < ? ORDER BY prefix, idx", (indexed,)
    )
    stored = log.database.connection.execute("SELECT prefix, idx FROM payloads ORDER BY prefix, idx")
    index = min(_only_in_one(derived, stored), default=None)
    if index is not None:
        raise AtEntryError(index, f"the payload digest of entry {index} is not on file, or another one is")


def _only_in_one(ours: Iterator[tuple[int, int]], theirs: Iterator[tuple[int, int]]) -> Iterator[int]:
    """Indices in rows that stand in only one of two sorted runs of rows."""
    one, other = next(ours, None), next(theirs, None)
    while one is not None or other is not None:
        if one == other:
            one, other = next(ours, None), next(theirs, None)
        elif other is None or (one is not None and one < other):
            yield one[1]  # type: ignore[index]
            one = next(ours, None)
        else:
            yield other[1]
            other = next(theirs, None)


def _check_tiles(log: LogFile, root: bytes) -> None:
    log.tree().check(root)
    widths, count, level = {}, log.size // TILE_WIDTH, 0
    total = count * TILE_WIDTH
    while total:
        for number in range(-(-total // TILE_WIDTH)):
            widths[level << LEVEL_SHIFT | number] = min(TILE_WIDTH, total - number * TILE_WIDTH) * HASH_BYTES
        level, total = level + 1, total // TILE_WIDTH
    for position, size in log.database.connection.execute("SELECT position, length(hashes) FROM tiles"):
        if widths.get(position) != size:
            raise CorruptLedgerError(
                f"hash tile {position & (1 << LEVEL_SHIFT) - 1} of level {position >> LEVEL_SHIFT} has {size} bytes",
                expected=widths.get(position),
                calculated=size,
            )


def _check_state(log: LogFile, scratch: Scratch, sound_state: tuple[int, bytes] | None) -> None:
    """Compare the stored state with the one derived: its root, every piece, and what leads back to earlier seals."""
    roots = scratch.state_roots(VERSION_COUNT_KEPT + 1)
    versions = list(roots)[-VERSION_COUNT_KEPT:]
    newest = versions[-1]
    if (log.store.version, log.store.root) != (newest, roots[newest]):
        raise CorruptLedgerError(
            f"the stored state is not the one of the seal at entry {newest}",
            expected=roots[newest],
            calculated=log.store.root,
        )
    if sound_state != (newest, roots[newest]):
        log.store.check()
    before = roots[next(iter(roots))] if len(roots) > VERSION_COUNT_KEPT else EMPTY_STATE_ROOT
    log.store.check_undo({version: roots[version] for version in versions}, before)


def _check_schema(log: LogFile, views: Mapping[View, int]) -> None:
    """Compare tables, indexes and the table of views with what this program makes.

    Raises:
        CorruptLedgerError: They differ.
    """
    connection = log.database.connection
    rows = "SELECT type, name, tbl_name, sql FROM sqlite_master"
    with contextlib.closing(sqlite3.connect(":memory:")) as fresh:
        for statement in (*SCHEMA, *STATE_SCHEMA):
            fresh.execute(statement)
        made = {view.name: _made(view, fresh) for view in views}
        expected = set(fresh.execute(rows))
    foreign: set[str] = set()
    for name, objects in connection.execute("SELECT name, objects FROM views"):
        if name in made:
            if objects != json.dumps(made[name], sort_keys=True):
                raise CorruptLedgerError(
                    f"the file says that the view {name!r} made other tables than it does"
                )
        else:
            with contextlib.suppress(ValueError, TypeError):
                foreign.update(json.loads(objects))
    found = {row for row in connection.execute(rows) if row[2] not in foreign}
    for _, name, *_ in sorted(found ^ expected, key=str):
        raise CorruptLedgerError(f"the definition of {name!r} in the file is not the one it was made with")


def _check_view_names(log: LogFile, offered: Sequence[View]) -> None:
    """A view that this program does not have has tables of its own, and a version; else its name was changed.

    Raises:
        CorruptLedgerError: It has the tables of another one, or no version.
    """
    own = {form.name: view.name for view in offered for form in table_forms(view)}
    for name, version, objects in log.database.connection.execute("SELECT name, version, objects FROM views"):
        if type(version) is not int or version < 1:
            raise CorruptLedgerError(f"the file has the view {name!r} in a version {version!r}")
        try:
            made = set(json.loads(objects))
        except (ValueError, TypeError) as error:
            raise CorruptLedgerError(f"what the view {name!r} made cannot be read: {error}") from error
        for table in sorted(made & own.keys()):
            if own[table] != name:
                raise CorruptLedgerError(
                    f"the file has the table {table!r} of the view {own[table]!r} under the name {name!r}"
                )


def _made(view: View, connection: sqlite3.Connection) -> dict[str, str]:
    """Run a view's statements; type by name of what they made."""
    query = "SELECT name, type FROM sqlite_master WHERE sql IS NOT NULL"
    before = dict(connection.execute(query))
    for statement in view.ddl:
        connection.execute(statement)
    return {name: kind for name, kind in connection.execute(query) if name not in before}


def _check_row_view(log: LogFile, scratch: Scratch, replay: Replay, view: RowView, filled_to: int) -> None:
    """Compare what was found of a view's rows on the way, first the numbers for names, which were taken from the file there."""
    forms = table_forms(view)
    for form in forms:
        if form.name == view.names_table:
            _check_rows(log, scratch, form)
    for place in (view.name, *(form.name for form in forms)):
        if place in replay.wrong_rows:
            raise RowDiffersError(replay.wrong_rows[place], remedy=VIEW_REMEDY)
    for form in forms:
        if form.name == view.names_table:
            continue
        (count,) = log.database.connection.execute(
            f'SELECT count(*) FROM main."{form.name}"'  # noqa: S608 - the view's own name
        ).fetchone()
        if count != replay.row_counts[form.name]:
            _name_row_too_many(log, replay, view, filled_to, form)
            raise RowDiffersError(
                f"{form.name} has {count} rows, and the entries call for {replay.row_counts[form.name]}",
                remedy=VIEW_REMEDY,
            )


def _name_row_too_many(log: LogFile, replay: Replay, view: RowView, filled_to: int, form: TableForm) -> None:
    """Find a row that no entry calls for, by deriving the rows of entry after entry once more.

    Raises:
        RowDiffersError: There it is.
    """
    entry_column = next((name for name in ENTRY_COLUMNS if name in form.columns), None)
    if entry_column is None:
        return
    place = form.columns.index(entry_column)
    stored = log.database.connection.execute(
        f'SELECT * FROM main."{form.name}" ORDER BY "{entry_column}"'  # noqa: S608 - the view's own names
    )
    with contextlib.closing(sqlite3.connect(log.database.read_only_uri(), uri=True)) as connection:
        comparer = RowComparer(connection, [(view, filled_to)])
        for index, rows in itertools.groupby(stored, key=lambda row: row[place]):
            record = replay.record(index) if type(index) is int else None
            expected = set() if record is None else set(comparer.rows(form.name, record))
            for row in rows:
                if row not in expected:
                    raise differing_row(form.name, form.columns, form.keys, None, row)


def _check_rows(log: LogFile, scratch: Scratch, form: TableForm) -> None:
    """Compare the rows of a view's table one by one, in the order of their keys.

    The order is asked for: a scan of a table without row numbers may follow an index that has all its columns.
    """
    table, columns, keys = form.name, form.columns, form.keys
    quoted = table.replace('"', '""')
    order = ",".join('"' + name.replace('"', '""') + '"' for name in keys) or "rowid"
    query = f'SELECT * FROM main."{quoted}" ORDER BY {order}'  # noqa: S608 - the names are this program's own
    derived = scratch.connection.execute(query)
    stored = log.database.connection.execute(query)
    places = [columns.index(name) for name in keys]
    for ours, theirs in _pairs(derived, stored):
        if ours == theirs:
            continue
        one, other = ([row[place] for place in places] if row else None for row in (ours, theirs))
        if one is None or other is None or one == other:
            raise differing_row(table, columns, keys, ours, theirs)
        comes_first = _sort_key(one) < _sort_key(other)  # that one stands on one side only
        raise differing_row(
            table, columns, keys, ours if comes_first else None, None if comes_first else theirs
        )


def _sort_key(values: Sequence[object]) -> list[tuple[int, object]]:
    """Key that sorts values of any type as SQLite does: numbers, then text, then bytes."""
    kinds: tuple[tuple[type, ...], ...] = ((int, float), (str,), (bytes,))
    return [
        (next((place for place, kind in enumerate(kinds) if isinstance(value, kind)), -1), value)
        for value in values
    ]


def _pairs(
    ours: sqlite3.Cursor, theirs: sqlite3.Cursor
) -> Iterator[tuple[tuple[object, ...] | None, tuple[object, ...] | None]]:
    """Rows side by side, but only where chunks differ; None where one side has ended."""
    while True:
        one, other = ours.fetchmany(FETCH_COUNT), theirs.fetchmany(FETCH_COUNT)
        if not one and not other:
            return
        if one != other:
            yield from _side_by_side(one, other)


def _side_by_side(
    one: Sequence[tuple[object, ...]], other: Sequence[tuple[object, ...]]
) -> Iterable[tuple[tuple[object, ...] | None, tuple[object, ...] | None]]:
    count = max(len(one), len(other))
    padded = ([*rows, *[None] * (count - len(rows))] for rows in (one, other))
    return zip(*padded, strict=True)
