"""The contracts, written twice: both writings judge the same records alike, and lead to the same state.

Records are made from those of a ledger that holds every kind: a field taken away, added, exchanged, out of its bounds; said by
somebody else, signed with another key, about another entry.
"""

from __future__ import annotations

import copy
import hashlib
import random
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sample_ledger
from sample_ledger import ADA, BO, BO_NEW, CY, DI, LOG

from lichen.contracts import default_contracts
from lichen.crypto.keys import SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, LichenError, Rejected
from lichen.ledger.genesis import Admin, Genesis
from lichen.ledger.ledger import Ledger
from lichen.ledger.ports import Record
from lichen.ledger.seal import Seal
from lichen.ledger.state_map import state_key

if TYPE_CHECKING:
    from tests.unit.archive.conftest import Place

STRANGER = SigningKey.from_seed(bytes([99]) * 32)
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 5, 8, 12, 2**53 - 1, 0.5, -0.5, 1e9, 101, "", "x", "a\x00b", "x" * 65, "x" * 600, "log",
    "ada", "bo", "cy", "nobody", "trained", "failed", "exact", "same-work", "high", "declared", [], [8], [1, 2], ["x"], {}, {"a": 1},
    {"a": "b"}, b64u(bytes(32)), b64u(bytes(16)), "bafkrei" + "a" * 52, "A" * 43, "A" * 42 + "B", [[]], {"cpu": [1, 0.1]},
)  # fmt: skip
SIGNERS = {"ada": ADA, "bo": BO_NEW, "cy": CY, "di": DI}


class World:
    """One ledger as both programs see it; nothing is appended to it."""

    def __init__(self, place: Place, program: types.ModuleType) -> None:
        self.program = program
        self.ledger = Ledger.open(place.ledger, default_contracts(), read_only=True)
        self.entries = [entry.to_bytes() for _, entry in self.ledger.entries()]
        self.replay = program.Replay(self.entries.__getitem__)
        for data in self.entries:
            self.replay.take(data)
        self.statements = [Statement.from_bytes(data[81:]) for data in self.entries]

    def in_lichen(self, entry: Entry) -> dict[bytes, bytes | None] | str:
        """State writes, or the rule that refused."""
        log = self.ledger._log
        size = self.ledger.size
        try:
            statement = Statement.from_bytes(entry.payload)
            if statement.kind not in log.rules.kinds:
                return "ledger.unknown-kind"
            if statement.predicate.get("ledger") != log.id_text:
                return "ledger.wrong-ledger"
            member = statement.predicate.get("member")
            if not isinstance(member, str):
                return "ledger.malformed"
            digest = hashlib.sha256(entry.payload).digest()
            if self.ledger.find_payload(digest) is not None:
                return "ledger.duplicate"
            with log.database.read():
                key = log.rules.authority.resolve(entry.key_id, member, size, log)
                entry.verify(key)
                record = Record(size, entry, statement, statement.kind, member, digest, key)
                return log.rules.judge(record, log)
        except Rejected as refusal:
            return refusal.rule
        except (EncodingError, LichenError) as error:
            return error.code

    def alone(self, entry: Entry) -> dict[bytes, bytes | None] | str:
        """The same by the program of an archive."""
        replay = copy.copy(self.replay)
        replay.state = copy.copy(self.replay.state)
        replay.state.values = Overlay(self.replay.state.values)
        replay.state.top = None
        replay.members = copy.deepcopy(self.replay.members, {id(self.replay.state): replay.state})
        replay.registry = self.program.Registry(replay.state, replay.members, replay.record_at)
        replay.log, replay.jobs = copy.deepcopy(self.replay.log), []
        replay.payloads = set(self.replay.payloads)
        try:
            replay.take(entry.to_bytes())
        except self.program.Fault as fault:
            return str(fault.message).partition(":")[0]
        if self.program.check_signatures(replay.jobs):
            return "ledger.bad-signature"
        return dict(replay.state.values.added)


class Overlay(dict):  # type: ignore[type-arg]
    """Values of the state with those added later kept apart."""

    def __init__(self, below: dict[bytes, bytes]) -> None:
        super().__init__(below)
        self.added: dict[bytes, bytes] = {}

    def __setitem__(self, key: bytes, value: bytes) -> None:
        super().__setitem__(key, value)
        self.added[key] = value


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, verifier: types.ModuleType) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("rules")
    sample_ledger.make_sample(directory / "ledger", run_count=12)
    made = World(types.SimpleNamespace(ledger=directory / "ledger"), verifier)  # type: ignore[arg-type]
    yield made
    made.ledger.close()


