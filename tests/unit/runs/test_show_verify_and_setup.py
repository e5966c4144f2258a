"""Telling an entry in full, checking a receipt offline, and everything before the first run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lichen.content.cid import Cid
from lichen.errors import (
    EncodingError,
    KeyFileError,
    LichenError,
    NotFoundError,
    Rejected,
    UsageError,
    VerificationError,
)
from lichen.runs.keeping.setup import (
    admit_member,
    check_admitted,
    create_ledger,
    list_members,
    make_key,
    member_action,
    parse_public_key,
)
from lichen.runs.keeping.verify import verify_ledger, verify_receipt_file
from lichen.runs.queries.show import describe, log
from lichen.runs.records.flags import flag
from lichen.runs.workspace.config import UserConfig

if TYPE_CHECKING:
    from tests.unit.runs.conftest import Clinic

BOTH = pytest.mark.parametrize("clinic", ["private", "public"], indirect=True)


# show and log


@BOTH
def test_a_run_is_told_with_manifest_detail_flags_and_receipt(clinic: Clinic) -> None:
    clinic.write("data.csv", "1")
    done = clinic.run(
        reads=["data.csv"], writes={"model.bin": "w"}, stdout=b"acc \xff 0.9\n", metrics={"accuracy": 0.9}
    )
    index = flag(clinic.workspace(), str(done.record), "odd").entry
    told = json.loads(json.dumps(describe(clinic.workspace(), "@last")))
    assert (told["kind"], told["status"], told["reusable"], told["outputs"]) == ("run", "trained", True, 1)
    assert told["title"] == "python train.py"
    assert list(told["manifest"]["data"]) == ["{project}/data.csv"]
    assert told["detail"]["stdout"] == "acc \ufffd 0.9\n"
    assert [item["index"] for item in told["flags"]] == [index]
    assert told["withdrawn"] is None
    assert told["receipt"].strip()


def test_a_run_whose_manifest_is_gone_is_told_as_far_as_it_goes(clinic: Clinic) -> None:
    done = clinic.run()
    clinic.workspace().store.delete(Cid.parse(str(done.manifest_cid)))
    told = describe(clinic.workspace(), "@last")
    assert told["manifest"] is None
    assert "does not hold" in told["manifest_problem"]
    assert told["status"] == "trained"


def test_the_log_is_told_newest_first_and_filtered(clinic: Clinic) -> None:
    clinic.admit("bob")
    for number in range(3):
        clinic.run("python", "train.py", str(number), member="bob" if number == 1 else "ada")
    whole = [entry["index"] for entry in log(clinic.workspace())]
    assert whole == sorted(whole, reverse=True)
    assert [entry["index"] for entry in log(clinic.workspace(), reverse=False)] == sorted(whole)
    assert len(list(log(clinic.workspace(), kind="run"))) == 3
    assert len(list(log(clinic.workspace(), kind="run", member="bob"))) == 1
    assert [entry["index"] for entry in log(clinic.workspace(), limit=2)] == whole[:2]
    assert {entry["kind"] for entry in log(clinic.workspace(), seals=True)} >= {
        "seal",
        "run",
        "genesis",
        "member",
    }


# verify


def receipt_of(clinic: Clinic, tmp_path: Path) -> Path:
    done = clinic.run()
    path = tmp_path / "run.receipt"
    path.write_text(str(done.receipt))
    return path


def test_a_receipt_holds_with_the_logs_key_alone(clinic: Clinic, tmp_path: Path) -> None:
    path = receipt_of(clinic, tmp_path)
    key = clinic.workspace().ledger.genesis.log_key.did_key
    told = verify_receipt_file(path, log_key=key)
    assert (told.ledger_id, told.kind, told.member) == (clinic.workspace().ledger.id, "run", "ada")
    assert told.proves
    assert told.does_not_prove
    assert json.loads(json.dumps(told.to_json()))["index"] == told.index


def test_a_receipt_of_another_log_or_with_a_changed_letter_does_not_hold(
    clinic: Clinic, tmp_path: Path
) -> None:
    path = receipt_of(clinic, tmp_path)
    other = clinic.workspace().identity.key.public.did_key
    with pytest.raises(VerificationError):
        verify_receipt_file(path, log_key=other)
    text = path.read_text()
    refused = 0
    for place in range(0, len(text), max(1, len(text) // 40)):
        if text[place].isalnum():
            path.write_text(text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :])
            with pytest.raises(LichenError):
                verify_receipt_file(path, workspace=clinic.workspace())
            refused += 1
    assert refused > 20


def test_what_is_no_receipt_is_told(clinic: Clinic, tmp_path: Path) -> None:
    path = receipt_of(clinic, tmp_path)
    with pytest.raises(UsageError, match="no key to check"):
        verify_receipt_file(path)
    with pytest.raises(UsageError, match="not a public key"):
        verify_receipt_file(path, log_key="did:key:zzz")
    workspace = clinic.workspace()
    with pytest.raises(NotFoundError, match="does not exist"):
        verify_receipt_file(tmp_path / "missing", workspace=workspace)
    with pytest.raises(UsageError, match="is a directory"):
        verify_receipt_file(tmp_path, workspace=workspace)
    (tmp_path / "large").write_bytes(b"x" * 1_100_000)
    with pytest.raises(UsageError, match="larger than any receipt"):
        verify_receipt_file(tmp_path / "large", workspace=workspace)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="not text"):
        verify_receipt_file(tmp_path / "bytes", workspace=workspace)
    (tmp_path / "text").write_text("not a receipt\n")
    with pytest.raises(EncodingError):
        verify_receipt_file(tmp_path / "text", workspace=workspace)


def test_a_whole_ledger_is_derived_again(clinic: Clinic) -> None:
    clinic.run()
    steps: list[tuple[int, int]] = []
    report = verify_ledger(clinic.workspace(), lambda done, total: steps.append((done, total)))
    assert report.is_sound


# setup


def test_a_key_is_made_once_and_only_for_its_owner(lichen_home: Path) -> None:
    user = UserConfig.read()
    path, is_new = make_key(user, "ada")
    assert (is_new, path.stat().st_mode & 0o777) == (True, 0o600)
    before = path.read_bytes()
    assert make_key(user, "ada") == (path, False)
    assert path.read_bytes() == before
    path.chmod(0o644)
    with pytest.raises(KeyFileError, match=str(path)):
        make_key(user, "ada")
    with pytest.raises(EncodingError):
        make_key(user, "bad member!")
    assert [entry.name for entry in path.parent.iterdir()] == ["ada.key"]


@BOTH
def test_a_new_ledger_leaves_nothing_open_to_others(clinic: Clinic) -> None:
    for name in ("log.key", "group.key"):
        path = clinic.directory / name
        if path.exists():
            assert path.stat().st_mode & 0o077 == 0
    assert (clinic.directory / "group.key").exists() == (clinic.workspace().group_key is not None)
    assert (clinic.directory / ".gitignore").read_text() == "*\n"


def test_a_ledger_that_cannot_be_made_leaves_nothing_behind(clinic: Clinic, tmp_path: Path) -> None:
    user = UserConfig.read()
    new = tmp_path / "new"
    with pytest.raises(UsageError, match="holds a ledger already"):
        create_ledger(clinic.directory, name=None, access="private", member="ada", user=user)
    with pytest.raises(UsageError, match="neither private nor public"):
        create_ledger(new, name=None, access="secret", member="ada", user=user)
    with pytest.raises(LichenError):
        create_ledger(
            new, name=None, access="private", member="ada", user=user, fork_from=tmp_path / "nowhere"
        )
    assert not new.exists() or list(new.iterdir()) == []


def test_keys_whose_ledger_file_is_gone_are_left_alone(clinic: Clinic) -> None:
    clinic.close()
    user = UserConfig.read()
    held = {path.name: path.read_bytes() for path in clinic.directory.glob("*.key")}
    for path in clinic.directory.glob("ledger.sqlite*"):
        path.unlink()
    with pytest.raises(UsageError, match=r"but not its ledger\.sqlite"):
        create_ledger(clinic.directory, name=None, access="private", member="ada", user=user)
    assert {path.name: path.read_bytes() for path in clinic.directory.glob("*.key")} == held


def test_keys_that_another_process_makes_meanwhile_are_left_alone(
    clinic: Clinic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lichen.errors import KeyFileError
    from lichen.runs.keeping import setup

    def theirs(directory: Path) -> None:
        (directory / "log.key").write_text("theirs")

    new = tmp_path / "new"
    new.mkdir()
    monkeypatch.setattr(setup, "_check_no_keys", theirs)
    with pytest.raises(KeyFileError, match="exists already"):
        create_ledger(new, name=None, access="private", member="ada", user=UserConfig.read())
    assert (new / "log.key").read_text() == "theirs"


def test_public_keys_are_read_in_both_forms(clinic: Clinic) -> None:
    from lichen.encoding.base import b64u

    key = clinic.workspace().identity.key.public
    assert parse_public_key(key.did_key) == parse_public_key(b64u(key.raw)) == key
    for text in ("", "did:key:", "did:web:x", "x" * 43, "A" * 42):
        with pytest.raises(UsageError, match="not a public key"):
            parse_public_key(text)


def test_members_and_their_keys_are_listed_in_order(clinic: Clinic) -> None:
    clinic.admit("bob")
    member_action(clinic.workspace(), "revoke", "bob")
    rows = list_members(clinic.workspace())
    assert [(row.member, row.admin, row.reason) for row in rows] == [
        ("ada", True, None),
        ("bob", False, "revoked"),
    ]
    with pytest.raises(Rejected, match="members"):
        admit_member(clinic.workspace(), "carol", rows[0].did_key)


def test_whoever_may_not_write_is_told_before_the_work(clinic: Clinic) -> None:
    user = UserConfig.read()
    make_key(user, "eve")
    with pytest.raises(Rejected, match="not a member") as caught:
        check_admitted(clinic.open("eve"))
    assert "lichen key admit eve did:key:" in caught.value.remedy
    clinic.admit("bob")
    check_admitted(clinic.workspace("bob"))
    member_action(clinic.workspace(), "revoke", "bob")
    with pytest.raises(Rejected, match="revoked"):
        check_admitted(clinic.open("bob"))
    os.replace(clinic.workspace().identity.path, clinic.open("eve").identity.path)  # noqa: PTH105 - the words of the shell
    with pytest.raises(Rejected, match="is that of 'ada', not of 'eve'"):
        check_admitted(clinic.open("eve"))
