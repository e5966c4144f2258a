"""Build and prepare the preload library: what Python code and native code alike ask of the C library.

The library is compiled once per machine and version of its source, when a C compiler is there, and kept in the user's cache.
Without a compiler this means is left out; the tracer then knows less and says so.
"""

# Paths are the run's own strings.
# ruff: noqa: PTH101, PTH105, PTH108

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

__all__ = ["LOG_NAME", "build_library", "default_cache_directory", "preloaded_environment", "prepare_log"]

LOG_NAME = "preload.log"
HEADER_BYTES = 4096
TABLE_BYTES = 8 * 2**17  # (= 1048576)
DATA_OFFSET = HEADER_BYTES + TABLE_BYTES  # (= 1052672)
STEP_BYTES = 4 * 2**20  # (= 4194304) allocated at a time, as in preload.c
MAGIC = b"LICHPRE1"

_SOURCES = ("preload.c", "preload_process.h", "preload_wrappers.h")
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = (
    "-shared", "-fPIC", "-O2", "-std=gnu11", "-fvisibility=hidden", "-fno-delete-null-pointer-checks", "-w",
)  # fmt: skip
_COMPILE_SECONDS_MAX = 60


def default_cache_directory() -> Path:
    """Return the user's cache directory for Lichen; it need not be there."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base if base and base.startswith("/") else Path.home() / ".cache") / "lichen"


def build_library(cache_directory: Path | None = None) -> Path | None:
    """Return the compiled library, compiling it when that has not been done.

    Args:
        cache_directory: Where it is kept; the user's cache by default.

    Returns:
        Its absolute path, or None when this machine cannot have it: another system, no compiler, a cache that cannot be
        written or that forbids execution.
    """
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        return None
    folder = Path(__file__).parent
    text = b"\0".join((folder / name).read_bytes() for name in _SOURCES)
    identity = hashlib.sha256(text + "\0".join((*_FLAGS, *platform.libc_ver())).encode()).hexdigest()[:16]
    try:
        cache = (cache_directory or default_cache_directory()).absolute()
        library = cache / f"preload-{platform.machine()}-{identity}.so"
        if library.exists():
            return library
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _compile(folder, library)
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None


def _compile(folder: Path, library: Path) -> Path | None:
    """Compile into a temporary file and keep it only when a program runs with it as without."""
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    if compiler is None or " " in str(library) or ":" in str(library):
        return None  # LD_PRELOAD has no way to write such a path
    handle, draft = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    try:
        command = [compiler, *_FLAGS, "-o", draft, str(folder / _SOURCES[0]), "-ldl", "-lpthread"]
        subprocess.run(
            command, check=True, capture_output=True, timeout=_COMPILE_SECONDS_MAX, stdin=subprocess.DEVNULL
        )
        os.chmod(draft, 0o700)
        probe = subprocess.run(
            ["/bin/sh", "-c", "true"], env={"LD_PRELOAD": draft}, capture_output=True, timeout=10, check=False
        )
        if probe.returncode or probe.stderr:
            return None
        os.replace(draft, library)
    except (OSError, subprocess.SubprocessError):
        return None
    else:
        return library
    finally:
        with contextlib.suppress(OSError):
            os.unlink(draft)


def prepare_log(run_directory: Path) -> bool:
    """Make the shared log of one run.

    Returns:
        False when there is no room for it.
    """
    descriptor = os.open(run_directory / LOG_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, DATA_OFFSET + STEP_BYTES)
        os.pwrite(descriptor, struct.pack("<8sQQI", MAGIC, 0, STEP_BYTES, 0), 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def preloaded_environment(environment: Mapping[str, str], library: Path, agent: str) -> dict[str, str]:
    """Add what makes every program load the library.

    Args:
        environment: Environment so far, with the trace directory named in it.
        library: The compiled library.
        agent: Folder of the Python agent, which the library puts back on PYTHONPATH where a program dropped it; or empty.
    """
    others = [entry for entry in environment.get("LD_PRELOAD", "").replace(" ", ":").split(":") if entry]
    libraries = [entry for entry in others if entry != str(library)] + [str(library)]
    return {**environment, "LD_PRELOAD": ":".join(libraries), "LICHEN_TRACE_AGENT": agent}
