"""Make the sample ledger: small, whole, and the same entries whenever and wherever it is made.

``python tools/sample_ledger.py`` makes it in the storage schema of this program and puts it beside the samples of earlier
schemas, in ``tests/vectors/samples/``; one that is there already is never made again, because a frozen sample is worth
something only while nothing touches it. ``--check`` says whether this program still makes the same entries.

It holds every kind of record, members who come, rotate, are revoked and declared compromised, enough entries to fill a hash
tile and to split buckets of the state, and a tail that no seal covers. Its keys come from seeds that repeat one byte and
protect nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import lzma
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lichen.contracts import default_contracts, default_versions
from lichen.contracts.registry import exact_fingerprint
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.ledger.audit import audit
from lichen.ledger.genesis import Admin, Genesis, Sealing
from lichen.ledger.ledger import Ledger
from lichen.ledger.storage import LEDGER_FILE_NAME, SCHEMA_VERSION

SAMPLES: Final = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "samples"
START_MS: Final = 1_760_000_000_000
RUN_COUNT: Final = 250
LOG, ADA, BO, BO_NEW, CY, DI = (SigningKey.from_seed(bytes([number]) * 32) for number in range(11, 17))
"""The log's key; Ada is the admin, Bo rotates, Cy is revoked, Di is found to be compromised."""

PARTS: Final = ("command", "code", "data", "rest", "seed")


def digest(text: str) -> bytes:
    """A stand-in for the digest of something with this name, 32 bytes."""
    return hashlib.sha256(text.encode()).digest()


def cid_of(data: bytes) -> str:
    """CID of an artefact of one chunk."""
    from lichen.content.unixfs import hash_bytes

    return str(hash_bytes(data).cid)


def manifest_of(number: int) -> bytes:
    """What stands in for the manifest of a run."""
    return b"manifest of run %d\n" % number


class Sample:
    """The ledger while it is being made.

    Args:
        directory: Where; must not hold a ledger.
        access: ``private`` or ``public``.
        views: Query tables to keep.
    """

    def __init__(self, directory: Path, access: str = "public", views: tuple[Any, ...] = ()) -> None:
        self.time_ms = START_MS
        self._said = 0
        genesis = Genesis(
            name="sample",
            created_unix_ms=START_MS,
            admins=(Admin("ada", ADA.public),),
            log_key=LOG.public,
            contracts=default_versions(),
            nonce=digest("genesis")[:12],
            sealing=Sealing("solo", 24, 3_600_000),
            access=access,
        )
        self.ledger = Ledger.create(
            directory, genesis, LOG, default_contracts(), views, now_ms=lambda: self.time_ms
        )

    def say(
        self,
        kind: str,
        said: Mapping[str, Any],
        signer: SigningKey = ADA,
        member: str = "ada",
        subjects: tuple[Subject, ...] = (),
        *,
        seal: bool = False,
    ) -> int:
        """Append a record whose nonce follows from its number; its index."""
        self._said += 1
        self.time_ms += 250
        common = {
            "ledger": b64u(bytes.fromhex(self.ledger.id)),
            "member": member,
            "nonce": b64u(digest(f"nonce {self._said}")[:12]),
            "time_unix_ms": self.time_ms,
        }
        about = subjects or (Subject("x", digest(f"subject {self._said}")),)
        entry = Entry.signed(Statement(kind, about, {**said, **common}).to_bytes(), signer)
        return self.ledger.append(entry, seal=seal).index

    def act(
        self, action: str, subject: str, signer: SigningKey = ADA, member: str = "ada", **said: Any
    ) -> int:
        """Append a record about members and keys."""
        return self.say("member", {"action": action, "subject_member": subject, **said}, signer, member)

    def run(self, number: int, signer: SigningKey = ADA, member: str = "ada", **changes: Any) -> int:
        """Append a run; each third repeats the work of one before with another seed, each seventh all of it."""
        work = number - 3 if number % 3 == 0 and number >= 3 else number
        seed = number - 7 if number % 7 == 0 and number >= 7 else number
        said = {
            "status": "trained",
            "reusable": True,
            "parts": {part: b64u(digest(f"{part} {seed if part == 'seed' else work}")) for part in PARTS},
            "family": b64u(digest("family")[:16]),
            "data": [b64u(digest("train.csv"))],
            "metrics": {"accuracy": 0.9 + number / 10_000, "loss": 1e-7 * (number + 1)},
            "energy": {
                "joules": 100.5 + number,
                "u95": 0.1,
                "method": "model",
                "boundary": "process",
                "seconds": 3,
            },
            "manifest": cid_of(manifest_of(number)),
        }
        output = (Subject("output/0", digest(f"model {number}")),)
        return self.say("run", {**said, **changes}, signer, member, output, seal=number % 40 == 39)

    def fill(self, run_count: int = RUN_COUNT) -> None:
        """Append one history with every kind of record in it."""
        self.act("admit", "bo", key=b64u(BO.public.raw))
        self.act("admit", "cy", key=b64u(CY.public.raw), admin=True)
        self.act("admit", "di", key=b64u(DI.public.raw))
        first = self.run(0)
        self.run(1, DI, "di")
        bad = self.run(2, DI, "di")
        data = self.artefact("data", "train.csv", licence="CC-BY-4.0")
        model = self.artefact("model", "model.pkl", run=first, data=[data], metrics={"accuracy": 0.93})
        self.artefact("model", "tuned.pkl", base=model)
        self.say(
            "evaluation", {"of": model, "metrics": {"accuracy": 0.91}, "data": [data], "title": "on new data"}
        )
        reuse = {"of": first, "avoided_joules": 90.5, "avoided_u95": 0.2}
        self.say("reuse", {**reuse, "credit": True}, BO, "bo", (Subject("exact", self.fingerprint(first)),))
        self.say("reuse", {**reuse, "credit": False, "level": "same-work"}, BO, "bo")
        self.say("flag", {"of": model, "error": "wrong for children", "severity": "high"}, BO, "bo")
        twin = self.run(0, BO, "bo")
        self.say("dispute", {"of": first, "against": self.twin_of(twin), "reason": "other output"}, BO, "bo")
        self.say("withdraw", {"of": data, "reason": "consent was withdrawn"})
        self.act("rotate", "bo", BO, "bo", key=b64u(BO_NEW.public.raw))
        self.act("compromise", "di", key=b64u(DI.public.raw), from_index=bad)
        for number in range(3, run_count):
            if number == run_count // 2:
                self.act("revoke", "cy")
            self.run(number, *((BO_NEW, "bo") if number % 4 == 1 else (ADA, "ada")))
        self.run(run_count, status="failed", reusable=False, reason="exit-status", exit_status=2)
        self.ledger.seal(force=True)
        self.run(run_count + 1)
        self.act("add-key", "bo", key=b64u(SigningKey.from_seed(bytes([17]) * 32).public.raw))

    def artefact(self, kind: str, name: str, **said: Any) -> int:
        """Append data or a model."""
        content = f"content of {name}\n".encode()
        about = (Subject(name, hashlib.sha256(content).digest()),)
        return self.say(
            kind, {"cid": cid_of(content), "size_bytes": len(content), "title": name, **said}, subjects=about
        )

    def fingerprint(self, index: int) -> bytes:
        """Fingerprint of class ``exact`` of a run that was appended."""
        return exact_fingerprint(Statement.from_bytes(self.ledger.entry(index).payload).predicate["parts"])

    def twin_of(self, index: int) -> int:
        """Append the same work as another run, with another output; its index."""
        said = dict(Statement.from_bytes(self.ledger.entry(index).payload).predicate)
        for field in ("ledger", "member", "nonce", "time_unix_ms"):
            del said[field]
        return self.say("run", said, BO, "bo", (Subject("output/0", digest("another model")),))

    def leave(self) -> None:
        """Let go of the file without sealing the tail, as a process that is killed would."""
        self.ledger._log.database.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self.ledger._log.database.close()


