"""Lost tails and old copies: what is left verifies and is a beginning, or it is refused; nothing is signed twice."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import cuts
from faults.site import Site

from lichen.errors import RollbackError

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Terminal


@pytest.mark.slow
def test_files_cut_anywhere(tmp_path: Path) -> None:
    site = Site(tmp_path / "site")
    cuts.leave_open(site, tmp_path / "still")
    found = cuts.cut_everywhere(site, tmp_path / "still", tmp_path, random_count=4)
    assert (found.unsound, found.unsigned) == ([], [])
    assert found.outcomes["whole"] >= 1, "a cut at the very end takes nothing away"
    assert found.outcomes["prefix"] > 20
    assert found.outcomes["signing refused: rollback"] >= found.outcomes["prefix"]
    assert found.outcomes["corrupt-ledger"] > 20
    expected = {
        "whole", "prefix", "corrupt-ledger", "not-a-ledger", "storage", "audit: corrupt-ledger", "signing refused: rollback",
        "signing refused: corrupt-ledger", "signing refused: not-a-ledger", "signing refused: storage",
    }  # fmt: skip
    assert set(found.outcomes) <= expected


def test_an_old_copy_put_back_is_not_signed_on(tmp_path: Path) -> None:
    site, rng = Site(tmp_path), random.Random(3)
    with site.create() as ledger:
        ledger.append(site.entry(ledger, rng), seal=True)
    shutil.copytree(site.directory, tmp_path / "old")
    with site.opened() as ledger:
        ledger.append_many(site.entries(ledger, rng, 5), seal=True)
    shutil.rmtree(site.directory)
    shutil.copytree(tmp_path / "old", site.directory)
    with pytest.raises(RollbackError, match="it is an older copy") as caught:
        site.open()
    assert "lichen init --fork-from" in caught.value.remedy
    with site.opened(read_only=True) as ledger:
        assert ledger.size == 4, "reading stays possible"
    assert site.audit().is_sound, "an old copy is whole; only the mark tells"


def test_a_ledger_that_went_another_way_is_not_signed_on(tmp_path: Path) -> None:
    site, rng = Site(tmp_path), random.Random(4)
    site.create().close()
    shutil.copytree(tmp_path, tmp_path.parent / "fork")
    other = Site(tmp_path.parent / "fork")
    for where, count in ((site, 3), (other, 9)):
        with where.opened() as ledger:
            for _ in range(count):
                ledger.append(where.entry(ledger, rng), seal=True)
    shutil.rmtree(site.directory)
    shutil.copytree(other.directory, site.directory)
    with pytest.raises(RollbackError, match="differs within its first"):
        site.open()


def test_who_put_an_old_copy_back_is_told_and_can_start_a_fork(terminal: Terminal, tmp_path: Path) -> None:
    run = ("run", "--quiet", "--", "python", "train.py", "--depth")
    terminal.type(*run, "1")
    ledger = terminal.directory / ".lichen"
    shutil.copytree(ledger, tmp_path / "old")
    first = terminal.type("verify", "--json").stdout
    terminal.type(*run, "2")
    shutil.rmtree(ledger)
    shutil.copytree(tmp_path / "old", ledger)
    refused = terminal.type("publish", "model", "model.pkl", expect=3)
    assert "older copy" in refused.stderr
    assert "lichen init --fork-from" in refused.stderr
    assert terminal.type("verify", "--json").stdout == first, "it can be read, and nothing was added to it"
    ledger.rename(tmp_path / "restored")
    terminal.type("init", "--fork-from", str(tmp_path / "restored"))
    shown = [
        terminal.type("key", "show", "--ledger", str(path)).stdout for path in (ledger, tmp_path / "old")
    ]
    ids = [line.split()[-1] for text in shown for line in text.splitlines() if line.startswith("ledger ")]
    assert len(set(ids)) == 2, "a fork has an id of its own"
    terminal.type("publish", "model", "model.pkl")
    terminal.type("audit")
