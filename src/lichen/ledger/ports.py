"""What the ledger asks of the rooms above it, and the values that cross the border.

The ledger orders, stores and proves; it knows no kind of fact by name except ``genesis`` and ``seal``. Rules come in
as `Contract` objects, query tables as `View` objects, so this room imports neither contracts nor runs.

Rules every implementation upholds:

* A contract is a deterministic function of the records before it: no clock, disk, socket or randomness. Two machines
  that replay the same entries reach the same state, byte for byte.
* ``check`` changes nothing and names the rule that failed; ``apply`` runs only after ``check`` passed, and says what
  to write instead of writing it.
* A view may be dropped and rebuilt from the entries at any time, so nothing may exist only in a view.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import sqlite3

    from lichen.crypto.keys import PublicKey
    from lichen.encoding.entry import Entry
    from lichen.encoding.statement import Statement

__all__ = [
    "LOG_MEMBER",
    "VIEW_PREFIX",
    "Appended",
    "Authority",
    "BatchView",
    "Contract",
    "FormContract",
    "Record",
    "RowView",
    "StateReader",
    "StateWrite",
    "View",
]

LOG_MEMBER = "log"
"""Member id under which the log key itself writes: the genesis and, in a solo ledger, every seal."""

VIEW_PREFIX = "view_"
"""Every table and index a view makes starts with this, so that views can be dropped, rebuilt and weighed apart."""


@dataclass(frozen=True, slots=True)
class Record:
    """One signed record, parsed once and handed to contracts and views.

    Attributes:
        index: Place in the log; None while the record has none yet (only before ordering). Inside ``Contract.check``,
            ``Contract.apply`` and ``View.insert`` it is always set: in ``check`` it is the index the record will get.
        entry: The signed bytes.
        statement: The parsed payload.
        kind: ``statement.kind``, such as ``run``.
        member: Id of the member who signed; the key is known to belong to this member at this index.
        payload_digest: SHA-256 of the payload, 32 bytes; unique in a ledger.
        key: Public key that the signature was made with.
    """

    index: int | None
    entry: Entry
    statement: Statement
    kind: str
    member: str
    payload_digest: bytes
    key: PublicKey

    @property
    def predicate(self) -> Mapping[str, Any]:
        """What the record says about its subjects."""
        return self.statement.predicate

    @property
    def place(self) -> int:
        """The index, for code that only ever sees ordered records.

        Raises:
            ValueError: The record has no index yet; a mistake of the caller, never of the input.
        """
        if self.index is None:
            raise ValueError("this record has not been ordered, so it has no index")
        return self.index


@dataclass(frozen=True, slots=True)
class StateWrite:
    """One change to the authenticated map.

    Attributes:
        contract: Name of the contract that owns the key; a contract writes only under its own name.
        key: Any bytes; ``state_key(contract, key)`` places it in the map.
        value: 1 to 1,024 bytes, or None to remove the key.
    """

    contract: str
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Appended:
    """An entry found its place.

    Attributes:
        index: 0-based place in the log.
        payload_digest: SHA-256 of its payload, 32 bytes.
    """

    index: int
    payload_digest: bytes


class StateReader(Protocol):
    """State and log as a contract may see them: everything before the record in hand, the same batch included."""

    @property
    def size(self) -> int:
        """Count of entries before the record in hand, which is also the index it will get."""

    def get(self, contract: str, key: bytes) -> bytes | None:
        """Value of a key of any contract, or None when it is absent.

        Writes of earlier records of the same batch are already visible.
        """

    def record(self, index: int) -> Record | None:
        """The record at an earlier index; None when there is no such entry or it is a seal."""


class Contract(Protocol):
    """Deterministic rules over ordered records of certain kinds.

    Attributes:
        name: Stable lower-case name; first part of its rules' names and owner of its keys in the state.
        version: Raised whenever the same records could lead to another state; a genesis pins it.
        kinds: Kinds of records it rules. No kind belongs to two contracts, except ``genesis``, which every contract
            may name to set up its first state.
    """

    @property
    def name(self) -> str:
        """Stable lower-case name."""

    @property
    def version(self) -> int:
        """Raised when replay could differ."""

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of records it rules."""

    def check(self, record: Record, state: StateReader) -> None:
        """Pass, or name the rule that was broken.

        Raises:
            Rejected: With ``rule`` = ``<contract>.<rule>``. The record gets no index.
        """

    def apply(self, record: Record, state: StateReader) -> list[StateWrite]:
        """Say what the record changes; called once, right after `check` passed.

        A later write to the same key in the list wins.
        """


