"""Where a result comes from and what came of it: data -> run -> model -> evaluation, and one run's output as another's input.

Edges follow content, not names: a run that read a file with the digest of another run's output descends from that run.
Data that no entry published stands as a node of its own, so that every origin is shown. An entry tells the largest few files
that its run read; the others stand in its manifest, which is read where it is at hand. Where it is not, that is said.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from lichen.encoding.base import b64u_decode
from lichen.encoding.statement import Statement
from lichen.errors import LichenError
from lichen.runs.queries.reference import resolve
from lichen.runs.queries.show import summary
from lichen.runs.records.record import DATA_INLINE_MAX, data_key

if TYPE_CHECKING:
    from lichen.runs.workspace.workspace import Workspace

__all__ = ["Edge", "Graph", "Node", "lineage"]

_SOURCES_MAX = 8  # entries shown that have one content
_NODES_MAX = 2_000
_MANIFESTS_MAX = 50_000  # looked into for one graph, the newest first; about a millisecond each


@dataclass(frozen=True)
class Node:
    """An entry, or data that no entry names.

    Args:
        key: ``12`` for an entry, ``data:…`` for unpublished data.
        kind: Kind of record, or ``file``.
        label: What people read.
        flag_count: Flags and disputes against it.
        suspect: Whether it descends from flagged work or suspected data.
    """

    key: str
    kind: str
    label: str
    flag_count: int = 0
    suspect: bool = False


@dataclass(frozen=True)
class Edge:
    """A descent.

    Args:
        child: Key of the later node.
        parent: Key of the earlier node.
        relation: ``used``, ``made``, ``of``.
    """

    child: str
    parent: str
    relation: str


@dataclass
class Graph:
    """Nodes and edges around one entry.

    Args:
        root: Key of the entry asked for.
        nodes: By key.
        edges: Child to parent.
        truncated: Whether the bound on nodes or depth cut something off.
        unread_run_count: Runs that read more files than their entries tell and whose manifests are not at hand: any of them
            may have come of what is shown.
    """

    root: str
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: list[Edge] = field(default_factory=list)
    truncated: bool = False
    unread_run_count: int = 0

    def parents(self, key: str) -> list[tuple[str, str]]:
        """Return (parent, relation) of a node."""
        return [(edge.parent, edge.relation) for edge in self.edges if edge.child == key]

    def children(self, key: str) -> list[tuple[str, str]]:
        """Return (child, relation) of a node."""
        return [(edge.child, edge.relation) for edge in self.edges if edge.parent == key]

    def to_json(self) -> dict[str, Any]:
        """Return the graph as a table for JSON."""
        return {
            "root": self.root,
            "nodes": [node.__dict__ for node in self.nodes.values()],
            "edges": [edge.__dict__ for edge in self.edges],
            "truncated": self.truncated,
            "unread_run_count": self.unread_run_count,
        }

    def to_text(self) -> str:
        """Draw two trees: what it comes from, what came of it."""
        lines = [self._line(self.root)]
        for title, step in (("comes from", self.parents), ("led to", self.children)):
            if step(self.root):
                lines.append(f"  {title}")
                self._branch(self.root, step, "  ", {self.root}, lines)
        if self.truncated:
            lines.append("  … more was cut off; raise --depth")
        if self.unread_run_count:
            runs = "1 run" if self.unread_run_count == 1 else f"{self.unread_run_count:,} runs"
            lines.append(
                f"  {runs} read more files than the ledger tells, and the lists are not in the store: some may belong here"
            )
        return "\n".join(lines)

    def _branch(self, key: str, step: Any, indent: str, above: set[str], lines: list[str]) -> None:
        found = step(key)
        for place, (other, relation) in enumerate(found):
            last = place == len(found) - 1
            again = other in above
            lines.append(
                f"{indent}{'└─' if last else '├─'} {relation} {self._line(other)}{' (see above)' if again else ''}"
            )
            if not again:
                self._branch(other, step, indent + ("   " if last else "│  "), above | {other}, lines)

    def _line(self, key: str) -> str:
        node = self.nodes[key]
        marks = f"  [{node.flag_count} flagged]" if node.flag_count else ""
        marks += "  [suspect]" if node.suspect else ""
        return f"{node.label}{marks}"

    def to_mermaid(self) -> str:
        """Return a Mermaid flow chart."""
        names = {key: f"n{place}" for place, key in enumerate(self.nodes)}
        lines = ["flowchart LR"]
        for key, node in self.nodes.items():
            label = node.label.replace('"', "'")
            lines.append(f'  {names[key]}["{label}"]')
            if node.suspect or node.flag_count:
                lines.append(f"  style {names[key]} stroke:#b3261e,stroke-width:2px")
        lines += [f"  {names[edge.parent]} -->|{edge.relation}| {names[edge.child]}" for edge in self.edges]
        return "\n".join(lines)

    def to_graphviz(self) -> str:
        """Return a Graphviz digraph."""
        lines = ["digraph lineage {", "  rankdir=LR;", "  node [shape=box];"]
        for key, node in self.nodes.items():
            colour = ", color=red" if node.suspect or node.flag_count else ""
            lines.append(f"  {json.dumps(key)} [label={json.dumps(node.label, ensure_ascii=False)}{colour}];")
        lines += [
            f"  {json.dumps(e.parent)} -> {json.dumps(e.child)} [label={json.dumps(e.relation)}];"
            for e in self.edges
        ]
        return "\n".join([*lines, "}"])


def lineage(
    workspace: Workspace, reference: str, *, up: bool = True, down: bool = True, depth: int = 8
) -> Graph:
    """Draw the graph around an entry.

    Args:
        workspace: The ledger.
        reference: See ``reference.resolve``.
        up: Follow what it comes from.
        down: Follow what came of it.
        depth: Most steps from the entry.
    """
    index = resolve(workspace, reference)
    walker = _Walker(workspace, Graph(str(index)))
    walker.add_entry(index)
    if up:
        walker.walk(walker.origins, depth)
    if down:
        walker.walk(walker.descendants, depth)
    walker.mark_suspects()
    return walker.graph


@dataclass
class _Walker:
    workspace: Workspace
    graph: Graph

    def add_entry(self, index: int) -> str:
        key = str(index)
        if key not in self.graph.nodes:
            connection = self.workspace.ledger.connection
            flags = connection.execute(
                "SELECT COUNT(*) FROM view_flag WHERE target = ?", (index,)
            ).fetchone()[0]
            told = summary(self.workspace, index)
            self.graph.nodes[key] = Node(key, told["kind"], _label(told), int(flags))
        return key

    def walk(self, step: Any, depth: int) -> None:
        queue, seen = deque([(self.graph.root, 0)]), {self.graph.root}
        while queue:
            key, distance = queue.popleft()
            if not key.isdigit():
                continue
            if distance >= depth or len(self.graph.nodes) >= _NODES_MAX:
                self.graph.truncated = True
                continue
            for other, edge in step(int(key)):
                if edge not in self.graph.edges:
                    self.graph.edges.append(edge)
                if other not in seen:
                    seen.add(other)
                    queue.append((other, distance + 1))

    def origins(self, index: int) -> list[tuple[str, Edge]]:
        """Return what an entry comes from."""
        child = str(index)
        statement = Statement.from_bytes(self.workspace.ledger.entry(index).payload)
        said = statement.predicate
        found: list[tuple[str, Edge]] = []
        targets = [
            (name, said.get(field)) for name, field in (("made by", "run"), ("of", "of"), ("from", "base"))
        ]
        targets += [("used", entry) for entry in said.get("data", ()) if isinstance(entry, int)]
        for relation, target in targets:
            if isinstance(target, int):
                key = self.add_entry(target)
                found.append((key, Edge(child, key, relation)))
        for digest in self._inputs(statement.kind, said):
            found += [(key, Edge(child, key, "used")) for key in self._sources(digest, reader=index)]
        return found

    def _inputs(self, kind: str, said: Any) -> list[bytes]:
        """Return keyed digests of everything an entry read; from the manifest when it is at hand."""
        if kind != "run":
            return []
        try:
            manifest = self.workspace.manifest(said["manifest"])
        except LichenError:
            return [b64u_decode(digest) for digest in said["data"]]
        return [data_key(b64u_decode(text), self.workspace.group_key) for text in manifest.data.values()]

    def _sources(self, digest: bytes, reader: int) -> list[str]:
        matches = self._entries_by_key(digest, reader)
        if matches:
            return [self.add_entry(index) for index in matches]
        key = f"data:{digest.hex()[:16]}"
        self.graph.nodes.setdefault(key, Node(key, "file", f"data {digest.hex()[:12]}… (not published)"))
        return [key]

    def _entries_by_key(self, digest: bytes, reader: int) -> list[int]:
        """Find who made or published content, given its keyed digest.

        What made it comes before the run that read it. Published it may have been at any time, since what is published or
        flagged later is what was read, unless it is published as the work of a later run.
        """
        contents = self._contents.get(digest, ())
        return sorted({index for index, made_at in contents if made_at is None or made_at < reader})[
            :_SOURCES_MAX
        ]

    @cached_property
    def _contents(self) -> dict[bytes, list[tuple[int, int | None]]]:
        """Entries by keyed digest of every content on record, each with the run that made it, where one did.

        Read once, since keyed digests cannot be searched for.
        """
        contents: dict[bytes, list[tuple[int, int | None]]] = {}
        rows = self.workspace.ledger.connection.execute(
            "SELECT sha256, idx, idx FROM view_output UNION "
            "SELECT sha256, idx, run FROM view_artefact WHERE kind IN ('data', 'model')"
        )
        for sha256, index, made_at in rows:
            contents.setdefault(data_key(sha256, self.workspace.group_key), []).append((index, made_at))
        return contents

    def descendants(self, index: int) -> list[tuple[str, Edge]]:
        """Return what came of an entry."""
        parent = str(index)
        connection = self.workspace.ledger.connection
        found = []
        rows = connection.execute(
            "SELECT child, CASE relation WHEN 'run' THEN 'made by' WHEN 'data' THEN 'used' WHEN 'base' THEN 'from' ELSE relation END "
            "FROM view_edge WHERE parent = ?1",
            (index,),
        ).fetchall()
        own = connection.execute(
            "SELECT sha256 FROM view_output WHERE idx = ?1 UNION SELECT sha256 FROM view_artefact WHERE idx = ?1 AND kind != 'evaluation'",
            (index,),
        ).fetchall()
        for (sha256,) in own:
            digest = data_key(sha256, self.workspace.group_key)
            rows += [
                (row[0], "used")
                for row in connection.execute(
                    "SELECT view_work.idx FROM view_work JOIN view_name ON view_name.id = view_work.data_id "
                    "WHERE view_name.name = ?1 AND view_work.metric_id = 0",
                    (digest,),
                )
            ]
            rows += [(reader, "used") for reader in self._further_readers.get(digest, ())]
        for other, relation in dict.fromkeys(rows):
            if other != index:
                key = self.add_entry(int(other))
                found.append((key, Edge(key, parent, relation)))
        return found

    @cached_property
    def _further_readers(self) -> dict[bytes, list[int]]:
        """Runs by keyed digest of what they read beyond what their entries tell; read once, from their manifests."""
        readers: dict[bytes, list[int]] = {}
        rows = self.workspace.ledger.connection.execute(
            "SELECT view_run.idx, view_run.manifest FROM view_run JOIN (SELECT idx, COUNT(*) AS told FROM view_work "
            "WHERE metric_id = 0 GROUP BY idx) AS work ON work.idx = view_run.idx WHERE told >= ?1 ORDER BY view_run.idx DESC",
            (DATA_INLINE_MAX,),
        ).fetchall()
        for place, (index, cid) in enumerate(rows):
            if place >= _MANIFESTS_MAX:
                self.graph.unread_run_count += len(rows) - place
                break
            try:
                manifest = self.workspace.manifest(cid)
            except LichenError:
                self.graph.unread_run_count += 1
                continue
            for text in manifest.data.values():
                readers.setdefault(data_key(b64u_decode(text), self.workspace.group_key), []).append(
                    int(index)
                )
        return readers

    def mark_suspects(self) -> None:
        """Mark everything that descends from flagged entries in the graph."""
        suspect = {key for key, node in self.graph.nodes.items() if node.flag_count}
        queue = deque(suspect)
        while queue:
            key = queue.popleft()
            for child, _ in self.graph.children(key):
                if child not in suspect:
                    suspect.add(child)
                    queue.append(child)
        for key in suspect:
            node = self.graph.nodes[key]
            if not node.flag_count:
                self.graph.nodes[key] = Node(node.key, node.kind, node.label, node.flag_count, suspect=True)


def _label(told: dict[str, Any]) -> str:
    title = told.get("title") or ""
    metrics = ", ".join(f"{name} {value:g}" for name, value in list((told.get("metrics") or {}).items())[:2])
    rest = ", ".join(part for part in (title, metrics) if part)
    return f"#{told['index']} {told['kind']}{': ' + rest if rest else ''} by {told['member']}"
