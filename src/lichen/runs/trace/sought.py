"""Modules that were looked for in vain: the paths at which the import system would have found them.

A run that imports ``pk.fast`` if it can, and does without it if not, depends on nobody putting it there. A name on ``sys.path`` is covered
by the names its directories hold; a name inside a package is looked for in the package's own directories, and every form that it
could have there counts as absent. Packages that were installed are left out: their distribution's build describes what they hold.
"""

# Paths are the run's own strings.
# ruff: noqa: PTH112, PTH113

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib.machinery import EXTENSION_SUFFIXES

from lichen.runs.trace.agent_log import ABSENT, AgentLog, Kind, Record
from lichen.runs.trace.places import Places, normalise

__all__ = ["extension_suffixes", "module_paths", "sought_in_vain"]


def extension_suffixes(log: AgentLog) -> list[str]:
    """Return the endings of extension modules that the interpreter of a process takes."""
    return list(log.facts.get("extensions") or EXTENSION_SUFFIXES)


def module_paths(stem: str, suffixes: Iterable[str]) -> Iterator[str]:
    """Give every path that would make a module importable.

    Args:
        stem: Directory and last part of the name.
        suffixes: Endings of extension modules.
    """
    endings = (".py", ".pyc", *suffixes)
    if os.path.isdir(stem):  # no package yet, or at most a portion of one
        yield from (f"{stem}/__init__{ending}" for ending in endings)
    elif not os.path.isfile(stem):
        yield stem
    yield from (stem + ending for ending in endings)


def sought_in_vain(logs: Iterable[AgentLog], places: Places) -> Iterator[Record]:
    """Give looks at paths where modules of packages were not found.

    Args:
        logs: Of all Python processes.
        places: Knows their interpreters already.

    Returns:
        One look per path, at the time of the search, so that what the run makes there later is its own.
    """
    for log in logs:
        suffixes = extension_suffixes(log)
        for time_ns, name, directories in log.sought:
            own = [place for place in map(normalise, directories) if places.is_ours(place + "/x")]
            stems = [f"{place}/{name.rpartition('.')[2]}" for place in own]
            if any(not os.path.lexists(f"{place}/__init__.py") for place in own):
                # a package without a file of its own can have another portion wherever modules are installed
                stems += [f"{site}/{name.replace('.', '/')}" for site in places.site_directories]
            for stem in stems:
                for path in module_paths(stem, suffixes):
                    yield Record(time_ns, Kind.STAT, path, ABSENT, 0, None, "", "import")
