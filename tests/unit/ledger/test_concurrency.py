"""Several processes on one ledger, and processes that die: one order, whole entries, nothing lost that was acknowledged."""

from __future__ import annotations

import gc
import hashlib
import os
import signal
import subprocess
import sys
import time

import pytest

from lichen.contracts import default_contracts
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.statement import Statement, Subject
from lichen.errors import RollbackError
from lichen.ledger.audit import audit
from lichen.ledger.open_files import OpenFile, is_open
from lichen.ledger.seal import Seal

WRITER = """
import os, sys
from lichen.contracts import default_contracts
from lichen.crypto.keys import SigningKey
from lichen.encoding.statement import Subject
from lichen.ledger.ledger import Ledger

directory, log_seed, member, seed, count, seal_every = sys.argv[1:]
key = SigningKey.from_seed(bytes.fromhex(seed))
ledger = Ledger.open(directory, default_contracts(), log_key=SigningKey.from_seed(bytes.fromhex(log_seed)))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(count)):
    said = {"cid": "bafkrei" + "a" * 52, "size_bytes": number}
    record = ledger.statement("data", [Subject("d", os.urandom(32))], said, member=member)
    index = ledger.append_signed(record, key, seal=number % int(seal_every) == 0).index
    print(index, flush=True)
ledger.close()
"""


class Writers:
    """Processes that append to one ledger, all let go at the same moment."""

    def __init__(self, site, ledger, count, *, appends, seal_every):
        self.processes = []
        for number in range(count):
            key = SigningKey.generate()
            name = f"writer-{number}"
            admit = {"action": "admit", "subject_member": name, "key": b64u(key.public.raw)}
            statement = ledger.statement("member", [Subject("key", key.public.raw)], admit, member="alice")
            ledger.append_signed(statement, site.alice)
            arguments = [site.directory, site.log_key.seed.hex(), name, key.seed.hex(), appends, seal_every]
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-c", WRITER, *map(str, arguments)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"

    def let_go(self):
        for process in self.processes:
            process.stdin.write("\n")
            process.stdin.flush()

    def acknowledged(self):
        """Indices each process was told, after all have ended."""
        told = []
        for process in self.processes:
            output, _ = process.communicate(timeout=120)
            told.append([int(line) for line in output.split("\n")[:-1]])
        return told


@pytest.mark.slow
def test_eight_processes_of_200_appends_give_one_order(site, ledger):
    writers = Writers(site, ledger, 8, appends=200, seal_every=25)
    writers.let_go()
    told = writers.acknowledged()
    assert all(process.returncode == 0 for process in writers.processes)
    indices = [index for one in told for index in one]
    assert len(indices) == len(set(indices)) == 1_600
    assert all(one == sorted(one) for one in told)
    for number, one in enumerate(told):
        assert {ledger.record(index).member for index in one[::40]} == {f"writer-{number}"}
    seals = [index for index, entry in ledger.entries() if b"urn:lichen:seal" in entry.payload]
    times = [
        Seal.from_statement(Statement.from_bytes(ledger.entry(seal).payload)).time_unix_ms for seal in seals
    ]
    assert times == sorted(times)
    assert ledger.size == 2 + 8 + 1_600 + len(seals) - 1
    ledger.close()
    report = audit(site.directory, default_contracts())
    assert report.is_sound, report.problem


@pytest.mark.slow
@pytest.mark.parametrize("seal_every", [1, 7])
def test_writers_killed_at_any_moment_leave_whole_entries(site, ledger, seal_every):
    """Kill -9 while four processes append: what was acknowledged is there, the rest never happened, and it goes on."""
    ledger.append(site.entry(ledger), seal=True)
    writers = Writers(site, ledger, 4, appends=100_000, seal_every=seal_every)
    writers.let_go()
    for process in writers.processes:
        time.sleep(0.15)
        os.kill(process.pid, signal.SIGKILL)
    told = writers.acknowledged()
    assert all(process.returncode == -signal.SIGKILL for process in writers.processes)
    assert sum(map(len, told)) > 0
    for number, one in enumerate(told):
        for index in one:
            assert ledger.record(index).member == f"writer-{number}"
    after = ledger.append(site.entry(ledger), seal=True).index
    assert after > max(index for one in told for index in one)
    ledger.close()
    report = audit(site.directory, default_contracts())
    assert report.is_sound, report.problem


