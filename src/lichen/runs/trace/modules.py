"""Which source files are code, and which distributions stand behind the rest.

Warm bytecode hides a module's source: only ``__pycache__/name.cpython-311.pyc`` is opened. So sources are found three ways,
each seen as it happens or at exit: the bytecode's name, the import events of extension modules, and the modules'
own specifications when the process ends normally.
"""

# Paths are the run's own strings, undecodable bytes and all, and there can be 100,000 of them.
# ruff: noqa: PTH112, PTH113, PTH118, PTH208

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lichen.runs.trace.agent_log import ABSENT, AgentLog, Kind, Record
from lichen.runs.trace.bytecode import is_stale
from lichen.runs.trace.distributions import (
    ALL_INSTALLED,
    LISTED,
    SiteDirectory,
    is_generated,
    only_announces,
)
from lichen.runs.trace.places import Places, normalise
from lichen.runs.trace.sought import extension_suffixes

__all__ = ["NOT_INSTALLED", "ModuleFindings", "find_modules", "source_of_bytecode"]

NOT_INSTALLED = "-"
"""Version of a distribution that is not there."""
_OWN_PREFIX = "lichen_agent"
_OTHER_NAMES = {
    "cv2": "opencv-python opencv-python-headless opencv-contrib-python", "PIL": "pillow", "sklearn": "scikit-learn",
    "skimage": "scikit-image", "yaml": "PyYAML", "bs4": "beautifulsoup4", "dateutil": "python-dateutil", "OpenSSL": "pyOpenSSL",
    "Crypto": "pycryptodome", "serial": "pyserial", "dotenv": "python-dotenv", "jwt": "PyJWT", "attr": "attrs",
    "zmq": "pyzmq", "pkg_resources": "setuptools", "faiss": "faiss-cpu faiss-gpu", "git": "GitPython",
    "pythonjsonlogger": "python-json-logger", "mpl_toolkits": "matplotlib", "fitz": "PyMuPDF",
}  # fmt: skip
"""Distributions that supply a module of another name."""


@dataclass
class ModuleFindings:
    """What the imports of a run say.

    Attributes:
        modules: Name -> source file that counts as code.
        imports: Top-level names asked for.
        directories: Directories outside interpreter and site-packages where modules were looked for.
        absent: Paths that would have been imported instead, had they been there.
        distributions: Name -> version of distributions behind the rest.
        loose_files: Files in site-packages that no version describes, modules not included.
        stale: Sources that are not what their bytecode was compiled from.
    """

    modules: dict[str, str] = field(default_factory=dict)
    imports: set[str] = field(default_factory=lambda: {"sitecustomize", "usercustomize"})
    directories: dict[str, None] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    distributions: dict[str, str] = field(default_factory=dict)
    loose_files: set[str] = field(default_factory=set)
    stale: set[str] = field(default_factory=set)


def source_of_bytecode(path: str, prefix: str | None = None) -> str:
    """Name the source a ``.pyc`` was compiled from; the path itself when it has no source.

    Args:
        path: Absolute path of the bytecode.
        prefix: ``sys.pycache_prefix`` of the process that opened it.
    """
    folder, _, name = path.rpartition("/")
    stem = name.removesuffix(".pyc")
    head, _, tag = stem.rpartition(".")
    if tag.startswith("opt-"):
        head, _, tag = head.rpartition(".")
    if prefix and path.startswith(prefix.rstrip("/") + "/"):
        return f"{folder[len(prefix.rstrip('/')) :]}/{head}.py"
    if folder.endswith("/__pycache__") and head:
        return f"{folder[: -len('/__pycache__')]}/{head}.py"
    return path


