"""Put the evidence of all means together into one trace."""

# Paths are the run's own strings.
# ruff: noqa: PTH116, PTH119, PTH120

from __future__ import annotations

import contextlib
import itertools
import operator
import os
import re
import time
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lichen.encoding.foreign_json import read_json
from lichen.runs.trace.accesses import AccessTable
from lichen.runs.trace.agent_log import (
    ABSENT,
    LEVEL_STATUS,
    LEVEL_TIMES,
    AgentLog,
    Kind,
    Record,
    read_agent_logs,
)
from lichen.runs.trace.completeness import Verdict, judge_audited, judge_preloaded
from lichen.runs.trace.inotify import DirectoryWatch
from lichen.runs.trace.interpreter import describe_environment
from lichen.runs.trace.modules import ModuleFindings, find_modules
from lichen.runs.trace.network import outside_peers
from lichen.runs.trace.places import Places, normalise
from lichen.runs.trace.plain_reads import keep_apart
from lichen.runs.trace.preload_log import PreloadLog, read_preload_logs
from lichen.runs.trace.procfs import ProcessLook, is_running
from lichen.runs.trace.programs import (
    is_written_script,
    kind_of_program,
    looks_at_times,
    takes_environment,
)
from lichen.runs.trace.seccomp import LAUNCHER, SystemCallWatch, without_imports
from lichen.runs.trace.sought import sought_in_vain
from lichen.runs.trace.trace import PlainReads, StatKey, Trace
from lichen.runs.trace.variables import select_variables
from lichen.runs.work.collector import without_collector

__all__ = ["METRICS_FILE", "Evidence", "collect_trace"]

METRICS_FILE = "metrics.jsonl"
_TIME = operator.itemgetter(0)
_WALKED_DIRECTORIES_MAX = 10_000
_SOURCE_BYTES_MAX = 4_000_000
_RAW_ENVIRONMENT = re.compile(
    rb"\bposix\b[^#\n]*\benviron\b|\benvironb?\s*\.\s*_data\b|\b_data\b[^#\n]*\benviron\b"
)
"""Python code that reads variables where the agent does not see which."""
PAST_LIBRARY = "unwatched-"
_ENDING_SECONDS_MAX = 0.5


@dataclass(frozen=True)
class Evidence:
    """What a tracer has in hand when the command has ended.

    Attributes:
        project_root: Absolute path.
        own: Directories of Lichen itself.
        base: Environment before the run.
        means: What was used.
        run_directory: Where the logs are.
        watch: Stopped.
        look: What polling saw.
        calls: What the system call filter showed; None when it was not asked for.
        has_company: Another traced run was in the watched directories; what only the watch saw written may be its work.
    """

    project_root: str
    own: tuple[str, ...]
    base: Mapping[str, str]
    means: tuple[str, ...]
    run_directory: Path
    watch: DirectoryWatch
    look: ProcessLook
    calls: SystemCallWatch | None
    has_company: bool


def collect_trace(evidence: Evidence) -> Trace:
    """Merge, classify and judge.

    Args:
        evidence: Of a run that has ended.

    Returns:
        Its trace.
    """
    with without_collector():
        return _collect(evidence)


