"""Who may write: keys bound to members by index ranges.

Rules upheld here:

* A member id is not a key. Each key belongs to one member for ever and speaks for it from one index to another; a key
  that left never comes back.
* Validity goes by index, never by a claimed time: a key speaks for entries with ``first <= index < end``.
* Admins of the genesis admit members, add keys and may retire any key. A member may rotate and revoke its own.
* ``compromise`` names the first bad index, which may lie in the past: entries from there on are no longer believed.
  Whoever holds a stolen key must not be able to discredit its owner's past with it, so the word of that key alone is
  not enough, unless it is an admin's.
* The last admin with a key cannot be revoked, because nobody could admit anyone after that.

State, under the contract's name: ``b"key/" + key id`` -> a `KeyBinding`, ``b"member/" + id`` -> a `Member`, ``b"admin/"
+ number`` -> the member id of each admin, numbered from 0, and ``b"admins"`` -> how many there are. What succession of the
log's key adds stands in `lichen.contracts.log_key`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NoReturn

from lichen.contracts.log_key import check_log_key, log_key_writes, read_log_keys
from lichen.contracts.schema import COMMON_FIELDS, Schema, a_digest, a_flag, a_member, an_integer, one_of
from lichen.crypto.keys import PublicKey
from lichen.encoding.base import b64u, b64u_decode
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.errors import EncodingError, Rejected
from lichen.ledger.ports import LOG_MEMBER, Record, StateReader, StateWrite
from lichen.ledger.succession import LOG_KEY_KIND, Succession

__all__ = [
    "ACTIONS",
    "KeyBinding",
    "Member",
    "Members",
    "StateGet",
    "is_key_in_force",
    "is_key_valid",
    "key_binding",
    "member_of",
]

NAME: Final = "members"
KEY_COUNT_MAX: Final = 32  # so that a member's value stays below the 1,024 bytes a value may have
ACTIONS: Final = ("admit", "add-key", "rotate", "revoke", "compromise")

_SCHEMA: Final = Schema(
    required={**COMMON_FIELDS, "action": one_of(*ACTIONS), "subject_member": a_member},
    optional={"key": a_digest, "from_index": an_integer(), "admin": a_flag},
)
_FIELDS_BY_ACTION: Final[Mapping[str, tuple[frozenset[str], frozenset[str]]]] = {  # needs, may have
    "admit": (frozenset({"key"}), frozenset({"admin"})),
    "add-key": (frozenset({"key"}), frozenset()),
    "rotate": (frozenset({"key"}), frozenset()),
    "revoke": (frozenset(), frozenset({"key"})),
    "compromise": (frozenset({"key", "from_index"}), frozenset()),
}
_SPECIAL_FIELDS: Final = frozenset({"key", "from_index", "admin"})


StateGet = Callable[[str, bytes], bytes | None]
"""Looks up a key of the state by contract and key; ``StateReader.get`` and ``Ledger.state_get`` both do."""


@dataclass(frozen=True, slots=True)
class KeyBinding:
    """Which member a key speaks for, and over which indices.

    Attributes:
        member: Member id; ``log`` for the log's own key.
        key: The public key.
        first: First index it may sign.
        end: First index it may no longer sign, or None while it may.
        reason: Why it ended: ``rotated``, ``revoked`` or ``compromised``; None while it has not.
    """

    member: str
    key: PublicKey
    first: int
    end: int | None = None
    reason: str | None = None

    def covers(self, index: int) -> bool:
        """True when the key may sign the entry at this index."""
        return self.first <= index and (self.end is None or index < self.end)

    def to_bytes(self) -> bytes:
        """Write the state value, canonical JSON."""
        value: dict[str, Any] = {"first": self.first, "key": b64u(self.key.raw), "member": self.member}
        if self.end is not None:
            value |= {"end": self.end, "reason": self.reason}
        return canonical_json(value)


@dataclass(frozen=True, slots=True)
class Member:
    """A member as the state holds it.

    Attributes:
        admin: Whether it may admit others.
        since: Index of the entry that admitted it.
        keys: Ids of all keys it ever had, 16 bytes each, oldest first.
    """

    admin: bool
    since: int
    keys: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Write the state value, canonical JSON."""
        return canonical_json(
            {"admin": self.admin, "keys": [b64u(key) for key in self.keys], "since": self.since}
        )


