"""Libraries in C that Lichen ships as source: compiled once per machine and version of their source, kept in the user's cache.

They are only ever a better way to do what is done without them too, so nothing that goes wrong here is an error: without a
compiler, or with a cache that cannot be written or that forbids execution, there is no library.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["compiled_library", "default_cache_directory"]

COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS_MAX = 60
MACHINES = ("x86_64", "aarch64")


def default_cache_directory() -> Path:
    """Return the user's cache directory for Lichen; it need not be there."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base if base and base.startswith("/") else Path.home() / ".cache") / "lichen"


def compiled_library(
    sources: Sequence[Path],
    flags: Sequence[str],
    libraries: Sequence[str] = (),
    *,
    is_usable: Callable[[str], bool],
    cache_directory: Path | None = None,
) -> Path | None:
    """Return a shared library, compiling it when that has not been done.

    Args:
        sources: The first one is compiled and named the library; the others are included by it.
        flags: Of the compiler.
        libraries: To link with, as flags.
        is_usable: Given the path of what was just compiled, says whether to keep it.
        cache_directory: Where it is kept; the user's cache by default.

    Returns:
        Its absolute path, or None when this machine cannot have it: another system, no compiler, a cache that cannot be
        written or that forbids execution.
    """
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        return None
    try:
        text = b"\0".join(source.read_bytes() for source in sources)
        identity = hashlib.sha256(text + "\0".join((*flags, *platform.libc_ver())).encode()).hexdigest()[:16]
        cache = (cache_directory or default_cache_directory()).absolute()
        library = cache / f"{sources[0].stem}-{platform.machine()}-{identity}.so"
        if library.exists():
            return library
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        return _compile(sources[0], library, flags, libraries, is_usable)
    except (OSError, RuntimeError):  # RuntimeError: there is no home directory
        return None


def _compile(
    source: Path,
    library: Path,
    flags: Sequence[str],
    libraries: Sequence[str],
    is_usable: Callable[[str], bool],
) -> Path | None:
    """Compile into a temporary file and keep it only when it can be used."""
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None or " " in str(library) or ":" in str(library):
        return None  # LD_PRELOAD has no way to write such a path
    handle, draft = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    try:
        subprocess.run(
            [compiler, *flags, "-o", draft, str(source), *libraries],
            check=True,
            capture_output=True,
            timeout=COMPILE_SECONDS_MAX,
            stdin=subprocess.DEVNULL,
        )
        Path(draft).chmod(0o700)
        if not is_usable(draft):
            return None
        Path(draft).replace(library)
    except (OSError, subprocess.SubprocessError):
        return None
    else:
        return library
    finally:
        with contextlib.suppress(OSError):
            Path(draft).unlink()
