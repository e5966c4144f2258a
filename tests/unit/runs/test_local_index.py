"""The local index: a cache that is made again when it is damaged, and never stands in the way."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.errors import KeyFileError, NotFoundError
from lichen.runs.reuse.local_index import LocalIndex, Row
from lichen.runs.work.manifest import Manifest, Output

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic

LEDGER = "ab" * 32
COMMAND, FAMILY = b"c" * 32, b"f" * 16


def manifest(*reads: str, depth: str = "3") -> Manifest:
    return Manifest(
        ("python", "train.py", "--depth", depth), "{project}", ("python", "train.py"), parameters={"depth": depth},
        data=dict.fromkeys(reads, "x"),
    )  # fmt: skip


class Log:
    """Runs on record, and how often a manifest was read."""

    def __init__(self, *manifests: Manifest | None) -> None:
        self.manifests = list(manifests)
        self.loaded = 0

    def at(self, indexes: Sequence[int]) -> list[Row]:
        return [(index, COMMAND, FAMILY, f"bcid{index}") for index in indexes if index < len(self.manifests)]

    def of_command(self, command: bytes, start: int) -> list[Row]:
        return self.at(range(start, len(self.manifests))) if command == COMMAND else []

    def of_family(self, family: bytes, limit: int) -> list[Row]:
        return self.at(range(len(self.manifests)))[::-1][:limit] if family == FAMILY else []

    def load(self, cid: str) -> Manifest:
        self.loaded += 1
        found = self.manifests[int(cid.removeprefix("bcid"))]
        if found is None:
            raise NotFoundError(f"the store does not hold {cid}")
        return found


@contextlib.contextmanager
def opened(path: Path, log: Log | None = None, ledger: str = LEDGER) -> Iterator[LocalIndex]:
    index = LocalIndex(path, ledger)
    try:
        if log is not None:
            index.attach(log, log.load)
        yield index
    finally:
        index.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "index.sqlite"


def test_runs_are_taken_in_once(path: Path) -> None:
    log = Log(manifest("a"), manifest("b", depth="4"))
    for _ in range(2):
        with opened(path, log) as index:
            assert index.shapes(COMMAND, 9) == [(1, "bcid1"), (0, "bcid0")]
            assert [run.parameters for run in index.family(FAMILY, 9)] == [{"depth": "4"}, {"depth": "3"}]
            known = index.known_run(1)
            assert known is not None
            assert known.words == ("python", "train.py", "--depth", "4")
    assert log.loaded == 2
    log.manifests.append(manifest("c"))
    with opened(path, log) as index:
        assert len(index.shapes(COMMAND, 9)) == 3
    assert log.loaded == 3


def test_of_each_shape_the_latest_run_stands(path: Path) -> None:
    with opened(path, Log(manifest("a"), manifest("b"), manifest("a", depth="5"))) as index:
        assert index.shapes(COMMAND, 9) == [(2, "bcid2"), (1, "bcid1")]
        assert index.shapes(COMMAND, 1) == [(2, "bcid2")]
        assert index.shapes(b"other" * 6, 9) == []


def test_a_run_added_at_once_is_taken_in_again_without_harm(path: Path) -> None:
    log = Log(manifest("a"))
    with opened(path, log) as index:
        log.manifests.append(manifest("a", depth="9"))
        index.add(1, COMMAND, FAMILY, "bcid1", manifest("a", depth="9"))
        assert index.shapes(COMMAND, 9) == [(1, "bcid1")]
    with opened(path, log) as index:
        assert index.shapes(COMMAND, 9) == [(1, "bcid1")]
        assert len(index.family(FAMILY, 9)) == 2


def test_a_manifest_that_comes_later_is_taken_in_then(path: Path) -> None:
    """A colleague's artefacts may arrive after the entry, and a group key after the ledger."""
    log = Log(manifest("a"), None, manifest("c"))
    with opened(path, log) as index:
        assert index.shapes(COMMAND, 9) == [(2, "bcid2"), (0, "bcid0")]
        assert index.known_run(1) is None
    log.manifests[1] = manifest("b")
    with opened(path, log) as index:
        assert index.shapes(COMMAND, 9) == [(2, "bcid2"), (1, "bcid1"), (0, "bcid0")]


