"""Which contract rules what, and what a contract may not do."""

from __future__ import annotations

import pytest

from lichen.contracts import default_contracts
from lichen.contracts.members import Members
from lichen.errors import EncodingError, UsageError
from lichen.ledger.ports import StateWrite
from lichen.ledger.rulebook import Rulebook


class Notes:
    """A contract of somebody else: short notes, one key each."""

    name = "notes"
    version = 1
    kinds = frozenset({"note"})

    def __init__(self, writes=None):
        self.writes = writes

    def check(self, record, state):
        """Everything goes."""

    def apply(self, record, state):
        return self.writes or [StateWrite(self.name, record.payload_digest, b"\x01")]


@pytest.fixture
def genesis(site):
    return site.genesis(contracts={"members": 1, "registry": 1, "notes": 1})


def test_a_contract_of_somebody_else_takes_part(site):
    from lichen.encoding.statement import Subject
    from lichen.ledger.ledger import Ledger
    from lichen.ledger.receipt import verify_receipt

    genesis = site.genesis(contracts={"members": 1, "notes": 1})
    with Ledger.create(site.directory, genesis, site.log_key, [*default_contracts(), Notes()]) as ledger:
        note = ledger.statement("note", [Subject("n", bytes(32))], {"text": "hello"}, member="alice")
        appended = ledger.append_signed(note, site.alice)
        receipt = ledger.state_receipt("notes", appended.payload_digest)
        assert verify_receipt(receipt, None, ledger.origin).value == b"\x01"


def test_kinds_belong_to_one_contract(genesis):
    class Rival(Notes):
        kinds = frozenset({"run"})

    with pytest.raises(UsageError, match="both rule 'run'"):
        Rulebook(genesis, [*default_contracts(), Rival()])


def test_keys_are_one_contracts_business(site):
    class Guard(Members):
        name = "notes"
        kinds: frozenset[str] = frozenset()

    with pytest.raises(UsageError, match="found 2"):
        Rulebook(site.genesis(contracts={"members": 1, "notes": 1}), [*default_contracts(), Guard()])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (StateWrite("registry", b"k", b"v"), "under the name 'registry'"),
        (StateWrite("notes", b"k", b""), "1 to 1,?024"),
        (StateWrite("notes", b"k", bytes(1_025)), "1 to 1,?024"),
    ],
)
def test_a_contract_writes_what_fits_under_its_own_name(site, write, message):
    from lichen.encoding.statement import Subject
    from lichen.ledger.ledger import Ledger

    genesis = site.genesis(contracts={"members": 1, "notes": 1})
    with Ledger.create(
        site.directory, genesis, site.log_key, [*default_contracts(), Notes([write])]
    ) as ledger:
        note = ledger.statement("note", [Subject("n", bytes(32))], {}, member="alice")
        with pytest.raises(EncodingError, match=message):
            ledger.append_signed(note, site.alice)
        assert ledger.size == 2


def test_the_ledgers_own_kinds_are_not_for_contracts(genesis):
    class Usurper(Notes):
        kinds = frozenset({"seal", "genesis", "note"})

    assert Rulebook(genesis, [*default_contracts(), Usurper()]).kinds & {"seal", "genesis"} == set()
