"""Evidence that a log showed two histories: two checkpoints that it signed and that exclude each other.

Canonical JSON of ``format``, ``v``, ``first``, ``second`` and, where the sizes differ, ``root`` and ``proof``; ``genesis``
is optional. The checkpoints stand in it as the log signed them, with whatever cosignatures they carried.

Two checkpoints of one size exclude each other when their roots differ. For sizes m < n, the evidence also holds the root
over the first m entries of the second tree, and the consistency proof from it to the second checkpoint: the second
tree begins with that root by the proof, and with another by the first checkpoint's signature. So nobody has to believe
whoever found it.

Source: RFC 9162, section 8.3 (misbehaving logs); C2SP tlog-checkpoint, "Signatures". Differs: neither defines a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lichen.crypto.keys import PublicKey
from lichen.crypto.note import NoteKey
from lichen.encoding.base import b64u, b64u_decode
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.encoding.entry import Entry
from lichen.encoding.fields import Fields
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, origin_of, parse_checkpoint
from lichen.ledger.genesis import Genesis
from lichen.ledger.proof import verify_consistency

__all__ = ["EVIDENCE_FORMAT", "SplitView", "VerifiedSplitView", "verify_split_view"]

EVIDENCE_FORMAT = "lichen-split-view"
VERSION = 1
_BYTES_MAX = 4_000_000
_NOTE_MAX = 1_000_000
_PROOF_MAX = 63


@dataclass(frozen=True, slots=True)
class SplitView:
    """Two checkpoints that are said to exclude each other. Nothing has been verified.

    Attributes:
        first: The smaller checkpoint, a signed note; of two of one size, the one that was seen first.
        second: The other.
        root: Root over the first tree's size in the second tree, 32 bytes; None when the sizes are equal.
        proof: Consistency proof from that root to the second checkpoint.
        genesis: Entry 0 of the ledger, so that its id is all a reader needs; None when it was not at hand.
    """

    first: str
    second: str
    root: bytes | None = None
    proof: tuple[bytes, ...] = ()
    genesis: Entry | None = None

    def to_bytes(self) -> bytes:
        """Write the evidence."""
        value: dict[str, Any] = {
            "first": self.first,
            "format": EVIDENCE_FORMAT,
            "second": self.second,
            "v": VERSION,
        }
        if self.root is not None:
            value |= {"proof": [b64u(item) for item in self.proof], "root": b64u(self.root)}
        if self.genesis is not None:
            value["genesis"] = b64u(self.genesis.to_bytes())
        return canonical_json(value)

    @classmethod
    def from_bytes(cls, data: bytes) -> SplitView:
        """Read evidence.

        Args:
            data: Bytes as `to_bytes` writes them; a newline at the end is allowed.

        Raises:
            EncodingError: Not evidence of a split view.
        """
        if len(data) > _BYTES_MAX:
            raise EncodingError(f"evidence of a split view has at most {_BYTES_MAX:,} bytes")
        value = parse_canonical(data.removesuffix(b"\n"))
        if not isinstance(value, dict) or value.get("format") != EVIDENCE_FORMAT:
            raise EncodingError("not evidence of a split view")
        fields = Fields(
            value, "the evidence", ("first", "format", "second", "v"), ("genesis", "proof", "root")
        )
        fields.integer("v", VERSION, VERSION)
        if ("root" in fields) != ("proof" in fields):
            raise EncodingError("the evidence has a root and a proof, or neither")
        found = cls(
            first=fields.text("first", _NOTE_MAX),
            second=fields.text("second", _NOTE_MAX),
            root=fields.octets("root", 32) if "root" in fields else None,
            proof=tuple(b64u_decode(item, 32) for item in fields.array("proof", _PROOF_MAX))
            if "proof" in fields
            else (),
            genesis=Entry.from_bytes(fields.octets("genesis")) if "genesis" in fields else None,
        )
        parse_checkpoint(found.first)
        parse_checkpoint(found.second)
        return found

    @property
    def origin(self) -> str:
        """The log's origin, as the first checkpoint says; its signature is not checked.

        Raises:
            EncodingError: Not a checkpoint.
        """
        return parse_checkpoint(self.first)[0].origin


@dataclass(frozen=True, slots=True)
class VerifiedSplitView:
    """A split view that is proved.

    Attributes:
        origin: The log.
        first: The smaller checkpoint.
        second: The other.
        proves: What follows, in sentences.
        does_not_prove: What does not follow, in sentences.
    """

    origin: str
    first: Checkpoint
    second: Checkpoint
    proves: tuple[str, ...]
    does_not_prove: tuple[str, ...]


def verify_split_view(
    evidence: SplitView, log_keys: Sequence[PublicKey], origin: str | None = None
) -> VerifiedSplitView:
    """Check that a log contradicted itself.

    Args:
        evidence: The evidence.
        log_keys: The log's public keys, trusted; none to take the one that the first entry names, when the evidence
            carries that entry and ``origin`` is given.
        origin: Origin of the ledger, trusted; None to accept any that these keys sign for.

    Returns:
        What it proves.

    Raises:
        EncodingError: Its parts are not what they are said to be.
        FormatVersionError: The first entry in it is of a later format.
        VerificationError: It proves nothing.
    """
    first, first_note = parse_checkpoint(evidence.first)
    second, second_note = parse_checkpoint(evidence.second)
    expected = first.origin if origin is None else origin
    for each in (first, second):
        if each.origin != expected:
            raise VerificationError(
                "a checkpoint is of another ledger", expected=expected, calculated=each.origin
            )
    keys = [NoteKey(expected, key) for key in log_keys or _keys_of(evidence, origin)]
    for note in (first_note, second_note):
        note.verify(keys)
    _check_contradiction(evidence, first, second)
    sizes = (
        f"{first.tree_size} entries"
        if evidence.root is None
        else f"{first.tree_size} and {second.tree_size} entries"
    )
    return VerifiedSplitView(
        origin=expected,
        first=first,
        second=second,
        proves=(
            f"The log {expected} signed two histories that exclude each other, at {sizes}.",
            "Whoever holds the log's key made both: a signature cannot be made without it.",
        ),
        does_not_prove=(
            "Which of the two histories is the true one.",
            "That it was done on purpose: a ledger put back from an old copy does the same, and so does a stolen key.",
        ),
    )


def _keys_of(evidence: SplitView, origin: str | None) -> list[PublicKey]:
    if evidence.genesis is None or origin is None:
        raise VerificationError(
            "nothing says whose checkpoints these must be",
            remedy="Give the log's public key; or the ledger's id, and evidence that carries the first entry.",
        )
    ledger_id = origin.rpartition("/")[2]
    if origin != origin_of(ledger_id):
        raise EncodingError(f"not the origin of a Lichen ledger: {origin[:120]!r}")
    return [Genesis.from_entry(evidence.genesis, ledger_id).log_key]


def _check_contradiction(evidence: SplitView, first: Checkpoint, second: Checkpoint) -> None:
    """Check that both checkpoints cannot be of one log.

    Raises:
        VerificationError: They can.
    """
    if evidence.root is None:
        if first.tree_size != second.tree_size:
            raise VerificationError(
                "two checkpoints of different sizes show nothing without the root that connects them",
                expected=first.tree_size,
                calculated=second.tree_size,
            )
        if first.root == second.root:
            raise VerificationError("the two checkpoints agree: this is no split view")
        return
    if not first.tree_size < second.tree_size:
        raise VerificationError("the first checkpoint of such evidence is the smaller one")
    if evidence.root == first.root:
        raise VerificationError("the second log begins as the first checkpoint says: this is no split view")
    verify_consistency(first.tree_size, second.tree_size, evidence.root, second.root, evidence.proof)
