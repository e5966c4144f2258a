"""What a request declares or ignores decides whether an earlier run may answer it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lichen.runs.reuse.lookup import Answer
from lichen.runs.trace.trace import Access, Trace
from lichen.runs.work.declared import Declared, declared_entries
from lichen.runs.work.differences import gap_between
from lichen.runs.work.manifest import Manifest
from lichen.runs.work.surroundings import Surroundings
from lichen.runs.workspace.project import Project

from .conftest import Clinic


def told(clinic: Clinic, *, ignore: tuple[str, ...] = (), environ: Any = None, **names: Any) -> Surroundings:
    """Return what is there now for a request with declarations and ignore lines."""
    project = Project(clinic.project.root, clinic.project.config, ignore)
    around = clinic.surroundings(environ, project=project)
    paths = {key: tuple(value) for key, value in names.items()}
    return replace(around, declared=Declared(**paths))


def asked(clinic: Clinic, around: Surroundings) -> Answer:
    """Ask, with everything looked at afresh."""
    return clinic.ask(surroundings=around.afresh())


def test_a_file_declared_later_is_no_part_of_an_earlier_run(clinic: Clinic) -> None:
    clinic.write("train.csv", "1")
    clinic.write("side.bin", "1")
    clinic.run(reads=["train.csv"], writes={"model.bin": "w"})
    around = told(clinic, data=[clinic.path("side.bin")])
    answer = asked(clinic, around)
    assert answer.kind == "miss"
    assert answer.difference is not None
    assert answer.difference.describe() == (
        "{project}/side.bin is declared as an input now, and the earlier run did not take it down"
    )
    clinic.run(reads=["train.csv"], writes={"model.bin": "w"}, surroundings=around)
    assert asked(clinic, around).kind == "hit"
    assert asked(clinic, told(clinic, code=[clinic.path("side.bin")])).kind == "hit"  # the run knows it
    clinic.write("side.bin", "2")
    assert asked(clinic, around).kind == "miss"


def test_a_declared_directory_counts_with_all_that_lies_below_it(clinic: Clinic) -> None:
    clinic.write("data/deep/a.csv", "1")
    around = told(clinic, data=[clinic.path("data")])
    clinic.run(writes={"model.bin": "w"}, surroundings=around)
    assert asked(clinic, around).kind == "hit"
    assert asked(clinic, told(clinic, data=[clinic.path("data/deep")])).kind == "hit"
    new = Path(clinic.write("data/deep/b.csv", "2"))
    assert asked(clinic, around).kind == "miss"
    new.unlink()
    assert asked(clinic, around).kind == "hit"
    empty = Path(clinic.path("data/empty"))
    empty.mkdir()
    assert asked(clinic, around).kind == "miss"
    empty.rmdir()
    Path(clinic.path("data/deep/a.csv")).unlink()
    assert asked(clinic, around).kind == "miss"


def test_what_the_run_made_in_a_declared_directory_is_its_own(clinic: Clinic) -> None:
    clinic.write("data/a.csv", "1")
    around = told(clinic, data=[clinic.path("data")])
    done = clinic.run(writes={"data/cache.bin": "w"}, surroundings=around)
    assert done.reusable, done.reasons
    assert asked(clinic, around).kind == "hit"
    Path(clinic.path("data/cache.bin")).unlink()
    assert asked(clinic, around).kind == "hit"


def test_a_declared_path_that_is_not_there_is_looked_for_again(clinic: Clinic) -> None:
    around = told(clinic, data=[clinic.path("later.csv")])
    clinic.run(writes={"model.bin": "w"}, surroundings=around)
    assert asked(clinic, around).kind == "hit"
    clinic.write("later.csv", "1")
    assert asked(clinic, around).kind == "miss"


def test_directories_behind_links_are_entered_once(clinic: Clinic) -> None:
    clinic.write("real/a.csv", "1")
    Path(clinic.path("data")).mkdir()
    Path(clinic.path("data/linked")).symlink_to(clinic.path("real"))
    Path(clinic.path("data/round")).symlink_to(clinic.path("data"))
    found = list(declared_entries(told(clinic), [clinic.path("data")]))
    assert found == [
        ("directory", clinic.path("data")),
        ("directory", clinic.path("data/linked")),
        ("file", clinic.path("data/linked/a.csv")),
    ]


def test_a_variable_declared_later_is_no_part_of_an_earlier_run(clinic: Clinic) -> None:
    one = told(clinic, environ={"FOLD": "1"})
    clinic.run(writes={"model.bin": "w"}, surroundings=one)
    assert asked(clinic, one).kind == "hit"
    two = told(clinic, environ={"FOLD": "2"}, variables=["FOLD"])
    answer = asked(clinic, two)
    assert answer.kind == "miss"
    assert answer.difference is not None
    assert answer.difference.describe().startswith("FOLD is declared as an input now")
    clinic.run(writes={"model.bin": "x"}, surroundings=two)
    assert asked(clinic, two).kind == "hit"


def test_an_output_declared_later_must_have_been_made_or_declared_then(clinic: Clinic) -> None:
    clinic.run(writes={"model.bin": "w"})
    assert asked(clinic, told(clinic, outputs=[clinic.path("model.bin")])).kind == "hit"
    around = told(clinic, outputs=[clinic.path("curve.png")])
    answer = asked(clinic, around)
    assert answer.kind == "miss"
    assert answer.difference is not None
    assert "declared as an output" in answer.difference.describe()


def test_a_folder_declared_as_output_is_known_by_what_was_made_in_it(clinic: Clinic) -> None:
    clinic.run(writes={"model/forest.bin": "w"})
    assert asked(clinic, told(clinic, outputs=[clinic.path("model")])).kind == "hit"
    assert asked(clinic, told(clinic, outputs=[str(clinic.root)])).kind == "hit"
    assert asked(clinic, told(clinic, outputs=[clinic.path("mod")])).kind == "miss"


def test_an_output_folder_declared_alike_is_answered(clinic: Clinic) -> None:
    around = told(clinic, outputs=[clinic.path("out")])
    done = clinic.run(writes={"out/model.bin": "w"}, surroundings=around)
    assert done.reusable, done.reasons
    assert asked(clinic, around).kind == "hit"
    assert asked(clinic, told(clinic, outputs=[clinic.path("elsewhere")])).kind == "miss"


def test_what_was_ignored_then_must_be_ignored_now(clinic: Clinic) -> None:
    clinic.write("x.txt", "1")
    blind = told(clinic, ignore=("x.txt",))
    clinic.run(reads=["x.txt"], writes={"model.bin": "w"}, surroundings=blind)
    clinic.write("x.txt", "2")
    assert asked(clinic, blind).kind == "hit"
    assert asked(clinic, told(clinic, ignore=("*.txt", "other"))).kind == "hit"
    answer = asked(clinic, told(clinic))
    assert answer.kind == "miss"
    assert answer.difference is not None
    assert answer.difference.describe() == (
        "{project}/x.txt was ignored then and is not now, so what stood there may matter"
    )


@pytest.mark.parametrize("kind", ["write", "absent", "stat"])
def test_every_way_of_touching_an_ignored_path_is_kept(clinic: Clinic, kind: Any) -> None:
    clinic.write("logs/run.log", "1")
    blind = told(clinic, ignore=("logs/",))
    clinic.run(
        accesses=[Access(clinic.path("logs/run.log"), kind, None, 1, frozenset({"audit"}))],
        writes={"model.bin": "w"},
        surroundings=blind,
    )
    assert asked(clinic, blind).kind == "hit"
    assert asked(clinic, told(clinic)).kind == "miss"


def test_an_ignored_name_in_a_listing_is_kept(clinic: Clinic) -> None:
    clinic.write("data/a.csv", "1")
    hidden = Path(clinic.write("data/b.tmp", "1"))
    blind = told(clinic, ignore=("*.tmp",))
    clinic.run(accesses=[clinic.access("list", "data")], writes={"model.bin": "w"}, surroundings=blind)
    hidden.unlink()
    assert asked(clinic, blind).kind == "hit"
    assert asked(clinic, told(clinic)).kind == "miss"


def test_a_run_that_touched_nothing_ignored_does_not_depend_on_the_rules(clinic: Clinic) -> None:
    clinic.write("train.csv", "1")
    clinic.run(reads=["train.csv"], writes={"model.bin": "w"}, surroundings=told(clinic, ignore=("x.txt",)))
    assert asked(clinic, told(clinic)).kind == "hit"


def test_of_very_many_ignored_paths_the_rules_are_kept(clinic: Clinic) -> None:
    blind = told(clinic, ignore=("# temporary", "tmp/"))
    seen = [
        Access(clinic.path(f"tmp/{number}"), "stat", None, number, frozenset({"audit"}))
        for number in range(1_100)
    ]
    manifest = clinic.observe(Trace(accesses=tuple(seen)), surroundings=blind).manifest
    assert len(manifest.ignored) == 1
    assert gap_between(blind, manifest) is None
    assert gap_between(told(clinic, ignore=("tmp/",)), manifest) is None  # a comment says nothing
    gap = gap_between(told(clinic, ignore=("tmp/", "more/")), manifest)
    assert gap is not None
    assert "rules were others" in gap.describe()


def test_a_manifest_carries_what_was_declared_and_ignored() -> None:
    plain = Manifest(("python", "t.py"), "{project}", ("python", "t.py"))
    assert b"ignored" not in plain.to_bytes()
    full = replace(plain, ignored=("{project}/x",), declared_outputs=("{project}/out",))
    assert Manifest.from_bytes(full.to_bytes()) == full
    assert full.shape() != plain.shape()
    assert full.parts(None) == plain.parts(None)
