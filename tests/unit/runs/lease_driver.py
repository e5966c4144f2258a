"""Take a lease, do something, give it back: the other processes in the tests of leases.

Usage: lease_driver.py DIRECTORY ACTION [ARGUMENT...]
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from lichen.runs.reuse.lease import Lease

DIRECTORY = Path(sys.argv[1])
PATIENCE_SECONDS = 30


def say(text: str) -> None:
    print(text, flush=True)


def wait_for(path: Path) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not path.exists():
        if time.monotonic() > end:
            raise SystemExit(f"waited in vain for {path}")
        time.sleep(0.005)


def hold(key: str, until: str) -> None:
    """Hold a lease until a file appears."""
    with Lease(DIRECTORY, key).acquire(on_wait=lambda who: say(f"waiting for {who}")) as held:
        say(f"held owned={held.owned} waited={held.waited}")
        wait_for(Path(until))


def count(key: str, rounds: str, counter: str) -> None:
    """Count up in a file, in a way that loses counts if two do it at once."""
    path = Path(counter)
    for _ in range(int(rounds)):
        with Lease(DIRECTORY, key).acquire() as held:
            assert held.owned, held.note
            value = int(path.read_text() or "0")
            time.sleep(0.0005)
            path.write_text(str(value + 1))


def nest(outer: str, inner: str, ready: str, go: str, mark: str) -> None:
    """Hold one lease and start a process that wants another one."""
    with Lease(DIRECTORY, outer).acquire() as held:
        environment = dict(os.environ)
        if mark == "mark":
            held.mark(environment)
        Path(ready).touch()
        wait_for(Path(go))
        words = [sys.executable, __file__, str(DIRECTORY), "take", inner]
        subprocess.run(words, env=environment, check=True, timeout=PATIENCE_SECONDS)


def take(key: str) -> None:
    """Take a lease and give it back at once."""
    with Lease(DIRECTORY, key).acquire() as held:
        say(f"owned={held.owned} waited={held.waited} note={held.note}")


{"hold": hold, "count": count, "nest": nest, "take": take}[sys.argv[2]](*sys.argv[3:])
