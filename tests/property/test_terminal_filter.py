"""Laws of the filter for recorded output."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from lichen.runs.process.terminal import EscapeFilter, filter_escapes

SGR = re.compile(rb"\x1b\[[0-9;:]*m")
CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

# Made of the pieces that matter, so that sequences of all kinds come up, whole and broken.
PIECES = st.sampled_from(
    b"\x1b [ ] P _ m 0 8 31 ; : ? A \\ \x07 \x18 \n \r text ( \xc2\x9b \xc2\x9c \xc2\x9d \x9b \xe2\x80\xae \xf0\x9f \x99\x82".split(
        b" "
    )
)
STREAMS = st.one_of(st.lists(PIECES, max_size=30).map(b"".join), st.binary(max_size=200))


class TestNothingSteersTheTerminal:
    """What the filter lets through holds no control but line feed, tab, carriage return and colour sequences."""

    @given(STREAMS)
    def test_every_escape_is_a_colour(self, stream: bytes) -> None:
        left = SGR.sub(b"", filter_escapes(stream))
        assert b"\x1b" not in left
        assert CONTROLS.search(left.decode("utf-8", "ignore")) is None

    @given(STREAMS)
    def test_filtering_twice_changes_nothing_more(self, stream: bytes) -> None:
        once = filter_escapes(stream)
        assert filter_escapes(once) == once

    @given(STREAMS)
    def test_it_adds_nothing_but_a_reset(self, stream: bytes) -> None:
        assert len(filter_escapes(stream)) <= len(stream) + len(b"\x1b[0m")


class TestChunksMakeNoDifference:
    """However a stream is cut, the same comes out."""

    @given(STREAMS, st.lists(st.integers(min_value=0, max_value=200), max_size=8))
    def test_any_cut(self, stream: bytes, cuts: list[int]) -> None:
        filtering = EscapeFilter()
        bounds = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
        parts = [filtering.feed(stream[a:b]) for a, b in pairwise(bounds)]
        assert b"".join(parts) + filtering.finish() == filter_escapes(stream)


class TestPlainTextIsUntouched:
    """Text without controls comes out as it went in."""

    @given(st.text(st.characters(exclude_categories=["Cc", "Cf", "Cs"]) | st.sampled_from("\n\t\r")))
    def test_text(self, text: str) -> None:
        assert filter_escapes(text.encode()) == text.encode()
