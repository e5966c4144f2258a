"""Process trees whose processor seconds are known, for the tests of attribution.

Usage: process_trees.py SCENARIO TRUTH_FILE. Every process that burns time appends the seconds it used, by its own
account and as its last act, to TRUTH_FILE; forked ones leave through ``os._exit``, so next to nothing follows.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable


def own_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def burn(seconds: float) -> None:
    start = own_seconds()
    while own_seconds() - start < seconds:
        pass


def write_truth(seconds: float | None = None) -> None:
    line = f"{own_seconds() if seconds is None else seconds!r}\n".encode()
    descriptor = os.open(TRUTH, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(descriptor, line)
    os.close(descriptor)


def leave() -> None:
    """Say what this process used and be gone."""
    write_truth()
    os._exit(0)


def forked(work: Callable[[], None], *, quiet: bool = False) -> int:
    pid = os.fork()
    if pid == 0:
        work()
        if quiet:
            os._exit(0)
        leave()
    return pid


def write_waited() -> None:
    """Say what the children that were waited for used, their end included, by the kernel's account of children."""
    waited = resource.getrusage(resource.RUSAGE_CHILDREN)
    write_truth(waited.ru_utime + waited.ru_stime)


def alone() -> None:
    burn(0.4)


def short_children() -> None:
    """300 children of a few milliseconds each, waited for as they end."""
    for _ in range(300):
        os.waitpid(forked(lambda: burn(0.002), quiet=True), 0)
    write_waited()


def short_programs() -> None:
    """60 programs, with everything it takes to start and to end one."""
    for _ in range(60):
        subprocess.run(["/bin/sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done"], check=True)
    write_waited()


def daemons() -> None:
    """Four daemons by double fork in sessions of their own; they end after their parents."""

    def first() -> None:
        os.setsid()
        forked(lambda: burn(0.15))

    for _ in range(4):
        os.waitpid(forked(first), 0)


def abandoned() -> None:
    """A child that is never waited for and ends before its parent does."""
    pid = forked(lambda: burn(0.2))
    burn(0.3)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # look, but leave it


def ignored_long() -> None:
    """SIGCHLD ignored: the kernel drops the accounts of four children, one after another."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(4):
        forked(lambda: burn(0.4))
        try:
            os.wait()
        except ChildProcessError:
            continue


def ignored_short() -> None:
    """SIGCHLD ignored, and each child too short to be met for certain."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for _ in range(60):
        forked(lambda: burn(0.015))
        try:
            os.wait()
        except ChildProcessError:
            continue


def dropped_by_flag() -> None:
    """SA_NOCLDWAIT set while SIGCHLD is not ignored, which no process table shows."""
    import ctypes

    class Action(ctypes.Structure):
        _fields_ = (
            ("handler", ctypes.c_void_p),
            ("mask", ctypes.c_ubyte * 128),
            ("flags", ctypes.c_int),
            ("restorer", ctypes.c_void_p),
        )

    assert ctypes.CDLL(None).sigaction(signal.SIGCHLD, ctypes.byref(Action(flags=2)), None) == 0
    for _ in range(3):
        forked(lambda: burn(0.5))
        try:
            os.wait()
        except ChildProcessError:
            continue


def pool() -> None:
    with multiprocessing.get_context("fork").Pool(2) as workers:
        workers.map(burn, [0.05] * 8)
        workers.close()
        workers.join()
    write_waited()


def loky() -> None:
    from joblib import Parallel, delayed

    Parallel(n_jobs=2, backend="loky")(delayed(burn)(0.1) for _ in range(6))


def thousand() -> None:
    """1,000 children alive at once."""
    children = [forked(lambda: time.sleep(0.5), quiet=True) for _ in range(1000)]
    for pid in children:
        os.waitpid(pid, 0)
    write_waited()


def lingering() -> None:
    """Leaves a daemon behind that lives on; its process id goes to standard output."""

    def first() -> None:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            burn(0.1)
            write_truth()
            os.close(1)
            time.sleep(60)
            os._exit(0)
        os.write(1, f"{pid}\n".encode())

    os.waitpid(forked(first), 0)


SCENARIOS = {
    function.__name__: function
    for function in (
        alone,
        short_children,
        short_programs,
        daemons,
        abandoned,
        ignored_long,
        ignored_short,
        dropped_by_flag,
        pool,
        loky,
        thousand,
        lingering,
    )
}

if __name__ == "__main__":
    scenario, TRUTH = sys.argv[1:3]
    SCENARIOS[scenario]()
    sys.stdout.flush()
    if scenario == "loky":
        sys.exit()  # its workers are ended by exit handlers
    leave()
