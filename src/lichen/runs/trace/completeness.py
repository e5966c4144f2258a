"""Decide whether anything a result depends on can be missing from a trace.

With the preload library every program that starts must announce itself, and every Python among them must have its agent. Without it,
only Python is seen: any other program, and any library known to open files natively, could have read what nobody saw.
Every doubt is a reason, and a trace with a reason is not complete.
"""

# Paths are the run's own strings.
# ruff: noqa: PTH113, PTH118, PTH119

from __future__ import annotations

import contextlib
import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lichen.runs.trace import programs
from lichen.runs.trace.agent_log import AgentLog, StartEvent
from lichen.runs.trace.preload_log import Image, PreloadLog, Started
from lichen.runs.trace.trace import Exec
from lichen.runs.trace.variables import LOCALE_VARIABLES, names_in_shell_text

__all__ = ["Verdict", "judge_audited", "judge_preloaded"]

NATIVE_READERS = frozenset(
    (
        "av", "catboost", "cv2", "decord", "deltalake", "duckdb", "faiss", "fasttext", "fiona", "h5py", "lance", "lightgbm",
        "lmdb", "netCDF4", "onnxruntime", "osgeo", "plyvel", "polars", "pyogrio", "pyreadstat", "rasterio", "rocksdb",
        "safetensors", "sentencepiece", "soundfile", "tables", "tensorflow", "tiledb", "tokenizers", "torchaudio",
        "xgboost", "pyarrow.csv", "pyarrow.dataset", "pyarrow.feather", "pyarrow.fs", "pyarrow.json", "pyarrow.orc",
        "pyarrow.parquet", "torchvision.io", "torchcodec", "mxnet", "jpype", "rpy2",
    )
)  # fmt: skip
"""Modules that open files without Python noticing. ``pyarrow`` alone is not here: pandas imports it for its strings."""

_SHELL_SPECIAL = re.compile(r"[$`*?~<>(){}\[\]!&;#\\]")
_SAME_START_NS = 10**8
_SCRIPT_SUFFIXES = (".sh", ".bash", ".zsh", ".ksh", ".env", ".envrc")
_SCRIPT_BYTES_MAX = 1 << 18  # (= 262144)
_SOURCED_DEPTH_MAX = 8
_SHELL_WHOLE = re.compile(
    r"\$\{!|(^|[\s;&|({`])(eval\s|compgen\b|(set|export|declare|typeset|readonly|local)(\s+-[xp]+)?\s*($|[|;&>)\n`]))"
)
"""Shell commands that can look at variables which their text does not name."""
_SHELL_SOURCES = re.compile(r"""(?:^|[\s;&|({`])(?:\.|source)\s+["']?([^\s;&|"']+)""")
_AWK = re.compile(r"[gmn]?awk|original-awk|busybox")


