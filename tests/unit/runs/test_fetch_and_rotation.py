"""Artefacts come back under any name, verified; a key changes place with another even when interrupted half-way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.crypto.key_file import read_key, write_key
from lichen.crypto.keys import SigningKey
from lichen.errors import NotFoundError, Rejected, StorageError, UsageError, VerificationError
from lichen.runs.keeping.key_rotation import rotate_own_key
from lichen.runs.keeping.setup import check_admitted, create_ledger, list_members, member_action
from lichen.runs.queries.fetch import fetch
from lichen.runs.records.publish import publish
from lichen.runs.workspace.config import UserConfig
from lichen.runs.workspace.workspace import Workspace

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic


@pytest.fixture(params=["private", "public"])
def workspace(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workspace]:
    monkeypatch.chdir(tmp_path)
    create_ledger(Path(".lichen"), name=None, access=request.param, member="ada", user=UserConfig.read())
    with Workspace.find() as workspace:
        yield workspace


def test_a_published_file_comes_back_by_cid_index_and_content(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights" * 100_000)
    published = publish(workspace, "model", tmp_path / "model.bin", title="my model / first")
    for number, reference in enumerate((published.cid, str(published.index), "model.bin", published.sha256)):
        assert reference is not None
        fetched = fetch(workspace, reference, tmp_path / f"back{number}")
        assert fetched.path.read_bytes() == (tmp_path / "model.bin").read_bytes()
        assert fetched.cid == published.cid
    assert fetch(workspace, str(published.index)).path == Path("my-model---first")


def test_a_published_directory_comes_back_file_by_file(workspace: Workspace, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    (scans / "left").mkdir(parents=True)
    (scans / "left" / "a.txt").write_text("a")
    (scans / os.fsdecode(b"caf\xe9.txt")).write_text("b")
    published = publish(workspace, "data", scans, title="scans of the clinic")
    fetched = fetch(workspace, str(published.index), tmp_path / "back")
    assert (fetched.file_count, fetched.size_bytes, fetched.cid) == (2, 2, published.cid)
    assert (tmp_path / "back" / "left" / "a.txt").read_text() == "a"
    assert (tmp_path / "back" / os.fsdecode(b"caf\xe9.txt")).read_text() == "b"


def test_what_has_no_artefact_or_is_not_there_is_told(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    published = publish(workspace, "model", tmp_path / "model.bin")
    with pytest.raises(UsageError, match="no artefact"):
        fetch(workspace, "0")
    with pytest.raises(UsageError, match="is a directory"):
        fetch(workspace, str(published.index), tmp_path)
    with pytest.raises(NotFoundError):
        fetch(workspace, "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
    (tmp_path / "precious").write_text("and nowhere else")
    with pytest.raises((UsageError, StorageError)):
        fetch(workspace, str(published.index), tmp_path / "precious")
    assert (tmp_path / "precious").read_text() == "and nowhere else"
    fetch(workspace, str(published.index), tmp_path / "precious", overwrite=True)
    assert (tmp_path / "precious").read_bytes() == b"weights"


def test_a_damaged_artefact_is_not_handed_out(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"weights")
    published = publish(workspace, "model", tmp_path / "model.bin")
    (stored,) = [
        path for path in (workspace.directory / "store").rglob(f"{published.cid}*") if path.is_file()
    ]
    stored.chmod(0o600)
    stored.write_bytes(b"w3ights")
    with pytest.raises(VerificationError):
        fetch(workspace, str(published.index), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_rotated_key_takes_the_old_ones_place(workspace: Workspace) -> None:
    old = workspace.identity.key.public
    rotated = rotate_own_key(workspace)
    assert rotated.index is not None
    assert read_key(rotated.path).public.did_key == rotated.did_key != old.did_key
    assert read_key(rotated.retired_path).public == old
    assert [row.reason for row in list_members(workspace)] == ["rotated", None]
    with Workspace.find() as again:
        check_admitted(again)
    with pytest.raises(Rejected, match="speaks for ada no more: it was rotated"):
        check_admitted(workspace)


def test_an_interrupted_rotation_is_finished_by_the_next(workspace: Workspace) -> None:
    path = workspace.identity.path
    waiting = path.with_name(path.name + ".next")
    key = SigningKey.generate()
    write_key(waiting, key)
    member_action(workspace, "rotate", "ada", key=key.public)  # and then the power failed
    rotated = rotate_own_key(workspace)
    assert rotated.index is None
    assert rotated.did_key == key.public.did_key
    assert not waiting.exists()
    with Workspace.find() as again:
        check_admitted(again)


def test_a_key_of_nobody_and_a_key_of_somebody_else_are_told_apart(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = workspace.identity.path
    bob = ada.with_name("bob.key")
    monkeypatch.setenv("LICHEN_MEMBER", "bob")
    write_key(bob, SigningKey.generate())
    with Workspace.find() as stranger, pytest.raises(Rejected, match="lichen key admit bob did:key:"):
        check_admitted(stranger)
    bob.unlink()
    bob.write_bytes(ada.read_bytes())
    bob.chmod(0o600)
    with Workspace.find() as pretender, pytest.raises(Rejected, match="is that of 'ada'"):
        check_admitted(pretender)


def test_of_a_run_without_outputs_there_is_nothing_to_get_and_that_is_said(clinic: Clinic) -> None:
    silent = clinic.run()
    with pytest.raises(UsageError, match=f"entry {silent.record} is a run that wrote no output") as caught:
        fetch(clinic.workspace(), "@last")
    assert f"lichen show {silent.record}" in caught.value.remedy
    clinic.run("python", "other.py", writes={"a.txt": "a", "b.txt": "b"})
    with pytest.raises(UsageError, match="has 2 outputs") as caught:
        fetch(clinic.workspace(), "@last")
    assert "Name one with --name: " in caught.value.remedy


def test_each_ledger_is_told_of_the_same_new_key(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    create_ledger(Path(".lichen"), name=None, access="public", member="ada", user=UserConfig.read())
    rotated = rotate_own_key(workspace)
    with Workspace.find() as other:
        with pytest.raises(Rejected, match="has another key there") as refused:
            check_admitted(other)
        assert refused.value.remedy is not None
        assert "lichen key rotate" in refused.value.remedy
        told = rotate_own_key(other)
        assert (told.did_key, told.retired_path) == (rotated.did_key, rotated.retired_path)
        check_admitted(other)
        assert [row.reason for row in list_members(other)] == ["rotated", None]
    assert len(list(rotated.path.parent.glob("ada.key*"))) == 2, "no third key was made"


def test_who_acts_under_another_name_is_told_whose_key_is_here(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_key(workspace.identity.path.with_name("eve.key"), SigningKey.generate())
    monkeypatch.setenv("LICHEN_MEMBER", "eve")
    with Workspace.find() as as_eve, pytest.raises(Rejected, match="eve is not a member") as refused:
        check_admitted(as_eve)
    assert refused.value.remedy is not None
    assert "LICHEN_MEMBER=ada" in refused.value.remedy
