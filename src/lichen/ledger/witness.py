"""What a witness decides: whether a checkpoint continues the log that it saw last.

::

    old <size of the latest checkpoint this witness cosigned>
    <consistency proof, one base64 hash on each line, at most 63>
    <empty line>
    <signed checkpoint>

A witness remembers one checkpoint of each log it knows, by the log's origin: the latest it cosigned. It signs another
only when that one is its beginning, so it never signs a smaller tree, and never both sides of a fork.

Rules upheld:

* The checks come in the order of the statuses in `Status`; the first that fails answers.
* Nothing is decided on what the witness has on record but in `decide`, which whoever keeps the record calls with the
  record locked, and whose `Decision.record` is on the disk before the cosignature leaves.
* A checkpoint that carries this witness's own cosignature, but is beyond what it has on record, shows that the record is
  an old copy: the witness checked that checkpoint once, and takes it over as its record. Where its own cosignature
  contradicts the record, it stops signing for that log.

Source: C2SP tlog-witness, "add-checkpoint". Differs: `sign-subtree`, which is optional there, is not offered; a witness
whose record was rolled back notices it where it can, which the specification leaves open.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lichen.crypto.keys import PublicKey, SigningKey
from lichen.crypto.note import NoteKey, NoteSignature, SignatureType, SignedNote, cosign_note
from lichen.encoding.base import b64, b64_decode
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, parse_checkpoint
from lichen.ledger.proof import verify_consistency
from lichen.ledger.tree import EMPTY_ROOT

__all__ = [
    "REQUEST_BYTES_MAX",
    "SIZE_TYPE",
    "AddCheckpoint",
    "Checked",
    "Decision",
    "Identity",
    "Refusal",
    "Seen",
    "Status",
    "check_request",
    "cosign",
    "decide",
    "published",
]

REQUEST_BYTES_MAX = 262_144  # 63 hashes and 16 post-quantum signatures of 5 kB take less than half
PROOF_LINES_MAX = 63
SIZE_TYPE = "text/x.tlog.size"
_OLD = re.compile(r"old (0|[1-9][0-9]{0,18})")


class Status(enum.IntEnum):
    """Answers of a witness, in the order in which they are considered."""

    BAD_REQUEST = 400
    NOT_FOUND = 404
    FORBIDDEN = 403
    CONFLICT = 409
    UNPROCESSABLE = 422
    OK = 200


@dataclass(frozen=True, slots=True)
class AddCheckpoint:
    """A request for a cosignature.

    Attributes:
        old_size: Size from which the proof starts.
        proof: Consistency proof, 32 bytes each.
        note: The signed checkpoint, as text.
    """

    old_size: int
    proof: tuple[bytes, ...]
    note: str

    def to_bytes(self) -> bytes:
        """Write the body of the request."""
        hashes = "".join(f"{b64(item)}\n" for item in self.proof)
        return f"old {self.old_size}\n{hashes}\n{self.note}".encode()

    @classmethod
    def from_bytes(cls, body: bytes) -> AddCheckpoint:
        """Read the body of a request.

        Raises:
            EncodingError: Not one; the checkpoint in it may still not be one.
        """
        if len(body) > REQUEST_BYTES_MAX:
            raise EncodingError(f"a request has at most {REQUEST_BYTES_MAX:,} bytes")
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError as error:
            raise EncodingError("the request is not UTF-8") from error
        head, blank, note = text.partition("\n\n")
        first, *lines = head.split("\n")
        match = _OLD.fullmatch(first)
        if match is None or int(match[1]) >= 2**63:
            raise EncodingError("the request must start with: old <size>")
        if not blank:
            raise EncodingError("the request has no empty line before its checkpoint")
        if len(lines) > PROOF_LINES_MAX:
            raise EncodingError(f"the consistency proof has at most {PROOF_LINES_MAX} hashes")
        return cls(int(match[1]), tuple(b64_decode(line, 32) for line in lines), note)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a witness is.

    Attributes:
        name: Key name in its cosignatures.
        key: The witness's secret key, used for nothing but cosignatures.
    """

    name: str
    key: SigningKey

    @property
    def note_key(self) -> NoteKey:
        """The public half, as policies name it."""
        return NoteKey(self.name, self.key.public, SignatureType.COSIGNATURE_V1)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a witness has on record of one log.

    Attributes:
        size: Tree size of the latest checkpoint it cosigned; 0 when it never did.
        root: Root of that tree, 32 bytes.
    """

    size: int = 0
    root: bytes = EMPTY_ROOT


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer without a cosignature.

    Attributes:
        status: Why, as a number.
        message: Why, in words; for 409 the size on record instead, as the protocol wants it.
    """

    status: Status
    message: str

    @property
    def content_type(self) -> str:
        """Media type of the body."""
        return SIZE_TYPE if self.status is Status.CONFLICT else "text/plain; charset=utf-8"

    @property
    def body(self) -> str:
        """The answer's text, with its newline."""
        return f"{self.message}\n"


