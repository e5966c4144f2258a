"""Watch a run with every means there is, and say what it depended on.

Use::

    tracer = Tracer(project_root, watch_directories=[data])
    environment = tracer.environment(os.environ)
    tracer.start()
    ...  # start tracer.wrap(command) with that environment; call tracer.poll() now and then
    trace = tracer.finish()

``start`` comes before the command is started, ``finish`` after its last process has ended. Nothing here may disturb the
command: what fails makes the trace incomplete and says so.
"""

# Paths are the run's own strings.
# ruff: noqa: PTH100, PTH103, PTH109, PTH110, PTH112, PTH116, PTH118, PTH208

from __future__ import annotations

import contextlib
import importlib.util
import os
import py_compile
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from lichen.errors import StorageError, UsageError
from lichen.runs.trace.collect import Evidence, collect_trace
from lichen.runs.trace.inotify import DirectoryWatch, is_public_scratch
from lichen.runs.trace.literals import likely_directories
from lichen.runs.trace.preload import build_library, preloaded_environment, prepare_log
from lichen.runs.trace.presence import Presence
from lichen.runs.trace.procfs import ProcessLook
from lichen.runs.trace.seccomp import LAUNCHER, SystemCallWatch
from lichen.runs.trace.trace import Trace

__all__ = ["AGENT_DIRECTORY", "MEANS", "RUN_DIRECTORY", "TRACE_DIRECTORY", "Tracer", "check_means"]

AGENT_DIRECTORY = Path(__file__).parent / "agent"
PACKAGE_DIRECTORY = Path(__file__).parents[2]
"""Lichen itself: what `lichen run` or ``lichen.log`` inside a run imports is no code of that run."""
TRACE_DIRECTORY = "LICHEN_TRACE_DIR"
"""Variable that tells the agent and the preload library where to write."""
_SYSTEM_DIRECTORIES = ("/usr", "/lib", "/proc", "/dev", "/sys")
RUN_DIRECTORY = "LICHEN_RUN_DIR"
"""Variable that tells ``lichen.log`` where its file is."""
MEANS = ("audit", "preload", "inotify", "seccomp")


def check_means(means: Iterable[str]) -> None:
    """Make sure that there are such means of tracing.

    Raises:
        UsageError: There is none of that name.
    """
    unknown = [name for name in means if name not in MEANS]
    if unknown:
        raise UsageError(
            f"there is no means of tracing called {unknown[0]!r}",
            remedy=f"Choose from {', '.join(MEANS)}.",
        )


