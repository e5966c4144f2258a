"""Vectors of what is said and signed: Ed25519, canonical JSON, records, envelopes.

Source: RFC 8032 section 7.1 (seeds and messages), RFC 8785, in-toto Statement v1, DSSE v1.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from lichen.crypto.keys import PublicKey, SigningKey
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, VerificationError

__all__ = [
    "AUTHOR",
    "LOG",
    "OTHER",
    "RECORD",
    "WITNESS",
    "Vector",
    "changed",
    "ed25519_vectors",
    "envelope_vectors",
    "flipped",
    "json_vectors",
    "labelled",
    "statement_vectors",
]

LOG, AUTHOR, OTHER, WITNESS = (SigningKey.from_seed(bytes([number]) * 32) for number in (31, 32, 33, 34))
GROUP_ORDER: Final = 2**252 + 27742317777372353535851937790883648493
FIELD_PRIME: Final = 2**255 - 19
SMALL_ORDER_Y: Final = (
    0,
    1,
    FIELD_PRIME - 1,
    0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
    0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
)

Vector = dict[str, Any]


def labelled(name: str, accepted: bool, check: Callable[[], object], **members: Any) -> Vector:
    """Return a vector after checking that Lichen judges it as it is labelled."""
    try:
        check()
    except (EncodingError, VerificationError):
        found = False
    else:
        found = True
    if found != accepted:
        raise SystemExit(f"the vector {name} is {'accepted' if found else 'refused'}")
    return {"accepted": accepted, "name": name, **members}


def flipped(data: bytes, position: int, bit: int = 0) -> bytes:
    """Data with one bit changed."""
    changed = bytearray(data)
    changed[position] ^= 1 << bit
    return bytes(changed)


# ---- Ed25519 ----------------------------------------------------------------------------------------------------

RFC_8032: Final = (  # seed, message; keys and signatures follow from them, and are compared with the RFC's in the tests
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", ""),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "72"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "af82"),
    ("833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42", hashlib.sha512(b"abc").hexdigest()),
)


def ed25519_claim(name: str, accepted: bool, key: bytes, message: bytes, signature: bytes) -> Vector:
    """The signature over the message is this key's."""
    return labelled(
        name,
        accepted,
        lambda: PublicKey(key).verify(message, signature),
        message=message.hex(),
        public_key=key.hex(),
        signature=signature.hex(),
    )


def ed25519_vectors() -> Iterator[Vector]:
    """Signatures that hold, and all that must not."""
    for number, (seed, text) in enumerate(RFC_8032, 1):
        signer, said = SigningKey.from_seed(bytes.fromhex(seed)), bytes.fromhex(text)
        yield ed25519_claim(f"rfc-8032-{number}", True, signer.public.raw, said, signer.sign(said))
    key, message = AUTHOR.public.raw, b"a message"
    signature = AUTHOR.sign(message)
    for position in (0, 1, 15, 31, 32, 33, 47, 62, 63):
        name = f"signature-byte-{position}-flipped"
        yield ed25519_claim(name, False, key, message, flipped(signature, position))
    for position in (0, 7, 16, 30):
        yield ed25519_claim(f"key-byte-{position}-flipped", False, flipped(key, position), message, signature)
    yield ed25519_claim("key-sign-flipped", False, flipped(key, 31, 7), message, signature)
    yield ed25519_claim("message-flipped", False, key, flipped(message, 0), signature)
    yield ed25519_claim("message-longer", False, key, message + b"\0", signature)
    yield ed25519_claim("another-key", False, OTHER.public.raw, message, signature)
    second = int.from_bytes(signature[32:], "little")
    for multiple in (1, 2, 7):
        raised = second + multiple * GROUP_ORDER
        if raised < 2**256:
            name = f"second-half-plus-{multiple}-orders"
            changed = signature[:32] + raised.to_bytes(32, "little")
            yield ed25519_claim(name, False, key, message, changed)
    for name, changed in [
        ("halves-exchanged", signature[32:] + signature[:32]),
        ("second-half-zero", signature[:32] + bytes(32)),
        ("second-half-the-order", signature[:32] + GROUP_ORDER.to_bytes(32, "little")),
        ("all-zero", bytes(64)),
        ("all-ones", b"\xff" * 64),
        ("cut", signature[:63]),
        ("longer", signature + b"\0"),
        ("empty", b""),
        ("first-half-not-canonical", (FIELD_PRIME + 1).to_bytes(32, "little") + signature[32:]),
    ]:
        yield ed25519_claim(f"signature-{name}", False, key, message, changed)
    yield from small_order_vectors(message)