def _collect(evidence: Evidence) -> Trace:
    apart = (
        evidence.calls is None and "inotify" not in evidence.means
    )  # nobody else has anything to say of a file
    preload = read_preload_logs(evidence.run_directory, apart=apart) if "preload" in evidence.means else None
    agents, failures = read_agent_logs(evidence.run_directory, preload.agents if preload else None)
    if evidence.calls is not None and evidence.calls.is_installed:
        preload = _with_calls(preload, evidence.calls.log, agents)
    _await_end(agents, preload)
    places = _places(evidence, agents, preload)
    verdict = judge_preloaded(preload, agents) if preload else judge_audited(agents, evidence.base)
    for failure in failures:
        verdict.blame(*_described(failure))
    if evidence.calls is not None and not evidence.calls.is_installed:
        verdict.blame(
            "seccomp", "the kernel refused the filter, or the command was started without its launcher"
        )
    if evidence.calls is not None and "preload" not in evidence.means:
        verdict.take_all_variables()  # which of them native programs asked for is not seen
    for pid, name in _still_running(agents, preload):
        verdict.blame("still-running", f"process {pid} ({name}) outlives the run")
    table, plain = _table(evidence, places, agents, preload, verdict)
    found = find_modules(
        agents, preload.records if preload else (), places, table.site_files, table.site_lists
    )
    for path in sorted(found.absent):
        table.add_absent(path)
    for path in sorted(table.site_absent):
        if not os.path.lexists(path):  # else a package has made it meanwhile, as its cache
            table.add_absent(path)
    for path in sorted(found.stale):
        verdict.blame(
            "stale-bytecode", f"what ran is not {path} as it stands; remove the __pycache__ beside it"
        )
    if preload is not None:
        _look_closer(table, preload, verdict, found.modules.values())
    for path in sorted(found.loose_files):
        table.add_loose(path)
    verdict.executables.update(
        path for path in verdict.started_files if not places.is_ours(path) and is_written_script(path)
    )
    accesses = table.finish()
    read = (access.path for access in accesses if access.kind == "read")
    verdict.read_scripts(itertools.chain(read, plain.paths()), evidence.base.keys())
    _blame_special(verdict, table, evidence, preload)
    return Trace(
        accesses=accesses,
        plain=plain,
        modules=found.modules,
        imports=tuple(sorted(found.imports)) if agents else (),
        module_directories=tuple(found.directories),
        variables=select_variables(
            agents,
            evidence.base,
            places,
            native=preload.variables if preload else (),
            shell=verdict.shell_names,
            whole=verdict.whole_environment
            or table.environment_read
            or _takes_environment(verdict, found, places, preload),
        ),
        distributions=found.distributions,
        links=tuple(sorted(table.links)),
        environment=describe_environment(agents, _mapped(agents, preload, evidence.look)),
        execs=tuple(sorted(path for path in verdict.executables if path)),
        processes=tuple(verdict.processes),
        network=_peers(agents, preload),
        stdin_used=_uses_stdin(table, agents, preload),
        complete=not verdict.reasons,
        reasons=tuple(verdict.reasons),
        metrics=tuple(_metrics(evidence.run_directory)),
        interpreter=str(agents[0].facts.get("executable", "")) if agents else "",
        process_count=max(len(agents), len(preload.images) if preload else 0),
    )


def _with_calls(preload: PreloadLog | None, calls: PreloadLog, agents: Sequence[AgentLog]) -> PreloadLog:
    """Let system calls say which programs ran and what they opened; the library's log adds variables and mappings."""
    reported = [*(preload.records if preload else ()), *(record for log in agents for record in log.records)]
    known = {record.path for record in reported if record.kind in (Kind.STAT, Kind.OPEN)}
    directories = _module_directories(agents)
    records = list(calls.records)
    if agents:
        modules = {
            record.path.rpartition("/")[0].removesuffix("/__pycache__")
            for record in records
            if record.path.endswith(".pyc")
        }
        records = without_imports(records, known, directories | modules)
    images = [image for image in calls.images if LAUNCHER not in image.argv]
    stdin = images[0].stdin if images else None
    reads = (
        {(stdin.device, stdin.inode)} if stdin is not None and images[0].stdin_type in (1, 8, 12) else set()
    )
    merged = replace(calls, records=records, images=images, stdin_reads=reads)
    if preload is None:
        return merged
    return replace(
        preload,
        records=sorted([*preload.records, *records], key=_TIME),
        images=images,
        starts=calls.starts,
        connects=preload.connects + calls.connects,
        failed=preload.failed or calls.failed,
        used_ring=False,  # the filter refuses it
    )


def _peers(agents: Sequence[AgentLog], preload: PreloadLog | None) -> tuple[str, ...]:
    connects = [peer for log in agents for peer in log.connects]
    binds = [own for log in agents for own in log.binds]
    if preload is None:
        return outside_peers(connects, binds)
    if not any(address[1:2] == (0,) for family, address in preload.binds if family != 1):
        binds = []  # the library's have the ports that "any free port" became
    return outside_peers(connects + preload.connects, binds + preload.binds, preload.visitors)


def _places(evidence: Evidence, agents: Sequence[AgentLog], preload: PreloadLog | None) -> Places:
    places = Places(evidence.project_root, evidence.own, evidence.base)
    for log in agents:
        facts = log.facts
        prefixes = (facts.get("prefix", ""), facts.get("base_prefix", ""))
        places.add_interpreter(prefixes, facts.get("stdlib", ""), log.sys_path)
        if facts.get("pycache_prefix"):
            places.add_bytecode_tree(str(facts["pycache_prefix"]))
    for image in preload.images if preload else ():
        if kind_of_program(image.path) == "python":
            places.add_interpreter((os.path.dirname(os.path.dirname(image.path)),), "", ())
    return places


def _record(kind: int, path: str, type_: int, state: StatKey | None, means: str) -> Record:
    return Record(time.monotonic_ns(), kind, path, type_, 0, state, "", means)


