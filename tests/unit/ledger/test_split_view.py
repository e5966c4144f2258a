"""Evidence of a split view: what convicts a log, and every way in which it does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.crypto.keys import SigningKey
from lichen.errors import EncodingError, LichenError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, origin_of, sign_checkpoint
from lichen.ledger.genesis import Admin, Genesis, ledger_id_of
from lichen.ledger.proof import consistency_proof
from lichen.ledger.split_view import SplitView, verify_split_view
from lichen.ledger.tree import leaf_hash, root_of

LOG, STRANGER, ADMIN = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
GENESIS = Genesis("g", 0, (Admin("ada", ADMIN.public),), LOG.public, {"members": 1}, bytes(12)).to_entry(LOG)
ORIGIN = origin_of(ledger_id_of(GENESIS))
LEAVES = [leaf_hash(b"%d" % number) for number in range(30)]
FORKED = [*LEAVES[:4], *(leaf_hash(b"other %d" % number) for number in range(26))]


def signed(size: int, leaves: list[bytes] = LEAVES, key: SigningKey = LOG, origin: str = ORIGIN) -> str:
    return sign_checkpoint(Checkpoint(origin, size, root_of(leaves[:size])), key)


def across(size_first: int, size_second: int, leaves: list[bytes] = FORKED) -> SplitView:
    proof = consistency_proof(size_first, size_second, lambda start, end: root_of(leaves[start:end]))
    return SplitView(
        signed(size_first), signed(size_second, leaves), root_of(leaves[:size_first]), tuple(proof), GENESIS
    )


SAME_SIZE = SplitView(signed(10), signed(10, FORKED), genesis=GENESIS)


@pytest.mark.parametrize("evidence", [SAME_SIZE, across(10, 25), across(8, 9), across(5, 30)])
def test_two_checkpoints_that_exclude_each_other_convict_the_log(evidence: SplitView) -> None:
    assert SplitView.from_bytes(evidence.to_bytes() + b"\n") == evidence
    for keys, origin in [
        ([LOG.public], None),
        ([LOG.public], ORIGIN),
        ([], ORIGIN),
        ([STRANGER.public, LOG.public], None),
    ]:
        found = verify_split_view(evidence, keys, origin)
        assert found.origin == ORIGIN
        assert found.first.root != found.second.root
        assert found.proves
        assert found.does_not_prove


def changed(**changes: object) -> SplitView:
    return dataclasses.replace(across(10, 25), **changes)


PROOF = across(10, 25).proof
INNOCENT: dict[str, SplitView] = {
    "two checkpoints that agree": SplitView(signed(10), signed(10)),
    "sizes that differ, and nothing between them": SplitView(signed(10), signed(25, FORKED)),
    "a later checkpoint of the same log": across(10, 25, LEAVES),
    "a root that is made up": changed(root=bytes(32)),
    "a proof with a hash flipped": changed(proof=(bytes(32), *PROOF[1:])),
    "a proof with a hash left out": changed(proof=PROOF[:-1]),
    "a proof with a hash more": changed(proof=(*PROOF, bytes(32))),
    "the checkpoints in the wrong order": changed(first=signed(25, FORKED), second=signed(10)),
    "a first checkpoint that a stranger signed": changed(first=signed(10, key=STRANGER)),
    "a second checkpoint that a stranger signed": changed(second=signed(25, FORKED, STRANGER)),
    "a second checkpoint of another log": changed(second=signed(25, FORKED, origin="lichen/" + "ab" * 32)),
    "a root between equal sizes": dataclasses.replace(SAME_SIZE, root=bytes(32)),
}


@pytest.mark.parametrize("name", INNOCENT)
def test_what_shows_nothing_is_refused(name: str) -> None:
    with pytest.raises(VerificationError):
        verify_split_view(INNOCENT[name], [LOG.public], ORIGIN)


def test_without_a_key_and_without_an_id_nobody_is_convicted() -> None:
    with pytest.raises(VerificationError, match="nothing says"):
        verify_split_view(SAME_SIZE, [])
    with pytest.raises(VerificationError, match="nothing says"):
        verify_split_view(dataclasses.replace(SAME_SIZE, genesis=None), [], ORIGIN)
    with pytest.raises(VerificationError, match="another ledger"):
        verify_split_view(SAME_SIZE, [], "lichen/" + "ab" * 32)


MALFORMED: dict[str, Callable[[bytes], bytes]] = {
    "not JSON": lambda data: data[:-1],
    "a blank": lambda data: data.replace(b",", b", ", 1),
    "another format": lambda data: data.replace(b"lichen-split-view", b"lichen-split-ends"),
    "a later version": lambda data: data.replace(b'"v":1', b'"v":2'),
    "a member more": lambda data: data.replace(b'"v":1', b'"v":1,"w":1'),
    "no second": lambda data: data.replace(b'"second"', b'"third"'),
    "a proof without its root": lambda data: data.replace(b'"root":"', b'"roof":"'),
    "a first that is no checkpoint": lambda data: data.replace(b'"first":"lichen', b'"first":"\\nlichen'),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_not_evidence_is_not_read(name: str) -> None:
    data = across(10, 25).to_bytes()
    assert MALFORMED[name](data) != data
    with pytest.raises(EncodingError):
        SplitView.from_bytes(MALFORMED[name](data))


class TestReaderLaws:
    """Any bytes are evidence, or refused with an error of Lichen's own."""

    @given(st.binary(max_size=100), st.integers(0, 2_000), st.booleans())
    def test_any_change(self, junk: bytes, position: int, is_inserted: bool) -> None:
        data = across(10, 25).to_bytes()
        end = position if is_inserted else position + len(junk)
        try:
            evidence = SplitView.from_bytes(data[:position] + junk + data[end:])
            verify_split_view(evidence, [LOG.public], ORIGIN)
        except LichenError as error:
            assert error.message
