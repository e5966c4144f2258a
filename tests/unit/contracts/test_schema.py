"""Forms name the field that is wrong, by its path."""

from __future__ import annotations

import pytest

from lichen.contracts.schema import (
    Schema,
    a_digest,
    a_flag,
    a_list_of,
    a_map_of,
    a_match_of,
    a_member,
    a_nonce,
    a_number,
    a_text,
    an_integer,
    one_of,
)
from lichen.encoding.base import b64u

INNER = Schema(required={"joules": a_number(0)}, optional={"note": a_text(5)})
OUTER = Schema(
    required={"kind": one_of("a", "b")}, optional={"energy": INNER, "tags": a_list_of(a_text(3), count_max=2)}
)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"kind": "a"}, None),
        ({"kind": "a", "energy": {"joules": 1.5, "note": "ok"}, "tags": ["x"]}, None),
        ([], "must be an object"),
        ({}, "lacks the field 'kind'"),
        ({"kind": "c"}, "kind must be one of a, b"),
        ({"kind": "a", "extra": 1}, "has an unknown field 'extra'"),
        ({"kind": "a", "energy": 3}, "energy: must be an object"),
        ({"kind": "a", "energy": {"joules": -1}}, "energy: joules must be at least 0, not -1"),
        (
            {"kind": "a", "energy": {"joules": 1, "note": "too long"}},
            "energy: note must have at most 5 characters, not 8",
        ),
        ({"kind": "a", "tags": ["x", "y", "z"]}, "tags must have 0 to 2 items, not 3"),
        ({"kind": "a", "tags": ["x", 1]}, "tags item 1 must be text"),
    ],
)
def test_a_schema_names_the_field(value, problem):
    assert OUTER.problem(value) == problem


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (a_text(3), ["a", "é\n", "abc"], ["", "abcd", "a\0", "a\x1b", 1, None]),
        (a_text(3, empty=True), [""], [None]),
        (a_match_of("[0-9]+", "digits"), ["123"], ["12a", "", 12, None]),
        (an_integer(0, 5), [0, 5], [-1, 6, True, 1.0, "1", None]),
        (a_number(0, 1), [0, 0.5, 1], [-0.1, 1.1, True, "1", None]),
        (a_flag, [True, False], [0, 1, "true", None]),
        (one_of("a"), ["a"], ["b", 1, None, ["a"]]),
        (
            a_map_of(a_text(2), a_number(), count_max=2),
            [{}, {"a": 1}],
            [[], {"abc": 1}, {"a": "1"}, {"a": 1, "b": 1, "c": 1}],
        ),
        (
            a_digest,
            [b64u(bytes(32)), b64u(b"\xff" * 32)],
            ["", "A" * 42, "A" * 44, "A" * 42 + "B", "+" * 43, 1],
        ),
        (a_nonce, ["A" * 16], ["A" * 15, "A" * 17, "/" * 16, 1]),
        (a_member, ["alice", "a", "alice@hospital-a"], ["", "log", "a b", "a" * 129, 1]),
    ],
)
def test_checks_accept_and_refuse(check, good, bad):
    for value in good:
        assert check(value) is None, value
    for value in bad:
        assert check(value), value


def test_fields_can_be_listed():
    assert OUTER.fields == {"kind": True, "energy": False, "tags": False}