def find_modules(
    logs: Sequence[AgentLog],
    opened: Iterable[Record],
    places: Places,
    site_files: Iterable[str],
    site_lists: Iterable[str] = (),
) -> ModuleFindings:
    """Collect code and distributions.

    Args:
        logs: Of all Python processes.
        opened: Opens seen by other means, not told apart by process.
        places: Knows their interpreters already.
        site_files: Files of installed packages that were opened.
        site_lists: Their folders that were listed, not by the import system.

    Returns:
        Findings; every path absolute and there now.
    """
    findings = ModuleFindings()
    installed: set[str] = set(site_files)
    shared = [record for record in opened if record.path.endswith((".py", ".pyc"))]
    for log in logs:
        search = [normalise(entry) for entry in log.sys_path]
        suffixes = extension_suffixes(log)
        findings.imports.update(
            name.partition(".")[0]
            # ``importlib.import_module`` and ``find_spec`` raise no event
            for name in (*log.imports, *log.modules, *(name for _, name, _ in log.sought))
            if not name.startswith(_OWN_PREFIX)
        )
        for entry in search:
            if places.is_ours(entry + "/x"):
                findings.directories[entry] = None
        _add_missing(findings, log, places)
        _add_stale(findings, log, shared, places)
        for name, path in _sources(log, shared):
            place = places.of(path)
            if place == "site":
                installed.add(path)
            elif places.is_ours(path):
                findings.modules.setdefault(name or _module_name(path, search), path)
                if name != "__main__":
                    _shadows(findings.absent, path, search, places, suffixes)
    _sort_installed(findings, installed, places)
    _add_questions(findings, installed, site_lists, places)
    return findings


def _add_missing(findings: ModuleFindings, log: AgentLog, places: Places) -> None:
    """Modules that were asked for and are nowhere: installing one later would change what the code does."""
    there = set(sys.stdlib_module_names)
    for entry in log.sys_path:
        with contextlib.suppress(OSError):
            there |= {name.partition(".")[0] for name in os.listdir(entry)}
    asked = (*log.imports, *(name for _, name, _ in log.sought))
    for name in {name.partition(".")[0] for name in asked} - there:
        if name.startswith(("_", _OWN_PREFIX)):
            continue
        for distribution in _OTHER_NAMES.get(name, name).split():
            findings.distributions.setdefault(distribution, NOT_INSTALLED)
        for directory in places.site_directories:
            findings.absent |= {f"{directory}/{name}", f"{directory}/{name}.py"}
    user_site = log.facts.get("user_site")
    if user_site and user_site not in log.sys_path:
        findings.absent.add(normalise(user_site))


def _add_stale(findings: ModuleFindings, log: AgentLog, shared: Iterable[Record], places: Places) -> None:
    executable, prefix = str(log.facts.get("executable") or ""), log.facts.get("pycache_prefix")
    for record in (*log.records, *shared):
        if (
            record.kind == Kind.OPEN
            and not record.flags
            and record.path.endswith(".pyc")
            and record.type != ABSENT
        ):
            bytecode = normalise(record.path)
            source = source_of_bytecode(bytecode, prefix)
            known = source == bytecode or source in findings.stale or not places.is_ours(source)
            if known or not (os.path.isfile(source) and os.path.isfile(bytecode)):
                continue
            if is_stale(bytecode, source, executable):
                findings.stale.add(source)


def _sources(log: AgentLog, shared: Iterable[Record]) -> Iterator[tuple[str, str]]:
    """Give (module name or empty, existing source file) of everything a process imported."""
    prefix = log.facts.get("pycache_prefix")
    given = {}
    program = log.facts.get("program") or [""]
    cwd = str(log.facts.get("cwd", "/"))
    if program[0] and not program[0].startswith("-"):
        given[normalise(os.path.join(cwd, program[0]))] = "__main__"
    for table in (log.modules, log.imports):
        for name, path in table.items():
            if path.startswith("/"):
                given.setdefault(normalise(path), name)
    imported = {part for name in log.imports for part in (name, name.rpartition(".")[2])}
    for record in (*log.records, *shared):
        path = record.path
        if record.kind != Kind.OPEN or record.flags or record.type == ABSENT:
            continue
        if path.endswith(".pyc"):
            given.setdefault(source_of_bytecode(normalise(path), prefix), "")
        elif path.endswith(".py"):
            path = normalise(path)
            if path not in given and _is_imported(path, imported):
                given[path] = ""
    for entry in log.sys_path:
        if os.path.isfile(entry):
            given.setdefault(normalise(entry), "")
    for path, name in given.items():
        found = _existing(path)
        if found:
            yield name, found


def _is_imported(path: str, imported: set[str]) -> bool:
    """Say whether a source file that was read has the name of a module that was imported."""
    folder, _, name = path.rpartition("/")
    stem = name.removesuffix(".py")
    return stem in imported or (stem == "__init__" and folder.rpartition("/")[2] in imported)


