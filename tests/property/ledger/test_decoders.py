"""Every reader of bytes from elsewhere accepts, or raises an error of Lichen's own."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from faults import fuzz
from faults.decoders import Decoder, broken, decoders, mutated
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NAMES = (
    "canonical JSON", "statement", "entry", "envelope", "base64url", "base64", "hexadecimal", "did:key", "genesis", "seal",
    "signed note", "checkpoint", "verifier key", "policy", "proof about the state", "bucket", "mark", "request to a witness",
    "split view", "receipt", "verified receipt", "CID", "CID as text", "UnixFS node", "CAR", "sealed artefact", "manifest",
    "tile path", "bundle", "request signature",
)  # fmt: skip


@pytest.fixture(scope="module")
def by_name(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Decoder]:
    return {decoder.name: decoder for decoder in decoders(tmp_path_factory.mktemp("seeds"))}


def test_every_reader_is_here(by_name: dict[str, Decoder]) -> None:
    assert tuple(by_name) == NAMES


@pytest.mark.parametrize("name", NAMES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(data=st.data())
def test_any_bytes_and_any_change_of_good_bytes(by_name: dict[str, Decoder], name: str, data) -> None:
    """The law: accepted as they would be written, or refused with an error of Lichen's own."""
    decoder = by_name[name]
    seed = data.draw(st.integers(0, 2**32), label="seed")
    rng = random.Random(seed)
    good = rng.choice(decoder.seeds)
    changed = mutated(rng, good, rng.choice(decoder.seeds))
    drawn = data.draw(st.binary(max_size=200) | st.just(changed) | st.just(good[: seed % (len(good) + 1)]))
    assert broken(decoder, drawn) is None


def test_the_fuzzer_finds_what_breaks_the_law() -> None:
    """Three equal bytes in a row are behind three branches: found by following the lines reached, hardly by chance."""

    def read(data: bytes) -> bytes:
        if data[:1] == b"k":
            if data[1:2] == b"e":
                if data[2:3] == b"y":
                    raise ZeroDivisionError("found")
                return data[:2]
            return data[:1]
        return b""

    decoder = Decoder("three steps", read, None, (b"kab", b"xey", b"  "))
    found = fuzz.Fuzzed()
    source = read.__code__.co_filename
    read.__code__ = read.__code__.replace(co_filename=f"lichen of a test {Path(source).name}")
    fuzz._fuzz_one(decoder, 20.0, random.Random(2), found, stop_at_problem=True)
    assert list(found.problems) == ["three steps: ZeroDivisionError: found"]
    assert found.kept["three steps"] >= 2