def paths_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Places of all members of a JSON value."""
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield (*path, name)
            yield from paths_in(value[name], (*path, name))


def mutated(said: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """A predicate with one or two of its members changed."""
    changed = copy.deepcopy(said)
    for _ in range(draw.choice((1, 1, 2))):
        paths = [path for path in paths_in(changed) if path[0] not in ("ledger", "nonce")]
        path = draw.choice(paths)
        holder: Any = changed
        for name in path[:-1]:
            holder = holder[name]
        action = draw.randrange(4)
        if action == 0 and isinstance(holder, dict):
            del holder[path[-1]]
        elif action == 1 and isinstance(holder, dict):
            holder[
                draw.choice(
                    (
                        "of",
                        "data",
                        "run",
                        "base",
                        "energy",
                        "key",
                        "admin",
                        "from_index",
                        "level",
                        "detail",
                        "odd",
                    )
                )
            ] = draw.choice(VALUES)
        elif isinstance(holder, list) and draw.randrange(2):
            holder.append(draw.choice(VALUES))
        else:
            holder[path[-1]] = draw.choice(VALUES)
    return changed


def candidates(world: World, draw: random.Random, count: int) -> Iterator[Entry]:
    """Signed records, some acceptable, most of them not."""
    originals = [s for s in world.statements if s.kind not in ("genesis", "seal")]
    for number in range(count):
        original = originals[number % len(originals)]
        said = {**original.predicate, "nonce": b64u(draw.randbytes(12))}
        if number % 6:
            said = mutated(said, draw)
        subjects = original.subjects
        if not draw.randrange(6):
            subjects = (
                Subject(draw.choice(("exact", "/x", "a/../b", "x" * 513)), draw.randbytes(32)),
                *subjects,
            )
        kind = original.kind if draw.randrange(12) else draw.choice(("run", "model", "reuse", "flag", "odd"))
        member = said.get("member")
        signer = SIGNERS.get(member, ADA) if isinstance(member, str) else ADA
        if not draw.randrange(10):
            signer = draw.choice((ADA, BO, BO_NEW, CY, DI, STRANGER, LOG))
        version = 1 if draw.randrange(20) else 2
        try:
            yield Entry.signed(Statement(kind, subjects, said, version).to_bytes(), signer)
        except EncodingError:
            continue


@pytest.mark.parametrize("seed", range(4))
def test_both_judge_alike(seed: int, world: World):
    draw = random.Random(seed)
    accepted = refused = 0
    for entry in candidates(world, draw, 250):
        here, there = world.in_lichen(entry), world.alone(entry)
        assert isinstance(here, str) == isinstance(there, str), (
            f"{here} and {there}: {entry.payload.decode()}"
        )
        if isinstance(here, str):
            refused += 1
        else:
            accepted += 1
            assert here == there, entry.payload.decode()
    assert accepted > 10
    assert refused > 50


def member_records(world: World, draw: random.Random) -> Iterator[tuple[dict[str, Any], SigningKey]]:
    """Every action on members, by everybody, about everybody, with keys known and new."""
    keys = [key.public for key in (ADA, BO, BO_NEW, CY, DI, STRANGER, LOG)]
    for action in ("admit", "add-key", "rotate", "revoke", "compromise", "banish"):
        for member, signer in SIGNERS.items():
            for subject in ("ada", "bo", "cy", "di", "eve", "log"):
                said: dict[str, Any] = {"action": action, "subject_member": subject, "member": member}
                if action in ("admit", "add-key", "rotate", "compromise") or draw.randrange(2):
                    said["key"] = b64u(draw.choice(keys).raw)
                if action == "compromise" or not draw.randrange(12):
                    said["from_index"] = draw.choice((0, 3, 6, 20, 25, 10**6))
                if not draw.randrange(4):
                    said["admin"] = draw.choice((True, False))
                yield said, signer


def test_both_know_whose_keys_are_whose(world: World):
    draw = random.Random(7)
    outcomes = set()
    for said, signer in member_records(world, draw):
        common = {
            "ledger": b64u(bytes.fromhex(world.ledger.id)),
            "nonce": b64u(draw.randbytes(12)),
            "time_unix_ms": 1,
        }
        entry = Entry.signed(
            Statement("member", (Subject("x", bytes(32)),), {**said, **common}).to_bytes(), signer
        )
        here, there = world.in_lichen(entry), world.alone(entry)
        if isinstance(here, str):
            assert there == here, said
        else:
            assert here == there, said
        outcomes.add(here if isinstance(here, str) else "accepted")
    assert {"accepted", "members.not-admin", "members.duplicate-key", "members.unknown-key"} <= outcomes
    assert len(outcomes) >= 8


def test_the_state_is_the_same_in_both(world: World):
    assert world.replay.state.get("members", b"admins") == world.ledger.state_get("members", b"admins")
    key = state_key("members", b"member/bo")
    assert world.replay.state.values[key] == world.ledger.state_get("members", b"member/bo")
    seals = [s for s in world.statements if s.kind == "seal"]
    assert len(seals) > 1  # whose roots were compared on the way


NEW_LOG = SigningKey.from_seed(bytes([98]) * 32)


class ShortLog:
    """A log made by hand: its genesis names ada and bo as admins; it goes on as the program of an archive sees it."""

    def __init__(self, program: types.ModuleType) -> None:
        self.program = program
        self.entries: list[bytes] = []
        self.replay = program.Replay(self.entries.__getitem__)
        genesis = Genesis(
            name="short",
            created_unix_ms=1,
            admins=(Admin("ada", ADA.public), Admin("bo", BO.public)),
            log_key=LOG.public,
            contracts={"members": 1, "registry": 1},
            nonce=bytes(12),
        )
        self.take(genesis.to_entry(LOG))

    def take(self, entry: Entry) -> None:
        self.entries.append(entry.to_bytes())
        self.replay.take(self.entries[-1])

    def seal(self, key: SigningKey) -> None:
        last = self.replay.seal
        height, previous = (0, None) if last is None else (last["block_height"] + 1, last["tree_size"])
        roots = (self.replay.log.root(), self.replay.state.root())
        seal = Seal(height, previous, self.replay.log.size, *roots, 2)
        self.take(Entry.signed(seal.to_statement().to_bytes(), key))

    def succession(
        self, author: SigningKey = ADA, approving: tuple[SigningKey, ...] = (BO,), **changes: Any
    ) -> Entry:
        """A log-key record by ada, with bo's approval."""
        ledger = self.replay.genesis.id
        message = b"lichen log key succession v1\n" + ledger + LOG.public.raw + NEW_LOG.public.raw
        said = {
            "acceptance": b64u(NEW_LOG.sign(message)),
            "approvals": [
                {"key": b64u(k.public.key_id), "signature": b64u(k.sign(message))} for k in approving
            ],
            "consent": b64u(LOG.sign(message)),
            "key": b64u(NEW_LOG.public.raw),
            "ledger": b64u(ledger),
            "member": "ada",
            "nonce": b64u(bytes(12)),
            "previous": b64u(LOG.public.raw),
            "time_unix_ms": 1,
        }
        about = (Subject("log-key", hashlib.sha256(NEW_LOG.public.raw).digest()),)
        return Entry.signed(Statement("log-key", about, {**said, **changes}).to_bytes(), author)

    def wrong(self) -> list[str]:
        return [what for _, what in self.program.check_signatures(self.replay.jobs)]


