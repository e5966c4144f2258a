"""Whose results are taken: how the settings name authors, and in which ledger a name counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.crypto.key_file import write_key
from lichen.crypto.keys import SigningKey
from lichen.errors import UsageError
from lichen.runs.reuse.trust import Trusted, bound, needs_ledger, own_key_ids

HERE, ELSEWHERE = "0f" * 32, "1e" * 32
KEY = SigningKey.from_seed(b"k" * 32).public


def test_a_name_counts_in_its_ledger_only() -> None:
    entries = bound(["ada", "bob@clinic"], HERE)
    assert entries == [f"ada@{HERE[:32]}", f"bob@clinic@{HERE[:32]}"]
    assert Trusted.in_ledger(entries, HERE).members == {"ada", "bob@clinic"}
    assert Trusted.in_ledger(entries, ELSEWHERE) == Trusted()


def test_a_bare_name_in_the_file_counts_nowhere() -> None:
    assert Trusted.in_ledger(["ada", "ada@0f0f"], HERE) == Trusted()


def test_a_key_counts_everywhere() -> None:
    assert bound([KEY.did_key], None) == [KEY.did_key]
    for ledger in (HERE, ELSEWHERE):
        assert Trusted.in_ledger([KEY.did_key], ledger).key_ids == {KEY.key_id}


def test_what_is_written_already_is_kept_as_it_is() -> None:
    written = bound(["ada"], HERE)
    assert not needs_ledger([*written, KEY.did_key])
    assert bound([*written, *written], ELSEWHERE) == written


def test_a_bare_name_without_a_ledger_is_refused() -> None:
    assert needs_ledger(["ada"])
    with pytest.raises(UsageError, match="of which ledger"):
        bound(["ada"], None)


@pytest.mark.parametrize("text", ["did:key:zNone", "did:key:"])
def test_a_key_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no public key"):
        bound([text], HERE)


def test_own_keys_are_the_one_in_use_and_those_beside_it(tmp_path: Path) -> None:
    keys = [SigningKey.generate() for _ in range(5)]
    names = ["ada.key", "ada.key.next", "ada.key.0011aabb.retired", "adam.key", "ada.key.2233ccdd.retired"]
    for name, key in zip(names, keys, strict=True):
        write_key(tmp_path / name, key)
    (tmp_path / names[4]).chmod(0o644)  # others may have copied it
    assert own_key_ids(tmp_path / "ada.key") == {key.public.key_id for key in keys[:3]}
    assert own_key_ids(tmp_path / "nobody.key") == frozenset()
