"""Signed heads of the log.

::

    lichen/<ledger id, 64 hex digits>
    <number of entries>
    <root of the log, base64>

    — lichen/<ledger id> <signature>

Rules upheld: the origin contains the ledger's id, so a checkpoint speaks for one ledger only; the key's name is the
origin; Lichen writes no extension lines and keeps those of others.

Source: C2SP tlog-checkpoint v1.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from lichen.crypto.keys import PublicKey, SigningKey
from lichen.crypto.note import NoteKey, SignedNote, sign_note
from lichen.encoding.base import b64_decode
from lichen.errors import EncodingError, VerificationError

__all__ = ["Checkpoint", "open_checkpoint", "origin_of", "parse_checkpoint", "sign_checkpoint"]

_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_LEDGER_ID = re.compile(r"[0-9a-f]{64}")


def origin_of(ledger_id: str) -> str:
    """Name a ledger as its checkpoints do.

    Args:
        ledger_id: The ledger's id, 64 lower-case hexadecimal digits.

    Returns:
        ``lichen/<ledger id>``.

    Raises:
        EncodingError: Not a ledger id.
    """
    if not _LEDGER_ID.fullmatch(ledger_id):
        raise EncodingError(f"not a ledger id: {ledger_id[:80]!r}")
    return f"lichen/{ledger_id}"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a log commits to.

    Attributes:
        origin: Which log.
        tree_size: How many entries.
        root: Root over them, 32 bytes.
        extensions: Further lines of other logs; Lichen writes none.
    """

    origin: str
    tree_size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if type(self.tree_size) is not int or not 0 <= self.tree_size < 2**63:
            raise EncodingError(f"not the size of a log: {self.tree_size!r}")
        if not isinstance(self.root, bytes) or len(self.root) != 32:
            raise EncodingError("the root of a checkpoint must be 32 bytes")
        if any(not line or "\n" in line for line in (self.origin, *self.extensions)):
            raise EncodingError("the lines of a checkpoint must not be empty")

    def body(self) -> str:
        """Write the text that is signed."""
        root = base64.b64encode(self.root).decode("ascii")
        return "".join(f"{line}\n" for line in (self.origin, str(self.tree_size), root, *self.extensions))

    @classmethod
    def from_body(cls, text: str) -> Checkpoint:
        """Read the text that is signed.

        Raises:
            EncodingError: Not the body of a checkpoint.
        """
        lines = text.split("\n")
        if len(lines) < 4 or lines.pop() != "":
            raise EncodingError("a checkpoint has at least three lines")
        origin, size, root, *extensions = lines
        if not _SIZE.fullmatch(size):
            raise EncodingError(f"not the size of a log: {size[:40]!r}")
        return cls(origin, int(size), b64_decode(root, 32), tuple(extensions))


def sign_checkpoint(checkpoint: Checkpoint, key: SigningKey) -> str:
    """Sign a checkpoint with the log's key, under the origin as the key's name.

    Args:
        checkpoint: What the log commits to.
        key: The log's key.

    Returns:
        The signed note.

    Raises:
        EncodingError: The origin cannot be the name of a key.
    """
    body = checkpoint.body()
    return SignedNote(body, (sign_note(body, checkpoint.origin, key),)).to_text()


def parse_checkpoint(text: str) -> tuple[Checkpoint, SignedNote]:
    """Read a checkpoint without checking who signed it.

    Args:
        text: The signed note.

    Returns:
        What it says, and the note with its signatures.

    Raises:
        EncodingError: Not a signed note, or its text is not a checkpoint.
    """
    note = SignedNote.from_text(text)
    return Checkpoint.from_body(note.text), note


def open_checkpoint(text: str, origin: str, log_key: PublicKey) -> Checkpoint:
    """Read a checkpoint of one ledger and check the log's signature.

    Args:
        text: The signed note.
        origin: The ledger's origin.
        log_key: The log's public key.

    Returns:
        What the log committed to.

    Raises:
        EncodingError: Not a checkpoint.
        VerificationError: Of another ledger, or not signed by its log.
    """
    checkpoint, note = parse_checkpoint(text)
    if checkpoint.origin != origin:
        raise VerificationError(
            "the checkpoint is of another ledger", expected=origin, calculated=checkpoint.origin
        )
    note.verify([NoteKey(origin, log_key)])
    return checkpoint
