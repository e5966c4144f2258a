"""A ledger to harm: keys made from a seed, plausible records of every kind, an audit that believes nothing."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lichen.contracts import default_contracts, default_versions
from lichen.crypto.hashes import sha256
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.ledger.audit import AuditReport, audit
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger
from lichen.runs.queries.views import default_views

__all__ = ["PARTS", "Site", "payload_digest"]

PARTS = ("command", "code", "data", "rest", "seed")


def payload_digest(entry: Entry) -> str:
    """SHA-256 of a payload, hexadecimal: by which a record is known wherever it stands."""
    return sha256(entry.payload).hex()


@dataclass(frozen=True)
class Site:
    """Where a ledger lies and who may write to it; small enough to be handed to another process as text.

    Args:
        root: Directory of everything.
        seed: Keys follow from it, so that a process that is told it can sign.
    """

    root: Path
    seed: int = 1

    @property
    def directory(self) -> Path:
        """Of the ledger."""
        return self.root / "ledger"

    @property
    def home(self) -> Path:
        """Of keys and high-water marks."""
        return self.root / "home"

    @property
    def path(self) -> Path:
        """The file."""
        return self.directory / "ledger.sqlite"

    @property
    def log_key(self) -> SigningKey:
        """Of the log."""
        return self._key("log")

    @property
    def member_key(self) -> SigningKey:
        """Of ada, the only member."""
        return self._key("ada")

    def _key(self, name: str) -> SigningKey:
        return SigningKey.from_seed(hashlib.sha256(f"{self.seed} {name}".encode()).digest())

    def create(self, *, entries_max: int = 50, slot_ms: int = 3_600_000) -> Ledger:
        """Make the ledger, with every contract and view."""
        genesis = Genesis(
            name="harmed",
            created_unix_ms=0,
            admins=(Admin("ada", self.member_key.public),),
            log_key=self.log_key.public,
            contracts=default_versions(),
            nonce=hashlib.sha256(b"%d" % self.seed).digest()[:12],
            sealing=Sealing("solo", entries_max, slot_ms),
        )
        return Ledger.create(
            self.directory, genesis, self.log_key, default_contracts(), default_views(), home=self.home
        )

    def open(self, *, read_only: bool = False, home: bool = True) -> Ledger:
        """Open it as `lichen run` does."""
        return Ledger.open(
            self.directory,
            default_contracts(),
            default_views(),
            log_key=None if read_only else self.log_key,
            read_only=read_only,
            home=self.home if home else None,
        )

    @contextmanager
    def opened(self, **options: bool) -> Iterator[Ledger]:
        """Open it for as long as it is needed."""
        ledger = self.open(**options)
        try:
            yield ledger
        finally:
            ledger.close()

    def audit(self, **options: Any) -> AuditReport:
        """Derive everything again, views too."""
        return audit(self.directory, default_contracts(), views=default_views(), **options)

    def statement(self, ledger: Ledger, rng: random.Random) -> Statement:
        """A run that has never been; ``rng`` decides what it says."""
        parts = {name: b64u(rng.randbytes(32)) for name in PARTS}
        said = {
            "status": "trained",
            "reusable": True,
            "parts": parts,
            "family": b64u(rng.randbytes(16)),
            "data": [b64u(b"rows".ljust(32, b"%d" % rng.randrange(4)))],
            "metrics": {"accuracy": round(rng.uniform(0.5, 0.99), 4), "loss": round(rng.random(), 5)},
            "energy": {
                "joules": round(rng.uniform(1, 5_000), 3),
                "u95": 0.2,
                "method": "model",
                "boundary": "process",
                "seconds": round(rng.uniform(1, 100), 3),
            },
            "manifest": "bafkrei" + "a" * 52,
        }
        return ledger.statement("run", [Subject("output/0", rng.randbytes(32))], said, member="ada")

    def entry(self, ledger: Ledger, rng: random.Random) -> Entry:
        """Such a run, signed."""
        return Entry.signed(self.statement(ledger, rng).to_bytes(), self.member_key)

    def entries(self, ledger: Ledger, rng: random.Random, count: int) -> list[Entry]:
        """Several."""
        return [self.entry(ledger, rng) for _ in range(count)]

    def said(self, ledger: Ledger, kind: str, index: int, **predicate: Any) -> Entry:
        """Something signed about an earlier entry: a flag, a withdrawal, a reuse."""
        subjects = [Subject("entry", os.urandom(32))]
        statement = ledger.statement(kind, subjects, {"of": index, **predicate}, member="ada")
        return Entry.signed(statement.to_bytes(), self.member_key)
