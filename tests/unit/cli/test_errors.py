"""Every exception becomes a message with a remedy, a code and an exit status."""

from __future__ import annotations

import errno
import json
import sqlite3

import pytest

from lichen import errors
from lichen.cli.errors import OTHER_STATUSES, exit_statuses, failure_of, show_failure
from lichen.errors import LichenError, NetworkError, Rejected, VerificationError

CLASSES = [getattr(errors, name) for name in errors.__all__]


def make(kind: type[LichenError]) -> LichenError:
    if kind is Rejected:
        return Rejected("members.not-admitted", "no", remedy="ask")
    if kind is NetworkError:
        return NetworkError("no", definite=True, remedy="ask")
    return kind("no", remedy="ask")


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_an_error_of_ours_keeps_its_code_status_and_remedy(kind: type[LichenError]) -> None:
    failure = failure_of(make(kind))
    assert (failure.code, failure.exit_status, failure.remedy) == (kind.code, kind.exit_status, "ask")
    assert failure.message.startswith("no")


def test_a_rejection_names_its_rule() -> None:
    failure = failure_of(Rejected("members.not-admitted", "bob is no member"))
    assert failure.message == "bob is no member (members.not-admitted)"
    assert failure.extra == {"rule": "members.not-admitted"}


def test_a_verification_error_tells_programs_both_values(capsys: pytest.CaptureFixture[str]) -> None:
    show_failure(failure_of(VerificationError("root", expected=b"\x01", calculated="02")), as_json=True)
    told = json.loads(capsys.readouterr().err)["error"]
    assert told == {
        "code": "verification",
        "message": "root",
        "remedy": "",
        "exit_status": 3,
        "expected": "01",
        "calculated": "02",
    }


@pytest.mark.parametrize(
    ("error", "code", "status", "word"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x/store"), "storage", 6, "/x/store"),
        (PermissionError(errno.EACCES, "Permission denied", b"/x/\xff"), "storage", 6, "Permission denied"),
        (sqlite3.OperationalError("disk I/O error"), "storage", 6, "disk I/O error"),
        (MemoryError(), "memory", 6, "memory"),
        (ZeroDivisionError("division by zero"), "internal", 70, "ZeroDivisionError"),
    ],
    ids=["disk-full", "permission", "database", "memory", "bug"],
)
def test_what_the_machine_says_is_told_too(error: Exception, code: str, status: int, word: str) -> None:
    failure = failure_of(error)
    assert (failure.code, failure.exit_status) == (code, status)
    assert word in failure.message
    assert failure.remedy


def test_a_message_for_people_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    show_failure(failure_of(LichenError("bad \x1b[2J name", remedy="first\nsecond")), as_json=False)
    assert capsys.readouterr().err == "lichen: bad \\x1b[2J name\n        first\n        second\n"


def test_the_table_of_statuses_misses_no_error() -> None:
    rows = exit_statuses()
    codes = {code for _, named, _ in rows for code in named.split(", ") if code}
    assert codes == {kind.code for kind in CLASSES}
    assert {status for status, _ in OTHER_STATUSES} <= {status for status, _, _ in rows}
    assert [status for status, _, _ in rows] == sorted({status for status, _, _ in rows})
