"""Runs whose store or ledger fails, and what the next command makes of what they left: nothing lost, nothing twice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lichen.content.directory_store import DirectoryStore
from lichen.encoding.statement import Statement
from lichen.errors import StorageError
from lichen.runs.records.recording import write_down
from lichen.runs.request import RunRequest, RunResult
from lichen.runs.session import flush_spool
from lichen.runs.trace.trace import Trace

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic


class Failing:
    """Lets a store's methods fail from the Nth call on.

    Args:
        monkeypatch: Undoes it.
        name: Which method.
        good_count: Calls that still work.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, good_count: int) -> None:
        self.left = good_count
        real: Callable[..., Any] = getattr(DirectoryStore, name)

        def put(store: DirectoryStore, *args: Any, **options: Any) -> Any:
            if self.left <= 0:
                raise StorageError("no room left on the disk of the store")
            self.left -= 1
            return real(store, *args, **options)

        monkeypatch.setattr(DirectoryStore, name, put)


def spool_runs(clinic: Clinic, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Record runs while the store takes nothing."""
    with monkeypatch.context() as patch:
        Failing(patch, "put_bytes", 0)
        for number in range(count):
            words = ("python", "train.py", str(number))
            result = RunResult("trained", 0, reusable=False, measurement=clinic.measured(10.0), author="ada")
            observation = clinic.observe(Trace(), words=words)
            write_down(clinic.workspace(), RunRequest(words), observation, b"{}", result, clinic.listener)
            assert result.record is None
            assert result.spooled is not None


def recorded(clinic: Clinic) -> list[int]:
    rows = clinic.workspace().ledger.connection.execute("SELECT idx FROM view_run ORDER BY idx")
    return [row[0] for row in rows]


def waiting_files(clinic: Clinic) -> list[Path]:
    places = (clinic.directory / "spool", clinic.workspace().fallback_spool)
    return sorted(path for place in places if place.is_dir() for path in place.rglob("*") if path.is_file())


@pytest.mark.parametrize("good_count", range(7))
def test_a_store_that_fails_midway_through_a_flush(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch, good_count: int
) -> None:
    spool_runs(clinic, monkeypatch, 3)
    assert recorded(clinic) == []
    with monkeypatch.context() as patch:
        Failing(patch, "put_file", good_count)  # each run left two artefacts
        first = flush_spool(clinic.workspace(), clinic.listener)
    assert first == good_count // 2
    second = flush_spool(clinic.workspace(), clinic.listener)
    assert first + second == len(recorded(clinic)) == 3
    assert flush_spool(clinic.workspace(), clinic.listener) == 0
    assert sum(clinic.listener.sent_counts) == 3
    assert 0 not in clinic.listener.sent_counts
    assert waiting_files(clinic) == []
    for index in recorded(clinic):
        said = Statement.from_bytes(clinic.workspace().ledger.entry(index).payload).predicate
        assert clinic.workspace().get_private(clinic.workspace().manifest(said["manifest"]).detail) == b"{}"


def test_a_ledger_that_fails_after_the_store_took_everything(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool_runs(clinic, monkeypatch, 2)

    def refuse(*_args: object, **_options: object) -> None:
        raise StorageError("no room left on the disk of the ledger")

    with monkeypatch.context() as patch:
        patch.setattr(type(clinic.workspace().ledger), "append_all_signed", refuse)
        assert flush_spool(clinic.workspace(), clinic.listener) == 0
    said_before = len(clinic.listener.warnings)
    assert flush_spool(clinic.workspace(), clinic.listener) == 2, "artefacts are found in the store"
    assert len(clinic.listener.warnings) == said_before
    assert len(recorded(clinic)) == 2
    assert waiting_files(clinic) == []


def test_an_artefact_that_was_changed_while_it_waited_is_named_and_kept(
    clinic: Clinic, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool_runs(clinic, monkeypatch, 1)
    (kept, *_) = [path for path in waiting_files(clinic) if path.parent.name == "artefacts"]
    kept.write_bytes(b"something else")
    assert flush_spool(clinic.workspace(), clinic.listener) == 1
    assert any("is not what was kept there" in warning for warning in clinic.listener.warnings)
    assert kept.read_bytes() == b"something else"
