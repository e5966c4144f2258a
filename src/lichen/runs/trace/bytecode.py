"""Was the bytecode that ran compiled from the source that is there?

Python takes bytecode for current when the source's size and its modification time in whole seconds agree. A source edited within the same
second, to the same length, is therefore not run: what ran was the earlier text. A record that named the new text beside
the result of the old one would answer later requests wrongly, so doubtful bytecode is compared with a fresh compilation.

Source: PEP 552 for the header; CPython's ``importlib._bootstrap_external`` for what is checked.
"""

# Paths are the run's own strings.
# ruff: noqa: PTH116, PTH123

from __future__ import annotations

import importlib.util
import marshal
import os
import struct
import subprocess

__all__ = ["is_hidden", "is_stale"]

_COMPARE = (
    "import marshal,sys\n"
    "p,s,o=sys.argv[1:]\n"
    "ran=marshal.loads(open(p,'rb').read()[16:])\n"
    "print(int(compile(open(s,'rb').read(),ran.co_filename,'exec',dont_inherit=True,optimize=int(o))==ran))"
)
_COMPARE_SECONDS_MAX = 20
_HEADER = struct.Struct("<4sIII")  # magic number, flags, then modification time and size where no flag is set
_CHECKED_BY_HASH = 3
_32_BITS = 0xFFFFFFFF


def is_stale(bytecode: str, source: str, executable: str) -> bool:
    """Say whether bytecode may differ from its source.

    Args:
        bytecode: Path of the ``.pyc`` that was loaded.
        source: Path of the source it names.
        executable: The interpreter that loaded it.

    Returns:
        False when the source has not been touched since, or compiles to the same code; True in every other case.
    """
    try:
        if os.stat(source).st_ctime_ns <= os.stat(bytecode).st_mtime_ns and _is_timed(bytecode):
            return False
        with open(bytecode, "rb") as file:
            data = file.read()
        if data[:4] == importlib.util.MAGIC_NUMBER:
            return not _compiles_to(data, source, _level(bytecode))
        answer = subprocess.run(
            [executable, "-I", "-c", _COMPARE, bytecode, source, str(_level(bytecode))],
            capture_output=True,
            timeout=_COMPARE_SECONDS_MAX,
            check=True,
            stdin=subprocess.DEVNULL,
        )
        return answer.stdout.strip() != b"1"
    except (OSError, ValueError, EOFError, TypeError, SyntaxError, subprocess.SubprocessError):
        return True


def is_hidden(source: str, cache_tag: str, executable: str) -> bool:
    """Say whether an interpreter that imports a source would run bytecode of another text instead.

    Args:
        source: Path of a ``.py`` file.
        cache_tag: The interpreter's, such as ``cpython-311``.
        executable: The interpreter.

    Returns:
        True when bytecode beside the source passes for its own and may not be. Bytecode written after the source was last touched is
        its own; only the other is compared.
    """
    folder, _, name = source.rpartition("/")
    for level in ("", ".opt-1", ".opt-2"):
        bytecode = f"{folder}/__pycache__/{name.removesuffix('.py')}.{cache_tag}{level}.pyc"
        try:
            with open(bytecode, "rb") as file:
                _, flags, modified, size_bytes = _HEADER.unpack(file.read(_HEADER.size))
            status = os.stat(source)
        except (OSError, struct.error):
            continue  # none, or none that would be taken
        is_checked = flags == _CHECKED_BY_HASH or (
            flags == 0
            and (modified, size_bytes) != (int(status.st_mtime) & _32_BITS, status.st_size & _32_BITS)
        )
        if not is_checked and is_stale(bytecode, source, executable):
            return True
    return False


def _is_timed(bytecode: str) -> bool:
    """Say whether bytecode is checked against its source's time and size, not against a hash or not at all."""
    with open(bytecode, "rb") as file:
        return file.read(8)[4:] == bytes(4)


def _level(bytecode: str) -> int:
    """Optimisation level in a bytecode's name: ``.opt-1.pyc``."""
    head, _, level = bytecode.removesuffix(".pyc").rpartition(".opt-")
    return int(level) if head and level.isdigit() else 0


def _compiles_to(data: bytes, source: str, level: int) -> bool:
    ran = marshal.loads(data[16:])  # noqa: S302 - compared, never run; it is the code that has just been run
    with open(source, "rb") as file:
        return bool(compile(file.read(), ran.co_filename, "exec", dont_inherit=True, optimize=level) == ran)
