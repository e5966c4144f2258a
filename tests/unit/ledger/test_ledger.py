"""The ledger from outside: what is appended is there, in order, proved; what is refused is not."""

from __future__ import annotations

import pytest

from lichen.contracts.registry import exact_fingerprint
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import (
    EncodingError,
    FormatVersionError,
    KeyFileError,
    NotALedgerError,
    NotFoundError,
    Rejected,
    UsageError,
)
from lichen.ledger.checkpoint import open_checkpoint
from lichen.ledger.genesis import Sealing
from lichen.ledger.ledger import Ledger
from lichen.ledger.ports import Appended
from lichen.ledger.proof import verify_consistency, verify_inclusion
from lichen.ledger.receipt import verify_receipt
from lichen.ledger.seal import Seal
from lichen.ledger.tree import leaf_hash, root_of


class TestCreate:
    def test_a_new_ledger_is_its_genesis_and_the_seal_over_it(self, site, ledger):
        assert (ledger.size, ledger.sealed_size) == (2, 2)
        assert ledger.id == leaf_hash(ledger.entry(0).to_bytes()).hex()
        assert ledger.origin == f"lichen/{ledger.id}"
        assert ledger.genesis.name == "clinic"
        assert ledger.last_seal.tree_size == 1

    def test_the_directory_must_be_free(self, site, ledger):
        with pytest.raises(UsageError, match="exists already"):
            site.create()
        assert ledger.append_signed(site.run(ledger), site.alice).index == 2

    def test_what_an_interrupted_creation_left_is_taken_over(self, site):
        site.directory.mkdir(parents=True)
        site.path.touch()
        assert site.create().size == 2

    def test_a_foreign_database_is_left_alone(self, site):
        import sqlite3

        site.directory.mkdir(parents=True)
        with sqlite3.connect(site.path) as connection:
            connection.execute("CREATE TABLE mine(a)")
        connection.close()
        before = site.path.read_bytes()
        with pytest.raises(UsageError, match="exists already"):
            site.create()
        assert site.path.read_bytes() == before

    def test_a_contract_the_program_lacks_is_named(self, site):
        with pytest.raises(FormatVersionError, match="version 7 of the contract 'market'"):
            site.create(contracts={"members": 1, "registry": 1, "market": 7})

    def test_contracts_the_genesis_does_not_name_have_no_say(self, site):
        ledger = site.create(contracts={"members": 1})
        with pytest.raises(Rejected) as refusal:
            ledger.append_signed(site.run(ledger), site.alice)
        assert refusal.value.rule == "ledger.unknown-kind"

    def test_a_genesis_needs_an_authority_over_keys(self, site):
        with pytest.raises(UsageError, match="whose keys"):
            site.create(contracts={"registry": 1})


