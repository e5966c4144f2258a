"""Ed25519 keys: published vectors, the names of keys, and keys that must not be accepted."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from lichen.crypto.hashes import keyed_digest, sha256
from lichen.crypto.keys import _SMALL_ORDER_Y, PublicKey, SigningKey
from lichen.errors import EncodingError, VerificationError

# RFC 8032, section 7.1: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
PRIME = 2**255 - 19
KEY = SigningKey.from_seed(bytes(range(32)))


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_the_vectors_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey.from_seed(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    PublicKey(bytes.fromhex(public)).verify(bytes.fromhex(message), bytes.fromhex(signature))
    assert key.seed.hex() == seed


def test_a_key_id_is_half_a_labelled_hash() -> None:
    assert KEY.public.key_id == sha256(b"lichen key v1\n" + KEY.public.raw)[:16]


def test_the_did_key_of_a_published_example() -> None:
    """The Ed25519 example of the did:key method, given there in base58 and as an identifier."""
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number = 0
    for digit in "B12NYF8RrR3h41TDCTJojY59usg3mbtbjnFs7Eud1Y6u":
        number = number * 58 + alphabet.index(digit)
    key = PublicKey(number.to_bytes(32, "big"))
    assert key.did_key == "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH"
    assert PublicKey.from_did_key(key.did_key) == key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH",
        "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvkt",
        "did:key:z6MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvkt0",
        "did:key:z16MkpTHR8VNsBxYAAWHut2Geadd9jSwuBV8xRoAnwWsdvktH",
        "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",  # secp256k1
        "did:web:example.com",
        "did:key:z" + "z" * 1000,
    ],
)
def test_other_identifiers_are_refused(text: str) -> None:
    with pytest.raises(EncodingError):
        PublicKey.from_did_key(text)


@pytest.mark.parametrize("raw", [b"", bytes(31), bytes(33), "k" * 32, None])
def test_keys_have_32_bytes(raw: bytes) -> None:
    with pytest.raises(EncodingError):
        PublicKey(raw)
    with pytest.raises(EncodingError):
        SigningKey.from_seed(raw)


@pytest.mark.parametrize("message", [b"", b"message", bytes(10_000)])
def test_a_signature_holds_for_its_message_and_key_only(message: bytes) -> None:
    signature = KEY.sign(message)
    KEY.public.verify(message, signature)
    other = SigningKey.from_seed(bytes(32)).public
    for key, signed, given in [
        (KEY.public, message + b"x", signature),
        (other, message, signature),
        (KEY.public, message, signature[:-1]),
        (KEY.public, message, b""),
        (KEY.public, message, bytes(64)),
    ]:
        with pytest.raises(VerificationError):
            key.verify(signed, given)


def test_a_signature_has_one_form() -> None:
    """The group order added to the second half passes the equation and must still be refused (RFC 8032, 5.1.7)."""
    order = 2**252 + 27742317777372353535851937790883648493
    signature = KEY.sign(b"m")
    shifted = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(VerificationError):
        KEY.public.verify(b"m", signature[:32] + shifted.to_bytes(32, "little"))


def test_bytes_that_are_no_point_do_not_verify() -> None:
    with pytest.raises(VerificationError):
        PublicKey((2).to_bytes(32, "little")).verify(b"m", bytes(64))


def add(one: tuple[int, int], other: tuple[int, int]) -> tuple[int, int]:
    """Add points of edwards25519 (RFC 8032, section 5.1.4, affine)."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    (x1, y1), (x2, y2) = one, other
    product = d * x1 * x2 * y1 * y2 % PRIME
    x = (x1 * y2 + x2 * y1) * pow(1 + product, -1, PRIME) % PRIME
    y = (y1 * y2 + x1 * x2) * pow(1 - product, -1, PRIME) % PRIME
    return x, y


def test_the_list_of_small_orders_is_whole() -> None:
    """The eight points whose order divides 8 have these y coordinates and no other."""
    d = -121665 * pow(121666, -1, PRIME) % PRIME
    points: set[tuple[int, int]] = set()
    for y in _SMALL_ORDER_Y:
        square = (y * y - 1) * pow(d * y * y + 1, -1, PRIME) % PRIME
        x = pow(square, (PRIME + 3) // 8, PRIME)
        if x * x % PRIME != square:
            x = x * pow(2, (PRIME - 1) // 4, PRIME) % PRIME
        assert x * x % PRIME == square, "not on the curve"
        for root in {x, -x % PRIME}:
            double = add((root, y), (root, y))
            quadruple = add(double, double)
            assert add(quadruple, quadruple) == (0, 1)
            points.add((root, y))
    assert len(points) == 8


@pytest.mark.parametrize("sign", [0, 1])
def test_points_of_small_order_and_second_encodings_are_refused(sign: int) -> None:
    for y in [*_SMALL_ORDER_Y, *range(PRIME, 2**255)]:
        with pytest.raises(EncodingError):
            PublicKey((y | sign << 255).to_bytes(32, "little"))


def test_a_secret_does_not_leak_by_accident() -> None:
    assert KEY.seed.hex() not in repr(KEY)
    with pytest.raises(TypeError):
        pickle.dumps(KEY)


def test_generated_keys_differ() -> None:
    assert SigningKey.generate().public != SigningKey.generate().public


def test_keys_are_equal_when_their_bytes_are() -> None:
    assert PublicKey(KEY.public.raw) == KEY.public
    assert len({PublicKey(KEY.public.raw), KEY.public}) == 1
    assert KEY.public != KEY.public.raw


def test_keyed_digests_keep_key_and_domain_apart() -> None:
    """RFC 4231 has no zero byte in its messages, so the plain form is checked against its definition."""
    assert keyed_digest(None, "d", b"x") == sha256(b"d\0x")
    digests = {
        keyed_digest(key, domain, data)
        for key in (None, bytes(32), bytes(31) + b"\1")
        for domain in ("a", "ab")
        for data in (b"b", b"")
    }
    assert len(digests) == 12
    for key, domain in [(b"short", "d"), (None, ""), (None, "a\0b")]:
        with pytest.raises(ValueError, match=r"digest"):
            keyed_digest(key, domain, b"")


MODULES = [
    "lichen.crypto.keys",
    "lichen.crypto.hashes",
    "lichen.crypto.key_file",
    "lichen.crypto.note",
    "lichen.crypto.sealed",
    "lichen.encoding.entry",
    "lichen.ledger.genesis",
    "lichen.ledger.receipt",
    "lichen.ledger.state_store",
]


def test_importing_these_rooms_does_not_import_cryptography() -> None:
    program = f"import sys, {', '.join(MODULES)}; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
