"""The first entry: what a ledger is, said once.

Entry 0 names the ledger, its admins, the log's key, the versions of the contracts, how entries are sealed, and who may
read. It is signed by the log's key. The ledger's id is its leaf hash, so everything that names the id commits to all
of this; a ledger that starts from another's entries says so here and has another id.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lichen.crypto.hashes import sha256
from lichen.crypto.keys import PublicKey, SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.fields import Fields
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, FormatVersionError, VerificationError
from lichen.ledger.tree import leaf_hash

__all__ = [
    "FORMAT_VERSION",
    "GENESIS_KIND",
    "Admin",
    "ForkOf",
    "Genesis",
    "Sealing",
    "check_member_id",
    "ledger_id_of",
]

GENESIS_KIND = "genesis"
FORMAT_VERSION = 1
NONCE_BYTES = 12
ADMIN_COUNT_MAX = 64
CONTRACT_COUNT_MAX = 64

_LOG_KEY = "log-key"
_CONTRACT = re.compile(r"[a-z][a-z0-9-]{0,63}")
_MEMBER_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._@/-]{0,126}[A-Za-z0-9])?")
_REQUIRED = (
    "access", "admins", "contracts", "created_unix_ms", "fingerprint", "format", "log_key", "name", "nonce", "sealing",
)  # fmt: skip


def check_member_id(member: str) -> str:
    """Return a member id after checking its form.

    Args:
        member: 1 to 128 characters: letters, digits and ``. _ @ / -``, a letter or digit at both ends. ``log`` is
            not a member: it is what seals call the log's own key.

    Returns:
        The same id.

    Raises:
        EncodingError: Not a member id.
    """
    if not isinstance(member, str) or not _MEMBER_ID.fullmatch(member) or member == "log":
        raise EncodingError(
            f"not a member id: {str(member)[:140]!r}",
            remedy="Use letters, digits and . _ @ / -, at most 128, with a letter or digit at both ends.",
        )
    return member


@dataclass(frozen=True, slots=True)
class Admin:
    """Someone who may admit members.

    Attributes:
        member: Member id.
        key: The key they sign with at first.
    """

    member: str
    key: PublicKey

    def __post_init__(self) -> None:
        check_member_id(self.member)


@dataclass(frozen=True, slots=True)
class Sealing:
    """When entries are closed into a block.

    Attributes:
        consensus: How order is agreed; ``solo`` when one writer decides.
        entries_max: A block is sealed when it has this many entries; from 1.
        slot_ms: A block that is not empty is sealed when this many milliseconds have passed.
    """

    consensus: str = "solo"
    entries_max: int = 1_000
    slot_ms: int = 60_000


@dataclass(frozen=True, slots=True)
class ForkOf:
    """Which ledger's entries this one was started from.

    Attributes:
        ledger: Id of that ledger, 64 hexadecimal digits.
        tree_size: How many of its entries were taken over.
        root: Root over them, 32 bytes.
    """

    ledger: str
    tree_size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Genesis:
    """What entry 0 says.

    Attributes:
        name: What people call the ledger; 1 to 200 characters.
        created_unix_ms: When it was made, claimed, in milliseconds since 1970.
        admins: Who may admit members; at least one, each member and each key once.
        log_key: The key that signs checkpoints, and seals when ``consensus`` is ``solo``.
        contracts: Version of each contract by name.
        sealing: When blocks are closed.
        access: ``private`` (work is named by keyed digests, reads are for members) or ``public``.
        fingerprint: Version of the derivation of fingerprints.
        nonce: Makes two ledgers of the same words different; 12 bytes.
        fork_of: The ledger whose entries this one continues, or None.
    """

    name: str
    created_unix_ms: int
    admins: tuple[Admin, ...]
    log_key: PublicKey
    contracts: Mapping[str, int]
    nonce: bytes
    sealing: Sealing = Sealing()
    access: str = "private"
    fingerprint: int = 1
    fork_of: ForkOf | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.admins) <= ADMIN_COUNT_MAX:
            raise EncodingError(f"a ledger has 1 to {ADMIN_COUNT_MAX} admins")
        keys = {admin.key for admin in self.admins}
        if len({admin.member for admin in self.admins}) != len(self.admins) or len(keys) != len(self.admins):
            raise EncodingError("each admin and each admin's key may stand in the genesis once")
        if self.log_key in keys:
            raise EncodingError("the log's key must not be an admin's key: it signs heads, not records")
        if not self.contracts or not all(map(_CONTRACT.fullmatch, self.contracts)):
            raise EncodingError(
                "the genesis names at least one contract, in lower-case letters, digits and hyphens"
            )

    def to_statement(self) -> Statement:
        """Write the genesis as a record."""
        predicate: dict[str, Any] = {
            "access": self.access,
            "admins": [{"key": b64u(admin.key.raw), "member": admin.member} for admin in self.admins],
            "contracts": dict(self.contracts),
            "created_unix_ms": self.created_unix_ms,
            "fingerprint": self.fingerprint,
            "format": FORMAT_VERSION,
            "log_key": b64u(self.log_key.raw),
            "name": self.name,
            "nonce": b64u(self.nonce),
            "sealing": {
                "consensus": self.sealing.consensus,
                "entries_max": self.sealing.entries_max,
                "slot_ms": self.sealing.slot_ms,
            },
        }
        if self.fork_of is not None:
            predicate["fork_of"] = {
                "ledger": b64u(bytes.fromhex(self.fork_of.ledger)),
                "root": b64u(self.fork_of.root),
                "tree_size": self.fork_of.tree_size,
            }
        return Statement(GENESIS_KIND, (Subject(_LOG_KEY, sha256(self.log_key.raw)),), predicate)

    @classmethod
    def from_statement(cls, statement: Statement) -> Genesis:
        """Read a genesis from its record.

        Args:
            statement: A record of kind ``genesis``, version 1.

        Returns:
            The genesis.

        Raises:
            FormatVersionError: A later format than this program reads.
            EncodingError: Not a genesis.
        """
        if statement.kind != GENESIS_KIND:
            raise EncodingError(f"not a genesis: {statement.predicate_type}")
        declared = statement.predicate.get("format")
        if statement.version > 1 or (type(declared) is int and declared > FORMAT_VERSION):
            raise FormatVersionError(
                f"the ledger is of format {declared}, this program reads format {FORMAT_VERSION}",
                remedy="Install a newer version of Lichen.",
            )
        fields = Fields(statement.predicate, "the genesis", _REQUIRED, ("fork_of",))
        fields.integer("format", 1, FORMAT_VERSION)
        log_key = PublicKey(fields.octets("log_key", 32))
        if statement.subjects != (Subject(_LOG_KEY, sha256(log_key.raw)),):
            raise EncodingError("the subject of a genesis must be the log's key")
        return cls(
            name=fields.text("name", 200),
            created_unix_ms=fields.integer("created_unix_ms"),
            admins=tuple(map(_read_admin, fields.array("admins", ADMIN_COUNT_MAX))),
            log_key=log_key,
            contracts=_read_contracts(fields.object("contracts")),
            nonce=fields.octets("nonce", NONCE_BYTES),
            sealing=_read_sealing(fields.object("sealing")),
            access=fields.choice("access", ("private", "public")),
            fingerprint=fields.integer("fingerprint", 1, 999_999),
            fork_of=_read_fork(fields.object("fork_of")) if "fork_of" in fields else None,
        )

    def to_entry(self, log_key: SigningKey) -> Entry:
        """Sign the genesis.

        Args:
            log_key: The secret half of :attr:`log_key`.

        Returns:
            Entry 0.

        Raises:
            EncodingError: Another key, or a genesis that its own reader would refuse.
        """
        if log_key.public != self.log_key:
            raise EncodingError("the genesis is signed by the log's own key")
        statement = self.to_statement()
        payload = statement.to_bytes()
        if Genesis.from_statement(Statement.from_bytes(payload)) != self:
            raise EncodingError("the genesis does not read back as it was written")
        return Entry.signed(payload, log_key)

    @classmethod
    def from_entry(cls, entry: Entry, ledger_id: str | None = None) -> Genesis:
        """Read entry 0 and check its signature.

        Args:
            entry: The entry.
            ledger_id: The id the ledger is known by, or None when the entry itself is trusted.

        Returns:
            The genesis, whose log key speaks for the ledger.

        Raises:
            EncodingError: Not a genesis.
            FormatVersionError: A later format than this program reads.
            VerificationError: Of another ledger, or not signed by the key it names.
        """
        if ledger_id is not None and ledger_id_of(entry) != ledger_id:
            raise VerificationError(
                "the genesis is of another ledger", expected=ledger_id, calculated=ledger_id_of(entry)
            )
        genesis = cls.from_statement(Statement.from_bytes(entry.payload))
        entry.verify(genesis.log_key)
        return genesis


def ledger_id_of(entry: Entry) -> str:
    """Return the id of the ledger that starts with an entry: its leaf hash, 64 hexadecimal digits."""
    return leaf_hash(entry.to_bytes()).hex()


def _read_admin(value: object) -> Admin:
    fields = Fields(value, "an admin of the genesis", ("key", "member"))
    return Admin(check_member_id(fields.text("member", 128)), PublicKey(fields.octets("key", 32)))


def _read_contracts(value: Mapping[str, Any]) -> dict[str, int]:
    if len(value) > CONTRACT_COUNT_MAX:
        raise EncodingError(f"the genesis names at most {CONTRACT_COUNT_MAX} contracts")
    fields = Fields(value, "contracts of the genesis", tuple(value))
    return {name: fields.integer(name, 1, 999_999) for name in value}


def _read_sealing(value: Mapping[str, Any]) -> Sealing:
    fields = Fields(value, "sealing of the genesis", ("consensus", "entries_max", "slot_ms"))
    return Sealing(
        fields.text("consensus", 64),
        fields.integer("entries_max", 1, 1_000_000),
        fields.integer("slot_ms", 0, 86_400_000),
    )


def _read_fork(value: Mapping[str, Any]) -> ForkOf:
    fields = Fields(value, "fork_of of the genesis", ("ledger", "root", "tree_size"))
    return ForkOf(
        fields.octets("ledger", 32).hex(), fields.integer("tree_size", 1), fields.octets("root", 32)
    )
