"""Strict reading of the objects inside a predicate.

A reader names every member it knows; one that is missing, unknown, of another type or out of bounds is an
:class:`lichen.errors.EncodingError` that names the member. So two readers of the same bytes cannot see two things, and
a record cannot carry members that nobody checked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from lichen.encoding.base import b64u_decode
from lichen.encoding.canonical import INTEGER_MAX
from lichen.errors import EncodingError

__all__ = ["Fields"]


class Fields:
    """The members of one object.

    Args:
        value: The object.
        where: What it is, for messages: ``"the genesis"``.
        required: Members it must have.
        optional: Members it may have.

    Raises:
        EncodingError: Not an object, a required member is missing, or there is a member that is neither.
    """

    __slots__ = ("_value", "where")

    def __init__(
        self, value: object, where: str, required: Collection[str], optional: Collection[str] = ()
    ) -> None:
        self.where = where
        if not isinstance(value, Mapping):
            raise EncodingError(f"{where} must be an object")
        missing = sorted(set(required) - value.keys())
        if missing:
            raise EncodingError(f"{where} lacks {', '.join(missing)}")
        unknown = sorted(str(name) for name in value.keys() - set(required) - set(optional))
        if unknown:
            raise EncodingError(f"{where} has unknown members: {', '.join(unknown)[:200]}")
        self._value: Mapping[str, Any] = value

    def __contains__(self, name: str) -> bool:
        return name in self._value

    def integer(self, name: str, least: int = 0, most: int = INTEGER_MAX) -> int:
        """Return an integer within bounds, both included."""
        value = self._value[name]
        if type(value) is not int or not least <= value <= most:
            raise EncodingError(f"{name} of {self.where} must be an integer from {least} to {most}")
        return value

    def text(self, name: str, length_max: int) -> str:
        """Return text of 1 to ``length_max`` characters."""
        value = self._value[name]
        if not isinstance(value, str) or not 1 <= len(value) <= length_max:
            raise EncodingError(f"{name} of {self.where} must be text of 1 to {length_max} characters")
        return value

    def choice(self, name: str, choices: Collection[str]) -> str:
        """Return text that is one of some choices."""
        value = self._value[name]
        if not isinstance(value, str) or value not in choices:
            raise EncodingError(f"{name} of {self.where} must be one of {', '.join(choices)}")
        return value

    def octets(self, name: str, size_bytes: int | None = None) -> bytes:
        """Return bytes that stand there as unpadded base64url."""
        try:
            return b64u_decode(self._value[name], size_bytes)
        except EncodingError as error:
            raise EncodingError(f"{name} of {self.where}: {error.message}") from error

    def array(self, name: str, count_max: int) -> list[Any]:
        """Return an array of at most ``count_max`` values."""
        value = self._value[name]
        if not isinstance(value, list) or len(value) > count_max:
            raise EncodingError(f"{name} of {self.where} must be an array of at most {count_max} values")
        return value

    def object(self, name: str) -> Mapping[str, Any]:
        """Return an object."""
        value = self._value[name]
        if not isinstance(value, Mapping):
            raise EncodingError(f"{name} of {self.where} must be an object")
        return value
