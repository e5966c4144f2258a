"""Taking signals over and giving them back, while they come in."""

from __future__ import annotations

import subprocess
import sys
import textwrap


def test_ends_of_children_told_to_other_threads_leave_no_race_behind() -> None:
    """A storm of SIGCHLD while handlers come and go: Python once complained of a race in whatever ran next."""
    program = textwrap.dedent(
        """
        import os, signal, subprocess, sys, threading, time
        from lichen.runs.process.signal_relay import SignalRelay
        for _ in range(2):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        complaints = []
        sys.unraisablehook = lambda told: complaints.append(str(told.exc_value))
        storm = f"import os, signal\\nwhile True: os.kill({os.getpid()}, signal.SIGCHLD)"
        child = subprocess.Popen([sys.executable, "-c", storm], stderr=subprocess.DEVNULL)
        for _ in range(2000):
            with SignalRelay():
                pass
        child.kill()
        child.wait()
        print(len(complaints))
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
