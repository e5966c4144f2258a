"""One script of the stale-hit campaign in a small world of its own, and the three ways in which the campaign asks about it.

A scene owns everything a mutation may change: project, a data directory outside it, a home directory, two directories at the front of
PATH, a private interpreter environment with installed distributions, variables, standard input, working directory. The truth is
learnt without Lichen: the plain command is run in the mutated world, and what it leaves is compared with what a hit promises.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import marshal
import os
import random
import shutil
import struct
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from stale_corpus import Case
from stale_distributions import install, site_of

LICHEN = str(Path(sys.executable).parent / "lichen")
_PLACES = {"@": "outside", "~": "home", "%": "bin"}
_SECONDS_MAX = 120


def campaign_environment(root: Path) -> dict[str, str]:
    """Variables that a scene in a directory starts from: nothing of this campaign's own Lichen, XDG or Python ones."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LICHEN_", "XDG_", "PYTHON"))
        and name not in ("VIRTUAL_ENV", "LD_LIBRARY_PATH")
    }
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return {**kept, "LICHEN_HOME": str(root / "lichen-home"), "XDG_CACHE_HOME": cache}


@dataclass(frozen=True)
class Truth:
    """What the plain command does in one state of its world.

    Args:
        exit_status: Of the command.
        made: Digest of the file it leaves, ``nothing`` when it leaves none.
        printed: Digest of its standard output.
    """

    exit_status: int
    made: str
    printed: str


@dataclass(frozen=True)
class Told:
    """What the ledger says to a request.

    Args:
        kind: ``hit``, ``offer``, ``same-work`` or ``miss``.
        record: Index of the entry that answers.
        promised: Digest of the file a hit would restore, ``nothing`` when none.
        exit_status: Exit status a hit would leave with.
        section: Section of the manifest that the first difference behind a miss is in.
        why: That difference in words.
    """

    kind: str
    record: int | None = None
    promised: str = ""
    exit_status: int = 0
    section: str = ""
    why: str = ""


def run_instead(source: Path) -> bytes:
    """Return the bytecode that Python would run for a source and that was compiled from another text; nothing where there is none."""
    if source.suffix != ".py":
        return b""
    try:
        data = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        info = source.stat()
        passes = data[:4] == importlib.util.MAGIC_NUMBER and data[4:16] == struct.pack(
            "<III", 0, int(info.st_mtime), info.st_size
        )
        if not passes:
            return b""
        ran = marshal.loads(data[16:])
        return (
            b"" if compile(source.read_bytes(), ran.co_filename, "exec", dont_inherit=True) == ran else data
        )
    except (OSError, ValueError, EOFError, TypeError, SyntaxError):
        return b""