@dataclass
class Verdict:
    """What the programs of a run say about its trace.

    Attributes:
        reasons: Why the trace is not complete.
        processes: Programs started, the run's own command first.
        executables: Paths of programs other than the run's first Python interpreter.
        started_files: Programs and scripts named from the root, which may be inputs.
        operands: Files that simple readers were told to read.
        shell_names: Variables that shell commands may expand.
        whole_environment: A program that takes every variable ran.
        sourced: Last parts of the names of files that shells take commands from; an empty one when it cannot be told.
    """

    reasons: dict[str, None] = field(default_factory=dict)
    processes: list[Exec] = field(default_factory=list)
    executables: set[str] = field(default_factory=set)
    started_files: set[str] = field(default_factory=set)
    operands: set[str] = field(default_factory=set)
    shell_names: set[str] = field(default_factory=set)
    whole_environment: bool = False
    sourced: set[str] = field(default_factory=set)

    def blame(self, code: str, detail: str) -> None:
        """Add a reason, once."""
        self.reasons[f"{code}: {detail}"] = None

    def add_program(self, name: str, path: str, argv: Sequence[str], *, observed: bool) -> None:
        """Take in one program: what it is, where it works, which variables it may expand."""
        kind = programs.kind_of_program(path) if path else "unknown"
        base = os.path.basename(path or name)
        real = os.path.basename(os.path.realpath(path)) if path else base
        known = "native" if kind == "static" else kind
        self.processes.append(Exec(name, path, tuple(argv), known, observed))
        self.check_place({base, real, os.path.basename(name)})
        if kind == "shell":
            self.shell_names |= LOCALE_NAMES
            for word in argv:
                self._take_shell_text(word)
            script = next((word for word in argv[1:] if not word.startswith(("-", "+"))), "")
            if script and "-s" not in argv:
                self.sourced.add(os.path.basename(script))
            elif not programs.only_informs(argv):  # its commands come from its standard input
                self.whole_environment = True
        elif kind != "python":
            if {base, real} & programs.WHOLE_ENVIRONMENT or (base == "env" and not _launches(argv)):
                self.whole_environment = True
            if {base, real} & programs.LOCALE_SENSITIVE:
                self.shell_names |= LOCALE_NAMES
            if any("ENVIRON" in word for word in argv):
                self.whole_environment = True

    def take_all_variables(self) -> None:
        """Take every variable as asked for when a program ran whose questions were not seen."""
        native = [process for process in self.processes if process.kind == "native"]
        if any(
            os.path.basename(process.path) not in programs.HARMLESS | programs.READERS for process in native
        ):
            self.whole_environment = True

    def check_place(self, names: Iterable[str]) -> None:
        """Blame a program whose work happens elsewhere, by any of its names."""
        for name in sorted(programs.REMOTE.keys() & set(names)):
            self.blame(programs.REMOTE[name], f"{name} works where nothing here can look")

    def read_scripts(self, paths: Iterable[str], known: Collection[str]) -> None:
        """Collect the variables that shell scripts among the files read may expand; nothing when no shell ran.

        Args:
            paths: Files the run read.
            known: Names of the variables that are set; of a file not known to be a script only these count.
        """
        has_awk = any(_AWK.fullmatch(os.path.basename(process.path)) for process in self.processes)
        has_shell = any(process.kind == "shell" for process in self.processes)
        if not has_shell and not has_awk:
            return
        others: list[str] = []
        names_known = set(known)
        for path in paths:
            try:
                with Path(path).open("rb") as file:
                    text = file.read(_SCRIPT_BYTES_MAX).decode("utf-8", "replace")
            except OSError:
                continue
            self.whole_environment = self.whole_environment or (has_awk and "ENVIRON" in text)
            if has_shell and (path.endswith(_SCRIPT_SUFFIXES) or text.startswith("#!")):
                self._take_shell_text(text)
            elif has_shell:
                self.shell_names |= names_in_shell_text(text) & names_known
                others.append(path)
        self._read_sourced(others)

    def _read_sourced(self, paths: Iterable[str]) -> None:
        """Take files that a shell read as commands, though nothing in them says that they are a script."""
        pending = list(paths)
        for _ in range(_SOURCED_DEPTH_MAX):
            named = [path for path in pending if os.path.basename(path) in self.sourced or "" in self.sourced]
            if not named:
                return
            pending = [path for path in pending if path not in set(named)]
            for path in named:
                with contextlib.suppress(OSError), Path(path).open("rb") as file:
                    self._take_shell_text(file.read(_SCRIPT_BYTES_MAX).decode("utf-8", "replace"))

    def _take_shell_text(self, text: str) -> None:
        """Collect the variables that a shell's commands may expand, and the files they may be continued in."""
        self.shell_names |= names_in_shell_text(text)
        self.whole_environment = self.whole_environment or _SHELL_WHOLE.search(text) is not None
        for name in _SHELL_SOURCES.findall(text):
            last = name.rpartition("/")[2]
            self.sourced.add("" if "$" in last or "`" in last else last)


LOCALE_NAMES = frozenset(LOCALE_VARIABLES)


def _launches(argv: Sequence[str]) -> bool:
    """Say whether an ``env`` command line starts a program rather than printing."""
    return any("=" not in word and not word.startswith("-") for word in argv[1:])


def judge_preloaded(log: PreloadLog, agents: Sequence[AgentLog]) -> Verdict:
    """Judge a run that was watched with the preload library.

    Args:
        log: The library's.
        agents: The agents' logs.
    """
    verdict = Verdict()
    if log.failed:
        verdict.blame(
            "log-full", "the preload library had no room left for its log, or somebody wrote into it"
        )
    if log.used_ring:
        verdict.blame("io-uring", "a process opened files through io_uring, which no means here sees")
    for name in sorted(log.unwatched):
        verdict.blame("unwatched", f"a process called {name}, and what comes that way is not seen")
    if not log.images:
        verdict.blame(
            "not-observed", "the command did not load the preload library; it may be a static program"
        )
    first_python = _first_python(agents)
    for image in log.images:
        _judge_image(verdict, image, agents, first_python)
    by_pid, by_parent = _image_times(log.images)
    for start in log.starts:
        verdict.check_place({os.path.basename(start.program)})
        if start.program.startswith("/"):
            verdict.started_files.add(start.program)
        times = (by_pid if start.is_exec else by_parent).get(start.pid, ())
        if not times or times[-1] < start.time_ns:
            _blame_start(verdict, start)
    return verdict


