"""Lichen's own processor time in `lichen run`: a CPU-bound script, and one that opens 100,000 files.

Own time has two parts, each measured where it can be: that of Lichen's process, which it reports itself when it ends, and
what tracing adds inside the script, which is the processor time of everything under `lichen run` minus Lichen's process minus the
plain script, in interleaved pairs. Bars: CPU-bound 20 s: < 1 % + 0.4 s; 100,000 files: < 1 s.

The time of a script that works for 20 s varies between runs by more than all of Lichen's, so what tracing adds inside such a
script is taken from the same script with next to no work, where it can be resolved: it is paid at the start and at the end. The
difference over the whole script is given too, with its interval. Of the script that opens files there are two figures: files
that were hashed by an earlier run and are unchanged, and files seen for the first time, which have to be read.

With default settings the program ends within twelve minutes: the short scripts run their pairs first, and the script that
works for 20 s gets as many pairs as the time left allows, three at least.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import children_cpu_seconds, interval, write_result

LICHEN = str(Path(sys.executable).parent / "lichen")
SPIN = """
import sys, hashlib
block = b"x" * 1024
digest = b""
for _ in range(int(sys.argv[1])):
    digest = hashlib.sha256(digest + block).digest()
open("out.bin", "wb").write(digest)
"""
LONG_PAIRS_MIN = 3
REASONS_SHOWN = 3
OPEN = """
import os, sys
total = 0
for directory, _, names in os.walk("files"):
    for name in names:
        with open(f"{directory}/{name}") as file:
            total += len(file.read())
