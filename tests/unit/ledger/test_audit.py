"""An audit holds for what was made properly, and names the first thing that was not."""

from __future__ import annotations

import sqlite3

import pytest

from lichen.contracts import default_contracts
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import NotALedgerError
from lichen.ledger.audit import audit


def audited(site, **options):
    return audit(site.directory, default_contracts(), **options)


def tamper(site, sql, *values):
    """Change the file behind the ledger's back."""
    with sqlite3.connect(site.path, isolation_level=None) as connection:
        changed = connection.execute(sql, values).rowcount
    connection.close()
    assert changed == 1, "the tampering itself must hit one row"


def test_a_sound_ledger_is_sound(site, filled):
    seen = []
    report = audited(site, progress=lambda done, total: seen.append((done, total)))
    assert report.is_sound, report.problem
    assert (report.size, report.sealed_size) == (filled.size, filled.sealed_size)
    assert report.kinds == {"genesis": 1, "seal": 13, "run": 605}
    assert report.ledger_id == filled.id
    assert report.root == filled.root_at(filled.sealed_size).hex()
    assert report.to_json()["problem"] is None
    assert seen[0][0] == 0
    assert seen[-1] == (filled.size, filled.size)


def test_a_new_ledger_is_sound(site, ledger):
    assert audited(site).is_sound


def flipped(data, at=-20):
    changed = bytearray(data)
    changed[at] ^= 0x40
    return bytes(changed)


@pytest.mark.parametrize("index", [3, 300, 610])
def test_a_changed_entry_is_found(site, filled, index):
    data = filled.entry(index).to_bytes()
    tamper(site, "UPDATE entries SET entry=? WHERE idx=?", flipped(data), index)
    report = audited(site)
    assert report.problem.index == index


@pytest.mark.parametrize(
    ("sql", "values", "index"),
    [
        ("DELETE FROM entries WHERE idx=?", (100,), 100),
        ("DELETE FROM payloads WHERE idx=?", (100,), 100),
        ("UPDATE payloads SET idx=101 WHERE idx=?", (100,), 100),
        ("INSERT INTO payloads VALUES(?,7)", (1,), None),
        ("UPDATE tiles SET hashes=zeroblob(8192) WHERE position=?", (0,), 0),
        ("UPDATE tiles SET hashes=zeroblob(64) WHERE position=?", (1 << 56,), None),
        ("DELETE FROM tiles WHERE position=?", (1 << 56,), None),
        ("INSERT INTO tiles VALUES(?,zeroblob(8192))", (9,), None),
        ("UPDATE entries SET checkpoint=zeroblob(96) WHERE idx=?", (51,), None),
        ("UPDATE entries SET checkpoint=NULL WHERE idx=?", (52,), 52),
        ("UPDATE state_versions SET root=zeroblob(32) WHERE version=(SELECT max(version)+? FROM state_versions)", (0,), None),
    ],
)  # fmt: skip
def test_whatever_is_changed_beside_the_entries_is_found(site, filled, sql, values, index):
    seal = next(
        place for place, entry in filled.entries() if place > 1 and b"urn:lichen:seal" in entry.payload
    )
    values = tuple(seal if value in (51, 52) else value for value in values)
    tamper(site, sql, *values)
    report = audited(site)
    assert not report.is_sound
    if index == 52:
        index = seal
    if index is not None:
        assert report.problem.index == index


def test_a_changed_state_value_is_found(site, filled):
    with sqlite3.connect(site.path) as connection:
        node, data = connection.execute(
            "SELECT node, data FROM state_buckets ORDER BY node LIMIT 1"
        ).fetchone()
    connection.close()
    tamper(site, "UPDATE state_buckets SET data=? WHERE node=?", flipped(data, -1), node)
    report = audited(site)
    assert report.problem.index is None
    assert "state" in report.problem.message


