"""Query tables over the ledger's entries: runs, what they read and reached, artefacts, reuse, flags, lineage.

Filled before they are asked, rebuilt from the entries when this file's versions change. Only what entries say is here; what
lies in manifests (file names, parameters) is in the local index instead.

``view_work`` answers "which runs on this data reached this metric, cheapest first" as one range scan: one row per
(data digest, metric), ordered by energy; whole millijoules and small numbers for names keep a row short. Fingerprints are indexed
by their first bytes, see `is_digest`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lichen.contracts.registry import fingerprints
from lichen.encoding.base import b64u_decode
from lichen.encoding.canonical import INTEGER_MAX

if TYPE_CHECKING:
    import sqlite3

    from lichen.ledger.ports import Record, View

__all__ = [
    "ANY_METRIC",
    "ArtefactsView",
    "MembersView",
    "ReuseView",
    "RunsView",
    "default_views",
    "is_digest",
    "is_digest_between",
]

TableRow = tuple[str, tuple[Any, ...]]
"""Name of a table, and the values of a row of it."""

IdOf = Callable[[str | bytes], int]
"""Gives the number that stands for a name."""

_metrics_text = json.JSONEncoder(separators=(",", ":")).encode

ANY_METRIC = 0
"""Metric id under which every run on some data stands, whatever it reported."""


def is_digest(column: str, parameter: str) -> str:
    """Condition that a column of ``view_run`` holds a digest; its index has the first 8 bytes, which keeps it a third as large.

    Args:
        column: ``exact``, ``same_work`` or ``command``, qualified where needed.
        parameter: Numbered parameter that holds 32 bytes, such as ``?1``.
    """
    return f"(substr({column}, 1, 8) = substr({parameter}, 1, 8) AND {column} = {parameter})"


def is_digest_between(column: str, low: str, high: str) -> str:
    """The same for a digest between two bounds, both included."""
    return (
        f"(substr({column}, 1, 8) BETWEEN substr({low}, 1, 8) AND substr({high}, 1, 8)"
        f" AND {column} BETWEEN {low} AND {high})"
    )


class _Names:
    """Small numbers that stand for metric names and data digests, looked up once per batch."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[str | bytes, int] = {}

    def id_of(self, name: str | bytes) -> int:
        """Return the number of a name; a new one when it has none."""
        known = self._known.get(name)
        if known is None:
            row = self._connection.execute("SELECT id FROM view_name WHERE name = ?", (name,)).fetchone()
            if row is None:
                row = self._connection.execute(
                    "INSERT INTO view_name (name) VALUES (?) RETURNING id", (name,)
                ).fetchone()
            known = self._known[name] = int(row[0])
        return known


class RunsView:
    """One row per run, one per (data, metric) pair, one per output file."""

    name = "runs"
    version = 2
    names_table = "view_name"
    kinds = frozenset({"run"})
    ddl: Sequence[str] = (
        """CREATE TABLE IF NOT EXISTS view_run (
            idx INTEGER PRIMARY KEY, member TEXT NOT NULL, status TEXT NOT NULL, reusable INTEGER NOT NULL, reason TEXT,
            time_unix_ms INTEGER NOT NULL, command BLOB NOT NULL, family BLOB NOT NULL, code BLOB NOT NULL, data BLOB NOT NULL,
            exact BLOB NOT NULL, same_work BLOB NOT NULL, energy_joules REAL NOT NULL, relative_u95 REAL NOT NULL,
            duration_seconds REAL NOT NULL, method TEXT NOT NULL, boundary TEXT NOT NULL, zone TEXT, exit_status INTEGER,
            manifest TEXT NOT NULL, metrics TEXT NOT NULL) STRICT""",
        "CREATE INDEX IF NOT EXISTS view_run_exact ON view_run (substr(exact, 1, 8))",
        "CREATE INDEX IF NOT EXISTS view_run_same_work ON view_run (substr(same_work, 1, 8))",
        "CREATE INDEX IF NOT EXISTS view_run_command ON view_run (substr(command, 1, 8))",
        "CREATE INDEX IF NOT EXISTS view_run_family ON view_run (family, idx)",
        "CREATE TABLE IF NOT EXISTS view_name (id INTEGER PRIMARY KEY, name ANY NOT NULL UNIQUE) STRICT",
        """CREATE TABLE IF NOT EXISTS view_work (
            data_id INTEGER NOT NULL, metric_id INTEGER NOT NULL, energy_millijoules INTEGER NOT NULL, idx INTEGER NOT NULL,
            value REAL NOT NULL, PRIMARY KEY (data_id, metric_id, energy_millijoules, idx)) STRICT, WITHOUT ROWID""",
        """CREATE TABLE IF NOT EXISTS view_output (
            sha256 BLOB NOT NULL, idx INTEGER NOT NULL, name TEXT NOT NULL,
            PRIMARY KEY (sha256, idx, name)) STRICT, WITHOUT ROWID""",
    )

    def insert(self, connection: sqlite3.Connection, record: Record) -> None:
        """Add a run."""
        self.insert_many(connection, [record])

    def insert_many(self, connection: sqlite3.Connection, records: Sequence[Record]) -> None:
        """Add runs, each table's rows together."""
        id_of = _Names(connection).id_of
        runs, outputs, work = [], [], []
        for record in records:
            runs.append(_run_row(record))
            outputs += _output_rows(record)
            work += _work_rows(record, id_of)
        marks = ",".join("?" * len(runs[0]))
        connection.executemany(f"INSERT INTO view_run VALUES ({marks})", runs)  # noqa: S608 - question marks
        connection.executemany("INSERT OR IGNORE INTO view_output VALUES (?,?,?)", sorted(outputs))
        connection.executemany("INSERT OR IGNORE INTO view_work VALUES (?,?,?,?,?)", sorted(work))

    def rows(self, record: Record, id_of: IdOf) -> list[TableRow]:
        """See `lichen.ledger.ports.RowView.rows`."""
        outputs = [("view_output", row) for row in _output_rows(record)]
        work = [("view_work", row) for row in _work_rows(record, id_of)]
        return [("view_run", _run_row(record)), *outputs, *work]