def test_without_the_group_key_nothing_is_taken_in_and_nothing_is_missed(path: Path) -> None:
    log = Log(manifest("a"), manifest("b"), manifest("c"))
    is_there = False

    def load(cid: str) -> Manifest:
        if not is_there and cid != "bcid0":
            raise KeyFileError("group.key is missing")
        return log.load(cid)

    with opened(path) as index:
        index.attach(log, load)
        assert index.shapes(COMMAND, 9) == [(0, "bcid0")]
    is_there = True
    with opened(path) as index:
        index.attach(log, load)
        assert index.shapes(COMMAND, 9) == [(2, "bcid2"), (1, "bcid1"), (0, "bcid0")]


def test_manifests_that_never_come_are_not_asked_for_again_and_again(path: Path) -> None:
    log = Log(*[None] * 500)
    for _ in range(20):
        with opened(path, log) as index:
            assert index.shapes(COMMAND, 9) == []
    assert 500 <= log.loaded < 500 + 20 * 100


def test_a_question_reads_only_the_manifests_that_it_takes(path: Path) -> None:
    """What other requests read is of no use for this one, and of a script's runs only the latest are compared."""
    log = Log(*(manifest("a", depth=str(number)) for number in range(50)))
    brought: list[list[str]] = []
    with opened(path) as index:
        index.attach(log, log.load, lambda cids: brought.append(list(cids)))
        assert index.shapes(b"another request", 9) == []
        assert index.family(b"another script", 9) == []
        assert log.loaded == 0
        assert len(index.family(FAMILY, 5)) == log.loaded == 5
        index.take_in([3, 4, 49, 77])
        assert log.loaded == 7
        assert index.shapes(COMMAND, 9) == [(49, "bcid49")]
        assert log.loaded == 50
    sizes = [len(cids) for cids in brought]
    assert sizes == [5, 2, 43], "what is read for one question is asked for together, and only once"


def overwrite(path: Path, where: float, content: bytes) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(int(size * where))
        file.write(content[: max(1, size - file.tell())])


@pytest.mark.parametrize(
    "harm", ["empty", "text", "truncated", "head", "middle", "end", "newer", "missing-table"]
)
def test_a_damaged_index_is_made_again(path: Path, harm: str) -> None:
    log = Log(*(manifest(f"file-{number}", depth=str(number)) for number in range(300)))
    with opened(path, log) as index:
        assert len(index.shapes(COMMAND, 999)) == 300
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if harm == "newer":
            connection.execute("PRAGMA user_version = 999")
        if harm == "missing-table":
            connection.execute("DROP TABLE progress")
    connection.close()
    if harm == "empty":
        path.write_bytes(b"")
    elif harm == "text":
        path.write_bytes(b"not a database\n" * 1000)
    elif harm == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif harm == "head":
        overwrite(path, 0, b"\xff" * 200)
    elif harm == "middle":
        overwrite(path, 0.1, b"\xff" * int(path.stat().st_size * 0.8))
    elif harm == "end":
        overwrite(path, 0.5, b"\xff" * path.stat().st_size)
    with opened(path, log) as index:
        assert len(index.shapes(COMMAND, 999)) == 300
        assert len(index.family(FAMILY, 999)) == 300
    log.loaded = 0
    with opened(path, log) as index:
        assert len(index.shapes(COMMAND, 999)) == 300
    assert log.loaded == 0, "it was not made again, only worked around"


def test_the_index_of_another_ledger_is_made_again(path: Path) -> None:
    with opened(path, Log(manifest("a"))) as index:
        assert len(index.shapes(COMMAND, 9)) == 1
    with opened(path, Log(), ledger="cd" * 32) as index:
        assert index.shapes(COMMAND, 9) == []


