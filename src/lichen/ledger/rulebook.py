"""The contracts a genesis names, found among those this program has, and asked in one place.

Rules upheld here:

* Only contracts that the genesis pins are in force, each in exactly the version it pins; others may be installed and
  have no effect on this ledger.
* Every kind of record has one contract. ``genesis`` and ``seal`` are the ledger's own kinds and cannot be appended.
* A contract writes under its own name only, and only what can stand in the state.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from lichen.errors import EncodingError, FormatVersionError, UsageError
from lichen.ledger.genesis import GENESIS_KIND, Genesis
from lichen.ledger.ports import Authority, Contract, FormContract, Record, StateReader
from lichen.ledger.seal import SEAL_KIND
from lichen.ledger.state_map import check_write, state_key

if TYPE_CHECKING:
    from lichen.crypto.keys import PublicKey
    from lichen.ledger.ports import StateWrite

__all__ = ["OWN_KINDS", "Rulebook", "place_writes"]

OWN_KINDS: Final = frozenset({GENESIS_KIND, SEAL_KIND})


class Rulebook:
    """Which contract rules which kind of record in one ledger.

    Args:
        genesis: Names contracts and versions.
        installed: The contracts this program has; may be more than are named.

    Raises:
        FormatVersionError: A contract is missing, or installed only in another version.
        UsageError: No contract, or more than one, knows whose keys are whose; or two rule the same kind.
    """

    def __init__(self, genesis: Genesis, installed: Iterable[Contract]) -> None:
        by_name = {(contract.name, contract.version): contract for contract in installed}
        self._in_force: list[Contract] = []
        self._log_key = genesis.log_key
        for name, version in sorted(genesis.contracts.items()):
            contract = by_name.get((name, version))
            if contract is None:
                raise FormatVersionError(
                    f"this ledger follows version {version} of the contract {name!r}, which this Lichen does not have",
                    remedy="install the version of Lichen, or the extension, that brings it",
                )
            self._in_force.append(contract)
        authorities = [contract for contract in self._in_force if isinstance(contract, Authority)]
        if len(authorities) != 1:
            raise UsageError(
                f"a ledger needs one contract that knows whose keys are whose, found {len(authorities)}"
            )
        self.authority: Authority = authorities[0]
        self._by_kind: dict[str, Contract] = {}
        for contract in self._in_force:
            for kind in contract.kinds - OWN_KINDS:
                if kind in self._by_kind:
                    raise UsageError(
                        f"the contracts {self._by_kind[kind].name!r} and {contract.name!r} both rule {kind!r}"
                    )
                self._by_kind[kind] = contract
        self._kinds = frozenset(self._by_kind)
        self._forms = {
            kind: contract for kind, contract in self._by_kind.items() if isinstance(contract, FormContract)
        }

    def log_keys(self, state: StateReader) -> tuple[tuple[int, PublicKey], ...]:
        """Every key of the log so far: the first index it speaks for, rising, and the key; that of the genesis first."""
        return ((0, self._log_key), *self.authority.log_keys(state))

    def log_key_at(self, index: int, state: StateReader) -> PublicKey:
        """The key that signs the seal at an index, and the checkpoint behind it.

        Args:
            index: Of the seal.
            state: A state that covers the entries before it.
        """
        return next(key for first, key in reversed(self.log_keys(state)) if first <= index)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of records that can be appended."""
        return self._kinds

    @property
    def in_force(self) -> tuple[Contract, ...]:
        """The contracts that the genesis names."""
        return tuple(self._in_force)

    def judge(
        self, record: Record, state: StateReader, *, is_formed: bool = False
    ) -> dict[bytes, bytes | None]:
        """Check a record and say what it changes.

        Args:
            record: Its kind is one of `kinds`.
            state: State before it.
            is_formed: Its form was checked before; see `lichen.ledger.ports.FormContract`.

        Returns:
            Values by 32-byte state key; None removes the key.

        Raises:
            Rejected: A rule said no.
            EncodingError: The contract wants to write what cannot stand in the state; a mistake of the contract.
        """
        contract = self._by_kind[record.kind]
        if is_formed and record.kind in self._forms:
            self._forms[record.kind].check_rules(record, state)
        else:
            contract.check(record, state)
        return place_writes(contract, contract.apply(record, state))

    def found(self, record: Record, state: StateReader) -> dict[bytes, bytes | None]:
        """First state of a ledger: what every contract in force makes of the genesis."""
        writes: dict[bytes, bytes | None] = {}
        for contract in self._in_force:
            if GENESIS_KIND in contract.kinds:
                contract.check(record, state)
                writes |= place_writes(contract, contract.apply(record, state))
        return writes


def place_writes(contract: Contract, writes: list[StateWrite]) -> dict[bytes, bytes | None]:
    """Values by 32-byte state key, for what a contract says it changes; None removes the key.

    Raises:
        EncodingError: The contract wants to write what cannot stand in the state, or not in its own name.
    """
    placed: dict[bytes, bytes | None] = {}
    for write in writes:
        if write.contract != contract.name:
            raise EncodingError(
                f"the contract {contract.name!r} wants to write under the name {write.contract!r}"
            )
        key = state_key(write.contract, write.key)
        check_write(key, write.value)
        placed[key] = write.value
    return placed
