"""Archives: what is in them, how they grow, and what an interruption leaves."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sample_ledger

from lichen.archive import staging
from lichen.archive.log_files import LogFiles
from lichen.content.car import import_artefact
from lichen.content.memory_store import MemoryStore
from lichen.encoding.canonical import parse_canonical
from lichen.errors import StorageError, UsageError, VerificationError
from lichen.ledger.checkpoint import open_checkpoint

if TYPE_CHECKING:
    from tests.unit.archive.conftest import Place, Verify


def names_of(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def flag(place: Place, error: str) -> int:
    with place.open() as ledger:
        said = ledger.statement(
            "flag", ledger.record(8).statement.subjects, {"of": 8, "error": error}, member="ada"
        )
        return ledger.append_signed(said, sample_ledger.ADA).index


class TestContent:
    def test_every_file_is_listed_with_its_digest(self, written: Place):
        lines = (written.out / "SHA256SUMS").read_text("ascii").splitlines()
        listed = {line[66:]: line[:64] for line in lines}
        assert listed.keys() == names_of(written.out) - {"SHA256SUMS"}
        for name, digest in listed.items():
            assert hashlib.sha256((written.out / name).read_bytes()).hexdigest() == digest, name

    def test_bundles_hold_every_entry_up_to_the_checkpoint(self, written: Place):
        with written.open(read_only=True) as ledger:
            size = ledger.sealed_size
            data = (written.out / f"tile/entries/000.p/{size}").read_bytes()
            for _, entry in ledger.entries(0, size):
                assert data[:2] == len(entry.to_bytes()).to_bytes(2, "big")
                assert data[2:].startswith(entry.to_bytes())
                data = data[2 + len(entry.to_bytes()) :]
            assert data == b""
            note = (written.out / "checkpoint").read_text("utf-8")
            head = open_checkpoint(note, ledger.origin, ledger.genesis.log_key)
            assert (head.tree_size, head.root) == (size, ledger.root_at(size))

    def test_a_log_of_more_than_one_tile(
        self, tmp_path: Path, verify: Verify, make_place: Callable[..., Place]
    ):
        place = make_place(tmp_path, run_count=260)
        size = place.write(artefacts=False).size
        assert 256 < size < 512
        tiles = {name for name in names_of(place.out) if name.startswith("tile/")}
        rest = size - 256
        assert tiles == {
            "tile/0/000",
            f"tile/0/001.p/{rest}",
            "tile/1/000.p/1",
            "tile/entries/000",
            f"tile/entries/001.p/{rest}",
        }
        assert verify(place.out)[0] == 0

    def test_artefacts_are_whole_and_sealed_ones_stay_sealed(self, written: Place):
        rows = [parse_canonical(line) for line in (written.out / "artefacts.jsonl").read_bytes().splitlines()]
        included = [row for row in rows if row["status"] == "included"]
        assert {row["sealed"] for row in included} == {True, False}
        assert any(row["size_bytes"] > 2**18 for row in included)
        for row in included:
            store = MemoryStore()
            with (written.out / f"artefacts/{row['cid'][-3:-1]}/{row['cid']}.car").open("rb") as file:
                names = import_artefact(store, file)
            assert (names.sha256.hex(), names.size_bytes) == (row["sha256"], row["size_bytes"])
        assert any(row["status"] == "missing" for row in rows)

    def test_no_secret_is_in_it(self, written: Place):
        secrets = [sample_ledger.LOG.seed, sample_ledger.ADA.seed]
        for name in names_of(written.out):
            data = (written.out / name).read_bytes()
            assert not any(seed in data or seed.hex().encode() in data for seed in secrets), name

    def test_what_no_seal_covers_is_left_out_and_counted(self, place: Place):
        with place.open() as ledger:
            ledger.seal(force=True)
        flag_index = flag(place, "late")
        connection_size = flag_index + 2  # closing the ledger sealed it
        report = place.write()
        assert report.size == connection_size
        assert report.unsealed_count == 0

    def test_a_change_of_keys_that_no_seal_covers_is_not_archived_in_silence(self, place: Place):
        with pytest.raises(UsageError, match="not sealed yet"):
            place.write(read_only=True)
        assert not place.out.exists()

    def test_artefacts_can_be_left_out(self, place: Place, verify: Verify):
        report = place.write(artefacts=False)
        assert report.artefacts["included"] == 0
        assert report.artefacts["left-out"] > 0
        assert not (place.out / "artefacts").exists()
        assert verify(place.out)[0] == 0

    def test_a_damaged_artefact_is_told_and_left_out(self, place: Place, verify: Verify):
        cid = sample_ledger.cid_of(sample_ledger.manifest_of(0))
        (path,) = place.store.path.rglob(cid)
        path.chmod(0o644)
        path.write_bytes(b"other bytes")
        report = place.write()
        assert report.damaged == [cid]
        assert cid in report.missing
        assert verify(place.out)[0] == 0

    def test_it_is_the_same_each_time(self, place: Place, tmp_path: Path):
        place.write()
        place.write(tmp_path / "again")
        assert (place.out / "SHA256SUMS").read_bytes() == (tmp_path / "again" / "SHA256SUMS").read_bytes()


class TestTarget:
    def test_what_is_there_is_not_touched(self, place: Place):
        place.out.mkdir()
        (place.out / "mine").write_text("x")
        with pytest.raises(UsageError, match="not empty"):
            place.write()
        assert names_of(place.out) == {"mine"}

    @pytest.mark.parametrize("kind", ["file", "link"])
    def test_something_else_in_its_place_is_refused(self, place: Place, tmp_path: Path, kind: str):
        if kind == "file":
            place.out.write_text("x")
        else:
            (tmp_path / "elsewhere").mkdir()
            place.out.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(UsageError, match="no directory"):
            place.write()

    def test_an_empty_directory_is_taken(self, place: Place):
        place.out.mkdir()
        place.write()
        assert (place.out / "SHA256SUMS").is_file()

    def test_one_process_at_a_time(self, place: Place):
        with staging.Staging(place.out), pytest.raises(UsageError, match="another process"):
            place.write()
        place.write()


class TestUpdate:
    def test_only_what_is_new_is_written(
        self, tmp_path: Path, verify: Verify, make_place: Callable[..., Place]
    ):
        place = make_place(tmp_path, run_count=260)
        first = place.write()
        full = place.out / "tile/entries/000"
        before = (full.stat().st_ino, full.stat().st_mtime_ns)
        flag(place, "found later")
        second = place.write(update=True)
        assert second.size == first.size + 2
        assert second.written_count < 14 < second.file_count
        assert (full.stat().st_ino, full.stat().st_mtime_ns) == before
        assert verify(place.out)[0] == 0
        fresh = tmp_path / "fresh"
        place.write(fresh)
        assert (fresh / "SHA256SUMS").read_bytes() == (place.out / "SHA256SUMS").read_bytes()

    def test_an_artefact_that_turned_up_is_added(self, place: Place, verify: Verify):
        missing = place.write().artefacts["missing"]
        place.store.put_bytes(sample_ledger.manifest_of(1))
        report = place.write(update=True)
        assert report.artefacts["missing"] == missing - 1
        assert verify(place.out)[0] == 0

    def test_artefacts_of_the_archive_outlive_the_store(self, place: Place, verify: Verify):
        included = place.write().artefacts["included"]
        for cid in list(place.store.list()):
            place.store.delete(cid)
        assert place.write(update=True).artefacts["included"] == included
        assert place.write(update=True, artefacts=False).artefacts["included"] == included
        assert verify(place.out)[0] == 0

    def test_nothing_to_update(self, place: Place):
        with pytest.raises(UsageError, match="not an archive"):
            place.write(update=True)

    def test_an_archive_of_another_ledger_is_refused(self, place: Place, written: Place, tmp_path: Path):
        sample_ledger.make_sample(tmp_path / "other", access="private", run_count=12)
        other = replace(place, ledger=tmp_path / "other", out=tmp_path / "other-out")
        other.write()
        with pytest.raises(VerificationError, match="another ledger"):
            place.write(tmp_path / "other-out", update=True)

    def test_an_older_copy_is_refused(self, place: Place, tmp_path: Path):
        import shutil

        shutil.copytree(place.ledger, tmp_path / "old")
        flag(place, "later")
        place.write()
        old = replace(place, ledger=tmp_path / "old")
        sums = (place.out / "SHA256SUMS").read_bytes()
        with pytest.raises(VerificationError, match="older copy"):
            old.write(update=True)
        flag(old, "one way")
        flag(old, "and another")
        with pytest.raises(VerificationError, match="the log was split"):
            old.write(update=True)
        assert (place.out / "SHA256SUMS").read_bytes() == sums

    def test_an_update_stopped_between_two_renames_is_mended(self, place: Place, verify: Verify):
        place.write()
        place.out.rename(place.out.with_name("out.earlier"))
        place.write(update=True)
        assert verify(place.out)[0] == 0

    def test_without_an_exchange_of_names(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, verify: Verify
    ):
        place.write()
        flag(place, "later")
        monkeypatch.setattr("lichen.archive.staging.ctypes.CDLL", lambda *_, **__: object())
        place.write(update=True)
        assert verify(place.out)[0] == 0
        assert not place.out.with_name("out.earlier").exists()


class TestInterruption:
    def failing(self, monkeypatch: pytest.MonkeyPatch, call: int, error: BaseException) -> list[int]:
        """Let the n-th time that something is made durable fail."""
        real, calls = os.fsync, [0]

        def fsync(descriptor: int) -> None:
            calls[0] += 1
            if calls[0] == call:
                raise error
            real(descriptor)

        monkeypatch.setattr("lichen.archive.staging.os.fsync", fsync)
        return calls

    def test_a_full_disk_leaves_no_half_archive_and_a_second_attempt_succeeds(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, verify: Verify
    ):
        with place.open() as ledger:
            ledger.seal(force=True)
        full = OSError(errno.ENOSPC, "No space left on device")
        for call in (1, 2, 3, 5, 7):
            with monkeypatch.context() as patch, pytest.raises(StorageError, match="disk is full"):
                self.failing(patch, call, full)
                place.write()
            assert not place.out.exists()
        report = place.write()
        assert report.written_count < report.file_count
        assert verify(place.out)[0] == 0
        assert not (place.out.parent / ".out.partial").exists()

    def test_an_interrupted_update_leaves_the_archive_as_it_was(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, verify: Verify
    ):
        place.write()
        flag(place, "later")
        sums = (place.out / "SHA256SUMS").read_bytes()
        for call in (1, 3, 5, 8):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                self.failing(patch, call, KeyboardInterrupt())
                place.write(update=True)
            assert (place.out / "SHA256SUMS").read_bytes() == sums
            assert verify(place.out)[0] == 0
        place.write(update=True)
        assert (place.out / "SHA256SUMS").read_bytes() != sums
        assert verify(place.out)[0] == 0

    def test_what_an_earlier_attempt_left_is_not_believed(
        self, place: Place, monkeypatch: pytest.MonkeyPatch, verify: Verify
    ):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            self.failing(patch, 18, KeyboardInterrupt())
            place.write()
        partial = place.out.parent / ".out.partial"
        spoiled = [path for path in partial.rglob("*") if path.is_file()]
        assert spoiled
        for path in spoiled:
            path.write_bytes(b"\0" + path.read_bytes()[1:])
        (partial / "left-over").write_text("x")
        place.write()
        assert verify(place.out)[0] == 0

    def test_killed_at_any_moment(self, place: Place, verify: Verify):
        program = (
            "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:];"
            "from tests.unit.archive.conftest import Place; from lichen.content.directory_store import DirectoryStore;"
            "base = Path(sys.argv[1]);"
            "import os, signal, lichen.archive.staging as s; real = os.fsync; left = [int(os.environ['LEFT'])];\n"
            "def fsync(d):\n left[0] -= 1\n left[0] or os.kill(os.getpid(), signal.SIGKILL)\n real(d)\n"
            "s.os.fsync = fsync\n"
            "Place(base / 'ledger', DirectoryStore(base / 'store'), base / 'out', ()).write()"
        )
        paths = [str(Path(__file__).parents[3]), str(Path(__file__).parents[3] / "tools")]
        for left in (2, 9, 16):
            done = subprocess.run(
                [sys.executable, "-c", program, str(place.out.parent), *paths],
                env={**os.environ, "LEFT": str(left)},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == -9, done.stderr
            assert not place.out.exists()
        place.write()
        assert verify(place.out)[0] == 0


def test_a_root_that_the_tiles_do_not_lead_to_is_not_archived(place: Place, monkeypatch: pytest.MonkeyPatch):
    real: Any = LogFiles.make
    monkeypatch.setattr(LogFiles, "make", lambda self: real(self)[::-1])
    with pytest.raises(VerificationError, match="do not give the root"):
        place.write()
    assert not place.out.exists()