class TestForgedByTheLogItself:
    """The log key can sign anything; the entries give it away."""

    def rewrite(self, site, ledger, index, entry):
        """Put another entry in a place no tile covers yet, as a dishonest log could."""
        ledger.close()
        tamper(site, "UPDATE entries SET entry=? WHERE idx=?", entry.to_bytes(), index)

    def test_a_seal_over_a_state_that_does_not_follow(self, site, ledger):
        ledger.append(site.entry(ledger), seal=True)
        honest = Statement.from_bytes(ledger.entry(3).payload)
        lie = Statement("seal", (honest.subjects[0], Subject("state-root", bytes(32))), honest.predicate)
        self.rewrite(site, ledger, 3, Entry.signed(lie.to_bytes(), site.log_key))
        problem = audited(site).problem
        assert problem.index == 3
        assert "state root" in problem.message

    def test_a_record_nobody_signed(self, site, ledger):
        ledger.append(site.entry(ledger))
        statement = site.run(ledger)
        forged = Entry(site.alice.public.key_id, bytes(64), statement.to_bytes())
        self.rewrite(site, ledger, 2, forged)
        problem = audited(site).problem
        assert (problem.index, problem.code) == (2, "verification")
        assert "signature" in problem.message

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            (
                lambda s: Statement(s.kind, s.subjects, {**s.predicate, "ledger": b64u(bytes(32))}),
                "ledger.wrong-ledger",
            ),
            (lambda s: Statement("prophecy", s.subjects, s.predicate), "ledger.unknown-kind"),
            (lambda s: Statement(s.kind, s.subjects, {**s.predicate, "member": 7}), "ledger.malformed"),
            (lambda s: Statement(s.kind, s.subjects, {**s.predicate, "status": "great"}), "registry.schema"),
            (
                lambda s: Statement(s.kind, s.subjects, {**s.predicate, "member": "bob"}),
                "members.forged-author",
            ),
            (lambda s: Statement("genesis", s.subjects, s.predicate), "corrupt-ledger"),
        ],
    )
    def test_a_record_that_no_rule_would_have_let_in(self, site, ledger, change, code):
        ledger.append(site.entry(ledger))
        statement = change(site.run(ledger))
        self.rewrite(site, ledger, 2, Entry.signed(statement.to_bytes(), site.alice))
        problem = audited(site).problem
        assert (problem.index, problem.code) == (2, code)

    def test_a_record_repeated(self, site, ledger):
        ledger.append_many(site.entries(ledger, 2))
        earlier = ledger.entry(2)
        self.rewrite(site, ledger, 3, earlier)
        problem = audited(site).problem
        assert problem.index == 3
        assert "repeats an earlier payload" in problem.message

    def test_the_first_problem_comes_first_also_when_signatures_are_checked_later(self, site, ledger):
        ledger.append_many(site.entries(ledger, 5))
        good = ledger.entry(3)
        ledger.close()
        tamper(
            site,
            "UPDATE entries SET entry=? WHERE idx=3",
            Entry(good.key_id, bytes(64), good.payload).to_bytes(),
        )
        tamper(site, "UPDATE entries SET entry=? WHERE idx=5", b"\x01garbage")
        assert audited(site).problem.index == 3

    def test_a_seal_out_of_place(self, site, ledger):
        from dataclasses import replace

        from lichen.ledger.seal import Seal

        ledger.append(site.entry(ledger), seal=True)
        seal = Seal.from_statement(Statement.from_bytes(ledger.entry(3).payload))
        for change in ({"consensus": "pbft"}, {"sealer": "bob"}, {"time_unix_ms": 0}):
            lie = replace(seal, **change)
            self.rewrite(site, ledger, 3, Entry.signed(lie.to_statement().to_bytes(), site.log_key))
            assert audited(site).problem.index == 3

    def test_a_seal_by_somebody_else(self, site, ledger):
        ledger.append(site.entry(ledger), seal=True)
        self.rewrite(site, ledger, 3, Entry.signed(ledger.entry(3).payload, site.alice))
        problem = audited(site).problem
        assert problem.index == 3
        assert "not signed by the log" in problem.message


def test_entries_of_a_key_compromised_later_are_listed(site, ledger):
    bob = SigningKey.generate()

    def member(**said):
        statement = ledger.statement("member", [Subject("key", bob.public.raw)], said, member="alice")
        return ledger.append_signed(statement, site.alice)

    member(action="admit", subject_member="bob", key=b64u(bob.public.raw))
    indices = [ledger.append_signed(site.run(ledger, member="bob"), bob).index for _ in range(4)]
    member(action="compromise", subject_member="bob", key=b64u(bob.public.raw), from_index=indices[2])
    ledger.seal(force=True)
    report = audited(site)
    assert report.is_sound
    assert report.discredited == indices[2:]


def test_there_must_be_a_ledger(site):
    with pytest.raises(NotALedgerError):
        audited(site)
