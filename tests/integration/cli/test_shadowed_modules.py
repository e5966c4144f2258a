"""Modules of a project are its command's to import, and never Lichen's, whatever they are called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lichen

SHADOWS = (
    "secrets", "struct", "sqlite3", "json", "hashlib", "tempfile", "subprocess", "shutil", "base64", "random",
    "dataclasses", "pathlib", "logging", "statistics", "socket", "platform", "difflib", "click",
    "cryptography", "pynvml", "tomllib", "ctypes", "math", "decimal", "fractions", "re",
)  # fmt: skip
TRAIN = """\
import os, secrets
print(secrets.WHO, os.environ["PYTHONPATH"])
open("model.txt", "w").write("weights")
"""
ENTRIES = {
    "console script": "import re\nimport sys\nfrom lichen.cli.main import main\nsys.exit(main())\n",
    "module": None,
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose modules are called like those of the standard library, and say so when they are imported."""
    root = tmp_path / "project"
    root.mkdir()
    for name in SHADOWS:
        told = f"open({str(root / 'imported.log')!r}, 'a').write('{name} ' + ' '.join(__import__('sys').argv) + chr(10))"
        (root / f"{name}.py").write_text(f"{told}\nWHO = 'the project'\n")
    (root / "train.py").write_text(TRAIN)
    return root


@pytest.fixture(params=ENTRIES)
def entry(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """How Lichen is called: by the script that an installer writes, or as a module."""
    script = ENTRIES[request.param]
    if script is None:
        return [sys.executable, "-m", "lichen"]
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lichen").write_text(script)
    return [sys.executable, str(tmp_path / "bin" / "lichen")]


def call(entry: list[str], project: Path, *words: str, path: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*entry, *words],
        cwd=project,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("path", [".", "{project}", "{project}/missing:{project}:", ""])
def test_lichen_imports_nothing_of_the_project(entry: list[str], project: Path, path: str) -> None:
    named = path.format(project=project)
    call(entry, project, "--help", path=named)
    call(entry, project, "init", "--member", "ada", path=named)
    report = project / "report.json"
    words = ("run", "--report", str(report), "--", sys.executable, "train.py")
    done = call(entry, project, *words, path=named)
    told = done.stdout.rstrip("\n")
    assert told.startswith("the project "), "the command imports its own modules"
    assert told.endswith(f"{os.pathsep}{named}" if named else "/agent"), (
        "behind that of the tracer its variable is kept"
    )
    assert json.loads(report.read_text())["status"] == "trained"
    call(entry, project, "verify", path=named)
    imported = [
        line
        for line in (project / "imported.log").read_text().splitlines()
        if "train.py" not in line.split()[1:2]
    ]
    if "module" in entry[1] or "-m" in entry:
        assert imported == []
    else:
        assert {line.split()[0] for line in imported} <= {"re"}, (
            "which the installer's script imports before Lichen runs"
        )


def test_what_lichen_needs_may_lie_in_pythonpath(tmp_path: Path) -> None:
    source = str(Path(lichen.__file__).parents[1])
    own = [entry for entry in sys.path if Path(entry, "click", "__init__.py").is_file()]
    shown = subprocess.run(
        [sys.executable, "-S", "-m", "lichen", "config", "list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([source, *own])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