def test_the_log_gets_a_new_key_when_all_agree(verifier: types.ModuleType):
    log = ShortLog(verifier)
    log.seal(LOG)
    log.take(log.succession())
    log.seal(NEW_LOG)
    assert log.wrong() == []
    assert [(first, key.raw) for first, key in log.replay.members.log_keys] == [
        (0, LOG.public.raw),
        (3, NEW_LOG.public.raw),
    ]
    assert log.replay.state.get("members", b"log-keys") == b"2"
    ended = (
        b'{"end":3,"first":0,"key":"%s","member":"log","reason":"rotated"}' % b64u(LOG.public.raw).encode()
    )
    assert log.replay.state.get("members", b"key/" + LOG.public.key_id) == ended


def test_the_old_key_of_the_log_seals_no_more(verifier: types.ModuleType):
    log = ShortLog(verifier)
    log.seal(LOG)
    log.take(log.succession())
    with pytest.raises(verifier.Fault, match="another key"):
        log.seal(LOG)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"approving": ()}, "log-key-majority"),
        ({"approving": (ADA,)}, "log-key-approval"),
        ({"approving": (BO, BO)}, "log-key-approval"),
        ({"approving": (STRANGER,)}, "log-key-approval"),
        ({"previous": b64u(NEW_LOG.public.raw)}, "log-key-previous"),
        ({"key": b64u(ADA.public.raw)}, "schema"),
        ({"odd": 1}, "schema"),
        ({"consent": "x"}, "schema"),
    ],
)
def test_a_succession_that_nobody_agreed_to(changes: dict[str, Any], rule: str, verifier: types.ModuleType):
    log = ShortLog(verifier)
    with pytest.raises(verifier.Fault, match=f"members.{rule}"):
        log.take(log.succession(**changes))


@pytest.mark.parametrize("name", ["consent", "acceptance"])
def test_a_succession_with_a_signature_that_does_not_hold(name: str, verifier: types.ModuleType):
    log = ShortLog(verifier)
    log.take(log.succession(**{name: b64u(bytes(64))}))
    assert len(log.wrong()) == 1
    assert name in log.wrong()[0]


def test_the_program_says_what_it_does_not_know(verifier: types.ModuleType):
    replay = verifier.Replay(None)
    replay.genesis = types.SimpleNamespace(contracts={"members": 1, "registry": 2, "market": 1})
    assert replay.unknown_contracts == ["market", "registry"]


def test_the_program_is_plain_python_of_version_3_9(tmp_path: Path):
    import ast
    import shutil
    import subprocess
    import sys

    from lichen.archive.assemble import verifier_source

    source = verifier_source()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [each.name for each in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= sys.stdlib_module_names
    assert source.isascii()
    path = tmp_path / "verify_ledger.py"
    path.write_text(source)
    tried = 0
    for name in (sys.executable, "python3.9", "python3.10", "python3.12", "python3.13"):
        found = shutil.which(name)
        if found is None:
            continue
        done = subprocess.run(
            [found, "-I", "-S", str(path), str(tmp_path)], capture_output=True, text=True, check=False
        )
        if done.returncode == 127:
            continue  # a shim for a version that is not chosen here
        assert done.returncode == 2, done.stderr
        assert "is not an archive" in done.stderr
        tried += 1
    assert tried
