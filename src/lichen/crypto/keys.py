"""Ed25519 keys, and the two names a key goes by.

Rules upheld:

* A key id is 16 bytes, SHA-256 over a label and the public key. It stands in every entry; the members contract says
  whose it is.
* A public key that is not the one encoding of its point, or whose point has small order, is refused when it is read:
  signatures under such a key hold for messages nobody signed.
* A secret key never shows in ``repr``, in errors or in logs.

Verification does not multiply by the cofactor and compares the first half of the signature as bytes, as OpenSSL does.
A member who makes a key with a component of small order on purpose can make signatures that programs with the other
equation judge otherwise, so the equation is part of the ledger's format.

Source: RFC 8032, sections 5.1.3 and 5.1.7; did:key method specification (multicodec 0xed, base58btc).
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING, Any

from lichen.errors import EncodingError, VerificationError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ["KEY_ID_BYTES", "PublicKey", "SigningKey"]

KEY_ID_BYTES = 16
_KEY_ID_LABEL = b"lichen key v1\n"
_DID_PREFIX = "did:key:z"
_MULTICODEC_ED25519 = b"\xed\x01"
_IDENTITY_MULTIHASH_ED25519 = b"\x24\x08\x01\x12\x20"  # behind its zero byte; a key in protocol buffers
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

_FIELD_PRIME = 2**255 - 19
# y coordinates of the eight points whose order divides the cofactor; with the sign bit cleared they are the whole list.
_SMALL_ORDER_Y = frozenset(
    {
        0,
        1,
        _FIELD_PRIME - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)


@functools.cache
def _ed25519() -> Any:
    """Import the Ed25519 module of ``cryptography`` once, when it is first needed."""
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return ed25519


@functools.cache
def _invalid_signature() -> type[Exception]:
    from cryptography.exceptions import InvalidSignature

    return InvalidSignature


def _base58(data: bytes) -> str:
    """Write bytes, the first of which is not zero, in base 58."""
    number = int.from_bytes(data, "big")
    digits = []
    while number:
        number, digit = divmod(number, 58)
        digits.append(_BASE58[digit])
    return "".join(reversed(digits))


class PublicKey:
    """The half of a key that everyone may know.

    Args:
        raw: Encoded point, 32 bytes.

    Raises:
        EncodingError: Not 32 bytes, not the one encoding of a point, or a point of small order.
    """

    __slots__ = ("_checker", "_key_id", "raw")

    def __init__(self, raw: bytes) -> None:
        if not isinstance(raw, bytes) or len(raw) != 32:
            raise EncodingError("an Ed25519 public key must be 32 bytes")
        y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
        if y >= _FIELD_PRIME or y in _SMALL_ORDER_Y:
            raise EncodingError(f"not a usable Ed25519 public key: {raw.hex()}", remedy="Make a new key.")
        self.raw = raw
        self._key_id: bytes | None = None
        self._checker: Any = None

    @property
    def key_id(self) -> bytes:
        """What entries call this key: 16 bytes."""
        if self._key_id is None:
            self._key_id = hashlib.sha256(_KEY_ID_LABEL + self.raw).digest()[:KEY_ID_BYTES]
        return self._key_id

    @property
    def did_key(self) -> str:
        """What people pass around: ``did:key:z6Mk...``."""
        return _DID_PREFIX + _base58(_MULTICODEC_ED25519 + self.raw)

    @property
    def peer_id(self) -> str:
        """What the peers of IPFS call the holder of this key: ``12D3KooW...``.

        Source: https://github.com/libp2p/specs/blob/master/peer-ids/peer-ids.md, keys of at most 42 bytes.
        """
        return "1" + _base58(_IDENTITY_MULTIHASH_ED25519 + self.raw)

    @classmethod
    def from_did_key(cls, text: str) -> PublicKey:
        """Read a key as :attr:`did_key` writes it.

        Args:
            text: ``did:key:z6Mk...``.

        Returns:
            The key.

        Raises:
            EncodingError: Another method, another kind of key, or mistyped.
        """
        digits = text.removeprefix(_DID_PREFIX)
        if not text.startswith(_DID_PREFIX) or len(digits) > 64 or not set(digits) <= set(_BASE58):
            raise EncodingError(f"not a did:key: {text[:80]!r}")
        number = 0
        for digit in digits:
            number = number * 58 + _BASE58.index(digit)
        raw = number.to_bytes(48, "big").lstrip(b"\0")
        if len(raw) != 34 or not raw.startswith(_MULTICODEC_ED25519):
            raise EncodingError(f"not the did:key of an Ed25519 key: {text[:80]!r}")
        key = cls(raw[2:])
        if key.did_key != text:
            raise EncodingError(f"not the canonical did:key of an Ed25519 key: {text[:80]!r}")
        return key

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check a signature.

        Args:
            message: The bytes that were signed.
            signature: 64 bytes.

        Raises:
            VerificationError: This key did not sign this message, or the key is no point of the curve.
        """
        if self._checker is None:
            try:
                self._checker = _ed25519().Ed25519PublicKey.from_public_bytes(self.raw)
            except ValueError as error:
                raise VerificationError(f"key {self.key_id.hex()} is no point of the curve") from error
        try:
            self._checker.verify(signature, message)
        except _invalid_signature() as error:
            raise VerificationError(
                f"the signature by key {self.key_id.hex()} does not hold",
                remedy="The bytes were changed after signing, or another key signed them.",
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"PublicKey({self.did_key})"


class SigningKey:
    """The half of a key that only its holder knows.

    Build one with :meth:`generate` or :meth:`from_seed`.
    """

    __slots__ = ("_private", "public")

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    @classmethod
    def generate(cls) -> SigningKey:
        """Make a new key from the operating system's randomness; the only place in this room that takes any."""
        return cls(_ed25519().Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        """Rebuild a key.

        Args:
            seed: The secret, 32 bytes (RFC 8032's private key).

        Returns:
            The key.

        Raises:
            EncodingError: Not 32 bytes.
        """
        if not isinstance(seed, bytes) or len(seed) != 32:
            raise EncodingError("the seed of an Ed25519 key must be 32 bytes")
        return cls(_ed25519().Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def seed(self) -> bytes:
        """The secret itself, 32 bytes: for the key file and nothing else."""
        return self._private.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message, 64 bytes, the same each time."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.did_key})"

    def __reduce__(self) -> Any:
        raise TypeError("a signing key is not pickled; write it with lichen.crypto.key_file")
