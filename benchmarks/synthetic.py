"""Ledgers of many runs, made quickly: records as `lichen run` makes them, with drawn metrics and joules.

The records are complete and signed; only the manifests they name are not in a store, as in a ledger whose store lies elsewhere.
Where only the query tables matter, `make_views` hands further records to the real views without signing them and without
appending them to the log, which takes a tenth of the time: the tables and their indexes are those of a ledger of that size.
"""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from lichen.contracts import default_contracts
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.ledger.ledger import Ledger
from lichen.ledger.ports import Record
from lichen.runs.keeping.setup import create_ledger
from lichen.runs.queries.views import default_views
from lichen.runs.workspace.config import UserConfig
from lichen.runs.workspace.workspace import LOG_KEY_FILE, read_identity

DATA_SETS = 50
METRICS = ("accuracy", "loss", "f1")


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


def run_predicate(rng: random.Random, number: int) -> dict[str, object]:
    """Draw one run: 2 data files, 3 metrics, 5 parameters inside its parts."""
    data = [digest("data", rng.randrange(DATA_SETS)), digest("labels", rng.randrange(DATA_SETS))]
    joules = round(rng.lognormvariate(5, 1.5), 3)
    idle = round(joules * 0.2, 3)
    return {
        "status": "trained",
        "reusable": True,
        "parts": {name: b64u(digest(name, number)) for name in ("command", "code", "data", "rest")},
        "family": b64u(digest("family", number % 200)[:16]),
        "data": [b64u(item) for item in data],
        "metrics": {name: round(rng.random(), 4) for name in METRICS},
        "energy": {
            "joules": joules, "u95": 0.45, "method": "model", "boundary": "process", "seconds": round(joules / 40, 3),
            "device": "AMD EPYC 9R14 x2", "parts": {"cpu": [round(joules - idle, 3), 0.45], "idle": [idle, 0.45]},
        },
        "manifest": "bafkrei" + hashlib.sha256(str(number).encode()).hexdigest().translate(str.maketrans("0189", "abcd"))[:52],
    }  # fmt: skip


def run_statement(rng: random.Random, number: int, ledger_id: str, member: str, now_ms: int) -> Statement:
    """Make the statement of one run."""
    common = {"ledger": ledger_id, "member": member, "nonce": b64u(os.urandom(12)), "time_unix_ms": now_ms}
    subjects = (Subject("output/0", digest("model", number)), Subject("output/1", digest("summary", number)))
    return Statement("run", subjects, {**run_predicate(rng, number), **common})


def entries(ledger: Ledger, key: SigningKey, member: str, count: int, seed: int) -> Iterator[Entry]:
    """Sign many runs."""
    rng = random.Random(seed)
    ledger_id = b64u(bytes.fromhex(ledger.id))
    now = time.time_ns() // 1_000_000
    for number in range(count):
        yield Entry.signed(run_statement(rng, number, ledger_id, member, now).to_bytes(), key)


def make_ledger(
    directory: Path, count: int, *, access: str = "public", batch: int = 2_000, seed: int = 1
) -> None:
    """Make a ledger of ``count`` runs in ``directory/.lichen``; LICHEN_HOME must be set."""
    user = UserConfig.read()
    ledger_directory = directory / ".lichen"
    create_ledger(ledger_directory, name="synthetic", access=access, member="synthetic", user=user)
    identity = read_identity(user, "synthetic")
    from lichen.crypto.key_file import read_key

    with Ledger.open(
        ledger_directory,
        default_contracts(),
        default_views(),
        log_key=read_key(ledger_directory / LOG_KEY_FILE),
    ) as ledger:
        pending: list[Entry] = []
        for entry in entries(ledger, identity.key, identity.member, count, seed):
            pending.append(entry)
            if len(pending) == batch:
                ledger.append_many(pending, seal=True)
                pending.clear()
        if pending:
            ledger.append_many(pending, seal=True)


def make_views(directory: Path, count: int, *, signed_count: int = 2_000, seed: int = 1) -> None:
    """Make query tables as of a ledger of ``count`` runs in ``directory/.lichen``; LICHEN_HOME must be set.

    The first ``signed_count`` runs are in the log. The others are only in the tables, put there by the views' own code and
    numbered on from the end of the log, so nothing can be verified about them, and nothing may be appended.
    """
    make_ledger(directory, min(signed_count, count), seed=seed)
    ledger_directory = directory / ".lichen"
    with Ledger.open(ledger_directory, default_contracts(), default_views(), read_only=True) as ledger:
        size, ledger_id = ledger.size, b64u(bytes.fromhex(ledger.id))
        ledger.connection.execute("SELECT count(*) FROM view_run").fetchone()
        entry = ledger.entry(size - 1)
    runs = next(view for view in default_views() if "run" in view.kinds)
    rng, now_ms = random.Random(seed + 1), time.time_ns() // 1_000_000
    key = SigningKey.generate().public
    connection = sqlite3.connect(ledger_directory / "ledger.sqlite", isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(
            "PRAGMA cache_size = -2000000"
        )  # (= 2 GB) indexes by digest are written in no order
        connection.execute("BEGIN IMMEDIATE")
        for number in range(signed_count, count):
            said = run_statement(rng, number, ledger_id, "synthetic", now_ms)
            index = size + number - signed_count
            runs.insert(connection, Record(index, entry, said, "run", "synthetic", bytes(32), key))
            if index % 100_000 == 0:
                connection.execute("COMMIT")
                connection.execute("BEGIN IMMEDIATE")
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()
