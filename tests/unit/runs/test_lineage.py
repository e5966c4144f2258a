"""Where a result comes from and what came of it, by content, in private and public ledgers alike."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from lichen.content.cid import Cid
from lichen.runs.queries.lineage import Graph, lineage
from lichen.runs.records.flags import flag
from lichen.runs.records.publish import evaluate, publish

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic

BOTH = pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)


def story(clinic: Clinic) -> dict[str, int]:
    """Published data -> cleaning -> training -> model -> evaluation, and a file that nobody published.

    Returns:
        Entries by name.
    """
    clinic.write("raw.csv", "1,2,2\n")
    clinic.write("codes.csv", "unpublished")
    entries = {"data": publish(clinic.workspace(), "data", clinic.root / "raw.csv", title="clinic A").entry}
    cleaned = clinic.run("python", "clean.py", reads=["raw.csv", "codes.csv"], writes={"clean.csv": "1,2\n"})
    trained = clinic.run(reads=["clean.csv"], writes={"model.bin": "w"}, metrics={"accuracy": 0.9})
    assert cleaned.record is not None
    assert trained.record is not None
    entries |= {"cleaned": cleaned.record, "trained": trained.record}
    entries["model"] = publish(clinic.workspace(), "model", clinic.root / "model.bin", title="triage").entry
    entries["evaluation"] = evaluate(clinic.workspace(), entries["model"], {"auc": 0.9}).entry
    return entries


@pytest.fixture
def clinic(clinic: Clinic) -> Clinic:
    clinic.write("clean.py")
    return clinic


def edges(graph: Graph) -> set[tuple[str, str, str]]:
    return {(edge.child, edge.parent, edge.relation) for edge in graph.edges}


@BOTH
def test_a_model_comes_from_its_run_and_that_from_what_it_read(clinic: Clinic) -> None:
    entries = {name: str(index) for name, index in story(clinic).items()}
    graph = lineage(clinic.workspace(), entries["model"])
    assert graph.root == entries["model"]
    found = {(child, parent) for child, parent, _ in edges(graph)}
    for child, parent in (
        ("model", "trained"),
        ("trained", "cleaned"),
        ("cleaned", "data"),
        ("evaluation", "model"),
    ):
        assert (entries[child], entries[parent]) in found, (child, parent)
    files = [node for node in graph.nodes.values() if node.kind == "file"]
    assert len(files) == 1, "what nobody published is an origin too"
    assert "not published" in files[0].label
    assert not graph.truncated


@BOTH
def test_descendants_of_data_are_all_that_came_of_it(clinic: Clinic) -> None:
    entries = {name: str(index) for name, index in story(clinic).items()}
    graph = lineage(clinic.workspace(), entries["data"], up=False)
    assert set(graph.nodes) == set(entries.values())
    only_up = lineage(clinic.workspace(), entries["data"], down=False)
    assert set(only_up.nodes) == {entries["data"]}


@BOTH
def test_flags_mark_everything_that_came_of_it_and_nothing_else(clinic: Clinic) -> None:
    entries = {name: str(index) for name, index in story(clinic).items()}
    flag(clinic.workspace(), entries["cleaned"], "drops the young")
    graph = lineage(clinic.workspace(), entries["model"])
    suspect = {name for name, key in entries.items() if graph.nodes[key].suspect}
    assert suspect == {"trained", "model", "evaluation"}
    assert graph.nodes[entries["cleaned"]].flag_count == 1
    assert not graph.nodes[entries["data"]].suspect


def test_without_its_manifest_a_run_still_descends_from_what_its_entry_names(clinic: Clinic) -> None:
    entries = story(clinic)
    store = clinic.workspace().store
    row = (
        clinic.workspace()
        .ledger.connection.execute("SELECT manifest FROM view_run WHERE idx = ?", (entries["trained"],))
        .fetchone()
    )
    store.delete(Cid.parse(row[0]))
    graph = lineage(clinic.workspace(), str(entries["trained"]))
    assert str(entries["cleaned"]) in graph.nodes


def test_a_run_that_made_what_it_read_elsewhere_is_no_ancestor_of_itself(clinic: Clinic) -> None:
    """Two equal runs: what the second read, the first had made, and not the other way round."""
    clinic.write("a.csv", "1")
    first = clinic.run("python", "copy.py", "a", reads=["a.csv"], writes={"b.csv": "1"})
    second = clinic.run("python", "copy.py", "b", reads=["b.csv"], writes={"c.csv": "1"})
    graph = lineage(clinic.workspace(), str(second.record))
    assert (str(second.record), str(first.record)) in {(child, parent) for child, parent, _ in edges(graph)}
    assert all(child != parent for child, parent, _ in edges(graph))
    graph.to_text()  # circles end: equal contents may lead in both directions


@BOTH
def test_data_published_and_flagged_after_the_run_that_read_it_reaches_it(clinic: Clinic) -> None:
    clinic.write("late.csv", "5,6\n")
    done = clinic.run(reads=["late.csv"], writes={"model.bin": "late"})
    assert "not published" in str(lineage(clinic.workspace(), str(done.record), down=False).nodes)
    data = publish(clinic.workspace(), "data", clinic.root / "late.csv", title="late").index
    flag(clinic.workspace(), str(data), "wrong units")
    graph = lineage(clinic.workspace(), str(done.record), down=False)
    assert edges(graph) == {(str(done.record), str(data), "used")}
    assert graph.nodes[str(done.record)].suspect
    assert [node.kind for node in graph.nodes.values()] == ["run", "data"]


def test_what_a_run_is_said_to_have_made_is_not_what_it_came_from(clinic: Clinic) -> None:
    """A run reads its own output of another time, under another name; then it is published as its work."""
    clinic.write("before.csv", "same")
    done = clinic.run(reads=["before.csv"], writes={"after.csv": "same"})
    model = publish(clinic.workspace(), "model", clinic.root / "after.csv").index
    found = edges(lineage(clinic.workspace(), str(done.record), down=False))
    assert (str(done.record), str(model), "used") not in found


def test_depth_cuts_off_and_says_so(clinic: Clinic) -> None:
    for number in range(4):
        clinic.write(f"{number}.csv", str(number))
        clinic.run(
            "python",
            "step.py",
            str(number),
            reads=[f"{number}.csv"],
            writes={f"{number + 1}.csv": f"{number + 1}"},
        )
    near = lineage(clinic.workspace(), "@last", depth=1)
    assert near.truncated
    assert len(near.nodes) == 2
    assert "raise --depth" in near.to_text()
    assert not lineage(clinic.workspace(), "@last", depth=9).truncated


def test_the_tree_is_drawn_with_marks(clinic: Clinic) -> None:
    entries = story(clinic)
    flag(clinic.workspace(), str(entries["data"]), "odd")
    drawn = lineage(clinic.workspace(), str(entries["trained"])).to_text().splitlines()
    assert "accuracy 0.9 by ada  [suspect]" in drawn[0]
    assert any("comes from" in line for line in drawn)
    assert any("led to" in line for line in drawn)
    assert any(re.search(r"└─ used #\d+ data: clinic A by ada  \[1 flagged\]", line) for line in drawn)


def test_drawings_for_other_programs_hold_every_node_and_edge(clinic: Clinic) -> None:
    entries = story(clinic)
    publish(clinic.workspace(), "data", clinic.write("x.csv", "x"), title='says "hello" <b>')
    graph = lineage(clinic.workspace(), str(entries["model"]))
    mermaid, graphviz = graph.to_mermaid(), graph.to_graphviz()
    assert mermaid.startswith("flowchart LR\n")
    assert mermaid.count("-->|") == graphviz.count(" -> ") == len(graph.edges)
    assert graphviz.count("[label=") == len(graph.nodes) + len(graph.edges)
    told = json.loads(json.dumps(graph.to_json()))
    assert len(told["nodes"]) == len(graph.nodes)
    quoted = lineage(clinic.workspace(), str(clinic.root / "x.csv"))
    assert '"hello"' not in quoted.to_mermaid()
    assert '\\"hello\\"' in quoted.to_graphviz()


@BOTH
def test_small_files_among_many_lead_on_too(clinic: Clinic) -> None:
    for number in range(7):
        clinic.write(f"part{number}.csv", f"{number}," * (number + 1))
    small = publish(clinic.workspace(), "data", clinic.root / "part0.csv", title="the smallest").index
    large = publish(clinic.workspace(), "data", clinic.root / "part6.csv", title="the largest").index
    made = clinic.run(reads=[f"part{number}.csv" for number in range(7)], writes={"model.bin": "w"})
    for data in (small, large):
        graph = lineage(clinic.workspace(), str(data))
        assert edges(graph) >= {(str(made.record), str(data), "used")}
        assert len(edges(graph)) == len(graph.edges), "an edge is drawn once"
        assert graph.unread_run_count == 0


@BOTH
def test_where_a_list_is_not_at_hand_that_is_said(clinic: Clinic) -> None:
    for number in range(7):
        clinic.write(f"part{number}.csv", f"{number}," * (number + 1))
    small = publish(clinic.workspace(), "data", clinic.root / "part0.csv", title="the smallest").index
    made = clinic.run(reads=[f"part{number}.csv" for number in range(7)], writes={"model.bin": "w"})
    assert made.manifest_cid is not None
    clinic.workspace().store.delete(Cid.parse(made.manifest_cid))
    graph = lineage(clinic.open(), str(small))
    assert edges(graph) == set()
    assert graph.unread_run_count == graph.to_json()["unread_run_count"] == 1
    assert "1 run read more files than the ledger tells" in graph.to_text()
