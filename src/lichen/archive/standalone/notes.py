"""Signed heads of the log: C2SP signed-note, tlog-checkpoint and tlog-cosignature/v1."""

from __future__ import annotations

import hashlib
import re

from lichen.archive.standalone.ed25519 import Key
from lichen.archive.standalone.faults import Fault
from lichen.archive.standalone.texts import unb64

__all__ = ["checkpoint_text", "note_key", "open_note", "parse_checkpoint", "witness_key"]

NOTE_LENGTH_MAX = 1000000
SIGNATURE_COUNT_MAX = 64
SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
ED25519, COSIGNATURE = 1, 4
AHEAD_MAX = 86400


def note_key(name: str, key: Key, kind: int = ED25519) -> tuple:
    """What selects a key in a signature line (name and hash), and what its signatures are over."""
    return name, hashlib.sha256(name.encode() + b"\n" + bytes([kind]) + key.raw).digest()[:4], kind, key


def witness_key(text: str) -> tuple:
    """Read a verifier key, ``<name>+<hash>+<base64 of type and key>``.

    Raises:
        Fault: Not one for Ed25519 notes or cosignatures.
    """
    name, _, rest = text.partition("+")
    shown, _, encoded = rest.partition("+")
    raw = unb64(encoded)
    if raw[:1] == b"\x06":
        raise Fault(
            "the key of %.60r is of type ML-DSA-44, which this program cannot check; lichen verify --policy can"
            % name
        )
    if len(raw) != 33 or raw[0] not in (ED25519, COSIGNATURE) or not is_name(name):
        raise Fault("not a verifier key: %.80r" % text)
    found = note_key(name, Key(raw[1:]), raw[0])
    if found[1].hex() != shown:
        raise Fault("the hash in the verifier key of %.60r is not that of its key" % name)
    return found


def is_name(name: str) -> bool:
    """True for text that can be a key's name."""
    return bool(name) and "+" not in name and not any(c.isspace() or c < " " for c in name)


def open_note(note: str, keys: list, now: int | None = None) -> tuple:
    """Check a signed note.

    Args:
        note: Text, empty line, signature lines.
        keys: As `note_key` and `witness_key` give them.
        now: Seconds since 1970, by which the times of cosignatures are judged; None where no time matters.

    Returns:
        The text, those of the keys that signed it, and how many lines are of keys that were not given.

    Raises:
        Fault: Not a note, a given key's signature does not hold, or none of them signed.
    """
    if len(note) > NOTE_LENGTH_MAX or not note.endswith("\n") or any(c < " " and c != "\n" for c in note):
        raise Fault("not a signed note")
    text, blank, tail = note.rpartition("\n\n")
    text += "\n"
    lines = tail[:-1].split("\n")
    if not blank or not tail or len(lines) > SIGNATURE_COUNT_MAX:
        raise Fault("not a signed note: an empty line, then 1 to %d signatures" % SIGNATURE_COUNT_MAX)
    signed, unknown = [], 0
    for line in lines:
        name, _, encoded = line[2:].partition(" ")
        raw = unb64(encoded)
        if not line.startswith("\u2014 ") or not is_name(name) or len(raw) < 5:
            raise Fault("not a signature line: %.80r" % line)
        known = [key for key in keys if key[0] == name and key[1] == raw[:4]]
        unknown += not known
        for key in known:
            if not key[3].verify(*signed_message(text, raw[4:], key[2])):
                raise Fault("the signature of %.80s on a note does not hold" % name)
            if (
                key[2] == COSIGNATURE
                and now is not None
                and int.from_bytes(raw[4:12], "big") > now + AHEAD_MAX
            ):
                raise Fault("%.80s cosigned at a time more than a day ahead of this clock" % name)
            if key not in signed:
                signed.append(key)
    if not signed:
        raise Fault("no expected key signed this note")
    return text, signed, unknown


def signed_message(text: str, signature: bytes, kind: int) -> tuple:
    """Bytes that a signature line is over, and the bare signature."""
    try:
        message = text.encode("utf-8")
    except UnicodeEncodeError:
        raise Fault("the text of a note is not valid UTF-8") from None
    if kind == ED25519:
        return message, signature
    time = int.from_bytes(signature[:8], "big")
    if len(signature) != 72 or time >= 2**63:
        raise Fault("a malformed cosignature")
    return b"cosignature/v1\ntime %d\n%s" % (time, message), signature[8:]


def checkpoint_text(origin: str, size: int, root: str) -> str:
    """The three lines that a checkpoint signs; the root in base64."""
    return "%s\n%d\n%s\n" % (origin, size, root)


def parse_checkpoint(text: str) -> tuple:
    """Origin, size and root of a checkpoint's text.

    Raises:
        Fault: Not one.
    """
    lines = text.split("\n")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]) or not SIZE.fullmatch(lines[1]):
        raise Fault("not a checkpoint")
    if int(lines[1]) >= 2**63:
        raise Fault("not the size of a log")
    return lines[0], int(lines[1]), unb64(lines[2], 32)
