"""What does trusting the operator less cost? Joules per record on the first rungs of the trust ladder, measured.

Interleaved in one run, over the same kind of records:

* ``database``: each record one durable row of a bare SQLite table, unsigned; the least that keeping a record can cost;
* ``solo`` (rung 0): signed, checked, appended durably; a sealed block and a signed checkpoint after every ``block`` records;
* ``w witnesses`` (rung 1): the same, and every checkpoint cosigned by w witnesses, each a process of its own that is asked over
  HTTP and has its record on the disk before it signs.

Counted are the processor seconds of everybody who takes part, as joules by the load model. "Little more" was fixed beforehand: at
most `_LITTLE_MORE` times a database with as many copies as there are parties, the operator and each witness being one. The claim
is confirmed when that holds for every number of records per checkpoint, and depends on it when it holds for some. Intervals
are 95 %, by bootstrap over rounds.

Source: J. Sedlmeir et al., "The Energy Consumption of Blockchain Technology: Beyond Myth", 2020: without proof of work a chain
costs little more than a redundant database. Differs: a log with witnesses, not a chain of replicas.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import select
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from lichen.errors import LichenError, UsageError
from lichen.experiments.port import Curve, Finding, Setting

if TYPE_CHECKING:
    from lichen.crypto.note import NoteKey
    from lichen.encoding.statement import Statement
    from lichen.ledger.ledger import Ledger
    from lichen.ledger.policy import Policy

NAME = "trust-ladder"
CLAIM = "Without proof of work a shared ledger costs little more energy per record than a database with as many copies."
SOURCE = "The report, clause 8 (match the mechanism to the trust at hand); Sedlmeir et al. 2020. No value for logs with witnesses."
SETTINGS = (
    Setting("records", 200, 100, 100_000, "records of each kind and round, a multiple of 100"),
    Setting("rounds", 10, 3, 1_000, "rounds, interleaved"),
    Setting("witnesses", 5, 1, 16, "witnesses of the largest quorum measured"),
    Setting("seed", 1, 0, 2**31, "of the records and of the resampling"),
)
_BLOCKS: Final = (1, 10, 100)
_LITTLE_MORE: Final = 10.0
_BOOTSTRAP_COUNT: Final = 2_000
_START_SECONDS: Final = 60.0
_DATABASE: Final = "database"


@dataclass(frozen=True)
class _Kind:
    """One way of keeping records.

    Attributes:
        witness_count: How many cosign each checkpoint; 0 on rung 0.
        block: Records per checkpoint.
    """

    witness_count: int
    block: int

    @property
    def name(self) -> str:
        if not self.witness_count:
            return "solo"
        return f"{self.witness_count} witness{'' if self.witness_count == 1 else 'es'}"


def run(settings: Mapping[str, float], directory: Path, progress: Callable[[int, int], None]) -> Finding:
    """Carry out the experiment; see the module's description."""
    count = int(settings["records"]) // 100 * 100
    rounds, most = int(settings["rounds"]), int(settings["witnesses"])
    rng = random.Random(int(settings["seed"]))  # noqa: S311 - draws, not secrets
    kinds = [_Kind(number, block) for number in sorted({0, 1, most}) for block in _BLOCKS]
    seconds: dict[str, list[float]] = {_DATABASE: [], **{_label(kind): [] for kind in kinds}}
    with _Bench(directory, most, rng) as bench:
        for turn in range(rounds + 1):  # the first round fills caches, and is not counted
            taken = {_DATABASE: bench.keep_rows(count)}
            for kind in kinds:
                taken[_label(kind)] = bench.keep_records(kind, count)
            if turn:
                for name, value in taken.items():
                    seconds[name].append(value / count)
            progress(turn + 1, rounds + 1)
        per_second = bench.joules_per_second()
        energy = per_second.energy_joules * sum(map(sum, seconds.values())) * count
        return _finding(settings, kinds, seconds, per_second.energy_joules, energy, per_second.relative_u95)


def _label(kind: _Kind) -> str:
    return f"{kind.name}, blocks of {kind.block}"


