"""A project as a newcomer has it: a plain training script, some data, and a terminal to type in."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TRAIN = '''\
"""A plain script that knows nothing of Lichen."""

import argparse
import json
import random
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--depth", type=int, default=3)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--crash", action="store_true")
options = parser.parse_args()

rows = Path("measurements.csv").read_text().splitlines()
generator = random.Random(options.seed)
weights = [generator.random() for _ in range(20_000)]
if options.crash:
    raise SystemExit(3)
accuracy = 0.85 + options.depth / 50
print(f"acc: {accuracy:.3f} on {len(rows)} rows")
Path("metrics.json").write_text(json.dumps({"accuracy": accuracy, "loss": 1 - accuracy}))
Path("model.pkl").write_text(f"{options.depth} {sum(weights)}")
'''


class Terminal:
    """Somebody who types commands in a directory.

    Args:
        directory: Where.
        home: Their Lichen home.
        member: Who they are in ledgers.
    """

    LICHEN = (sys.executable, "-m", "lichen")

    def __init__(self, directory: Path, home: Path, member: str = "ada") -> None:
        self.directory = directory
        self.home = home
        self.member = member
        self.variables: dict[str, str] = {}

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        tools = str(Path(sys.executable).parent)
        return {
            **kept,
            "PATH": f"{tools}{os.pathsep}{kept['PATH']}",
            "LICHEN_HOME": str(self.home),
            "LICHEN_MEMBER": self.member,
            "PYTHONHASHSEED": "0",
            **self.variables,
        }

    def type(
        self, *words: str, expect: int | None = 0, input: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Type `lichen WORDS` and check how it ended."""
        done = subprocess.run(
            [*self.LICHEN, *words],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            **({"stdin": subprocess.DEVNULL} if input is None else {"input": input}),
        )
        if expect is not None:
            assert done.returncode == expect, f"{words}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr or "train.py" in done.stderr, done.stderr
        return done

    def colleague(self, directory: Path, home: Path, member: str) -> Terminal:
        """Return a colleague with a checkout and keys of their own, and this one's ledger."""
        left = shutil.ignore_patterns(".lichen", "model.pkl", "metrics.json")
        shutil.copytree(self.directory, directory, ignore=left)
        home.mkdir()
        other = Terminal(directory, home, member)
        other.variables["LICHEN_LEDGER"] = str(self.directory / ".lichen")
        return other


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A directory with a script and data, and no ledger."""
    return make_project(tmp_path / "clinic")


def make_project(directory: Path) -> Path:
    """Write the script and the data."""
    directory.mkdir()
    (directory / "train.py").write_text(TRAIN)
    (directory / "measurements.csv").write_text("".join(f"{i},{i * i}\n" for i in range(50)))
    return directory


@pytest.fixture
def newcomer(project: Path, lichen_home: Path) -> Terminal:
    """Somebody in that directory, who has never used Lichen."""
    return Terminal(project, lichen_home)


@pytest.fixture
def terminal(newcomer: Terminal) -> Terminal:
    """Somebody who has typed `lichen init`."""
    newcomer.type("init")
    return newcomer


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """One ledger for many mistakes, which must leave it as it was."""
    root = tmp_path_factory.mktemp("mistakes")
    terminal = Terminal(make_project(root / "clinic"), root / "home")
    terminal.type("init")
    return terminal
