"""Does a ledger of finished work save more energy than it costs? A trace of requests with repeats, run for real.

Each request is `lichen run -- python job.py …` in a fresh project. Requests are drawn from a pool of distinct jobs with
Zipf popularity, so some repeat. What is avoided are the joules measured when a job ran; what is spent is everything
Lichen used itself: its own processor seconds, what tracing adds inside the job (against plain runs of the same jobs,
interleaved), and storage. From the cost of a miss, of a hit and of a job follows the share of hits at which the ledger
breaks even::

    net per request  =  h (J - c_hit) - (1 - h) c_miss        h* = c_miss / (J - c_hit + c_miss)

Intervals are 95 %, by bootstrap over requests; they do not contain the uncertainty of the load model, which scales both sides
alike and cancels in h*.
"""

from __future__ import annotations

import math
import os
import random
import shlex
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lichen.encoding.foreign_json import read_json
from lichen.errors import LichenError
from lichen.experiments.port import Curve, Finding, Setting

NAME = "avoided-training"
CLAIM = "Publishing finished work, failures too, so that nobody repeats it saves more energy than the ledger costs."
SOURCE = "The report, clause 9, first practice. Mechanism after the report; it gives no value."
SETTINGS = (
    Setting("requests", 100, 10, 5_000, "requests in the trace"),
    Setting("jobs", 60, 2, 5_000, "distinct jobs they are drawn from"),
    Setting("zipf", 0.9, 0.0, 3.0, "exponent of their popularity; 0 is uniform"),
    Setting("epochs", 400, 1, 100_000, "size of a job; 400 is about two seconds"),
    Setting("plain", 20, 5, 500, "plain runs without Lichen, for comparison"),
    Setting("seed", 1, 0, 2**31, "of the draw"),
)
_BOOTSTRAP_COUNT = 2_000
_JOB = '''"""Logistic regression by stochastic gradient descent, standard library only."""
import argparse, json, math, random
parser = argparse.ArgumentParser()
parser.add_argument("--rate", type=float); parser.add_argument("--epochs", type=int)
a = parser.parse_args()
rng = random.Random(7)
rows = [[rng.gauss(0, 1) for _ in range(8)] for _ in range(400)]
truth = [rng.gauss(0, 1) for _ in range(8)]
labels = [1 if sum(t * x for t, x in zip(truth, row)) + rng.gauss(0, .5) > 0 else 0 for row in rows]
weights = [0.0] * 8
for _ in range(a.epochs):
    for row, label in zip(rows, labels):
        p = 1 / (1 + math.exp(-max(-30, min(30, sum(w * x for w, x in zip(weights, row))))))
        weights = [w + a.rate * (label - p) * x for w, x in zip(weights, row)]
hits = sum((sum(w * x for w, x in zip(weights, row)) > 0) == bool(label) for row, label in zip(rows, labels))
open("model.json", "w").write(json.dumps({"weights": weights, "accuracy": hits / len(rows)}))
print("accuracy:", hits / len(rows))
'''


@dataclass(frozen=True)
class _Request:
    """One request of the trace and what it cost."""

    job: int
    is_hit: bool
    work_joules: float
    avoided_joules: float
    own_joules: float


