"""Requests that say who asks: HTTP message signatures with a member's key.

A private ledger is read by its members only, and artefacts are put by members only. Such a request carries three headers::

    Lichen-Ledger: <ledger id, 64 hex digits>
    Signature-Input: lichen=("@method" "@path" "@query" "lichen-ledger");created=<s>;nonce="<22>";keyid="<32 hex>";alg="ed25519"
    Signature: lichen=:<base64 of the Ed25519 signature>:

Rules upheld here:

* The ledger's id is signed, so a request to one ledger means nothing to another; method, path and query are, so it
  asks for one thing. A body needs no digest: a record is signed itself, and an artefact's path is its digest.
* A request counts once: whoever verifies remembers its nonce for as long as its time is accepted.
* There is one spelling; a signature over anything else is refused.

Source: RFC 9421, sections 2, 3.1 and 3.3.6. Differs: exactly these components and parameters, in this order.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from lichen.crypto.keys import PublicKey, SigningKey
from lichen.encoding.base import b64, b64_decode, b64u, b64u_decode
from lichen.errors import EncodingError, LichenError, VerificationError

__all__ = ["LEDGER_HEADER", "WINDOW_SECONDS", "NonceMemory", "SignedRequest", "sign_request"]

LEDGER_HEADER = "Lichen-Ledger"
NONCE_BYTES = 16
WINDOW_SECONDS = 60
"""How far the time in a request may lie from the verifier's clock, either way."""
NONCE_COUNT_MAX = 200_000  # (= about 30 MB) requests remembered; beyond, new ones wait until old ones expire

_COMPONENTS = '("@method" "@path" "@query" "lichen-ledger")'
_INPUT = re.compile(
    r'lichen=(?P<params>\("@method" "@path" "@query" "lichen-ledger"\);created=(?P<created>[0-9]{1,12})'
    r';nonce="(?P<nonce>[A-Za-z0-9_-]{22})";keyid="(?P<key_id>[0-9a-f]{32})";alg="ed25519")'
)
_SIGNATURE = re.compile(r"lichen=:(?P<signature>[A-Za-z0-9+/]{86}==):")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """What the headers of a signed request say; nothing is verified by parsing them.

    Attributes:
        key_id: Which key signed, 16 bytes.
        created: When, in seconds since 1970, by the signer's clock.
        nonce: Different for each request, 16 bytes.
        parameters: What was signed beside the request itself.
        signature: 64 bytes.
    """

    key_id: bytes
    created: int
    nonce: bytes
    parameters: str
    signature: bytes

    @classmethod
    def parse(cls, signature_input: str, signature: str) -> SignedRequest:
        """Read the two headers.

        Raises:
            EncodingError: Not of the one form.
        """
        said, proof = _INPUT.fullmatch(signature_input), _SIGNATURE.fullmatch(signature)
        if said is None or proof is None:
            raise EncodingError(
                "the headers Signature-Input and Signature are not of the form this server takes",
                remedy=f'Signature-Input: lichen={_COMPONENTS};created=…;nonce="…";keyid="…";alg="ed25519"',
            )
        return cls(
            bytes.fromhex(said["key_id"]),
            int(said["created"]),
            b64u_decode(said["nonce"], NONCE_BYTES),
            said["params"],
            b64_decode(proof["signature"], 64),
        )

    def verify(self, key: PublicKey, ledger_id: str, method: str, target: str) -> None:
        """Check the signature.

        Args:
            key: Key the signer must hold.
            ledger_id: Ledger the request must be meant for, 64 hexadecimal digits.
            method: Of the request, such as ``GET``.
            target: Path and query as they were sent.

        Raises:
            VerificationError: It does not hold.
        """
        try:
            key.verify(_signed_text(ledger_id, method, target, self.parameters), self.signature)
        except LichenError as error:
            raise VerificationError(
                "the signature of the request does not hold for this ledger, method and path",
                remedy="sign the request as it is sent, with a key that a member of this ledger has",
            ) from error


def sign_request(
    key: SigningKey, ledger_id: str, method: str, target: str, *, created: int, nonce: bytes
) -> dict[str, str]:
    """Make the headers of a signed request.

    Args:
        key: The member's key.
        ledger_id: Ledger the request is meant for, 64 hexadecimal digits.
        method: Of the request, such as ``GET``.
        target: Path and query as they will be sent.
        created: Seconds since 1970.
        nonce: Never used before, 16 bytes.

    Returns:
        Three headers.
    """
    said = f'{_COMPONENTS};created={created};nonce="{b64u(nonce)}";keyid="{key.public.key_id.hex()}";alg="ed25519"'
    signature = key.sign(_signed_text(ledger_id, method, target, said))
    return {
        LEDGER_HEADER: ledger_id,
        "Signature-Input": f"lichen={said}",
        "Signature": f"lichen=:{b64(signature)}:",
    }


def _signed_text(ledger_id: str, method: str, target: str, parameters: str) -> bytes:
    path, mark, query = target.partition("?")
    lines = (
        f'"@method": {method}',
        f'"@path": {path}',
        f'"@query": ?{query if mark else ""}',
        f'"lichen-ledger": {ledger_id}',
        f'"@signature-params": {parameters}',
    )
    return "\n".join(lines).encode("utf-8", "surrogateescape")


class NonceMemory:
    """Nonces of requests that were answered, each kept until its request is too old to count anyway.

    Args:
        clock: Seconds since 1970.

    A memory starts empty, so requests made before it did are refused: one of them may have been answered already by the
    process before this one.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._born = clock()
        self._seen: dict[bytes, int] = {}

    def is_timely(self, created: int) -> bool:
        """Say whether a request of that time counts at all."""
        now = self._clock()
        return abs(now - created) <= WINDOW_SECONDS and created >= int(self._born)

    def take(self, request: SignedRequest) -> bool:
        """Note a request that was verified.

        Returns:
            False when it was noted before.

        Raises:
            OverflowError: Too many requests were answered lately to remember one more.
        """
        key = request.key_id + request.nonce
        if key in self._seen:
            return False
        if len(self._seen) >= NONCE_COUNT_MAX:
            self._forget()
        self._seen[key] = request.created + WINDOW_SECONDS
        return True

    def _forget(self) -> None:
        now = self._clock()
        self._seen = {key: until for key, until in self._seen.items() if until >= now}
        if len(self._seen) >= NONCE_COUNT_MAX:
            raise OverflowError
