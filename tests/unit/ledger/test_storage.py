"""Wrong files, damaged files, full disks, read-only places: each gets its own answer, and nothing is half-written."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
import warnings
from pathlib import Path

import pytest

from lichen.contracts import default_contracts
from lichen.errors import (
    CorruptLedgerError,
    FormatVersionError,
    LichenError,
    NotALedgerError,
    RollbackError,
    StorageError,
)
from lichen.ledger.audit import audit
from lichen.ledger.ledger import Ledger
from lichen.ledger.receipt import verify_receipt
from lichen.ledger.storage import SCHEMA_VERSION, Database


def readable_everything(ledger):
    """Touch all that a user can ask for."""
    for index in range(ledger.size):
        ledger.entry(index)
        ledger.receipt(index)
    ledger.state_receipt("registry", b"exact/" + bytes(32))


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("content", "error", "message"),
        [
            (b"", NotALedgerError, "is empty"),
            (b"hello, this is a text file\n" * 10, NotALedgerError, "not a Lichen ledger"),
            (os.urandom(5_000), NotALedgerError, "not a Lichen ledger"),
            (b"SQLite format 3\0", CorruptLedgerError, "cut short"),
            (b"SQLite format 3\0" + bytes(5_000), NotALedgerError, "damaged"),
        ],
    )
    def test_what_is_no_ledger_is_said_so(self, site, content, error, message):
        site.directory.mkdir(parents=True)
        site.path.write_bytes(content)
        for read_only in (True, False):
            with pytest.raises(error, match=message):
                site.open(read_only=read_only)
        assert site.path.read_bytes() == content

    def test_a_database_of_another_program(self, site):
        site.directory.mkdir(parents=True)
        with sqlite3.connect(site.path) as connection:
            connection.execute("CREATE TABLE entries(a)")
        connection.close()
        with pytest.raises(NotALedgerError, match="another program"):
            site.open()

    def test_a_directory_in_the_place_of_the_file(self, site):
        site.path.mkdir(parents=True)
        with pytest.raises(NotALedgerError, match="is a directory"):
            site.open()

    def test_a_creation_that_never_finished(self, site):
        site.directory.mkdir(parents=True)
        sqlite3.connect(site.path).execute("PRAGMA journal_mode=WAL").connection.close()
        with pytest.raises(NotALedgerError, match="never finished"):
            site.open()
        assert site.create().size == 2

    def test_a_newer_schema(self, site, ledger):
        ledger.close()
        with sqlite3.connect(site.path) as connection:
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
        connection.close()
        with pytest.raises(FormatVersionError, match=f"schema {SCHEMA_VERSION + 1}"):
            site.open()
        with pytest.raises(FormatVersionError):
            audit(site.directory, default_contracts())

    def test_a_newer_genesis_format(self, site, ledger):
        from lichen.encoding.entry import Entry
        from lichen.encoding.statement import Statement

        genesis = Statement.from_bytes(ledger.entry(0).payload)
        newer = Statement("genesis", genesis.subjects, {**genesis.predicate, "format": 2})
        ledger.close()
        with sqlite3.connect(site.path) as connection:
            data = Entry.signed(newer.to_bytes(), site.log_key).to_bytes()
            connection.execute("UPDATE entries SET entry=? WHERE idx=0", (data,))
        connection.close()
        with pytest.raises(FormatVersionError, match="format 2"):
            site.open()

    def test_a_table_is_missing(self, site, ledger):
        ledger.close()
        with sqlite3.connect(site.path) as connection:
            connection.execute("DROP TABLE tiles")
        connection.close()
        with pytest.raises(CorruptLedgerError, match="tiles"):
            site.open()
        assert not audit(site.directory, default_contracts()).is_sound


class TestDamage:
    def test_every_truncation_is_noticed(self, site, filled):
        filled.close()
        whole = site.path.read_bytes()
        for share in (0.999, 0.9, 0.5, 0.1, 0.01):
            site.path.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises((CorruptLedgerError, NotALedgerError)):
                site.open()
            assert not audit(site.directory, default_contracts()).is_sound

    def test_a_flipped_byte_is_noticed_or_harmless(self, site, filled):
        """Wherever a bit flips: opening, reading and proving give the truth or a Lichen error, and never anything else.

        What cannot be read wrong (free space, views, an index that is not asked) may go unnoticed by readers.
        """
        filled.close()
        whole = site.path.read_bytes()
        site.path.write_bytes(whole)
        with site.open(read_only=True) as ledger:
            truth = [ledger.entry(index) for index in range(ledger.size)]
            checkpoint = ledger.checkpoint()
        noticed = 0
        positions = [place * 7919 % len(whole) for place in range(120)]
        for position in positions:
            damaged = bytearray(whole)
            damaged[position] ^= 0x10
            site.path.write_bytes(damaged)
            try:
                with site.open(read_only=True) as ledger:
                    assert ledger.checkpoint() == checkpoint
                    for index in range(0, len(truth), 40):
                        assert ledger.entry(index) == truth[index]
                        ledger.receipt(index)
            except LichenError:
                noticed += 1
        assert noticed > 0

    def test_an_audit_notices_every_flip_in_an_entry(self, site, filled):
        filled.close()
        whole = site.path.read_bytes()
        needle = b'"status":"trained"'
        position = -1
        places = []
        while (position := whole.find(needle, position + 1)) >= 0:
            places.append(position)
        assert len(places) > 500
        for position in places[:: len(places) // 8]:
            damaged = bytearray(whole)
            damaged[position + 3] ^= 0x10
            site.path.write_bytes(damaged)
            report = audit(site.directory, default_contracts())
            assert report.problem is not None
            assert report.problem.index is not None

    def test_nothing_is_signed_on_top_of_a_damaged_end(self, site, ledger):
        """The unsealed tail has no stored hashes; the last seal's root gives a change in it away."""
        ledger.append_many(site.entries(ledger, 3), seal=True)
        ledger.close()
        with sqlite3.connect(site.path) as connection:
            (data,) = connection.execute("SELECT entry FROM entries WHERE idx=3").fetchone()
            changed = bytearray(data)
            changed[-5] ^= 1
            connection.execute("UPDATE entries SET entry=? WHERE idx=3", (bytes(changed),))
        connection.close()
        with pytest.raises(CorruptLedgerError, match="do not give the root that was signed"):
            site.open()

    def test_a_state_that_is_not_the_seals(self, site, ledger):
        ledger.append(site.entry(ledger), seal=True)
        ledger.close()
        with sqlite3.connect(site.path) as connection:
            connection.execute("DELETE FROM state_versions WHERE version=3")
        connection.close()
        with pytest.raises(CorruptLedgerError, match="state"):
            site.open()


