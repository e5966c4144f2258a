"""Run a command under supervise and write how it ended as JSON: what the tests of supervise start and look at.

Usage: supervise_driver.py REPORT [--account] [--thread] [--stdin inherit] -- COMMAND...
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from lichen.runs.process.supervise import end_as, supervise


def main() -> None:
    report, *options = sys.argv[1 : sys.argv.index("--")]
    command = sys.argv[sys.argv.index("--") + 1 :]
    account = None
    if "--account" in options:
        from lichen.energy.attribution import TreeAccount

        account = TreeAccount()
    if "--thread" in options:  # one that takes signals away from the main thread
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    outcome = supervise(command, account=account, stdin="inherit" if "inherit" in options else "auto")
    described = {
        "exit_status": outcome.exit_status,
        "signal": outcome.signal,
        "interrupted": outcome.interrupted,
        "start_error": outcome.start_error,
        "stdout": outcome.stdout_capture.read_bytes().decode(errors="surrogateescape"),
        "stderr": outcome.stderr_capture.read_bytes().decode(errors="surrogateescape"),
        "stdout_bytes": outcome.stdout_capture.total_bytes,
        "merged": outcome.merged,
        "truncated": outcome.truncated,
        "stdin_kind": outcome.stdin.kind,
        "stdin_path": str(outcome.stdin.path),
        "stdin_bytes": outcome.stdin.size_bytes,
        "stdin_sha256": outcome.stdin.sha256.hex() if outcome.stdin.sha256 else None,
        "stdin_complete": outcome.stdin.complete,
        "warnings": list(outcome.warnings),
        "process_count": outcome.usage.process_count if outcome.usage else None,
        "children_left": children(),
    }
    if outcome.start_error:
        sys.stderr.write(f"{outcome.start_error}\n")
    temporary = Path(report).with_suffix(".tmp")
    temporary.write_text(json.dumps(described))
    temporary.rename(report)
    end_as(outcome)


def children() -> list[str]:
    """States and names of processes that are still ours."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = entry.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == os.getpid():
            found.append(f"{state} {name}")
    return found


if __name__ == "__main__":
    main()
