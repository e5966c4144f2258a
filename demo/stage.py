"""Where the demo plays: a scratch directory, who is speaking, and commands typed as a reader could type them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Broken", "Stage", "check", "say"]


class Broken(Exception):
    """An act did not keep its promise."""


@dataclass
class Stage:
    """Where the story plays: a scratch directory, and who is speaking."""

    root: Path
    member: str = "hospital-a"
    directory: Path = field(init=False)

    def __post_init__(self) -> None:
        self.directory = self.root / "hospital-a"

    def environment(self) -> dict[str, str]:
        """Return the environment of the member who acts."""
        drop = ("LICHEN_", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        tools = str(Path(sys.executable).parent)
        return {
            **kept,
            "PATH": tools + os.pathsep + kept.get("PATH", ""),
            "LICHEN_HOME": str(self.root / "home" / self.member),
            "LICHEN_MEMBER": self.member,
            **(
                {"LICHEN_LEDGER": str(self.root / "hospital-a" / ".lichen")}
                if self.member != "hospital-a"
                else {}
            ),
        }

    def type(self, line: str, *, expect: int = 0, lines_max: int = 24) -> str:
        """Type one command, show it and what it says, and return its standard output.

        Raises:
            Broken: The exit status is not the one expected.
        """
        shown = line if len(line) < 150 else line[:147] + "…"
        print(f"\n{self.member}$ {shown}", flush=True)
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line] if any(sign in line for sign in "|>;") else shlex.split(line),
            cwd=self.directory,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        seconds = time.monotonic() - started
        said = [text for text in (done.stdout.rstrip(), done.stderr.rstrip()) if text]
        lines = "\n".join(said).splitlines()
        for text in lines[:lines_max]:
            print(f"    {text}")
        if len(lines) > lines_max:
            print(f"    … {len(lines) - lines_max} more lines")
        print(
            f"    ({seconds:.2f} s{f', exit status {done.returncode}' if done.returncode else ''})",
            flush=True,
        )
        if done.returncode != expect:
            raise Broken(f"{line!r} ended with status {done.returncode}, {expect} was expected")
        return done.stdout

    def report(self, name: str) -> dict[str, object]:
        """Read a report that `lichen run --report` wrote."""
        value = json.loads((self.directory / name).read_text(encoding="utf-8"))
        assert isinstance(value, dict)
        return value


def say(text: str) -> None:
    """Tell the story."""
    print(f"\n{text}", flush=True)


def check(is_kept: bool, promise: str) -> None:
    """Stop the demo when a promise is not kept."""
    if not is_kept:
        raise Broken(promise)
