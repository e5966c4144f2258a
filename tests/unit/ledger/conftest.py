"""A ledger to play with: real keys, real contracts, a clock that the test turns."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lichen.contracts import default_contracts, default_versions
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger

PARTS = ("command", "code", "data", "rest", "seed")


@dataclass
class Site:
    """Where a ledger lies, who may write to it, and what time it is.

    Attributes:
        directory: Of the ledger.
        home: Of the user's keys and high-water marks.
        time_ms: What the clock says.
    """

    directory: Path
    home: Path
    log_key: SigningKey = field(default_factory=SigningKey.generate)
    alice: SigningKey = field(default_factory=SigningKey.generate)
    time_ms: int = 1_700_000_000_000
    open_ledgers: list[Ledger] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.directory / "ledger.sqlite"

    def genesis(self, **changes: Any) -> Genesis:
        said: dict[str, Any] = {
            "name": "clinic",
            "created_unix_ms": self.time_ms,
            "admins": (Admin("alice", self.alice.public),),
            "log_key": self.log_key.public,
            "contracts": default_versions(),
            "nonce": os.urandom(12),
            "sealing": Sealing(entries_max=1_000, slot_ms=3_600_000),
        }
        return Genesis(**{**said, **changes})

    def create(self, *, views: Sequence[Any] = (), home: bool = True, **changes: Any) -> Ledger:
        ledger = Ledger.create(
            self.directory,
            self.genesis(**changes),
            self.log_key,
            default_contracts(),
            views,
            home=self.home if home else None,
            now_ms=lambda: self.time_ms,
        )
        self.open_ledgers.append(ledger)
        return ledger

    def open(self, *, read_only: bool = False, views: Sequence[Any] = (), **options: Any) -> Ledger:
        options = {"home": self.home, "log_key": None if read_only else self.log_key, **options}
        ledger = Ledger.open(
            self.directory,
            default_contracts(),
            views,
            read_only=read_only,
            now_ms=lambda: self.time_ms,
            **options,
        )
        self.open_ledgers.append(ledger)
        return ledger

    def run(
        self, ledger: Ledger, *, member: str = "alice", seed: int | None = None, **changes: Any
    ) -> Statement:
        """A plausible run; equal seeds give equal fingerprints."""
        named = {
            part: seed.to_bytes(4, "big") + part.encode() if seed is not None else os.urandom(8)
            for part in PARTS
        }
        said = {
            "status": "trained",
            "reusable": True,
            "parts": {part: b64u(name.ljust(32, b"\0")) for part, name in named.items()},
            "family": b64u(bytes(16)),
            "data": [b64u(b"d" * 32)],
            "data_count": 1,
            "metrics": {"accuracy": 0.951, "loss": 0.12},
            "energy": {
                "joules": 1840.5,
                "u95": 0.11,
                "method": "model",
                "boundary": "process",
                "seconds": 20.5,
                "parts": {"cpu": [1700.25, 0.1], "ram": [140.25, 0.2]},
            },
            "manifest": "bafkrei" + "a" * 52,
            "exit_status": 0,
        }
        said |= changes
        said = {name: value for name, value in said.items() if value is not None}
        return ledger.statement("run", [Subject("output/0", os.urandom(32))], said, member=member)

    def entry(self, ledger: Ledger, **changes: Any) -> Entry:
        """A signed run of alice."""
        return Entry.signed(self.run(ledger, **changes).to_bytes(), self.alice)

    def entries(self, ledger: Ledger, count: int) -> list[Entry]:
        return [self.entry(ledger) for _ in range(count)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "project" / ".lichen", tmp_path / "home")
    yield made
    for ledger in made.open_ledgers:
        ledger.close()


@pytest.fixture
def ledger(site: Site) -> Ledger:
    return site.create()


@pytest.fixture(scope="session")
def filled_template(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """600 runs in blocks of 50, a few of them unsealed: two full hash tiles and a partial one. Made once, then copied."""
    root = tmp_path_factory.mktemp("filled")
    made = Site(root / "ledger", root / "home")
    ledger = made.create(sealing=Sealing(entries_max=50, slot_ms=3_600_000), home=False)
    ledger.append_many(made.entries(ledger, 605))
    ledger.connection.close()
    ledger._log.database.close()  # not close(): the last five stay unsealed
    return made


@pytest.fixture
def filled(site: Site, filled_template: Site) -> Ledger:
    """The filled ledger, in the place of ``site`` and with its keys."""
    shutil.copytree(filled_template.directory, site.directory)
    site.log_key, site.alice = filled_template.log_key, filled_template.alice
    return site.open()