open("out.txt", "w").write(str(total))
"""


def make_project(root: Path, environment: dict[str, str], files: int) -> None:
    root.mkdir(parents=True)
    (root / "spin.py").write_text(SPIN)
    (root / "opens.py").write_text(OPEN)
    for number in range(files):
        directory = root / "files" / f"{number // 1000:03d}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{number}.txt").write_text(str(number))
    subprocess.run(
        [LICHEN, "init", "--member", "bench"],
        cwd=root,
        env=environment,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def pairs(
    root: Path,
    environment: dict[str, str],
    script: list[str],
    count: int,
    outputs: list[str],
    *,
    forget: bool = False,
    until: float | None = None,
    warm: list[str] | None = None,
) -> dict[str, object]:
    """Run a script plain and recorded, in turn.

    Args:
        root: Project.
        environment: Of both.
        script: Words behind the interpreter.
        count: Pairs.
        outputs: Files to remove before each run.
        forget: Throw away the digests of files known before each recorded run.
        until: ``time.monotonic`` at which no further pair begins, once there are ``LONG_PAIRS_MIN``; None for no such time.
        warm: Words behind the interpreter in the first pair, which does not count; ``script`` when None.
    """
    figures: dict[str, list[float]] = {name: [] for name in ("plain", "added", "process", "inside")}
    report: dict[str, object] = {}
    longest = 0.0
    for number in range(count + 1):
        started = time.monotonic()
        if until is not None and number > LONG_PAIRS_MIN and started + longest > until:
            break
        words = warm if number == 0 and warm is not None else script
        plain, whole, process, report = one_pair(root, environment, words, outputs, forget=forget)
        if number == 0:
            continue  # the first one compiles the library, and reads files that were just made
        longest = max(longest, time.monotonic() - started)
        for name, value in zip(
            figures, (plain, whole - plain, process, whole - process - plain), strict=True
        ):
            figures[name].append(value)
        print(
            f"  {' '.join(script)}: pair {number} of {count}: plain {plain:.2f} s, added {whole - plain:.2f} s",
            file=sys.stderr,
            flush=True,
        )
    reasons = [str(reason).replace(str(root), "{project}") for reason in report["reasons"]]  # type: ignore[attr-defined]
    return {
        "plain_cpu_seconds": interval(figures["plain"]),
        "added_cpu_seconds": interval(figures["added"]),
        "lichen_process_cpu_seconds": interval(figures["process"]),
        "inside_script_cpu_seconds": interval(figures["inside"]),
        "pairs": len(figures["plain"]),
        "reusable": report["reusable"],
        "reasons": reasons[:REASONS_SHOWN],
    }


def one_pair(
    root: Path, environment: dict[str, str], script: list[str], outputs: list[str], *, forget: bool
) -> tuple[float, float, float, dict[str, object]]:
    """Run a script plain, then recorded.

    Returns:
        Processor seconds of the plain script, of everything under ``lichen run`` and of Lichen's own process; the run's report.
    """
    command = [LICHEN, "run", "--rerun", "--report", "report.json", "--", sys.executable, *script]
    for output in outputs:
        (root / output).unlink(missing_ok=True)
    plain = children_cpu_seconds([sys.executable, *script], cwd=root, env=environment)[0]
    for output in outputs:
        (root / output).unlink(missing_ok=True)
    if forget:
        for file in Path(environment["LICHEN_HOME"]).glob("cache/digests.sqlite*"):
            file.unlink()
    whole = children_cpu_seconds(command, cwd=root, env=environment)[0]
    lines = (root / ".lichen" / "cache" / "own-cost.jsonl").read_text().splitlines()
    report = json.loads((root / "report.json").read_text())
    assert report["status"] == "trained", report
    return plain, whole, json.loads(lines[-1])["cpu_seconds"], report


def hits(root: Path, environment: dict[str, str], script: list[str], count: int) -> dict[str, object]:
    """Ask for a script's result again and again; the earlier runs answer.

    Args:
        root: Project, in which the script was recorded.
        environment: Of the command.
        script: Words behind the interpreter.
        count: Times asked.
    """
    command = [LICHEN, "run", "--report", "report.json", "--", sys.executable, *script]
    seconds = []
    for number in range(count + 1):
        spent = children_cpu_seconds(command, cwd=root, env=environment)[0]
        report = json.loads((root / "report.json").read_text())
        assert report["status"] == "hit", report
        if number:
            seconds.append(spent)
    return {"cpu_seconds": interval(seconds), "hits": count}


def main() -> None:
    """Measure everything and write the result."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=20, help="of each short script")
    parser.add_argument("--long-pairs", type=int, default=20, help="of the CPU-bound script, at most")
    parser.add_argument("--first-pairs", type=int, default=8, help="with files seen for the first time")
    parser.add_argument("--minutes", type=float, default=11.5, help="after which no pair begins")
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--blocks", type=int, default=22_000_000, help="of the CPU-bound script; about 20 s")
    arguments = parser.parse_args()
    until = time.monotonic() + 60 * arguments.minutes
    root = Path(tempfile.mkdtemp(prefix="lichen-overhead-")) / "project"
    environment = {**os.environ, "LICHEN_HOME": str(root.parent / "home")}
    environment.pop("LICHEN_LEDGER", None)
    make_project(root / "spins", environment, 0)
    make_project(root / "opens", environment, arguments.files)
    count = arguments.pairs
    opens = pairs(root / "opens", environment, ["opens.py"], count, ["out.txt"])
    answered = hits(root / "opens", environment, ["opens.py"], min(count, 10))
    first = pairs(
        root / "opens",
        environment,
        ["opens.py"],
        arguments.first_pairs,
        ["out.txt"],
        forget=True,
        until=until,
    )
    idle = ["spin.py", "1000"]
    short = pairs(root / "spins", environment, idle, count, ["out.bin"])
    work = ["spin.py", str(arguments.blocks)]
    long = pairs(root / "spins", environment, work, arguments.long_pairs, ["out.bin"], until=until, warm=idle)
    process, inside = long["lichen_process_cpu_seconds"], short["inside_script_cpu_seconds"]
    own = process["value"] + inside["value"]  # type: ignore[index]
    bar = 0.01 * long["plain_cpu_seconds"]["value"] + 0.4  # type: ignore[index]
    figures = {
        "cpu_bound": {**long, "own_cpu_seconds": own, "bar_seconds": bar},
        "next_to_no_work": short,
        "opens": {"files": arguments.files, **opens},
        "opens_for_the_first_time": {"files": arguments.files, **first},
        "hit_with_as_many_inputs": {"files": arguments.files, **answered},
    }
    shutil.rmtree(root.parent)
    write_result(
        "run_overhead",
        figures,
        bars={"cpu_bound.own_cpu_seconds": "< 1 % of plain + 0.4 s", "opens.added_cpu_seconds": "< 1 s"},
        notes=[
            "cpu_bound.own_cpu_seconds is Lichen's process in the long script plus what tracing adds inside the same script "
            "with next to no work.",
            "The project is watched by every tracing means this machine offers; see reusable and reasons.",
            "The CPU-bound script gets the pairs that fit into --minutes.",
        ],
    )


if __name__ == "__main__":
    main()
