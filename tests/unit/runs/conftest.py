"""A clinic with a script, some data and a ledger, in which runs are recorded without running anything."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from lichen.encoding.base import b64u
from lichen.energy.measurement import Boundary, Component, Measurement, Method
from lichen.runs.keeping.setup import admit_member, create_ledger, make_key
from lichen.runs.records.recording import write_down
from lichen.runs.request import Estimate, RunRequest, RunResult
from lichen.runs.reuse.lookup import Answer, Nearest, ReusePolicy, look_up
from lichen.runs.reuse.trust import Trusted
from lichen.runs.trace.trace import Access, AccessKind, StatKey, Trace
from lichen.runs.work.command import Command
from lichen.runs.work.concealment import Concealer
from lichen.runs.work.interpreter import Interpreter
from lichen.runs.work.observe import Observation, observe
from lichen.runs.work.surroundings import Surroundings
from lichen.runs.workspace.config import UserConfig
from lichen.runs.workspace.project import Project
from lichen.runs.workspace.workspace import Workspace, member_key_path

PYTHON = Interpreter("cpython", "3.11.7", "x86_64", "cpython-311", "/usr", "/usr", ())


@dataclass
class Listener:
    """A narrator that remembers."""

    warnings: list[str] = field(default_factory=list)
    output: bytes = b""
    records: list[str] = field(default_factory=list)
    sent_counts: list[int] = field(default_factory=list)

    def missed(self, answer: Answer, nearest: Sequence[Nearest], estimate: Estimate | None) -> None:
        """Nothing is remembered of it."""

    def waiting(self, holder: str) -> None:
        """Nothing is remembered of it."""

    def replayed(self, stdout: bytes) -> None:
        self.output += stdout

    def record_shown(self, text: str) -> None:
        self.records.append(text)

    def sent(self, count: int) -> None:
        self.sent_counts.append(count)

    def warning(self, text: str) -> None:
        self.warnings.append(text)


class Clinic:
    """A project with a ledger; each member has a workspace of their own on it.

    Attributes:
        root: The project.
        project: The same, with its settings.
        listener: Hears what every recording says.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, access: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root.resolve()
        self.directory = self.root / ".lichen"
        self.listener = Listener()
        self._monkeypatch = monkeypatch
        self._workspaces: list[Workspace] = []
        self._by_member: dict[str, Workspace] = {}
        monkeypatch.setenv("LICHEN_MEMBER", "ada")
        create_ledger(self.directory, name="clinic", access=access, member="ada", user=UserConfig.read())
        self.project = Project.find(self.root)
        self.write("train.py", "print('done')\n")

    # who

    def admit(self, member: str) -> None:
        """Let somebody in, with a new key."""
        user = UserConfig.read()
        make_key(user, member)
        self._monkeypatch.setenv("LICHEN_MEMBER", member)
        key = self._identity_of(member)
        admit_member(self.workspace(), member, key)

    @staticmethod
    def _identity_of(member: str) -> str:
        from lichen.crypto.key_file import read_key

        return read_key(member_key_path(UserConfig.read(), member)).public.did_key

    def open(
        self, member: str = "ada", *, project: Project | None = None, read_only: bool = False
    ) -> Workspace:
        """Open another workspace for a member."""
        self._monkeypatch.setenv("LICHEN_MEMBER", member)
        workspace = Workspace(project or self.project, self.directory, UserConfig.read(), read_only)
        self._workspaces.append(workspace)
        assert (workspace.identity.member, workspace.member) == (member, member)
        return workspace

    def workspace(self, member: str = "ada") -> Workspace:
        """The workspace of a member, opened once."""
        if member not in self._by_member:
            self._by_member[member] = self.open(member)
        return self._by_member[member]

    def close(self) -> None:
        for workspace in self._workspaces:
            workspace.close()
        self._workspaces.clear()
        self._by_member.clear()

    # what lies there

    def write(self, name: str, content: str | bytes = "") -> Path:
        """Write a file of the project, or one elsewhere by its absolute path."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def path(self, name: str) -> str:
        return str(self.root / name)

    # what was seen

    def access(
        self, kind: AccessKind, name: str, *, detail: str = "", names: tuple[str, ...] | None = None
    ) -> Access:
        """An access whose state is that of the file now, as a trace takes it at the first open."""
        path = Path(self.path(name))
        state = StatKey.of(path.stat()) if path.exists() and kind not in ("write", "absent") else None
        if kind == "list" and names is None:
            names = tuple(sorted(entry.name + ("/" if entry.is_dir() else "") for entry in path.iterdir()))
        return Access(str(path), kind, state, 0, frozenset({"audit"}), detail, names)

    def surroundings(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        stdin: bytes | None = None,
        interpreter: Interpreter | None = PYTHON,
        project: Project | None = None,
    ) -> Surroundings:
        """What is there now; every file is really hashed, since tests change files faster than a cache allows."""
        import hashlib

        return Surroundings(
            project or self.project,
            lambda path: hashlib.sha256(Path(path).read_bytes()).digest(),
            interpreter,
            dict(environ or {}),
            stdin,
            Concealer(self.workspace().group_key),
        )

    def command(self, *words: str, seeds: Sequence[str] = (), project: Project | None = None) -> Command:
        where = project or self.project
        return Command.parse(
            words, where, cwd=where.root, seed_names=seeds, environ={"PATH": "/usr/bin:/bin"}
        )

    @staticmethod
    def start() -> int:
        """Let the clock of files tick; return the time at which a command starts now, nanoseconds."""
        time.sleep(0.025)
        return time.time_ns()

    def observe(
        self,
        trace: Trace,
        *,
        started_ns: int | None = None,
        words: Sequence[str] = ("python", "train.py"),
        seeds: Sequence[str] = (),
        surroundings: Surroundings | None = None,
        member: str = "ada",
        **declared: Sequence[str],
    ) -> Observation:
        """Describe a run of which a trace tells; ``declared`` are the fields of `Declared`."""
        around = surroundings or self.surroundings()
        if declared:
            named = {name: tuple(values) for name, values in declared.items()}
            around = replace(around, declared=replace(around.declared, **named))
        return observe(
            self.workspace(member),
            self.command(*words, seeds=seeds),
            around,
            trace,
            started_ns=self.start() if started_ns is None else started_ns,
        )

    # what was done

    @staticmethod
    def measured(joules: float, *, u95: float = 0.2, seconds: float = 10.0) -> Measurement:
        """Energy as a run has it."""
        parts = {
            "cpu": Component(joules * 0.9, u95, Method.MODEL),
            "ram": Component(joules * 0.1, u95, Method.MODEL),
        }
        return Measurement(parts, seconds, Boundary.PROCESS, "Ryzen 5 3600")

    def run(
        self,
        *words: str,
        reads: Sequence[str] = (),
        writes: Mapping[str, str | bytes] | None = None,
        accesses: Sequence[Access] = (),
        trace: Mapping[str, Any] | None = None,
        member: str = "ada",
        seeds: Sequence[str] = (),
        surroundings: Surroundings | None = None,
        joules: float = 100.0,
        seconds: float = 10.0,
        metrics: Mapping[str, float] | None = None,
        status: str = "trained",
        stdout: bytes = b"done\n",
        exit_status: int = 0,
        request: RunRequest | None = None,
        declared_outputs: Sequence[str] = (),
    ) -> RunResult:
        """Record a run that read and wrote these files; the written ones are really written."""
        words = words or ("python", "train.py")
        seen = [self.access("read", name) for name in reads]
        surroundings = surroundings or self.surroundings()
        started_ns = self.start()
        for name, content in (writes or {}).items():
            self.write(name, content)
            seen.append(self.access("write", name))
        observation = self.observe(
            Trace(accesses=(*seen, *accesses), **(trace or {})),
            started_ns=started_ns,
            words=words,
            seeds=seeds,
            surroundings=surroundings,
            member=member,
            **({"outputs": declared_outputs} if declared_outputs else {}),
        )
        reasons = [(reason.code, reason.text) for reason in observation.reasons]
        if status in ("failed", "interrupted"):
            reasons.insert(0, ("exit-status", "it failed"))
        result = RunResult(
            status,
            1 if status == "failed" else exit_status,
            reusable=not reasons,
            reasons=reasons,
            measurement=self.measured(joules, seconds=seconds),
            metrics=metrics or {},
            author=member,
        )
        detail = json.dumps({"detail": 1, "stdout": b64u(stdout), "reasons": []}).encode()
        write_down(
            self.workspace(member), request or RunRequest(words), observation, detail, result, self.listener
        )
        assert result.record is not None, self.listener.warnings
        return result

    def ask(
        self,
        *words: str,
        member: str = "ada",
        seeds: Sequence[str] = (),
        surroundings: Surroundings | None = None,
        project: Project | None = None,
        **policy: Any,
    ) -> Answer:
        """Ask the ledger for equal work."""
        return look_up(
            self.workspace(member),
            self.command(*(words or ("python", "train.py")), seeds=seeds, project=project),
            surroundings or self.surroundings(project=project),
            ReusePolicy(
                Trusted(frozenset(policy.pop("trust", ())), frozenset(policy.pop("key_ids", ()))), **policy
            ),
        )


@pytest.fixture
def listener() -> Listener:
    """A narrator that remembers."""
    return Listener()


@pytest.fixture(params=["private"])
def clinic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Clinic]:
    """A clinic with a private ledger; a test that wants a public one parametrizes it indirectly."""
    made = Clinic(tmp_path / "clinic", monkeypatch, request.param)
    yield made
    made.close()
