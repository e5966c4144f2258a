"""Ledgers of many runs, made quickly: records as `lichen run` makes them, with drawn metrics and joules.

The records are complete and signed; only the manifests they name are not in a store, as in a ledger whose store lies elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from lichen.contracts import default_contracts
from lichen.crypto.key_file import read_key
from lichen.encoding.base import b64u
from lichen.encoding.statement import Statement, Subject
from lichen.errors import Rejected
from lichen.ledger.genesis import Sealing
from lichen.ledger.ledger import Ledger
from lichen.runs.keeping.setup import create_ledger
from lichen.runs.queries.views import default_views
from lichen.runs.workspace.config import UserConfig
from lichen.runs.workspace.workspace import LOG_KEY_FILE, read_identity

BATCH_COUNT = 10_000
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


def make_ledger(
    directory: Path,
    count: int,
    *,
    access: str = "public",
    batch: int = BATCH_COUNT,
    seed: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Make a ledger of ``count`` runs in ``directory/.lichen``; LICHEN_HOME must be set.

    Every run is signed, judged by its contract and appended, a batch in each block: a map of the state that is changed for many
    runs at once is changed with fewer hashes. The query tables are filled at the end, in one go.

    Args:
        directory: Where; made when absent.
        count: How many runs.
        access: ``public`` or ``private``.
        batch: Runs in a block; memory grows with it, by some 20 kB each.
        seed: Of what is drawn.
        progress: Told now and then how many runs are appended, and how many there will be.
    """
    user = UserConfig.read()
    ledger_directory = directory / ".lichen"
    usual = Sealing()
    blocks = Sealing(entries_max=batch) if count > batch > usual.entries_max else usual
    create_ledger(
        ledger_directory, name="synthetic", access=access, member="synthetic", user=user, sealing=blocks
    )
    identity = read_identity(user, "synthetic")
    rng, now_ms = random.Random(seed), time.time_ns() // 1_000_000
    log_key = read_key(ledger_directory / LOG_KEY_FILE)
    with Ledger.open(ledger_directory, default_contracts(), default_views(), log_key=log_key) as ledger:
        ledger_id = b64u(bytes.fromhex(ledger.id))
        for start in range(0, count, batch):
            stop = min(start + batch, count)
            said = [
                run_statement(rng, number, ledger_id, identity.member, now_ms)
                for number in range(start, stop)
            ]
            for answer in ledger.append_all_signed(said, identity.key, seal=True):
                if isinstance(answer, Rejected):
                    raise answer
            if progress is not None:
                progress(stop, count)
        ledger.connection  # noqa: B018 - taking it fills the query tables
