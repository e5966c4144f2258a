"""Fuzz every decoder, guided by which lines of it a change reaches: with atheris where it is installed, else with a loop of our own.

::

    python -m faults.fuzz --seconds 600 [--only NAME] [--own]

It prints one line of JSON: how many inputs were tried, how many reached something new, and every way in which the law of
`faults.decoders` was broken.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from faults.decoders import Decoder, broken, decoders, mutated

__all__ = ["Fuzzed", "fuzz"]

CORPUS_COUNT_MAX = 2_000
LENGTH_MAX = 20_000


class Fuzzed:
    """What came of it.

    Attributes:
        tried: Inputs by decoder.
        reached: How many lines of Lichen were reached, by decoder.
        kept: Inputs that reached a line nothing before had reached, by decoder.
        problems: How the law was broken, each once, with the input in hexadecimal.
        slowest_seconds: Of one input.
    """

    def __init__(self) -> None:
        self.tried: dict[str, int] = {}
        self.reached: dict[str, int] = {}
        self.kept: dict[str, int] = {}
        self.problems: dict[str, str] = {}
        self.slowest_seconds = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        return dict(self.__dict__)


def fuzz(chosen: list[Decoder], seconds: float, seed: int) -> Fuzzed:
    """Fuzz decoders one after the other, each for its share of the time.

    Args:
        chosen: Which.
        seconds: For all of them together.
        seed: Of the changes.
    """
    found = Fuzzed()
    for decoder in chosen:
        _fuzz_one(decoder, seconds / len(chosen), random.Random(f"{seed} {decoder.name}"), found)
    return found


def _fuzz_one(
    decoder: Decoder, seconds: float, rng: random.Random, found: Fuzzed, *, stop_at_problem: bool = False
) -> None:
    lines: set[tuple[CodeType, int]] = set()
    corpus: list[bytes] = []
    until = time.monotonic() + seconds
    tried = kept = 0
    waiting = [*list(decoder.seeds), b""]
    while time.monotonic() < until and not (stop_at_problem and found.problems):
        data = waiting.pop() if waiting else mutated(rng, rng.choice(corpus), rng.choice(corpus))[:LENGTH_MAX]
        before = len(lines)
        started = time.monotonic()
        problem = _traced(lambda data=data: broken(decoder, data), lines)  # type: ignore[misc]
        found.slowest_seconds = max(found.slowest_seconds, time.monotonic() - started)
        tried += 1
        if problem is not None:
            found.problems.setdefault(problem[:200], data.hex()[:400])
        if len(lines) > before or not corpus:
            kept += 1
            if len(corpus) >= CORPUS_COUNT_MAX:
                corpus.pop(rng.randrange(len(corpus)))
            corpus.append(data)
    found.tried[decoder.name], found.kept[decoder.name] = tried, kept
    found.reached[decoder.name] = len(lines)


def _traced(call: Callable[[], str | None], lines: set[tuple[CodeType, int]]) -> str | None:
    """Call something, and note which lines of Lichen it goes through."""

    def in_frame(frame: FrameType, event: str, _: object) -> Any:
        if event == "line":
            lines.add((frame.f_code, frame.f_lineno))
        return in_frame

    def at_call(frame: FrameType, event: str, argument: object) -> Any:
        return in_frame(frame, event, argument) if "lichen" in frame.f_code.co_filename else None

    previous = sys.gettrace()
    sys.settrace(at_call)
    try:
        return call()
    finally:
        sys.settrace(previous)


def _fuzz_with_atheris(chosen: list[Decoder], seconds: float) -> int:
    """Let atheris go through all decoders; it ends the process, with the input when the law is broken."""
    atheris: Any = importlib.import_module("atheris")
    started, tried = time.monotonic(), 0

    def one(data: bytes) -> None:
        nonlocal tried
        tried += 1
        if not data:
            return
        decoder = chosen[data[0] % len(chosen)]
        problem = broken(decoder, data[1:])
        if problem is not None:
            raise RuntimeError(problem)

    atheris.instrument_all()
    with tempfile.TemporaryDirectory() as corpus:
        for place, decoder in enumerate(chosen):
            for number, seed in enumerate(decoder.seeds):
                (Path(corpus) / f"{place}-{number}").write_bytes(bytes([place]) + seed)

        def finish() -> None:
            spent = round(time.monotonic() - started, 1)
            print(
                json.dumps({"engine": "atheris", "tried": tried, "seconds": spent, "problems": {}}),
                flush=True,
            )

        threading.Timer(max(1.0, seconds - 0.5), finish).start()
        atheris.Setup([sys.argv[0], corpus, f"-max_total_time={int(seconds)}", f"-max_len={LENGTH_MAX}"], one)
        atheris.Fuzz()
    return 0


def main() -> int:
    """Do what the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--only", help="name of a decoder")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--own", action="store_true", help="our own loop, also where atheris is installed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        chosen = [one for one in decoders(Path(scratch)) if options.only in (None, one.name)]
    if not options.own:
        try:
            return _fuzz_with_atheris(chosen, options.seconds)
        except ImportError:
            print("atheris is not installed; the loop of our own is used", file=sys.stderr)
    found = fuzz(chosen, options.seconds, options.seed)
    print(json.dumps({"engine": "own", **found.to_json()}))
    return 1 if found.problems else 0


if __name__ == "__main__":
    sys.exit(main())
