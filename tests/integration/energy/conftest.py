"""Tests of accounting run in a process of their own: they reap every child they have, and would reap others' too.

A test marked ``own_process`` is forked off. The fork has no children, adopts nobody's, and ends with the test; what it
raised is raised again here. Fixtures are set up and torn down on this side.
"""

from __future__ import annotations

import os
import signal
import traceback
import warnings

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Call a test that asks for it in a forked process."""
    if pyfuncitem.get_closest_marker("own_process") is None:
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # the runner's own threads are not used in the fork
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        _call_and_leave(pyfuncitem, arguments, writing)
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read().decode(errors="replace")
    except BaseException:
        os.kill(pid, signal.SIGKILL)  # the test took too long
        raise
    finally:
        _, status = os.waitpid(pid, 0)
    if told or status:
        pytest.fail(told or f"the test's process ended with wait status {status}", pytrace=False)
    return True


def _call_and_leave(item: pytest.Function, arguments: dict[str, object], writing: int) -> None:
    """Run the test in this fork, tell what it raised, and be gone without the runner's exit handlers."""
    try:
        item.obj(**arguments)
        with pytest.raises(ChildProcessError):  # no test leaves a child unreaped
            os.waitpid(-1, os.WNOHANG)
    except BaseException:
        os.write(writing, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)
