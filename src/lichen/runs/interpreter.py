"""The environment a Python command would run in, without running it.

A look-up must know interpreter version and installed distributions *now*. Asking the interpreter costs about 20 ms, so
its answer is kept in a small file keyed by everything that could change it: the executable's and ``pyvenv.cfg``'s
identity and modification times. Installed versions are read from the names of ``*.dist-info`` directories each
time, which costs one directory listing.
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
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Interpreter", "distribution_versions", "probe_interpreter"]

_PROBE = (
    "import sys,platform,json,sysconfig;"
    "print(json.dumps({'implementation':sys.implementation.name,'version':platform.python_version(),"
    "'machine':platform.machine(),'build':sysconfig.get_config_var('SOABI') or '','prefix':sys.prefix,'base_prefix':sys.base_prefix,"
    "'path':[p for p in sys.path if p]}))"
)


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
        with contextlib.suppress(OSError, ValueError, TypeError):
            return _from_json(cached.read_text(encoding="utf-8"))
    try:
        answer = subprocess.run(
            [executable, "-I", "-c", _PROBE],
            capture_output=True,
            timeout=10,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout.decode()
        interpreter = _from_json(answer)
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, UnicodeDecodeError):
        return None
    if cached is not None:
        with contextlib.suppress(OSError):  # the cache only saves time
            cached.parent.mkdir(parents=True, exist_ok=True)
            partial = cached.with_suffix(f".{os.getpid()}.tmp")
            partial.write_text(answer, encoding="utf-8")
            partial.replace(cached)
    return interpreter


def _from_json(text: str) -> Interpreter:
    values = json.loads(text)
    values["path"] = tuple(values["path"])
    return Interpreter(**values)


def _this_interpreter() -> Interpreter:
    import sysconfig

    return Interpreter(
        implementation=sys.implementation.name,
        version=platform.python_version(),
        machine=platform.machine(),
        build=str(sysconfig.get_config_var("SOABI") or ""),
        prefix=sys.prefix,
        base_prefix=sys.base_prefix,
        path=tuple(
            entry
            for entry in sys.path
            if entry and entry not in os.environ.get("PYTHONPATH", "").split(os.pathsep)
        ),
    )


def _same_file(first: str, second: str) -> bool:
    return bool(second) and os.path.normpath(first) == os.path.normpath(second)


def _identity(executable: str) -> str:
    """Digest of everything that changes when the interpreter or its environment is replaced."""
    parts = [executable]
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
        directories: Directories that hold ``*.dist-info``, first one wins.

    Returns:
        Version by the given name; a distribution that is not there has the version ``-``.
    """
    wanted = {_normal(name): name for name in names}
    found: dict[str, str] = {}
    for directory in directories:
        try:
            entries = [path.name for path in Path(directory).iterdir()]
        except OSError:
            continue
        for entry in entries:
            match = re.fullmatch(r"(.+?)-([^-]+)\.(?:dist|egg)-info", entry) or re.fullmatch(
                r"(.+?)-([^-]+?)(?:-py[\d.]+)?\.egg-info", entry
            )
            if match and (name := wanted.get(_normal(match[1]))) is not None:
                found.setdefault(name, match[2])
    return {name: found.get(name, "-") for name in wanted.values()}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