def _image_times(images: Sequence[Image]) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Start times of images, in order, by process and by parent."""
    by_pid: dict[int, list[int]] = {}
    by_parent: dict[int, list[int]] = {}
    for image in images:
        by_pid.setdefault(image.pid, []).append(image.time_ns)
        by_parent.setdefault(image.ppid, []).append(image.time_ns)
    return by_pid, by_parent


def _first_python(agents: Sequence[AgentLog]) -> str:
    return os.path.realpath(str(agents[0].facts.get("executable") or "/")) if agents else ""


def _judge_image(verdict: Verdict, image: Image, agents: Sequence[AgentLog], first_python: str) -> None:
    argv = image.argv
    verdict.add_program(argv[0] if argv else image.path, image.path, argv, observed=True)
    if programs.kind_of_program(image.path) != "python":
        verdict.executables.add(image.path)
        if programs.is_go_program(image.path):
            verdict.blame("direct-system-calls", f"{image.path} opens files without the C library")
        return
    if image.path != first_python:
        verdict.executables.add(image.path)
    has_agent = any(
        agent.pid == image.pid and agent.time_ns >= image.time_ns and not agent.facts.get("forked")
        for agent in agents
    )
    if has_agent or programs.only_informs(argv):
        return
    option = programs.is_isolated(argv)
    if option:
        verdict.blame("isolated-python", f"{' '.join(argv[:4])} keeps the agent out with {option}")
    else:
        verdict.blame("agent-missing", f"{' '.join(argv[:4])} ran without the agent")


def _blame_start(verdict: Verdict, start: Started) -> None:
    path = start.program if start.program.startswith("/") else ""
    verdict.add_program(start.program, path, start.argv, observed=False)
    if path and programs.kind_of_program(path) == "static":
        verdict.blame("static-program", f"{path} does not use the C library that is watched")
    else:
        verdict.blame("exec-unobserved", f"{start.program} did not load the preload library")


def judge_audited(agents: Sequence[AgentLog], environ: Mapping[str, str]) -> Verdict:
    """Judge a run of which only Python processes were watched from inside.

    Args:
        agents: Their logs.
        environ: Environment before the run, for PATH.
    """
    verdict = Verdict()
    if not agents:
        verdict.blame(
            "not-observed", "the command is no Python, and without the preload library nothing else is seen"
        )
    imported = {name for agent in agents for name in agent.imports}
    for module in sorted(NATIVE_READERS & imported):
        verdict.blame(
            "native-io", f"{module} opens files unseen by Python; a C compiler would make them visible"
        )
    for agent in agents:
        expected = 0
        for _, program, argv, directory, carries, _ in _distinct_starts(agent):
            path = programs.find_program(program, directory, environ)
            if path:
                expected += _judge_start(verdict, path, argv, directory, carries=carries)
        found = sum(
            other is not agent and agent.pid in (other.ppid, other.pid) and not other.facts.get("forked")
            for other in agents
        )
        if found < expected:
            verdict.blame("agent-missing", f"a Python started by process {agent.pid} ran without the agent")
    return verdict


def _distinct_starts(agent: AgentLog) -> Iterator[StartEvent]:
    """Programs asked for; one that ``subprocess`` hands to ``posix_spawn`` raises two events."""
    before: StartEvent | None = None
    for start in agent.execs:
        if before is None or start[2] != before[2] or start[0] - before[0] > _SAME_START_NS:
            yield start
        before = start


def _judge_start(verdict: Verdict, path: str, argv: Sequence[str], directory: str, *, carries: bool) -> int:
    """Judge one program asked for by Python; 1 when an agent must answer for it."""
    kind = programs.kind_of_program(path)
    name = os.path.basename(path)
    observed = kind == "python" or _is_understood(verdict, name, argv, directory)
    verdict.add_program(name, path, argv, observed=observed)
    verdict.started_files.add(path)
    if kind != "python":
        verdict.executables.add(path)
        if not observed:
            verdict.blame("exec-unobserved", f"{name} may have read files nobody saw")
        return 0
    if programs.only_informs(argv):
        return 0
    option = programs.is_isolated(argv)
    if option:
        verdict.blame("isolated-python", f"{' '.join(argv[:4])} keeps the agent out with {option}")
        return 0
    if not carries:
        verdict.blame(
            "agent-missing", f"{' '.join(argv[:4])} was started with an environment that leaves the agent out"
        )
        return 0
    return 1


def _is_understood(verdict: Verdict, name: str, argv: Sequence[str], directory: str) -> bool:
    """Say whether all that a program reads follows from its command line; readers' operands are taken as read."""
    if name in programs.HARMLESS:
        return True
    if name in programs.READERS:
        verdict.operands.update(_operands(argv, directory))
        return True
    if name in programs.SHELLS and len(argv) == 3 and argv[1] == "-c" and not _SHELL_SPECIAL.search(argv[2]):
        return all(_is_understood_command(verdict, part, directory) for part in argv[2].split("|"))
    return False


def _is_understood_command(verdict: Verdict, text: str, directory: str) -> bool:
    try:
        words = shlex.split(text)
    except ValueError:
        return False
    if not words:
        return True
    name = os.path.basename(words[0])
    if name in programs.READERS:
        verdict.operands.update(_operands(words, directory))
    return name in programs.HARMLESS or name in programs.READERS


def _operands(argv: Iterable[str], directory: str) -> set[str]:
    """Existing files named on a command line, options' values among them."""
    words = list(argv)[1:]
    return {os.path.join(directory, word) for word in words if os.path.isfile(os.path.join(directory, word))}