def _run_row(record: Record) -> tuple[Any, ...]:
    said = record.predicate
    parts: Mapping[str, str] = said["parts"]
    energy: Mapping[str, Any] = said["energy"]
    exact, same_work = fingerprints(parts)
    return (
        record.place, record.member, said["status"], int(said["reusable"]), said.get("reason"),
        said["time_unix_ms"], b64u_decode(parts["command"]), b64u_decode(said["family"]),
        b64u_decode(parts["code"]), b64u_decode(parts["data"]), exact, same_work, float(energy["joules"]), float(energy["u95"]), float(energy["seconds"]),
        energy["method"], energy["boundary"], energy.get("zone"), said.get("exit_status"), said["manifest"],
        _metrics_text(said["metrics"]),
    )  # fmt: skip


def _output_rows(record: Record) -> list[tuple[bytes, int, str]]:
    return [
        (subject.sha256, record.place, subject.name)
        for subject in record.statement.subjects
        if subject.name not in ("manifest", "outputs")
    ]


def _work_rows(record: Record, id_of: IdOf) -> list[tuple[int, int, int, int, float]]:
    """One row per data file and metric; unfinished work has no metric that counts."""
    said = record.predicate
    metrics: Mapping[str, float] = said["metrics"] if said["status"] in ("trained", "missed") else {}
    millijoules, place = min(round(said["energy"]["joules"] * 1_000), INTEGER_MAX), record.place
    values = [(ANY_METRIC, 0.0), *((id_of(name), float(value)) for name, value in metrics.items())]
    return [
        (data_id, metric_id, millijoules, place, value)
        for data_id in [id_of(b64u_decode(digest)) for digest in said["data"]]
        for metric_id, value in values
    ]


class ArtefactsView:
    """Published data, models and evaluations, what was said against entries, and what was withdrawn."""

    name = "artefacts"
    version = 1
    names_table = None
    kinds = frozenset({"data", "model", "evaluation", "flag", "withdraw", "dispute"})
    ddl: Sequence[str] = (
        """CREATE TABLE IF NOT EXISTS view_artefact (
            idx INTEGER PRIMARY KEY, kind TEXT NOT NULL, member TEXT NOT NULL, name TEXT NOT NULL, cid TEXT,
            sha256 BLOB NOT NULL, time_unix_ms INTEGER NOT NULL, energy_joules REAL, method TEXT, run INTEGER, of INTEGER,
            metrics TEXT NOT NULL) STRICT""",
        "CREATE INDEX IF NOT EXISTS view_artefact_sha256 ON view_artefact (sha256)",
        "CREATE INDEX IF NOT EXISTS view_artefact_cid ON view_artefact (cid)",
        "CREATE INDEX IF NOT EXISTS view_artefact_run ON view_artefact (run)",
        "CREATE INDEX IF NOT EXISTS view_artefact_of ON view_artefact (of)",
        """CREATE TABLE IF NOT EXISTS view_edge (
            child INTEGER NOT NULL, parent INTEGER NOT NULL, relation TEXT NOT NULL,
            PRIMARY KEY (child, parent, relation)) STRICT, WITHOUT ROWID""",
        "CREATE INDEX IF NOT EXISTS view_edge_parent ON view_edge (parent)",
        """CREATE TABLE IF NOT EXISTS view_flag (
            idx INTEGER PRIMARY KEY, target INTEGER NOT NULL, kind TEXT NOT NULL, member TEXT NOT NULL, said TEXT NOT NULL) STRICT""",
        "CREATE INDEX IF NOT EXISTS view_flag_target ON view_flag (target)",
        """CREATE TABLE IF NOT EXISTS view_withdrawn (
            target INTEGER PRIMARY KEY, idx INTEGER NOT NULL, reason TEXT NOT NULL) STRICT""",
    )

    def insert(self, connection: sqlite3.Connection, record: Record) -> None:
        """Add a published artefact, a flag, a withdrawal or a dispute."""
        _insert_rows(connection, self.rows(record, _no_names))

    def rows(self, record: Record, _: IdOf) -> list[TableRow]:
        """See `lichen.ledger.ports.RowView.rows`."""
        said = record.predicate
        if record.kind in ("flag", "dispute"):
            text = json.dumps({key: said[key] for key in said if key not in _COMMON}, ensure_ascii=False)
            return [("view_flag", (record.place, said["of"], record.kind, record.member, text))]
        if record.kind == "withdraw":
            return [("view_withdrawn", (said["of"], record.place, said.get("reason", "")))]
        return [("view_artefact", _artefact_row(record)), *_edges(record)]


