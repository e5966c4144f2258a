"""The solo orderer: one order for all callers, few transactions for many of them."""

from __future__ import annotations

import threading

import pytest

from lichen.encoding.entry import Entry
from lichen.errors import Rejected, StorageError, UsageError
from lichen.ledger.genesis import Sealing
from lichen.ledger.orderer import Orderer, SoloOrderer


def in_threads(count, work):
    """Run ``work(number)`` in threads that start together; what each returned or raised, by number."""
    outcomes = {}
    gate = threading.Barrier(count)

    def body(number):
        gate.wait()
        try:
            outcomes[number] = work(number)
        except Exception as error:
            outcomes[number] = error

    threads = [threading.Thread(target=body, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return outcomes


def test_callers_share_transactions_and_each_gets_its_own_answer(site, ledger, monkeypatch):
    orderer: Orderer = SoloOrderer(ledger)
    entries = [site.entries(ledger, 3) for _ in range(12)]
    calls = []
    append_many = ledger.append_many

    def counted(batch, **options):
        calls.append(len(batch))
        return append_many(batch, **options)

    monkeypatch.setattr(ledger, "append_many", counted)
    outcomes = in_threads(12, lambda number: orderer.submit(entries[number]))
    indices = []
    for number, results in outcomes.items():
        places = [result.index for result in results]
        assert places == sorted(places)
        assert [ledger.entry(place) for place in places] == entries[number]
        indices += places
    assert sorted(indices) == list(range(2, 38))
    assert sum(calls) == 36
    assert len(calls) <= 12


def test_a_refusal_reaches_only_its_caller(site, ledger):
    orderer = SoloOrderer(ledger)
    good, bad = site.entry(ledger), Entry(site.alice.public.key_id, bytes(64), site.run(ledger).to_bytes())
    outcomes = in_threads(2, lambda number: orderer.submit([[good], [bad]][number]))
    assert outcomes[0][0].index == 2
    assert isinstance(outcomes[1][0], Rejected)


def test_a_failure_reaches_everyone_who_was_in_the_batch_and_the_next_batch_goes_on(
    site, ledger, monkeypatch
):
    orderer = SoloOrderer(ledger)
    append_many = ledger.append_many

    def broken(batch, **options):
        raise StorageError("the disk is gone")

    monkeypatch.setattr(ledger, "append_many", broken)
    outcomes = in_threads(4, lambda number: orderer.submit([site.entry(ledger)]))
    assert all(isinstance(outcome, StorageError) for outcome in outcomes.values())
    monkeypatch.setattr(ledger, "append_many", append_many)
    assert orderer.submit([site.entry(ledger)])[0].index == 2


def test_more_than_one_transaction_holds_is_still_all_ordered(site, ledger, monkeypatch):
    monkeypatch.setattr("lichen.ledger.orderer.BATCH_COUNT_MAX", 5)
    orderer = SoloOrderer(ledger)
    outcomes = in_threads(8, lambda number: orderer.submit(site.entries(ledger, 3)))
    assert sorted(result.index for results in outcomes.values() for result in results) == list(range(2, 26))


def test_a_seal_asked_for_covers_the_batch(site, ledger):
    index = SoloOrderer(ledger).submit([site.entry(ledger)], seal=True)[0].index
    assert ledger.sealed_size == index + 2


def test_closing_takes_nothing_more(site, ledger):
    orderer = SoloOrderer(ledger)
    orderer.submit([site.entry(ledger)])
    orderer.close()
    with pytest.raises(UsageError, match="closed"):
        orderer.submit([site.entry(ledger)])
    assert ledger.append(site.entry(ledger)).index == 3


def test_it_needs_a_ledger_it_may_write_and_order_alone(site):
    site.create(sealing=Sealing(consensus="pbft", entries_max=10, slot_ms=1_000))
    with pytest.raises(UsageError, match="ordered by 'pbft'"):
        SoloOrderer(site.open())


def test_it_needs_the_log_key(site, ledger):
    with pytest.raises(UsageError, match="reading only"):
        SoloOrderer(site.open(read_only=True))
