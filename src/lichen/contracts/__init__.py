"""Deterministic rules over ordered records, one contract per file.

=============  =============================================================================
``members``    who may write, with which key, from which entry to which
``registry``   data, runs, models, evaluations, reuses, flags, disputes, withdrawals
=============  =============================================================================

A contract touches no clock, disk, socket or randomness: everything it knows is the record in hand and the records before
it. To add a kind of fact, write one file with a class that implements `Contract` and name it in `default_contracts`;
a new ledger then pins it in its genesis.
"""

from __future__ import annotations

from lichen.contracts.members import Members
from lichen.contracts.registry import Registry
from lichen.ledger.ports import Authority, Contract, Record, StateReader, StateWrite

__all__ = [
    "Authority",
    "Contract",
    "Members",
    "Record",
    "Registry",
    "StateReader",
    "StateWrite",
    "default_contracts",
    "default_versions",
]


def default_contracts() -> tuple[Contract, ...]:
    """Every contract this Lichen knows, in the newest version of each."""
    return (Members(), Registry())


def default_versions() -> dict[str, int]:
    """What a new genesis pins: version by contract name."""
    return {contract.name: contract.version for contract in default_contracts()}
