"""The state map in an SQLite file: the fast twin of :class:`lichen.ledger.state_map.StateMap`.

Rules upheld:

* The map changes once per seal, inside the caller's transaction; a version is the index of the seal that commits to it.
* The last 16 versions can be proved against. Only the newest is stored; an earlier one is the newest with the changes
  since taken back in memory. Older ones are had by replaying entries.
* What is remembered between calls is used only while version *and* root in the file are still those it belongs to, so
  neither another process nor a transaction that was undone can make it stale.
* A proof is checked against the root before it is handed out.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Iterator, Mapping
from typing import Final

from lichen.errors import CorruptLedgerError, NotFoundError, UsageError
from lichen.ledger.state_bucket import Bucket, damaged
from lichen.ledger.state_check import check_pieces
from lichen.ledger.state_map import (
    EMPTY_STATE_ROOT,
    MapProof,
    check_write,
    verify_absence,
    verify_membership,
)
from lichen.ledger.state_nodes import OverlayNodes
from lichen.ledger.state_tree import Change, StateTree

__all__ = ["STATE_SCHEMA", "VERSION_COUNT_KEPT", "StateStore", "rebuild_pieces"]

VERSION_COUNT_KEPT = 16
REBUILT_BUCKET_COUNT = 512  # buckets taken over at a time
CACHED_TILE_COUNT = 8_192  # in each of two generations (= 16 MiB)
CACHED_BUCKET_COUNT = 4_096  # in each of two generations (= 20 MiB, usually less)

STATE_SCHEMA: Final = (
    "CREATE TABLE IF NOT EXISTS state_tiles(node INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS state_buckets(node INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",
    "CREATE TABLE IF NOT EXISTS state_versions(version INTEGER PRIMARY KEY, root BLOB NOT NULL, undo BLOB NOT NULL)"
    " STRICT",
)
"""Statements that make the tables, for whoever owns the file."""

_UNDO_HEAD = struct.Struct(">32sH")


class _Pieces:
    """Rows of one table of pieces: read one at a time and kept in memory for a while, changed all at once.

    What is in memory are two generations: when the younger is full it becomes the older one, and what is asked for again moves
    up. So what a look-up read is still there when the seal behind it changes the same piece.

    Args:
        connection: To the database.
        table: ``state_tiles`` or ``state_buckets``.
        count_max: Pieces in a generation.
    """

    def __init__(self, connection: sqlite3.Connection, table: str, count_max: int) -> None:
        self._connection = connection
        self._select = f"SELECT data FROM {table} WHERE node=?"  # noqa: S608 - the two names are in this file
        self._replace = f"INSERT OR REPLACE INTO {table} VALUES(?,?)"
        self._delete = f"DELETE FROM {table} WHERE node=?"  # noqa: S608 - the same
        self._count_max = count_max
        self.forget()

    def forget(self) -> None:
        """Drop what is in memory, changes included."""
        self._young: dict[int, bytes | None] = {}
        self._old: dict[int, bytes | None] = {}
        self._changed: dict[int, bytes | None] = {}

    def get(self, node: int) -> bytes | None:
        """Return the piece of a node, or None."""
        young = self._young
        if node in young:
            return young[node]
        for pieces in (self._changed, self._old):
            if node in pieces:
                return self._keep(node, pieces[node])
        row = self._connection.execute(self._select, (node,)).fetchone()
        return self._keep(node, None if row is None else bytes(row[0]))

    def put(self, node: int, data: bytes | None) -> None:
        """Change a piece, or remove it when there is no data; the row follows with `flush`."""
        if len(self._changed) >= self._count_max:
            self.flush()
        self._changed[node] = data
        self._keep(node, data)

    def flush(self) -> None:
        """Write what changed to the table, in its order: neighbouring rows share pages."""
        changed, self._changed = self._changed, {}
        rows = sorted([(node, data) for node, data in changed.items() if data is not None])
        self._connection.executemany(self._replace, rows)
        if len(rows) < len(changed):
            removed = sorted([(node,) for node, data in changed.items() if data is None])
            self._connection.executemany(self._delete, removed)

    def _keep(self, node: int, data: bytes | None) -> bytes | None:
        if len(self._young) >= self._count_max:
            self._old, self._young = self._young, {}
        self._young[node] = data
        return data


class _SqliteNodes:
    """Pieces as rows, some of them kept in memory; what is put is in the tables after `flush`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._tiles = _Pieces(connection, "state_tiles", CACHED_TILE_COUNT)
        self._buckets = _Pieces(connection, "state_buckets", CACHED_BUCKET_COUNT)
        self.tile, self.bucket = self._tiles.get, self._buckets.get
        self.put_tile, self.put_bucket = self._tiles.put, self._buckets.put

    def forget(self) -> None:
        """Drop what is in memory."""
        self._tiles.forget()
        self._buckets.forget()

    def flush(self) -> None:
        """Write what changed to the tables."""
        self._tiles.flush()
        self._buckets.flush()


