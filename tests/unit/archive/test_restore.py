"""Back from an archive: the same bytes, readable at once, writable only with the log's key and never behind the mark."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sample_ledger

from lichen.archive import restore as restoring
from lichen.archive.restore import restore
from lichen.content.directory_store import DirectoryStore
from lichen.contracts import default_contracts
from lichen.errors import KeyFileError, RollbackError, StorageError, UsageError
from lichen.ledger.audit import audit
from lichen.ledger.ledger import Ledger
from lichen.runs.queries.views import default_views

if TYPE_CHECKING:
    from tests.unit.archive.conftest import Place, Verify


def open_at(directory: Path, **options: Any) -> Ledger:
    return Ledger.open(directory, default_contracts(), default_views(), **options)


def test_every_byte_of_the_log_comes_back(written: Place, tmp_path: Path):
    restored = restore(written.out, tmp_path / "back", default_contracts(), default_views())
    assert audit(tmp_path / "back", default_contracts()).problem is None
    with written.open(read_only=True) as one, open_at(tmp_path / "back") as other:
        entries = [entry.to_bytes() for _, entry in one.entries(0, one.sealed_size)]
        assert [entry.to_bytes() for _, entry in other.entries()] == entries
        assert other.checkpoint() == one.checkpoint()
        assert restored.root == other.root_at(other.size).hex()
        for index in (1, other.size - 1):
            assert other.checkpoint_behind(index) == one.checkpoint_behind(index)
        assert other.receipt(5).to_text() == one.receipt(5).to_text()
        (runs,) = other.connection.execute("SELECT count(*) FROM view_run").fetchone()
        assert runs > 10


def test_an_archive_of_what_was_restored_is_the_same(written: Place, tmp_path: Path):
    from lichen.archive.writer import write_archive

    restore(written.out, tmp_path / "back", default_contracts())
    with open_at(tmp_path / "back") as ledger:
        write_archive(
            ledger,
            tmp_path / "again",
            store=DirectoryStore(tmp_path / "back" / "store"),
            named_within=written.named_within,
        )
    assert (tmp_path / "again" / "SHA256SUMS").read_bytes() == (written.out / "SHA256SUMS").read_bytes()


def test_artefacts_come_back(written: Place, tmp_path: Path):
    restored = restore(written.out, tmp_path / "back", default_contracts())
    store = DirectoryStore(tmp_path / "back" / "store")
    assert set(store.list()) == set(written.store.list())
    assert restored.artefact_count == len(set(written.store.list()))
    assert all(cid.startswith("b") for cid in restored.missing)
    assert restored.missing


def test_it_can_be_read_and_not_written(written: Place, tmp_path: Path):
    restore(written.out, tmp_path / "back", default_contracts())
    assert not list((tmp_path / "back").glob("*.key"))
    with open_at(tmp_path / "back") as ledger, pytest.raises(UsageError, match="reading only"):
        ledger.append_many([])
    with pytest.raises(KeyFileError, match="not the one of ledger"):
        open_at(tmp_path / "back", log_key=sample_ledger.ADA)


def test_with_the_key_it_goes_on(written: Place, tmp_path: Path, verify: Verify):
    restore(written.out, tmp_path / "back", default_contracts())
    with open_at(tmp_path / "back", log_key=sample_ledger.LOG, home=tmp_path / "home") as ledger:
        said = ledger.statement(
            "flag", ledger.record(8).statement.subjects, {"of": 8, "error": "later"}, member="ada"
        )
        ledger.append_signed(said, sample_ledger.ADA, seal=True)
    assert audit(tmp_path / "back", default_contracts()).problem is None


def test_an_old_archive_is_not_signed_for_again(place: Place, tmp_path: Path):
    place.write()
    home = tmp_path / "home"
    with open_at(place.ledger, log_key=sample_ledger.LOG, home=home) as ledger:
        said = ledger.statement(
            "flag", ledger.record(8).statement.subjects, {"of": 8, "error": "later"}, member="ada"
        )
        ledger.append_signed(said, sample_ledger.ADA, seal=True)
    restore(place.out, tmp_path / "back", default_contracts())
    with open_at(tmp_path / "back", home=home) as ledger:
        assert ledger.size > 0
    with pytest.raises(RollbackError, match="older copy") as refused:
        open_at(tmp_path / "back", log_key=sample_ledger.LOG, home=home)
    assert "--fork-from" in refused.value.remedy


def test_cosignatures_go_along(place: Place, tmp_path: Path, verify: Verify):
    from lichen.crypto.keys import SigningKey
    from lichen.crypto.note import NoteKey, SignatureType, cosign_note
    from lichen.ledger.cosigned import CosignedCheckpoints

    witness = SigningKey.from_seed(bytes([9]) * 32)
    with place.open() as ledger:
        ledger.seal(force=True)
        checkpoint, size = ledger.checkpoint(), ledger.sealed_size
    body = checkpoint.partition("\n\n")[0] + "\n"
    line = cosign_note(body, "witness.example/w1", witness, 1_760_000_000)
    CosignedCheckpoints(place.ledger).add(checkpoint, line)
    place.write()
    names = [
        NoteKey(f"witness.example/w{n}", witness.public, SignatureType.COSIGNATURE_V1).vkey for n in (1, 2)
    ]
    assert verify(place.out, "--witness", names[0])[0] == 0
    status, answer = verify(place.out, "--witness", names[1])
    assert (status, answer["why"]) == (1, "witness.example/w2 has not signed the checkpoint")
    restore(place.out, tmp_path / "back", default_contracts())
    note = CosignedCheckpoints(tmp_path / "back").read(size)
    assert note is not None
    assert len(note.signatures) == 2


def test_a_log_whose_key_was_succeeded(place: Place, tmp_path: Path, verify: Verify):
    """Both programs follow from the first key to the next, in an archive made at once and in one brought up to date."""
    from lichen.archive.writer import write_archive
    from lichen.crypto.keys import SigningKey
    from lichen.ledger.succession import Succession

    new = SigningKey.from_seed(bytes([98]) * 32)
    place.write()
    early = (place.out / "checkpoint").read_text("utf-8")
    (tmp_path / "early").write_text(early, "utf-8")
    with place.open() as ledger:
        said = Succession.sign(ledger.id, sample_ledger.LOG, new)
        ledger.succeed_log_key(said, "ada", sample_ledger.ADA, new)
    with open_at(place.ledger, log_key=new) as ledger:
        index = ledger.append_signed(
            ledger.statement(
                "flag", ledger.record(8).statement.subjects, {"of": 8, "error": "x"}, member="ada"
            ),
            sample_ledger.ADA,
            seal=True,
        ).index
        for out, update in ((place.out, True), (tmp_path / "fresh", False)):
            report = write_archive(
                ledger, out, store=place.store, named_within=place.named_within, update=update
            )
            assert report.size == index + 2
    assert (tmp_path / "fresh" / "SHA256SUMS").read_bytes() == (place.out / "SHA256SUMS").read_bytes()
    for key in (sample_ledger.LOG, new):
        status, answer = verify(
            place.out, "--log-key", key.public.did_key, "--earlier", str(tmp_path / "early")
        )
        assert (status, answer["why"]) == (0, None)
    assert verify(place.out, "--log-key", sample_ledger.ADA.public.did_key)[0] == 1
    restore(place.out, tmp_path / "back", default_contracts())
    assert audit(tmp_path / "back", default_contracts()).problem is None
    with open_at(tmp_path / "back") as ledger:
        assert ledger.log_key == new.public


@pytest.mark.parametrize("kind", ["file", "full", "link"])
def test_what_is_there_is_not_touched(kind: str, written: Place, tmp_path: Path):
    target = tmp_path / "back"
    if kind == "file":
        target.write_text("mine")
    elif kind == "full":
        target.mkdir()
        (target / "ledger.sqlite").write_text("mine")
    else:
        target.symlink_to(tmp_path)
    with pytest.raises(UsageError, match="not empty"):
        restore(written.out, target, default_contracts())
    assert (target / "ledger.sqlite").read_text() == "mine" if kind == "full" else target.exists()


def test_a_full_disk_leaves_nothing_under_the_name(
    written: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match="No space left"):
        patch.setattr(restoring, "_restore_artefacts", full)
        restore(written.out, tmp_path / "back", default_contracts())
    assert not (tmp_path / "back").exists()
    restore(written.out, tmp_path / "back", default_contracts())
    assert audit(tmp_path / "back", default_contracts()).problem is None


def test_one_process_at_a_time_and_nothing_of_an_attempt_before(written: Place, tmp_path: Path):
    partial = tmp_path / ".back.partial"
    with restoring._alone(partial, tmp_path / "back"):
        (partial / "left").mkdir()
        with pytest.raises(UsageError, match="another process"):
            restore(written.out, tmp_path / "back", default_contracts())
    assert (partial / "left").is_dir()
    restore(written.out, tmp_path / "back", default_contracts())
    assert not (tmp_path / "back" / "left").exists()


def test_a_log_signed_by_somebody_who_cheats_is_refused(
    place: Place,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verify: Verify,
    restore_error: Callable[..., Any],
):
    """The holder of the log's key seals a state in which one run was never recorded."""
    from lichen.ledger.log_file import LogFile

    honest = LogFile.add_writes

    def forgetful(self: LogFile, writes: dict[bytes, bytes | None]) -> None:
        honest(self, {} if self.size == 30 else writes)

    shutil.rmtree(place.ledger)
    with monkeypatch.context() as patch:
        patch.setattr(LogFile, "add_writes", forgetful)
        sample_ledger.make_sample(place.ledger, run_count=30)
    with place.open() as ledger:
        ledger.seal(force=True)
    place.write(artefacts=False)
    status, answer = verify(place.out)
    assert status == 1
    assert "state root" in answer["why"]
    assert "state root" in restore_error(place.out).message
