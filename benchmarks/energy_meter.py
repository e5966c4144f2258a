"""What metering costs, how well processor seconds are attributed, and how often the load model's interval holds.

* Start and stop of a meter, after imports and detection, with the load model and with two recorded RAPL packages. Bar: < 20 ms.
* Processor share of watching a process tree (scans, reaping, polling the meter), for trees of 1, 16 and 128 processes.
  Bar: < 0.5 %.
* Processor seconds of process trees by wait4 and scans against a control group around them. Bar: within 2 %.
* Recorded loads of four machines, each predicted from the other three only. Bar: >= 90 % inside the stated interval.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import percentile, write_result

from lichen.energy.attribution import TreeAccount
from lichen.energy.cgroup import ControlGroup
from lichen.energy.meter import Meter
from lichen.energy.processor import load_band, recorded_curves
from lichen.energy.rapl import RaplSource
from lichen.energy.sources import Source

TREES = Path(__file__).parent.parent / "tests" / "integration" / "energy" / "process_trees.py"
SLEEPERS = "import os, sys, time\nfor _ in range(int(sys.argv[1]) - 1):\n    if os.fork() == 0: break\ntime.sleep(float(sys.argv[2]))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    figures = {
        "start_stop_ms": start_stop(options.windows),
        "watching_cpu_share": {
            f"{processes} processes, poll every {pause * 1000:g} ms": watching(
                processes, pause, options.seconds
            )
            for processes, pause in ((1, 0.1), (1, 0.05), (16, 0.1), (128, 0.1))
        },
        "cpu_seconds_over_truth": attribution(options.repeats),
        "load_model": coverage(),
    }
    write_result(
        "energy_meter",
        figures,
        bars={
            "start_stop_ms": "< 20",
            "watching_cpu_share": "< 0.005",
            "cpu_seconds_over_truth": "0.98 to 1.02",
            "load_model": "share_inside >= 0.9",
        },
        notes=[
            "truth of cpu_seconds_over_truth: usage_usec of a control group around the tree; the account reads no group",
            "ignored_*: SIGCHLD ignored, accounts dropped by the kernel, so the account states an interval; inside = it holds truth",
            "load_model: band of all other machines, never the one asked about; half_width relative to the middle",
        ],
    )


def start_stop(count: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for package in range(2):
            directory = root / f"intel-rapl:{package}"
            directory.mkdir()
            for name, text in (
                ("name", f"package-{package}"),
                ("energy_uj", "123456789"),
                ("max_energy_range_uj", "262143328850"),
            ):
                (directory / name).write_text(f"{text}\n")
        sources: dict[str, list[Source] | None] = {
            "load model": None,
            "two RAPL packages": [RaplSource.detect(root)],
        }
        found = {}
        for name, chosen in sources.items():
            meter = Meter(chosen, background=False)
            wall, cpu = [], []
            for _ in range(count):
                began, spent = time.perf_counter(), time.process_time()
                meter.start()
                meter.stop()
                wall.append((time.perf_counter() - began) * 1000)
                cpu.append((time.process_time() - spent) * 1000)
            found[name] = {
                "wall_median": statistics.median(wall),
                "wall_p99": percentile(wall, 0.99),
                "cpu_median": statistics.median(cpu),
            }
    return found


def watching(processes: int, pause: float, seconds: float) -> float:
    """Share of one processor that polling and reaping take while a tree of sleepers lives."""
    meter = Meter(background=False).start()
    account = TreeAccount(use_cgroup=False, on_poll=meter.poll)
    account.prepare()
    child = subprocess.Popen([sys.executable, "-S", "-c", SLEEPERS, str(processes), str(seconds)])
    account.started(child.pid)
    spent, began = 0.0, time.perf_counter()
    while child.returncode is None:
        before = time.thread_time()
        account.poll()
        ended = account.reap()
        spent += time.thread_time() - before
        if any(pid == child.pid for pid, _ in ended):
            child.returncode = 0
        time.sleep(pause)
    wall = time.perf_counter() - began
    meter.stop(account.finish())
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    return spent / wall


def attribution(repeats: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for scenario in ("short_children", "short_programs", "daemons", "pool", "ignored_long", "ignored_short"):
        ratios, inside = [], 0
        for _ in range(repeats):
            group = ControlGroup.create()
            if group is None:
                return {"skipped": "no control group may be made here"}
            account = TreeAccount(use_cgroup=False)
            account.prepare()
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-S", str(TREES), scenario, f"{folder}/truth"]
                child = subprocess.Popen(command, preexec_fn=group.join)  # noqa: PLW1509 - one thread
                account.started(child.pid)
                while child.returncode is None or group.pids():
                    account.poll()
                    if any(pid == child.pid for pid, _ in account.reap()):
                        child.returncode = 0
                    time.sleep(0.05)
            usage, truth = account.finish(), group.cpu_seconds()
            group.remove()
            assert truth is not None
            ratios.append(usage.cpu_seconds / truth)
            inside += usage.cpu_seconds_low * 0.98 <= truth <= usage.cpu_seconds_high * 1.02
        found[scenario] = {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
            "inside": inside / repeats,
        }
    return found


def coverage() -> dict[str, float]:
    inside, widths = 0, []
    for curve in recorded_curves():
        others = tuple(other for other in recorded_curves() if other.name != curve.name)
        for load, watts in curve.points[1:]:
            idle, slope = load_band("", (load, load), others)
            truth = (watts - curve.points[0][1]) / curve.tdp_watts + load * curve.idle_share
            low, high = load * (idle.low + slope.low), load * (idle.high + slope.high)
            inside += low <= truth <= high
            widths.append((high - low) / (high + low))
    return {
        "points": len(widths),
        "share_inside": inside / len(widths),
        "half_width_median": statistics.median(widths),
    }


if __name__ == "__main__":
    main()
