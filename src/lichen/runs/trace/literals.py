"""Directories that a command is likely to read from, told from its arguments and from texts in its script.

Only a hint for where to look: it makes inotify see data outside the project from the first moment on.
"""

# Paths are the run's own strings.
# ruff: noqa: PTH110, PTH111, PTH112, PTH113, PTH118, PTH120

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from lichen.runs.trace.inotify import is_public_scratch

__all__ = ["likely_directories"]

_TEXT = re.compile(r"""["']([^"'\n\\]{2,400})["']""")
_SCRIPT_BYTES_MAX = 1_000_000
_DIRECTORIES_MAX = 64
_NEVER = frozenset(
    ("/", "/home", "/root", "/usr", "/etc", "/var", "/opt", "/mnt", "/media", "/srv", "/proc", "/sys", "/dev")
)


def likely_directories(command: Sequence[str], directory: str, skip: Iterable[str] = ()) -> list[str]:
    """List existing directories named by a command or its script.

    Args:
        command: Program and arguments.
        directory: Working directory.
        skip: Trees that are watched anyway.

    Returns:
        Absolute directories, at most 64.
    """
    skipped = [entry.rstrip("/") for entry in skip]
    found: dict[str, None] = {}
    words = [part for word in command[1:] for part in (word, word.partition("=")[2]) if part]
    for word in list(words):
        path = os.path.join(directory, word)
        if word.endswith(
            (".py", ".sh", ".R", ".jl", ".toml", ".yaml", ".yml", ".json", ".cfg", ".ini")
        ) and os.path.isfile(path):
            words += _texts(path)
    for word in words:
        if len(found) >= _DIRECTORIES_MAX:
            break
        path = os.path.normpath(os.path.join(directory, os.path.expanduser(word)))
        if "\0" in path:
            continue
        target = path if os.path.isdir(path) else os.path.dirname(path)
        inside = any(target == entry or target.startswith(entry + "/") for entry in skipped)
        if (
            not inside
            and target not in _NEVER
            and os.path.isdir(target)
            and ("/" in word or os.path.exists(path))
            and not is_public_scratch(target)
        ):
            found[target] = None
    return list(found)


def _texts(path: str) -> list[str]:
    """Texts in a script that may be paths."""
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            return [
                text for text in _TEXT.findall(file.read(_SCRIPT_BYTES_MAX)) if "/" in text or "." in text
            ]
    except OSError:
        return []
