"""Signed notes: text that carries its own signatures, and witnesses' cosignatures on it.

::

    <text, ends in a newline>
    <empty line>
    — <key name> <base64 of: key hash, 4 bytes | signature>

Rules upheld: UTF-8 without control characters other than the newline; key names without spaces or plus signs; each
signature line in its one form; a signature by a known key must hold or the note is refused; signatures by unknown keys
are ignored; at least one known key must have signed.

Source: C2SP signed-note v1 (type 0x01) and tlog-cosignature v1 (Ed25519, type 0x04; ML-DSA-44, type 0x06, which is verified and
not made). Differs: keys and signatures of other types (ECDSA 0x02, RFC 6962 tree heads 0x05) are refused and ignored.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from lichen.crypto.keys import PublicKey, SigningKey
from lichen.crypto.ml_dsa import ML_DSA_44_SIGNATURE_BYTES, MlDsaPublicKey
from lichen.errors import EncodingError, VerificationError

__all__ = [
    "AHEAD_SECONDS_MAX",
    "COSIGNATURE_TYPES",
    "NoteKey",
    "NoteSignature",
    "SignatureType",
    "SignedNote",
    "cosign_note",
    "sign_note",
]

AHEAD_SECONDS_MAX = (
    86_400  # clocks differ; a cosignature from further ahead tells nothing about when it was made
)

NOTE_BYTES_MAX = 1_000_000
SIGNATURE_COUNT_MAX = 64
_TIME_MAX = 2**63 - 1
_DASH = "— "  # U+2014 and a space


class SignatureType(enum.IntEnum):
    """What a signature line's signature is over."""

    ED25519 = 0x01
    COSIGNATURE_V1 = 0x04
    COSIGNATURE_ML_DSA_44 = 0x06


COSIGNATURE_TYPES = frozenset({SignatureType.COSIGNATURE_V1, SignatureType.COSIGNATURE_ML_DSA_44})
"""What keys of witnesses may be of."""


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A key under a name, as note signatures identify it.

    Attributes:
        name: Whose key; not empty, without white space or plus signs.
        key: The public key.
        type: What its signatures are over.
    """

    name: str
    key: PublicKey | MlDsaPublicKey
    type: SignatureType = SignatureType.ED25519

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def ed25519(self) -> PublicKey:
        """The public key of a log: it is of no other kind.

        Raises:
            EncodingError: It is a witness's of another kind.
        """
        if not isinstance(self.key, PublicKey):
            raise EncodingError(f"the key of {self.name!r} is no Ed25519 key, as those of logs are")
        return self.key

    @property
    def hash(self) -> bytes:
        """The short identifier in signature lines, 4 bytes; it selects a key and proves nothing."""
        return hashlib.sha256(b"%s\n%c%s" % (self.name.encode("utf-8"), self.type, self.key.raw)).digest()[:4]

    @property
    def vkey(self) -> str:
        """The verifier key in one line of text: ``<name>+<hash in hex>+<base64 of type and key>``."""
        return f"{self.name}+{self.hash.hex()}+{_b64(bytes([self.type]) + self.key.raw)}"

    @classmethod
    def from_vkey(cls, text: str) -> NoteKey:
        """Read a verifier key as :attr:`vkey` writes it.

        Raises:
            EncodingError: Malformed, of another signature type, or with a hash that is not the key's.
        """
        name, _, rest = text.partition("+")
        shown_hash, _, encoded = rest.partition("+")
        key = cls(name, *_key_of(_b64_decode(encoded), text))
        if key.hash.hex() != shown_hash:
            raise EncodingError(
                f"the verifier key of {name!r} names hash {shown_hash!r}, its own is {key.hash.hex()}"
            )
        return key


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line.

    Attributes:
        name: The signer's key name.
        key_hash: First bytes of a hash over name, type and key, 4 bytes.
        signature: What follows: 64 bytes (type 0x01), or a time of 8 bytes and 64 (type 0x04) or 2,420 bytes (type 0x06).
    """

    name: str
    key_hash: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        if len(self.key_hash) != 4 or not self.signature:
            raise EncodingError(f"the signature line of {self.name!r} is too short")

    @property
    def line(self) -> str:
        """The line, with its newline."""
        return f"{_DASH}{self.name} {_b64(self.key_hash + self.signature)}\n"


