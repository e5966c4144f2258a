"""A signed record in its compact form, and the DSSE envelope it stands for.

Compact form::

    0x01 | key id, 16 bytes | Ed25519 signature, 64 bytes | payload, 1 to 48,000 bytes

The envelope is not stored: it is derived from these bytes, and these bytes from it, without loss. The signature is
over DSSE's pre-authentication encoding, so tools that know only DSSE verify an exported envelope.

Source: DSSE v1.0 (envelope and protocol). Differs: exactly one signature, the key id is not optional, and the JSON of
the envelope is canonical.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from lichen.encoding.base import b64, b64_decode, hex_decode
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.errors import EncodingError, VerificationError

__all__ = [
    "ENTRY_OVERHEAD_BYTES",
    "PAYLOAD_BYTES_MAX",
    "PAYLOAD_TYPE",
    "Entry",
    "Signer",
    "Verifier",
    "pre_auth_encoding",
]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
PAYLOAD_BYTES_MAX = 48_000  # its DSSE envelope, base64 and all, stays below 64 KiB
ENTRY_OVERHEAD_BYTES = 1 + 16 + 64  # (= 81) version, key id, signature

_VERSION = b"\x01"
_PAE_HEAD = b"DSSEv1 %d %s " % (len(PAYLOAD_TYPE), PAYLOAD_TYPE.encode("ascii"))


class Verifier(Protocol):
    """What checks signatures; :class:`lichen.crypto.keys.PublicKey` is one."""

    @property
    def key_id(self) -> bytes:
        """Identifier of the key, 16 bytes."""
        ...

    def verify(self, message: bytes, signature: bytes) -> None:
        """Raise VerificationError unless the signature over the message is this key's."""
        ...


class Signer(Protocol):
    """What signs; :class:`lichen.crypto.keys.SigningKey` is one."""

    @property
    def public(self) -> Verifier:
        """The public half."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of the message."""
        ...


def pre_auth_encoding(payload: bytes) -> bytes:
    """Build the bytes that are signed.

    Args:
        payload: The statement in canonical JSON.

    Returns:
        ``DSSEv1 <length of type> <type> <length of payload> <payload>``.

    Source:
        DSSE protocol, "Signature Definition", PAE.
    """
    return b"%s%d %s" % (_PAE_HEAD, len(payload), payload)


@dataclass(frozen=True, slots=True)
class Entry:
    """One signed record.

    Attributes:
        key_id: Which key signed, 16 bytes.
        signature: Ed25519 signature over :func:`pre_auth_encoding` of the payload, 64 bytes. Not verified by
            building an entry: see :meth:`verify`.
        payload: The statement in canonical JSON, 1 to 48,000 bytes. Not parsed by building an entry.
    """

    key_id: bytes
    signature: bytes
    payload: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.key_id, bytes) or len(self.key_id) != 16:
            raise EncodingError("the key id of an entry must be 16 bytes")
        if not isinstance(self.signature, bytes) or len(self.signature) != 64:
            raise EncodingError("the signature of an entry must be 64 bytes")
        if not isinstance(self.payload, bytes) or not 1 <= len(self.payload) <= PAYLOAD_BYTES_MAX:
            raise EncodingError(
                f"the payload of an entry must be 1 to {PAYLOAD_BYTES_MAX} bytes, got {len(self.payload)}",
                remedy="Keep details in an artefact and name it by its CID.",
            )

    @classmethod
    def signed(cls, payload: bytes, key: Signer) -> Entry:
        """Sign a payload.

        Args:
            payload: The statement in canonical JSON.
            key: The signing key.

        Returns:
            The entry.

        Raises:
            EncodingError: The payload is empty or too long.
        """
        return cls(key.public.key_id, key.sign(pre_auth_encoding(payload)), payload)

    def verify(self, key: Verifier) -> None:
        """Check that this key signed this payload.

        Args:
            key: The key that is expected to have signed.

        Raises:
            VerificationError: The entry names another key, or the signature does not hold.
        """
        if key.key_id != self.key_id:
            raise VerificationError(
                "the entry was signed by another key", expected=key.key_id.hex(), calculated=self.key_id.hex()
            )
        key.verify(pre_auth_encoding(self.payload), self.signature)

    def to_bytes(self) -> bytes:
        """Write the compact form, the bytes that the log's leaf hash covers."""
        return _VERSION + self.key_id + self.signature + self.payload

    @classmethod
    def from_bytes(cls, data: bytes) -> Entry:
        """Read the compact form.

        Args:
            data: Bytes as :meth:`to_bytes` writes them.

        Returns:
            The entry; neither its signature nor its payload has been checked.

        Raises:
            EncodingError: Too short, too long, or of another version.
        """
        if data[:1] != _VERSION:
            raise EncodingError(f"not an entry of version 1: it starts with {bytes(data[:1])!r}")
        return cls(bytes(data[1:17]), bytes(data[17:81]), bytes(data[81:]))

    def to_dsse(self) -> bytes:
        """Write the DSSE envelope: canonical JSON, key id in hexadecimal, the rest in standard base64."""
        return canonical_json(
            {
                "payload": b64(self.payload),
                "payloadType": PAYLOAD_TYPE,
                "signatures": [{"keyid": self.key_id.hex(), "sig": b64(self.signature)}],
            }
        )

    @classmethod
    def from_dsse(cls, data: bytes) -> Entry:
        """Read an envelope as :meth:`to_dsse` writes it.

        Args:
            data: The envelope's JSON.

        Returns:
            The entry it stands for.

        Raises:
            EncodingError: Not canonical, not an envelope, of another payload type, or not exactly one signature.
        """
        value = parse_canonical(data)
        if not isinstance(value, dict) or value.keys() != {"payload", "payloadType", "signatures"}:
            raise EncodingError(
                "not a DSSE envelope: it must have exactly payload, payloadType and signatures"
            )
        if value["payloadType"] != PAYLOAD_TYPE:
            raise EncodingError(f"the envelope's payload type is not {PAYLOAD_TYPE}")
        signatures = value["signatures"]
        if not isinstance(signatures, list) or len(signatures) != 1:
            raise EncodingError("the envelope must carry exactly one signature")
        signature = signatures[0]
        if not isinstance(signature, dict) or signature.keys() != {"keyid", "sig"}:
            raise EncodingError("a signature of the envelope must have exactly keyid and sig")
        return cls(
            hex_decode(signature["keyid"], 16), b64_decode(signature["sig"], 64), b64_decode(value["payload"])
        )
