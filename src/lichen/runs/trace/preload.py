"""Build and prepare the preload library: what Python code and native code alike ask of the C library.

The library is compiled once per machine and version of its source, when a C compiler is there, and kept in the user's cache.
Without a compiler this means is left out; the tracer then knows less and says so.
"""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from lichen.content.compiled import compiled_library, default_cache_directory

__all__ = ["LOG_NAME", "build_library", "default_cache_directory", "preloaded_environment", "prepare_log"]

LOG_NAME = "preload.log"
HEADER_BYTES = 4096
TABLE_BYTES = 8 * 2**17  # (= 1048576)
DATA_OFFSET = HEADER_BYTES + TABLE_BYTES  # (= 1052672)
STEP_BYTES = 4 * 2**20  # (= 4194304) allocated at a time, as in preload.c
MAGIC = b"LICHPRE1"

_SOURCES = ("preload.c", "preload_process.h", "preload_wrappers.h", "preload_special.h")
_LIBRARIES = ("-ldl", "-lpthread")
_FLAGS = (
    "-shared", "-fPIC", "-O2", "-std=gnu11", "-fvisibility=hidden", "-fno-delete-null-pointer-checks", "-w",
)  # fmt: skip


def build_library(cache_directory: Path | None = None) -> Path | None:
    """Return the compiled library, compiling it when that has not been done.

    Args:
        cache_directory: Where it is kept; the user's cache by default.

    Returns:
        Its absolute path, or None when this machine cannot have it; see :func:`lichen.content.compiled.compiled_library`.
    """
    folder = Path(__file__).parent
    sources = [folder / name for name in _SOURCES]
    return compiled_library(
        sources, _FLAGS, _LIBRARIES, is_usable=_is_harmless, cache_directory=cache_directory
    )


def _is_harmless(library: str) -> bool:
    """Say whether a program runs with the library as without."""
    try:
        probe = subprocess.run(
            ["/bin/sh", "-c", "true"],
            env={"LD_PRELOAD": library},
            capture_output=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return not probe.returncode and not probe.stderr


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