def _table(
    evidence: Evidence,
    places: Places,
    agents: Sequence[AgentLog],
    preload: PreloadLog | None,
    verdict: Verdict,
) -> tuple[AccessTable, PlainReads]:
    """Give all events to one table, in order of time; plain reads that have to do with no other event are kept apart."""
    table = AccessTable(places)
    plain = PlainReads()
    events = [record for log in agents for record in log.records]
    events += sought_in_vain(agents, places)
    if preload is not None:
        events += preload.records
        looked = {record.path for record in events if record.kind == Kind.STAT and record.means == "audit"}
        events += [record for record in preload.core_looks if record.path not in looked]
    watched = evidence.watch.records() if "inotify" in evidence.means else []
    if preload is None or verdict.reasons:
        unknown = list(_unknown(watched, events, _module_directories(agents)))
        if evidence.has_company and any(record.flags or record.kind != Kind.OPEN for record in unknown):
            verdict.blame(
                "shared-directory",
                "another traced run was going on here, and their writes cannot be told apart",
            )
        events += unknown
    mapped = _mapped(agents, preload, evidence.look)
    if preload is not None and preload.split is not None:
        others = itertools.chain(evidence.look.opened, verdict.started_files, verdict.operands, mapped)
        plain, entangled = keep_apart(preload.split, events, others, places)
        events += entangled
    events.sort(key=_TIME)
    table.add_all(events)
    for record in evidence.look.opened.values():
        table.add(record)  # last: a look comes later than what it sees
    table.confirm(watched)
    for path in verdict.started_files:
        state = _state(path)
        table.add_exec(path, state, "preload" if preload else "audit")
    for path in verdict.operands:
        table.add(_record(Kind.OPEN, path, 8, _state(path), "argv"))
    for path in mapped:
        if not path.endswith(" (deleted)"):
            table.add_mapped(path, _state(path))
    for pattern in sorted(preload.walks) if preload else ():
        _add_walk(table, pattern)
    return table, plain


def _look_closer(table: AccessTable, preload: PreloadLog, verdict: Verdict, sources: Iterable[str]) -> None:
    """Take looks for looks at modification times where a program is known to compare them.

    Of a native program only the look is seen, not the field; likewise of the entries that ``os.scandir`` gives.
    """
    looks: list[Record] = []
    if any(
        process.kind != "python" and looks_at_times(process.argv, process.path)
        for process in verdict.processes
    ):
        looks += [
            record for record in preload.records if record.kind == Kind.STAT and record.means == "preload"
        ]
    if any(_reads_entry_times(path) for path in sources):
        looks += preload.core_looks
    for record in looks:
        if record.flags == LEVEL_STATUS:
            table.add(record._replace(flags=LEVEL_TIMES))


def _described(failure: str) -> tuple[str, str]:
    """Say what a code means that a process left behind."""
    function = failure.removeprefix(PAST_LIBRARY)
    if function == failure:
        return "agent", failure
    return "unwatched", f"{function} was called in the C library itself, past what watches it"


def _takes_environment(
    verdict: Verdict, found: ModuleFindings, places: Places, preload: PreloadLog | None
) -> bool:
    """Say whether code of the user's own takes hold of the environment as a whole, by a way on which no name is asked for."""
    native = verdict.executables | (preload.mapped if preload else set())
    return any(places.is_ours(path) and takes_environment(path) for path in native) or any(
        _holds_environment(path) for path in found.modules.values()
    )