@dataclass
class _Witness:
    """A witness in a process of its own."""

    process: subprocess.Popen[str]
    key: NoteKey
    url: str


@dataclass
class _Bench:
    """A database, ledgers and witnesses, each with files of its own in one directory."""

    directory: Path
    witness_count: int
    rng: random.Random
    _witnesses: list[_Witness] = field(default_factory=list)
    _closing: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _ledgers: dict[_Kind, Ledger] = field(default_factory=dict)
    _number: int = 0

    def __enter__(self) -> _Bench:
        from lichen.crypto.keys import SigningKey

        self._check_extra()
        self.key, self.log_key = SigningKey.generate(), SigningKey.generate()
        path = self.directory / "database.sqlite"
        self._rows = sqlite3.connect(path, isolation_level=None)
        self._closing.callback(self._rows.close)
        self._rows.execute("PRAGMA journal_mode=WAL")
        self._rows.execute("PRAGMA synchronous=FULL")
        self._rows.execute("CREATE TABLE kept(idx INTEGER PRIMARY KEY, record BLOB NOT NULL)")
        return self

    def __exit__(self, *_: object) -> None:
        for witness in self._witnesses:
            witness.process.send_signal(signal.SIGTERM)
        for witness in self._witnesses:
            try:
                witness.process.wait(10)
            except subprocess.TimeoutExpired:
                witness.process.kill()
                witness.process.wait()
            if witness.process.stdout is not None:
                witness.process.stdout.close()
        self._closing.close()

    @staticmethod
    def _check_extra() -> None:
        from importlib.util import find_spec

        if find_spec("uvicorn") is None or find_spec("starlette") is None:
            raise UsageError(
                "witnesses are served by starlette and uvicorn, which are not installed",
                remedy="pip install 'lichen[web]'",
            )

    # -- what is compared --------------------------------------------------------------------------------------------

    def keep_rows(self, count: int) -> float:
        """Keep records as rows; return the processor seconds it took."""
        ledger = self._ledger(_Kind(0, _BLOCKS[0]))
        payloads = [statement.to_bytes() for statement in self._statements(ledger, count)]
        started = time.process_time()
        for payload in payloads:
            self._rows.execute("INSERT INTO kept(record) VALUES(?)", (payload,))
        return time.process_time() - started

    def keep_records(self, kind: _Kind, count: int) -> float:
        """Keep records in a ledger of one kind; return the processor seconds of all who took part."""
        from lichen.net.witness.collector import collect_cosignatures

        ledger = self._ledger(kind)
        policy = self._policy(ledger, kind.witness_count) if kind.witness_count else None
        statements = self._statements(ledger, count)
        taking_part = self._witnesses[: kind.witness_count]
        started = time.process_time() + _seconds_of(taking_part)
        for place, statement in enumerate(statements, start=1):
            is_last = place % kind.block == 0
            ledger.append_signed(statement, self.key, seal=is_last)
            if is_last and policy is not None:
                collected = collect_cosignatures(ledger, policy)
                if not collected.quorum.is_reached:
                    raise LichenError(f"a witness did not sign: {collected.to_json()}")
        return time.process_time() + _seconds_of(taking_part) - started

    def joules_per_second(self) -> Any:
        """What a second of a processor costs by the load model, as a measurement."""
        from lichen.runs.queries.balance import joules_of_own_seconds

        return joules_of_own_seconds(1.0, 64 << 20)

    # -- parts -------------------------------------------------------------------------------------------------------

    def _statements(self, ledger: Ledger, count: int) -> list[Statement]:
        from lichen.encoding.statement import Subject

        made = []
        for _ in range(count):
            self._number += 1
            subject = Subject("output/0", _digest("output", self._number))
            made.append(
                ledger.statement("run", [subject], _run(self.rng, self._number), member="experimenter")
            )
        return made

    def _ledger(self, kind: _Kind) -> Ledger:
        from lichen.contracts import default_contracts, default_versions
        from lichen.ledger.genesis import Admin, Genesis, Sealing
        from lichen.ledger.ledger import Ledger

        if kind not in self._ledgers:
            genesis = Genesis(
                name="trust ladder", created_unix_ms=0, admins=(Admin("experimenter", self.key.public),),
                log_key=self.log_key.public, contracts=default_versions(), nonce=os.urandom(12),
                sealing=Sealing("solo", 1_000_000, 86_400_000),
            )  # fmt: skip
            place = self.directory / f"ledger-{kind.witness_count}-{kind.block}"
            ledger = Ledger.create(place, genesis, self.log_key, default_contracts(), home=self.directory)
            self._ledgers[kind] = self._closing.enter_context(ledger)
        return self._ledgers[kind]

    def _policy(self, ledger: Ledger, count: int) -> Policy:
        from lichen.crypto.note import NoteKey
        from lichen.ledger.policy import parse_policy
        from lichen.ledger.witness_store import WitnessStore

        while len(self._witnesses) < count:
            self._witnesses.append(self._start_witness(len(self._witnesses) + 1))
        log_key = NoteKey(ledger.origin, self.log_key.public)
        lines = [f"log {log_key.vkey}"]
        for number, witness in enumerate(self._witnesses[:count], start=1):
            with WitnessStore.open(self._place(number), home=self._home(number)) as store:
                store.add_log(log_key)
            lines.append(f"witness W{number} {witness.key.vkey} {witness.url}")
        names = " ".join(f"W{number}" for number in range(1, count + 1))
        return parse_policy(
            "\n".join([*lines, f"group everybody all {names}", "quorum everybody", ""]).encode()
        )

    def _place(self, number: int) -> Path:
        return self.directory / f"witness-{number}"

    def _home(self, number: int) -> Path:
        return self.directory / f"home-{number}"

    def _start_witness(self, number: int) -> _Witness:
        from lichen.ledger.witness_store import WitnessStore

        place, home = self._place(number), self._home(number)
        with WitnessStore.create(place, f"experiment.example/w{number}", home=home) as store:
            key = store.identity.note_key
        process = subprocess.Popen(
            [sys.executable, "-m", "lichen", "witness", "serve", "--port", "0", "--directory", str(place)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, text=True,
            env={**os.environ, "LICHEN_HOME": str(home)},
        )  # fmt: skip
        assert process.stdout is not None
        try:
            url = _address(process.stdout)
        except BaseException:
            process.kill()
            process.wait()
            process.stdout.close()
            raise
        return _Witness(process, key, url)


def _address(told: IO[str]) -> str:
    """Where a witness answers, as it says when it does."""
    ready, _, _ = select.select([told], [], [], _START_SECONDS)
    line = told.readline() if ready else ""
    _, found, rest = line.partition(" at http://")
    if not found:
        raise LichenError(f"a witness did not start: {line!r}")
    return f"http://{rest.partition('/')[0]}/"


def _seconds_of(witnesses: Sequence[_Witness]) -> float:
    from lichen.energy.process_table import read_stat

    total = 0.0
    for witness in witnesses:
        stat = read_stat(witness.process.pid)
        if stat is None:
            raise LichenError("a witness ended in the midst of the experiment")
        total += stat.own_seconds
    return total


def _digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def _run(rng: random.Random, number: int) -> dict[str, Any]:
    """Draw a run of usual size: its parts, two data files, three metrics, its joules."""
    from lichen.encoding.base import b64u

    joules = round(rng.lognormvariate(5, 1.5), 3)
    return {
        "status": "trained", "reusable": True,
        "parts": {name: b64u(_digest(name, number)) for name in ("command", "code", "data", "rest")},
        "family": b64u(_digest("family", number % 200)[:16]),
        "data": [b64u(_digest("data", number % 50)), b64u(_digest("labels", number % 50))],
        "metrics": {name: round(rng.random(), 4) for name in ("accuracy", "f1", "loss")},
        "energy": {
            "joules": joules, "u95": 0.45, "method": "model", "boundary": "process", "seconds": round(joules / 40, 3),
            "device": "experiment", "parts": {"cpu": [joules, 0.45]},
        },
        "manifest": "bafkrei" + _digest("manifest", number).hex().translate(str.maketrans("0189", "abcd"))[:52],
    }  # fmt: skip


def _finding(
    settings: Mapping[str, float],
    kinds: Sequence[_Kind],
    seconds: Mapping[str, Sequence[float]],
    joules_per_second: float,
    energy_joules: float,
    relative_u95: float,
) -> Finding:
    rng = random.Random(int(settings["seed"]) + 1)  # noqa: S311 - resampling
    joules = {name: [value * joules_per_second for value in values] for name, values in seconds.items()}
    figures: dict[str, Any] = {}
    rows = []
    for name, values in joules.items():
        ratio = _interval(rng, values, joules[_DATABASE])
        figures[name] = {"joules_per_record": statistics.fmean(values), "times_database": ratio}
        rows.append(
            (
                name,
                f"{statistics.fmean(values) * 1e3:.3g}",
                f"{ratio[0]:.3g}",
                f"{ratio[1]:.3g}",
                f"{ratio[2]:.3g}",
            )
        )
    most = kinds[-1].witness_count
    per_party = {
        _label(kind): [value / (kind.witness_count + 1) for value in figures[_label(kind)]["times_database"]]
        for kind in kinds
    }
    holds = [
        all(per_party[_label(kind)][2] <= _LITTLE_MORE for kind in kinds if kind.block == block)
        for block in _BLOCKS
    ]
    fails = [
        any(per_party[_label(kind)][1] > _LITTLE_MORE for kind in kinds if kind.block == block)
        for block in _BLOCKS
    ]
    verdict = "confirmed" if all(holds) else "not confirmed" if all(fails) else "depends"
    solo, witnessed = (figures[_label(_Kind(number, _BLOCKS[-1]))] for number in (0, most))
    single = figures[_label(_Kind(most, 1))]["joules_per_record"]
    figures["times_database_per_party"] = per_party
    return Finding(
        verdict=verdict,
        summary=(
            f"A record costs {figures[_DATABASE]['joules_per_record'] * 1e3:.2g} mJ in a database, "
            f"{solo['joules_per_record'] * 1e3:.2g} mJ on rung 0 ({solo['times_database'][0]:.1f} times as much) and "
            f"{witnessed['joules_per_record'] * 1e3:.2g} mJ with {most} witnesses, in blocks of {_BLOCKS[-1]}; "
            f"with a checkpoint cosigned for every record {single * 1e3:,.0f} mJ. A training of 15 J pays for "
            f"{15 / single:,.0f} records of the dearest kind."
        ),
        columns=("kept as", "mJ per record", "times database", "low 95 %", "high 95 %"),
        rows=rows,
        figures=figures,
        curves=[
            Curve(
                _Kind(number, 1).name,
                list(_BLOCKS),
                [figures[_label(_Kind(number, block))]["joules_per_record"] * 1e3 for block in _BLOCKS],
            )
            for number in sorted({kind.witness_count for kind in kinds})
        ],
        x_label="records per checkpoint",
        y_label="millijoules per record",
        energy_joules=energy_joules,
        energy_relative_u95=relative_u95,
        seed=int(settings["seed"]),
        caveats=(
            "Processor seconds only: the disk, the network between organisations and idle machines are not in it.",
            "Witnesses here share one machine and answer over loopback; a machine that does nothing but witness idles at watts, "
            "whatever a cosignature costs.",
            f"'Little more' means at most {_LITTLE_MORE:g} times, for each party.",
            "The scale of the load model cancels in the ratios.",
        ),
    )


def _interval(
    rng: random.Random, values: Sequence[float], base: Sequence[float]
) -> tuple[float, float, float]:
    """Ratio of two means over the same rounds, with its 95 % interval."""
    places = range(len(values))
    drawn = sorted(
        statistics.fmean(values[place] for place in chosen)
        / statistics.fmean(base[place] for place in chosen)
        for chosen in _resamples(rng, places)
    )
    ratio = statistics.fmean(values) / statistics.fmean(base)
    return ratio, drawn[int(0.025 * len(drawn))], drawn[int(0.975 * len(drawn)) - 1]


def _resamples(rng: random.Random, places: range) -> Iterator[list[int]]:
    for _ in range(_BOOTSTRAP_COUNT):
        yield rng.choices(places, k=len(places))
