"""What an audit looked at, and the first thing that does not hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lichen.errors import CorruptLedgerError, VerificationError

__all__ = ["AtEntryError", "AuditReport", "Problem", "RowDiffersError"]


class AtEntryError(VerificationError):
    """Something that was found later, or beside the entries, and shows at one of them.

    Args:
        index: Which.
        message: What does not hold.
        expected: What stands there.
        calculated: What follows from the entries.
    """

    def __init__(
        self, index: int, message: str, *, expected: bytes | None = None, calculated: bytes | None = None
    ) -> None:
        super().__init__(message, expected=expected, calculated=calculated)
        self.index = index


class RowDiffersError(CorruptLedgerError):
    """A row of a view is not what the entries make of it; the entries themselves hold."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The first thing that does not hold.

    Attributes:
        index: Entry at which it shows; None when it is about the file as a whole.
        code: Stable code of the error, or name of the rule.
        message: What does not hold.
        remedy: What to do, where that is another thing than to go on from a backup.
    """

    index: int | None
    code: str
    message: str
    remedy: str = ""


@dataclass(slots=True)
class AuditReport:
    """What an audit looked at, and the first thing that does not hold.

    Attributes:
        path: The ledger file.
        ledger_id: 64 hexadecimal digits; None when not even the genesis could be read.
        size: Entries checked, seals included.
        resumed_from: Entries whose signatures and rules an earlier audit checked; they were hashed again and are the same.
        sealed_size: Tree size of the newest checkpoint that was checked.
        root: Root at that size, hexadecimal; None before the first.
        kinds: Count of entries by kind.
        key_count: Keys in the derived state.
        discredited: Entries whose key was later declared compromised from their index or an earlier one on. They stand in
            the log, but are no longer believed.
        views: Views whose rows were compared with the entries, by name: up to how many entries.
        unchecked_views: Views in the file that this program does not have, or has in another version.
        is_read: True when all entries were read, so that a problem lies in what is stored beside them.
        problem: The first thing that does not hold, or None.
    """

    path: Path
    ledger_id: str | None = None
    size: int = 0
    resumed_from: int = 0
    sealed_size: int = 0
    root: str | None = None
    kinds: Counter[str] = field(default_factory=Counter)
    key_count: int = 0
    discredited: list[int] = field(default_factory=list)
    views: dict[str, int] = field(default_factory=dict)
    unchecked_views: list[str] = field(default_factory=list)
    is_read: bool = False
    problem: Problem | None = None

    @property
    def is_sound(self) -> bool:
        """True when everything held."""
        return self.problem is None

    def to_json(self) -> dict[str, Any]:
        """The report as a table for JSON."""
        return {
            "path": str(self.path),
            "ledger_id": self.ledger_id,
            "is_sound": self.is_sound,
            "size": self.size,
            "resumed_from": self.resumed_from,
            "sealed_size": self.sealed_size,
            "root": self.root,
            "kinds": dict(sorted(self.kinds.items())),
            "key_count": self.key_count,
            "discredited": list(self.discredited),
            "views": dict(sorted(self.views.items())),
            "unchecked_views": list(self.unchecked_views),
            "problem": None if self.problem is None else asdict(self.problem),
        }
