"""Strict forms for predicates: which fields there are, and what each may hold.

A `Schema` is a table of field names and `Check` functions. It refuses what is missing, what is unknown and what has the
wrong shape, and names the field by its path (``energy.joules``), so that whoever built the record can mend it. Values
come from canonical JSON, so they are None, bool, int, float, str, list or dict, and never NaN.

A check returns what is wrong, or None: refusing is the contract's business, because the rule's name is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from lichen.errors import EncodingError
from lichen.ledger.genesis import check_member_id

__all__ = [
    "COMMON_FIELDS",
    "Check",
    "Schema",
    "a_digest",
    "a_flag",
    "a_list_of",
    "a_map_of",
    "a_match_of",
    "a_member",
    "a_nonce",
    "a_number",
    "a_short_digest",
    "a_text",
    "an_integer",
    "one_of",
]

Check = Callable[[Any], str | None]
"""Says what is wrong with a value, or None when nothing is."""

INTEGER_MAX: Final = 2**53 - 1
SHAPE_COUNT_MAX: Final = 64  # sets of fields that a schema remembers to be its own
_is_digest_32: Final = re.compile(r"[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]").fullmatch
_DIGEST_16: Final = re.compile(r"[A-Za-z0-9_-]{21}[AQgw]")
_NONCE_12: Final = re.compile(r"[A-Za-z0-9_-]{16}")


def a_text(length_max: int, *, empty: bool = False) -> Check:
    """Text of at most ``length_max`` characters, without control characters other than newline and tab."""

    def check(value: Any) -> str | None:
        if type(value) is not str:
            return "must be text"
        if len(value) > length_max:
            return f"must have at most {length_max} characters, not {len(value)}"
        if not value and not empty:
            return "must not be empty"
        if not value.isprintable() and any(ord(c) < 32 and c not in "\n\t" for c in value):
            return "must not contain control characters"
        return None

    return check


def a_match_of(pattern: str, meaning: str) -> Check:
    """Text that matches a pattern as a whole; ``meaning`` says what that is."""
    match = re.compile(pattern).fullmatch

    def check(value: Any) -> str | None:
        return None if type(value) is str and match(value) else f"must be {meaning}"

    return check


def an_integer(minimum: int = 0, maximum: int = INTEGER_MAX) -> Check:
    """A whole number between two bounds, both included."""

    def check(value: Any) -> str | None:
        if type(value) is not int:
            return "must be a whole number"
        return None if minimum <= value <= maximum else f"must be {minimum} to {maximum}, not {value}"

    return check


def a_number(minimum: float | None = None, maximum: float | None = None) -> Check:
    """A number, whole or not, between bounds that are included."""

    def check(value: Any) -> str | None:
        if type(value) is not int and type(value) is not float:
            return "must be a number"
        if minimum is not None and value < minimum:
            return f"must be at least {minimum:g}, not {value:g}"
        if maximum is not None and value > maximum:
            return f"must be at most {maximum:g}, not {value:g}"
        return None

    return check


def a_flag(value: Any) -> str | None:
    """True or false."""
    return None if type(value) is bool else "must be true or false"


def one_of(*choices: str) -> Check:
    """One of a few words."""
    allowed = frozenset(choices)
    message = f"must be one of {', '.join(choices)}"

    def check(value: Any) -> str | None:
        return None if type(value) is str and value in allowed else message

    return check


def a_list_of(item: Check, *, count_max: int, count_min: int = 0) -> Check:
    """A list with a bounded count of items, each of one form."""

    def check(value: Any) -> str | None:
        if type(value) is not list:
            return "must be a list"
        if not count_min <= len(value) <= count_max:
            return f"must have {count_min} to {count_max} items, not {len(value)}"
        for place, each in enumerate(value):
            if wrong := item(each):
                return f"item {place} {wrong}"
        return None

    return check


def a_map_of(name: Check, item: Check, *, count_max: int) -> Check:
    """An object whose names and values each have one form."""

    def check(value: Any) -> str | None:
        if type(value) is not dict:
            return "must be an object"
        if len(value) > count_max:
            return f"must have at most {count_max} fields, not {len(value)}"
        for key, each in value.items():
            if wrong := name(key):
                return f"name {key!r:.80} {wrong}"
            if wrong := item(each):
                return f"field {key!r:.80} {wrong}"
        return None

    return check


class Schema:
    """A closed table of fields.

    Args:
        required: Fields that must be there.
        optional: Fields that may be.
    """

    def __init__(
        self, required: Mapping[str, Check | Schema], optional: Mapping[str, Check | Schema]
    ) -> None:
        forms = {**required, **optional}
        self._checks = {name: _check_of(form) for name, form in forms.items()}
        self._joints = {name: ": " if isinstance(form, Schema) else " " for name, form in forms.items()}
        self._required = frozenset(required)
        self._shapes: dict[tuple[str, ...], tuple[Check, ...]] = {}

    @property
    def fields(self) -> Mapping[str, bool]:
        """Names of all fields, and whether each must be there."""
        return {name: name in self._required for name in self._checks}

    def problem(self, value: Any) -> str | None:
        """Say what is wrong with an object, starting with the path of the field, or None.

        Args:
            value: Any JSON value.
        """
        if type(value) is not dict and not isinstance(value, Mapping):
            return "must be an object"
        shape = tuple(value)
        checks = self._shapes.get(shape)
        if checks is None:
            if wrong := self._shape_problem(value):
                return wrong
            checks = tuple([self._checks[name] for name in shape])
            if len(self._shapes) >= SHAPE_COUNT_MAX:
                self._shapes.clear()
            self._shapes[shape] = checks
        for check, each in zip(checks, value.values(), strict=True):
            if check(each):
                return self._field_problem(value)
        return None

    def _shape_problem(self, value: Mapping[str, Any]) -> str | None:
        """Say which field is missing or unknown; a wrong one before the unknown one comes first."""
        if not self._required <= value.keys():
            return f"lacks the field {min(self._required - value.keys())!r}"
        return None if value.keys() <= self._checks.keys() else self._field_problem(value)

    def _field_problem(self, value: Mapping[str, Any]) -> str | None:
        """Say which field is the first that is wrong or unknown."""
        for name, each in value.items():
            check = self._checks.get(name)
            if check is None:
                return f"has an unknown field {name!r:.80}"
            if wrong := check(each):
                return f"{name}{self._joints[name]}{wrong}"
        return None


def _check_of(form: Check | Schema) -> Check:
    return form.problem if isinstance(form, Schema) else form


def a_digest(value: Any) -> str | None:
    """A 32-byte digest as 43 characters of base64url, in its one form."""
    if type(value) is str and _is_digest_32(value):
        return None
    return "must be 43 characters of base64url, for 32 bytes"


def a_short_digest(value: Any) -> str | None:
    """A digest cut to 16 bytes, as 22 characters of base64url in their one form: for grouping, never for identity."""
    if type(value) is str and _DIGEST_16.fullmatch(value):
        return None
    return "must be 22 characters of base64url, for 16 bytes"


def a_member(value: Any) -> str | None:
    """A member id, as `lichen.ledger.genesis.check_member_id` wants it."""
    try:
        check_member_id(value)
    except EncodingError as error:
        return f"must be a member id: {error.remedy}"
    return None


def a_nonce(value: Any) -> str | None:
    """12 bytes as 16 characters of base64url."""
    return None if type(value) is str and _NONCE_12.fullmatch(value) else "must be 16 characters of base64url"


COMMON_FIELDS: Final[Mapping[str, Check]] = {
    "ledger": a_digest,
    "member": a_member,
    "nonce": a_nonce,
    "time_unix_ms": an_integer(),
}
"""What every record after the genesis says, seals excepted."""
