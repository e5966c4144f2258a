"""A process that checks entries for an audit: chunks come in on standard input, what is known of them goes out.

Started by :mod:`lichen.ledger.audit.pool` and by nothing else; what it reads comes from its parent alone, through a pipe.

A message is its length, 4 bytes, and that many bytes of :mod:`marshal`. The first one is the pickled `Scope`; each
further one is a task, ``("examine", start, stop, keys, is_believed)``, ``("part", source, target)``, ``("pages", uri)`` or ``("state", uri)``.
"""

from __future__ import annotations

import contextlib
import marshal
import pickle
import signal
import sqlite3
import struct
import sys
from typing import Any, BinaryIO, Final

from lichen.ledger.audit.checked import Scope
from lichen.ledger.audit.examined import Examiner
from lichen.ledger.audit.pages import damaged_pages
from lichen.ledger.audit.sound_state import sound_state
from lichen.ledger.audit.state_roots import build_part

__all__ = ["main", "read_message", "write_message"]

_LENGTH: Final = struct.Struct(">I")


def write_message(stream: BinaryIO, value: Any) -> None:
    """Send a value of plain types."""
    data = marshal.dumps(value)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def read_message(stream: BinaryIO) -> Any:
    """Receive a value.

    Raises:
        EOFError: The other side has gone.
    """
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    (length,) = _LENGTH.unpack(head)
    data = stream.read(length)
    if len(data) < length:
        raise EOFError
    return marshal.loads(data)  # noqa: S302 - from the other end of a pipe between two processes of this audit


def main() -> None:
    """Answer tasks until the other side closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    source, target = sys.stdin.buffer, sys.stdout.buffer
    with contextlib.suppress(EOFError, BrokenPipeError):
        scope: Scope = pickle.loads(read_message(source))  # noqa: S301 - made by the parent
        with Examiner(scope) as examiner:
            while True:
                task, *details = read_message(source)
                write_message(target, _done(scope, examiner, task, details))


def _done(scope: Scope, examiner: Examiner, task: str, details: list[Any]) -> Any:
    if task == "examine":
        start, stop, keys, is_believed = details
        return examiner.examine(start, stop, keys, is_believed=is_believed).pack(scope)
    if task == "part":
        build_part(*details)
        return None
    if task == "state":
        return sound_state(*details)
    try:
        return damaged_pages(*details)
    except sqlite3.Error as error:
        return str(error)