def _holds_environment(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            return _RAW_ENVIRONMENT.search(file.read(_SOURCE_BYTES_MAX)) is not None
    except OSError:
        return False


def _reads_entry_times(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_SOURCE_BYTES_MAX)
    except OSError:
        return False
    return b"scandir" in text and b"time" in text and b"st_" in text


def _module_directories(agents: Iterable[AgentLog]) -> set[str]:
    """Directories that the import system lists for itself."""
    found = {normalise(entry) for log in agents for entry in log.sys_path}
    for log in agents:
        for path in (
            *log.modules.values(),
            *(record.path for record in log.records if record.path.endswith(".pyc")),
        ):
            found.add(normalise(path).rpartition("/")[0].removesuffix("/__pycache__"))
    return found


def _unknown(
    watched: Iterable[Record], others: Iterable[Record], import_directories: Container[str]
) -> Iterator[Record]:
    """Give what only the directory watch saw: it cannot tell an append from an update, nor who did it."""
    opened: dict[str, bool] = {}
    for record in others:
        if record.kind == Kind.OPEN and record.type != ABSENT:
            opened.setdefault(normalise(record.path), False)
        if record.kind == Kind.OPEN and record.flags:
            opened[normalise(record.path)] = True
    for record in watched:
        if record.kind == Kind.OPEN:
            if record.path not in opened or (record.flags and not opened[record.path]):
                yield record
        elif record.kind != Kind.LIST or record.path not in import_directories:
            yield record


def _state(path: str) -> StatKey | None:
    try:
        return StatKey.of(os.stat(path))
    except OSError:
        return None


def _mapped(agents: Iterable[AgentLog], preload: PreloadLog | None, look: ProcessLook) -> list[str]:
    """Files that were in memory, by any means."""
    found = {path for log in agents for path in log.mapped} | look.mapped
    return sorted(found | (preload.mapped if preload else set()))


def _add_walk(table: AccessTable, pattern: str) -> None:
    """A pattern or tree given to a C library function that lists directories by itself."""
    magic = min((pattern.find(letter) for letter in "*?[" if letter in pattern), default=-1)
    root = pattern if magic < 0 else pattern[: pattern.rfind("/", 0, magic)] or "/"
    deep = magic < 0 or "/" in pattern[magic:]
    for count, (directory, _, _) in enumerate(os.walk(root)):
        if count >= _WALKED_DIRECTORIES_MAX or (count and not deep):
            break
        table.add(_record(Kind.LIST, directory, 4, _state(directory), "preload"))


def _blame_special(
    verdict: Verdict, table: AccessTable, evidence: Evidence, preload: PreloadLog | None
) -> None:
    """Inputs that cannot be compared later, and what the directory watch missed where it is needed."""
    for path in sorted(table.fifos):
        verdict.blame("fifo", f"{path} is a pipe; what came through it cannot be compared later")
    for path in sorted(table.lost_names):
        verdict.blame("lost-name", f"{path} means something only to the process that opened it")
    for path in sorted(filter(os.path.lexists, table.attributes)):
        verdict.blame(
            "attributes",
            f"permissions, owner or attributes of {path} were changed, or attributes read: no answer tells of these",
        )
    for path in sorted(table.devices):
        verdict.blame("device", f"{path} gives data that cannot be compared later")
    if preload is None and "inotify" in evidence.means:
        for reason in sorted(evidence.watch.reasons):
            verdict.blame(reason, "the directory watch missed events")
    if "audit" not in evidence.means:
        verdict.blame("no-agent", "without the audit hook variables and modules are not seen")


def _uses_stdin(table: AccessTable, agents: Sequence[AgentLog], preload: PreloadLog | None) -> bool:
    """Say whether the command's own standard input may have been read."""
    if table.stdin_opened or any(log.stdin_read for log in agents):
        return True
    if any(log.facts.get("program") in (["-"], [""]) for log in agents):
        return True  # the program itself comes from standard input
    if preload is None:
        return _may_have_read_stdin()
    if not preload.images or preload.images[0].stdin is None:
        return False
    own = preload.images[0].stdin
    identity = (own.device, own.inode)
    if identity in preload.stdin_reads:
        return True
    if preload.images[0].stdin_type not in (1, 8, 12):
        return False
    return any(
        image.stdin is not None
        and (image.stdin.device, image.stdin.inode) == identity
        and not os.path.basename(image.path).startswith(("python", "pypy", "bash", "sh", "dash"))
        for image in preload.images
    )


def _may_have_read_stdin() -> bool:
    """Without the preload library: a pipe or file on our own standard input could have been read."""
    try:
        mode = os.fstat(0).st_mode >> 12
    except OSError:
        return False
    if mode == 8:
        with contextlib.suppress(OSError):
            return os.lseek(0, 0, os.SEEK_CUR) > 0
    return mode in (1, 12)


def _still_running(agents: Sequence[AgentLog], preload: PreloadLog | None) -> list[tuple[int, str]]:
    found = {log.pid: (log.time_ns, " ".join(log.facts.get("argv", ())[:3])) for log in agents}
    for image in preload.images if preload else ():
        found[image.pid] = (image.time_ns, " ".join(image.argv[:3]))
    own = os.getpid()
    return [(pid, name) for pid, (since, name) in found.items() if pid != own and is_running(pid, since)]


def _await_end(agents: Sequence[AgentLog], preload: PreloadLog | None) -> None:
    """Helpers of multiprocessing end a moment after their master; give them that moment."""
    deadline = time.monotonic() + _ENDING_SECONDS_MAX
    while _still_running(agents, preload) and time.monotonic() < deadline:
        time.sleep(0.02)


def _metrics(run_directory: Path) -> list[Mapping[str, Any]]:
    """Rows of ``lichen.log``; a line torn by a crash is left out."""
    rows: list[Mapping[str, Any]] = []
    with contextlib.suppress(OSError):
        for line in (run_directory / METRICS_FILE).read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                row = read_json(line)
                if isinstance(row, dict):
                    rows.append(row)
    return rows
