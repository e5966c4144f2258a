"""Many signatures at once: the same as one at a time, in the same order, whatever the number of threads."""

from __future__ import annotations

import threading

import pytest

from lichen.crypto.keys import SigningKey
from lichen.encoding.entry import PAYLOAD_BYTES_MAX, Entry
from lichen.errors import EncodingError, VerificationError
from lichen.ledger import signatures
from lichen.ledger.signatures import CHUNK_COUNT, SignatureChecks, sign_all


@pytest.mark.parametrize("worker_count", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, CHUNK_COUNT, 2 * CHUNK_COUNT, 5 * CHUNK_COUNT + 7])
def test_signed_together_or_one_by_one_is_the_same(
    monkeypatch: pytest.MonkeyPatch, worker_count: int, count: int
) -> None:
    monkeypatch.setattr(signatures, "WORKER_COUNT", worker_count)
    key = SigningKey.from_seed(bytes(range(32)))
    payloads = [b'{"number":%d}' % number for number in range(count)]
    assert sign_all(payloads, key) == [Entry.signed(payload, key) for payload in payloads]


def test_a_payload_that_cannot_be_an_entry_is_refused_from_any_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(signatures, "WORKER_COUNT", 3)
    before = threading.active_count()
    for place in (0, CHUNK_COUNT * 2, CHUNK_COUNT * 4 - 1):
        payloads = [b"{}"] * (CHUNK_COUNT * 4)
        payloads[place] = b" " * (PAYLOAD_BYTES_MAX + 1)
        with pytest.raises(EncodingError, match="payload"):
            sign_all(payloads, SigningKey.generate())
    assert threading.active_count() == before


@pytest.mark.parametrize("worker_count", [1, 2])
def test_every_signature_that_does_not_hold_is_named(
    monkeypatch: pytest.MonkeyPatch, worker_count: int
) -> None:
    monkeypatch.setattr(signatures, "WORKER_COUNT", worker_count)
    key, other = SigningKey.generate(), SigningKey.generate()
    entries = sign_all([b'{"number":%d}' % number for number in range(3 * CHUNK_COUNT)], key)
    forged = {5, CHUNK_COUNT, 3 * CHUNK_COUNT - 1}
    with SignatureChecks() as checks:
        for place, entry in enumerate(entries):
            bad = Entry(entry.key_id, other.sign(b"another message"), entry.payload)
            checks.add(place, bad if place in forged else entry, key.public)
        failures = checks.failures()
    assert failures.keys() == forged
    assert all(isinstance(failure, VerificationError) for failure in failures.values())