class TestAppend:
    def test_an_entry_gets_the_next_index_and_reads_back(self, site, ledger):
        entry = site.entry(ledger)
        appended = ledger.append(entry)
        assert appended.index == 2
        assert ledger.entry(2) == entry
        assert ledger.find_payload(appended.payload_digest) == 2
        assert ledger.record(2).member == "alice"

    def test_a_batch_keeps_its_order_around_what_is_refused(self, site, ledger):
        good = site.entries(ledger, 4)
        forged = Entry(good[1].key_id, bytes(64), good[1].payload)
        results = ledger.append_many([good[0], forged, good[2], good[0], good[3]])
        assert [isinstance(result, Appended) for result in results] == [True, False, True, False, True]
        assert [results[place].index for place in (0, 2, 4)] == [2, 3, 4]
        assert (results[1].rule, results[3].rule) == ("ledger.bad-signature", "ledger.duplicate")
        assert ledger.size == 5

    def test_large_batches_are_verified_as_strictly(self, site, ledger):
        entries = site.entries(ledger, 200)
        bad = {5, 77, 199}
        mixed = [
            Entry(entry.key_id, bytes(64), entry.payload) if place in bad else entry
            for place, entry in enumerate(entries)
        ]
        results = ledger.append_many(mixed)
        refused = {place for place, result in enumerate(results) if isinstance(result, Rejected)}
        assert refused == bad

    def test_a_key_admitted_in_the_same_batch_may_write_behind_it(self, site, ledger):
        bob = SigningKey.generate()
        admit = ledger.statement(
            "member",
            [Subject("key", bob.public.raw)],
            {"action": "admit", "subject_member": "bob", "key": b64u(bob.public.raw)},
            member="alice",
        )
        batch = [
            Entry.signed(site.run(ledger, member="bob").to_bytes(), bob),
            Entry.signed(admit.to_bytes(), site.alice),
            Entry.signed(site.run(ledger, member="bob").to_bytes(), bob),
        ]
        early, admitted, late = ledger.append_many(batch)
        assert early.rule == "members.not-admitted"
        assert (admitted.index, late.index) == (2, 3)

    def test_the_same_record_again_is_refused_and_named(self, site, ledger):
        entry = site.entry(ledger)
        ledger.append(entry)
        ledger.append_many(site.entries(ledger, 300))
        with pytest.raises(Rejected, match="as entry 2") as refusal:
            ledger.append(entry)
        assert refusal.value.rule == "ledger.duplicate"

    @pytest.mark.parametrize("before", [250, 253, 254, 255, 256, 510])
    def test_a_record_is_known_on_both_sides_of_a_full_tile(self, site, before):
        """Payload digests go to the index tile by tile; none is lost in between, also not by reopening."""
        ledger = site.create()
        entries = site.entries(ledger, before + 5)
        ledger.append_many(entries[:before])
        other = site.open()
        for entry in entries[before:]:
            ledger.append(entry)
        ledger.append(site.entry(ledger), seal=True)
        for opened in (ledger, other, site.open()):
            for entry in (*entries[:3], *entries[-12:]):
                with pytest.raises(Rejected, match="in the ledger already"):
                    opened.append(entry)

    @pytest.mark.parametrize(
        ("change", "rule"),
        [
            (lambda s: {**s, "ledger": b64u(bytes(32))}, "ledger.wrong-ledger"),
            (lambda s: {name: s[name] for name in s if name != "ledger"}, "ledger.wrong-ledger"),
            (lambda s: {**s, "member": 7}, "ledger.malformed"),
            (lambda s: {**s, "member": "bob"}, "members.forged-author"),
            (lambda s: {**s, "status": "fine"}, "registry.schema"),
        ],
    )
    def test_refusals_have_names(self, site, ledger, change, rule):
        statement = site.run(ledger)
        changed = Statement("run", statement.subjects, change(statement.predicate))
        with pytest.raises(Rejected) as refusal:
            ledger.append_signed(changed, site.alice)
        assert refusal.value.rule == rule
        assert ledger.size == 2

    @pytest.mark.parametrize("kind", ["genesis", "seal"])
    def test_the_ledgers_own_kinds_cannot_be_appended(self, site, ledger, kind):
        own = ledger.entry(0 if kind == "genesis" else 1)
        with pytest.raises(Rejected) as refusal:
            ledger.append(Entry.signed(own.payload, site.alice))
        assert refusal.value.rule == "ledger.reserved-kind"

    def test_the_log_key_does_not_write_records(self, site, ledger):
        for member in ("alice", "log"):
            with pytest.raises(Rejected) as refusal:
                ledger.append_signed(site.run(ledger, member=member), site.log_key)
            assert refusal.value.rule == "members.not-admitted"

    def test_payloads_that_are_no_statement_are_refused(self, site, ledger):
        for payload in (b"{}", b"\xff", b'{"a":1,"a":1}', b"[" * 1000):
            with pytest.raises(Rejected) as refusal:
                ledger.append(Entry.signed(payload, site.alice))
            assert refusal.value.rule == "ledger.malformed"

    def test_contracts_judge_what_an_auditor_will_read(self, site, ledger):
        """A tuple is a list, and 1.0 is 1, in the bytes that are signed."""
        statement = site.run(ledger, data=(b64u(b"d" * 32),), metrics={"accuracy": 1.0})
        index = ledger.append_signed(statement, site.alice).index
        assert ledger.record(index).predicate["metrics"] == {"accuracy": 1}