def small_order_vectors(message: bytes) -> Iterator[Vector]:
    """Keys for which a signature of anything can be made without a secret, and keys in a second spelling."""
    base = bytes([0x58]) + bytes([0x66]) * 31
    forged = base + (1).to_bytes(32, "little")
    for number, y in enumerate(SMALL_ORDER_Y):
        for sign in (0, 1):
            raw = (y | sign << 255).to_bytes(32, "little")
            yield ed25519_claim(f"key-of-small-order-{number}-sign-{sign}", False, raw, message, forged)
    for extra in (0, 1, 18):
        raw = (FIELD_PRIME + extra).to_bytes(32, "little")
        yield ed25519_claim(f"key-not-canonical-prime-plus-{extra}", False, raw, message, forged)
    yield ed25519_claim("key-no-point-of-the-curve", False, (2).to_bytes(32, "little"), message, forged)
    yield ed25519_claim("key-cut", False, AUTHOR.public.raw[:31], message, forged)
    yield ed25519_claim("key-longer", False, AUTHOR.public.raw + b"\0", message, forged)


# ---- canonical JSON ---------------------------------------------------------------------------------------------


def json_vectors() -> Iterator[Vector]:
    """Texts of JSON in their one form, and in others."""
    good: dict[str, bytes] = {
        "null": b"null",
        "empty-object": b"{}",
        "empty-array": b"[]",
        "nested": b'{"a":[1,{"b":[]}],"c":null}',
        "integer-limit": b"9007199254740991",
        "integer-limit-negative": b"-9007199254740991",
        "fraction": b"0.1",
        "small": b"1e-7",
        "smallest-plain": b"0.000001",
        "large-with-fraction-digits": b"123456789.5",
        "escapes": b'"\\"\\\\\\b\\f\\n\\r\\t\\u0001"',
        "delete-is-plain": b'"\x7f"',
        "non-ascii": '"\u20ac\U0001f600"'.encode(),
        "order-by-code-units": '{"\U0001f600":1,"\ufb33":2}'.encode(),
        "beyond-what-prints-as-an-integer": b"1e+21",
        "depth-64": b"[" * 64 + b"]" * 64,
    }
    bad: dict[str, bytes] = {
        "space-after-colon": b'{"a": 1}',
        "space-before": b" 1",
        "newline-after": b"1\n",
        "members-out-of-order": b'{"b":1,"a":2}',
        "member-twice": b'{"a":1,"a":1}',
        "order-by-code-points": '{"\ufb33":2,"\U0001f600":1}'.encode(),
        "fraction-of-zero": b"1.0",
        "exponent": b"1e2",
        "exponent-capital": b"1E-7",
        "exponent-padded": b"1e-07",
        "small-in-plain-digits": b"0.0000001",
        "negative-zero": b"-0",
        "negative-zero-fraction": b"-0.0",
        "leading-zero": b"01",
        "plus": b"+1",
        "bare-fraction": b".5",
        "integer-beyond-limit": b"9007199254740992",
        "integer-beyond-limit-negative": b"-9007199254740992",
        "integer-huge": b"1" + b"0" * 40,
        "integer-in-digits-beyond-limit": b"100000000000000000000",
        "exponent-without-its-sign": b"1e21",
        "more-digits-than-needed": b"0.10000000000000001",
        "nan": b"NaN",
        "infinity": b"Infinity",
        "overflow": b"1e999",
        "escaped-slash": b'"\\/"',
        "escaped-letter": b'"\\u0061"',
        "escape-in-capitals": b'"\\u001F"',
        "escaped-non-ascii": b'"\\u20ac"',
        "escape-long-for-newline": b'"\\u000a"',
        "lone-surrogate": b'"\\ud800"',
        "surrogate-in-utf-8": b'"\xed\xa0\x80"',
        "not-utf-8": b'"\xff"',
        "byte-order-mark": b"\xef\xbb\xbf1",
        "utf-16": '"a"'.encode("utf-16-le"),
        "control-character": b'"\x01"',
        "two-values": b"1 2",
        "trailing-comma": b"[1,]",
        "single-quotes": b"'a'",
        "comment": b"1/**/",
        "unfinished": b'{"a":',
        "nothing": b"",
        "true-in-capitals": b"True",
        "name-without-quotes": b"{a:1}",
        "depth-65": b"[" * 65 + b"]" * 65,
        "depth-100000": b"[" * 100_000,
    }
    for accepted, texts in ((True, good), (False, bad)):
        for name, data in texts.items():
            yield labelled(name, accepted, lambda data=data: parse_canonical(data), data=data.hex())  # type: ignore[misc]


