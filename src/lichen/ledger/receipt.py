"""Receipts: what anyone can check without asking anybody, and what that does and does not show.

Everything is computed anew from the receipt and from what the caller trusts: the log's public key, or only the
ledger's id when the receipt carries the first entry. The format says that ``extra`` must not be trusted, and nothing
in it is: the entry's hash must lead to the checkpoint's root, the key's proof to the root of the state in the seal,
the author's key must have the id that the entry names, and the first entry must hash to the ledger's id. A state
counts only under a checkpoint whose last entry is its seal.

Source: C2SP tlog-proof v1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lichen.crypto.keys import PublicKey
from lichen.crypto.note import SignedNote
from lichen.encoding.entry import Entry
from lichen.encoding.statement import Statement
from lichen.errors import EncodingError, VerificationError
from lichen.ledger.checkpoint import Checkpoint, open_checkpoint, origin_of, parse_checkpoint
from lichen.ledger.genesis import Genesis
from lichen.ledger.policy import Cosigner, Policy, shown
from lichen.ledger.proof import verify_inclusion
from lichen.ledger.quorums import quorum_strength
from lichen.ledger.receipt_format import EntryAnswer, Receipt, StateAnswer
from lichen.ledger.seal import SEAL_KIND, Seal
from lichen.ledger.state_map import state_key, verify_absence, verify_membership
from lichen.ledger.succession import Succession, follow_succession
from lichen.ledger.tree import EMPTY_ROOT, leaf_hash, node_hash

__all__ = [
    "LOGGED",
    "WITNESSED",
    "EntryAnswer",
    "Receipt",
    "StateAnswer",
    "VerifiedReceipt",
    "verify_receipt",
]

LOGGED = "logged"
"""The log's own key committed to it; whether witnesses did so too was not asked, or they did not."""

WITNESSED = "witnessed"
"""So did witnesses enough for the policy it was checked against."""

_TRUE = "That what the record says is true: its author said so."
_SPLIT = "That everybody was shown the same log: no witness has cosigned this checkpoint."
_UNASKED = (
    "That everybody was shown the same log: it carries further signatures, which say so only under a policy that names "
    "the witnesses (`lichen verify --policy FILE`)."
)
_REPLAY = (
    "That this state follows from the entries: only replaying them (`lichen audit`) shows it, and exposes a sealer who left "
    "something out."
)
_ADMINS = (
    "That a majority of the admins agreed to the log's new key: its old key did, and only replaying the entries shows the "
    "rest."
)
_LATER = "Anything about entries after the seal."


@dataclass(frozen=True, slots=True)
class VerifiedReceipt:
    """A receipt that holds.

    Attributes:
        origin: Origin of the ledger it is from.
        index: Index of the entry, or of the seal.
        tree_size: Entries under the checkpoint.
        root: Root of the log of that size, 32 bytes.
        state: How far it is attested: ``logged``, or ``witnessed`` when a policy was given that it satisfies.
        entry: The entry, or the seal's.
        statement: The record; None when the receipt is about the state.
        author_verified: Whether the entry's signature was checked under the author's key.
        seal: The seal; None when the receipt is about another entry.
        contract: Contract whose key it is about; None when it is about an entry.
        key: What the contract calls the key; None when it is about an entry.
        value: Value of the key; None when the key is absent, or when it is about an entry.
        proves: What follows, in sentences.
        does_not_prove: What does not follow, in sentences.
        cosigners: Witnesses of the policy that cosigned the checkpoint; none when no policy was given.
    """

    origin: str
    index: int
    tree_size: int
    root: bytes
    state: str
    entry: Entry
    statement: Statement | None
    author_verified: bool
    seal: Seal | None
    contract: str | None
    key: bytes | None
    value: bytes | None
    proves: tuple[str, ...]
    does_not_prove: tuple[str, ...]
    cosigners: tuple[Cosigner, ...] = ()


