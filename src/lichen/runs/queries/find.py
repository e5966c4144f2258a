"""Search the record: by fingerprint, data, metric, file, author; cheapest, newest or best first."""

from __future__ import annotations

import itertools
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lichen.errors import NotFoundError, UsageError
from lichen.runs.queries.views import ANY_METRIC, is_digest_between
from lichen.runs.records.plausible_metrics import implausible_metrics
from lichen.runs.records.record import data_key

if TYPE_CHECKING:
    import sqlite3

    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Found", "MetricBound", "Query", "file_digest", "find", "parse_metric_bound"]

_RUN_COLUMNS = (
    "idx, member, time_unix_ms, status, reusable, reason, energy_joules, relative_u95, duration_seconds, method, "
    "boundary, metrics, exact, manifest"
)


_KNOWN_TOGETHER = 64  # runs whose manifests are asked for at a time
_KINDS = ("run", "data", "model", "evaluation")


@dataclass(frozen=True)
class MetricBound:
    """A metric, with a bound or without.

    Args:
        name: Of the metric.
        comparison: ``>=``, ``<=``, ``>``, ``<``, ``=`` or empty.
        bound: The bound; 0 when there is none.
    """

    name: str
    comparison: str = ""
    bound: float = 0.0

    def admits(self, value: float) -> bool:
        """Say whether a value is within the bound; without one every value is."""
        return not self.comparison or _COMPARISONS[self.comparison](value, self.bound)

    @property
    def smaller_is_better(self) -> bool:
        """Whether the bound is an upper one, as for a loss."""
        return self.comparison.startswith("<")


_COMPARISONS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq,
}  # fmt: skip


def parse_metric_bound(text: str) -> MetricBound:
    """Read ``accuracy``, ``accuracy>=0.9``, ``loss<0.1`` or ``depth=4``; ``==`` says the same as ``=``.

    Raises:
        UsageError: Not of that form.
    """
    match = re.fullmatch(
        r"\s*([A-Za-z_][\w./@-]*)\s*(?:(>=|<=|==|>|<|=)\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?))?\s*",
        text,
    )
    if match is None:
        raise UsageError(
            f"--metric {text!r} is not NAME, or NAME, a comparison and a number",
            remedy="For example: accuracy, 'accuracy>=0.9', 'loss<0.1' or 'depth=4'; a shell wants quotes around < and >.",
        )
    comparison = "=" if match[2] == "==" else match[2] or ""
    return MetricBound(match[1], comparison, float(match[3] or 0))


@dataclass(frozen=True)
class Query:
    """What is searched for; conditions add up.

    Args:
        fingerprint: Hexadecimal, or its beginning (eight digits at least): exact or same-work.
        data: File or directory that runs read, or a SHA-256 of 64 hexadecimal digits.
        metric: Metric that runs reported.
        file: Path of a file, or its SHA-256 in hexadecimal: what is this file?
        member: Author.
        words: Text in the command line or parameters, where manifests are at hand.
        kind: ``run``, ``data``, ``model`` or ``evaluation``; every kind when None.
        order: ``energy``, ``newest`` or ``metric``.
        limit: Most results.
        with_failed: Include failed and interrupted runs.
    """

    fingerprint: str | None = None
    data: Path | None = None
    metric: MetricBound | None = None
    file: str | None = None
    member: str | None = None
    words: str | None = None
    kind: str | None = None
    order: str = "newest"
    limit: int = 20
    with_failed: bool = False


