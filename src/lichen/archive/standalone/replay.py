"""The ledger, derived again entry by entry: genesis, records, seals, checkpoints.

What needs no signature is checked in order, here; signatures are handed out to be checked elsewhere.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from lichen.archive.standalone.ed25519 import Key
from lichen.archive.standalone.faults import Fault, Unreadable
from lichen.archive.standalone.members import Members
from lichen.archive.standalone.notes import checkpoint_text
from lichen.archive.standalone.registry import KINDS, Registry
from lichen.archive.standalone.shapes import is_member_id
from lichen.archive.standalone.texts import (
    Record,
    b64u,
    fields_of,
    integer,
    parse_entry,
    parse_record,
    signed_bytes,
    unb64,
    unb64u,
)
from lichen.archive.standalone.trees import Log, State, leaf_hash

__all__ = ["Genesis", "Replay"]

CONTRACT = re.compile(r"[a-z][a-z0-9-]{0,63}")
GENESIS_FIELDS = {
    "access",
    "admins",
    "contracts",
    "created_unix_ms",
    "fingerprint",
    "format",
    "log_key",
    "name",
    "nonce",
    "sealing",
}
SEAL_FIELDS = {"block_height", "consensus", "sealer", "time_unix_ms", "tree_size"}


class Genesis:
    """What entry 0 says.

    Args:
        record: The entry's record.
        leaf: The entry's leaf hash, which is the ledger's id.

    Raises:
        Fault: Not a genesis.
        Unreadable: Of a later format.
    """

    def __init__(self, record: Record, leaf: bytes) -> None:
        said = record.said
        if record.kind != "genesis":
            raise Fault("entry 0 is not a genesis")
        declared = said.get("format")
        if record.version > 1 or (type(declared) is int and declared > 1):
            raise Unreadable("this ledger is of format %.20s, this program reads format 1" % declared)
        fields_of(said, "the genesis", GENESIS_FIELDS, frozenset({"fork_of"}))
        integer(said["format"], "format", 1, 1)
        integer(said["created_unix_ms"], "created_unix_ms")
        integer(said["fingerprint"], "fingerprint", 1, 999999)
        unb64u(said["nonce"], 12)
        self.log_key = Key(unb64u(said["log_key"], 32))
        if record.subjects != [("log-key", sha256(self.log_key.raw))]:
            raise Fault("the subject of a genesis is the log's key")
        self.name, self.access = said["name"], said["access"]
        if not is_text(self.name, 200) or self.access not in ("private", "public"):
            raise Fault("the genesis has no proper name or access")
        self.admins = self.read_admins(said["admins"])
        self.contracts = said["contracts"]
        if not isinstance(self.contracts, dict) or not 1 <= len(self.contracts) <= 64:
            raise Fault("the genesis names 1 to 64 contracts")
        for name, version in self.contracts.items():
            integer(version, "the version of a contract", 1, 999999)
            if not CONTRACT.fullmatch(name):
                raise Fault("not the name of a contract: %.80r" % name)
        sealing = fields_of(said["sealing"], "sealing", {"consensus", "entries_max", "slot_ms"})
        integer(sealing["entries_max"], "entries_max", 1, 1000000)
        integer(sealing["slot_ms"], "slot_ms", 0, 86400000)
        self.consensus = sealing["consensus"]
        if not is_text(self.consensus, 64):
            raise Fault("consensus must be text of 1 to 64 characters")
        if "fork_of" in said:
            fork = fields_of(said["fork_of"], "fork_of", {"ledger", "root", "tree_size"})
            for name in ("ledger", "root"):
                unb64u(fork[name], 32)
            integer(fork["tree_size"], "tree_size", 1)
        self.id = leaf
        self.id_text = b64u(leaf)
        self.origin = "lichen/" + leaf.hex()

    def read_admins(self, value: object) -> list:
        """Pairs of member and key."""
        if not isinstance(value, list) or not 1 <= len(value) <= 64:
            raise Fault("the genesis names 1 to 64 admins")
        admins = []
        for each in value:
            fields_of(each, "an admin", {"key", "member"})
            if not is_member_id(each["member"]):
                raise Fault("not a member id: %.80r" % (each["member"],))
            admins.append((each["member"], Key(unb64u(each["key"], 32))))
        keys = {key.raw for _, key in admins}
        if len({member for member, _ in admins}) != len(admins) or len(keys) != len(admins):
            raise Fault("an admin, or an admin's key, stands twice in the genesis")
        if self.log_key.raw in keys:
            raise Fault("the log's key is an admin's")
        return admins


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def is_text(value: object, length: int) -> bool:
    """True for text of 1 to so many characters."""
    return isinstance(value, str) and 1 <= len(value) <= length


class Replay:
    """A ledger as far as it was replayed.

    Args:
        entry_at: Reads the compact entry at an earlier index.

    Attributes:
        jobs: Signatures to check: index, what it is, key, message, signature.
    """

    def __init__(self, entry_at: Callable) -> None:
        self.entry_at = entry_at
        self.log = Log()
        self.state = State()
        self.members = Members(self.state)
        self.registry = Registry(self.state, self.members, self.record_at)
        self.jobs: list = []
        self.payloads: set = set()
        self.kinds: dict = {}
        self.signers: dict = {}
        self.seal: dict | None = None
        self.last_root = b""
        self.genesis: Genesis = None  # type: ignore[assignment]

    @property
    def unknown_contracts(self) -> list:
        """Contracts of this ledger whose rules this program does not have."""
        known = {"members": 1, "registry": 1}
        return sorted(n for n, v in self.genesis.contracts.items() if known.get(n) != v)

    def record_at(self, index: int) -> Record | None:
        """The record at an earlier index; None for a seal or where there is none."""
        if index >= self.log.size:
            return None
        key_id, _, payload = parse_entry(self.entry_at(index))
        record = parse_record(payload)
        record.index, record.key_id = index, key_id
        return None if record.kind == "seal" else record

    def take(self, data: bytes) -> Record:
        """Replay the next entry.

        Raises:
            Fault: It does not hold; the message says why.
        """
        index = self.log.size
        leaf = leaf_hash(data)
        key_id, signature, payload = parse_entry(data)
        record = parse_record(payload)
        record.index, record.key_id = index, key_id
        if (record.kind == "genesis") != (index == 0):
            raise Fault("the genesis is entry 0 and no other")
        if record.kind == "seal":
            key = self.take_seal(record)
        else:
            if record.digest in self.payloads:
                raise Fault("it repeats the payload of an earlier entry")
            self.payloads.add(record.digest)
            key = self.take_genesis(record, leaf) if index == 0 else self.take_record(record)
        if key.key_id != key_id:
            raise Fault("it names another key than the one that must sign it")
        self.jobs.append((index, "its signature", key.raw, signed_bytes(payload), signature))
        self.kinds[record.kind] = self.kinds.get(record.kind, 0) + 1
        self.log.append(leaf)
        return record

    def take_genesis(self, record: Record, leaf: bytes) -> Key:
        """Found the ledger; the key that signed must be the log's."""
        self.genesis = Genesis(record, leaf)
        if self.genesis.contracts.get("members") != 1:
            raise Unreadable("this program knows version 1 of the contract 'members' and no other")
        self.members.found(self.genesis.log_key, self.genesis.admins)
        return self.genesis.log_key

    def take_record(self, record: Record) -> Key:
        """Check a record by the rules of its contract, and give the key that must have signed it."""
        if record.said.get("ledger") != self.genesis.id_text:
            raise Fault("ledger.wrong-ledger: it was signed for another ledger")
        member = record.said.get("member")
        if not isinstance(member, str):
            raise Fault("ledger.malformed: it names no member")
        key = self.members.resolve(record.key_id, member, record.index)
        self.signers.setdefault(record.key_id, []).append(record.index)
        if record.kind == "member":
            self.members.take(record)
        elif record.kind == "log-key":
            jobs = self.members.succeed(record, self.genesis.id)
            self.jobs += [(record.index, *job) for job in jobs]
        elif record.kind in KINDS and self.genesis.contracts.get("registry") == 1:
            self.registry.take(record)
        elif not self.unknown_contracts:
            raise Fault("ledger.unknown-kind: no contract rules %r" % record.kind)
        return key

    def take_seal(self, record: Record) -> Key:
        """Check a seal: its place, its succession and its two roots."""
        said, index = record.said, record.index
        if record.version != 1 or [name for name, _ in record.subjects] != ["root", "state-root"]:
            raise Fault("not a seal of version 1")
        fields_of(said, "the seal", SEAL_FIELDS, frozenset({"evidence", "previous_seal"}))
        for name in ("block_height", "tree_size", "time_unix_ms"):
            integer(said[name], name)
        if (
            said["tree_size"] != index
            or said["sealer"] != "log"
            or said["consensus"] != self.genesis.consensus
        ):
            raise Fault("the seal is not one that this ledger's log makes here")
        if not isinstance(said.get("evidence", {}), dict):
            raise Fault("the evidence of a seal is an object")
        before = self.seal
        if before is None:
            if said["block_height"] != 0 or "previous_seal" in said:
                raise Fault("the first seal has height 0 and names none before it")
        else:
            if said["block_height"] != before["block_height"] + 1:
                raise Fault("the height of the seal is not one more than that of the seal before")
            if integer(said.get("previous_seal"), "previous_seal") != before["tree_size"]:
                raise Fault("the seal does not name the seal before it")
            if said["time_unix_ms"] < before["time_unix_ms"]:
                raise Fault("the time of the seal is before that of the seal before")
            if index <= before["tree_size"] + 1:
                raise Fault("the seal closes no entry")
        if record.subjects[0][1] != self.log.root():
            raise Fault("the root in the seal is not that of the entries before it")
        if not self.unknown_contracts and record.subjects[1][1] != self.state.root():
            raise Fault("the state root in the seal is not that which the entries before it lead to")
        self.seal = said
        return self.members.log_key_at(index)

    def take_checkpoint(self, line: str) -> None:
        """Check what stands in the archive for the checkpoint behind the seal that was just replayed.

        Args:
            line: Size, root and signature; the last two in base64.
        """
        size, _, rest = line.partition(" ")
        root, _, signature = rest.partition(" ")
        if size != str(self.log.size) or unb64(root, 32) != self.log.root():
            raise Fault("the checkpoint behind the seal is not over the entries so far")
        body = checkpoint_text(self.genesis.origin, self.log.size, root).encode()
        key = self.members.log_key_at(self.log.size - 1).raw
        self.jobs.append((self.log.size - 1, "the checkpoint behind it", key, body, unb64(signature, 64)))

    def discredited(self) -> list:
        """Entries whose key was later declared compromised from there or earlier on: on record, not believed."""
        bindings = self.members.bindings
        return sorted(
            index
            for key, indices in self.signers.items()
            for index in indices
            if not bindings[key].covers(index)
        )
