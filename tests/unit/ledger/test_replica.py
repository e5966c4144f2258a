"""A copy takes what holds and nothing else, and is as good as what it was copied from."""

from __future__ import annotations

import pytest

from lichen.contracts import default_contracts
from lichen.encoding.entry import Entry
from lichen.errors import EncodingError, LichenError, Rejected, UsageError, VerificationError
from lichen.ledger.audit import audit
from lichen.ledger.genesis import Sealing
from lichen.ledger.receipt import verify_receipt
from lichen.ledger.replica import Replica, is_seal
from lichen.runs.queries.views import default_views


@pytest.fixture
def original(site):
    """300 runs in blocks of 40, all sealed."""
    ledger = site.create(sealing=Sealing(entries_max=40, slot_ms=3_600_000), views=default_views())
    ledger.append_many(site.entries(ledger, 300), seal=True)
    return ledger


def delivery(ledger, start=0, stop=None):
    stop = ledger.size if stop is None else stop
    rows = ledger.seal_rows(start, stop)
    return ledger.sealed_entries(start, stop), {row.index: row.signature for row in rows}


def copied(ledger, directory, stop=None):
    entries, signatures = delivery(ledger, 0, stop)
    return Replica.found(directory, entries, signatures, default_contracts(), default_views())


def test_a_copy_equals_its_original_in_everything_that_can_be_asked(original, tmp_path) -> None:
    with copied(original, tmp_path / "copy") as copy:
        assert (copy.id, copy.size, copy.checkpoint()) == (original.id, original.size, original.checkpoint())
        for index in (0, 1, 2, 150, copy.size - 1):
            assert copy.receipt(index) == original.receipt(index)
        for key in (b"member/alice", b"member/nobody"):
            receipt = copy.state_receipt("members", key)
            assert receipt == original.state_receipt("members", key)
            verify_receipt(receipt, original.genesis.log_key, original.origin)
        runs = "SELECT * FROM view_run ORDER BY idx"
        assert copy.connection.execute(runs).fetchall() == original.connection.execute(runs).fetchall()
    report = audit(tmp_path / "copy", default_contracts())
    assert report.is_sound, report.problem
    assert report.size == original.size


def test_a_copy_grows_by_blocks_and_passes_over_what_it_has(original, site, tmp_path) -> None:
    first = original.seal_rows(0, 100)[-1].index + 1
    with copied(original, tmp_path / "copy", first) as copy:
        entries, signatures = delivery(original, 2)
        assert (
            copy.extend(2, entries, signatures, root=original.root_at(original.size)) == original.size - first
        )
        assert copy.extend(2, entries, signatures, root=original.root_at(original.size)) == 0
        original.append(site.entry(original), seal=True)
        more, signatures = delivery(original, copy.size)
        assert copy.extend(copy.size, more, signatures) == 2
        assert copy.checkpoint() == original.checkpoint()
    with Replica.open_copy(tmp_path / "copy", default_contracts(), default_views()) as again:
        assert again.size == original.size
        with pytest.raises(UsageError):
            again.append(site.entry(original))
    assert audit(tmp_path / "copy", default_contracts()).is_sound


def test_a_copy_that_was_made_with_other_views_gets_them_when_it_is_opened(original, tmp_path) -> None:
    entries, signatures = delivery(original)
    Replica.found(tmp_path / "copy", entries, signatures, default_contracts()).close()
    with Replica.open_copy(tmp_path / "copy", default_contracts(), default_views()) as copy:
        assert copy.connection.execute("SELECT COUNT(*) FROM view_run").fetchone() == (300,)


@pytest.fixture
def copy(original, tmp_path):
    """All but the last block."""
    with copied(original, tmp_path / "copy", original.seal_rows(0, original.size)[-2].index + 1) as made:
        yield made