class TestPowerCut:
    """The write-ahead log ends anywhere: what is left is a whole, earlier ledger, and the mark tells that it is earlier."""

    @pytest.mark.parametrize("harm", ["cut", "flip"])
    def test_any_end_of_the_write_ahead_log_is_a_whole_ledger(self, site, ledger, tmp_path, harm):
        sizes = [ledger.size]
        for number in range(12):
            ledger.append(site.entry(ledger), seal=number % 3 != 0)
            sizes.append(ledger.size)
        whole = (site.directory / "ledger.sqlite-wal").read_bytes()
        seen = set()
        for place in range(0, len(whole), len(whole) // 25):
            copy = tmp_path / f"cut-{place}"
            shutil.copytree(site.directory, copy)
            (copy / "ledger.sqlite-shm").unlink()
            harmed = (
                whole[:place]
                if harm == "cut"
                else whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
            )
            (copy / "ledger.sqlite-wal").write_bytes(harmed)
            try:
                with Ledger.open(copy, default_contracts(), log_key=site.log_key) as left:
                    seen.add(left.size)
                    assert left.size in sizes
                    left.append(site.entry(left), seal=True)
            except NotALedgerError:
                assert place < 4_200 * 20, (
                    "only before the first commit reached the file is there no ledger yet"
                )
                continue
            report = audit(copy, default_contracts())
            assert report.is_sound, report.problem
        assert len(seen) > 5

    def test_commits_lost_that_way_are_noticed_before_signing(self, site, ledger, tmp_path):
        for _ in range(4):
            ledger.append(site.entry(ledger), seal=True)
        copy = shutil.copytree(site.directory, tmp_path / "cut")
        (copy / "ledger.sqlite-shm").unlink()
        wal = copy / "ledger.sqlite-wal"
        wal.write_bytes(wal.read_bytes()[: -4_120 * 3])
        with pytest.raises(RollbackError, match="older copy"):
            Ledger.open(copy, default_contracts(), log_key=site.log_key, home=site.home)


class TestContradictions:
    """Each row is whole for SQLite; together they do not make a ledger."""

    @pytest.mark.parametrize(
        ("sql", "message"),
        [
            ("DELETE FROM entries WHERE idx=0", "has no entry 0"),
            (
                "UPDATE entries SET entry=CAST(x'02' || substr(entry, 2) AS BLOB) WHERE idx=0",
                "entry 0 .* is damaged",
            ),
            (
                "UPDATE entries SET entry=CAST(substr(entry, 1, 81) || x'7b7d' AS BLOB) WHERE idx=0",
                "entry 0 .* is damaged",
            ),
            (
                "UPDATE entries SET entry=CAST(substr(entry, 1, 17) || zeroblob(64) || substr(entry, 82) AS BLOB) WHERE idx=0",
                "entry 0",
            ),
            ("UPDATE entries SET checkpoint=NULL", "has no seal"),
            (
                "UPDATE entries SET checkpoint=CAST(substr(checkpoint, 1, 32) || zeroblob(64) AS BLOB)",
                "not signed by the log",
            ),
            (
                "UPDATE entries SET checkpoint=CAST(zeroblob(32) || substr(checkpoint, 33) AS BLOB)",
                "up to the last seal",
            ),
            (
                "UPDATE entries SET checkpoint=zeroblob(96) WHERE idx=2",
                "the seal at entry 2 is damaged: not a seal",
            ),
            (
                "UPDATE entries SET entry=(SELECT entry FROM entries WHERE idx=1) WHERE idx=3",
                "commits to size 1",
            ),
            ("UPDATE entries SET entry=substr(entry, 1, 99) WHERE idx=3", "the seal at entry 3 is damaged"),
            ("UPDATE state_versions SET version=9 WHERE version=3", "belongs to another seal"),
            ("DELETE FROM entries WHERE idx=1", "entries are missing"),
        ],
    )
    def test_opening_says_what_contradicts(self, site, ledger, sql, message):
        ledger.append(site.entry(ledger), seal=True)
        ledger.close()
        statement = sql
        if sql.endswith("WHERE idx=2") and "checkpoint=" in sql:  # a record posing as the last seal
            statement = "UPDATE entries SET checkpoint=iif(idx=2, zeroblob(96), NULL)"
        with sqlite3.connect(site.path) as connection:
            connection.execute(statement)
        connection.close()
        for read_only in (False, True):
            with pytest.raises(CorruptLedgerError, match=message):
                site.open(read_only=read_only)
        assert not audit(site.directory, default_contracts()).is_sound

    def test_a_missing_entry_is_not_one_that_never_was(self, site, filled):
        with sqlite3.connect(site.path, isolation_level=None) as connection:
            connection.execute("DELETE FROM entries WHERE idx=40")
        connection.close()
        with pytest.raises(CorruptLedgerError, match="entry 40 is missing"):
            filled.entry(40)

    def test_an_entry_by_a_key_nobody_had(self, site, filled):
        from lichen.crypto.keys import SigningKey
        from lichen.encoding.entry import Entry

        index = filled.size - 1
        stranger = Entry.signed(filled.entry(index).payload, SigningKey.generate())
        with sqlite3.connect(site.path, isolation_level=None) as connection:
            connection.execute("UPDATE entries SET entry=? WHERE idx=?", (stranger.to_bytes(), index))
        connection.close()
        with pytest.raises(CorruptLedgerError, match="which nobody ever had"):
            filled.record(index)
        with pytest.raises(CorruptLedgerError, match="which nobody ever had"):
            filled.close()  # and nothing is sealed on top of it


class TestFullDisk:
    def test_what_does_not_fit_leaves_no_trace(self, site, ledger):
        """The disk fills up in the middle of a large append; SQLite's own page limit plays the disk."""
        kept = ledger.append(site.entry(ledger), seal=True).index
        batch = site.entries(ledger, 400)
        connection = ledger._log.database.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 20}")
        with pytest.raises(StorageError, match="no room left"):
            ledger.append_many(batch)
        assert ledger.size == kept + 2
        connection.execute("PRAGMA max_page_count=1073741823")
        assert ledger.append_many(batch, seal=True)[0].index == kept + 2
        readable_everything(ledger)
        ledger.close()
        assert audit(site.directory, default_contracts()).is_sound

    @pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a tiny disk needs root"
    )
    def test_on_a_real_full_disk(self, site, tmp_path):
        disk = tmp_path / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", disk], capture_output=True, check=False
        )
        if mounted.returncode:
            pytest.skip("mounting is not allowed here")
        try:
            site.directory = disk / "ledger"
            ledger = site.create()
            appended = 0
            with pytest.raises(StorageError, match=r"no room left|failed"):
                for _ in range(5_000):
                    ledger.append(site.entry(ledger), seal=True)
                    appended += 1
            assert appended > 0
            assert ledger.size == 2 + 2 * appended
            ledger.close()
            report = audit(site.directory, default_contracts())
            assert report.is_sound, report.problem
            assert report.size == 2 + 2 * appended
        finally:
            for opened in site.open_ledgers:
                opened.close()
            subprocess.run(["umount", disk], check=True)

    def test_a_creation_that_does_not_fit_can_be_repeated(self, site, monkeypatch):
        install = Database.install_schema

        def full(self, more):
            self.connection.execute("PRAGMA max_page_count=4")
            install(self, more)

        monkeypatch.setattr(Database, "install_schema", full)
        with pytest.raises(StorageError, match="no room left"):
            site.create()
        monkeypatch.undo()
        assert site.create().size == 2


