"""Seals: the entries that close blocks.

Rules upheld:

* The seal at index s commits to the log of size s, its root, and the root of the state after entries 0 to s - 1. It
  changes no state itself.
* Heights rise by one from 0; every seal but the first names the index of the one before; time never falls.
* The two roots stand in the record's subjects and nowhere else, so they cannot disagree with themselves.

A checkpoint exists only at size s + 1, with a seal as its last entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lichen.encoding.canonical import INTEGER_MAX
from lichen.encoding.fields import Fields
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, VerificationError

__all__ = ["SEAL_KIND", "Seal", "check_succession"]

SEAL_KIND = "seal"
_ROOT, _STATE_ROOT = "root", "state-root"
_REQUIRED = ("block_height", "consensus", "sealer", "time_unix_ms", "tree_size")
_OPTIONAL = ("evidence", "previous_seal")


@dataclass(frozen=True, slots=True)
class Seal:
    """What closes a block.

    Attributes:
        block_height: 0 for the first seal of a ledger, then one more each time.
        previous_seal: Index of the seal before; None for the first.
        tree_size: Entries the log had, and so the index of this seal itself.
        root: Root of the log of that size, 32 bytes.
        state_root: Root of the state after those entries, 32 bytes.
        time_unix_ms: When, in milliseconds since 1970; decided with the batch, never before the previous seal's.
        sealer: Member id of who sealed, or ``log`` for the log's own key.
        consensus: How the order was agreed; ``solo`` when one writer decides.
        evidence: What shows the agreement, signed over the seal without it; None when there is nothing to show.
    """

    block_height: int
    previous_seal: int | None
    tree_size: int
    root: bytes
    state_root: bytes
    time_unix_ms: int
    sealer: str = "log"
    consensus: str = "solo"
    evidence: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        for name in ("block_height", "tree_size", "time_unix_ms"):
            number = getattr(self, name)
            if type(number) is not int or not 0 <= number <= INTEGER_MAX:
                raise EncodingError(f"{name} of a seal must be an integer from 0 to 2**53 - 1")
        if self.tree_size < 1:
            raise EncodingError("a seal follows at least one entry, the genesis")
        if (self.block_height == 0) != (self.previous_seal is None):
            raise EncodingError("every seal but the first names the one before it")
        if self.previous_seal is not None and not self.block_height <= self.previous_seal < self.tree_size:
            raise EncodingError("the previous seal of a seal must be an earlier entry")
        for name in ("sealer", "consensus"):
            if not getattr(self, name):
                raise EncodingError(f"{name} of a seal must not be empty")

    def to_statement(self) -> Statement:
        """Write the seal as a record."""
        predicate: dict[str, Any] = {
            "block_height": self.block_height,
            "consensus": self.consensus,
            "sealer": self.sealer,
            "time_unix_ms": self.time_unix_ms,
            "tree_size": self.tree_size,
        }
        if self.previous_seal is not None:
            predicate["previous_seal"] = self.previous_seal
        if self.evidence is not None:
            predicate["evidence"] = self.evidence
        return Statement(
            SEAL_KIND, (Subject(_ROOT, self.root), Subject(_STATE_ROOT, self.state_root)), predicate
        )

    @classmethod
    def from_statement(cls, statement: Statement) -> Seal:
        """Read a seal from its record.

        Args:
            statement: A record of kind ``seal``, version 1.

        Returns:
            The seal; ``from_statement(seal.to_statement()) == seal``.

        Raises:
            EncodingError: Not a seal.
        """
        if (statement.kind, statement.version) != (SEAL_KIND, 1):
            raise EncodingError(f"not a seal of version 1: {statement.predicate_type}")
        if tuple(subject.name for subject in statement.subjects) != (_ROOT, _STATE_ROOT):
            raise EncodingError(f"the subjects of a seal must be {_ROOT} and {_STATE_ROOT}")
        fields = Fields(statement.predicate, "the seal", _REQUIRED, _OPTIONAL)
        return cls(
            block_height=fields.integer("block_height"),
            previous_seal=fields.integer("previous_seal") if "previous_seal" in fields else None,
            tree_size=fields.integer("tree_size", 1),
            root=statement.subjects[0].sha256,
            state_root=statement.subjects[1].sha256,
            time_unix_ms=fields.integer("time_unix_ms"),
            sealer=fields.text("sealer", 200),
            consensus=fields.text("consensus", 64),
            evidence=fields.object("evidence") if "evidence" in fields else None,
        )

    def signed_part(self) -> bytes:
        """Return the bytes that evidence signs: the payload of this seal without its evidence."""
        return replace(self, evidence=None).to_statement().to_bytes()


def check_succession(seal: Seal, previous: Seal | None) -> None:
    """Check that a seal may follow another.

    Args:
        seal: The later seal.
        previous: The seal before it, or None when it is said to be the first.

    Raises:
        VerificationError: Height, back reference or time do not follow, or there is nothing between the two.
    """
    if previous is None:
        if seal.block_height != 0:
            raise VerificationError(
                "the first seal must have height 0", expected=0, calculated=seal.block_height
            )
        return
    if seal.block_height != previous.block_height + 1:
        raise VerificationError(
            "the heights of seals must rise by one",
            expected=previous.block_height + 1,
            calculated=seal.block_height,
        )
    if seal.previous_seal != previous.tree_size:
        raise VerificationError(
            "a seal must name the one before it", expected=previous.tree_size, calculated=seal.previous_seal
        )
    if seal.time_unix_ms < previous.time_unix_ms:
        raise VerificationError(
            "the time of a seal must not fall", expected=previous.time_unix_ms, calculated=seal.time_unix_ms
        )
    if seal.tree_size <= previous.tree_size + 1:
        raise VerificationError("a seal must close at least one entry")
