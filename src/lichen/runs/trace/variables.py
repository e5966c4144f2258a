"""Which environment variables a result may depend on.

A variable looked at by name counts, whoever looked: a library's ``KERAS_BACKEND`` decides as much as the project's own. What
only describes the terminal or where things lie on this machine counts only when the project's own code asked for it;
files found through such a variable are in the trace by themselves. A copy of the whole environment made to start a
program is no dependency; a loop over it depends on everything but that noise.
"""

# A list of sixty names reads better as one text.
# ruff: noqa: SIM905

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from lichen.runs.trace.agent_log import AgentLog
from lichen.runs.trace.places import Places, normalise

__all__ = [
    "ALL_NAMES",
    "LOCALE_VARIABLES",
    "all_names",
    "foreign_libraries",
    "names_in_shell_text",
    "select_variables",
]

LOCALE_VARIABLES = ("LANG", "LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_NUMERIC")

ALL_NAMES = "*"
"""Stands among the variables of a run that looked at every name: a digest of those that are set, noise left out."""
_NOISE = frozenset(
    "_ SHLVL PWD OLDPWD TERM COLUMNS LINES COLORTERM NO_COLOR FORCE_COLOR CLICOLOR CLICOLOR_FORCE LS_COLORS DISPLAY "
    "WAYLAND_DISPLAY XAUTHORITY WINDOWID PS1 PS2 PROMPT_COMMAND HISTFILE HISTSIZE HISTCONTROL EDITOR VISUAL PAGER LESS "
    "LESSOPEN LESSCLOSE MAIL MANPATH INFOPATH SHELL DESKTOP_SESSION SESSION_MANAGER TMUX TMUX_PANE STY JPY_PARENT_PID "
    "JPY_SESSION_NAME INVOCATION_ID JOURNAL_STREAM DEBIAN_FRONTEND BROWSER TTY_INTERACTIVE TTY_COMPATIBLE "
    "PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE PYTHONFAULTHANDLER PIP_CONFIG_FILE VIRTUAL_ENV_PROMPT "
    "CONDA_PROMPT_MODIFIER CONDA_SHLVL LD_PRELOAD COLORFGBG TERMINFO TERM_PROGRAM PYTHON_COLORS".split()
)
_NOISE_PREFIXES = (
    "LICHEN_", "SSH_", "XDG_SESSION", "XDG_VTNR", "XDG_SEAT", "DBUS_", "VSCODE_", "TERM_PROGRAM", "PYCHARM_", "PYDEVD_",
    "GNOME_", "KDE_", "KONSOLE_", "ITERM_", "WT_", "VTE_", "GIT_", "GPG_", "IPYTHON", "LC_TERMINAL", "BASH_FUNC_",
    "PYTEST_", "COV_", "COVERAGE_", "MEMORY_PRESSURE_",
)  # fmt: skip
_LOCATION = frozenset(
    "HOME USER LOGNAME USERNAME HOSTNAME PATH TMPDIR TEMP TMP VIRTUAL_ENV PYENV_ROOT PYENV_VERSION PYTHONHOME PYTHONPATH "
    "LD_LIBRARY_PATH MPLCONFIGDIR PYTHONUSERBASE PYTHONPYCACHEPREFIX MAMBA_ROOT_PREFIX".split()
)
_LOCATION_PREFIXES = ("XDG_", "CONDA_", "PYTHONHOME")
_SHELL_NAME = re.compile(r"\$\{?[#!]?([A-Za-z_][A-Za-z0-9_]*)")
_QUOTED_NAME = re.compile(r"""["']([A-Za-z_][A-Za-z0-9_]*)["']""")
_SOURCE_BYTES_MAX = 4_000_000


def _is_noise(name: str) -> bool:
    return name in _NOISE or name.startswith(_NOISE_PREFIXES)


def _is_location(name: str) -> bool:
    return name in _LOCATION or name.startswith(_LOCATION_PREFIXES)


def names_in_shell_text(text: str) -> set[str]:
    """Find the variables a shell command may expand; more than it does expand, never fewer in plain scripts."""
    return set(_SHELL_NAME.findall(text))


def select_variables(
    logs: Iterable[AgentLog],
    base: Mapping[str, str],
    places: Places,
    *,
    native: Iterable[str] = (),
    shell: Iterable[str] = (),
    whole: bool = False,
) -> dict[str, str | None]:
    """Decide which variables count.

    Args:
        logs: What Python processes looked at.
        base: Environment before the run.
        places: Tells the project's code from libraries.
        native: Names asked for by native code.
        shell: Names a shell command or script may expand.
        whole: A program that takes the whole environment ran.

    Returns:
        Name -> value before the run, None when unset.
    """
    names = {name for name in native if not _is_noise(name) and not _is_location(name)}
    names |= {name for name in shell if not _is_noise(name)}
    everything = {name for name in base if not _is_noise(name)}
    modest = {name for name in everything if not _is_location(name)}
    if whole:
        names |= modest
    looked_at_all = whole
    for log in logs:
        for name, file in log.variables:
            if is_library(file, places):
                if not _is_noise(name) and not _is_location(name):
                    names.add(name)
            elif not name.startswith("LICHEN_"):
                names.add(name)
        handed_on = {file for *_, stack in log.execs for file in stack}
        for file in log.loops - log.copies:
            looked_at_all = True
            names |= modest if is_library(file, places) else everything
        for file in log.copies:
            if file in handed_on:
                names |= {name for name in _quoted_names(file) if name in everything}
            else:  # a library's copy is handed on, and what reads it there is seen by itself
                looked_at_all = looked_at_all or not is_library(file, places)
                names |= modest if is_library(file, places) else everything
    found = {name: base.get(name) for name in sorted(names)}
    if looked_at_all and ALL_NAMES not in base:
        found[ALL_NAMES] = all_names(base)
    return found


def all_names(environ: Mapping[str, str]) -> str:
    """Digest the names that are set, leaving out what only describes a terminal, a session or where things lie."""
    names = sorted(name for name in environ if name and not _is_noise(name) and not _is_location(name))
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def is_library(file: str, places: Places) -> bool:
    """Say whether a source file belongs to an installed package or the interpreter."""
    return file.startswith("/") and places.of(normalise(file)) in ("site", "interpreter", "system")


def _quoted_names(file: str) -> set[str]:
    """Names written as text in a source file: the ones its code could look up in its copy of the environment."""
    try:
        with Path(file).open(encoding="utf-8", errors="replace") as source:
            return set(_QUOTED_NAME.findall(source.read(_SOURCE_BYTES_MAX)))
    except OSError:
        return set()


def foreign_libraries(value: str) -> str | None:
    """Return the libraries that ``LD_PRELOAD`` names without Lichen's own, which a run inside a run finds there; None for none."""
    kept = [entry for entry in _SEPARATORS.split(value) if entry and _OWN_LIBRARY.search(entry) is None]
    return ":".join(kept) or None


_SEPARATORS = re.compile("[: ]")
_OWN_LIBRARY = re.compile(r"/preload-\w+-[0-9a-f]{16}\.so$")
