"""A small project, and a way to run a command in it under the tracer."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lichen.runs.trace.preload import build_library
from lichen.runs.trace.trace import Access, Trace
from lichen.runs.trace.tracer import Tracer


@dataclass
class Result:
    """A traced command that has ended."""

    trace: Trace
    status: int
    stdout: str
    stderr: str
    root: Path

    def names(self, *kinds: str) -> set[str]:
        """Paths of these kinds, relative to the project where they lie in it; modules' shadows left out."""
        return {
            self.name(access.path)
            for access in self.trace.every_access()
            if access.kind in kinds and access.by != frozenset({"import"})
        }

    def name(self, path: str) -> str:
        prefix = f"{self.root}/"
        return path[len(prefix) :] if path.startswith(prefix) else path

    def access(self, name: str, kind: str) -> Access:
        """The one access of this kind to this file."""
        found = [a for a in self.trace.every_access() if a.kind == kind and self.name(a.path) == name]
        assert len(found) == 1, (name, kind, [(a.kind, self.name(a.path)) for a in self.trace.every_access()])
        return found[0]


class Project:
    """A directory with files, in which commands are run under the tracer."""

    def __init__(self, root: Path, scratch: Path, compiled_cache: Path) -> None:
        self.root = root
        self.scratch = scratch
        self.compiled_cache = compiled_cache

    def write(self, name: str, content: str | bytes = "") -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = textwrap.dedent(content).encode()
        path.write_bytes(content)
        return path

    def run(
        self,
        *command: str,
        means: Sequence[str] | None = None,
        variables: Mapping[str, str] | None = None,
        stdin: str | None = None,
        watch: Sequence[Path] = (),
        during: Callable[[], object] | None = None,
        wrapped: bool = True,
    ) -> Result:
        """Run a command; a name ending in .py is run by this interpreter."""
        if command[0].endswith(".py"):
            command = (sys.executable, *command)
        tracer = Tracer(
            self.root,
            watch_directories=watch,
            means=means,
            scratch_directory=self.scratch,
            cache_directory=self.compiled_cache,
            command=command,
        )
        base = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "COLUMNS")}
        base |= variables or {}
        environment = tracer.environment(base)
        tracer.start()
        process = subprocess.Popen(
            tracer.wrap(command) if wrapped else command,
            cwd=self.root,
            env=environment,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        if stdin is not None:
            process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None
        while process.poll() is None:
            tracer.poll()
            if during is not None:
                during()
                during = None
            time.sleep(0.01)
        stdout, stderr = process.communicate()
        return Result(tracer.finish(), process.returncode, stdout, stderr, self.root)

    def script(self, text: str, *arguments: str, **options: object) -> Result:
        """Write ``main.py`` and run it."""
        self.write("main.py", text)
        return self.run("main.py", *arguments, **options)


@pytest.fixture(scope="session")
def compiled_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the preload library is kept during the tests."""
    return tmp_path_factory.getbasetemp().parent / "lichen-preload"


@pytest.fixture
def project(tmp_path: Path, compiled_cache: Path) -> Project:
    """An empty project."""
    root = tmp_path / "project"
    root.mkdir()
    return Project(root, tmp_path / "scratch", compiled_cache)


@pytest.fixture
def needs_preload(compiled_cache: Path) -> None:
    """Skip on machines where the preload library cannot be built."""
    if build_library(compiled_cache) is None:
        pytest.skip("the preload library needs 64-bit Linux and a C compiler")
