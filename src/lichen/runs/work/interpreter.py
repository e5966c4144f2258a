"""The environment a Python command would run in, without running it.

A look-up must know interpreter version and installed distributions *now*. Asking the interpreter costs about 20 ms, so
its answer is kept in a small file keyed by everything that could change it: the executable's and ``pyvenv.cfg``'s
identity and modification times, the variables by which people move its directories, and the times of those directories, since
path files in them lead to others. Installed versions are read from
the names of ``*.dist-info`` directories each time, which costs one directory listing. Its own packages and the user's count,
even where their directory is yet to be made; a distribution that stands in several directories has all its versions told, since
an interpreter's options decide which of them it takes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lichen.encoding.foreign_json import read_json

__all__ = ["Interpreter", "distribution_versions", "probe_interpreter"]

_PROBE = (
    "import sys;sys.path=[p for p in sys.path if p];import platform,json,sysconfig,site;"
    "u=[site.getusersitepackages()] if site.ENABLE_USER_SITE else [];"
    "s=site.getsitepackages() if hasattr(site,'getsitepackages') else [];"
    "print();print(json.dumps({'implementation':sys.implementation.name,'version':platform.python_version(),"
    "'machine':platform.machine(),'build':sysconfig.get_config_var('SOABI') or '','prefix':sys.prefix,'base_prefix':sys.base_prefix,"
    "'path':list(dict.fromkeys(u+sys.path+s))}))"
)
_MOVING_VARIABLES = ("HOME", "PYTHONHOME", "PYTHONNOUSERSITE", "PYTHONPLATLIBDIR", "PYTHONUSERBASE")
"""Variables that decide where an interpreter looks for what is installed."""
_NOT_FOR_A_PROBE = ("PYTHONPATH", "PYTHONINSPECT", "PYTHONSTARTUP", "LD_PRELOAD", "LICHEN_TRACE_DIR")


@dataclass(frozen=True)
class Interpreter:
    """What a Python interpreter says of itself.

    Args:
        implementation: Such as ``cpython``.
        version: Such as ``3.11.7``.
        machine: CPU architecture, such as ``x86_64``.
        build: ABI tag, which tells a free-threaded or debug build apart.
        prefix: Root of the (virtual) environment.
        base_prefix: Root of the installation behind it.
        path: Absolute entries of ``sys.path`` without the user's PYTHONPATH.
    """

    implementation: str
    version: str
    machine: str
    build: str
    prefix: str
    base_prefix: str
    path: tuple[str, ...]

    @property
    def cache_tag(self) -> str:
        """What the names of its bytecode files hold, such as ``cpython-311``."""
        major, minor = [*self.version.split("."), ""][:2]
        dash = "-" if self.implementation == "cpython" else ""
        return f"{self.implementation}{dash}{major}{minor}"

    def stamp(self) -> dict[str, int]:
        """Return the modification times of the directories in which path files may lie, nanoseconds; -1 where none is."""
        return {entry: _modified_ns(entry) for entry in self.path if entry.endswith("-packages")}

    def to_environment(self) -> dict[str, str]:
        """Return the part that results may depend on."""
        return {
            "implementation": self.implementation,
            "version": self.version,
            "machine": self.machine,
            "build": self.build,
        }


def probe_interpreter(executable: str, cache_directory: Path | None = None) -> Interpreter | None:
    """Ask an interpreter what it is.

    Args:
        executable: Absolute path, symbolic links kept (a virtual environment is known by its link).
        cache_directory: Where answers are kept; none are kept when None.

    Returns:
        Its answer, or None when it cannot be run or does not answer within ten seconds.
    """
    if _same_file(executable, sys.executable):
        return _this_interpreter()
    cached = cache_directory / f"python-{_identity(executable)}.json" if cache_directory else None
    if cached is not None:
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            kept = read_json(cached.read_text(encoding="utf-8"))
            known = _from_json(kept["answer"])
            if known.stamp() == kept["stamp"]:
                return known
    try:
        answer = (
            subprocess.run(
                [executable, "-c", _PROBE],
                capture_output=True,
                env={name: value for name, value in os.environ.items() if name not in _NOT_FOR_A_PROBE},
                timeout=10,
                check=True,
                stdin=subprocess.DEVNULL,
                cwd="/",  # nothing of the project may stand in a module's place
            )
            .stdout.decode()
            .splitlines()[-1]
        )  # start-up files of the user's may print
        interpreter = _from_json(read_json(answer))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError, UnicodeDecodeError):
        return None
    if cached is not None:
        with contextlib.suppress(OSError):  # the cache only saves time
            cached.parent.mkdir(parents=True, exist_ok=True)
            partial = cached.with_suffix(f".{os.getpid()}.tmp")
            kept = {"answer": asdict(interpreter), "stamp": interpreter.stamp()}
            partial.write_text(json.dumps(kept), encoding="utf-8")
            partial.replace(cached)
    return interpreter


def _from_json(values: dict[str, Any]) -> Interpreter:
    return Interpreter(**{**values, "path": tuple(values["path"])})


def _modified_ns(place: str) -> int:
    try:
        return os.stat(place).st_mtime_ns  # noqa: PTH116 - a hot path
    except OSError:
        return -1


def _this_interpreter() -> Interpreter:
    import sysconfig

    return Interpreter(
        implementation=sys.implementation.name,
        version=platform.python_version(),
        machine=platform.machine(),
        build=str(sysconfig.get_config_var("SOABI") or ""),
        prefix=sys.prefix,
        base_prefix=sys.base_prefix,
        path=tuple(dict.fromkeys((*_user_site(), *_own_path(), *_site()))),
    )


def _own_path() -> list[str]:
    """Return this process's ``sys.path`` without what the user's PYTHONPATH added."""
    added = os.environ.get("PYTHONPATH", "")
    places = {os.path.abspath(entry) for entry in added.split(os.pathsep)} if added else set()  # noqa: PTH100 - links stay
    return [entry for entry in sys.path if entry and os.path.abspath(entry) not in places]  # noqa: PTH100


def _site() -> list[str]:
    """Return where this interpreter's own packages are installed, whether or not the folders are there yet."""
    import site

    return site.getsitepackages()