class TestSealing:
    def test_a_full_block_is_sealed_inside_the_batch(self, site):
        ledger = site.create(sealing=Sealing(entries_max=10, slot_ms=3_600_000))
        results = ledger.append_many(site.entries(ledger, 25))
        assert [result.index for result in results] == [*range(2, 12), *range(13, 23), *range(24, 29)]
        assert (ledger.size, ledger.sealed_size) == (29, 24)
        assert ledger.last_seal.block_height == 2

    def test_a_slot_that_is_over_is_sealed_with_the_next_entry(self, site, ledger):
        ledger.append(site.entry(ledger))
        assert ledger.sealed_size == 2
        site.time_ms += 3_600_000
        ledger.append(site.entry(ledger))
        assert (ledger.size, ledger.sealed_size) == (5, 5)

    def test_sealing_on_demand_covers_the_entry_at_once(self, site, ledger):
        index = ledger.append(site.entry(ledger), seal=True).index
        assert (ledger.size, ledger.sealed_size) == (index + 2, index + 2)

    def test_no_empty_blocks(self, site, ledger):
        assert ledger.seal(force=True) is None
        ledger.append_many([], seal=True)
        assert ledger.size == 2
        with pytest.raises(Rejected):
            ledger.append(Entry.signed(b"{}", site.alice), seal=True)
        assert ledger.size == 2

    def test_seal_asks_the_policy_unless_forced(self, site, ledger):
        ledger.append(site.entry(ledger))
        assert ledger.seal() is None
        assert ledger.seal(force=True) == 3

    def test_closing_seals_what_is_pending(self, site, ledger):
        ledger.append_many(site.entries(ledger, 3))
        ledger.close()
        ledger.close()
        assert (site.open(read_only=True).sealed_size, site.open().size) == (6, 6)

    def test_time_never_falls(self, site, ledger):
        times = [ledger.last_seal.time_unix_ms]
        for step in (+50, -1_000_000, +10, -(10**15), 5):
            site.time_ms += step
            ledger.append(site.entry(ledger), seal=True)
            times.append(ledger.last_seal.time_unix_ms)
        assert times == sorted(times)

    def test_a_clock_set_back_does_not_stop_sealing(self, site, ledger):
        site.time_ms -= 10**10
        ledger.append(site.entry(ledger))
        assert ledger.sealed_size == ledger.size

    def test_a_seal_commits_to_what_came_before_it(self, site, ledger):
        ledger.append_many(site.entries(ledger, 5), seal=True)
        index = ledger.size - 1
        seal = Seal.from_statement(Statement.from_bytes(ledger.entry(index).payload))
        hashes = [leaf_hash(entry.to_bytes()) for _, entry in ledger.entries()]
        assert seal.tree_size == index
        assert seal.root == root_of(hashes[:index])
        assert ledger.root_at(index + 1) == root_of(hashes)
        assert open_checkpoint(ledger.checkpoint(), ledger.origin, site.log_key.public).root == root_of(
            hashes
        )

    def test_of_a_key_written_twice_before_its_seal_the_later_value_counts(self, site, ledger):
        """Also when a seal follows in its own transaction."""
        for seal in (False, True):
            ledger.append_signed(site.run(ledger, seed=1), site.alice, seal=seal)
        ledger.close()
        parts = site.run(ledger, seed=1).predicate["parts"]
        value = site.open().state_get("registry", b"exact/" + exact_fingerprint(parts))
        assert int.from_bytes(value[:4], "big") == 2

    def test_state_is_the_same_before_and_after_the_seal_and_after_reopening(self, site, ledger):
        statement = site.run(ledger)
        key = b"exact/" + exact_fingerprint(statement.predicate["parts"])
        assert ledger.state_get("registry", key) is None
        ledger.append_signed(statement, site.alice)
        pending = ledger.state_get("registry", key)
        other = site.open()
        assert other.state_get("registry", key) == pending
        ledger.seal(force=True)
        assert ledger.state_get("registry", key) == pending is not None
        assert other.state_get("registry", key) == pending

    def test_the_live_state_follows_other_writers(self, site, ledger):
        reader = site.open(read_only=True)
        state = reader.state
        statement = site.run(ledger)
        index = ledger.append_signed(statement, site.alice, seal=True).index
        key = b"exact/" + exact_fingerprint(statement.predicate["parts"])
        assert state.get("registry", key) == ledger.state_get("registry", key) is not None
        assert (state.size, state.record(index).kind) == (4, "run")
        assert state.record(index + 1) is None
        assert state.record(99) is None