def _artefact_row(record: Record) -> tuple[Any, ...]:
    said = record.predicate
    energy: Mapping[str, Any] = said.get("energy") or {}
    subject = record.statement.subjects[0]
    return (
        record.place, record.kind, record.member, said.get("title") or subject.name, said.get("cid"),
        subject.sha256, said["time_unix_ms"], energy.get("joules"), energy.get("method"), said.get("run"),
        said.get("of"), _metrics_text(said.get("metrics", {})),
    )  # fmt: skip


def _edges(record: Record) -> list[TableRow]:
    said = record.predicate
    edges = [(int(said[relation]), relation) for relation in ("run", "base", "of") if relation in said]
    edges += [(int(parent), "data") for parent in said.get("data", ())]
    return [("view_edge", (record.place, *edge)) for edge in dict.fromkeys(edges)]


class ReuseView:
    """Answers taken from the ledger instead of training again."""

    name = "reuse"
    version = 1
    names_table = None
    kinds = frozenset({"reuse"})
    ddl: Sequence[str] = (
        """CREATE TABLE IF NOT EXISTS view_reuse (
            idx INTEGER PRIMARY KEY, target INTEGER NOT NULL, member TEXT NOT NULL, time_unix_ms INTEGER NOT NULL,
            level TEXT NOT NULL, avoided_joules REAL NOT NULL, avoided_u95 REAL NOT NULL) STRICT""",
        "CREATE INDEX IF NOT EXISTS view_reuse_target ON view_reuse (target)",
    )

    def insert(self, connection: sqlite3.Connection, record: Record) -> None:
        """Add a hit; without ``avoided`` it booked nothing."""
        _insert_rows(connection, self.rows(record, _no_names))

    def rows(self, record: Record, _: IdOf) -> list[TableRow]:
        """See `lichen.ledger.ports.RowView.rows`."""
        said = record.predicate
        avoided_joules = float(said["avoided_joules"]) if said["credit"] else 0.0
        row = (
            record.place, said["of"], record.member, said["time_unix_ms"], said.get("level", "exact"),
            avoided_joules, float(said["avoided_u95"]),
        )  # fmt: skip
        return [("view_reuse", row)]


class MembersView:
    """Whom the members contract was asked about."""

    name = "members"
    version = 1
    names_table = None
    kinds = frozenset({"member"})
    ddl: Sequence[str] = (
        "CREATE TABLE IF NOT EXISTS view_member (idx INTEGER PRIMARY KEY, member TEXT NOT NULL, action TEXT NOT NULL) STRICT",
    )

    def insert(self, connection: sqlite3.Connection, record: Record) -> None:
        """Add an action on a member."""
        _insert_rows(connection, self.rows(record, _no_names))

    def rows(self, record: Record, _: IdOf) -> list[TableRow]:
        """See `lichen.ledger.ports.RowView.rows`."""
        said = record.predicate
        return [("view_member", (record.place, said["subject_member"], said["action"]))]


def _insert_rows(connection: sqlite3.Connection, rows: Iterable[TableRow]) -> None:
    """Add rows; what was withdrawn before stays withdrawn by the entry that said so first."""
    for table, row in rows:
        either = "OR IGNORE " if table == "view_withdrawn" else ""
        marks = ",".join("?" * len(row))
        connection.execute(f"INSERT {either}INTO {table} VALUES ({marks})", row)  # noqa: S608 - names of this file


def _no_names(name: str | bytes) -> int:
    raise KeyError(name)


_COMMON = ("ledger", "member", "nonce", "time_unix_ms", "of")


def default_views() -> tuple[View, ...]:
    """Return the views every ledger is opened with."""
    return (RunsView(), ArtefactsView(), ReuseView(), MembersView())
