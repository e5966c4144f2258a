"""Concurrent writers, killed with SIGKILL at random moments: what was acknowledged must be there.

Run as a program of its own, so that it forks from a process without threads::

    python -m faults.writers ROOT --writers 4 --kills 60 --seed 1
    python -m faults.writers ROOT --writers 8 --appends 1000

It prints what was acknowledged and killed as one line of JSON.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from faults.site import Site, payload_digest
from lichen.encoding.statement import Statement
from lichen.ledger.ledger import Ledger

__all__ = ["Outcome", "check", "run"]

BATCH_COUNT_MAX = 12


@dataclass
class Outcome:
    """What came of it.

    Args:
        acknowledged: Index by payload digest of every append that returned.
        told_by: The same by writer, in the order in which each was told.
        kill_count: Writers that were killed.
        failure_count: Writers that ended by themselves though they should not have.
        complaints: What those said.
        seconds: Wall time.
    """

    acknowledged: dict[str, int] = field(default_factory=dict)
    told_by: list[list[int]] = field(default_factory=list)
    kill_count: int = 0
    failure_count: int = 0
    complaints: str = ""
    seconds: float = 0.0


def run(root: Path, **options: int) -> Outcome:
    """Run this module as a program and read what it printed.

    Args:
        root: Where the site is; its ledger is made when there is none.
        options: ``writers``, ``kills``, ``appends``, ``seed``.
    """
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-m", "faults.writers", str(root), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the writers ended with status {done.returncode}:\n{done.stderr}")
    return replace(Outcome(**json.loads(done.stdout.splitlines()[-1])), complaints=done.stderr)


def check(site: Site, outcome: Outcome) -> dict[str, Any]:
    """Compare what was acknowledged with what is there.

    Returns:
        ``lost``: acknowledged and not there, or at another index; ``twice``: payloads that stand at two indices; ``problem``:
        what the audit found; ``size``: entries; ``unacknowledged``: records that are there though nobody was told.
    """
    there: dict[str, int] = {}
    twice = records = 0
    with site.opened() as ledger:  # which seals what waits when it is closed, so records are counted here
        for index, entry in ledger.entries():
            records += Statement.from_bytes(entry.payload).kind not in {"genesis", "seal"}
            digest = payload_digest(entry)
            twice += digest in there
            there[digest] = index
        size = ledger.size
    lost = sum(there.get(digest) != index for digest, index in outcome.acknowledged.items())
    report = site.audit()
    return {
        "acknowledged": len(outcome.acknowledged),
        "lost": lost,
        "twice": twice,
        "size": size,
        "unacknowledged": records - len(outcome.acknowledged),
        "problem": None if report.problem is None else report.problem.message,
    }


# -- the program -------------------------------------------------------------------------------------------------------


@dataclass
class _Writer:
    process: int
    pipe: int
    heard: bytes = b""


def _write(site: Site, seed: int, appends: int, pipe: int) -> None:
    """Append until killed, or so many times; say after each what was acknowledged."""
    rng = random.Random(seed)
    ledger = site.open()
    done = 0
    while not appends or done < appends:
        count = 1 if appends or rng.random() < 0.6 else rng.randrange(2, BATCH_COUNT_MAX)
        entries = site.entries(ledger, rng, count)
        seal = rng.random() < 0.4
        told = _append(ledger, entries, seal)
        lines = [f"{index} {payload_digest(entry)}\n" for index, entry in zip(told, entries, strict=True)]
        os.write(pipe, "".join(lines).encode())  # at most PIPE_BUF, so whole or not at all
        done += count
    ledger.close()


def _append(ledger: Ledger, entries: list[Any], seal: bool) -> list[int]:
    if len(entries) == 1:
        return [ledger.append(entries[0], seal=seal).index]
    results = ledger.append_many(entries, seal=seal)
    return [int(result.index) for result in results]  # type: ignore[union-attr]


def _start(site: Site, seed: int, appends: int) -> _Writer:
    reading, writing = os.pipe()
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(reading)
            _write(site, seed, appends, writing)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    os.close(writing)
    return _Writer(process, reading)


def _listen(writers: list[_Writer], seconds: float) -> None:
    """Read what writers say for a while, so that no pipe fills up."""
    until = time.monotonic() + seconds
    by_pipe = {writer.pipe: writer for writer in writers}
    while by_pipe and (left := until - time.monotonic()) > 0:
        for pipe in select.select(list(by_pipe), [], [], left)[0]:
            data = os.read(pipe, 1 << 16)
            by_pipe[pipe].heard += data
            if not data:
                del by_pipe[pipe]


def _end(writer: _Writer, outcome: Outcome, *, killed: bool) -> None:
    """Hear a writer out, reap it, and note what it said."""
    while data := os.read(writer.pipe, 1 << 16):
        writer.heard += data
    os.close(writer.pipe)
    _, status = os.waitpid(writer.process, 0)
    outcome.failure_count += status != (signal.SIGKILL if killed else 0)
    told = []
    for line in writer.heard.decode().splitlines():
        index, digest = line.split()
        outcome.acknowledged[digest] = int(index)
        told.append(int(index))
    outcome.told_by.append(told)


def main() -> None:
    """Do what the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--appends", type=int, default=0, help="appends of each writer; 0 until it is killed")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    site, outcome = Site(options.root), Outcome()
    if not site.path.exists():
        site.create().close()
    gc.freeze()
    rng = random.Random(options.seed)
    started = time.monotonic()
    seeds = iter(range(options.seed * 1_000_003, 2**62))
    writers = [_start(site, next(seeds), options.appends) for _ in range(options.writers)]
    for _ in range(options.kills):
        _listen(writers, rng.expovariate(1 / 0.05))
        writer = writers.pop(rng.randrange(len(writers)))
        os.kill(writer.process, signal.SIGKILL)
        _end(writer, outcome, killed=True)
        outcome.kill_count += 1
        writers.append(_start(site, next(seeds), options.appends))
    for writer in writers:
        if options.kills:
            os.kill(writer.process, signal.SIGKILL)
        _end(writer, outcome, killed=bool(options.kills))
    outcome.seconds = round(time.monotonic() - started, 2)
    print(json.dumps(outcome.__dict__))


if __name__ == "__main__":
    main()