class TestReceipts:
    @pytest.mark.parametrize("count", [1, 2, 254, 255, 256, 257, 600])
    def test_every_entry_has_a_receipt_that_holds(self, site, ledger, count):
        ledger.append_many(site.entries(ledger, count), seal=True)
        for index in {0, 1, 2, 255, 256, count, ledger.size - 1} & set(range(ledger.size)):
            verified = verify_receipt(ledger.receipt(index), None, ledger.origin)
            assert (verified.index, verified.tree_size) == (index, ledger.size)
            assert verified.author_verified

    def test_a_pending_entry_is_sealed_for_its_receipt(self, site, ledger):
        index = ledger.append(site.entry(ledger)).index
        verify_receipt(ledger.receipt(index), site.log_key.public, ledger.origin)
        assert ledger.sealed_size == index + 2

    def test_a_reader_is_told_that_an_entry_is_not_sealed(self, site, ledger):
        index = ledger.append(site.entry(ledger)).index
        with pytest.raises(UsageError, match="not sealed yet"):
            site.open(read_only=True).receipt(index)

    def test_state_receipts_prove_presence_and_absence(self, site, ledger):
        statement = site.run(ledger)
        key = b"exact/" + exact_fingerprint(statement.predicate["parts"])
        absent = verify_receipt(ledger.state_receipt("registry", key), None, ledger.origin)
        assert absent.value is None
        ledger.append_signed(statement, site.alice)
        present = verify_receipt(ledger.state_receipt("registry", key), None, ledger.origin)
        assert present.value == ledger.state_get("registry", key)
        assert present.index == ledger.sealed_size - 1

    def test_proofs_hold_under_every_earlier_size(self, site, ledger):
        ledger.append_many(site.entries(ledger, 40))
        hashes = [leaf_hash(entry.to_bytes()) for _, entry in ledger.entries()]
        size = ledger.size
        for earlier in range(1, size + 1):
            proof = ledger.prove_consistency(earlier, size)
            verify_consistency(earlier, size, root_of(hashes[:earlier]), root_of(hashes), proof)
            proof = ledger.prove_inclusion(earlier - 1, earlier)
            verify_inclusion(earlier - 1, earlier, hashes[earlier - 1], proof, root_of(hashes[:earlier]))

    def test_what_is_not_there_is_said_so(self, site, ledger):
        for index in (-1, 2, 10**12):
            with pytest.raises(NotFoundError, match="no entry"):
                ledger.entry(index)
            with pytest.raises(NotFoundError):
                ledger.receipt(index)
        with pytest.raises(UsageError, match="never had"):
            ledger.prove_inclusion(0, 99)
        with pytest.raises(UsageError, match="never had"):
            ledger.prove_consistency(1, 99)
        with pytest.raises(UsageError, match="never had"):
            ledger.root_at(99)


