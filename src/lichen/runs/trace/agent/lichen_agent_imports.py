"""Which modules are looked for in vain, and in which directories.

The audit event of an import has the name, and only for import statements: ``importlib.import_module`` and
``importlib.util.find_spec`` raise none, and where a package's modules are looked for is its ``__path__`` at that time. All of them go
through one function of the import system, which is wrapped.
"""

# Runs on Python 3.8, raises nothing, imports nothing it can do without.
# ruff: noqa: S110, SIM105
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, disallow-any-generics=False
# mypy: no-warn-return-any, no-warn-unreachable, no-strict-optional, disable-error-code="import-not-found"

from __future__ import annotations

import os
import sys

from lichen_agent_log import LEVEL_TYPE, absolute

OWN_PREFIX = "lichen_agent"


class Searches:
    """Writes each search of interest once."""

    def __init__(self, agent) -> None:
        self.agent = agent
        self.seen: set = set()

    def told(self, name, path, spec) -> None:
        """A module has been looked for, in the directories of its package or, for None, on ``sys.path``."""
        origin = getattr(spec, "origin", None)
        if spec is None:
            self.in_vain(name, path or ())
        elif path is not None and len(path) > 1:
            self.in_vain(name, self.before(path, origin or ""))
        if spec is not None and sys._getframe(2).f_code.co_name == "find_spec":
            self.asked(name, spec, origin)

    def in_vain(self, name, directories) -> None:
        """Write where a module is not."""
        places = [absolute(entry or ".") for entry in directories if isinstance(entry, str)]
        mark = (name, *places)
        if mark not in self.seen and not name.startswith(OWN_PREFIX):
            self.seen.add(mark)
            self.agent.plain(b"F", b"\0".join(os.fsencode(text) for text in (name, *places)))

    @staticmethod
    def before(path, origin) -> list:
        """Give the directories that come before the one where a module was found; all when that is not among them."""
        found: list = []
        for entry in path:
            if origin.startswith(str(entry).rstrip("/") + "/"):
                break
            found.append(entry)
        return found

    def asked(self, name, spec, origin) -> None:
        """Somebody wanted to know whether there is such a module, and need not import it."""
        if ("", name) in self.seen:
            return
        self.seen.add(("", name))
        self.agent.plain(b"I", os.fsencode(name))
        if isinstance(origin, str) and "/" in origin:
            if self.agent.kind_of_file(origin):
                self.agent.plain(b"V", os.fsencode(name) + b"\0" + os.fsencode(absolute(origin) or ""))
            return
        for place in spec.submodule_search_locations or ():
            if isinstance(place, str) and place.startswith("/"):
                self.agent.stated(b"S", place, LEVEL_TYPE, b"\0")


def watch(agent) -> None:
    """Report every later search of the import system."""
    searches = Searches(agent)
    bootstrap = vars(sys.modules["_frozen_importlib"])
    original = bootstrap["_find_spec"]

    def _find_spec(name, path, target=None):
        spec = original(name, path, target)
        try:
            searches.told(name, path, spec)
        except Exception:  # see the package's rules
            pass
        return spec

    # Tracebacks and warnings leave out frames of the import system's own file.
    _find_spec.__code__ = _find_spec.__code__.replace(co_filename=original.__code__.co_filename)
    _find_spec.__module__ = original.__module__
    bootstrap["_find_spec"] = _find_spec
    util = vars(sys.modules.get("importlib.util", sys))
    if util.get("_find_spec") is original:
        util["_find_spec"] = _find_spec
