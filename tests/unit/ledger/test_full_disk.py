"""A disk that fills up at any point of a commit: what was acknowledged is there, what was not is gone, and work goes on."""

from __future__ import annotations

import json
import os
import resource
import warnings
from collections.abc import Callable

import pytest

from lichen.contracts import default_contracts
from lichen.errors import StorageError
from lichen.ledger.audit import audit

PAGE_BYTES = 4096


def on_a_disk_of(size_bytes: int, work: Callable[[Callable[[object], None]], None]) -> list[object]:
    """Do something in a fork whose files may not grow beyond a size; return what it told, in order.

    The limit stands for a full disk: writes beyond it fail with EFBIG where a disk says ENOSPC, and SQLite takes
    both for a disk that is full.
    """
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the child only runs Python and SQLite, and leaves by _exit
        child = os.fork()
    if child == 0:
        os.close(reading)

        def tell(what: object) -> None:
            os.write(writing, json.dumps(what).encode() + b"\n")

        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))
            work(tell)
        except BaseException as error:
            tell({"error": type(error).__name__, "said": str(error)})
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        lines = [json.loads(line) for line in told]
    os.waitpid(child, 0)
    return lines


@pytest.mark.parametrize("sealed", [False, True], ids=["not sealed", "sealed"])
@pytest.mark.parametrize("room_pages", [0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89])
def test_nothing_is_acknowledged_that_is_not_there_afterwards(site, room_pages: int, sealed: bool) -> None:
    ledger = site.create()
    before = ledger.size
    ledger.close()
    files = [path for path in site.directory.iterdir() if path.is_file()]
    limit = max(path.stat().st_size for path in files) + room_pages * PAGE_BYTES + 100

    def fill(tell: Callable[[object], None]) -> None:
        mine = site.open()
        for _ in range(2_000):
            try:
                tell(mine.append(site.entry(mine), seal=sealed).index)
            except StorageError as error:
                tell({"code": error.code, "said": str(error), "remedy": error.remedy})
                break
        tell({"size": mine.size})

    *acknowledged, failure, after = on_a_disk_of(limit, fill)
    assert failure["code"] == "storage", failure
    assert failure["remedy"], "it says what to do"
    assert "ledger.sqlite" in failure["said"]
    with site.open() as again:
        for index in acknowledged:
            assert again.entry(index).payload
            assert again.record(index).kind
        step = 2 if sealed else 1
        assert again.size - before in (step * len(acknowledged), step * len(acknowledged) + 1), (
            "and no more than a seal"
        )
        assert after["size"] == before + step * len(acknowledged)
        new = again.append(site.entry(again), seal=True).index
        assert again.receipt(new)
    report = audit(site.directory, default_contracts())
    assert report.is_sound, report.problem
