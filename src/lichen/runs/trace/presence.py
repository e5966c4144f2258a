"""Which traced runs were going on at once in the same directories.

The directory watch cannot tell whose writes it sees. Where it is relied upon, runs announce themselves to each other through
small files in a directory of the user's, so that one does not take another's outputs for its own.
"""

# Paths are the run's own strings.

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lichen.encoding.foreign_json import read_json
from lichen.runs.trace.procfs import is_running

__all__ = ["Presence"]


@dataclass
class Presence:
    """This run's announcement.

    Attributes:
        path: Its file; None when none could be made, which counts as having met somebody.
    """

    path: Path | None

    @classmethod
    def announce(cls, roots: Sequence[str]) -> Presence:
        """Tell others, and note those that are there already.

        Args:
            roots: Absolute directories that are watched.
        """
        folder = Path(tempfile.gettempdir()) / f"lichen-runs-{os.getuid()}"
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            if folder.stat().st_uid != os.getuid():
                return cls(None)
            own = folder / f"{os.getpid()}-{time.monotonic_ns()}.json"
            text = json.dumps({"pid": os.getpid(), "since_ns": time.monotonic_ns(), "roots": list(roots)})
            own.write_text(text + "\n", encoding="utf-8", errors="surrogateescape")
            for other in folder.glob("*.json"):
                if other != own and _overlaps(other, roots):
                    for path in (own, other):
                        with path.open("a", encoding="utf-8") as file:
                            file.write("met\n")
        except OSError:
            return cls(None)
        return cls(own)

    def withdraw(self) -> bool:
        """Remove the announcement.

        Returns:
            True when another run was in the same directories at some time since.
        """
        if self.path is None:
            return True
        try:
            return b"\nmet" in self.path.read_bytes()
        except OSError:
            return True
        finally:
            with contextlib.suppress(OSError):
                self.path.unlink()


def _overlaps(other: Path, roots: Sequence[str]) -> bool:
    """Say whether another announcement is of a live run with a directory in common; a dead one's file is removed."""
    try:
        facts = read_json(other.read_text(encoding="utf-8", errors="surrogateescape").partition("\n")[0])
        if not is_running(int(facts["pid"]), int(facts["since_ns"])):
            other.unlink(missing_ok=True)
            return False
        theirs = [str(root) for root in facts["roots"]]
    except (OSError, ValueError, KeyError, TypeError):
        return True  # being written just now
    return any(
        f"{own}/".startswith(f"{root}/") or f"{root}/".startswith(f"{own}/")
        for own in roots
        for root in theirs
    )
