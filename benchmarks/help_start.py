"""Wall time of `lichen --help` against `python -c pass`, interleaved. Bar: below 5 times."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from harness import interval, paired_ratio, write_result

PAIRS = 40


def seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    lichen = [str(Path(sys.executable).parent / "lichen"), "--help"]
    python = [sys.executable, "-c", "pass"]
    for command in (lichen, python):
        seconds(command)
    ours, theirs = [], []
    for _ in range(PAIRS):
        theirs.append(seconds(python))
        ours.append(seconds(lichen))
    write_result(
        "help_start",
        {
            "help_seconds": interval(ours),
            "python_pass_seconds": interval(theirs),
            "ratio": paired_ratio(ours, theirs),
            "pairs": PAIRS,
        },
        bars={"ratio": "< 5"},
    )


if __name__ == "__main__":
    main()
