"""What waits in the spool survives anything and reaches the ledger once."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import NotFoundError, Rejected, StorageError
from lichen.runs.records.spool import Spool, SpooledOutput

OUTPUT = SpooledOutput("/project/model.bin", "ab" * 32, 12)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


class Ledger:
    """Appends unless told to fail; refuses what it has, as the ledger does."""

    def __init__(self, fails: Exception | None = None) -> None:
        self.records: list[bytes] = []
        self.batches: list[int] = []
        self.fails = fails

    def append(self, records: Sequence[bytes]) -> list[Rejected | None]:
        if self.fails is not None and not isinstance(self.fails, Rejected):
            raise self.fails
        self.batches.append(len(records))
        return [self._take(record) for record in records]

    def _take(self, record: bytes) -> Rejected | None:
        if isinstance(self.fails, Rejected):
            return self.fails
        if record in self.records:
            return Rejected("ledger.duplicate", "it is there")
        self.records.append(record)
        return None


def test_a_record_waits_with_all_that_was_said(spool: Spool, tmp_path: Path) -> None:
    path = spool.add(b"record", outputs=[OUTPUT], reason="disk full")
    assert path.parent == tmp_path / "spool"
    assert path.stat().st_mode & 0o077 == 0
    (waiting,) = spool.waiting()
    assert (waiting.record, waiting.outputs, waiting.reason, waiting.path) == (
        b"record",
        (OUTPUT,),
        "disk full",
        path,
    )
    assert waiting.time_unix_ms <= time.time() * 1000


def test_the_same_record_waits_once(spool: Spool) -> None:
    assert spool.add(b"record") == spool.add(b"record")
    assert len(spool.waiting()) == 1


def test_flushing_appends_in_the_order_of_adding_and_empties_the_spool(spool: Spool) -> None:
    records = [bytes([65 + n]) * 10 for n in range(6)]
    for record in records:
        spool.add(record)
        time.sleep(0.002)
    ledger = Ledger()
    assert spool.flush(ledger.append) == 6
    assert ledger.records == records
    assert spool.waiting() == ()
    assert spool.flush(ledger.append) == 0


def test_a_spool_that_was_never_used_is_empty(spool: Spool, tmp_path: Path) -> None:
    assert spool.waiting() == ()
    assert spool.flush(Ledger().append) == 0
    assert not (tmp_path / "spool").exists()


def test_a_record_that_is_in_the_ledger_already_is_done(spool: Spool) -> None:
    ledger = Ledger()
    ledger.append([b"record"])
    spool.add(b"record")
    assert spool.flush(ledger.append) == 0
    assert spool.waiting() == ()


def test_a_ledger_that_still_fails_leaves_everything(spool: Spool) -> None:
    spool.add(b"one")
    spool.add(b"two")
    with pytest.raises(StorageError):
        spool.flush(Ledger(StorageError("still full")).append)
    assert len(spool.waiting()) == 2


def test_a_record_that_a_rule_refuses_is_set_aside_and_named(spool: Spool) -> None:
    path = spool.add(b"record")
    problems: list[str] = []
    refusing = Ledger(Rejected("members.key-revoked", "the key was revoked"))
    assert spool.flush(refusing.append, on_problem=problems.append) == 0
    assert spool.waiting() == ()
    aside = path.parent / "rejected" / path.name
    assert str(aside) in problems[0]
    assert "members.key-revoked" in problems[0]
    aside.rename(path)  # what the message advises
    ledger = Ledger()
    assert spool.flush(ledger.append) == 1


@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
def test_a_flipped_byte_is_noticed_and_set_aside(
    tmp_path_factory: pytest.TempPathFactory, position: int, flip: int
) -> None:
    directory = tmp_path_factory.mktemp("spool")
    spool = Spool(directory)
    path = spool.add(b"record", outputs=[OUTPUT])
    data = bytearray(path.read_bytes())
    data[position % len(data)] ^= flip
    path.write_bytes(data)
    problems: list[str] = []
    ledger = Ledger()
    spool.flush(ledger.append, on_problem=problems.append)
    assert ledger.records == []
    assert str(directory / "damaged" / path.name) in problems[0]
    assert (directory / "damaged" / path.name).read_bytes() == data


@pytest.mark.parametrize("size", [0, 1, 20, 100, 200])
def test_a_truncated_file_is_set_aside_and_the_others_go_on(spool: Spool, size: int) -> None:
    broken = spool.add(b"broken")
    spool.add(b"whole")
    os.truncate(broken, size)
    ledger = Ledger()
    assert spool.flush(ledger.append) == 1
    assert ledger.records == [b"whole"]


def test_a_file_under_another_name_is_not_taken_for_that_record(spool: Spool) -> None:
    path = spool.add(b"record")
    path.rename(path.with_name("0" * 64 + ".record"))
    assert spool.waiting() == ()


def test_outputs_are_stored_before_the_record_is_appended(spool: Spool) -> None:
    spool.add(b"record", outputs=[OUTPUT])
    events: list[object] = []

    def append(records: Sequence[bytes]) -> list[None]:
        events.extend(records)
        return [None] * len(records)

    spool.flush(append, store=events.append)
    assert events == [OUTPUT, b"record"]


def test_an_output_that_is_gone_is_named_and_the_record_stands(spool: Spool) -> None:
    spool.add(b"record", outputs=[OUTPUT])
    problems: list[str] = []

    def store(output: SpooledOutput) -> None:
        raise NotFoundError("it is gone")

    ledger = Ledger()
    assert spool.flush(ledger.append, store=store, on_problem=problems.append) == 1
    assert OUTPUT.path in problems[0]


@pytest.mark.parametrize("error", [StorageError("no room left"), OSError(28, "No space left on device")])
def test_what_the_store_cannot_take_yet_waits_and_holds_up_nothing_else(
    spool: Spool, error: Exception
) -> None:
    outputs = [SpooledOutput(f"/project/{number}", "ab" * 32, 12) for number in range(4)]
    for number, output in enumerate(outputs):
        spool.add(b"record %d" % number, outputs=[output])
        time.sleep(0.002)
    problems: list[str] = []
    stored: list[SpooledOutput] = []
    is_full = True

    def store(output: SpooledOutput) -> None:
        if is_full and output is not outputs[0] and output.path in ("/project/1", "/project/2"):
            raise error
        stored.append(output)

    ledger = Ledger()
    assert spool.flush(ledger.append, store=store, on_problem=problems.append) == 2
    assert ledger.records == [b"record 0", b"record 3"]
    assert [waiting.record for waiting in spool.waiting()] == [b"record 1", b"record 2"]
    assert len(problems) == 2
    assert all("waits for the next command" in problem for problem in problems)
    is_full = False
    assert spool.flush(ledger.append, store=store, on_problem=problems.append) == 2
    assert sorted(ledger.records) == [b"record 0", b"record 1", b"record 2", b"record 3"]
    assert sorted(output.path for output in stored) == [output.path for output in outputs]
    assert spool.waiting() == ()


def test_a_directory_that_cannot_be_written_is_replaced_by_the_other(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spool = Spool(tmp_path / "file" / "spool", tmp_path / "other")
    assert spool.add(b"record").parent == tmp_path / "other"
    ledger = Ledger()
    assert spool.flush(ledger.append) == 1


def test_no_directory_at_all_is_a_storage_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file/spool"):
        Spool(tmp_path / "file" / "spool").add(b"record")


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    script = (
        "import resource, sys\nfrom pathlib import Path\nfrom lichen.errors import StorageError\n"
        "from lichen.runs.records.spool import Spool\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: Spool(Path(sys.argv[1])).add(b'x' * 5000)\n"
        "except StorageError: sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == 7
    assert list(tmp_path.iterdir()) == []


def test_two_processes_do_not_flush_at_once(spool: Spool) -> None:
    spool.add(b"record")
    inner: list[int] = []

    def reached(records: Sequence[bytes]) -> list[None]:
        inner.append(-1)
        return [None] * len(records)

    def append(records: Sequence[bytes]) -> list[None]:
        inner.append(spool.flush(reached))
        return [None] * len(records)

    assert spool.flush(append) == 1
    assert inner == [0]


def test_many_records_are_appended_together_but_not_all_at_once(spool: Spool) -> None:
    records = [b"record %d" % number for number in range(230)]
    for record in records:
        spool.add(record)
    ledger = Ledger()
    ledger.records.append(records[7])
    assert spool.flush(ledger.append) == 229
    assert sorted(ledger.records) == sorted(records)
    assert ledger.batches == [100, 100, 30]
    assert spool.waiting() == ()
