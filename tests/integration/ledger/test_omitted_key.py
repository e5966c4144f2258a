"""A sealer who leaves something out: the proof of absence verifies, and an auditor who replays the entries exposes it."""

from __future__ import annotations

import os

import pytest

from lichen.contracts import Members, Registry, default_contracts, default_versions
from lichen.contracts.claims import read_claim
from lichen.contracts.registry import exact_fingerprint, withdrawn_key
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Subject
from lichen.ledger.audit import audit
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger
from lichen.ledger.receipt import Receipt, verify_receipt


class OmittingRegistry(Registry):
    """What a dishonest sealer runs: the same rules, but some keys are never written."""

    def __init__(self, is_omitted):
        self._is_omitted = is_omitted

    def apply(self, record, state):
        return [write for write in super().apply(record, state) if not self._is_omitted(record, write.key)]


class Operator:
    """Holds the log key, and seals with whatever contracts it likes."""

    def __init__(self, directory, contracts):
        self.directory = directory
        self.log_key, self.ada = SigningKey.generate(), SigningKey.generate()
        self.seeds = iter(range(10**6))
        genesis = Genesis(
            name="clinic",
            created_unix_ms=0,
            admins=(Admin("ada", self.ada.public),),
            log_key=self.log_key.public,
            contracts=default_versions(),
            nonce=os.urandom(12),
            sealing=Sealing("solo", 1_000, 3_600_000),
        )
        self.ledger = Ledger.create(directory, genesis, self.log_key, contracts)

    def run(self):
        """Append and seal a run; return its index and parts."""
        seed = next(self.seeds)
        parts = {
            name: b64u(f"{seed} {name}".encode().ljust(32))
            for name in ("command", "code", "data", "rest", "seed")
        }
        said = {
            "status": "trained", "reusable": True, "parts": parts, "family": b64u(bytes(16)), "data": [], "metrics": {},
            "energy": {"joules": 10.0, "u95": 0.1, "method": "model", "boundary": "process", "seconds": 1.0},
            "manifest": "bafkrei" + "a" * 52,
        }  # fmt: skip
        statement = self.ledger.statement("run", [Subject("output/0", os.urandom(32))], said, member="ada")
        return self.ledger.append(Entry.signed(statement.to_bytes(), self.ada), seal=True).index, parts

    def withdraw(self, index):
        record = self.ledger.record(index)
        statement = self.ledger.statement(
            "withdraw", record.statement.subjects, {"of": index, "reason": "wrong labels"}, member="ada"
        )
        return self.ledger.append(Entry.signed(statement.to_bytes(), self.ada), seal=True).index

    def checked_answer(self, key):
        """What somebody offline, with the log's key, learns from a receipt about a key."""
        text = self.ledger.state_receipt("registry", key).to_text()
        verified = verify_receipt(Receipt.parse(text), self.log_key.public, self.ledger.origin)
        return verified, read_claim("registry", key).answer(verified.value)

    def audited(self):
        """What an auditor with honest contracts finds."""
        self.ledger.close()
        return audit(self.directory, default_contracts())


@pytest.fixture
def operator(tmp_path):
    """Make an operator; the ledger is closed at the end."""
    made: list[Operator] = []

    def make(is_omitted=None):
        contracts = default_contracts() if is_omitted is None else (Members(), OmittingRegistry(is_omitted))
        made.append(Operator(tmp_path / f"ledger-{len(made)}", contracts))
        return made[-1]

    yield make
    for one in made:
        one.ledger.close()


@pytest.mark.parametrize("family", [b"exact", b"same-work"])
def test_work_left_out_of_the_state_is_proved_absent_and_the_audit_names_the_seal(operator, family):
    dishonest = operator(lambda record, key: record.index == 4 and key.startswith(family + b"/"))
    dishonest.run()
    index, parts = dishonest.run()
    assert index == 4
    key = b"exact/" + exact_fingerprint(parts)
    verified, said = dishonest.checked_answer(key)
    assert (verified.value is None) == (family == b"exact")
    if family == b"exact":
        assert said.startswith("no run with the exact fingerprint")
        assert any("only replaying" in sentence for sentence in verified.does_not_prove)
    dishonest.run()
    problem = dishonest.audited().problem
    assert problem is not None
    assert problem.index == 5, "the first seal over a state that does not follow"
    assert "state root in the seal at entry 5 is not the one derived" in problem.message


def test_a_withdrawal_left_out_of_the_state_is_exposed(operator):
    dishonest = operator(lambda record, _key: record.kind == "withdraw")
    index, _ = dishonest.run()
    withdrawal = dishonest.withdraw(index)
    verified, said = dishonest.checked_answer(withdrawn_key(index))
    assert verified.value is None
    assert said == f"no withdrawal of entry {index} is on record"
    problem = dishonest.audited().problem
    assert problem is not None
    assert problem.index == withdrawal + 1


def test_an_honest_sealer_passes_the_same_audit(operator):
    honest = operator()
    index, parts = honest.run()
    honest.withdraw(index)
    verified, said = honest.checked_answer(b"exact/" + exact_fingerprint(parts))
    assert verified.value is not None
    assert said.endswith(f"as entry {index}")
    report = honest.audited()
    assert report.is_sound, report.problem