def tampered(entries, place, change):
    entries = list(entries)
    entries[place] = change(entries[place])
    return entries


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize("place", [0, 1, 10, 17, 60, 81, 200, -1])
@pytest.mark.parametrize("number", [0, 3, -1])
def test_no_byte_of_a_delivery_can_be_changed(original, copy, number: int, place: int) -> None:
    entries, signatures = delivery(original, copy.size)
    size, checkpoint = copy.size, copy.checkpoint()
    with pytest.raises(VerificationError):
        copy.extend(size, tampered(entries, number, lambda data: flip(data, place)), signatures)
    assert (copy.size, copy.checkpoint()) == (size, checkpoint)
    assert copy.extend(size, entries, signatures) == len(entries)


def test_what_is_left_out_swapped_repeated_or_unsealed_is_refused(original, copy, site) -> None:
    entries, signatures = delivery(original, copy.size)
    size = copy.size
    wrong = {
        "left out": entries[:2] + entries[3:],
        "swapped": [entries[1], entries[0], *entries[2:]],
        "repeated": [entries[0], entries[0], *entries[1:]],
        "unsealed": entries[:-1],
        "of another author": [
            Entry.signed(site.run(original).to_bytes(), site.log_key).to_bytes(),
            *entries[1:],
        ],
        "empty": [b"", *entries],
    }
    for name, delivered in wrong.items():
        with pytest.raises(LichenError):
            copy.extend(size, delivered, signatures)
        assert copy.size == size, name
    for signature in ({}, {index: bytes(64) for index in signatures}):
        with pytest.raises(VerificationError):
            copy.extend(size, entries, signature)
    with pytest.raises(VerificationError, match="root"):
        copy.extend(size, entries, signatures, root=bytes(32))
    with pytest.raises(UsageError):
        copy.extend(size + 1, entries[1:], signatures)
    assert copy.size == size


def test_a_sealer_who_breaks_the_rules_is_not_followed(site, tmp_path) -> None:
    """The log's own key cannot make a copy take what the rules forbid: a seal of another state, an outsider's record."""
    from lichen.ledger.checkpoint import Checkpoint
    from lichen.ledger.seal import Seal
    from lichen.ledger.tree import leaf_hash, root_of

    ledger = site.create(views=default_views())
    ledger.append(site.entry(ledger), seal=True)
    with copied(ledger, tmp_path / "copy") as copy:
        ledger.append(site.entry(ledger), seal=True)
        entries, _ = delivery(ledger)
        outsider = Entry.signed(site.run(ledger).to_bytes(), site.log_key).to_bytes()
        honest, last = ledger.last_seal, ledger.size - 1
        for record, state_root in ((entries[-2], bytes(32)), (outsider, honest.state_root)):
            leaves = [leaf_hash(data) for data in [*entries[:-2], record]]
            seal = Seal(
                honest.block_height, honest.previous_seal, last, root_of(leaves), state_root, honest.time_unix_ms
            )  # fmt: skip
            sealed = Entry.signed(seal.to_statement().to_bytes(), site.log_key).to_bytes()
            body = Checkpoint(ledger.origin, last + 1, root_of([*leaves, leaf_hash(sealed)])).body()
            with pytest.raises(VerificationError):
                copy.extend(copy.size, [record, sealed], {last: site.log_key.sign(body.encode())})
        assert copy.size == ledger.size - 2


def test_a_copy_begins_with_a_genesis_and_nothing_is_left_when_it_does_not(original, tmp_path) -> None:
    entries, signatures = delivery(original, 0, 2)
    for wrong in ([], entries[1:], [entries[1], entries[0]], [flip(entries[0], 90), entries[1]]):
        with pytest.raises((EncodingError, VerificationError)):
            Replica.found(tmp_path / "copy", wrong, signatures, default_contracts())
    with pytest.raises((VerificationError, Rejected)):
        Replica.found(tmp_path / "copy", entries[:1], signatures, default_contracts())
    with Replica.found(tmp_path / "copy", entries, signatures, default_contracts()) as copy:
        assert copy.size == 2


def test_seals_are_told_from_records(original) -> None:
    assert not is_seal(original.sealed_entries(0, 1)[0])
    assert is_seal(original.sealed_entries(1, 2)[0])
    with pytest.raises(EncodingError):
        is_seal(b"nothing")
