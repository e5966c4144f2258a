"""A ledger, a copy of it, and between them a server that the test lets lie."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from lichen.content.directory_store import DirectoryStore
from lichen.contracts import default_contracts, default_versions
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import NetworkError, NotFoundError, Rejected
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger
from lichen.net.remote.memory import Remembered
from lichen.net.remote.remote_ledger import RemoteLedger, deliveries, signature_in
from lichen.net.remote.remote_log import RemoteLog
from lichen.runs.queries.views import default_views

PARTS = ("command", "code", "data", "rest", "seed")


class Server(RemoteLog):
    """Answers from a ledger in this process, as it is or as the test says."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.is_away = False
        self.checkpoint_shown: str | None = None
        self.changed_entries: dict[int, bytes] = {}
        self.receipt_shown: str | None = None
        self.asked: list[str] = []
        self.bounds = (256, 2_000_000)
        self.is_wrong_about_places = False
        self.artefacts: set[str] = set()
        self.ledger_id = ledger.id

    @property
    def url(self) -> str:
        return "http://127.0.0.1:1"

    def close(self) -> None:
        pass

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if self.is_away:
            raise NetworkError("away", definite=True)

    def checkpoint(self) -> str:
        self._note("checkpoint")
        return self.ledger.checkpoint() if self.checkpoint_shown is None else self.checkpoint_shown

    def tile(self, level: int, number: int, width: int) -> bytes:
        self._note("tile")
        return self.ledger.tile(level, number, width)

    def bundle(self, number: int, width: int) -> list[bytes]:
        self._note("bundle")
        start = number * 256
        entries = self.ledger.sealed_entries(start, start + width)
        return [self.changed_entries.get(index, data) for index, data in enumerate(entries, start)]

    def checkpoint_signatures(self, number: int, width: int) -> dict[int, bytes]:
        self._note("signatures")
        return {row.index: row.signature for row in self.ledger.seal_rows(number * 256, number * 256 + width)}

    def submit(self, entry: Entry) -> tuple[int, str]:
        self._note("submit")
        try:
            index = self.ledger.append(entry, seal=True).index
        except Rejected as refusal:
            found = None
            if refusal.rule == "ledger.duplicate":
                found = next(place for place, other in self.ledger.entries() if other == entry)
            if found is None:
                raise
            index = found
        receipt = self.ledger.first_receipt(index).to_text()
        return index, receipt if self.receipt_shown is None else self.receipt_shown

    def batch_bounds(self) -> tuple[int, int]:
        return self.bounds

    def submit_many(self, entries: Sequence[Entry]) -> tuple[list[int | Rejected], str]:
        self._note(f"submit {len(entries)}")
        told = [
            each if isinstance(each, Rejected) else each.index
            for each in self.ledger.append_many(entries, seal=True)
        ]
        return [index + 1 for index in told] if self.is_wrong_about_places else told, self.ledger.checkpoint()

    def put_artefact(self, cid, store) -> None:
        self._note("put")
        self.artefacts.add(str(cid))

    def artefact_size(self, cid):
        self._note("size")
        return 1 if str(cid) in self.artefacts else None

    def fetch_artefact(self, cid, store, size_bytes_max) -> None:
        self._note("fetch")
        raise NotFoundError("not here")


@dataclass
class Scene:
    """A served ledger and what somebody elsewhere has of it."""

    root: Path
    log_key: SigningKey = field(default_factory=SigningKey.generate)
    alice: SigningKey = field(default_factory=SigningKey.generate)
    notices: list[str] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)

    def make(self) -> Ledger:
        genesis = Genesis(
            name="clinic",
            created_unix_ms=1_700_000_000_000,
            admins=(Admin("alice", self.alice.public),),
            log_key=self.log_key.public,
            contracts=default_versions(),
            nonce=os.urandom(12),
            sealing=Sealing(entries_max=40, slot_ms=3_600_000),
            access="public",
        )
        ledger = Ledger.create(
            self.root / "served", genesis, self.log_key, default_contracts(), default_views()
        )
        self.opened.append(ledger)
        return ledger

    def open(self, directory: Path) -> Ledger:
        ledger = Ledger.open(directory, default_contracts(), default_views(), self.log_key)
        self.opened.append(ledger)
        return ledger

    def entry(self, ledger: Ledger, **changes: Any) -> Entry:
        return Entry.signed(self.statement(ledger, **changes).to_bytes(), self.alice)

    def statement(self, ledger: Ledger, **changes: Any) -> Statement:
        said = {
            "status": "trained",
            "reusable": True,
            "parts": {part: b64u(os.urandom(32)) for part in PARTS},
            "family": b64u(bytes(16)),
            "data": [],
            "data_count": 0,
            "metrics": {},
            "energy": {"joules": 1.5, "u95": 0.11, "method": "model", "boundary": "process", "seconds": 2},
            "manifest": "bafkrei" + "a" * 52,
            "exit_status": 0,
            **changes,
        }
        return ledger.statement("run", [Subject("output/0", os.urandom(32))], said, member="alice")

    def copy(self, server: Server, *, seen_unix_ms: int = 0) -> RemoteLedger:
        """The copy of whoever used the server last at some time."""
        directory = self.root / "copy"
        note = server.ledger.checkpoint()
        remembered = Remembered(
            server.url, server.ledger.id, self.log_key.public.did_key, "public", note, seen_unix_ms
        )
        if (directory / "ledger.sqlite").exists():
            copy = RemoteLedger.open_copy(directory, default_contracts(), default_views())
        else:
            from lichen.ledger.checkpoint import open_checkpoint

            checkpoint = open_checkpoint(note, server.ledger.origin, self.log_key.public)
            signature = signature_in(note, server.ledger.origin, self.log_key.public)
            (delivery,) = list(deliveries(server, 0, checkpoint, signature, 10_000))[:1]
            copy = RemoteLedger.found(directory, *delivery[1:], default_contracts(), default_views())
        store = DirectoryStore(directory / "store")
        copy.attach(server, remembered, store, lambda _: (), self.notices.append)
        self.opened.append(copy)
        return copy


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    for each in made.opened:
        each.close()