class StateStore:
    """The state of a ledger, on disk.

    Args:
        connection: Connection to a database that has the tables of :data:`STATE_SCHEMA`. Transactions are the
            caller's: nothing here begins or commits one.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._nodes = _SqliteNodes(connection)
        self._tree = StateTree(self._nodes)
        self._known: tuple[int, bytes] | None = None
        self._kept: list[int] = []

    @staticmethod
    def create_tables(connection: sqlite3.Connection) -> None:
        """Make the tables, if they are not there."""
        for statement in STATE_SCHEMA:
            connection.execute(statement)

    def __len__(self) -> int:
        self._refresh()
        return len(self._tree)

    @property
    def version(self) -> int | None:
        """Index of the seal that commits to the newest state; None before the first."""
        newest = self._refresh()
        return None if newest is None else newest[0]

    @property
    def root(self) -> bytes:
        """Root of the newest state, 32 bytes."""
        newest = self._refresh()
        return EMPTY_STATE_ROOT if newest is None else newest[1]

    def versions(self) -> dict[int, bytes]:
        """Return the versions that can be proved against, oldest first, with their roots."""
        rows = self._connection.execute("SELECT version, root FROM state_versions ORDER BY version")
        return {version: bytes(root) for version, root in rows}

    def get(self, key: bytes) -> bytes | None:
        """Return the newest value at a key, or None.

        Args:
            key: The key, 32 bytes.

        Raises:
            CorruptLedgerError: The stored state is damaged on the way to the key.
        """
        check_write(key, None)
        self._refresh()
        return self._tree.get(key)

    def get_known(self, key: bytes) -> bytes | None:
        """The same as of the last `refresh` or `update`: the file is not asked whether another process changed the state.

        Args:
            key: The key, 32 bytes.
        """
        return self._tree.get(key)

    def refresh(self) -> None:
        """Take over what another process, or a transaction that was undone, changed."""
        self._refresh()

    def update(self, version: int, writes: Mapping[bytes, bytes | None]) -> bytes:
        """Make a new version; the caller's transaction makes it durable.

        Args:
            version: Index of the seal that will commit to it, above the newest.
            writes: New values by key, None to remove one; may be empty.

        Returns:
            The new root, 32 bytes.

        Raises:
            EncodingError: A key or value cannot stand in the map; nothing has been changed then.
            UsageError: The version is not above the newest.
            CorruptLedgerError: The stored state is damaged where it is to be changed.
        """
        for key, value in writes.items():
            check_write(key, value)
        newest = self._refresh()
        if newest is not None and version <= newest[0]:
            raise UsageError(f"version {version} of the state does not follow version {newest[0]}")
        self._known = None  # until all of it is written, what is in memory belongs to no version
        undo = self._tree.apply(writes.items())
        root = self._tree.root()
        self._nodes.flush()
        execute = self._connection.execute
        execute("INSERT INTO state_versions VALUES(?,?,?)", (version, root, _packed(undo)))
        self._kept.append(version)
        while len(self._kept) > VERSION_COUNT_KEPT:
            execute("DELETE FROM state_versions WHERE version=?", (self._kept.pop(0),))
        self._known = (version, root)
        return root

    def prove(self, key: bytes, version: int | None = None) -> tuple[bytes | None, MapProof]:
        """Look a key up, with the proof of what was found.

        Args:
            key: The key, 32 bytes.
            version: One of :meth:`versions`; None for the newest.

        Returns:
            The value, or None; and the proof that this version's root commits to it.

        Raises:
            NotFoundError: The version is not kept.
            CorruptLedgerError: The stored state contradicts its root.
        """
        check_write(key, None)
        newest = self._refresh()
        if version is None or (newest is not None and version == newest[0]):
            tree, root = self._tree, EMPTY_STATE_ROOT if newest is None else newest[1]
        else:
            tree, root = self._earlier(version)
        value, proof = tree.prove(key)
        try:
            if value is None:
                verify_absence(root, key, proof)
            else:
                verify_membership(root, key, value, proof)
        except Exception as error:
            raise CorruptLedgerError(
                f"the stored state contradicts its root at key {key.hex()}",
                remedy="Restore the ledger from a copy; `lichen verify` shows how far its entries are sound.",
            ) from error
        return value, proof

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Walk over keys and newest values in the order of the keys."""
        self._refresh()
        return self._tree.items()

    def check(self) -> None:
        """Recompute every stored hash from keys and values, in time proportional to their number.

        Raises:
            CorruptLedgerError: A piece is missing, damaged or left over, or the pieces do not lead to the newest root.
        """
        newest = self._refresh()
        self._nodes.forget()  # what is checked is what is in the file
        found = check_pieces(self._nodes)
        expected = EMPTY_STATE_ROOT if newest is None else newest[1]
        if found.root != expected:
            raise CorruptLedgerError(
                "the stored state does not lead to its root",
                expected=expected,
                calculated=found.root,
                remedy="Restore the ledger from a copy; `lichen verify` shows how far its entries are sound.",
            )
        for table, count in (("state_tiles", found.tile_count), ("state_buckets", found.bucket_count)):
            (rows,) = self._connection.execute(f"SELECT count(*) FROM {table}").fetchone()  # noqa: S608 - constants
            if rows != count:
                raise damaged(f"{table} has {rows} rows, of which {count} belong to the state")

    def check_undo(self, roots: Mapping[int, bytes], before: bytes) -> None:
        """Take back the changes of one kept version after the other, and compare roots.

        Args:
            roots: Root of every version that must be kept, by version, oldest first; derived elsewhere.
            before: Root before the oldest of them.

        Raises:
            CorruptLedgerError: Other versions are kept, or what would be taken back does not lead to the version before.
        """
        self._refresh()
        kept = self.versions()
        if kept != dict(roots):
            raise damaged(f"the versions kept are {sorted(kept)}, with roots of their own")
        tree, versions = StateTree(OverlayNodes(self._nodes)), sorted(roots)
        for version, earlier in zip(reversed(versions), [*reversed(versions[:-1]), None], strict=True):
            (undo,) = self._connection.execute(
                "SELECT undo FROM state_versions WHERE version=?", (version,)
            ).fetchone()
            tree.apply(dict(_unpacked(undo)).items())
            if tree.root() != (before if earlier is None else roots[earlier]):
                raise damaged(f"the changes kept with version {version} do not lead to the one before")

    def _refresh(self) -> tuple[int, bytes] | None:
        """Read version and root in the file, and forget what belongs to others."""
        row = self._connection.execute(
            "SELECT version, root FROM state_versions ORDER BY version DESC LIMIT 1"
        ).fetchone()
        newest = None if row is None else (int(row[0]), bytes(row[1]))
        if newest != self._known or newest is None:
            self._nodes.forget()
            self._kept = list(self.versions())
            self._known = newest
        return newest

    def _earlier(self, version: int) -> tuple[StateTree, bytes]:
        """Take back in memory what changed since a version."""
        row = self._connection.execute(
            "SELECT root FROM state_versions WHERE version=?", (version,)
        ).fetchone()
        if row is None:
            raise NotFoundError(
                f"the state at seal {version} is no longer kept",
                remedy=f"The last {VERSION_COUNT_KEPT} seals can be proved against; replay the entries for older ones.",
            )
        values: dict[bytes, bytes | None] = {}
        since = self._connection.execute(
            "SELECT undo FROM state_versions WHERE version>? ORDER BY version", (version,)
        )
        for (undo,) in since.fetchall():
            for key, value in _unpacked(undo):
                values.setdefault(key, value)
        tree = StateTree(OverlayNodes(self._nodes))
        tree.apply(values.items())
        return tree, bytes(row[0])


