"""Lichen's own processor time in `lichen run`: a CPU-bound script, and one that opens 100,000 files.

Own time = processor seconds of everything under `lichen run` minus those of the plain script, in interleaved pairs, plus nothing
else: what tracing adds inside the script is Lichen's too. Bars: CPU-bound 20 s: < 1 % + 0.4 s; 100,000 files: < 1 s.

The script's own time varies more between runs than Lichen's share, so the difference is given with an interval, beside the time
Lichen's process itself reports, which has no such noise but lacks what tracing adds inside.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
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
    root: Path, environment: dict[str, str], script: list[str], count: int, outputs: list[str]
) -> dict[str, object]:
    plain, recorded, own = [], [], []
    for _ in range(count):
        for output in outputs:
            (root / output).unlink(missing_ok=True)
        plain.append(children_cpu_seconds([sys.executable, *script], cwd=root, env=environment)[0])
        for output in outputs:
            (root / output).unlink(missing_ok=True)
        command = [LICHEN, "run", "--rerun", "--report", "report.json", "--", sys.executable, *script]
        recorded.append(children_cpu_seconds(command, cwd=root, env=environment)[0])
        lines = (root / ".lichen" / "cache" / "own-cost.jsonl").read_text().splitlines()
        own.append(json.loads(lines[-1])["cpu_seconds"])
        report = json.loads((root / "report.json").read_text())
        assert report["status"] == "trained", report
    added = [with_lichen - without for with_lichen, without in zip(recorded, plain, strict=True)]
    return {
        "plain_cpu_seconds": interval(plain),
        "added_cpu_seconds": interval(added),
        "lichen_process_cpu_seconds": interval(own),
        "share_of_plain": interval([extra / base for extra, base in zip(added, plain, strict=True)]),
        "pairs": count,
        "reusable": report["reusable"],
        "reasons": report["reasons"][:3],
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--blocks", type=int, default=22_000_000, help="of the CPU-bound script; about 20 s")
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="lichen-overhead-")) / "project"
    environment = {**os.environ, "LICHEN_HOME": str(root.parent / "home")}
    environment.pop("LICHEN_LEDGER", None)
    make_project(root, environment, arguments.files)
    figures = {
        "cpu_bound": pairs(
            root, environment, ["spin.py", str(arguments.blocks)], arguments.pairs, ["out.bin"]
        ),
        "opens": {
            "files": arguments.files,
            **pairs(root, environment, ["opens.py"], arguments.pairs, ["out.txt"]),
        },
    }
    shutil.rmtree(root.parent)
    write_result(
        "run_overhead",
        figures,
        bars={"cpu_bound.added_cpu_seconds": "< 1 % of plain + 0.4 s", "opens.added_cpu_seconds": "< 1 s"},
        notes=[
            "The project is watched by every tracing means this machine offers; see reusable and reasons."
        ],
    )


if __name__ == "__main__":
    main()
