"""Canonical JSON: the examples of RFC 8785 and every refusal."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lichen.encoding.canonical import (
    DEPTH_MAX,
    INTEGER_MAX,
    _NotPlain,
    _plain,
    canonical_json,
    parse_canonical,
)
from lichen.errors import EncodingError


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_the_example_of_rfc_8785_section_3_2_2() -> None:
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": '€$\u000f\nA\'B"\\\\"/',
        "literals": [None, True, False],
    }
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonical_json(value) == expected.encode()


def test_members_are_sorted_by_utf16_code_units() -> None:
    """The sorting example of RFC 8785, section 3.2.3."""
    value = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\xf6": 7}
    text = canonical_json(value).decode()
    assert list(json.loads(text)) == ["\r", "1", "\x80", "\xf6", "\u20ac", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "0"),
        (5e-324, "5e-324"),
        (-5e-324, "-5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (9007199254740991.0, "9007199254740991"),
        (1e21, "1e+21"),
        (9.999999999999997e22, "9.999999999999997e+22"),
        (1e23, "1e+23"),
        (0.000001, "0.000001"),
        (9.999999999999997e-7, "9.999999999999997e-7"),
        (333333333.33333325, "333333333.33333325"),
        (-0.0000033333333333333333, "-0.0000033333333333333333"),
        (1424953923781206.2, "1424953923781206.2"),
        (1.0, "1"),
        (0.951, "0.951"),
        (1e-4, "0.0001"),
        (1.5e-7, "1.5e-7"),
    ],
)
def test_numbers_print_as_ecmascript_prints_them(number: float, text: str) -> None:
    """Most are rows of RFC 8785, appendix B."""
    assert canonical_json(number) == text.encode()
    assert parse_canonical(text.encode()) == number


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        INTEGER_MAX + 1,
        -INTEGER_MAX - 1,
        9007199254740992.0,
        1e20,
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        {None: 1},
        {"a": {True: 1}},
        b"bytes",
        {1, 2},
        object(),
        nested(DEPTH_MAX + 1),
    ],
    ids=lambda value: type(value).__name__,  # a repr may hold an address, which differs between workers
)
def test_what_json_cannot_say_in_one_way_is_refused(value: object) -> None:
    with pytest.raises(EncodingError):
        canonical_json(value)


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(EncodingError):
        canonical_json(value)


def test_depth_64_is_the_last_that_is_accepted() -> None:
    assert parse_canonical(canonical_json(nested(DEPTH_MAX))) == nested(DEPTH_MAX)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" 1",
        b"1 ",
        b"01",
        b"-0",
        b"1.0",
        b"1e2",
        b"1E400",
        b"NaN",
        b"Infinity",
        b"9007199254740992",
        b"1" * 5000,
        b'{"a":1,"a":2}',
        b'{"a":1,"a":1}',
        b'{"b":1,"a":2}',
        b'{"a": 1}',
        b'"\\u0041"',
        b'"\\/"',
        b'"\\u000A"',
        b'"\\ud800"',
        b'"\xff"',
        b"\xef\xbb\xbf1",
        "1".encode("utf-16"),
        b'"tab\there"',
        b"[" * 65 + b"]" * 65,
        b"[" * 100_000,
        b"[1,]",
        b"'a'",
    ],
)
def test_every_other_spelling_is_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        parse_canonical(data)


def test_the_fast_path_is_taken_for_a_usual_record_and_not_where_it_would_differ() -> None:
    usual = {"a": [1, 2.5, "x", None, True, {"b": ("y", 4.0)}]}
    assert _plain(usual, DEPTH_MAX) == {"a": [1, 2.5, "x", None, True, {"b": ["y", 4]}]}
    assert type(_plain(usual, DEPTH_MAX)["a"][5]["b"][1]) is int
    for value in (1e-5, float("nan"), 1e16, INTEGER_MAX + 1, {"\u20ac": 1}, {1: 1}):
        with pytest.raises(_NotPlain):
            _plain(value, DEPTH_MAX)