def _user_site() -> list[str]:
    """Return where this interpreter looks for the user's own packages, when it does."""
    import site

    return [site.getusersitepackages()] if site.ENABLE_USER_SITE else []


def _same_file(first: str, second: str) -> bool:
    return bool(second) and os.path.normpath(first) == os.path.normpath(second)


def _identity(executable: str) -> str:
    """Digest of everything that changes when the interpreter or its environment is replaced."""
    parts = [executable, *(f"{name}={os.environ.get(name)}" for name in _MOVING_VARIABLES)]
    target = Path(executable)
    for path in (target, target.parent.parent / "pyvenv.cfg", target.parent / "pyvenv.cfg"):
        try:
            info = path.stat()
            parts.append(f"{path}:{info.st_dev}:{info.st_ino}:{info.st_size}:{info.st_mtime_ns}")
        except OSError:
            parts.append(f"{path}:-")
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:24]


def distribution_versions(names: Iterable[str], directories: Iterable[str]) -> Mapping[str, str]:
    """Read the installed versions of distributions.

    Args:
        names: Names in any spelling.
        directories: Directories that hold ``*.dist-info``, in the order of the search.

    Returns:
        Version by the given name, all of them separated by ``, `` when several directories hold it; a distribution that is
        not there has the version ``-``.
    """
    wanted = {_normal(name): name for name in names}
    found: dict[str, dict[str, None]] = {}
    for directory in directories:
        try:
            entries = sorted(path.name for path in Path(directory).iterdir())
        except OSError:
            continue
        for entry in entries:
            match = re.fullmatch(r"(.+?)-([^-]+)\.(?:dist|egg)-info", entry) or re.fullmatch(
                r"(.+?)-([^-]+?)(?:-py[\d.]+)?\.egg-info", entry
            )
            if match and (name := wanted.get(_normal(match[1]))) is not None:
                found.setdefault(name, {})[match[2]] = None
    return {name: ", ".join(found.get(name, "-")) for name in wanted.values()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