def run(settings: Mapping[str, float], directory: Path, progress: Callable[[int, int], None]) -> Finding:
    """Carry out the experiment; see the module's description."""
    request_count, plain_count = int(settings["requests"]), int(settings["plain"])
    rng = random.Random(int(settings["seed"]))  # noqa: S311 - a draw, not a secret
    bench = _Bench(directory, int(settings["epochs"]))
    bench.start()
    jobs = _draw(rng, request_count, int(settings["jobs"]), settings["zipf"])
    plain_every = max(1, request_count // plain_count)
    plain: list[float] = []
    requests: list[_Request] = []
    for place, job in enumerate(jobs):
        if place % plain_every == 0 and len(plain) < plain_count:
            plain.append(bench.run_plain(job))
        requests.append(bench.run_recorded(job))
        progress(place + 1, request_count)
    return _finding(settings, requests, plain, bench)


def _draw(rng: random.Random, count: int, job_count: int, exponent: float) -> list[int]:
    weights = [1 / (rank + 1) ** exponent for rank in range(job_count)]
    return rng.choices(range(job_count), weights, k=count)


class _Bench:
    """A project with a ledger of its own, and the two ways of running a job in it."""

    def __init__(self, directory: Path, epochs: int) -> None:
        self.project = directory / "project"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LICHEN_")},
            "LICHEN_HOME": str(directory / "home"),
        }
        self.epochs = epochs
        self._own_bytes = 0
        self.energy_joules = 0.0
        self.relative_u95 = 0.0

    def start(self) -> None:
        """Make project and ledger."""
        self.project.mkdir(parents=True)
        (self.project / "job.py").write_text(_JOB, encoding="utf-8")
        self._lichen("init", "--name", "experiment", "--member", "experimenter")
        self._own_lines()

    def _lichen(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "lichen", *words],
            cwd=self.project, env=self.environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != 0:
            raise LichenError(
                f"lichen {shlex.join(words)[:80]} ended with {done.returncode}: {done.stderr.strip()[-400:]}"
            )

    def command(self, job: int) -> list[str]:
        """Return the command line of a job."""
        return [sys.executable, "job.py", "--rate", f"{0.001 * (job + 1):.3f}", "--epochs", str(self.epochs)]

    def run_plain(self, job: int) -> float:
        """Run a job without Lichen; return its joules."""
        from lichen.energy.attribution import TreeAccount
        from lichen.energy.meter import Meter
        from lichen.runs.process.supervise import supervise

        meter = Meter().start()
        null = os.open(os.devnull, os.O_RDONLY)
        try:
            outcome = supervise(
                ["sh", "-c", shlex.join(self.command(job)) + " >/dev/null"],
                environment=self.environment, directory=self.project, account=TreeAccount(), stdin=null,
            )  # fmt: skip
        finally:
            os.close(null)
        measured = meter.stop(outcome.usage)
        self.energy_joules += measured.energy_joules
        self.relative_u95 = max(self.relative_u95, measured.relative_u95)
        return measured.energy_joules

    def run_recorded(self, job: int) -> _Request:
        """Request a job through Lichen."""
        (self.project / "model.json").unlink(missing_ok=True)
        report = self.project.parent / "report.json"
        self._lichen(
            "run",
            "--report",
            str(report),
            "--metric",
            r"accuracy=accuracy: ([\d.]+)",
            "--",
            *self.command(job),
        )
        told = read_json(report.read_text(encoding="utf-8"))
        if told["status"] == "hit":
            work, avoided = 0.0, self._cost_of(told["record"])
        elif told["status"] == "trained" and told["reusable"]:
            work, avoided = float(told["energy_joules"]), 0.0
        else:
            raise LichenError(f"a job ended as {told['status']}, reasons {told['reasons']}")
        own = sum(self._own_lines())
        self.energy_joules += work + own
        return _Request(job, told["status"] == "hit", work, avoided, own)

    def _cost_of(self, index: int) -> float:
        from lichen.encoding.statement import Statement
        from lichen.runs.workspace.workspace import Workspace

        with Workspace.find(str(self.project), read_only=True) as workspace:
            said = Statement.from_bytes(workspace.ledger.entry(index).payload).predicate
        return float(said["energy"]["joules"])

    def _own_lines(self) -> list[float]:
        """Return the joules of Lichen commands since the last call, from the processor seconds they left."""
        from lichen.runs.queries.balance import OWN_COST_FILE, joules_of_own_seconds

        path = self.project / ".lichen" / "cache" / OWN_COST_FILE
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._own_bytes)
            lines = file.read().splitlines()
            self._own_bytes = file.tell()
        values = [read_json(line) for line in lines]
        return [joules_of_own_seconds(v["cpu_seconds"], v["peak_rss_bytes"]).energy_joules for v in values]