@dataclass(frozen=True, slots=True)
class Checked:
    """A request that is well formed and signed by a log this witness knows.

    Attributes:
        request: The request.
        checkpoint: What the checkpoint says.
        note: The checkpoint with its signatures.
        log_keys: The trusted keys of the log that signed it.
        own: Whether it already carries a valid cosignature of this witness.
    """

    request: AddCheckpoint
    checkpoint: Checkpoint
    note: SignedNote
    log_keys: tuple[NoteKey, ...]
    own: bool


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a request and the record.

    Attributes:
        refusal: The answer, or None when the checkpoint is to be cosigned.
        record: What must be on record before anything is answered; None when nothing changes.
        is_fork: Whether the log signed two trees that exclude each other: this one and the one on record.
        frozen: Whether the witness must sign nothing of this log any more: its own cosignatures contradict each other.
    """

    refusal: Refusal | None = None
    record: Seen | None = None
    is_fork: bool = False
    frozen: bool = False


def check_request(
    body: bytes, logs: Mapping[str, Sequence[PublicKey]], witness: NoteKey
) -> Checked | Refusal:
    """Check what can be checked without the record: form, origin and the log's signature.

    Args:
        body: The request's body.
        logs: Trusted public keys of each log, by origin.
        witness: This witness's own key.

    Returns:
        The request, or why it is refused: 400 for its form, 404 for a log nobody listed, 403 for its signature.
    """
    try:
        request = AddCheckpoint.from_bytes(body)
        checkpoint, note = parse_checkpoint(request.note)
    except EncodingError as error:
        return Refusal(Status.BAD_REQUEST, error.message)
    trusted = logs.get(checkpoint.origin)
    if trusted is None:
        return Refusal(Status.NOT_FOUND, "this witness does not know the log of that origin")
    try:
        signers = note.verify([NoteKey(checkpoint.origin, key) for key in trusted])
    except EncodingError as error:  # an origin that cannot be the name of a key
        return Refusal(Status.FORBIDDEN, error.message)
    except VerificationError as error:
        return Refusal(Status.FORBIDDEN, error.message)
    if request.old_size > checkpoint.tree_size:
        return Refusal(
            Status.BAD_REQUEST,
            f"the old size {request.old_size} is beyond the checkpoint's, {checkpoint.tree_size}",
        )
    return Checked(request, checkpoint, note, signers, _carries(note, witness))


def decide(checked: Checked, seen: Seen) -> Decision:
    """Decide whether a checkpoint continues what is on record.

    Args:
        checked: The request.
        seen: What is on record of its log.

    Returns:
        The decision. Carried out, it leaves a record that only grows.
    """
    new = Seen(checked.checkpoint.tree_size, checked.checkpoint.root)
    is_fork = new.size == seen.size and new.root != seen.root
    if checked.own and is_fork:
        return Decision(Refusal(Status.UNPROCESSABLE, _CONTRADICTION), is_fork=True, frozen=True)
    if checked.own and new.size > seen.size:  # signed before, and forgotten: the record is an old copy
        return Decision(Refusal(Status.CONFLICT, str(new.size)), record=new)
    if checked.request.old_size != seen.size:
        return Decision(Refusal(Status.CONFLICT, str(seen.size)), is_fork=is_fork)
    if new.size == 0 and new.root != EMPTY_ROOT:
        return Decision(Refusal(Status.UNPROCESSABLE, "the root of an empty log is the hash of nothing"))
    if seen.size == 0 and checked.request.proof:
        return Decision(Refusal(Status.UNPROCESSABLE, "the proof from size 0 must be empty"))
    try:
        if seen.size > 0:
            verify_consistency(seen.size, new.size, seen.root, new.root, checked.request.proof)
    except VerificationError as error:
        return Decision(Refusal(Status.UNPROCESSABLE, error.message), is_fork=is_fork)
    return Decision(record=new)


_CONTRADICTION = "this witness cosigned another tree of the same size: its record was replaced, and it signs no more for this log"


def cosign(witness: Identity, checked: Checked, time_unix_seconds: int) -> NoteSignature:
    """Make the cosignature on a checkpoint that `decide` allowed.

    Args:
        witness: Who signs.
        checked: The request.
        time_unix_seconds: Now, in seconds since 1970; not 0, which would mean that no time is given.

    Raises:
        EncodingError: The time cannot stand in a cosignature.
    """
    if time_unix_seconds <= 0:
        raise EncodingError(
            "a witness's cosignature must carry the time; this machine's clock says 1970 or before"
        )
    return cosign_note(checked.note.text, witness.name, witness.key, time_unix_seconds)


def published(checked: Checked, witness: NoteKey, cosignature: NoteSignature | None = None) -> str:
    """Write the checkpoint as a witness serves it to monitors.

    Args:
        checked: The request.
        witness: This witness's key.
        cosignature: Its new cosignature; None to keep those that the request carried.

    Returns:
        The note with the log's signatures that were verified and the witness's own, and no other.
    """
    keys = checked.log_keys if cosignature is not None else (*checked.log_keys, witness)
    identities = {(key.name, key.hash) for key in keys}
    lines = [line for line in checked.note.signatures if (line.name, line.key_hash) in identities]
    return SignedNote(
        checked.note.text, (*lines, *([cosignature] if cosignature is not None else []))
    ).to_text()


def _carries(note: SignedNote, witness: NoteKey) -> bool:
    try:
        return note.verify([witness]) == (witness,)
    except VerificationError:
        return False
