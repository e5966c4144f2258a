"""Every exception Lichen raises, split by whose fault it is.

::

    LichenError
    ├── UsageError              you called it wrongly, or named something that is not there
    │   ├── NotFoundError       nothing in the ledger or the store answers to that name
    │   ├── NotALedgerError     the path is not a Lichen ledger
    │   └── KeyFileError        a key is missing, unreadable or open to others
    ├── EncodingError           bytes are not what their format says
    ├── VerificationError       a hash, signature or proof does not hold
    │   ├── RollbackError       the ledger is behind, or beside, what was seen before
    │   ├── SplitViewError      a log signed two histories
    │   └── CorruptLedgerError  the ledger's own bytes contradict each other
    ├── FormatVersionError      written by a newer Lichen than this one
    ├── Rejected                a contract's rule said no
    ├── StorageError            disk or database failed
    │   └── FileChangedError    a file was written to while it was read
    ├── NetworkError            a peer could not be reached, or the answer was lost
    ├── RemoteProtocolError     a peer broke the protocol
    └── MeterError              energy could not be measured as asked

Each carries a stable ``code`` for programs, a message that says what happened and a ``remedy`` that says what to
do. Nothing below ``cli`` turns an exception into an exit status; the numbers live here only so that there is one table.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "CorruptLedgerError",
    "EncodingError",
    "FileChangedError",
    "FormatVersionError",
    "KeyFileError",
    "LichenError",
    "MeterError",
    "NetworkError",
    "NotALedgerError",
    "NotFoundError",
    "Rejected",
    "RemoteProtocolError",
    "RollbackError",
    "SplitViewError",
    "StorageError",
    "UsageError",
    "VerificationError",
]


class LichenError(Exception):
    """Root of the tree.

    Args:
        message: What happened, naming the file, argument or entry concerned.
        remedy: What the reader can do about it; empty when there is nothing to do.
    """

    code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message


class UsageError(LichenError):
    """Lichen was called wrongly."""

    code = "usage"
    exit_status = 2


class NotFoundError(UsageError):
    """Nothing answers to the name, fingerprint, digest or CID that was given."""

    code = "not-found"
    exit_status = 4


class NotALedgerError(UsageError):
    """The path exists but holds no Lichen ledger, or no ledger is in reach."""

    code = "not-a-ledger"
    exit_status = 2


class KeyFileError(UsageError):
    """A key file is missing, malformed, for another ledger, or readable by others."""

    code = "key-file"
    exit_status = 2


class EncodingError(LichenError):
    """Bytes do not follow the format they are said to be in."""

    code = "encoding"
    exit_status = 3


class VerificationError(LichenError):
    """A digest, signature, proof or seal does not hold.

    Args:
        message: What was checked.
        expected: What the trusted side says, as text or bytes.
        calculated: What was computed from the bytes at hand.
        remedy: What to do.
    """

    code = "verification"
    exit_status = 3

    def __init__(
        self,
        message: str,
        *,
        expected: bytes | str | int | None = None,
        calculated: bytes | str | int | None = None,
        remedy: str = "",
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.expected = expected
        self.calculated = calculated


class RollbackError(VerificationError):
    """The ledger is behind, or diverges from, the highest state this key has seen."""

    code = "rollback"


class SplitViewError(VerificationError):
    """A log signed two histories that exclude each other; the evidence is in a file that anyone can verify."""

    code = "split-view"
    exit_status = 9


class CorruptLedgerError(VerificationError):
    """The ledger's own tables contradict each other, or the file is damaged."""

    code = "corrupt-ledger"


class FormatVersionError(LichenError):
    """Written in a newer format than this version reads."""

    code = "format-version"
    exit_status = 3


class Rejected(LichenError):  # noqa: N818 - the ledger's word: a record is rejected by a rule
    """A contract refused a record.

    Args:
        rule: Stable name of the rule, such as ``members.not-admitted``.
        message: Why, naming the record's values.
        remedy: What to do.
    """

    code = "rejected"
    exit_status = 5

    def __init__(self, rule: str, message: str, *, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.rule}: {super().__str__()}"


class StorageError(LichenError):
    """The disk, the file system or the database failed."""

    code = "storage"
    exit_status = 6


class FileChangedError(StorageError):
    """A file was written to, replaced or truncated while it was being read, or since it was looked at."""

    code = "file-changed"


class NetworkError(LichenError):
    """A peer could not be reached.

    Args:
        message: What was attempted, with whom.
        definite: True when the request certainly had no effect, False when it may have had one.
        remedy: What to do.
    """

    code = "network"
    exit_status = 7

    def __init__(self, message: str, *, definite: bool, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.definite = definite


class RemoteProtocolError(LichenError):
    """A peer sent something the protocol does not allow."""

    code = "remote-protocol"
    exit_status = 7


class MeterError(LichenError):
    """Energy could not be measured in the way that was asked for."""

    code = "meter"
    exit_status = 8