def verify_receipt(
    receipt: Receipt,
    log_key: PublicKey | None,
    origin: str | None = None,
    *,
    author: PublicKey | None = None,
    policy: Policy | None = None,
    now_unix_seconds: int | None = None,
) -> VerifiedReceipt:
    """Check a receipt.

    Args:
        receipt: The receipt.
        log_key: The log's public key, trusted; None to take it from the first entry in the receipt, which then must
            hash to the ledger id in ``origin``.
        origin: Origin of the ledger, trusted; None to accept any ledger whose checkpoints this log key signs.
        author: Key the entry must have been signed with; None to use the key in the receipt, if there is one.
        policy: Which witnesses must have cosigned the checkpoint, and by which log keys it may be signed when the policy
            lists logs; None to ask for none.
        now_unix_seconds: The reader's clock: cosignatures from more than a day ahead do not count; None counts them all.

    Returns:
        What the receipt shows.

    Raises:
        EncodingError: The record or the seal in it is not one.
        FormatVersionError: The first entry in it is of a later format.
        VerificationError: It does not hold, too few witnesses cosigned it for the policy, or nothing that was given says
            whose key to believe.
    """
    if policy is not None and policy.logs:
        log_key = _listed(policy, receipt.head.origin if origin is None else origin, log_key)
    expected_origin, key = _trusted(receipt, log_key, origin)
    checkpoint = open_checkpoint(receipt.checkpoint, expected_origin, key)
    about = receipt.about
    for link in about.succession:
        said = leaf_hash(link.entry.to_bytes())
        verify_inclusion(link.index, checkpoint.tree_size, said, link.proof, checkpoint.root)
    leaf = leaf_hash(about.entry.to_bytes())
    verify_inclusion(receipt.index, checkpoint.tree_size, leaf, receipt.proof, checkpoint.root)
    if isinstance(about, EntryAnswer):
        verified = _entry_receipt(receipt, about, checkpoint, key, author or about.author)
    else:
        verified = _state_receipt(receipt, about, checkpoint, key, author)
    if about.succession:
        verified = replace(verified, does_not_prove=(*verified.does_not_prove, _ADMINS))
    return _with_cosignatures(verified, parse_checkpoint(receipt.checkpoint)[1], policy, now_unix_seconds)


def _listed(policy: Policy, origin: str, log_key: PublicKey | None) -> PublicKey:
    """Return the key of a log that the policy lists; one that was given otherwise must be the same."""
    log = policy.log_of(origin)
    if log is None:
        raise VerificationError(
            "the policy lists logs, and this one is none of them",
            expected=", ".join(log.key.name for log in policy.logs),
            calculated=origin,
            remedy="Use the policy that was given out for this ledger.",
        )
    if log_key is not None and log_key != log.key.key:
        raise VerificationError(
            "the policy lists another key for this log", expected=log_key.raw, calculated=log.key.key.raw
        )
    return log.key.ed25519


def _with_cosignatures(
    verified: VerifiedReceipt, note: SignedNote, policy: Policy | None, now_unix_seconds: int | None
) -> VerifiedReceipt:
    """Judge the cosignatures under a policy, and say what they add."""
    rest = tuple(sentence for sentence in verified.does_not_prove if sentence != _SPLIT)
    if policy is None or policy.quorum is None:
        if len(note.signatures) == 1:
            return verified
        return replace(verified, does_not_prove=(*rest, _UNASKED))
    quorum = policy.judge(note, now_unix_seconds)
    signed = ", ".join(f"{each.name} at {each.time_text}" for each in quorum.cosigners)
    if not quorum.is_reached:
        raise VerificationError(
            f"too few witnesses cosigned this checkpoint for the policy: {signed or 'none'};"
            f" not {quorum.why_missing()}",
            expected=shown(policy.quorum),
            calculated=len(quorum.cosigners),
            remedy="Ask for the receipt again later, when more witnesses have cosigned.",
        )
    strength = quorum_strength(policy)
    agreed = f"Witnesses enough for the policy cosigned that checkpoint: {signed}."
    meaning = "Each of them had checked that the log only grew since it last signed."
    doubt = (
        f"That nobody was shown another log, if {strength.overlap_min} of the witnesses signed both:"
        " any two quorums share at least that many."
    )
    return replace(
        verified,
        state=WITNESSED,
        proves=(*verified.proves, agreed, meaning),
        does_not_prove=(*rest, doubt),
        cosigners=quorum.cosigners,
    )


def _trusted(receipt: Receipt, log_key: PublicKey | None, origin: str | None) -> tuple[str, PublicKey]:
    """Decide which ledger and which key to believe.

    The first entry in a receipt, when there is one, is checked even if the key was given otherwise.
    """
    claimed = receipt.head.origin
    expected = claimed if origin is None else origin
    ledger_id = expected.rpartition("/")[2]
    if expected != origin_of(ledger_id):
        raise EncodingError(f"not the origin of a Lichen ledger: {expected[:120]!r}")
    if receipt.about.genesis is not None:
        named = Genesis.from_entry(receipt.about.genesis, ledger_id).log_key
        final = follow_succession(receipt.about.succession, ledger_id, named)
        if log_key is not None and log_key not in (named, *_keys_of(receipt)):
            raise VerificationError(
                "the ledger's first entry names another log key", expected=log_key.raw, calculated=named.raw
            )
        if log_key is None and origin is not None:
            return expected, final
    if log_key is None:
        raise VerificationError(
            "nothing says whose receipts to believe",
            remedy="Give the log's public key; or the ledger's id, and a receipt that carries the first entry.",
        )
    return expected, follow_succession(receipt.about.succession, ledger_id, log_key)


