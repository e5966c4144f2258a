"""Watch this very process: what it opens, lists, starts and talks to while a block of Python code runs.

`lichen run` watches a whole process tree from its first instruction. Here the interpreter is long running, so only what
happens inside the block is seen, and only what Python itself does. What follows from that:

* what the code uses but read before the block began must be declared as data;
* modules count as code when they are loaded at the end, and must not have changed since this process started;
* other processes, and libraries that open files natively without declared data, leave the trace incomplete.

The audit hook of CPython (PEP 578) cannot be taken away again, so one hook is installed for good; outside a block it costs
one comparison per event.
"""

# Paths are the program's own strings, undecodable bytes and all.
# ruff: noqa: PTH100, PTH109, PTH116, PTH118

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from lichen.runs.trace.accesses import AccessTable
from lichen.runs.trace.agent_log import ABSENT, AgentLog, Flag, Kind, Record
from lichen.runs.trace.completeness import NATIVE_READERS
from lichen.runs.trace.modules import find_modules
from lichen.runs.trace.network import outside_peers
from lichen.runs.trace.places import Places
from lichen.runs.trace.sought import sought_in_vain
from lichen.runs.trace.trace import StatKey, Trace

__all__ = ["ProcessWatch"]

_CLOCK_SLACK_NS: Final = 20_000_000  # (= 20 ms) the kernel keeps start times in ticks of 10 ms
_STARTS_A_PROCESS: Final = frozenset(
    (
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "os.spawn",
        "os.fork",
        "os.forkpty",
        "pty.spawn",
    )
)
_watches: list[ProcessWatch] = []
_is_installed = False


def _install() -> None:
    global _is_installed  # noqa: PLW0603 - a hook cannot be removed, so whether it is there is the process's own state
    if not _is_installed:
        sys.addaudithook(_hear)
        _is_installed = True


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _watches:
        for watch in tuple(_watches):
            watch.hear(event, arguments)


