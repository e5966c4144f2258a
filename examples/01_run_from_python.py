"""Meter and record a block of Python, and let the ledger answer the second time.

Run it anywhere: it works in a folder of its own and leaves nothing behind.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import lichen


def fit_line(rows: list[tuple[float, float]], steps: int) -> tuple[float, float]:
    """Fit a line to points by following the slope of the error downhill."""
    start = slope = 0.0
    for _ in range(steps):
        errors = [start + slope * x - y for x, y in rows]
        start -= 0.01 * sum(errors) / len(rows)
        slope -= 0.01 * sum(error * x for error, (x, _) in zip(errors, rows, strict=True)) / len(rows)
    return start, slope


def train(steps: int) -> None:
    """Train, unless the same was done before."""
    with lichen.run("fit a line", data=["points.json"], params={"steps": steps}) as run:
        if run.restore():
            print(f"{steps} steps: answered from the ledger")
            return
        rows = [tuple(row) for row in json.loads(Path("points.json").read_text())]
        start, slope = fit_line(rows, steps)
        run.log(slope=slope)
        Path(run.output("line.json")).write_text(json.dumps({"start": start, "slope": slope}))
        print(f"{steps} steps: trained, slope {slope:.3f}")


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    os.environ["LICHEN_HOME"] = str(Path(folder) / "home")
    Path("points.json").write_text(json.dumps([[x, 3 * x + 1] for x in range(8)]))
    subprocess.run(
        [sys.executable, "-m", "lichen", "init", "--member", "ada"], check=True, stdout=subprocess.DEVNULL
    )

    train(steps=20_000)
    Path("line.json").unlink()
    train(steps=20_000)
    print("the line is back:", Path("line.json").read_text())

    for found in lichen.find(metric="slope>=2"):
        print(
            f"on record: entry {found.index}, slope {found.metrics['slope']:.3f}, {found.energy_joules:.2f} J"
        )
    os.chdir("/")