@functools.lru_cache(maxsize=1_024)
def _parse_binding(value: bytes) -> KeyBinding:
    """Read a binding; cached, so that a key's point is decoded once and not for every entry it signed."""
    fields = parse_canonical(value)
    return KeyBinding(
        fields["member"],
        PublicKey(b64u_decode(fields["key"], 32)),
        fields["first"],
        fields.get("end"),
        fields.get("reason"),
    )


def key_binding(state_get: StateGet, key_id: bytes) -> KeyBinding | None:
    """Look up whose key this is.

    Args:
        state_get: Where to look.
        key_id: 16 bytes, from an entry.
    """
    value = state_get(NAME, b"key/" + key_id)
    return None if value is None else _parse_binding(value)


def member_of(state_get: StateGet, member: str) -> Member | None:
    """Look up a member by id."""
    value = state_get(NAME, b"member/" + member.encode())
    if value is None:
        return None
    fields = parse_canonical(value)
    return Member(fields["admin"], fields["since"], tuple(b64u_decode(key, 16) for key in fields["keys"]))


def is_key_valid(state_get: StateGet, key_id: bytes, index: int) -> bool:
    """True when, as far as this state knows, the key may have signed the entry at this index.

    An entry that was accepted becomes invalid when its key is later declared compromised from an earlier index.
    """
    binding = key_binding(state_get, key_id)
    return binding is not None and binding.covers(index)


def is_key_in_force(state_get: StateGet, key_id: bytes) -> bool:
    """True while results signed with this key may be taken up: it was neither revoked nor declared compromised.

    Revoking a key withdraws the hits it signed; rotating one does not.
    """
    binding = key_binding(state_get, key_id)
    return binding is not None and binding.reason not in ("revoked", "compromised")


