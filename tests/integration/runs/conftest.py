"""Somebody with a project and a ledger, who types commands as real processes."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LICHEN = (sys.executable, "-m", "lichen")
PATIENCE_SECONDS = 120

PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2


class Person:
    """Somebody at work in a directory.

    Args:
        directory: Where they are.
        home: Their Lichen home.
        member: Who they are in ledgers.

    Attributes:
        variables: Variables of theirs beyond those of the tests; None takes one away.
        output: What the last command wrote to standard output.
        told: What it said on standard error.
    """

    def __init__(self, directory: Path, home: Path, member: str) -> None:
        self.directory = directory
        self.home = home
        self.member = member
        self.variables: dict[str, str | None] = {}
        self.output = self.told = ""
        self._bound = False

    def without_privileges(self) -> None:
        """From now on permissions bind this person, even when the tests run as root."""
        self._bound = os.geteuid() == 0

    @property
    def ledger(self) -> Path:
        return self.directory / ".lichen"

    @property
    def environment(self) -> dict[str, str]:
        mine = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LICHEN_HOME": str(self.home),
            "LICHEN_MEMBER": self.member,
            "PYTHONHASHSEED": "0",
            **self.variables,
        }
        mine.pop("PYTHONDONTWRITEBYTECODE", None)
        return {name: value for name, value in mine.items() if value is not None}

    def write(self, name: str, content: str | bytes = "") -> Path:
        path = self.directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def read(self, name: str) -> str:
        return (self.directory / name).read_text()

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Type `lichen WORDS` and do not wait."""
        options = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **({"preexec_fn": _lose_privileges} if self._bound else {}),
            **options,
        }
        return subprocess.Popen([*LICHEN, *words], cwd=self.directory, env=self.environment, **options)

    def type(self, *words: str, expect: int = 0, piped: str | None = None, **options: Any) -> str:
        """Type `lichen WORDS`; return what it wrote to standard output."""
        if piped is not None:
            options["stdin"] = subprocess.PIPE
        with self.start(*words, **options) as process:
            self.output, self.told = process.communicate(piped, timeout=PATIENCE_SECONDS)
        assert process.returncode == expect, f"{words}: {process.returncode}\n{self.output}\n{self.told}"
        assert "bug in Lichen" not in self.told
        assert "lichen/src" not in self.told, "a traceback of Lichen's own"
        return self.output

    def run(self, *words: str, expect: int = 0, piped: str | None = None, **options: Any) -> dict[str, Any]:
        """Type `lichen run --report … WORDS`; return the report."""
        report = self.directory / ".lichen" / "report.json"
        report.unlink(missing_ok=True)
        self.type("run", "--report", str(report), *words, expect=expect, piped=piped, **options)
        return self.report

    @property
    def report(self) -> dict[str, Any]:
        value = json.loads((self.directory / ".lichen" / "report.json").read_text())
        assert isinstance(value, dict)
        return value

    def colleague(self, directory: Path, member: str) -> Person:
        """Somebody elsewhere with a copy of the project, keys of their own and this ledger, admitted to it."""
        shutil.copytree(self.directory, directory, ignore=shutil.ignore_patterns(".lichen", "*.out"))
        other = Person(directory, directory.parent / f"{member}-home", member)
        other.variables["LICHEN_LEDGER"] = str(self.ledger)
        (directory / ".lichen").mkdir()  # for reports; without a ledger in it
        other.type("key", "make")
        self.type("key", "admit", member, other.type("key", "show", "--public").strip())
        return other


def _lose_privileges() -> None:
    """Between fork and exec: let what is started next be bound by permissions, as root seldom is."""
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
        if libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "root may not give its capabilities away here")


@pytest.fixture
def newcomer(tmp_path: Path, lichen_home: Path) -> Person:
    """Somebody in an empty project without a ledger."""
    directory = tmp_path / "clinic"
    directory.mkdir()
    return Person(directory, lichen_home, "ada")


@pytest.fixture
def person(newcomer: Person) -> Person:
    """Somebody with a ledger."""
    newcomer.type("init")
    return newcomer
