"""What the absence, or the value, of a key of the state says in words, and what it leaves open.

Rules upheld here:

* A claim is about exactly one key, so that a proof about that key answers it.
* A sentence says no more than the key does. That a fingerprint is that of the work somebody has in mind, for instance,
  follows from no state: whoever asks computes it.
* The key's layout stands in `lichen.contracts.registry`; a key of another shape is no claim.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from lichen.contracts.registry import NAME
from lichen.errors import UsageError

__all__ = [
    "LEVELS",
    "Claim",
    "artefact_claim",
    "flagged_claim",
    "last_entry",
    "read_claim",
    "withdrawn_claim",
    "work_claim",
]

LEVELS: Final = ("exact", "same-work")
"""Classes of fingerprints, by how much must be equal."""

_TALLY: Final = struct.Struct(">IQ")
_INDEX: Final = struct.Struct(">Q")
_DIGEST_BYTES: Final = 32

_MEANT_WORK: Final = (
    "That the fingerprint is that of the work you have in mind: it is computed from digests of command, code, data, "
    "surroundings and seed, and those are not in the proof."
)
_UNRECORDED: Final = "That nobody did it without recording it here: other ledgers, and records that wait for this one's server, are not asked."
_OTHER_CLASSES: Final[Mapping[str, str]] = {
    "exact": "That no such work is here with another seed: that has a same-work fingerprint, which is a question of its own. And work that "
    "differs in any byte, version or variable it depends on has another fingerprint, though its result may be the same.",
    "same-work": "That no such work is here under another fingerprint: what differs in any byte, version or variable it depends on "
    "has another, though its result may be the same.",
}
_ANSWERS: Final = (
    "That it answers a request: what was withdrawn or flagged stands under keys of its own (--prove FILE --withdrawn ENTRY, or "
    "--flagged ENTRY), the end of its author's key and what else keeps a run from answering in the entries."
)
_ONLY_PUBLISHED: Final = (
    "Anything about files that runs read or wrote and nobody published: those stand in no key of the state."
)
_ALIVE: Final = "That its author still stands behind it: only a withdrawal on record counts."


@dataclass(frozen=True, slots=True)
class Claim:
    """A question that one key of the state answers.

    Attributes:
        key: What the contract ``registry`` calls it.
        question: In words.
        no: What its absence says, as the beginning of a sentence that ends with where.
        leaves_open: What neither absence nor value shows, in sentences.
        no_leaves_open: What absence does not show besides.
        tells: Puts a value into words.
        yes_leaves_open: What a value does not show besides.
    """

    key: bytes
    question: str
    no: str
    leaves_open: tuple[str, ...]
    no_leaves_open: tuple[str, ...]
    tells: Callable[[bytes], str]
    yes_leaves_open: tuple[str, ...] = ()

    @property
    def contract(self) -> str:
        """Name of the contract whose key it is."""
        return NAME

    def answer(self, value: bytes | None) -> str:
        """Say what the key says.

        Args:
            value: Its value; None when it is absent.

        Returns:
            A sentence without its end, to which "among the first N entries" can be added.
        """
        return self.no if value is None else self.tells(value)

    def open_questions(self, value: bytes | None) -> tuple[str, ...]:
        """Say what the answer does not show, in sentences.

        Args:
            value: Value of the key; None when it is absent.
        """
        return self.leaves_open + (self.no_leaves_open if value is None else self.yes_leaves_open)


def work_claim(level: str, fingerprint: bytes) -> Claim:
    """Was such work recorded?

    Args:
        level: ``exact`` or ``same-work``.
        fingerprint: Of that class, 32 bytes.

    Raises:
        UsageError: No such class, or no such fingerprint.
    """
    if level not in LEVELS:
        raise UsageError(
            f"{level!r} is no class of fingerprints", remedy=f"It is one of {', '.join(LEVELS)}."
        )
    _check_digest(fingerprint, "a fingerprint")
    name = f"with the {level} fingerprint {fingerprint.hex()}"
    return Claim(
        level.encode() + b"/" + fingerprint,
        f"was work {name} recorded?",
        f"no run {name} is on record",
        (_MEANT_WORK,),
        (_UNRECORDED, _OTHER_CLASSES[level]),
        lambda value: _tally(value, "run", f"{name} is on record", f"{name} are on record"),
        (_ANSWERS,),
    )


def artefact_claim(sha256: bytes) -> Claim:
    """Were these bytes published as data or model?

    Args:
        sha256: Digest of the file, 32 bytes.

    Raises:
        UsageError: Not a digest.
    """
    _check_digest(sha256, "a SHA-256")
    name = f"of a file with SHA-256 {sha256.hex()}"
    return Claim(
        b"artefact/" + sha256,
        f"was a file with SHA-256 {sha256.hex()} published?",
        f"no publication {name} is on record",
        (_ONLY_PUBLISHED,),
        (_UNRECORDED,),
        lambda value: _tally(value, "publication", f"{name} is on record", f"{name} are on record"),
    )


def last_entry(claim: Claim, value: bytes | None) -> int | None:
    """Return the newest entry that a value counts; None where it counts none."""
    counts = claim.key.startswith((b"exact/", b"same-work/", b"artefact/"))
    if not counts or value is None or len(value) != _TALLY.size:
        return None
    return int(_TALLY.unpack(value)[1])


def withdrawn_claim(index: int) -> Claim:
    """Did its author withdraw this entry?

    Args:
        index: Of a run, model, dataset, evaluation, flag, dispute or reuse.

    Raises:
        UsageError: Not an index.
    """
    _check_index(index)
    return Claim(
        b"withdrawn/" + _INDEX.pack(index),
        f"was entry {index} withdrawn?",
        f"no withdrawal of entry {index} is on record",
        (f"What entry {index} says: its own receipt shows that.",),
        (_ALIVE,),
        lambda value: _withdrawal(value, index),
    )


def flagged_claim(index: int) -> Claim:
    """Did anybody flag this entry?

    Args:
        index: Of a run, model, dataset or evaluation.

    Raises:
        UsageError: Not an index.
    """
    _check_index(index)
    name = f"against entry {index}"
    return Claim(
        b"flagged/" + _INDEX.pack(index),
        f"was entry {index} flagged?",
        f"no flag {name} is on record",
        (f"What entry {index} says: its own receipt shows that.",),
        ("That it is free of faults: nobody has said otherwise here.",),
        lambda value: _tally(value, "flag", f"{name} is on record", f"{name} are on record"),
    )


def read_claim(contract: str, key: bytes) -> Claim | None:
    """Find the claim that a key answers.

    Args:
        contract: Whose key.
        key: What the contract calls it; any bytes.

    Returns:
        The claim, or None when the key answers none of those above.
    """
    family, slash, name = key.partition(b"/")
    if contract != NAME or not slash:
        return None
    try:
        if family in (b"exact", b"same-work"):
            return work_claim(family.decode(), name)
        if family == b"artefact":
            return artefact_claim(name)
        if family in (b"withdrawn", b"flagged") and len(name) == _INDEX.size:
            index = _INDEX.unpack(name)[0]
            return withdrawn_claim(index) if family == b"withdrawn" else flagged_claim(index)
    except UsageError:
        return None
    return None


def _withdrawal(value: bytes, index: int) -> str:
    if len(value) != _INDEX.size:
        return f"something that is no index stands where the withdrawal of entry {index} would"
    return f"entry {index} was withdrawn by entry {_INDEX.unpack(value)[0]}"


def _tally(value: bytes, noun: str, one: str, many: str) -> str:
    if len(value) != _TALLY.size:
        return (
            f"something that is no tally stands where {noun}s {many.removesuffix('are on record')}are counted"
        )
    count, last = _TALLY.unpack(value)
    if count == 1:
        return f"1 {noun} {one}, as entry {last}"
    return f"{count:,} {noun}s {many}, the last as entry {last}"


def _check_digest(value: bytes, what: str) -> None:
    if not isinstance(value, bytes) or len(value) != _DIGEST_BYTES:
        raise UsageError(
            f"not {what}", remedy="Give all 64 hexadecimal digits: a proof is about one key only."
        )


def _check_index(index: int) -> None:
    if type(index) is not int or not 0 <= index < 2**64:
        raise UsageError(f"{index!r} is no index of an entry")
