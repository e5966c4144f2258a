"""Keep the project's modules out of Lichen's own process.

A project may hold a ``secrets.py`` or a ``struct.py``, and name itself in PYTHONPATH. Those are the command's to import,
never Lichen's: a ledger must not be written by whatever lies in the working directory. So what PYTHONPATH and ``python -m``
put on ``sys.path`` is taken off before anything is imported; the variable stays as it is for the command. A directory
that holds Lichen or what it needs stays, behind everything that is installed.

Limit: ``sitecustomize`` and whatever it imports ran before this, since the interpreter imports it.
"""

from __future__ import annotations

import os
import sys

__all__ = ["leave_projects_out"]

_NEEDED = ("lichen", "click", "cryptography")
_STARTERS = frozenset({"__main__", "sitecustomize", "usercustomize"})


def leave_projects_out(package: str) -> None:
    """Take off ``sys.path`` what a project put there, and forget modules that shadow the standard library.

    Args:
        package: Directory of Lichen itself.
    """
    foreign = _foreign_entries()
    kept = [entry for entry in sys.path if entry in foreign and _is_needed(entry, package)]
    sys.path[:] = [entry for entry in sys.path if entry not in foreign] + kept
    below = tuple(f"{_absolute(entry)}/" for entry in foreign if entry not in kept)
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if (
            isinstance(origin, str)
            and _absolute(origin).startswith(below)
            and name.partition(".")[0] in sys.stdlib_module_names
            and name not in _STARTERS
        ):
            del sys.modules[name]


def _foreign_entries() -> set[str]:
    """Return the entries of ``sys.path`` that come from PYTHONPATH, or from where ``python -m`` was called."""
    named = os.environ.get("PYTHONPATH", "")
    places = {_absolute(entry) for entry in named.split(os.pathsep)} if named else set()
    installed = {_absolute(sys.prefix), _absolute(sys.base_prefix)}
    main = getattr(sys.modules.get("__main__"), "__spec__", None)
    if main is not None and not sys.flags.safe_path:
        places.add(_absolute(""))
    return {
        entry
        for entry in sys.path
        if _absolute(entry) in places
        and not any(_absolute(entry).startswith(f"{root}/lib") for root in installed)
    }


def _is_needed(entry: str, package: str) -> bool:
    """Say whether Lichen or a library of its own was installed into an entry."""
    place = _absolute(entry)
    if f"{package}/".startswith(f"{place}/") or f"{place}/".startswith(f"{package}/"):
        return True
    return any(os.path.isfile(f"{place}/{name}/__init__.py") for name in _NEEDED)  # noqa: PTH113 - pathlib comes later


def _absolute(entry: str) -> str:
    try:
        return os.path.normpath(os.path.abspath(entry))  # noqa: PTH100 - pathlib comes later
    except FileNotFoundError:  # the working directory is gone
        return os.path.normpath(entry)