@dataclass(frozen=True, slots=True)
class SignedNote:
    """A text with signatures.

    Attributes:
        text: What was signed; ends in a newline.
        signatures: At least one.
    """

    text: str
    signatures: tuple[NoteSignature, ...] = field(default=())

    def __post_init__(self) -> None:
        _check_text(self.text)
        if not 1 <= len(self.signatures) <= SIGNATURE_COUNT_MAX:
            raise EncodingError(f"a signed note carries 1 to {SIGNATURE_COUNT_MAX} signatures")

    def to_text(self) -> str:
        """Write the note: text, empty line, signature lines."""
        return f"{self.text}\n{''.join(signature.line for signature in self.signatures)}"

    @classmethod
    def from_text(cls, note: str) -> SignedNote:
        """Read a note.

        Args:
            note: The whole note; ``from_text(note).to_text() == note``.

        Returns:
            The note; no signature has been verified.

        Raises:
            EncodingError: Not a signed note.
        """
        if len(note) > NOTE_BYTES_MAX:
            raise EncodingError(f"a signed note has at most {NOTE_BYTES_MAX} characters")
        _check_text(note)
        text, blank, tail = note.rpartition("\n\n")
        if not blank or not tail:
            raise EncodingError("a signed note needs an empty line between its text and its signatures")
        return cls(text + "\n", tuple(map(_signature, tail[:-1].split("\n"))))

    def with_signature(self, signature: NoteSignature) -> SignedNote:
        """Return the note with one more signature, after the others."""
        return SignedNote(self.text, (*self.signatures, signature))

    def verify(self, keys: Iterable[NoteKey]) -> tuple[NoteKey, ...]:
        """Check the signatures of known keys.

        Args:
            keys: Whom the caller trusts to sign notes.

        Returns:
            The known keys that signed, in the order of their lines.

        Raises:
            VerificationError: A known key's signature does not hold, or no known key signed.
        """
        known = {(key.name, key.hash): key for key in keys}
        signers: list[NoteKey] = []
        for signature in self.signatures:
            key = known.get((signature.name, signature.key_hash))
            if key is not None:
                key.key.verify(*_signed_message(self.text, signature, key))
                if key not in signers:
                    signers.append(key)
        if not signers:
            raise VerificationError(
                "no trusted key signed this note",
                expected=", ".join(sorted({name for name, _ in known})),
                calculated=", ".join(signature.name for signature in self.signatures),
                remedy="Check that it comes from the ledger you expect, and that the key you hold is that ledger's.",
            )
        return tuple(signers)

    def cosigned_at(self, key: NoteKey, now_unix_seconds: int | None = None) -> int:
        """Return when a witness cosigned, in seconds since 1970, after verifying that it did.

        Args:
            key: The witness's.
            now_unix_seconds: The reader's clock; what is said to be from more than a day ahead of it is not believed.
                None where only the signature matters.

        Raises:
            VerificationError: This witness did not cosign, its cosignature does not hold, or is from ahead of the clock.
        """
        self.verify([key])
        for signature in self.signatures:
            if (signature.name, signature.key_hash) == (key.name, key.hash):
                time_unix_seconds = int.from_bytes(signature.signature[:8], "big")
                if now_unix_seconds is not None and time_unix_seconds > now_unix_seconds + AHEAD_SECONDS_MAX:
                    raise VerificationError(
                        f"{key.name} cosigned at a time more than a day ahead of this clock",
                        expected=now_unix_seconds,
                        calculated=time_unix_seconds,
                        remedy="Compare this machine's clock with the witness's.",
                    )
                return time_unix_seconds
        raise VerificationError(f"{key.name} did not cosign this note")


def sign_note(text: str, name: str, key: SigningKey) -> NoteSignature:
    """Sign a note's text.

    Args:
        text: The text, ending in a newline.
        name: Name of the key.
        key: The key.

    Returns:
        A signature line of type 0x01.

    Raises:
        EncodingError: The text or the name cannot stand in a note.
    """
    _check_text(text)
    return NoteSignature(name, NoteKey(name, key.public).hash, key.sign(text.encode("utf-8")))


def cosign_note(text: str, name: str, key: SigningKey, time_unix_seconds: int) -> NoteSignature:
    """Cosign a checkpoint as a witness does.

    Args:
        text: The checkpoint's body, ending in a newline.
        name: Name of the witness.
        key: The witness's key, used for cosignatures only.
        time_unix_seconds: When, in seconds since 1970, up to 2**63 - 1.

    Returns:
        A signature line of type 0x04.

    Raises:
        EncodingError: The text, the name or the time cannot stand in a cosignature.

    Source:
        C2SP tlog-cosignature, "Ed25519 signed message".
    """
    _check_text(text)
    if not 0 <= time_unix_seconds <= _TIME_MAX:
        raise EncodingError(f"not a time of a cosignature: {time_unix_seconds}")
    signature = key.sign(_cosigned_message(text, time_unix_seconds))
    identity = NoteKey(name, key.public, SignatureType.COSIGNATURE_V1)
    return NoteSignature(name, identity.hash, time_unix_seconds.to_bytes(8, "big") + signature)