def make_sample(directory: Path, access: str = "public", run_count: int = RUN_COUNT) -> None:
    """Make the sample ledger in a directory.

    Args:
        directory: Must not hold a ledger.
        access: ``private`` or ``public``.
        run_count: How many runs it has, about; from 10.
    """
    from lichen.runs.queries.views import default_views

    sample = Sample(directory, access, tuple(default_views()))
    sample.fill(run_count)
    sample.leave()


def facts_of(directory: Path) -> dict[str, Any]:
    """What must hold of the sample for ever, whatever it is stored in."""
    report = audit(directory, default_contracts())
    if report.problem is not None:
        raise SystemExit(f"the sample is not sound: {report.problem}")
    with Ledger.open(directory, default_contracts(), read_only=True) as ledger:
        return {
            "id": ledger.id,
            "kinds": dict(sorted(report.kinds.items())),
            "discredited": report.discredited,
            "key_count": report.key_count,
            "log_key": LOG.public.did_key,
            "root": ledger.root_at(ledger.size).hex(),
            "sealed_root": report.root,
            "sealed_size": report.sealed_size,
            "size": report.size,
            "state_root": ledger.last_seal.state_root.hex(),
        }


def main() -> int:
    """Make the sample of this schema, or compare with what is frozen."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare with what is frozen")
    wanted = parser.parse_args()
    frozen, facts_path = SAMPLES / f"schema-{SCHEMA_VERSION}.sqlite.xz", SAMPLES / "facts.json"
    with tempfile.TemporaryDirectory() as scratch:
        make_sample(Path(scratch) / "ledger")
        facts = json.dumps(facts_of(Path(scratch) / "ledger"), indent=1, sort_keys=True) + "\n"
        if facts_path.exists() and facts_path.read_text("utf-8") != facts:
            print(f"this program makes other entries than those in {facts_path}", file=sys.stderr)
            return 1
        if wanted.check or frozen.exists():
            print(
                "the same entries as the frozen samples" if frozen.exists() else f"there is no {frozen.name}"
            )
            return 0 if frozen.exists() else 1
        SAMPLES.mkdir(parents=True, exist_ok=True)
        with (
            (Path(scratch) / "ledger" / LEDGER_FILE_NAME).open("rb") as source,
            lzma.open(frozen, "xb") as target,
        ):
            shutil.copyfileobj(source, target)
        facts_path.write_text(facts, encoding="utf-8")
    print(f"made {frozen}: {frozen.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
