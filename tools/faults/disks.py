"""Disks that are full, read-only or failing: what is reported, what was acknowledged, and whether it works again afterwards.

Run as a program of its own, so that limits and preloaded libraries touch nothing else::

    python -m faults.disks ROOT --appends 40 [--file-bytes N] [--checkpoint-every N]

It appends to the ledger there and prints a line of JSON: what was acknowledged, and which errors were reported.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.site import Site, payload_digest
from lichen.errors import LichenError, StorageError

__all__ = ["append_on", "build_failing_disk", "can_mount", "check_durable", "compiler", "restore_durable"]

SHIM = Path(__file__).with_name("failing_disk.c")


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), None)


def build_failing_disk(directory: Path) -> Path:
    """Compile the library that loses what was not synced.

    Raises:
        RuntimeError: There is no compiler, or it refuses.
    """
    command, library = compiler(), directory / "failing_disk.so"
    if command is None:
        raise RuntimeError("there is no C compiler")
    words = [command, "-O1", "-shared", "-fPIC", "-o", str(library), str(SHIM), "-ldl", "-lpthread"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the library does not compile:\n{done.stderr}")
    return library


def can_mount() -> bool:
    """Whether this user may mount something in a namespace of its own."""
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return False
    tried = subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False
    )
    return tried.returncode == 0


def append_on(
    root: Path, *words: str, before: Sequence[str] = (), environment: dict[str, str] | None = None
) -> dict[str, Any]:
    """Run this module as a program.

    Args:
        root: Of the site.
        words: Options.
        before: Words before the command, such as ``unshare …``.
        environment: Variables to add.

    Returns:
        ``acknowledged`` (index by payload digest) and ``errors`` (codes with messages).
    """
    paths = os.pathsep.join([str(Path(__file__).parent.parent), *filter(None, sys.path)])
    done = subprocess.run(
        [*before, sys.executable, "-m", "faults.disks", str(root), *words],
        env={**os.environ, "PYTHONPATH": paths, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not done.stdout:
        raise RuntimeError(f"the program ended with status {done.returncode}:\n{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def restore_durable(site: Site) -> None:
    """Put the files in place that the failing disk would hold after a power cut."""
    for path in site.directory.iterdir():
        if path.suffix != ".durable":
            path.unlink()
    for durable in site.directory.glob("*.durable"):
        durable.replace(durable.with_suffix(""))


def check_durable(site: Site, acknowledged: dict[str, int]) -> dict[str, Any]:
    """Say what of the acknowledged is lost, whether the audit finds anything, and whether appending works again."""
    rng = random.Random(77)
    with site.opened() as ledger:
        lost = [
            index
            for digest, index in acknowledged.items()
            if index >= ledger.size or payload_digest(ledger.entry(index)) != digest
        ]
        after = ledger.append(site.entry(ledger, rng), seal=True).index
    problem = site.audit().problem
    return {
        "lost": lost,
        "problem": None if problem is None else problem.message,
        "appended_after": after,
    }


def main() -> None:
    """Do what the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--appends", type=int, default=40)
    parser.add_argument("--file-bytes", type=int, default=0, help="no file may grow beyond this")
    parser.add_argument("--reopen", action="store_true", help="open the ledger anew after an error")
    parser.add_argument(
        "--unsynced", action="store_true", help="let SQLite not sync: what the disk is tried with"
    )
    parser.add_argument("--fold-every", type=int, default=0, help="fold the write-ahead log in so often")
    options = parser.parse_args()
    site = Site(options.root)
    rng = random.Random(options.appends)
    acknowledged: dict[str, int] = {}
    errors: list[tuple[str, str]] = []
    if options.file_bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (options.file_bytes, resource.RLIM_INFINITY))
    try:
        ledger = site.open()
        for number in range(options.appends):
            entry = site.entry(ledger, rng)
            try:
                acknowledged[payload_digest(entry)] = ledger.append(entry, seal=number % 3 == 0).index
                if options.fold_every and number % options.fold_every == options.fold_every - 1:
                    ledger._log.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.Error as error:  # folding is SQLite's own, and not asked through the ledger
                errors.append(("sqlite", str(error)))
            except StorageError as error:
                errors.append((error.code, error.message))
                if options.reopen:
                    ledger = site.open()
            except LichenError as error:
                errors.append((error.code, error.message))
    except LichenError as error:
        errors.append((error.code, error.message))
    print(json.dumps({"acknowledged": acknowledged, "errors": errors}), flush=True)
    os._exit(0)  # as a power cut ends it: nothing is closed, sealed or folded in


if __name__ == "__main__":
    main()
