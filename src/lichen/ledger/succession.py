r"""A new key for the log, said by the old one, by the new one, and by the admins.

Whoever holds the log's key signs what everybody believes, so its place cannot be taken by one signature. A record of kind
``log-key`` carries the old key's consent, the new key's acceptance (so that nobody can name a key they do not have) and the
approvals of admins. All sign the same bytes::

    "lichen log key succession v1\n" | ledger id, 32 bytes | old key, 32 bytes | new key, 32 bytes

Rules upheld:

* The new key speaks from the entry after the record on: by index, never by a claimed time.
* What is checked here needs no state: form, consent and acceptance. That the admins are admins, and enough of them, is the
  members contract's business, and shown by replay.

Source: own; compare root rotation in The Update Framework, specification 1.0, section 6.1 (a new root is signed by a threshold
of the old and of the new keys).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lichen.crypto.hashes import sha256
from lichen.crypto.keys import PublicKey, SigningKey
from lichen.encoding.base import b64u
from lichen.encoding.entry import Entry
from lichen.encoding.fields import Fields
from lichen.encoding.statement import Statement, Subject
from lichen.errors import EncodingError, VerificationError

__all__ = [
    "APPROVAL_COUNT_MAX",
    "LOG_KEY_KIND",
    "Approval",
    "Succession",
    "SuccessionLink",
    "follow_succession",
    "read_succession",
    "succession_message",
]

LOG_KEY_KIND: Final = "log-key"
APPROVAL_COUNT_MAX: Final = 64
_SUBJECT: Final = "log-key"
_OWN_FIELDS: Final = ("acceptance", "approvals", "consent", "key", "previous")
_COMMON_FIELDS: Final = ("ledger", "member", "nonce", "time_unix_ms")


def succession_message(ledger_id: str, old: PublicKey, new: PublicKey) -> bytes:
    """Return the bytes that old key, new key and admins sign.

    Args:
        ledger_id: 64 hexadecimal digits.
        old: The log's key so far.
        new: The log's key from then on.
    """
    return b"lichen log key succession v1\n" + bytes.fromhex(ledger_id) + old.raw + new.raw


@dataclass(frozen=True, slots=True)
class Approval:
    """An admin's word for a new log key.

    Attributes:
        key_id: Of the admin's key, 16 bytes.
        signature: Over the message, 64 bytes.
    """

    key_id: bytes
    signature: bytes

    @classmethod
    def sign(cls, ledger_id: str, old: PublicKey, new: PublicKey, admin: SigningKey) -> Approval:
        """Approve."""
        return cls(admin.public.key_id, admin.sign(succession_message(ledger_id, old, new)))


@dataclass(frozen=True, slots=True)
class Succession:
    """What a ``log-key`` record says.

    Attributes:
        previous: The log's key so far.
        key: Its key from the next entry on.
        consent: The old key's signature over the message, 64 bytes.
        acceptance: The new key's.
        approvals: Of admins other than the record's author, whose signature on the record is one more.
    """

    previous: PublicKey
    key: PublicKey
    consent: bytes
    acceptance: bytes
    approvals: tuple[Approval, ...] = ()

    @classmethod
    def sign(
        cls, ledger_id: str, old: SigningKey, new: SigningKey, approvals: Sequence[Approval] = ()
    ) -> Succession:
        """Say it, with both keys at hand.

        Args:
            ledger_id: 64 hexadecimal digits.
            old: The log's key so far.
            new: The log's key from then on.
            approvals: Of admins.
        """
        message = succession_message(ledger_id, old.public, new.public)
        return cls(old.public, new.public, old.sign(message), new.sign(message), tuple(approvals))

    @property
    def subject(self) -> Subject:
        """What the record is about: the new key."""
        return Subject(_SUBJECT, sha256(self.key.raw))

    def predicate(self) -> dict[str, Any]:
        """Write the members of the record that are its own."""
        return {
            "acceptance": b64u(self.acceptance),
            "approvals": [
                {"key": b64u(each.key_id), "signature": b64u(each.signature)} for each in self.approvals
            ],
            "consent": b64u(self.consent),
            "key": b64u(self.key.raw),
            "previous": b64u(self.previous.raw),
        }

    @classmethod
    def from_statement(cls, statement: Statement) -> Succession:
        """Read it from its record.

        Raises:
            EncodingError: Not a ``log-key`` record of version 1.
        """
        if (statement.kind, statement.version) != (LOG_KEY_KIND, 1):
            raise EncodingError(f"not a log-key record of version 1: {statement.predicate_type}")
        Fields(statement.predicate, "the log-key record", (*_OWN_FIELDS, *_COMMON_FIELDS))
        found = read_succession({name: statement.predicate[name] for name in _OWN_FIELDS})
        if statement.subjects != (found.subject,):
            raise EncodingError("the subject of a log-key record must be the new key")
        return found

    def verify(self, ledger_id: str) -> None:
        """Check that the old key consents and the new one accepts.

        Args:
            ledger_id: The ledger it must be about, 64 hexadecimal digits.

        Raises:
            VerificationError: One of the two signatures does not hold.
        """
        message = succession_message(ledger_id, self.previous, self.key)
        for key, signature, what in (
            (self.previous, self.consent, "the log's old key did not consent"),
            (self.key, self.acceptance, "the log's new key did not accept"),
        ):
            try:
                key.verify(message, signature)
            except VerificationError as error:
                raise VerificationError(f"{what} to this succession") from error


@dataclass(frozen=True, slots=True)
class SuccessionLink:
    """A ``log-key`` record as a receipt carries it.

    Attributes:
        entry: The entry.
        index: Where it stands.
        proof: Its inclusion proof in the tree of the receipt's checkpoint.
    """

    entry: Entry
    index: int
    proof: tuple[bytes, ...]


def follow_succession(links: Sequence[SuccessionLink], ledger_id: str, start: PublicKey) -> PublicKey:
    """Go from a key that is trusted to the one that speaks for the log now.

    Args:
        links: In the order of their entries; those before the trusted key took its place are passed over.
        ledger_id: The ledger, 64 hexadecimal digits.
        start: The log's key, trusted: the first, or a later one.

    Returns:
        The key behind the last link. That the links are in the log is for the caller to check.

    Raises:
        EncodingError: A link is no ``log-key`` record.
        VerificationError: A signature does not hold, a link does not follow the one before, or none leads on from
            ``start``.
    """
    key: PublicKey | None = None
    previous: PublicKey | None = None
    index = 0
    for link in links:
        statement = Statement.from_bytes(link.entry.payload)
        said = Succession.from_statement(statement)
        if statement.predicate["ledger"] != b64u(bytes.fromhex(ledger_id)):
            raise VerificationError("a succession of the log's key is of another ledger")
        said.verify(ledger_id)
        if link.index <= index or (previous is not None and said.previous != previous):
            raise VerificationError("the successions of the log's key do not follow each other")
        index, previous = link.index, said.key
        if key is not None or said.previous == start:
            key = said.key
    if not links or previous == start:
        return start
    if key is None:
        raise VerificationError("no succession leads from the log key that is trusted to the one that signed")
    return key


def read_succession(value: object) -> Succession:
    """Read the members of a ``log-key`` record that are its own, as `Succession.predicate` writes them.

    Raises:
        EncodingError: They are not such members.
    """
    fields = Fields(value, "the succession of the log's key", _OWN_FIELDS)
    return Succession(
        previous=PublicKey(fields.octets("previous", 32)),
        key=PublicKey(fields.octets("key", 32)),
        consent=fields.octets("consent", 64),
        acceptance=fields.octets("acceptance", 64),
        approvals=tuple(map(_approval, fields.array("approvals", APPROVAL_COUNT_MAX))),
    )


def _approval(value: object) -> Approval:
    fields = Fields(value, "an approval of the log-key record", ("key", "signature"))
    return Approval(fields.octets("key", 16), fields.octets("signature", 64))
