"""Bytes and values, each in exactly one form: base64, canonical JSON, entries, records."""

from __future__ import annotations

import base64
import binascii
import decimal
import hashlib
import json
import json.encoder
import math
import re

from lichen.archive.standalone.faults import Fault

__all__ = [
    "INTEGER_MAX",
    "Record",
    "b64u",
    "canonical",
    "fields_of",
    "integer",
    "parse_canonical",
    "parse_entry",
    "parse_record",
    "signed_bytes",
    "unb64",
    "unb64u",
]

INTEGER_MAX = 2**53 - 1
DEPTH_MAX = 64
PAYLOAD_BYTES_MAX = 48000
PREDICATE_TYPE = re.compile(r"urn:lichen:([a-z][a-z0-9-]{0,31}):v([1-9][0-9]{0,5})")
HEX_32 = re.compile(r"[0-9a-f]{64}")

quoted = json.encoder.encode_basestring  # escapes what JSON demands and nothing more


def b64u(data: bytes) -> str:
    """Write base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def unb64u(text: object, size: int | None = None) -> bytes:
    """Read base64url without padding, in its one form.

    Raises:
        Fault: Anything else, or not ``size`` bytes.
    """
    if isinstance(text, str) and text.isascii():
        try:
            data = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", True)
        except (binascii.Error, ValueError):
            data = b""
        if b64u(data) == text and (size is None or len(data) == size):
            return data
    raise Fault("not base64url of the right size: %.60r" % (text,))


def unb64(text: str, size: int | None = None) -> bytes:
    """Read padded base64, in its one form.

    Raises:
        Fault: Anything else, or not ``size`` bytes.
    """
    if text.isascii():
        try:
            data = base64.b64decode(text.encode("ascii"), None, True)
        except (binascii.Error, ValueError):
            data = b""
        if base64.b64encode(data).decode("ascii") == text and (size is None or len(data) == size):
            return data
    raise Fault("not base64 of the right size: %.60r" % text)


# ---- canonical JSON (RFC 8785) ----


def canonical(value: object, depth: int = DEPTH_MAX) -> str:
    """Write a value as canonical JSON.

    Raises:
        Fault: It has no such form.
    """
    if value is True:
        return "true"
    if value is False:
        return "false"
    if value is None:
        return "null"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise Fault("an integer beyond 2**53 - 1")
        return str(value)
    if isinstance(value, float):
        return number_text(value)
    if depth == 0:
        raise Fault("JSON nested deeper than %d" % DEPTH_MAX)
    if isinstance(value, list):
        return "[" + ",".join([canonical(item, depth - 1) for item in value]) + "]"
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be", "surrogatepass"))
        return (
            "{" + ",".join([quoted(name) + ":" + canonical(value[name], depth - 1) for name in names]) + "}"
        )
    raise Fault("JSON has no form for %s" % type(value).__name__)


def number_text(value: float) -> str:
    """Write a double as ECMAScript's Number::toString does."""
    if not math.isfinite(value):
        raise Fault("a number that is not finite")
    sign = "-" if value < 0 else ""
    _, figures, exponent = decimal.Decimal(repr(abs(value))).as_tuple()
    digits = "".join(map(str, figures)).lstrip("0")
    stripped = digits.rstrip("0")
    point = len(digits) + int(exponent)  # value = 0.digits x 10**point
    if not stripped:
        return "0"
    if len(stripped) <= point <= 21:
        text = stripped + "0" * (point - len(stripped))
        if int(text) > INTEGER_MAX:
            raise Fault("an integer beyond 2**53 - 1")
        return sign + text
    if 0 < point <= 21:
        return sign + stripped[:point] + "." + stripped[point:]
    if -6 < point <= 0:
        return sign + "0." + "0" * -point + stripped
    tail = "." + stripped[1:] if len(stripped) > 1 else ""
    return "%s%s%se%+d" % (sign, stripped[0], tail, point - 1)


def parse_canonical(data: bytes) -> object:
    """Read canonical JSON, and nothing else.

    Raises:
        Fault: Not JSON, or not in its one form.
    """
    try:
        value = json.loads(data.decode("utf-8"))
        text = canonical(value).encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise Fault("not JSON: %.120s" % error) from None
    if text != data:
        raise Fault("JSON, but not in its canonical form")
    return value


# ---- entries and records ----


def parse_entry(data: bytes) -> tuple:
    """Take a compact entry apart: key id, signature, payload.

    Raises:
        Fault: Not an entry of version 1.
    """
    if data[:1] != b"\x01" or not 81 < len(data) <= 81 + PAYLOAD_BYTES_MAX:
        raise Fault("not an entry of version 1")
    return data[1:17], data[17:81], data[81:]


def signed_bytes(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding of a payload, which is what a signature is over."""
    return b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)


class Record:
    """What an entry says.

    Attributes:
        kind: Such as ``run``.
        version: Of the kind.
        subjects: Pairs of name and SHA-256.
        said: The predicate.
        digest: SHA-256 of the payload.
    """

    def __init__(self, kind: str, version: int, subjects: list, said: dict, digest: bytes) -> None:
        self.kind = kind
        self.version = version
        self.subjects = subjects
        self.said = said
        self.digest = digest
        self.index = -1
        self.key_id = b""


def parse_record(payload: bytes) -> Record:
    """Read a payload: an in-toto Statement v1 as ledgers hold it.

    Raises:
        Fault: Anything else.
    """
    value = parse_canonical(payload)
    if not isinstance(value, dict) or set(value) != {"_type", "predicate", "predicateType", "subject"}:
        raise Fault("not a statement")
    named, subjects = value["predicateType"], value["subject"]
    match = PREDICATE_TYPE.fullmatch(named) if isinstance(named, str) else None
    if value["_type"] != "https://in-toto.io/Statement/v1" or match is None:
        raise Fault("not a statement of a known type")
    if not isinstance(value["predicate"], dict) or not isinstance(subjects, list) or not subjects:
        raise Fault("a statement needs a predicate and at least one subject")
    pairs = []
    for subject in subjects:
        if not isinstance(subject, dict) or set(subject) != {"digest", "name"}:
            raise Fault("a subject has exactly a digest and a name")
        digest, name = subject["digest"], subject["name"]
        if not isinstance(digest, dict) or set(digest) != {"sha256"} or not isinstance(name, str) or not name:
            raise Fault("a subject has a name and a SHA-256")
        if not isinstance(digest["sha256"], str) or not HEX_32.fullmatch(digest["sha256"]):
            raise Fault("the SHA-256 of a subject is 64 hexadecimal digits")
        pairs.append((name, bytes.fromhex(digest["sha256"])))
    if len({name for name, _ in pairs}) != len(pairs):
        raise Fault("two subjects share a name")
    return Record(match[1], int(match[2]), pairs, value["predicate"], hashlib.sha256(payload).digest())


def fields_of(value: object, what: str, required: set, optional: frozenset = frozenset()) -> dict:
    """Check that an object has exactly the members it must and may have.

    Raises:
        Fault: It has not.
    """
    if not isinstance(value, dict) or not required <= set(value) <= required | optional:
        raise Fault("%s has missing or unknown members" % what)
    return value


def integer(value: object, what: str, least: int = 0, most: int = INTEGER_MAX) -> int:
    """Check a whole number between two bounds, both included.

    Raises:
        Fault: It is none.
    """
    if type(value) is not int or not least <= value <= most:
        raise Fault("%s must be a whole number from %d to %d" % (what, least, most))
    return value
