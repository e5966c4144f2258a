"""A log without a disk: records, state and rules in memory, so that contracts are tested alone."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from typing import Any

import pytest

from lichen.contracts import default_contracts, default_versions
from lichen.crypto.keys import PublicKey, SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.ledger.genesis import Admin, Genesis
from lichen.ledger.ports import Record
from lichen.ledger.rulebook import Rulebook
from lichen.ledger.state_map import state_key

PARTS = ("command", "code", "data", "rest", "seed")
CID = "bafkrei" + "a" * 52


def digest(text: str) -> str:
    """A 32-byte digest as records carry it."""
    return b64u(hashlib.sha256(text.encode()).digest())


@dataclass
class World:
    """Implements `StateReader` over lists and a dict; alice is the one admin."""

    keys: dict[str, SigningKey] = field(default_factory=dict)
    records: list[Record | None] = field(default_factory=list)
    values: dict[bytes, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log_key = SigningKey.generate()
        alice = self.key("alice")
        genesis = Genesis(
            name="world",
            created_unix_ms=0,
            admins=(Admin("alice", alice.public),),
            log_key=self.log_key.public,
            contracts=default_versions(),
            nonce=bytes(12),
        )
        entry = genesis.to_entry(self.log_key)
        statement = Statement.from_bytes(entry.payload)
        self.rules = Rulebook(genesis, default_contracts())
        record = Record(0, entry, statement, "genesis", "log", bytes(32), self.log_key.public)
        self._write(self.rules.found(record, self))
        self.records += [record, None]

    @property
    def size(self) -> int:
        return len(self.records)

    def get(self, contract: str, key: bytes) -> bytes | None:
        return self.values.get(state_key(contract, key))

    def record(self, index: int) -> Record | None:
        return self.records[index] if 0 <= index < self.size else None

    def key(self, name: str) -> SigningKey:
        return self.keys.setdefault(name, SigningKey.generate())

    def _write(self, writes: dict[bytes, bytes | None]) -> None:
        for key, value in writes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value

    def say(
        self,
        kind: str,
        predicate: dict[str, Any],
        *,
        member: str = "alice",
        key: SigningKey | None = None,
        subjects: list[Subject] | None = None,
        version: int = 1,
    ) -> int:
        """Sign, check and apply a record as a ledger would; its index, or the Rejected that says why not."""
        signer = key or self.key(member)
        common = {
            "ledger": digest("ledger"),
            "member": member,
            "nonce": b64u(os.urandom(12)),
            "time_unix_ms": 1,
        }
        statement = Statement(
            kind, tuple(subjects or [Subject("x", bytes(32))]), {**common, **predicate}, version
        )
        entry = Entry.signed(statement.to_bytes(), signer)
        statement = Statement.from_bytes(entry.payload)
        found = self.rules.authority.resolve(entry.key_id, member, self.size, self)
        record = Record(
            self.size, entry, statement, kind, member, hashlib.sha256(entry.payload).digest(), found
        )
        self._write(self.rules.judge(record, self))
        self.records.append(record)
        return self.size - 1

    def act(
        self,
        action: str,
        subject: str,
        *,
        by: str = "alice",
        signed_with: SigningKey | None = None,
        **said: Any,
    ) -> int:
        """A member record."""
        said = {
            name: b64u(value.raw) if isinstance(value, PublicKey) else value for name, value in said.items()
        }
        return self.say(
            "member", {"action": action, "subject_member": subject, **said}, member=by, key=signed_with
        )

    def admit(self, name: str, **said: Any) -> int:
        return self.act("admit", name, key=self.key(name).public, **said)

    def run(
        self, *, member: str = "alice", work: str = "w", seed: str = "1", output: str = "o", **changes: Any
    ) -> int:
        """A run whose fingerprint follows from ``work`` and ``seed``."""
        parts = {part: digest(f"{part}/{work}") for part in PARTS if part != "seed"} | {"seed": digest(seed)}
        said = {
            "status": "trained",
            "reusable": True,
            "parts": parts,
            "family": digest("family")[:21] + "A",
            "data": [digest("d1"), digest("d2")],
            "data_count": 2,
            "metrics": {"accuracy": 0.95, "epochs": 3},
            "energy": {
                "joules": 1000.5,
                "u95": 0.2,
                "method": "model",
                "boundary": "process",
                "seconds": 10.5,
                "parts": {"cpu": [900.25, 0.1], "ram": [100.25, 0.3, "declared"]},
            },
            "manifest": CID,
            "exit_status": 0,
        } | changes
        said = {name: value for name, value in said.items() if value is not None}
        return self.say(
            "run",
            said,
            member=member,
            subjects=[Subject("output/0", hashlib.sha256(output.encode()).digest())],
        )


@pytest.fixture
def world() -> World:
    return World()