def in_child(work, *, user=None):
    """Fork, become another user, and say what ``work()`` returned or raised; everything is imported already."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the child only runs Python and SQLite, and leaves by _exit
        child = os.fork()
    if child == 0:
        try:
            if user is not None:
                os.setuid(user)
            said = str(work())
        except BaseException as error:
            said = f"{type(error).__name__} {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="to lose rights one must have them")
class TestReadOnlyPlaces:
    @pytest.fixture
    def give_away(self, site):
        """Copies the ledger to where others may look but nobody may write."""
        made = []

        def give():
            copy = Path(tempfile.mkdtemp(prefix="lichen-readonly-", dir="/tmp"))
            made.append(copy)
            shutil.copytree(site.directory, copy, dirs_exist_ok=True)
            for path in copy.iterdir():
                path.chmod(0o444)
            copy.chmod(0o555)
            return copy

        yield give
        for copy in made:
            shutil.rmtree(copy)

    @staticmethod
    def read(directory):
        with Ledger.open(directory, default_contracts(), read_only=True) as ledger:
            verify_receipt(ledger.receipt(0), None, ledger.origin)
            (count,) = ledger.connection.execute("SELECT count(*) FROM entries").fetchone()
            return ledger.size, count

    def test_a_ledger_at_rest_can_be_read(self, site, ledger, give_away):
        ledger.append(site.entry(ledger))
        verify_receipt(ledger.receipt(0), None, ledger.origin)
        ledger.close()
        copy = give_away()
        assert in_child(lambda: self.read(copy), user=NOBODY) == "(4, 4)"

    def test_commits_that_wait_beside_it_are_not_passed_over(self, site, ledger, give_away):
        ledger.append(site.entry(ledger))
        copy = give_away()
        copy.chmod(0o755)
        (copy / "ledger.sqlite-shm").unlink()
        copy.chmod(0o555)
        said = in_child(lambda: self.read(copy), user=NOBODY)
        assert said.startswith("StorageError")
        assert "cannot be written" in said

    def test_writing_there_is_refused(self, site, ledger, give_away):
        ledger.close()
        copy = give_away()
        said = in_child(lambda: Ledger.open(copy, default_contracts(), log_key=site.log_key), user=NOBODY)
        assert said.startswith("StorageError cannot open or write")

    def test_creating_there_is_refused(self, site):
        site.directory = Path("/proc/lichen")
        with pytest.raises(StorageError, match="cannot write"):
            site.create()


class TestForks:
    def test_a_ledger_does_not_cross_a_fork(self, site, ledger):
        entry = site.entry(ledger)
        assert "inherited by a fork" in in_child(lambda: ledger.append(entry))
        assert ledger.append(entry).index == 2


def test_opening_reads_the_same_few_pages_whatever_the_size(site, filled, tmp_path, monkeypatch):
    """Nothing is scanned: the queries of an opening are the same for 2 entries as for 600."""

    def queries(directory, key):
        seen: list[str] = []
        connect = sqlite3.connect

        def traced(*arguments, **options):
            connection = connect(*arguments, **options)
            connection.set_trace_callback(seen.append)
            return connection

        monkeypatch.setattr(sqlite3, "connect", traced)
        Ledger.open(directory, default_contracts(), log_key=key)._log.database.close()
        monkeypatch.undo()
        return [text for text in seen if "FROM entries" in text or "FROM tiles" in text]

    filled.close()
    large = queries(site.directory, site.log_key)
    assert len(large) < 20
    assert not any("count(*)" in text for text in large)
