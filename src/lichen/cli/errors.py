"""Exceptions become a message and an exit status: here and nowhere else.

Every message has the same shape: what happened, then what to do, on standard error. With ``--json`` the same is one
line of JSON there, with the error's stable code. Nobody using Lichen sees a traceback; ``LICHEN_TRACEBACK=1`` shows it to
whoever reports a bug.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from lichen.cli.output import Painted, clean, render, wants_colour
from lichen.errors import LichenError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["OTHER_STATUSES", "Failure", "exit_statuses", "failure_of", "show_failure"]

STATUS_INTERNAL = 70
STATUS_INTERRUPTED = 130
STATUS_BROKEN_PIPE = 141

OTHER_STATUSES = (
    (0, "Success. `lichen run` ends with the status of the command it ran, or replayed."),
    (STATUS_INTERNAL, "A bug in Lichen; `LICHEN_TRACEBACK=1` shows where."),
    (126, "`lichen run` found the command, but it could not be started."),
    (127, "`lichen run` did not find the command."),
    (STATUS_INTERRUPTED, "Interrupted with Ctrl-C; a run that was under way is recorded as interrupted."),
    (STATUS_BROKEN_PIPE, "Whoever read the output stopped reading."),
)
"""Exit statuses that no exception of Lichen's own stands for, with their meaning."""


class Failure:
    """What is told about an exception.

    Attributes:
        code: Stable name for programs.
        message: What happened.
        remedy: What to do; empty when there is nothing to do.
        exit_status: What the process ends with.
        extra: Further fields for programs, such as the rule that refused a record.
    """

    __slots__ = ("code", "exit_status", "extra", "message", "remedy")

    def __init__(
        self, code: str, message: str, remedy: str, exit_status: int, extra: dict[str, Any] | None = None
    ) -> None:
        self.code = code
        self.message = message
        self.remedy = remedy
        self.exit_status = exit_status
        self.extra = extra or {}


def failure_of(error: BaseException) -> Failure:
    """Say what an exception means to the person at the terminal."""
    if isinstance(error, LichenError):
        return _own(error)
    if isinstance(error, OSError):
        return _system(error)
    if isinstance(error, MemoryError):
        return Failure("memory", "not enough memory", "Close other programs, or give this one more.", 6)
    if type(error).__module__ == "sqlite3":
        remedy = "Check free disk space and permissions, then run `lichen verify`."
        return Failure("storage", f"the database failed: {error}", remedy, 6)
    where = _place_of(error)
    return Failure(
        "internal",
        f"{type(error).__name__}: {error}{where}",
        "This is a bug in Lichen. LICHEN_TRACEBACK=1 shows more; please report it with that.",
        STATUS_INTERNAL,
    )


def _own(error: LichenError) -> Failure:
    extra: dict[str, Any] = {}
    rule = getattr(error, "rule", None)
    if rule is not None:
        extra["rule"] = rule
    for name in ("expected", "calculated"):
        value = getattr(error, name, None)
        if value is not None:
            extra[name] = value.hex() if isinstance(value, bytes) else value
    message = f"{error.message} ({rule})" if rule else error.message
    return Failure(error.code, message, error.remedy, error.exit_status, extra)


def _system(error: OSError) -> Failure:
    what = error.strerror or str(error)
    name = error.filename
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    remedies = {
        "ENOSPC": "Free some disk space and try again; nothing half-written is left.",
        "EDQUOT": "Your disk quota is used up: free some space and try again.",
        "EACCES": "Check the permissions of the file and of its directory.",
        "EPERM": "Check the permissions of the file and of its directory.",
        "EROFS": "The file system is mounted read-only.",
        "ELOOP": "A chain of symbolic links leads in a circle: remove one of them.",
    }
    import errno

    remedy = remedies.get(errno.errorcode.get(error.errno or 0, ""), "")
    if error.errno == errno.ENOENT and not name and _directory_is_gone():
        return Failure("storage", "the working directory is gone", "Change to another one: cd DIRECTORY.", 6)
    return Failure("storage", f"{name}: {what}" if name else what, remedy, 6)


def _directory_is_gone() -> bool:
    try:
        os.getcwd()  # noqa: PTH109 - the question is whether it can be told
    except FileNotFoundError:
        return True
    return False


def _place_of(error: BaseException) -> str:
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno})"  # noqa: PTH119


def show_failure(failure: Failure, *, as_json: bool) -> None:
    """Write a failure to standard error; a standard error that is gone loses it."""
    stream = sys.stderr
    try:
        if as_json:
            import json

            told = {
                "code": failure.code, "message": failure.message, "remedy": failure.remedy,
                "exit_status": failure.exit_status, **failure.extra,
            }  # fmt: skip
            stream.write(json.dumps({"error": told}, ensure_ascii=True) + "\n")
        else:
            stream.write("\n".join(_lines(failure, wants_colour(stream))) + "\n")
        stream.flush()
    except (OSError, ValueError):
        return


def _lines(failure: Failure, colour: bool) -> Iterator[str]:
    first, *more = clean(failure.message, keep="\n").split("\n")
    yield render((Painted("lichen: ", "dim"), Painted(first, "bad")), colour)
    for line in (*more, *clean(failure.remedy, keep="\n").split("\n")):
        if line:
            yield f"        {line}"


def exit_statuses() -> list[tuple[int, str, str]]:
    """Return every exit status: number, codes of the errors that end with it, meaning."""
    import inspect

    from lichen import errors

    found: dict[int, tuple[list[str], list[str]]] = {}
    for name in errors.__all__:
        each = getattr(errors, name)
        codes, meanings = found.setdefault(each.exit_status, ([], []))
        codes.append(each.code)
        meanings.append((inspect.getdoc(each) or "").split("\n", maxsplit=1)[0])
    rows = [(status, ", ".join(codes), " ".join(meanings)) for status, (codes, meanings) in found.items()]
    rows += [(status, "", meaning) for status, meaning in OTHER_STATUSES]
    return sorted(rows)