class Members:
    """The contract; the ledger also asks it whose key signed (`lichen.ledger.ports.Authority`)."""

    name = NAME
    version = 1
    kinds = frozenset({"genesis", "member", LOG_KEY_KIND})

    # CHECK

    def resolve(self, key_id: bytes, member: str, index: int, state: StateReader) -> PublicKey:
        """See `lichen.ledger.ports.Authority.resolve`."""
        binding = key_binding(state.get, key_id)
        if binding is None or binding.member == LOG_MEMBER:
            raise Rejected(
                "members.not-admitted",
                f"key {key_id.hex()} belongs to no member of this ledger",
                remedy="ask an admin to admit it: `lichen key admit`",
            )
        if binding.member != member:
            raise Rejected(
                "members.forged-author",
                f"the record names {member!r} as its author, its key belongs to {binding.member!r}",
                remedy="sign with the named member's key, or name the key's member",
            )
        if not binding.covers(index):
            raise Rejected(
                "members.key-revoked",
                f"key {key_id.hex()} of {member!r} speaks for entries {binding.first} to "
                f"{'now' if binding.end is None else binding.end - 1}, not for {index}"
                f"{'' if binding.reason is None else f': it was {binding.reason}'}",
                remedy="sign with a key that is still valid",
            )
        return binding.key

    def key_of(self, key_id: bytes, state: StateReader) -> PublicKey | None:
        """See `lichen.ledger.ports.Authority.key_of`."""
        binding = key_binding(state.get, key_id)
        return None if binding is None else binding.key

    def log_keys(self, state: StateReader) -> tuple[tuple[int, PublicKey], ...]:
        """See `lichen.ledger.ports.Authority.log_keys`."""
        return read_log_keys(state)

    def is_believed(self, key_id: bytes, index: int, state: StateReader) -> bool:
        """See `lichen.ledger.ports.Authority.is_believed`."""
        return is_key_valid(state.get, key_id, index)

    def check(self, record: Record, state: StateReader) -> None:
        """See `lichen.ledger.ports.Contract.check`."""
        if record.kind == "genesis":
            return  # its reader has checked that admins, their keys and the log's key are all different
        if record.kind == LOG_KEY_KIND:
            self._check_log_key(record, state)
            return
        predicate = record.predicate
        self._check_form(record)
        action, subject = predicate["action"], predicate["subject_member"]
        signer, target = member_of(state.get, record.member), member_of(state.get, subject)
        is_admin = signer is not None and signer.admin
        if action == "admit":
            if target is not None:
                _reject("already-admitted", f"{subject!r} is a member since entry {target.since}")
        elif target is None:
            _reject("unknown-member", f"{subject!r} is not a member", "admit it first: `lichen key admit`")
        if not is_admin and (action in ("admit", "add-key") or record.member != subject):
            _reject(
                "not-admin",
                f"{record.member!r} may not {action} for {subject!r}",
                "ask an admin of this ledger to sign it",
            )
        if action in ("admit", "add-key", "rotate"):
            self._check_new_key(predicate, target, state)
        else:
            self._check_retired_key(record, target, is_admin, state)

    def _check_log_key(self, record: Record, state: StateReader) -> None:
        """Check that old key, new key and a majority of the admins agree."""
        place = record.place

        def admin_of(key_id: bytes) -> tuple[str, PublicKey] | None:
            binding = key_binding(state.get, key_id)
            if binding is None or not binding.covers(place):
                return None
            member = member_of(state.get, binding.member)
            return (binding.member, binding.key) if member is not None and member.admin else None

        admin_count = sum(
            any(is_key_valid(state.get, key, place) for key in member.keys) for member in _admins(state)
        )
        check_log_key(record, state, lambda key_id: key_binding(state.get, key_id), admin_of, admin_count)

    def _check_form(self, record: Record) -> None:
        """Check version, fields and which of them go with the action."""
        predicate = record.predicate
        if record.statement.version != self.version:
            _reject("schema", f"member records have version {self.version}, not {record.statement.version}")
        action = predicate.get("action")
        if type(action) is str and action not in ACTIONS:
            _reject("unknown-action", f"{action!r:.80} is none of {', '.join(ACTIONS)}")
        if wrong := _SCHEMA.problem(predicate):
            _reject("schema", f"the member record {wrong}")
        needs, may = _FIELDS_BY_ACTION[predicate["action"]]
        given = _SPECIAL_FIELDS & predicate.keys()
        if not needs <= given or not given <= needs | may:
            wanted = ", ".join(sorted(needs)) or "no further field"
            _reject(
                "schema", f"{predicate['action']} needs {wanted}, got {', '.join(sorted(given)) or 'none'}"
            )
        if "key" in given:
            _key_of(predicate)

    def _check_new_key(self, predicate: Mapping[str, Any], target: Member | None, state: StateReader) -> None:
        key = _key_of(predicate)
        known = key_binding(state.get, key.key_id)
        if known is not None:
            _reject(
                "duplicate-key",
                f"key {key.key_id.hex()} belongs to {known.member!r} already",
                "make a new key: `lichen key make`",
            )
        if target is not None and len(target.keys) >= KEY_COUNT_MAX:
            _reject("too-many-keys", f"a member has at most {KEY_COUNT_MAX} keys in its life")

    def _check_retired_key(
        self, record: Record, target: Member | None, is_admin: bool, state: StateReader
    ) -> None:
        predicate = record.predicate
        subject = predicate["subject_member"]
        retired = _retired_keys(predicate, target)
        for key_id in retired:
            binding = key_binding(state.get, key_id)
            if binding is None or binding.member != subject:
                _reject("unknown-key", f"key {key_id.hex()} does not belong to {subject!r}")
        if predicate["action"] == "compromise":
            binding = key_binding(state.get, retired[0])
            first_bad = predicate["from_index"]
            if binding is None or not binding.first <= first_bad <= record.place:
                _reject(
                    "bad-index", f"the first bad index must lie in the key's life so far, not {first_bad}"
                )
            if not is_admin and retired[0] == record.entry.key_id:
                _reject(
                    "own-word",
                    f"key {retired[0].hex()} cannot declare itself compromised",
                    "sign with another key of the same member, or ask an admin",
                )
            return
        if not any(is_key_valid(state.get, key_id, record.place + 1) for key_id in retired):
            _reject("key-revoked", f"no key of {subject!r} that is named still speaks for it")
        if self._leaves_no_admin(state, set(retired), record.place + 1):
            _reject(
                "last-admin",
                f"revoking this would leave the ledger without an admin: {subject!r} is the last",
                "admit another admin first, or rotate the key instead",
            )

    def _leaves_no_admin(self, state: StateReader, retired: set[bytes], index: int) -> bool:
        return not any(
            key not in retired and is_key_valid(state.get, key, index)
            for member in _admins(state)
            for key in member.keys
        )

    # UPDATE

    def apply(self, record: Record, state: StateReader) -> list[StateWrite]:
        """See `lichen.ledger.ports.Contract.apply`."""
        if record.kind == "genesis":
            return self._apply_genesis(record)
        if record.kind == LOG_KEY_KIND:
            said, following = Succession.from_statement(record.statement), record.place + 1
            ended = _ended(state, (said.previous.key_id,), following, "rotated")
            bound = _binding_write(KeyBinding(LOG_MEMBER, said.key, following))
            return [*ended, bound, *log_key_writes(record, state)]
        predicate = record.predicate
        action, subject = predicate["action"], predicate["subject_member"]
        following = record.place + 1
        target = member_of(state.get, subject)
        if action == "admit":
            key = _key_of(predicate)
            is_admin = bool(predicate.get("admin", False))
            writes = [
                _binding_write(KeyBinding(subject, key, following)),
                _member_write(subject, Member(is_admin, record.place, (key.key_id,))),
            ]
            return [*writes, *_admin_writes(_admin_count(state), [subject])] if is_admin else writes
        if target is None:
            raise ValueError(f"apply() of {action} without check(): {subject!r} is not a member")
        if action in ("add-key", "rotate"):
            key = _key_of(predicate)
            writes = self._rotated(record, target, state) if action == "rotate" else []
            writes.append(_binding_write(KeyBinding(subject, key, following)))
            writes.append(_member_write(subject, replace(target, keys=(*target.keys, key.key_id))))
            return writes
        end, reason = (following, "revoked")
        if action == "compromise":
            end, reason = predicate["from_index"], "compromised"
        return _ended(state, _retired_keys(predicate, target), end, reason)

    def _rotated(self, record: Record, target: Member, state: StateReader) -> list[StateWrite]:
        """End the key that signed, or every key when an admin rotates for someone else."""
        own = record.entry.key_id in target.keys
        return _ended(state, (record.entry.key_id,) if own else target.keys, record.place + 1, "rotated")

    def _apply_genesis(self, record: Record) -> list[StateWrite]:
        predicate = record.predicate
        log_key = PublicKey(b64u_decode(predicate["log_key"], 32))
        writes = [_binding_write(KeyBinding(LOG_MEMBER, log_key, 0))]
        for admin in predicate["admins"]:
            key = PublicKey(b64u_decode(admin["key"], 32))
            writes.append(_binding_write(KeyBinding(admin["member"], key, record.place + 1)))
            writes.append(_member_write(admin["member"], Member(True, record.place, (key.key_id,))))
        return [*writes, *_admin_writes(0, [admin["member"] for admin in predicate["admins"]])]


