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
encoder, which is written in C and ten times as fast; :func:`_is_plain` says when that is so.

Source: RFC 8785 (JSON Canonicalization Scheme), RFC 7493 (I-JSON). Differs: integers that a double cannot hold
exactly are refused even when they were given as floating-point numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from lichen.errors import EncodingError

__all__ = ["DEPTH_MAX", "INTEGER_MAX", "canonical_json", "parse_canonical"]

INTEGER_MAX = 2**53 - 1  # (= 9007199254740991) the largest integer every JSON reader keeps exactly
DEPTH_MAX = 64  # arrays and objects inside one another

_INTEGER_REMEDY = "Write integers beyond 2**53 - 1 as decimal strings."

_encode_in_c = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


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
    text = _encode_in_c(value) if _is_plain(value, DEPTH_MAX) else _text_of(value, DEPTH_MAX)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise EncodingError(f"text with a lone surrogate cannot be encoded: {error.reason}") from error


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
        value = json.loads(str(data, "utf-8"))
    except (ValueError, TypeError, RecursionError) as error:
        raise EncodingError(f"not JSON: {str(error)[:200]}") from error
    if canonical_json(value) != data:
        raise EncodingError(
            "JSON, but not in canonical form (member order, white space, duplicate member, or spelling of a number)",
            remedy="Re-create the bytes with canonical_json.",
        )
    return value


def _is_plain(value: object, levels: int) -> bool:
    """Tell whether Python's C encoder gives exactly the canonical text of this value."""
    kind = type(value)
    if kind is str or value is None or kind is bool:
        return True
    if kind is int:
        return -INTEGER_MAX <= value <= INTEGER_MAX  # type: ignore[operator]
    if kind is float:
        # Between these bounds repr() and ECMAScript both print the shortest digits without an exponent.
        return 1e-4 <= abs(value) < 1e16 and not value.is_integer()  # type: ignore[arg-type, attr-defined]
    if levels == 0:
        return False
    if kind is dict:
        for name, item in value.items():  # type: ignore[attr-defined]
            if type(name) is not str or not name.isascii():
                return False  # beyond ASCII, the order of code points is not always that of UTF-16 code units
            if type(item) is not str and not _is_plain(item, levels - 1):
                return False
        return True
    if kind is list or kind is tuple:
        for item in value:  # type: ignore[attr-defined]  # noqa: SIM110 - a generator costs twice the time here
            if type(item) is not str and not _is_plain(item, levels - 1):
                return False
        return True
    return False


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