@dataclass(frozen=True)
class Found:
    """One search result.

    Args:
        index: Place in the ledger.
        kind: Kind of record.
        member: Author.
        time_unix_ms: Claimed time.
        title: Command line or name, as far as known here.
        status: Of a run.
        reusable: Of a run.
        energy_joules: Cost, when stated.
        energy_relative_u95: Its relative uncertainty, 95 %.
        method: How it was measured.
        metrics: Value by name.
        cid: Of a published artefact.
        sha256: Hexadecimal digest: of the artefact, or the run's exact fingerprint.
        withdrawn: Whether its author withdrew it.
        flag_count: How many flags and disputes stand against it.
    """

    index: int
    kind: str
    member: str
    time_unix_ms: int
    title: str
    status: str | None
    reusable: bool | None
    energy_joules: float | None
    energy_relative_u95: float | None
    method: str | None
    metrics: Mapping[str, float]
    cid: str | None
    sha256: str
    withdrawn: bool
    flag_count: int
    parameters: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the result as a table for JSON."""
        return {name: value for name, value in self.__dict__.items() if value is not None}


def find(workspace: Workspace, query: Query) -> list[Found]:
    """Search the record.

    Args:
        workspace: The ledger.
        query: What is searched for.

    Returns:
        At most ``query.limit`` results, ordered as asked.

    Raises:
        UsageError: The query makes no sense.
        NotFoundError: A path in the query does not exist.
    """
    if query.order not in ("energy", "newest", "metric"):
        raise UsageError(f"--order {query.order!r} is none of energy, newest, metric")
    if query.order == "metric" and query.metric is None:
        raise UsageError("--order metric needs --metric NAME")
    if query.kind not in (None, *_KINDS):
        raise UsageError(f"find knows no kind {query.kind!r}", remedy=f"Choose from {', '.join(_KINDS)}.")
    if query.limit < 1:
        raise UsageError(f"a limit of {query.limit} leaves nothing to find", remedy="Give 1 or more.")
    found: list[Found] = []
    if query.kind in (None, "run"):
        found += _find_runs(workspace, query)
    wants_artefacts = query.fingerprint is None and query.words is None
    if query.kind in (None, "data", "model", "evaluation") and wants_artefacts:
        found += _find_artefacts(workspace, query)
    return _ordered(found, query)[: query.limit]


def _ordered(found: list[Found], query: Query) -> list[Found]:
    if query.order == "energy":
        return sorted(
            found, key=lambda item: (item.energy_joules is None, item.energy_joules or 0.0, item.index)
        )
    if query.order == "metric" and query.metric is not None:
        name, smaller_is_better = query.metric.name, query.metric.smaller_is_better
        sign = 1 if smaller_is_better else -1
        return sorted(
            found,
            key=lambda item: (
                _is_implausible(item, name),
                sign * item.metrics.get(name, sign * float("inf")),
            ),
        )
    return sorted(found, key=lambda item: -item.index)


def _is_implausible(item: Found, name: str) -> bool:
    """Say whether a metric was declared and cannot be true; what runs reported is theirs to name as they like."""
    return (
        item.kind != "run" and name in item.metrics and bool(implausible_metrics({name: item.metrics[name]}))
    )


def _find_runs(workspace: Workspace, query: Query) -> list[Found]:
    connection = workspace.ledger.connection
    tables, conditions, values = "view_run", ["1"], list[object]()
    order = "view_run.energy_joules, view_run.idx" if query.order == "energy" else "view_run.idx DESC"
    if query.data is not None:
        data_id = _data_id(workspace, query.data)
        metric_id = _name_id(connection, query.metric.name) if query.metric else ANY_METRIC
        if data_id is None or metric_id is None:
            return []
        tables = "view_work CROSS JOIN view_run ON view_run.idx = view_work.idx"
        conditions += ["view_work.data_id = ?", "view_work.metric_id = ?"]
        values += [data_id, metric_id]
        if query.metric is not None:
            if query.metric.comparison:
                conditions.append(f"view_work.value {query.metric.comparison} ?")
                values.append(query.metric.bound)
            if query.order == "metric":
                order = "view_work.value" if query.metric.smaller_is_better else "view_work.value DESC"
        if query.order == "energy":
            order = "view_work.energy_millijoules, view_work.idx"
    if query.fingerprint is not None:
        low, high = _prefix_range(query.fingerprint)
        bounds = f"?{len(values) + 1}", f"?{len(values) + 2}"
        either = (is_digest_between(f"view_run.{column}", *bounds) for column in ("exact", "same_work"))
        conditions.append(f"({' OR '.join(either)})")
        values += [low, high]
    if query.file is not None:
        conditions.append("view_run.idx IN (SELECT idx FROM view_output WHERE sha256 = ?)")
        values.append(file_digest(workspace, query.file))
    if query.member is not None:
        conditions.append("view_run.member = ?")
        values.append(query.member)
    if not query.with_failed:
        conditions.append("view_run.status IN ('trained', 'missed')")
    columns = ", ".join(f"view_run.{name.strip()}" for name in _RUN_COLUMNS.split(","))
    sql = f"SELECT {columns} FROM {tables} WHERE {' AND '.join(conditions)} ORDER BY {order}"  # noqa: S608 - constants only
    scanned_in_python = query.words is not None or (query.metric is not None and query.data is None)
    if not scanned_in_python:
        sql += " LIMIT ?"
        values.append(query.limit)
    found: list[Found] = []
    for row in _known_beforehand(workspace, connection.execute(sql, values)):
        item = _found_run(workspace, row)
        if query.metric is not None and not query.metric.admits(
            item.metrics.get(query.metric.name, float("nan"))
        ):
            continue
        if query.metric is not None and query.metric.name not in item.metrics:
            continue
        if query.words is not None and query.words.lower() not in item.title.lower():
            continue
        found.append(item)
        if len(found) >= query.limit and query.order != "metric":
            break
    return found


def _known_beforehand(workspace: Workspace, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield rows of runs, some at a time, whose manifests are brought here together."""
    while some := list(itertools.islice(rows, _KNOWN_TOGETHER)):
        workspace.index.take_in([int(row[0]) for row in some])
        yield from some