@runtime_checkable
class FormContract(Contract, Protocol):
    """A contract whose check falls into two parts, the first of which looks at the record alone.

    Whoever checks many records does that part on several processors at once. ``check`` is both, one after the other.
    """

    def check_form(self, record: Record) -> None:
        """Check what a record alone shows. Its member and key are not known yet: whatever stands there is a claim.

        Raises:
            Rejected: With the rule that was broken.
        """

    def check_rules(self, record: Record, state: StateReader) -> None:
        """Check the rest, of a record whose form holds.

        Raises:
            Rejected: With the rule that was broken.
        """


@runtime_checkable
class Authority(Protocol):
    """The one contract of a ledger that knows which key speaks for which member at which index."""

    def resolve(self, key_id: bytes, member: str, index: int, state: StateReader) -> PublicKey:
        """Public key behind a key id, when it speaks for that member at that index.

        Args:
            key_id: 16 bytes, from the entry.
            member: Member id that the record claims.
            index: Index the record will get, or has.
            state: State to look in.

        Raises:
            Rejected: ``members.not-admitted``, ``members.key-revoked``, ``members.forged-author``.
        """

    def key_of(self, key_id: bytes, state: StateReader) -> PublicKey | None:
        """Public key behind a key id, whether or not it still speaks for anyone; None when no member ever had it."""

    def log_keys(self, state: StateReader) -> tuple[tuple[int, PublicKey], ...]:
        """Keys that took the place of the log's first one: the first index each speaks for, rising, and the key."""

    def is_believed(self, key_id: bytes, index: int, state: StateReader) -> bool:
        """True when, by all that the state knows now, the key spoke for its member at that index.

        It did when the entry was accepted; a key declared compromised later makes this False for entries behind its first
        bad index.
        """


class View(Protocol):
    """A query table that is filled from the entries before it is asked, and can be rebuilt from them.

    Attributes:
        name: Stable lower-case name.
        version: Raised whenever the tables or their content change; the ledger then drops and rebuilds them.
        kinds: Kinds of records it wants; others are not offered to it. Seals are never offered.
        ddl: ``CREATE TABLE`` / ``CREATE INDEX`` statements, each with ``IF NOT EXISTS``; every name they make starts
            with `VIEW_PREFIX`.
    """

    @property
    def name(self) -> str:
        """Stable lower-case name."""

    @property
    def version(self) -> int:
        """Raised when tables or content change."""

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of records it wants."""

    @property
    def ddl(self) -> Sequence[str]:
        """Statements that make its tables and indexes."""

    def insert(self, connection: sqlite3.Connection, record: Record) -> None:
        """Add one accepted record's rows. ``record.index`` is set; commit is the ledger's business.

        Must accept every record its contract accepted: as long as it raises, the view cannot be asked.
        """


@runtime_checkable
class BatchView(View, Protocol):
    """A view that takes many records at once, where that costs less than one at a time."""

    def insert_many(self, connection: sqlite3.Connection, records: Sequence[Record]) -> None:
        """Add the rows of records in their order; the rows that `insert` would add one record after the other."""


@runtime_checkable
class RowView(View, Protocol):
    """A view whose rows follow from one record each, whatever came before: they can be compared anywhere and in any order.

    Attributes:
        names_table: Table with the columns ``id`` and ``name`` in which the view keeps numbers that stand for names, given from 1
            on in the order in which `rows` first asks for them; None when it has none. Its rows are not among `rows`.
    """

    @property
    def names_table(self) -> str | None:
        """Table of names."""

    def rows(
        self, record: Record, id_of: Callable[[str | bytes], int]
    ) -> Sequence[tuple[str, tuple[Any, ...]]]:
        """Tell table and values of every row that `insert` adds for a record, in tables with a primary key.

        Args:
            record: Of one of the view's kinds.
            id_of: Gives the number that stands for a name.
        """
