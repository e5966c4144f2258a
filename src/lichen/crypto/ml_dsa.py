"""ML-DSA-44 public keys of witnesses: verified here, made and used for signing by witnesses elsewhere.

`cryptography` offers it where its library of primitives does; where it does not, a key is refused with the reason, and nothing
else in Lichen needs it.

Source: FIPS 204, parameter set ML-DSA-44, with an empty context.
"""

from __future__ import annotations

from typing import Any, Final

from lichen.errors import EncodingError, VerificationError

__all__ = ["ML_DSA_44_KEY_BYTES", "ML_DSA_44_SIGNATURE_BYTES", "MlDsaPublicKey"]

ML_DSA_44_KEY_BYTES: Final = 1_312
ML_DSA_44_SIGNATURE_BYTES: Final = 2_420


class MlDsaPublicKey:
    """The half of a witness's ML-DSA-44 key that everyone may know.

    Args:
        raw: Encoded key, 1,312 bytes.

    Raises:
        EncodingError: Not a key, or this installation cannot verify with one.
    """

    __slots__ = ("_checker", "raw")

    def __init__(self, raw: bytes) -> None:
        if not isinstance(raw, bytes) or len(raw) != ML_DSA_44_KEY_BYTES:
            raise EncodingError(f"an ML-DSA-44 public key must be {ML_DSA_44_KEY_BYTES:,} bytes")
        self.raw = raw
        self._checker = _checker(raw)

    def verify(self, message: bytes, signature: bytes) -> None:
        """Check a signature.

        Args:
            message: What was signed.
            signature: 2,420 bytes.

        Raises:
            VerificationError: It does not hold.
        """
        from cryptography.exceptions import InvalidSignature

        try:
            self._checker.verify(signature, message)
        except InvalidSignature as error:
            raise VerificationError(
                "the ML-DSA-44 signature does not hold",
                remedy="The bytes were changed after signing, or another key signed them.",
            ) from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MlDsaPublicKey) and other.raw == self.raw

    def __hash__(self) -> int:
        return hash(self.raw)

    def __repr__(self) -> str:
        return f"MlDsaPublicKey({self.raw[:8].hex()}…)"


def _checker(raw: bytes) -> Any:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PublicKey

        return MLDSA44PublicKey.from_public_bytes(raw)
    except (ImportError, UnsupportedAlgorithm) as error:
        raise EncodingError(
            "the package `cryptography` that is installed here cannot verify ML-DSA-44 (signature type 0x06)",
            remedy="Update it (pip install --upgrade cryptography), or use the witness's Ed25519 key (type 0x04).",
        ) from error
    except ValueError as error:
        raise EncodingError("not an ML-DSA-44 public key") from error