@pytest.mark.parametrize(
    "obstacle", ["a file where the directory should be", "a directory where the file should be"]
)
def test_a_place_that_cannot_be_written_costs_time_and_no_answer(path: Path, obstacle: str) -> None:
    if obstacle.startswith("a file"):
        path.parent.write_text("")
    else:
        path.mkdir(parents=True)
    log = Log(manifest("a"), manifest("b"))
    for _ in range(2):
        with opened(path, log) as index:
            assert index.shapes(COMMAND, 9) == [(1, "bcid1"), (0, "bcid0")]
            index.add(7, COMMAND, FAMILY, "bcid7", manifest("c"))
            assert index.shapes(COMMAND, 9)[0] == (7, "bcid7")


def test_an_index_that_somebody_else_keeps_locked_is_read_into_memory(path: Path) -> None:
    log = Log(manifest("a"))
    with opened(path, log) as index:
        assert len(index.shapes(COMMAND, 9)) == 1
    log.manifests.append(manifest("b"))
    locked = sqlite3.connect(path, isolation_level=None)
    locked.execute("BEGIN IMMEDIATE")
    with opened(path) as index:
        index._connection.execute("PRAGMA busy_timeout = 10")  # the real patience is half a minute
        index.attach(log, log.load)
        assert index.shapes(COMMAND, 9) == [(1, "bcid1"), (0, "bcid0")]
    locked.close()


def test_processes_that_catch_up_side_by_side_end_up_with_the_same(path: Path) -> None:
    log = Log(manifest("a"), manifest("b"))
    with opened(path) as one, opened(path) as other:
        one.attach(log, log.load)
        other.attach(log, log.load)
        assert one.shapes(COMMAND, 9) == other.shapes(COMMAND, 9) == [(1, "bcid1"), (0, "bcid0")]


def test_damage_while_a_workspace_is_open_does_not_reach_the_look_up(clinic: Clinic) -> None:
    clinic.write("data.csv", "1")
    for depth in range(30):
        clinic.run("python", "train.py", "--depth", str(depth), reads=["data.csv"])
    clinic.close()
    path = clinic.directory / "cache" / "index.sqlite"
    overwrite(path, 0.1, b"\xff" * int(path.stat().st_size * 0.8))
    assert clinic.ask("python", "train.py", "--depth", "3").kind == "hit"


def test_a_run_taken_in_when_it_was_recorded_is_not_read_back(path: Path) -> None:
    log = Log(manifest("a"))
    with opened(path, log) as index:
        assert index.shapes(COMMAND, 9) == [(0, "bcid0")]
        log.manifests.append(manifest("b"))
        index.add(1, COMMAND, FAMILY, "bcid1", manifest("b"))
    log.loaded = 0
    with opened(path, log) as index:
        assert index.shapes(COMMAND, 9) == [(1, "bcid1"), (0, "bcid0")]
    assert log.loaded == 0


def test_a_run_taken_in_before_others_leaves_these_to_be_taken_in(path: Path) -> None:
    log = Log(manifest("a"))
    with opened(path, log) as index:
        log.manifests += [manifest("b"), manifest("c")]
        index.add(2, COMMAND, FAMILY, "bcid2", manifest("c"))
    with opened(path, log) as index:
        assert index.shapes(COMMAND, 9) == [(2, "bcid2"), (1, "bcid1"), (0, "bcid0")]


def test_what_a_run_made_is_known_by_digest(path: Path) -> None:
    def made(name: str, content: bytes) -> Manifest:
        return dataclasses.replace(manifest("a"), outputs=(Output(name, content * 32, "bcid", 1, 0o644),))

    log = Log(made("m", b"1"), made("m", b"1"), made("m", b"2"), made("n", b"1"), None)
    with opened(path, log) as index:
        first, same, content, name = (index.made(number) for number in range(4))
        assert first == same
        assert len({first, content, name}) == 3
        assert index.made(4) is None
