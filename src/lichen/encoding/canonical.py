"""Canonical JSON: one value, one sequence of bytes.

Rules upheld:

* The text is what RFC 8785 prescribes: no white space, members sorted by UTF-16 code units, numbers as ECMAScript
  prints them, only the escapes that JSON demands, UTF-8.
* A number that would print as an integer lies within plus or minus 2**53 - 1. Larger integers are written as decimal
  strings by whoever builds the value, because JSON readers silently round them.
* Not-a-number, infinities, lone surrogates, member names that are not text, and nesting deeper than 64 are refused.
* The reader accepts only what the writer writes, so duplicate members, other orders and other spellings of a number
  are refused without a rule for each.

Two writers live here. :func:`_text_of` is the definition. Most values give the same text through Python's own JSON
encoder, which is written in C and ten times as fast; :func:`_plain` makes a copy for which that is so, or says that there is
none. The reader goes the same two ways.

Source: RFC 8785 (JSON Canonicalization Scheme), RFC 7493 (I-JSON). Differs: integers that a double cannot hold
exactly are refused even when they were given as floating-point numbers.
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping
from typing import Any

from lichen.errors import EncodingError

__all__ = ["DEPTH_MAX", "INTEGER_MAX", "canonical_form", "canonical_json", "parse_canonical"]

INTEGER_MAX = 2**53 - 1  # (= 9007199254740991) the largest integer every JSON reader keeps exactly
DEPTH_MAX = 64  # arrays and objects inside one another

_INTEGER_REMEDY = "Write integers beyond 2**53 - 1 as decimal strings."
_PLAIN_MIN, _PLAIN_MAX = (
    1e-4,
    1e16,
)  # between them repr() and ECMAScript print the shortest digits without an exponent

_encode_in_c = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


class _NotPlain(Exception):  # noqa: N818 - says which way to go, and never leaves this file
    """The C encoder would write this value otherwise than canonically."""


def canonical_json(value: object) -> bytes:
    """Write a value as canonical JSON.

    Args:
        value: None, booleans, integers, floats, text, and lists, tuples and mappings with text keys of these.

    Returns:
        UTF-8 bytes.

    Raises:
        EncodingError: The value holds something JSON cannot say, or cannot say in one way only.

    Source:
        RFC 8785, section 3.2.
    """
    return canonical_form(value)[0]


def canonical_form(value: object) -> tuple[bytes, Any]:
    """Write a value as canonical JSON, and say what a reader will make of it.

    Args:
        value: As for :func:`canonical_json`.

    Returns:
        UTF-8 bytes, and the value that :func:`parse_canonical` gives for them: a copy, with lists for tuples and whole
        numbers for floats that print as such.

    Raises:
        EncodingError: The value holds something JSON cannot say, or cannot say in one way only.
    """
    try:
        plain = _plain(value, DEPTH_MAX)
    except _NotPlain:
        data = _utf8(_text_of(value, DEPTH_MAX))
        return data, json.loads(data)
    return _utf8(_encode_in_c(plain)), plain


def parse_canonical(data: bytes) -> Any:
    """Read canonical JSON, and nothing else.

    Args:
        data: Bytes as :func:`canonical_json` writes them.

    Returns:
        The value: None, bool, int, float, str, list or dict.

    Raises:
        EncodingError: Not JSON, or JSON in any other form than the canonical one.
    """
    try:
        text = str(data, "utf-8")
        if text.isascii() and text.count("{") + text.count("[") <= DEPTH_MAX:
            with contextlib.suppress(_NotPlain):  # then the long way decides
                value = _decode_plain(text)
                if _encode_in_c(value) == text:
                    return value
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise EncodingError(f"not JSON: {str(error)[:200]}") from error
    if canonical_json(value) != data:
        raise EncodingError(
            "JSON, but not in canonical form (member order, white space, duplicate member, or spelling of a number)",
            remedy="Re-create the bytes with canonical_json.",
        )
    return value


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EncodingError(f"text with a lone surrogate cannot be encoded: {error.reason}") from error


def _plain(value: Any, levels: int) -> Any:
    """Copy a value into one of which Python's C encoder gives exactly the canonical text.

    Raises:
        _NotPlain: There is none, or the value has no canonical text at all.
    """
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return value
    if kind is int:
        if -INTEGER_MAX <= value <= INTEGER_MAX:
            return value
    elif kind is float:
        if value.is_integer():
            if -INTEGER_MAX <= value <= INTEGER_MAX:
                return int(value)
        elif _PLAIN_MIN <= value < _PLAIN_MAX or -_PLAIN_MAX < value <= -_PLAIN_MIN:
            return value
    elif levels and kind is dict:
        copy = {}
        for name, item in value.items():
            if type(name) is not str or not name.isascii():
                raise _NotPlain  # beyond ASCII, the order of code points is not always that of UTF-16 code units
            copy[name] = item if type(item) is str else _plain(item, levels - 1)
        return copy
    elif levels and (kind is list or kind is tuple):
        return [item if type(item) is str else _plain(item, levels - 1) for item in value]
    raise _NotPlain


def _plain_integer(text: str) -> int:
    if len(text) > len("-9007199254740991"):
        raise _NotPlain
    value = int(text)
    if not -INTEGER_MAX <= value <= INTEGER_MAX:
        raise _NotPlain
    return value


def _plain_number(text: str) -> float:
    value = float(text)
    if not _PLAIN_MIN <= abs(value) < _PLAIN_MAX or value.is_integer():
        raise _NotPlain
    return value


_decode_plain = json.JSONDecoder(parse_int=_plain_integer, parse_float=_plain_number).decode
"""Reads JSON whose numbers the C encoder writes canonically; a constant such as NaN does not survive the comparison."""


def _text_of(value: object, levels: int) -> str:
    """Write any value canonically: the definition that the fast path must agree with."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _encode_in_c(str(value))
    if isinstance(value, int):
        if not -INTEGER_MAX <= value <= INTEGER_MAX:
            raise EncodingError("integer beyond 2**53 - 1 in JSON", remedy=_INTEGER_REMEDY)
        return int.__repr__(value)
    if isinstance(value, float):
        return _number_text(float(value))
    if not isinstance(value, (Mapping, list, tuple)):
        raise EncodingError(f"JSON has no form for a value of type {type(value).__name__}")
    if levels == 0:
        raise EncodingError(f"JSON nested deeper than {DEPTH_MAX} levels")
    if isinstance(value, Mapping):
        members = [
            f"{_encode_in_c(str(name))}:{_text_of(value[name], levels - 1)}"
            for name in sorted(value, key=_utf16_order)
        ]
        return "{" + ",".join(members) + "}"
    return "[" + ",".join([_text_of(item, levels - 1) for item in value]) + "]"


def _utf16_order(name: object) -> bytes:
    """Sort key of a member name: its UTF-16 code units.

    Source:
        RFC 8785, section 3.2.3.
    """
    if not isinstance(name, str):
        raise EncodingError(f"JSON member names are text, got {type(name).__name__}")
    return name.encode("utf-16-be", "surrogatepass")


def _number_text(value: float) -> str:
    """Print a double as ECMAScript does: the shortest digits that read back as the same double.

    Source:
        RFC 8785, section 3.2.2.3; ECMA-262, Number::toString. Python's repr() finds the same digits and differs
        only in where it puts the point and the exponent.
    """
    if not math.isfinite(value):
        raise EncodingError(f"JSON has no form for the number {value!r}")
    if value.is_integer() and abs(value) < 1e21:
        if abs(value) > INTEGER_MAX:
            raise EncodingError(
                f"the number {value!r} would print as an integer beyond 2**53 - 1", remedy=_INTEGER_REMEDY
            )
        return str(int(value))
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = (
        len(whole) + int(exponent or 0) - (len(whole + fraction) - len(digits))
    )  # value = 0.digits x 10**point
    digits = digits.rstrip("0")
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    tail = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{tail}e{point - 1:+d}"