def _cosigned_message(text: str, time_unix_seconds: int) -> bytes:
    return f"cosignature/v1\ntime {time_unix_seconds}\n{text}".encode()


def _key_of(raw: bytes, text: str) -> tuple[PublicKey | MlDsaPublicKey, SignatureType]:
    """Read type and key of a verifier key."""
    if raw[:1] == bytes([SignatureType.COSIGNATURE_ML_DSA_44]):
        return MlDsaPublicKey(raw[1:]), SignatureType.COSIGNATURE_ML_DSA_44
    if not raw or raw[0] not in set(SignatureType):
        raise EncodingError(
            f"not a verifier key of a type that is known here: {text[:120]!r}",
            remedy="Known are Ed25519 notes (0x01) for logs, and for witnesses cosignatures with Ed25519 (0x04) or ML-DSA-44 (0x06).",
        )
    if len(raw) != 33:
        raise EncodingError(f"not a verifier key for Ed25519 notes: {text[:120]!r}")
    return PublicKey(raw[1:]), SignatureType(raw[0])


def _signed_message(text: str, signature: NoteSignature, key: NoteKey) -> tuple[bytes, bytes]:
    """Return message and bare signature of a line, by the type of the key it names."""
    if key.type is SignatureType.ED25519:
        return text.encode("utf-8"), signature.signature
    time = int.from_bytes(signature.signature[:8], "big")
    is_ml_dsa = key.type is SignatureType.COSIGNATURE_ML_DSA_44
    size = 8 + (ML_DSA_44_SIGNATURE_BYTES if is_ml_dsa else 64)
    if len(signature.signature) != size or time > _TIME_MAX:
        raise VerificationError(f"the cosignature of {key.name} is malformed")
    message = _subtree_message(text, key.name, time) if is_ml_dsa else _cosigned_message(text, time)
    return message, signature.signature[8:]


def _subtree_message(text: str, name: str, time_unix_seconds: int) -> bytes:
    """What an ML-DSA-44 cosignature is over: names, time and tree head of a checkpoint, without its extension lines.

    Raises:
        VerificationError: The text is no checkpoint, or a name is too long.

    Source:
        C2SP tlog-cosignature, "ML-DSA-44 signed message".
    """
    origin, size, root, *_ = (*text.split("\n"), "", "")
    try:
        root_hash = _b64_decode(root)
    except EncodingError:
        root_hash = b""
    names = name.encode("utf-8"), origin.encode("utf-8")
    is_size = size.isascii() and size.isdigit() and str(int(size[:20])) == size and int(size) < 2**64
    if len(root_hash) != 32 or not is_size or not all(1 <= len(each) <= 255 for each in names):
        raise VerificationError(
            f"what {name} cosigned is no checkpoint, or its names are longer than 255 bytes"
        )
    cosigner, log_origin = (bytes([len(each)]) + each for each in names)
    times_and_range = time_unix_seconds.to_bytes(8, "big"), bytes(8), int(size).to_bytes(8, "big")
    return (
        b"subtree/v1\n\0"
        + cosigner
        + times_and_range[0]
        + log_origin
        + b"".join(times_and_range[1:])
        + root_hash
    )


def _signature(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    if not line.startswith(_DASH):
        raise EncodingError(f"not a signature line: {line[:120]!r}")
    raw = _b64_decode(encoded)
    return NoteSignature(name, raw[:4], raw[4:])


def _check_name(name: str) -> None:
    if not name or "+" in name or any(character.isspace() or character < " " for character in name):
        raise EncodingError(f"not a key name: {name[:120]!r}")


def _check_text(text: str) -> None:
    if not text.endswith("\n") or any(character < " " and character != "\n" for character in text):
        raise EncodingError("the text of a note ends in a newline and has no other control characters")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EncodingError("the text of a note must be valid UTF-8") from error


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _b64_decode(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise EncodingError(f"not base64: {text[:120]!r}") from error
    if _b64(raw) != text:
        raise EncodingError(f"not the canonical base64 of any bytes: {text[:120]!r}")
    return raw