def _existing(path: str) -> str:
    """Return the file itself, or the archive a path inside one leads to."""
    while path and path != "/":
        if os.path.isfile(path):
            return path
        if os.path.isdir(path):
            return ""
        path = path.rpartition("/")[0]
    return ""


def _module_name(path: str, search: Iterable[str]) -> str:
    """Name a source file as an import would; its path when no entry of ``sys.path`` leads to it."""
    entries = [entry for entry in search if path.startswith(entry + "/")]
    if not entries:
        return path
    relative = path[len(max(entries, key=len)) + 1 :].rsplit(".", 1)[0]
    return relative.removesuffix("/__init__").replace("/", ".")


def _shadows(absent: set[str], path: str, search: list[str], places: Places, suffixes: Sequence[str]) -> None:
    """Add the paths that the import system prefers to a source file and did not find."""
    stem, _, suffix = path.rpartition(".")
    if suffix not in ("py", "pyc"):
        return
    candidates = [stem + extension for extension in suffixes]
    if suffix == "pyc":
        candidates.append(f"{stem}.py")
    if not stem.endswith("/__init__"):
        candidates.append(f"{stem}/__init__.py")
    for number, entry in enumerate(search):
        if path.startswith(entry + "/"):
            candidates += _preferred(path, entry, search[:number], places, suffixes)
    absent.update(candidate for candidate in candidates if not os.path.lexists(candidate))


def _preferred(
    path: str, entry: str, earlier: list[str], places: Places, suffixes: Sequence[str]
) -> Iterator[str]:
    """Give what would be imported before a source file, were it found through one entry of the search path."""
    relative = path[len(entry) + 1 :]
    top = relative.partition("/")[0]
    folder = path.rpartition("/")[0]
    while len(folder) > len(entry):  # a namespace package gives way to a package or module of its name
        if not os.path.lexists(f"{folder}/__init__.py"):
            yield from (f"{folder}/__init__.py", f"{folder}.py")
            yield from (folder + extension for extension in suffixes)
        folder = folder.rpartition("/")[0]
    name = top.partition(".")[0]
    for other in earlier:
        if other in places.site_directories:
            yield from (f"{other}/{name}", f"{other}/{name}.py")
            yield from (f"{other}/{name}{extension}" for extension in suffixes)
        elif "/" in relative and places.is_ours(other + "/x") and os.path.isdir(f"{other}/{top}"):
            yield f"{other}/{relative}"  # a namespace package may have a portion in an earlier entry


def _add_questions(
    findings: ModuleFindings, opened: Iterable[str], listed: Iterable[str], places: Places
) -> None:
    """Note what a run asked of the installation as a whole: which distributions there are, which names a folder holds."""
    if any(path.endswith((".dist-info/entry_points.txt", ".dist-info/top_level.txt")) for path in opened):
        findings.distributions[ALL_INSTALLED] = NOT_INSTALLED
    for path in listed:
        directory = next(
            (entry for entry in places.site_directories if f"{path}/".startswith(f"{entry}/")), None
        )
        if directory is not None and "/__pycache__" not in path:
            findings.distributions[LISTED + (path[len(directory) + 1 :] or ".")] = NOT_INSTALLED


def _sort_installed(findings: ModuleFindings, installed: set[str], places: Places) -> None:
    """Describe installed files by their distribution's version, or as code where that says too little."""
    sites: dict[str, SiteDirectory] = {}
    for path in sorted(installed):
        directory = next((entry for entry in places.site_directories if path.startswith(entry + "/")), None)
        if directory is None or is_generated(path) or only_announces(path):
            continue
        if directory not in sites:
            sites[directory] = SiteDirectory.read(directory)
        site = sites[directory]
        owner = site.owner_of(path)
        if owner is not None:
            findings.distributions[owner.name] = owner.version
        if owner is None or not owner.from_index or not site.is_as_installed(path, owner):
            if not os.path.isfile(path):
                continue
            if path.endswith((".py", ".so")):
                findings.modules.setdefault(_module_name(path, [directory]), path)
            else:
                findings.loose_files.add(path)
