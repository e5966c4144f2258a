"""Strict reading of objects: every refusal names the member and the object."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lichen.encoding.fields import Fields
from lichen.errors import EncodingError

VALUE: dict[str, Any] = {
    "integer": 3,
    "text": "abc",
    "octets": "AAAA",
    "array": [1, 2],
    "object": {"a": 1},
}


def test_members_are_read_by_their_type() -> None:
    fields = Fields(VALUE, "the thing", tuple(VALUE), ("more",))
    assert fields.integer("integer") == 3
    assert fields.text("text", 3) == "abc"
    assert fields.choice("text", ("abc", "def")) == "abc"
    assert fields.octets("octets", 3) == fields.octets("octets") == bytes(3)
    assert fields.array("array", 2) == [1, 2]
    assert fields.object("object") == {"a": 1}
    assert "integer" in fields
    assert "more" not in fields


@pytest.mark.parametrize("value", [None, [], "text", 1])
def test_only_an_object_has_members(value: object) -> None:
    with pytest.raises(EncodingError, match="the thing must be an object"):
        Fields(value, "the thing", ())


def test_missing_and_unknown_members_are_named() -> None:
    with pytest.raises(EncodingError, match="the thing lacks integer, text"):
        Fields({}, "the thing", ("text", "integer"))
    with pytest.raises(EncodingError, match="the thing has unknown members: array, object"):
        Fields(VALUE, "the thing", ("text", "integer"), ("octets",))


@pytest.mark.parametrize(
    "read",
    [
        lambda fields: fields.integer("text"),
        lambda fields: fields.integer("integer", 4),
        lambda fields: fields.integer("integer", 0, 2),
        lambda fields: fields.text("integer", 10),
        lambda fields: fields.text("text", 2),
        lambda fields: fields.choice("text", ("x",)),
        lambda fields: fields.choice("object", ("x",)),
        lambda fields: fields.octets("octets", 4),
        lambda fields: fields.octets("integer"),
        lambda fields: fields.array("array", 1),
        lambda fields: fields.array("object", 9),
        lambda fields: fields.object("array"),
    ],
)
def test_what_is_of_another_type_or_out_of_bounds_is_named(read: Callable[[Fields], Any]) -> None:
    fields = Fields(VALUE, "the thing", tuple(VALUE))
    with pytest.raises(EncodingError, match="of the thing"):
        read(fields)


@pytest.mark.parametrize("value", [True, 1.0, "", None])
def test_true_is_no_integer_and_empty_is_no_text(value: object) -> None:
    fields = Fields({"a": value}, "the thing", ("a",))
    with pytest.raises(EncodingError):
        fields.integer("a")
    with pytest.raises(EncodingError):
        fields.text("a", 10)
