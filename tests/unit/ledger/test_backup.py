"""A copy of the ledger file while others write to it."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.contracts import default_contracts
from lichen.errors import NotALedgerError, RollbackError, StorageError, UsageError
from lichen.ledger import backup
from lichen.ledger.audit import audit
from lichen.ledger.backup import back_up
from lichen.ledger.storage import LEDGER_FILE_NAME

if TYPE_CHECKING:
    from tests.unit.ledger.conftest import Site


def placed(copy: Path, directory: Path) -> Path:
    directory.mkdir()
    copy.rename(directory / LEDGER_FILE_NAME)
    return directory


def test_a_copy_is_a_ledger(site: Site, tmp_path: Path):
    with site.create() as ledger:
        ledger.append_many(site.entries(ledger, 20))
        found = back_up(site.directory, tmp_path / "copy", default_contracts())
        assert (found.size, found.ledger_id) == (ledger.size, ledger.id)
        assert found.root == ledger.root_at(ledger.size).hex()
    report = audit(placed(tmp_path / "copy", tmp_path / "back"), default_contracts())
    assert report.problem is None
    assert report.size == found.size


def test_nothing_lies_beside_it(site: Site, tmp_path: Path):
    site.create().close()
    (tmp_path / "copies").mkdir()
    back_up(site.directory, tmp_path / "copies" / "copy", default_contracts())
    assert [path.name for path in (tmp_path / "copies").iterdir()] == ["copy"]


def test_it_is_one_picture_while_others_append(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A writer commits between any two steps of the copy, in the same process and through another connection."""
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 4)
    with site.create() as ledger:
        ledger.append_many(site.entries(ledger, 100), seal=True)
        size = ledger.size
        entries = iter(site.entries(ledger, 400))

        def append(_done: int, _total: int) -> None:
            ledger.append(next(entries))

        found = back_up(site.directory, tmp_path / "copy", default_contracts(), progress=append)
        assert found.size == size
        assert ledger.size > size + 3
    assert audit(placed(tmp_path / "copy", tmp_path / "back"), default_contracts()).problem is None


def test_copies_made_under_writers_are_all_whole(site: Site, tmp_path: Path):
    with site.create() as ledger:
        stop, entries = threading.Event(), site.entries(ledger, 300)

        def write() -> None:
            for entry in entries:
                if stop.is_set():
                    return
                ledger.append(entry, seal=True)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            copies = [
                back_up(site.directory, tmp_path / f"copy-{number}", default_contracts())
                for number in range(4)
            ]
        finally:
            stop.set()
            writer.join()
        for number, copy in enumerate(copies):
            assert copy.root == ledger.root_at(copy.size).hex()
            report = audit(placed(copy.path, tmp_path / f"back-{number}"), default_contracts())
            assert report.problem is None
            assert report.size == copy.size


def test_signing_on_top_of_an_old_copy_is_refused_and_reading_is_not(site: Site, tmp_path: Path):
    with site.create() as ledger:
        back_up(site.directory, tmp_path / "copy", default_contracts())
        old_size = ledger.size
        ledger.append(site.entry(ledger), seal=True)
    for left in site.directory.glob("ledger.sqlite*"):
        left.unlink()
    (tmp_path / "copy").rename(site.path)
    with site.open(read_only=True) as ledger:
        assert ledger.size == old_size
    with pytest.raises(RollbackError, match="older copy") as refused:
        site.open()
    assert "--fork-from" in refused.value.remedy


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_nothing_is_replaced(kind: str, site: Site, tmp_path: Path):
    site.create().close()
    target = tmp_path / "copy"
    if kind == "file":
        target.write_text("mine")
    elif kind == "directory":
        target.mkdir()
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="there already"):
        back_up(site.directory, target, default_contracts())


def test_no_ledger(tmp_path: Path):
    with pytest.raises(NotALedgerError):
        back_up(tmp_path, tmp_path / "copy", default_contracts())
    assert not (tmp_path / "copy").exists()


def test_a_place_that_cannot_be_written(site: Site, tmp_path: Path):
    site.create().close()
    with pytest.raises(StorageError, match="cannot write a backup"):
        back_up(site.directory, tmp_path / "no" / "such" / "directory", default_contracts())


def test_a_failing_disk_leaves_nothing(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    site.create().close()

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="disk is full"):
        patch.setattr(backup, "_copy", fail)
        back_up(site.directory, tmp_path / "copy", default_contracts())
    assert not list(tmp_path.glob("*copy*"))
    back_up(site.directory, tmp_path / "copy", default_contracts())
    assert (tmp_path / "copy").is_file()