def _found_run(workspace: Workspace, row: tuple[Any, ...]) -> Found:
    index = int(row[0])
    known = workspace.index.known_run(index)
    return Found(
        index=index,
        kind="run",
        member=row[1],
        time_unix_ms=row[2],
        title=known.title if known else "(manifest not at hand)",
        status=row[3],
        reusable=bool(row[4]),
        energy_joules=row[6],
        energy_relative_u95=row[7],
        method=row[9],
        metrics=json.loads(row[11]),
        cid=None,
        sha256=row[12].hex(),
        withdrawn=_is_withdrawn(workspace, index),
        flag_count=_flag_count(workspace, index),
        parameters=known.parameters if known else {},
    )


def _find_artefacts(workspace: Workspace, query: Query) -> list[Found]:
    conditions, values = ["1"], list[object]()
    if query.kind is not None:
        conditions.append("kind = ?")
        values.append(query.kind)
    if query.file is not None:
        conditions.append("sha256 = ?")
        values.append(file_digest(workspace, query.file))
    if query.member is not None:
        conditions.append("member = ?")
        values.append(query.member)
    if query.data is not None:
        conditions.append(
            "(sha256 = ? OR idx IN (SELECT child FROM view_edge JOIN view_artefact AS origin ON origin.idx = view_edge.parent "
            "WHERE relation = 'data' AND origin.sha256 = ?))"
        )
        values += [_data_digest(workspace, query.data)] * 2
    order = "energy_joules IS NULL, energy_joules, idx" if query.order == "energy" else "idx DESC"
    sql = (
        "SELECT idx, kind, member, time_unix_ms, name, energy_joules, method, metrics, cid, sha256 FROM view_artefact "  # noqa: S608 - constants only
        f"WHERE {' AND '.join(conditions)} ORDER BY {order}"
    )
    found: list[Found] = []
    for row in workspace.ledger.connection.execute(sql, values):
        metrics = json.loads(row[7])
        if query.metric is not None and (
            query.metric.name not in metrics or not query.metric.admits(metrics[query.metric.name])
        ):
            continue
        found.append(
            Found(
                index=int(row[0]), kind=row[1], member=row[2], time_unix_ms=row[3], title=row[4], status=None,
                reusable=None, energy_joules=row[5], energy_relative_u95=None, method=row[6], metrics=metrics, cid=row[8],
                sha256=row[9].hex(), withdrawn=_is_withdrawn(workspace, int(row[0])),
                flag_count=_flag_count(workspace, int(row[0])),
            )
        )  # fmt: skip
        if len(found) >= query.limit and query.order != "metric":
            break
    return found


def _name_id(connection: sqlite3.Connection, name: object) -> int | None:
    row = connection.execute("SELECT id FROM view_name WHERE name = ?", (name,)).fetchone()
    return int(row[0]) if row else None


def _data_id(workspace: Workspace, path: Path) -> int | None:
    return _name_id(workspace.ledger.connection, data_key(_data_digest(workspace, path), workspace.group_key))


def _data_digest(workspace: Workspace, path: Path) -> bytes:
    """Return the digest of a file, or of the largest file of a directory: entries name the largest files of a run."""
    if path.is_dir():
        files = [file for file in path.rglob("*") if file.is_file()]
        if not files:
            raise NotFoundError(f"{path} holds no file")
        path = max(files, key=lambda file: (file.stat().st_size, str(file)))
    if not path.exists() and re.fullmatch(r"[0-9a-f]{64}", str(path)):
        return bytes.fromhex(str(path))
    if not path.is_file():
        raise NotFoundError(
            f"{path} does not exist", remedy="Name a file, a directory with files, or a SHA-256."
        )
    return workspace.digests.digest_file(path)


def file_digest(workspace: Workspace, text: str) -> bytes:
    """Digest of a file, or the digest that the text itself is.

    Args:
        workspace: For its cache of digests.
        text: Path of a file, or 64 hexadecimal digits.

    Raises:
        NotFoundError: It is neither.
    """
    if Path(text).is_file():
        return workspace.digests.digest_file(Path(text))
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return bytes.fromhex(text)
    raise NotFoundError(
        f"{text} is neither a file nor a SHA-256 of 64 hexadecimal digits",
        remedy="Name one file; a directory is looked for by --data.",
    )


def _prefix_range(prefix: str) -> tuple[bytes, bytes]:
    if not re.fullmatch(r"[0-9a-f]{8,64}", prefix):
        raise UsageError(
            f"{prefix!r} is no fingerprint", remedy="Give at least eight hexadecimal digits of it."
        )
    return bytes.fromhex(prefix.ljust(64, "0")), bytes.fromhex(prefix.ljust(64, "f"))


def _is_withdrawn(workspace: Workspace, index: int) -> bool:
    row = workspace.ledger.connection.execute(
        "SELECT 1 FROM view_withdrawn WHERE target = ?", (index,)
    ).fetchone()
    return row is not None


def _flag_count(workspace: Workspace, index: int) -> int:
    row = workspace.ledger.connection.execute(
        "SELECT COUNT(*) FROM view_flag WHERE target = ?", (index,)
    ).fetchone()
    return int(row[0])