def _keys_of(receipt: Receipt) -> list[PublicKey]:
    """Return the keys that took the place of the log's first one; after `follow_succession` checked them."""
    return [
        Succession.from_statement(Statement.from_bytes(link.entry.payload)).key
        for link in receipt.about.succession
    ]


def _entry_receipt(
    receipt: Receipt, about: EntryAnswer, checkpoint: Checkpoint, log_key: PublicKey, author: PublicKey | None
) -> VerifiedReceipt:
    entry = about.entry
    statement = Statement.from_bytes(entry.payload)
    if entry.key_id == log_key.key_id:
        author = author or log_key
    if author is not None:
        entry.verify(author)
    proves = [_logged(receipt, checkpoint)]
    open_questions = [_TRUE, _SPLIT]
    if author is not None:
        proves.append(f"The record is as the holder of key {entry.key_id.hex()} signed it.")
    else:
        open_questions.insert(
            0, f"Who signed it: the public key with id {entry.key_id.hex()} was not at hand."
        )
    return VerifiedReceipt(
        origin=checkpoint.origin,
        index=receipt.index,
        tree_size=checkpoint.tree_size,
        root=checkpoint.root,
        state=LOGGED,
        entry=entry,
        statement=statement,
        author_verified=author is not None,
        seal=Seal.from_statement(statement) if statement.kind == SEAL_KIND else None,
        contract=None,
        key=None,
        value=None,
        proves=tuple(proves),
        does_not_prove=tuple(open_questions),
    )


def _state_receipt(
    receipt: Receipt, about: StateAnswer, checkpoint: Checkpoint, log_key: PublicKey, sealer: PublicKey | None
) -> VerifiedReceipt:
    about.seal.verify(sealer or log_key)
    seal = Seal.from_statement(Statement.from_bytes(about.seal.payload))
    if checkpoint.tree_size != receipt.index + 1:
        raise VerificationError(
            "a state counts only under the checkpoint that ends with its seal",
            expected=receipt.index + 1,
            calculated=checkpoint.tree_size,
        )
    if seal.tree_size != receipt.index:
        raise VerificationError(
            "the seal does not commit to the log before it", expected=receipt.index, calculated=seal.tree_size
        )
    before = _root_before_last(receipt.proof)
    if seal.root != before:
        raise VerificationError(
            "the seal does not commit to the entries before it", expected=before, calculated=seal.root
        )
    name = state_key(about.contract, about.key)
    shown = f"key {about.key.hex()} of contract {about.contract}"
    if about.value is None:
        verify_absence(seal.state_root, name, about.map_proof)
        found = f"In the state at seal {receipt.index}, {shown} is absent."
    else:
        verify_membership(seal.state_root, name, about.value, about.map_proof)
        found = f"In the state at seal {receipt.index}, {shown} has the value {about.value[:64].hex()}."
    return VerifiedReceipt(
        origin=checkpoint.origin,
        index=receipt.index,
        tree_size=checkpoint.tree_size,
        root=checkpoint.root,
        state=LOGGED,
        entry=about.seal,
        statement=None,
        author_verified=True,
        seal=seal,
        contract=about.contract,
        key=about.key,
        value=about.value,
        proves=(_logged(receipt, checkpoint), found),
        does_not_prove=(_REPLAY, _LATER, _SPLIT),
    )


def _root_before_last(proof: tuple[bytes, ...]) -> bytes:
    """Compute the root of the tree without its last leaf from the last leaf's inclusion proof.

    Every sibling on the way up from the last leaf is a perfect subtree to its left, so together they are the tree
    without it.
    """
    if not proof:
        return EMPTY_ROOT
    root = proof[0]
    for sibling in proof[1:]:
        root = node_hash(sibling, root)
    return root


def _logged(receipt: Receipt, checkpoint: Checkpoint) -> str:
    return (
        f"Entry {receipt.index} is in the ledger {checkpoint.origin} "
        f"as its log key committed to it at {checkpoint.tree_size} entries."
    )