# ---- records and envelopes --------------------------------------------------------------------------------------

RECORD: Final = Statement(
    "run",
    (
        Subject("output/0", hashlib.sha256(b"model").digest()),
        Subject("output/1", hashlib.sha256(b"log").digest()),
    ),
    {"member": "ada", "metrics": {"accuracy": 0.951}, "nonce": "AAECAwQFBgcICQoL"},
)


def changed(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """A copy of a JSON value with one member replaced; `...` takes it away."""
    if isinstance(value, list):
        copy: Any = list(value)
    else:
        copy = dict(value)
    if len(path) > 1:
        copy[path[0]] = changed(copy[path[0]], path[1:], new)
    elif new is ...:
        del copy[path[0]]
    else:
        copy[path[0]] = new
    return copy


STATEMENT_CHANGES: Final[Mapping[str, tuple[tuple[Any, ...], Any]]] = {
    "type-of-another-version": (("_type",), "https://in-toto.io/Statement/v0.1"),
    "type-missing": (("_type",), ...),
    "type-a-number": (("_type",), 1),
    "member-unknown": (("note",), "x"),
    "predicate-missing": (("predicate",), ...),
    "predicate-a-list": (("predicate",), []),
    "predicate-null": (("predicate",), None),
    "kind-missing": (("predicateType",), "urn:lichen::v1"),
    "kind-in-capitals": (("predicateType",), "urn:lichen:Run:v1"),
    "kind-begins-with-a-digit": (("predicateType",), "urn:lichen:1run:v1"),
    "kind-of-33-characters": (("predicateType",), "urn:lichen:" + "r" * 33 + ":v1"),
    "version-missing": (("predicateType",), "urn:lichen:run"),
    "version-zero": (("predicateType",), "urn:lichen:run:v0"),
    "version-with-a-leading-zero": (("predicateType",), "urn:lichen:run:v01"),
    "version-of-seven-digits": (("predicateType",), "urn:lichen:run:v1000000"),
    "type-with-a-newline": (("predicateType",), "urn:lichen:run:v1\n"),
    "type-of-another-system": (("predicateType",), "https://slsa.dev/provenance/v1"),
    "type-null": (("predicateType",), None),
    "subject-missing": (("subject",), ...),
    "subject-empty": (("subject",), []),
    "subject-an-object": (("subject",), {}),
    "subject-a-name-only": (("subject", 0), "output/0"),
    "subject-name-empty": (("subject", 0, "name"), ""),
    "subject-name-missing": (("subject", 0, "name"), ...),
    "subject-name-a-number": (("subject", 0, "name"), 7),
    "subject-names-equal": (("subject", 0, "name"), "output/1"),
    "subject-with-a-uri": (("subject", 0, "uri"), "file:x"),
    "digest-missing": (("subject", 0, "digest"), ...),
    "digest-empty": (("subject", 0, "digest"), {}),
    "digest-of-another-algorithm": (("subject", 0, "digest"), {"sha512": "00" * 64}),
    "digest-of-two-algorithms": (("subject", 0, "digest", "md5"), "00" * 16),
    "digest-in-capitals": (("subject", 0, "digest", "sha256"), "AB" * 32),
    "digest-short": (("subject", 0, "digest", "sha256"), "ab" * 31),
    "digest-long": (("subject", 0, "digest", "sha256"), "ab" * 33),
    "digest-with-a-blank": (("subject", 0, "digest", "sha256"), " " + "ab" * 31 + "a"),
    "digest-null": (("subject", 0, "digest", "sha256"), None),
}


def statement_vectors() -> Iterator[Vector]:
    """Payloads that are records, and payloads that are none."""
    payload = RECORD.to_bytes()
    value = json.loads(payload)

    def claim(name: str, accepted: bool, data: bytes) -> Vector:
        return labelled(name, accepted, lambda: Statement.from_bytes(data), payload=data.hex())

    yield claim("record", True, payload)
    for name, (path, new) in STATEMENT_CHANGES.items():
        yield claim(name, False, canonical_json(changed(value, path, new)))
    yield claim("not-canonical", False, json.dumps(value).encode())
    yield claim("a-list", False, b"[]")
    yield claim("cut", False, payload[:-1])


def envelope_vectors() -> Iterator[Vector]:
    """DSSE envelopes that stand for an entry by a key, and ones that do not."""
    entry = Entry.signed(RECORD.to_bytes(), AUTHOR)
    envelope = entry.to_dsse()
    value = json.loads(envelope)
    signature = value["signatures"][0]
    other = Entry.signed(RECORD.to_bytes(), OTHER)

    def claim(name: str, accepted: bool, data: bytes) -> Vector:
        def check() -> None:
            Entry.from_dsse(data).verify(AUTHOR.public)

        return labelled(name, accepted, check, envelope=data.hex(), public_key=AUTHOR.public.raw.hex())

    yield claim("envelope", True, envelope)
    unpadded_signature = signature["sig"].rstrip("=")
    unpadded = value["payload"].rstrip("=") if value["payload"].endswith("=") else value["payload"] + "="
    for name, path, new in [
        ("payload-of-another-entry", ("payload",), base64.b64encode(b"{}").decode()),
        ("payload-empty", ("payload",), ""),
        ("payload-padded-otherwise", ("payload",), unpadded),
        ("payload-with-a-newline", ("payload",), value["payload"] + "\n"),
        ("payload-missing", ("payload",), ...),
        ("payload-type-other", ("payloadType",), "application/json"),
        ("payload-type-missing", ("payloadType",), ...),
        ("member-unknown", ("note",), 1),
        ("signatures-empty", ("signatures",), []),
        ("signatures-two", ("signatures",), [signature, signature]),
        ("signatures-an-object", ("signatures",), signature),
        ("key-id-of-another-key", ("signatures", 0, "keyid"), OTHER.public.key_id.hex()),
        ("key-id-in-capitals", ("signatures", 0, "keyid"), entry.key_id.hex().upper()),
        ("key-id-short", ("signatures", 0, "keyid"), entry.key_id.hex()[:-2]),
        ("key-id-missing", ("signatures", 0, "keyid"), ...),
        ("signature-by-another-key", ("signatures", 0, "sig"), base64.b64encode(other.signature).decode()),
        ("signature-without-padding", ("signatures", 0, "sig"), unpadded_signature),
        ("signature-cut", ("signatures", 0, "sig"), base64.b64encode(entry.signature[:63]).decode()),
        ("signature-missing", ("signatures", 0, "sig"), ...),
        ("signature-with-a-certificate", ("signatures", 0, "cert"), "x"),
    ]:
        yield claim(name, False, canonical_json(changed(value, path, new)))
    yield claim("not-canonical", False, json.dumps(value).encode())
    yield claim("signed-without-pre-authentication", False, unauthenticated(value))


def unauthenticated(value: Any) -> bytes:
    """The envelope with a signature over the payload itself."""
    bare = base64.b64encode(AUTHOR.sign(RECORD.to_bytes())).decode()
    return canonical_json(changed(value, ("signatures", 0, "sig"), bare))