class TestOpening:
    def test_there_must_be_one(self, site):
        with pytest.raises(NotALedgerError, match="no ledger at"):
            site.open()

    def test_the_key_must_be_its_own(self, site, ledger):
        with pytest.raises(KeyFileError, match="not the one"):
            site.open(log_key=SigningKey.generate())

    def test_without_the_key_it_reads_only(self, site, ledger):
        reader = site.open(read_only=True)
        assert reader.read_only
        for attempt in (
            lambda: reader.append(site.entry(ledger)),
            lambda: reader.append_many([]),
            lambda: reader.append_signed(site.run(ledger), site.alice),
            lambda: reader.seal(force=True),
            reader.rebuild_views,
        ):
            with pytest.raises(UsageError, match="reading only"):
                attempt()
        assert reader.size == 2

    def test_an_order_that_members_agree_on_is_not_one_writers_business(self, site):
        agreed = site.create(sealing=Sealing(consensus="pbft", entries_max=10, slot_ms=1_000))
        with pytest.raises(UsageError, match="agreed by 'pbft'"):
            agreed.append(site.entry(agreed))
        assert agreed.size == 2

    def test_a_reader_sees_what_is_appended_meanwhile(self, site, ledger):
        reader = site.open(read_only=True)
        entry = site.entry(ledger)
        index = ledger.append(entry, seal=True).index
        assert reader.entry(index) == entry
        verify_receipt(reader.receipt(index), None, reader.origin)

    def test_a_closed_ledger_says_so(self, site, ledger):
        entry = site.entry(ledger)
        ledger.close()
        for attempt in (lambda: ledger.append(entry), lambda: ledger.size, lambda: ledger.receipt(0)):
            with pytest.raises(UsageError, match="closed"):
                attempt()

    def test_it_is_a_context_manager(self, site):
        with site.create() as ledger:
            ledger.append(site.entry(ledger))
        assert site.open(read_only=True).sealed_size == 4

    def test_a_name_with_odd_characters_is_a_name(self, site, tmp_path):
        site.directory = tmp_path / "a b?c#d%20é\udce9"
        site.create().close()
        assert site.open().size == 2

    def test_it_opens_with_an_ordinary_connection(self, site, ledger):
        assert isinstance(ledger, Ledger)
        assert ledger.connection.execute("SELECT count(*) FROM entries").fetchone() == (2,)
        with pytest.raises(Exception, match="readonly"):
            ledger.connection.execute("DELETE FROM entries")


class TestManyOwnRecords:
    def test_each_gets_its_index_or_its_reason(self, site, ledger):
        statements = [site.run(ledger), site.run(ledger, status="slept"), site.run(ledger)]
        first, refused, last = ledger.append_all_signed(statements, site.alice, seal=True)
        assert (first.index, last.index) == (2, 3)
        assert refused.rule == "registry.schema"
        assert [ledger.entry(index).payload for index in (2, 3)] == [
            statements[0].to_bytes(),
            statements[2].to_bytes(),
        ]
        verify_receipt(ledger.receipt(3), site.log_key.public, ledger.origin)

    def test_contracts_see_what_an_auditor_will_read(self, site, ledger):
        """Tuples are written as lists and 2.0 as 2, and judged as such."""
        said = site.run(ledger, metrics={"accuracy": 2.0}, data=(b64u(b"d" * 32),), exit_status=0)
        assert ledger.append_signed(said, site.alice).index == 2
        assert b'"accuracy":2}' in ledger.entry(2).payload

    @pytest.mark.parametrize("apart", [1, 300])
    def test_a_record_that_comes_twice_in_one_batch_counts_once(self, site, ledger, apart):
        """Also when a hash tile became full in between, so that the digest of the first lies in the table already."""
        statements = [site.run(ledger) for _ in range(apart)]
        *kept, again = ledger.append_all_signed([*statements, statements[0]], site.alice)
        assert [result.index for result in kept] == list(range(2, 2 + apart))
        assert (again.rule, "as entry 2" in again.message) == ("ledger.duplicate", True)
        later = ledger.append_all_signed([site.run(ledger), statements[0]], site.alice)
        assert later[1].rule == "ledger.duplicate"

    def test_a_record_may_refer_to_one_of_the_same_batch(self, site, ledger):
        statements = [
            site.run(ledger),
            ledger.statement("flag", [Subject("x", bytes(32))], {"of": 2, "error": "wrong"}, member="alice"),
        ]
        assert [each.index for each in ledger.append_all_signed(statements, site.alice)] == [2, 3]

    def test_one_that_json_cannot_say_stops_them_all(self, site, ledger):
        good = site.run(ledger)
        said = Statement("run", good.subjects, {**good.predicate, "metrics": {"accuracy": float("nan")}})
        with pytest.raises(EncodingError):
            ledger.append_all_signed([good, said], site.alice)
        assert ledger.size == 2
