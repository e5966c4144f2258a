"""Records: one encoding, exactly the members that are known."""

from __future__ import annotations

from typing import Any

import pytest

from lichen.encoding.canonical import canonical_json
from lichen.encoding.statement import STATEMENT_TYPE, Statement, Subject
from lichen.errors import EncodingError

GOOD: dict[str, Any] = {
    "_type": STATEMENT_TYPE,
    "predicate": {"accuracy": 0.951},
    "predicateType": "urn:lichen:run:v1",
    "subject": [{"digest": {"sha256": "00" * 32}, "name": "output/0"}],
}


def test_a_statement_reads_back() -> None:
    statement = Statement(
        "run", (Subject("output/0", bytes(32)), Subject("output/1", bytes(32))), {"a": [1]}, 2
    )
    assert Statement.from_bytes(statement.to_bytes()) == statement
    assert statement.predicate_type == "urn:lichen:run:v2"


def test_the_bytes_are_those_of_in_toto() -> None:
    assert Statement(
        "run", (Subject("output/0", bytes(32)),), {"accuracy": 0.951}
    ).to_bytes() == canonical_json(GOOD)


def changed(**members: Any) -> bytes:
    return canonical_json({**GOOD, **members})


@pytest.mark.parametrize(
    "data",
    [
        canonical_json([]),
        canonical_json({name: GOOD[name] for name in GOOD if name != "predicate"}),
        changed(more=1),
        changed(_type="https://in-toto.io/Statement/v0.1"),
        changed(predicateType="urn:lichen:run"),
        changed(predicateType="urn:lichen:run:v0"),
        changed(predicateType="urn:lichen:run:v01"),
        changed(predicateType="urn:lichen:Run:v1"),
        changed(predicateType="urn:lichen:run:v1\n"),
        changed(predicateType=1),
        changed(predicate=[]),
        changed(subject=[]),
        changed(subject={}),
        changed(subject=[{"digest": {"sha256": "00" * 31}, "name": "a"}]),
        changed(subject=[{"digest": {"sha256": "AA" * 32}, "name": "a"}]),
        changed(subject=[{"digest": {"sha256": "00" * 32}, "name": ""}]),
        changed(subject=[{"digest": {"sha256": "00" * 32}, "name": 1}]),
        changed(subject=[{"digest": {"sha256": "00" * 32}}]),
        changed(subject=[{"digest": {"sha256": "00" * 32, "md5": ""}, "name": "a"}]),
        changed(subject=[{"digest": "00" * 32, "name": "a"}]),
        changed(subject=[GOOD["subject"][0], GOOD["subject"][0]]),
        canonical_json(GOOD) + b" ",
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(EncodingError):
        Statement.from_bytes(data)


@pytest.mark.parametrize("kind", ["", "Run", "run_x", "1run", "r" * 33, "run\n"])
def test_a_kind_has_a_plain_name(kind: str) -> None:
    with pytest.raises(EncodingError):
        Statement(kind, (Subject("a", bytes(32)),), {})


@pytest.mark.parametrize("version", [0, -1, True, 1_000_000, 1.0])
def test_a_version_counts_from_1(version: Any) -> None:
    with pytest.raises(EncodingError):
        Statement("run", (Subject("a", bytes(32)),), {}, version)


def test_what_is_signed_does_not_follow_later_changes_of_what_was_said() -> None:
    said: dict[str, Any] = {"metrics": {"accuracy": 1.0}, "data": ("a",)}
    read = Statement("run", (Subject("output/0", bytes(32)),), said).as_read()
    said["metrics"]["accuracy"] = 0.5
    assert read.predicate == {"metrics": {"accuracy": 1}, "data": ["a"]}
    assert Statement.from_bytes(read.to_bytes()) == read
    assert read.as_read() is read
