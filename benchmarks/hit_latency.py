"""A hit, whole process, in a ledger of 100,000 runs, with 100 MB of outputs to put back. Bar: < 0.4 s."""

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

from harness import interval, percentile, write_result

LICHEN = str(Path(sys.executable).parent / "lichen")
SCRIPT = """
import random, sys
from pathlib import Path
size = int(sys.argv[1])
Path("model.bin").write_bytes(random.Random(1).randbytes(size))
Path("summary.json").write_text("{}")
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--hits", type=int, default=30)
    arguments = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="lichen-hit-"))
    os.environ["LICHEN_HOME"] = str(root / "home")
    os.environ["LICHEN_MEMBER"] = "synthetic"
    from synthetic import make_ledger

    make_ledger(root, arguments.runs, access="private")
    (root / "train.py").write_text(SCRIPT)
    figures: dict[str, object] = {"runs": arguments.runs}
    for label, size in (("small", 1_000), ("100_mb", 100_000_000)):
        command = [LICHEN, "run", "--report", "report.json", "--", sys.executable, "train.py", str(size)]
        subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        walls = []
        for _ in range(arguments.hits):
            (root / "model.bin").unlink()
            started = time.perf_counter()
            subprocess.run(
                command, cwd=root, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            walls.append(time.perf_counter() - started)
            assert json.loads((root / "report.json").read_text())["status"] == "hit"
            assert (root / "model.bin").stat().st_size == size
        figures[f"hit_{label}_seconds"] = interval(walls)
        figures[f"hit_{label}_p90_seconds"] = percentile(walls, 0.9)
    shutil.rmtree(root)
    write_result("hit_latency", figures, bars={"hit_100_mb_seconds": "< 0.4"})


if __name__ == "__main__":
    main()