def rebuild_pieces(connection: sqlite3.Connection) -> None:
    """Cut the newest state into the pieces of this program, where it was stored in others; versions stay.

    Args:
        connection: Inside a transaction; its tables are those of :data:`STATE_SCHEMA`, with other pieces in them.

    Raises:
        CorruptLedgerError: Keys and values do not lead to the newest root.
    """
    execute = connection.execute
    execute("ALTER TABLE state_buckets RENAME TO state_buckets_before")
    execute("DROP TABLE state_tiles")
    StateStore.create_tables(connection)
    nodes = _SqliteNodes(connection)
    tree, last = StateTree(nodes), -1
    while rows := execute(
        "SELECT node, data FROM state_buckets_before WHERE node>? ORDER BY node LIMIT ?",
        (last, REBUILT_BUCKET_COUNT),
    ).fetchall():
        tree.apply([item for _, data in rows for item in Bucket.from_bytes(data).items()])
        nodes.flush()
        last = rows[-1][0]
    execute("DROP TABLE state_buckets_before")
    row = execute("SELECT root FROM state_versions ORDER BY version DESC LIMIT 1").fetchone()
    if tree.root() != (EMPTY_STATE_ROOT if row is None else row[0]):
        raise damaged("its keys and values do not lead to its newest root")


def _packed(undo: list[Change]) -> bytes:
    """Write keys and earlier values one after another; length 0 means that the key was absent."""
    return b"".join([_UNDO_HEAD.pack(key, len(value or b"")) + (value or b"") for key, value in undo])


def _unpacked(data: bytes) -> Iterator[Change]:
    at = 0
    while at < len(data):
        if len(data) - at < _UNDO_HEAD.size:
            raise damaged("the changes of a version are cut short")
        key, length = _UNDO_HEAD.unpack_from(data, at)
        at += _UNDO_HEAD.size + length
        yield key, data[at - length : at] if length else None
