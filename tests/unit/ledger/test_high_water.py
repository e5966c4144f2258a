"""The mark beside the keys: an older or another ledger in the place of the one that was signed for is refused."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import Rejected, RollbackError, StorageError, VerificationError
from lichen.ledger.high_water import HighWater, Mark


def mark_file(site, ledger):
    return site.home / "high-water" / f"{ledger.id}.json"


class TestLedger:
    def test_it_stands_at_the_newest_entry_that_was_acknowledged(self, site, ledger):
        water = HighWater(site.home, ledger.id)
        assert water.read() == Mark(2, ledger.root_at(2))
        entry = site.entry(ledger)
        ledger.append(entry)
        assert water.read() == Mark(3, ledger.root_at(3))
        with pytest.raises(Rejected):
            ledger.append(entry)
        assert water.read().size == 3
        ledger.append(site.entry(ledger), seal=True)
        assert water.read() == Mark(5, ledger.root_at(5))
        ledger.append_many(site.entries(ledger, 300))
        assert water.read() == Mark(305, ledger.root_at(305))
        ledger.close()
        assert water.read().size == 306

    @pytest.mark.parametrize("kept", [0, 1, 4])
    def test_acknowledged_entries_that_were_lost_with_the_write_ahead_log_are_missed(
        self, site, ledger, tmp_path, kept
    ):
        ledger._log.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        wal = site.path.with_name(site.path.name + "-wal")
        ends = [0]
        for _ in range(5):
            ledger.append(site.entry(ledger))
            ends.append(wal.stat().st_size)
        copies = [tmp_path / "whole", tmp_path / "cut"]
        for copy in copies:
            copy.mkdir()
            for name in (site.path.name, wal.name):
                shutil.copy(site.directory / name, copy)
        with (copies[1] / wal.name).open("r+b") as file:
            file.truncate(ends[kept])
        whole, cut = (type(site)(copy, site.home, site.log_key, site.alice) for copy in copies)
        assert whole.open().size == 7
        with pytest.raises(
            RollbackError, match=rf"has {2 + kept} entries, but 7 were signed for or acknowledged"
        ):
            cut.open()
        reading = cut.open(read_only=True)
        assert reading.size == 2 + kept
        for opened in (*whole.open_ledgers, *cut.open_ledgers):
            opened.close()

    def test_an_older_copy_is_refused_with_a_remedy(self, site, ledger, tmp_path):
        ledger.append(site.entry(ledger))
        ledger.close()
        backup = shutil.copytree(site.directory, tmp_path / "backup")
        with site.open() as later:
            later.append(site.entry(later))
        shutil.rmtree(site.directory)
        shutil.copytree(backup, site.directory)
        with pytest.raises(RollbackError, match="6 were signed for") as refusal:
            site.open()
        assert "init --fork-from" in refusal.value.remedy
        assert site.open(read_only=True).size == 4

    def test_another_history_of_the_same_length_is_refused(self, site, ledger, tmp_path):
        ledger.close()
        twin = shutil.copytree(site.directory, tmp_path / "twin")
        with site.open() as one:
            one.append(site.entry(one))
        shutil.rmtree(site.directory)
        shutil.copytree(twin, site.directory)
        with site.open(home=None) as other:
            other.append(site.entry(other))
            other.append(site.entry(other))
        with pytest.raises(RollbackError, match="differs within its first 4 entries"):
            site.open()

    def test_a_ledger_seen_for_the_first_time_is_believed(self, site, ledger, tmp_path):
        ledger.close()
        site.home = tmp_path / "new-home"
        with site.open() as opened:
            opened.append(site.entry(opened), seal=True)
        assert HighWater(site.home, ledger.id).read().size == 4

    def test_an_append_is_not_undone_by_a_mark_that_cannot_be_written(self, site, ledger):
        ledger._high_water.close()
        shutil.rmtree(site.home / "high-water")
        (site.home / "high-water").touch()
        index = ledger.append(site.entry(ledger), seal=True).index
        assert ledger.size == index + 2
        assert isinstance(ledger.high_water_problem, StorageError)
        (site.home / "high-water").unlink()

    def test_private_to_its_owner(self, site, ledger):
        assert mark_file(site, ledger).stat().st_mode & 0o077 == 0
        assert mark_file(site, ledger).parent.stat().st_mode & 0o077 == 0


class TestFile:
    @pytest.fixture
    def water(self, tmp_path):
        opened = HighWater(tmp_path, "ab" * 32)
        yield opened
        opened.close()

    def test_its_lines_are_json(self, water):
        water.raise_to(Mark(7, bytes(32)))
        water.raise_to(Mark(9, bytes(32)))
        lines = water.path.read_text().splitlines()
        assert sorted(json.loads(line)["size"] for line in lines) == [7, 9]
        assert {len(line) for line in lines} == {191}

    @given(sizes=st.lists(st.integers(0, 2**62), min_size=1, max_size=12))
    def test_it_only_rises(self, tmp_path_factory, sizes):
        water = HighWater(tmp_path_factory.mktemp("home"), "cd" * 32)
        for place, size in enumerate(sizes, start=1):
            water.raise_to(Mark(size, size.to_bytes(32, "big")))
            assert water.read() == Mark(max(sizes[:place]), max(sizes[:place]).to_bytes(32, "big"))
        water.close()

    @pytest.mark.parametrize("cut", [0, 1, 100, 191, 192, 193, 300, 383])
    def test_a_torn_write_loses_the_newest_mark_at_most(self, water, cut):
        for size in (5, 6, 7):
            water.raise_to(Mark(size, bytes(32)))
        data = water.path.read_bytes()
        assert data.index(b'"size": 7') < 192, "the newest stands in the first line"
        torn = bytearray(data)
        torn[cut : cut + 1] = b"\xff"
        water.path.write_bytes(torn)
        assert water.read().size == (6 if cut < 192 else 7)
        water.raise_to(Mark(8, bytes(32)))
        assert water.read().size == 8

    def test_a_file_without_any_mark_is_not_believed_silently(self, water):
        water.path.parent.mkdir(parents=True)
        water.path.write_text("nonsense\n" * 20)
        with pytest.raises(VerificationError, match="is damaged"):
            water.read()

    def test_a_blank_file_is_no_mark(self, water):
        water.path.parent.mkdir(parents=True)
        water.path.write_bytes(b" " * 384)
        assert water.read() is None

    def test_an_unreadable_file_is_said_so(self, water):
        water.path.mkdir(parents=True)
        with pytest.raises(StorageError, match="cannot read"):
            water.read()
        with pytest.raises(StorageError, match="cannot write"):
            water.raise_to(Mark(1, bytes(32)))

    def test_processes_that_raise_it_together_leave_the_highest(self, water):
        context = multiprocessing.get_context("spawn")
        home = str(water.path.parent.parent)
        processes = [context.Process(target=raise_often, args=(home, start)) for start in range(3)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert water.read().size == 299 * 3 + 2


def raise_often(home, start):
    from pathlib import Path

    water = HighWater(Path(home), "ab" * 32)
    for number in range(300):
        water.raise_to(Mark(number * 3 + start, bytes(32)))
    water.close()
    os._exit(0)