def _reject(rule: str, message: str, remedy: str = "") -> NoReturn:
    raise Rejected(f"{NAME}.{rule}", message, remedy=remedy)


def _key_of(predicate: Mapping[str, Any]) -> PublicKey:
    try:
        return PublicKey(b64u_decode(predicate["key"], 32))
    except EncodingError as error:
        _reject("schema", f"the member record carries no usable key: {error.message}")


def _retired_keys(predicate: Mapping[str, Any], target: Member | None) -> tuple[bytes, ...]:
    """Ids of the keys that a revoke or compromise is about: the one named, or all of the member's."""
    if "key" in predicate:
        return (_key_of(predicate).key_id,)
    return target.keys if target is not None else ()


def _ended(state: StateReader, keys: tuple[bytes, ...], end: int, reason: str) -> list[StateWrite]:
    """Writes that end keys at an index; what ended earlier stays as it was."""
    writes = []
    for key_id in keys:
        binding = key_binding(state.get, key_id)
        if binding is not None and (binding.end is None or binding.end > end):
            writes.append(_binding_write(replace(binding, end=end, reason=reason)))
    return writes


def _admins(state: StateReader) -> Iterator[Member]:
    """Every admin there ever was, in the order they became one."""
    for number in range(_admin_count(state)):
        admin = state.get(NAME, b"admin/%d" % number)
        member = None if admin is None else member_of(state.get, admin.decode())
        if member is not None:
            yield member


def _admin_count(state: StateReader) -> int:
    value = state.get(NAME, b"admins")
    return 0 if value is None else int(value)


def _binding_write(binding: KeyBinding) -> StateWrite:
    return StateWrite(NAME, b"key/" + binding.key.key_id, binding.to_bytes())


def _member_write(member: str, value: Member) -> StateWrite:
    return StateWrite(NAME, b"member/" + member.encode(), value.to_bytes())


def _admin_writes(count: int, added: list[str]) -> list[StateWrite]:
    """Writes that add admins after the first ``count``."""
    writes = [
        StateWrite(NAME, b"admin/%d" % number, member.encode())
        for number, member in enumerate(added, start=count)
    ]
    return [*writes, StateWrite(NAME, b"admins", b"%d" % (count + len(added)))]