def test_two_ledgers_in_one_process_take_turns(site, ledger):
    other = site.open()
    indices = [
        (ledger, other)[number % 2].append(site.entry(ledger), seal=number % 5 == 0).index
        for number in range(40)
    ]
    assert indices == sorted(indices)
    assert ledger.checkpoint() == other.checkpoint()
    assert ledger.size == other.size
    for index in indices:
        assert ledger.entry(index) == other.entry(index)


def test_threads_share_one_ledger(site, ledger):
    import threading

    entries = [site.entries(ledger, 10) for _ in range(4)]
    indices = []

    def work(number):
        for entry in entries[number]:
            index = ledger.append(entry, seal=number == 0).index
            ledger.receipt(index)
            indices.append(index)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(indices)) == 40
    ledger.close()
    assert audit(site.directory, default_contracts()).is_sound


def test_an_interrupted_append_never_happened(site, ledger, monkeypatch):
    """Ctrl-C between the entry and the commit: rolled back, and the next append takes the index."""

    def interrupted(*_):
        raise KeyboardInterrupt

    entry = site.entry(ledger)
    for station in ("insert_entry", "flush"):
        monkeypatch.setattr(ledger._log.tables, station, interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.append(entry, seal=station == "flush")
        monkeypatch.undo()
        assert ledger.size == 2
        assert ledger.find_payload(hashlib.sha256(entry.payload).digest()) is None
    assert ledger.append(entry, seal=True).index == 2
    ledger.close()
    assert audit(site.directory, default_contracts()).is_sound


def test_a_file_exchanged_below_an_open_ledger_is_noticed(site, ledger):
    """Going backwards while open can only mean that an older state was put in place."""
    for _ in range(3):
        ledger.append(site.entry(ledger), seal=True)
    log = ledger._log
    with log.database.write() as connection:
        connection.execute("DELETE FROM entries WHERE idx>=4")
    with pytest.raises(RollbackError, match="had 8 entries and now has 4"):
        ledger.append(site.entry(ledger))
    with pytest.raises(RollbackError):
        ledger.receipt(0)
    ledger._is_closed = True
    log.database.close()


def test_looking_at_an_open_ledger_takes_no_lock_from_it(site, ledger):
    """A second reader is opened and closed here; the process that comes and goes must not believe to be the last."""
    with site.open(read_only=True):
        pass
    with site.open(read_only=True) as reader:
        writers = Writers(site, ledger, 1, appends=3, seal_every=1)
        writers.let_go()
        assert len(writers.acknowledged()[0]) == 3
        index = ledger.append(site.entry(ledger), seal=True).index
        assert reader.entry(index) == ledger.entry(index)
    command = "import sys; from lichen.ledger.ledger import Ledger; from lichen.contracts import default_contracts as c\n"
    command += "with Ledger.open(sys.argv[1], c(), read_only=True) as ledger: print(ledger.size)"
    done = subprocess.run(
        [sys.executable, "-c", command, str(site.directory)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == ledger.size == index + 2


def test_a_file_counts_as_open_until_the_last_of_those_who_have_it_open_is_gone(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    looked: list[object] = []
    first, second = OpenFile(path, looked.append), OpenFile(path, looked.append)
    assert looked == [path]
    first.close()
    first.close()
    assert is_open(path)
    del second
    gc.collect()
    assert not is_open(path)
    OpenFile(path, looked.append).close()
    assert looked == [path, path]
    with pytest.raises(RollbackError):
        OpenFile(path, lambda _: (_ for _ in ()).throw(RollbackError("not this one")))
    assert not is_open(path)