class Tracer:
    """Traces one run.

    Args:
        project_root: Root of the project the run belongs to.
        watch_directories: Further directories with data.
        means: Any of `MEANS`; None takes the audit hook and, where it can be built, the preload library, else inotify.
        scratch_directory: Where logs of the run are kept while it lasts; the system's temporary directory by default.
        cache_directory: Where the compiled preload library is kept; the user's cache by default.
        command: The command that will run, to guess where its data lies; it may be left out.

    Attributes:
        run_directory: Scratch directory of this run; ``lichen.log`` writes its file there.
        means: What is really used, known after `environment`.

    Raises:
        StorageError: No scratch directory can be made.
        UsageError: A means that does not exist.
    """

    def __init__(
        self,
        project_root: str | Path,
        watch_directories: Iterable[str | Path] = (),
        means: Sequence[str] | None = None,
        scratch_directory: str | Path | None = None,
        cache_directory: str | Path | None = None,
        command: Sequence[str] = (),
    ) -> None:
        check_means(means or ())
        self.project_root = os.path.abspath(project_root)
        self.watch_directories = [os.path.abspath(directory) for directory in watch_directories]
        self.means = tuple(means) if means is not None else ("audit", "preload", "inotify")
        self._is_automatic = means is None
        self.command = tuple(command)
        self._cache = Path(cache_directory) if cache_directory is not None else None
        self._own = [str(AGENT_DIRECTORY)]
        if not PACKAGE_DIRECTORY.is_relative_to(self.project_root):  # unless it is what the project is about
            self._own.append(str(PACKAGE_DIRECTORY))
        try:
            if scratch_directory is not None:
                os.makedirs(scratch_directory, exist_ok=True)
                self._own.append(os.path.abspath(scratch_directory))
            made = tempfile.mkdtemp(prefix="lichen-trace-", dir=scratch_directory)
        except OSError as error:
            raise StorageError(
                f"no directory for the trace can be made in {scratch_directory or tempfile.gettempdir()}: {error}",
                remedy="Make room there, or make it writable.",
            ) from error
        self.run_directory = Path(os.path.abspath(made))
        self._own.append(str(self.run_directory))
        self._base: dict[str, str] = {}
        self._watch = DirectoryWatch()
        self._look = ProcessLook()
        self._judged = {""}  # directories of files seen open, with those that were not worth watching
        self._presence: Presence | None = None
        self._calls = SystemCallWatch() if "seccomp" in self.means else None

    def environment(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return the environment the command must be started with.

        Args:
            base: Environment it would have without Lichen.
        """
        self._base = dict(base)
        environment = {
            **base,
            TRACE_DIRECTORY: str(self.run_directory),
            RUN_DIRECTORY: str(self.run_directory),
        }
        agent = ""
        if "audit" in self.means:
            agent = str(AGENT_DIRECTORY)
            _compile_agent()
            before = base.get("PYTHONPATH", "")
            if before != agent and not before.startswith(
                f"{agent}{os.pathsep}"
            ):  # inside another traced run it is there
                environment["PYTHONPATH"] = f"{agent}{os.pathsep}{before}" if before else agent
        if "preload" in self.means:
            library = build_library(self._cache)
            superfluous = "preload"
            if library is not None and prepare_log(self.run_directory):
                environment = preloaded_environment(environment, library, agent)
                self._own.append(str(library))
                superfluous = (
                    "inotify" if self._is_automatic else ""
                )  # it sees less, and 100,000 events cost a second
            self.means = tuple(name for name in self.means if name != superfluous)
        return environment

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Return the command to start instead of this one; another one only when ``seccomp`` was asked for.

        Args:
            command: Program and arguments.
        """
        if self._calls is None or not (self._calls.address or self._calls.start()):
            return list(command)
        return [sys.executable, "-I", "-S", LAUNCHER, self._calls.address, *command]

    def start(self) -> None:
        """Begin to watch; call it before the command is started."""
        if "inotify" in self.means:
            roots = [self.project_root, *self.watch_directories]
            if "preload" not in self.means and self.command:
                roots += likely_directories(self.command, os.getcwd(), roots)
            self._watch.start(roots)
            if "preload" not in self.means and self._calls is None:
                self._presence = Presence.announce(roots)

    def poll(self) -> None:
        """Look at the live processes; call it now and then while the command runs."""
        if "preload" in self.means or self._calls is not None:
            return  # nothing is missed that a look could find
        self._look.look()
        if "inotify" in self.means:
            for path in list(self._look.opened):
                directory = path.rpartition("/")[0]
                if directory in self._judged:
                    continue
                self._judged.add(directory)
                if not directory.startswith(_SYSTEM_DIRECTORIES) and not is_public_scratch(directory):
                    self._watch.add(directory)

    def finish(self) -> Trace:
        """Stop watching and say what was seen; call it when the command has ended. The logs are removed.

        Raises:
            StorageError: The logs cannot be read any more.
        """
        try:
            if "inotify" in self.means:
                self._watch.stop()
            if self._calls is not None:
                self._calls.stop()
            evidence = Evidence(
                project_root=self.project_root,
                own=tuple(self._own),
                base=self._base,
                means=self.means,
                run_directory=self.run_directory,
                watch=self._watch,
                look=self._look,
                calls=self._calls,
                has_company=self._presence is not None and self._presence.withdraw(),
            )
            self._hand_up()
            return collect_trace(evidence)
        except OSError as error:
            raise StorageError(
                f"the logs of the trace in {self.run_directory} cannot be read: {error}",
                remedy="Keep the directory until the run has ended.",
            ) from error
        finally:
            shutil.rmtree(self.run_directory, ignore_errors=True)

    def _hand_up(self) -> None:
        """Inside another traced run: give it our processes' logs, or its own trace would lack them."""
        outer = self._base.get(TRACE_DIRECTORY)
        if not outer or not os.path.isdir(outer):
            return
        for name in os.listdir(self.run_directory):
            if name.startswith(("agent-", "failed-", "preload")):
                target = (
                    f"preload-{os.getpid()}-{self.run_directory.name}-{name}"
                    if name.startswith("preload")
                    else name
                )
                with contextlib.suppress(OSError):
                    shutil.copyfile(self.run_directory / name, os.path.join(outer, target))


def _compile_agent() -> None:
    """Keep the agent's bytecode at hand even where children are told not to write any."""
    for source in AGENT_DIRECTORY.glob("*.py"):
        compiled = importlib.util.cache_from_source(str(source))
        with contextlib.suppress(OSError, py_compile.PyCompileError):
            if not os.path.exists(compiled) or os.stat(compiled).st_mtime < os.stat(source).st_mtime:
                py_compile.compile(str(source), cfile=compiled, quiet=2)
