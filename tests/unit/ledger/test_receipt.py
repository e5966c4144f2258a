"""Receipts of entries and of the state, on a small ledger put together by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64, b64u
from lichen.encoding.canonical import canonical_json
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, LichenError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, origin_of, sign_checkpoint
from lichen.ledger.genesis import Admin, Genesis, ledger_id_of
from lichen.ledger.proof import inclusion_proof
from lichen.ledger.receipt import LOGGED, Receipt, verify_receipt
from lichen.ledger.seal import Seal
from lichen.ledger.state_map import StateMap, state_key
from lichen.ledger.tree import leaf_hash, root_of

LOG, AUTHOR, STRANGER = (SigningKey.from_seed(bytes([number]) * 32) for number in (1, 2, 3))
GENESIS = Genesis("test", 1_000, (Admin("ada", AUTHOR.public),), LOG.public, {"registry": 1}, bytes(12))
FIRST = GENESIS.to_entry(LOG)
ORIGIN = origin_of(ledger_id_of(FIRST))
RECORD = Statement("run", (Subject("output/0", bytes(32)),), {"member": "ada"})
RUN = Entry.signed(RECORD.to_bytes(), AUTHOR)
STATE = StateMap({state_key("registry", b"exact/%d" % number): b"value %d" % number for number in range(20)})


def sealed(entries: list[Entry], **changes: Any) -> Entry:
    root = root_of(leaf_hash(entry.to_bytes()) for entry in entries)
    seal = Seal(0, None, len(entries), root, STATE.root(), 2_000)
    return Entry.signed(replace(seal, **changes).to_statement().to_bytes(), LOG)


def checkpoint_of(entries: list[Entry], key: SigningKey = LOG, origin: str = ORIGIN) -> str:
    root = root_of(leaf_hash(entry.to_bytes()) for entry in entries)
    return sign_checkpoint(Checkpoint(origin, len(entries), root), key)


def proof_of(index: int, entries: list[Entry]) -> list[bytes]:
    leaves = [leaf_hash(entry.to_bytes()) for entry in entries]
    return inclusion_proof(index, len(entries), lambda start, end: root_of(leaves[start:end]))


ENTRIES = [FIRST, RUN]
LOG_ENTRIES = [*ENTRIES, sealed(ENTRIES)]
CHECKPOINT = checkpoint_of(LOG_ENTRIES)
ENTRY_RECEIPT = Receipt.of_entry(RUN, 1, proof_of(1, LOG_ENTRIES), CHECKPOINT, author=AUTHOR.public)


def state_receipt(key: bytes, /, entries: list[Entry] = LOG_ENTRIES, **changes: Any) -> Receipt:
    last = len(entries) - 1
    name = state_key("registry", key)
    made = Receipt.of_state(
        entries[last],
        last,
        proof_of(last, entries),
        checkpoint_of(entries),
        contract="registry",
        key=key,
        value=STATE.get(name),
        map_proof=STATE.prove(name),
    )
    return replace(made, about=replace(made.about, **changes)) if changes else made


def test_a_receipt_of_an_entry_holds_and_says_what_it_shows() -> None:
    verified = verify_receipt(ENTRY_RECEIPT, LOG.public, ORIGIN)
    assert (verified.origin, verified.index, verified.tree_size, verified.state) == (ORIGIN, 1, 3, LOGGED)
    assert verified.statement == RECORD
    assert verified.author_verified
    assert any("signed it" in sentence for sentence in verified.proves)
    assert any("witness" in sentence for sentence in verified.does_not_prove)


def test_without_the_authors_key_the_receipt_says_so() -> None:
    receipt = Receipt.of_entry(RUN, 1, proof_of(1, LOG_ENTRIES), CHECKPOINT)
    verified = verify_receipt(receipt, LOG.public)
    assert not verified.author_verified
    assert any("Who signed it" in sentence for sentence in verified.does_not_prove)
    assert verify_receipt(receipt, LOG.public, author=AUTHOR.public).author_verified


def test_the_ledgers_id_is_enough_when_the_first_entry_is_there() -> None:
    receipt = Receipt.of_entry(RUN, 1, proof_of(1, LOG_ENTRIES), CHECKPOINT, genesis=FIRST)
    assert verify_receipt(receipt, None, ORIGIN).index == 1
    assert verify_receipt(receipt, LOG.public).index == 1
    with pytest.raises(VerificationError, match="nothing says whose"):
        verify_receipt(receipt, None)
    with pytest.raises(VerificationError, match="nothing says whose"):
        verify_receipt(ENTRY_RECEIPT, None, ORIGIN)
    with pytest.raises(VerificationError, match="names another log key"):
        verify_receipt(receipt, STRANGER.public, ORIGIN)


def test_a_receipt_of_a_seal_gives_the_seal() -> None:
    receipt = Receipt.of_entry(LOG_ENTRIES[2], 2, proof_of(2, LOG_ENTRIES), CHECKPOINT)
    verified = verify_receipt(receipt, LOG.public, ORIGIN)
    assert verified.seal is not None
    assert verified.seal.state_root == STATE.root()
    assert verified.author_verified, "a seal in a ledger with one writer is signed by the log's own key"


def test_a_value_of_the_state_is_shown_and_so_is_an_absence() -> None:
    present = verify_receipt(state_receipt(b"exact/7"), LOG.public, ORIGIN)
    assert (present.value, present.contract, present.key) == (b"value 7", "registry", b"exact/7")
    assert present.statement is None
    absent = verify_receipt(state_receipt(b"exact/99"), LOG.public, ORIGIN)
    assert absent.value is None
    assert any("absent" in sentence for sentence in absent.proves)
    assert any("replaying" in sentence for sentence in absent.does_not_prove)


@pytest.mark.parametrize(
    "receipt",
    [
        ENTRY_RECEIPT,
        Receipt.of_entry(RUN, 1, proof_of(1, LOG_ENTRIES), CHECKPOINT, genesis=FIRST),
        state_receipt(b"exact/7"),
        state_receipt(b"exact/99", genesis=FIRST),
    ],
)
def test_a_receipt_reads_back(receipt: Receipt) -> None:
    text = receipt.to_text()
    assert Receipt.parse(text) == receipt
    assert Receipt.parse(text).to_text() == text
    assert text.startswith("c2sp.org/tlog-proof@v1\nextra ")


OTHER_RUN = Entry.signed(Statement("run", (Subject("o", bytes(32)),), {"member": "bob"}).to_bytes(), AUTHOR)


@pytest.mark.parametrize(
    ("receipt", "key", "origin"),
    [
        (ENTRY_RECEIPT, STRANGER.public, ORIGIN),
        (ENTRY_RECEIPT, LOG.public, origin_of("00" * 32)),
        (replace(ENTRY_RECEIPT, index=0), LOG.public, ORIGIN),
        (replace(ENTRY_RECEIPT, index=3), LOG.public, ORIGIN),
        (replace(ENTRY_RECEIPT, proof=ENTRY_RECEIPT.proof[:-1]), LOG.public, ORIGIN),
        (replace(ENTRY_RECEIPT, proof=(*ENTRY_RECEIPT.proof, bytes(32))), LOG.public, ORIGIN),
        (replace(ENTRY_RECEIPT, about=replace(ENTRY_RECEIPT.about, entry=OTHER_RUN)), LOG.public, ORIGIN),
        (
            replace(ENTRY_RECEIPT, about=replace(ENTRY_RECEIPT.about, author=STRANGER.public)),
            LOG.public,
            ORIGIN,
        ),
        (replace(ENTRY_RECEIPT, checkpoint=checkpoint_of(LOG_ENTRIES, STRANGER)), LOG.public, ORIGIN),
        (replace(ENTRY_RECEIPT, checkpoint=checkpoint_of(ENTRIES)), LOG.public, ORIGIN),
        (replace(ENTRY_RECEIPT, about=replace(ENTRY_RECEIPT.about, genesis=RUN)), LOG.public, ORIGIN),
        (state_receipt(b"exact/7", value=b"value 8"), LOG.public, ORIGIN),
        (state_receipt(b"exact/7", value=None), LOG.public, ORIGIN),
        (state_receipt(b"exact/7", contract="members"), LOG.public, ORIGIN),
        (state_receipt(b"exact/7", key=b"exact/8"), LOG.public, ORIGIN),
        (state_receipt(b"exact/99", value=b"value 99"), LOG.public, ORIGIN),
        (state_receipt(b"exact/99", key=b"exact/7"), LOG.public, ORIGIN),
        (state_receipt(b"exact/7", map_proof=StateMap().prove(bytes(32))), LOG.public, ORIGIN),
        (state_receipt(b"exact/7", seal=RUN), LOG.public, ORIGIN),
        (state_receipt(b"exact/7", seal=sealed(ENTRIES, time_unix_ms=9)), LOG.public, ORIGIN),
    ],
)
def test_what_does_not_hold_is_refused(receipt: Receipt, key: Any, origin: str) -> None:
    with pytest.raises(LichenError) as caught:
        verify_receipt(receipt, key, origin)
    assert isinstance(caught.value, (VerificationError, EncodingError))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"tree_size": 1}, "log before it"), ({"root": bytes(32)}, "entries before it")],
)
def test_a_seal_must_commit_to_what_is_before_it(changes: dict[str, Any], message: str) -> None:
    entries = [*ENTRIES, sealed(ENTRIES, **changes)]
    with pytest.raises(VerificationError, match=message):
        verify_receipt(state_receipt(b"exact/7", entries), LOG.public, ORIGIN)


def test_a_state_counts_only_under_the_checkpoint_that_ends_with_its_seal() -> None:
    later = [*LOG_ENTRIES, OTHER_RUN]
    receipt = replace(
        state_receipt(b"exact/7"), proof=tuple(proof_of(2, later)), checkpoint=checkpoint_of(later)
    )
    with pytest.raises(VerificationError, match="ends with its seal"):
        verify_receipt(receipt, LOG.public, ORIGIN)


def test_an_origin_of_another_program_is_not_a_ledgers() -> None:
    with pytest.raises(EncodingError, match="not the origin"):
        verify_receipt(ENTRY_RECEIPT, LOG.public, "example.com/" + "ab" * 32)


def test_the_seal_of_a_log_without_entries_before_it_is_refused() -> None:
    """Its proof is empty, and the root before it is that of nothing."""
    only = sealed(ENTRIES)
    about_state = replace(state_receipt(b"exact/7").about, seal=only)
    receipt = Receipt(0, (), checkpoint_of([only]), about_state)
    with pytest.raises(VerificationError, match="log before it"):
        verify_receipt(receipt, LOG.public, ORIGIN)


def about(change: Callable[[dict[str, Any]], object]) -> str:
    """Return the text of the entry receipt with another extra line."""
    value: dict[str, Any] = {"author": b64u(AUTHOR.public.raw), "entry": b64u(RUN.to_bytes()), "v": 1}
    change(value)
    lines = ENTRY_RECEIPT.to_text().split("\n")
    lines[1] = "extra " + b64(canonical_json(value))
    return "\n".join(lines)


def edited(line: int, text: str | None) -> str:
    lines = ENTRY_RECEIPT.to_text().split("\n")
    lines[line : line + 1] = [] if text is None else [text]
    return "\n".join(lines)


def test_the_unchanged_text_of_the_edits_below_is_accepted() -> None:
    assert about(lambda value: None) == ENTRY_RECEIPT.to_text() == edited(0, "c2sp.org/tlog-proof@v1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v1\n",
        edited(0, "c2sp.org/tlog-proof@v2"),
        edited(1, None),
        edited(1, "extra"),
        edited(1, "extra !"),
        edited(1, "extra " + b64(b"[]")),
        edited(1, "extra " + b64(b"{}")),
        edited(2, "index 01"),
        edited(2, "index -1"),
        edited(2, "index 1 "),
        edited(2, "Index 1"),
        edited(2, None),
        edited(3, "AAAA"),
        edited(3, "!"),
        edited(3, ""),
        ENTRY_RECEIPT.to_text() + "\n",
        ENTRY_RECEIPT.to_text()[:-1],
        ENTRY_RECEIPT.to_text().replace("\n", "\r\n"),
        "x" * 600_000,
        replace(ENTRY_RECEIPT, proof=(bytes(32),) * 64).to_text(),
        about(lambda value: value.update(v=2)),
        about(lambda value: value.update(v=True)),
        about(lambda value: value.update(more=1)),
        about(lambda value: value.update(entry="AQ")),
        about(lambda value: value.update(entry=None)),
        about(lambda value: value.update(author=b64u(bytes(32)))),
        about(lambda value: value.update(genesis="AQ")),
        about(lambda value: value.pop("v")),
        about(lambda value: value.update(seal=value.pop("entry"))),
    ],
)
def test_other_texts_are_not_receipts(text: str) -> None:
    with pytest.raises(EncodingError):
        Receipt.parse(text)