@dataclass
class Scene:
    """One case laid out.

    Args:
        case: Script and what it depends on.
        root: Directory of the scene.
        rng: Drives every choice.
        environment: Variables the scene starts from.
    """

    case: Case
    root: Path
    rng: random.Random
    environment: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    truths: dict[str, Truth] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def site(self) -> Path:
        """Directory of installed distributions that the scene may change."""
        if self.case.interpreter == "user":
            return site_of(self.root / "home" / ".local")
        return site_of(self.root / "env")

    @property
    def stdin(self) -> Path:
        return self.root / "stdin.txt"

    def path(self, name: str) -> Path:
        """Turn a name of a case into a path: ``@`` outside the project, ``~`` home, ``%`` on PATH, ``^`` installed."""
        if name.startswith("^"):
            return self.site / name[1:]
        return self.root / _PLACES[name[0]] / name[1:] if name[0] in _PLACES else self.project / name

    def lay_out(self) -> None:
        """Make the world and an empty ledger in it."""
        for directory in ("project", "outside", "home", "bin/early", "bin/late"):
            (self.root / directory).mkdir(parents=True)
        if self.case.interpreter == "venv":
            venv.EnvBuilder(symlinks=True, with_pip=False).create(self.root / "env")
        for distribution in self.case.distributions:
            install(self.site, distribution, outside=self.root / "outside")
        for name, source in self.case.code.items():
            self.write(name, source.encode())
        for name, writer in self.case.data.items():
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            writer(self.path(name), 1)
        for name, targets in self.case.links.items():
            self.path(name).symlink_to(targets[0])
        self.variables.update(self.case.preset)
        if self.case.prepare is not None:
            self.case.prepare(self)
        self.stdin.write_text("given\n")
        done = self.lichen("init", "--member", "campaign")
        if done.returncode:
            raise RuntimeError(f"{self.case.name}: {done.stderr}")

    def write(self, name: str, content: bytes) -> None:
        """Write a file of the scene; what stands on PATH is executable."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        if name.startswith("%") or content.startswith(b"#!"):
            path.chmod(0o755)

    def command(self) -> list[str]:
        """Return the command line."""
        program = self.case.program
        if program is None:
            base = os.path.realpath(sys.executable)
            program = {"venv": str(self.root / "env/bin/python"), "user": base}.get(
                self.case.interpreter, sys.executable
            )
        return [program, *(word.replace("{outside}", str(self.root / "outside")) for word in self.case.argv)]

    def full_environment(self) -> dict[str, str]:
        """Return the variables the command sees."""
        found = {
            **self.environment, "HOME": str(self.root / "home"),
            "PATH": os.pathsep.join([str(self.root / "bin/early"), str(self.root / "bin/late"), self.environment["PATH"]]),
        }  # fmt: skip
        if self.case.library_path:
            found["LD_LIBRARY_PATH"] = f"{self.root}/outside/early:{self.root}/outside/late"
        return {**found, **self.variables}

    def lichen(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a Lichen command in the project."""
        with self.stdin.open("rb") if self.case.reads_stdin else Path(os.devnull).open("rb") as given:
            return subprocess.run(
                [LICHEN, *words], cwd=self.project, env=self.full_environment(), capture_output=True, text=True,
                stdin=given, check=False, timeout=_SECONDS_MAX,
            )  # fmt: skip

    def clear_outputs(self) -> None:
        """Take away what runs make."""
        shutil.rmtree(self.project / "out", ignore_errors=True)

    def record(self, *, rerun: bool = True) -> dict[str, object]:
        """Ask with `lichen run`; return its report, with digests of what it left and printed.

        Args:
            rerun: Record the present state anew, whatever the ledger knows.
        """
        self.clear_outputs()
        report = self.root / "report.json"
        report.unlink(missing_ok=True)
        words = ["--rerun"] if rerun else []
        done = self.lichen("run", *words, "--exit-ok", "--report", str(report), "--", *self.command())
        if not report.exists():
            raise RuntimeError(f"{self.case.name}: {done.stderr}")
        told: dict[str, object] = json.loads(report.read_text())
        return {**told, "made": self.outcome(), "printed": digest(done.stdout.encode())}

    def state(self) -> str:
        """Digest everything a script can see of its scene: names, contents, links, modes and times of files, and variables.

        Bytecode is no content of its own, but what Python runs in place of a source where it is of another text.
        """
        self.clear_outputs()
        hashed = hashlib.sha256(repr(sorted(self.variables.items())).encode())
        for name in ("project", "outside", "home", "bin", "env", "stdin.txt"):
            root = self.root / name
            for path in (root, *sorted(root.rglob("*"))):
                if {".lichen", "__pycache__", "lib64"} & set(path.parts) or not os.path.lexists(path):
                    continue
                info = os.lstat(path)
                content = b""
                if path.is_symlink():
                    content = os.fsencode(path.readlink())
                elif path.is_file():
                    content = path.read_bytes() + run_instead(path)
                    if self.case.sees_times:
                        content += str(info.st_mtime_ns).encode()
                hashed.update(f"{path.relative_to(self.root)}\0{info.st_mode}\0".encode() + content + b"\0")
        return hashed.hexdigest()

    def truth(self) -> Truth:
        """Return what the plain script does in this state; run once for each state."""
        state = self.state()
        if state not in self.truths:
            self.truths[state] = self.run_plainly()
        return self.truths[state]

    def run_plainly(self) -> Truth:
        """Run the script without Lichen."""
        self.clear_outputs()
        with self.stdin.open("rb") if self.case.reads_stdin else Path(os.devnull).open("rb") as given:
            done = subprocess.run(
                self.command(), cwd=self.project, env={**self.full_environment(), "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True, stdin=given, check=False, timeout=_SECONDS_MAX,
            )  # fmt: skip
        truth = Truth(done.returncode, self.outcome(), digest(done.stdout))
        self.clear_outputs()
        return truth

    def outcome(self) -> str:
        """Digest what the script has left, permission bits included."""
        result = self.project / "out" / "result.txt"
        if not result.exists():
            return "nothing"
        return digest(result.read_bytes())

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Be, for a moment, a process started in this scene."""
        before, directory, own_stdin = dict(os.environ), Path.cwd(), os.dup(0)
        given = os.open(self.stdin if self.case.reads_stdin else os.devnull, os.O_RDONLY)
        os.dup2(given, 0)
        os.close(given)
        os.environ.clear()
        os.environ.update(self.full_environment())
        os.chdir(self.project)
        try:
            yield
        finally:
            os.chdir(directory)
            os.environ.clear()
            os.environ.update(before)
            os.dup2(own_stdin, 0)
            os.close(own_stdin)

    def ask(self) -> Told:
        """Ask the ledger in process what it would do."""
        from lichen.runs.request import RunRequest
        from lichen.runs.reuse.why import explain
        from lichen.runs.workspace.workspace import Workspace

        self.clear_outputs()
        with self.entered(), Workspace.find() as workspace:
            told = explain(workspace, RunRequest(argv=tuple(self.command()), exit_ok=True))
        answer = told.answer
        if answer.kind != "hit" or answer.manifest is None or answer.run is None:
            section = answer.difference.section if answer.difference else "none"
            return Told(answer.kind, section=section, why=" ".join(told.lines).replace(str(self.root), "…"))
        stored = {output.name: output.sha256 for output in answer.manifest.outputs}
        made = stored.get("{project}/out/result.txt")
        return Told("hit", answer.run.index, made.hex() if made else "nothing", answer.run.exit_status or 0)


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()
