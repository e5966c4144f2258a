"""Laws of the encodings: one text for one value, and decoders that accept or refuse and do nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import assume, example, given
from hypothesis import strategies as st

from lichen.encoding.base import b64, b64_decode, b64u, b64u_decode, hex_decode
from lichen.encoding.canonical import (
    DEPTH_MAX,
    INTEGER_MAX,
    _NotPlain,
    _plain,
    _text_of,
    canonical_form,
    canonical_json,
    parse_canonical,
)
from lichen.encoding.entry import PAYLOAD_BYTES_MAX, Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError

integers = st.integers(-INTEGER_MAX, INTEGER_MAX)
floats = st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda number: not (number.is_integer() and INTEGER_MAX < abs(number) < 1e21)
)
scalars = st.none() | st.booleans() | integers | floats | st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), inner, max_size=5)
    ),
    max_leaves=30,
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=4) | st.integers() | st.none(), inner, max_size=4)
    ),
    max_leaves=12,
)
statements = st.builds(
    Statement,
    st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True),
    st.dictionaries(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=8),
        st.binary(min_size=32, max_size=32),
        min_size=1,
        max_size=4,
    ).map(lambda found: tuple(Subject(name, digest) for name, digest in found.items())),
    st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=8), values, max_size=4),
    st.integers(1, 999_999),
)
entries = st.builds(
    Entry,
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=64, max_size=64),
    st.binary(min_size=1, max_size=300),
)


class TestCanonicalJson:
    """Equal values have equal bytes, whoever writes them, and only those bytes are read back."""

    @given(values)
    @example({"\U0001f600": 1, "\ufb33": 2, "a": [1e-7, 1e21, 5e-324, -0.0, 123456789012345.6]})
    def test_the_bytes_are_those_of_another_implementation(self, value: Any) -> None:
        assert canonical_json(value) == rfc8785.dumps(value)

    @given(floats)
    def test_numbers_are_those_of_another_implementation(self, number: float) -> None:
        assert canonical_json(number) == rfc8785.dumps(number)

    @given(values)
    def test_what_is_written_reads_back(self, value: Any) -> None:
        data = canonical_json(value)
        assert canonical_json(parse_canonical(data)) == data
        assert parse_canonical(data) == value

    @given(values)
    @example({"a": (1.0, -0.0, 1e-7, True), "b": ()})
    def test_who_writes_knows_what_readers_will_see(self, value: Any) -> None:
        data, seen = canonical_form(value)
        assert seen == parse_canonical(data)
        assert json.dumps(seen, sort_keys=True) == json.dumps(parse_canonical(data), sort_keys=True)

    @given(values)
    def test_the_fast_writer_agrees_with_the_definition(self, value: Any) -> None:
        assert canonical_json(value) == _text_of(value, DEPTH_MAX).encode()

    @given(anything)
    def test_a_value_is_written_or_refused(self, value: Any) -> None:
        try:
            data = canonical_json(value)
        except EncodingError:
            try:
                _plain(value, DEPTH_MAX)
            except _NotPlain:
                return
            assert "\\ud" in json.dumps(value)
        else:
            assert canonical_json(parse_canonical(data)) == data

    @given(values, st.sampled_from([{"indent": 1}, {"separators": (", ", ":")}, {"ensure_ascii": True}]))
    def test_another_text_of_the_same_value_is_refused(self, value: Any, style: dict[str, Any]) -> None:
        data = json.dumps(value, **style).encode()
        assume(data != canonical_json(value))
        with pytest.raises(EncodingError):
            parse_canonical(data)


class TestDecoders:
    """A decoder accepts what its encoder writes, and refuses anything else with EncodingError."""

    @given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace")))
    @example(b"\xff")
    @example(b"[" * 2_000)
    @example(b"1" * 10_000)
    def test_any_bytes(self, data: bytes) -> None:
        for decode, encode in [
            (parse_canonical, canonical_json),
            (Statement.from_bytes, Statement.to_bytes),
            (Entry.from_bytes, Entry.to_bytes),
            (Entry.from_dsse, Entry.to_dsse),
        ]:
            try:
                value = decode(data)
            except EncodingError:
                continue
            assert encode(value) == data  # type: ignore[arg-type]

    @given(st.text(max_size=60) | st.integers() | st.none())
    def test_any_text(self, text: Any) -> None:
        for decode, encode in [(b64_decode, b64), (b64u_decode, b64u), (hex_decode, bytes.hex)]:
            try:
                data = decode(text)
            except EncodingError:
                continue
            assert encode(data) == text

    @given(st.binary(max_size=100))
    def test_any_bytes_have_one_text_of_each_form(self, data: bytes) -> None:
        assert b64_decode(b64(data)) == b64u_decode(b64u(data)) == hex_decode(data.hex()) == data


class TestRecordsAndEntries:
    """A record has one encoding; an entry and its envelope say the same."""

    @given(statements)
    def test_statements_read_back(self, statement: Statement) -> None:
        assert Statement.from_bytes(statement.to_bytes()) == statement

    @given(entries)
    def test_entries_read_back_from_both_forms(self, entry: Entry) -> None:
        assert Entry.from_bytes(entry.to_bytes()) == Entry.from_dsse(entry.to_dsse()) == entry

    @given(statements, st.data())
    def test_a_changed_byte_is_refused_or_is_another_statement(
        self, statement: Statement, data: st.DataObject
    ) -> None:
        payload = bytearray(statement.to_bytes())
        position = data.draw(st.integers(0, len(payload) - 1))
        payload[position] ^= data.draw(st.integers(1, 255))
        try:
            other = Statement.from_bytes(bytes(payload))
        except EncodingError:
            return
        assert other != statement
        assert other.to_bytes() == bytes(payload)

    @given(st.integers(PAYLOAD_BYTES_MAX + 1, PAYLOAD_BYTES_MAX + 5_000))
    def test_long_payloads_are_refused(self, length: int) -> None:
        with pytest.raises(EncodingError, match="48000"):
            Entry(bytes(16), bytes(64), bytes(length))