def _finding(
    settings: Mapping[str, float], requests: Sequence[_Request], plain: Sequence[float], bench: _Bench
) -> Finding:
    rng = random.Random(int(settings["seed"]) + 1)  # noqa: S311 - resampling
    point = _figures(requests, plain)
    draws = [
        _figures(rng.choices(requests, k=len(requests)), rng.choices(plain, k=len(plain)))
        for _ in range(_BOOTSTRAP_COUNT)
    ]
    figures: dict[str, Any] = {}
    for name, value in point.items():
        usable = sorted(draw[name] for draw in draws if not math.isnan(draw[name]))
        low, high = (
            (usable[int(0.025 * len(usable))], usable[int(0.975 * len(usable)) - 1])
            if usable
            else (math.nan,) * 2
        )
        figures[name] = {"value": value, "low": low, "high": high}
    net = figures["net_joules"]
    verdict = "confirmed" if net["low"] > 0 else "not confirmed" if net["high"] < 0 else "depends"
    share, even = figures["hit_share"]["value"], figures["break_even_share"]
    break_even = (
        f"the ledger breaks even at {even['value']:.1%} hits ({even['low']:.1%} to {even['high']:.1%})"
        if math.isfinite(even["value"])
        else "jobs this small are cheaper to repeat than to look up, at any share of hits"
    )
    summary = (
        f"{len(requests)} requests, {share:.0%} of them answered: {net['value']:.1f} J net "
        f"({net['low']:.1f} to {net['high']:.1f}). A job cost {point['job_joules']:.2f} J, a miss "
        f"{point['miss_cost_joules']:.2f} J and a hit {point['hit_cost_joules']:.2f} J of Lichen's own; {break_even}."
    )
    rows = [
        (name, round(v["value"], 4), round(v["low"], 4), round(v["high"], 4)) for name, v in figures.items()
    ]
    return Finding(
        verdict=verdict,
        summary=summary,
        columns=("figure", "value", "low 95 %", "high 95 %"),
        rows=rows,
        figures=figures,
        curves=_curves(point),
        x_label="share of requests answered from the ledger",
        y_label="net joules per request",
        energy_joules=bench.energy_joules,
        energy_relative_u95=bench.relative_u95,
        seed=int(settings["seed"]),
        caveats=(
            "The share of repeats is drawn, not observed: no published trace of repeated trainings was found.",
            "Joules are from the load model where no counter can be read; its scale cancels in the break-even share.",
            "Jobs here are small. The break-even share falls as jobs grow, because Lichen's cost hardly does.",
        ),
    )


def _figures(requests: Sequence[_Request], plain: Sequence[float]) -> dict[str, float]:
    """Compute every figure from requests and plain runs."""
    misses = [request for request in requests if not request.is_hit]
    hits = [request for request in requests if request.is_hit]
    plain_joules = statistics.fmean(plain)
    recorded_joules = statistics.fmean(request.work_joules for request in misses) if misses else math.nan
    inside = recorded_joules - plain_joules
    miss_cost = statistics.fmean(request.own_joules for request in misses) + inside if misses else math.nan
    hit_cost = statistics.fmean(request.own_joules for request in hits) if hits else math.nan
    avoided = math.fsum(request.avoided_joules for request in hits)
    spent = math.fsum(request.own_joules for request in requests) + inside * len(misses)
    avoidable = plain_joules - hit_cost
    return {
        "hit_share": len(hits) / len(requests),
        "job_joules": plain_joules,
        "tracing_inside_joules": inside,
        "miss_cost_joules": miss_cost,
        "hit_cost_joules": hit_cost,
        "avoided_joules": avoided,
        "spent_joules": spent,
        "net_joules": avoided - spent,
        "break_even_share": miss_cost / (avoidable + miss_cost) if avoidable > 0 else math.inf,
    }


def _curves(point: Mapping[str, float]) -> list[Curve]:
    shares = [step / 20 for step in range(21)]
    curves = []
    for factor in (1, 10, 100):
        job = point["job_joules"] * factor
        net = [h * (job - point["hit_cost_joules"]) - (1 - h) * point["miss_cost_joules"] for h in shares]
        curves.append(Curve(f"jobs of {job:.3g} J", shares, net))
    return curves