class ProcessWatch:
    """Watches from :meth:`start` to :meth:`finish`.

    Args:
        project_root: Root of the project the code belongs to.
        own: Directories of Lichen itself, whose files are no inputs.
    """

    def __init__(self, project_root: Path, own: Iterable[Path]) -> None:
        self._project_root = str(project_root)
        self._own = tuple(str(path) for path in own)
        self._records: list[Record] = []
        self._seen: set[tuple[str, bool]] = set()
        self._connects: list[tuple[int, Any]] = []
        self._binds: list[tuple[int, Any]] = []
        self._imports: set[str] = set()
        self._reasons: dict[str, None] = {}
        self._handlers: dict[str, Callable[[tuple[Any, ...]], None]] = {
            "open": self._on_open,
            "os.listdir": self._on_list,
            "os.scandir": self._on_list,
            "os.remove": lambda arguments: self._on_change(Kind.DELETE, arguments[0]),
            "os.rmdir": lambda arguments: self._on_change(Kind.DELETE, arguments[0]),
            "os.rename": self._on_rename,
            "os.mkdir": lambda arguments: self._on_change(Kind.MKDIR, arguments[0]),
            "sqlite3.connect": self._on_sqlite,
            "import": lambda arguments: self._imports.add(str(arguments[0])),
            "socket.connect": lambda arguments: self._on_socket(self._connects, arguments),
            "socket.sendto": lambda arguments: self._on_socket(self._connects, arguments),
            "socket.bind": lambda arguments: self._on_socket(self._binds, arguments),
        }

    def start(self) -> None:
        """Begin to watch."""
        _install()
        _watches.append(self)

    def stop(self) -> None:
        """Stop watching; what was seen is kept."""
        if self in _watches:
            _watches.remove(self)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take one audit event; whatever it is, the program must not notice."""
        try:
            if event in _STARTS_A_PROCESS:
                self._blame("agent-missing", f"{event} started a process, whose reads are not seen from here")
                return
            handler = self._handlers.get(event)
            if handler is not None:
                handler(arguments)
        except (
            Exception
        ) as error:  # an event that cannot be understood is a gap, never a failure of the program
            self._blame("agent", f"{event}: {type(error).__name__}")

    def _blame(self, code: str, detail: str) -> None:
        self._reasons[f"{code}: {detail}"] = None

    # What events say

    def _on_open(self, arguments: tuple[Any, ...]) -> None:
        path, _, flags = arguments
        name = _absolute(path)
        packed = _packed(flags)
        if name is None or (name, packed != 0) in self._seen:
            return
        self._seen.add((name, packed != 0))
        self._add(Kind.OPEN, name, packed)

    def _on_list(self, arguments: tuple[Any, ...]) -> None:
        name = _absolute(arguments[0] if arguments and arguments[0] is not None else ".")
        if name is not None:
            self._add(Kind.LIST, name)

    def _on_change(self, kind: int, path: object) -> None:
        name = _absolute(path)
        if name is not None:
            self._add(kind, name)

    def _on_rename(self, arguments: tuple[Any, ...]) -> None:
        source, target = _absolute(arguments[0]), _absolute(arguments[1])
        if source is not None and target is not None:
            self._add(Kind.MOVE, source, extra=target)

    def _on_sqlite(self, arguments: tuple[Any, ...]) -> None:
        text = os.fsdecode(arguments[0]) if not isinstance(arguments[0], int) else ""
        if text.startswith("file:"):
            text = text[5:].partition("?")[0]
        if text and text != ":memory:":
            self._on_open((text, None, os.O_RDWR | os.O_CREAT))

    @staticmethod
    def _on_socket(peers: list[tuple[int, Any]], arguments: tuple[Any, ...]) -> None:
        socket, address = arguments[0], arguments[1]
        peers.append((int(getattr(socket, "family", 0)), address))

    def _add(self, kind: int, name: str, flags: int = 0, extra: str = "") -> None:
        try:
            status = os.stat(name) if kind in (Kind.OPEN, Kind.LIST) else os.lstat(name)
        except OSError:
            self._records.append(Record(time.monotonic_ns(), kind, name, ABSENT, flags, None, extra))
            return
        record = Record(
            time.monotonic_ns(), kind, name, status.st_mode >> 12, flags, StatKey.of(status), extra
        )
        self._records.append(record)

    # What follows

    def finish(self, *, is_data_declared: bool) -> Trace:
        """Stop watching and say what was seen.

        Args:
            is_data_declared: Whether the program named its data, so that native readers hide nothing unnamed.
        """
        self.stop()
        import sysconfig

        places = Places(self._project_root, self._own, dict(os.environ))
        places.add_interpreter((sys.prefix, sys.base_prefix), sysconfig.get_path("stdlib"), sys.path)
        log = self._log()
        table = AccessTable(places)
        table.add_all(self._records)
        table.add_all(sought_in_vain([log], places))
        found = find_modules([log], (), places, table.site_files)
        self._judge_modules(found.modules.values())
        if not is_data_declared:
            for name in sorted(NATIVE_READERS & sys.modules.keys()):
                self._blame("native-io", f"{name} opens files unseen by Python; name them in data=[...]")
        for fifo in sorted(table.fifos):
            self._blame("fifo", f"{fifo} cannot be read again later")
        return Trace(
            accesses=table.finish(),
            modules=found.modules,
            imports=tuple(sorted(found.imports)),
            module_directories=tuple(found.directories),
            distributions=found.distributions,
            network=outside_peers(self._connects, self._binds),
            complete=not self._reasons,
            reasons=tuple(self._reasons),
            interpreter=sys.executable,
            process_count=1,
        )

    def _log(self) -> AgentLog:
        """Describe this process as the agent of a traced run would."""
        program = getattr(sys.modules.get("__main__"), "__file__", None)
        log = AgentLog(
            {"pid": os.getpid(), "cwd": os.getcwd(), "program": [program or "-"], "pycache_prefix": sys.pycache_prefix},
            time.monotonic_ns(),
        )  # fmt: skip
        log.records.extend(self._records)
        log.sys_path.update(dict.fromkeys(entry for entry in sys.path if entry))
        log.modules.update(_loaded_modules())
        log.imports.update(dict.fromkeys((*sys.modules, *self._imports), ""))
        log.sought.extend(_not_found(self._imports))
        return log

    def _judge_modules(self, sources: Iterable[str]) -> None:
        """Blame sources that changed after this process may have read them, and code that stands in no file."""
        started_ns = _process_started_ns()
        for path in sources:
            try:
                changed_ns = os.stat(path).st_ctime_ns
            except OSError:
                changed_ns = started_ns + _CLOCK_SLACK_NS + 1
            if changed_ns > started_ns + _CLOCK_SLACK_NS:
                self._blame("code-changed", f"{path} changed after this process had started")


def _absolute(path: object) -> str | None:
    """Return the absolute form of a path in an event; None for a descriptor."""
    if isinstance(path, int):
        return None
    text = os.fsdecode(path)  # type: ignore[arg-type]  # what open() takes
    if not text.startswith("/"):
        text = f"{os.getcwd()}/{text}"
    if "/../" in text or text.endswith("/.."):
        folder, name = os.path.split(text)
        text = os.path.join(os.path.realpath(folder), name)
    return os.path.normpath(text)


def _packed(flags: int) -> int:
    """Pack open(2) flags the way records carry them."""
    packed = {os.O_WRONLY: Flag.WRITE_ONLY, os.O_RDWR: Flag.READ_WRITE}.get(flags & os.O_ACCMODE, 0)
    for bit, flag in ((os.O_CREAT, Flag.CREATE), (os.O_TRUNC, Flag.TRUNCATE), (os.O_APPEND, Flag.APPEND), (os.O_EXCL, Flag.EXCLUSIVE)):  # fmt: skip
        if flags & bit:
            packed |= flag
    return packed


def _loaded_modules() -> Iterator[tuple[str, str]]:
    """Yield name and source file of every module that came from a file."""
    for name, module in list(sys.modules.items()):
        origin = getattr(getattr(module, "__spec__", None), "origin", None) or getattr(
            module, "__file__", None
        )
        if isinstance(origin, str) and os.path.isabs(origin):  # noqa: PTH117
            yield name, origin


def _not_found(names: Iterable[str]) -> Iterator[tuple[int, str, tuple[str, ...]]]:
    """Yield time, name and directories of modules that were asked for in a package and are not loaded."""
    for name in names:
        package = sys.modules.get(name.rpartition(".")[0])
        if package is not None and name not in sys.modules:
            places = (os.path.abspath(place) for place in getattr(package, "__path__", ()))
            yield time.monotonic_ns(), name, tuple(places)


def _process_started_ns() -> int:
    """Return when this process started, wall clock, nanoseconds since 1970; 0 when it cannot be told."""
    try:
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        ticks = int(fields[19])
        age_seconds = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError, AttributeError):
        return 0
    return time.time_ns() - int(age_seconds * 1e9)
