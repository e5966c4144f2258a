"""The contract ``members``, version 1: which key speaks for whom, from which entry to which."""

from __future__ import annotations

import hashlib

from lichen.archive.standalone.ed25519 import Key
from lichen.archive.standalone.faults import Fault
from lichen.archive.standalone.shapes import LOG_KEY, MEMBER, MEMBER_FIELDS, fits
from lichen.archive.standalone.texts import Record, b64u, canonical, unb64u
from lichen.archive.standalone.trees import State

__all__ = ["Members", "did_of"]

MEMBERS = "members"
KEY_COUNT_MAX = 32
LOG_KEY_COUNT_MAX = 64


class Binding:
    """A key, whom it speaks for, and over which indices."""

    def __init__(self, member: str, key: Key, first: int) -> None:
        self.member = member
        self.key = key
        self.first = first
        self.end: int | None = None
        self.reason = ""

    def covers(self, index: int) -> bool:
        """True when the key may sign the entry at this index."""
        return self.first <= index and (self.end is None or index < self.end)

    def described(self) -> dict:
        """As the list of keys in an archive has it."""
        found = {"did": did_of(self.key.raw), "first": self.first, "key": b64u(self.key.raw)}
        return found if self.end is None else {**found, "end": self.end, "reason": self.reason}


def did_of(raw: bytes) -> str:
    """A public key as did:key text."""
    number, digits = int.from_bytes(b"\xed\x01" + raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        digits = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"[digit] + digits
    return "did:key:z" + digits


class Members:
    """Everyone's keys, and what they add up to in the state.

    Args:
        state: Where it is written.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.bindings: dict = {}  # by key id
        self.members: dict = {}  # by member id: [is admin, since, ids of keys]
        self.admins: list = []
        self.log_keys: list = []  # pairs of the first index a key of the log speaks for, and the key

    def log_key_at(self, index: int) -> Key:
        """The log's key that signs a seal at an index."""
        return [key for first, key in self.log_keys if first <= index][-1]

    def found(self, log_key: Key, admins: list) -> None:
        """Start from a genesis."""
        self.log_keys = [(0, log_key)]
        self.bind(Binding("log", log_key, 0))
        for member, key in admins:
            self.bind(Binding(member, key, 1))
            self.put_member(member, [True, 0, [key.key_id]])
        self.put_admins([member for member, _ in admins])

    def resolve(self, key_id: bytes, member: str, index: int) -> Key:
        """The key that signed, if it speaks for this member at this index.

        Raises:
            Fault: It does not.
        """
        binding = self.bindings.get(key_id)
        if binding is None or binding.member == "log":
            raise Fault("members.not-admitted: key %s is no member's" % key_id.hex())
        if binding.member != member:
            raise Fault(
                "members.forged-author: it names %.80r, its key is of %.80r" % (member, binding.member)
            )
        if not binding.covers(index):
            raise Fault("members.key-revoked: key %s does not speak for this entry" % key_id.hex())
        return binding.key

    def take(self, record: Record) -> None:
        """Check a record of kind ``member`` and do what it says.

        Raises:
            Fault: A rule says no.
        """
        said = record.said
        action = said.get("action")
        if record.version == 1 and type(action) is str and action not in MEMBER_FIELDS:
            raise Fault("members.unknown-action: %.80r" % action)
        if record.version != 1 or not fits(MEMBER, said):
            raise Fault("members.schema: not a member record of version 1")
        action, subject = said["action"], said["subject_member"]
        needs, may = MEMBER_FIELDS[action]
        if not needs <= said.keys() & {"key", "from_index", "admin"} <= may:
            raise Fault("members.schema: %s goes with other fields" % action)
        key = Key(unb64u(said["key"], 32)) if "key" in said else None
        signer, target = self.members.get(said["member"]), self.members.get(subject)
        is_admin = signer is not None and signer[0]
        if (target is not None) == (action == "admit"):
            raise Fault("members.%s" % ("already-admitted" if target else "unknown-member"))
        if not is_admin and (action in ("admit", "add-key") or said["member"] != subject):
            raise Fault("members.not-admin: %.80r may not %s for %.80r" % (said["member"], action, subject))
        if action in ("admit", "add-key", "rotate"):
            if key is None or key.key_id in self.bindings:
                raise Fault("members.duplicate-key")
            self.give(record, key, target)
        else:
            retired = [key.key_id] if key else list(self.members[subject][2])
            if any(each not in self.bindings or self.bindings[each].member != subject for each in retired):
                raise Fault("members.unknown-key")
            self.retire(record, retired, is_admin)

    def succeed(self, record: Record, ledger: bytes) -> list:
        """Give the log a new key: the old one consents, the new one accepts, a majority of the admins approves.

        Args:
            record: A record of kind ``log-key``.
            ledger: Id of the ledger, 32 bytes.

        Returns:
            Signatures still to be checked: what each is, key, message, signature.

        Raises:
            Fault: A rule says no.
        """
        said, index = record.said, record.index
        if record.version != 1 or not fits(LOG_KEY, said):
            raise Fault("members.schema: not a log-key record of version 1")
        old, new = Key(unb64u(said["previous"], 32)), Key(unb64u(said["key"], 32))
        if record.subjects != [("log-key", hashlib.sha256(new.raw).digest())]:
            raise Fault("members.schema: the subject of a log-key record is the new key")
        if old.raw != self.log_keys[-1][1].raw:
            raise Fault("members.log-key-previous: the log has another key")
        if new.key_id in self.bindings:
            raise Fault("members.duplicate-key")
        if len(self.log_keys) >= LOG_KEY_COUNT_MAX:
            raise Fault("members.too-many-keys")
        message = b"lichen log key succession v1\n" + ledger + old.raw + new.raw
        jobs = [
            ("the old log key's consent", old.raw, message, unb64u(said["consent"], 64)),
            ("the new log key's acceptance", new.raw, message, unb64u(said["acceptance"], 64)),
        ]
        approving = set()
        for each in [{"key": b64u(record.key_id)}, *said["approvals"]]:
            binding = self.bindings.get(unb64u(each["key"], 16))
            is_admin = binding is not None and binding.member in self.admins and binding.covers(index)
            if binding is None or not is_admin or binding.member in approving:
                raise Fault("members.log-key-approval: not by an admin, or twice by one")
            approving.add(binding.member)
            if "signature" in each:
                what = "the approval of %.80s" % binding.member
                jobs.append((what, binding.key.raw, message, unb64u(each["signature"], 64)))
        speaking = [
            admin
            for admin in self.admins
            if any(self.bindings[key].covers(index) for key in self.members[admin][2])
        ]
        if 2 * len(approving) <= len(speaking):
            raise Fault("members.log-key-majority: %d of %d admins" % (len(approving), len(speaking)))
        self.end([old.key_id], index + 1, "rotated")
        self.bind(Binding("log", new, index + 1))
        value = canonical({"first": index + 1, "key": b64u(new.raw)})
        self.put(b"log-key/%d" % len(self.log_keys), value.encode())
        self.log_keys.append((index + 1, new))
        self.put(b"log-keys", b"%d" % len(self.log_keys))
        return jobs

    def give(self, record: Record, key: Key, target: list | None) -> None:
        """Admit a member, or add or change a key of one."""
        said, after = record.said, record.index + 1
        subject = said["subject_member"]
        if target is None:
            self.bind(Binding(subject, key, after))
            self.put_member(subject, [said.get("admin", False), record.index, [key.key_id]])
            if said.get("admin", False):
                self.put_admins([subject])
            return
        if len(target[2]) >= KEY_COUNT_MAX:
            raise Fault("members.too-many-keys")
        if said["action"] == "rotate":
            self.end([record.key_id] if record.key_id in target[2] else target[2], after, "rotated")
        self.bind(Binding(subject, key, after))
        self.put_member(subject, [target[0], target[1], [*target[2], key.key_id]])

    def retire(self, record: Record, retired: list, is_admin: bool) -> None:
        """Revoke keys, or declare one compromised.

        Raises:
            Fault: A rule says no.
        """
        said, after = record.said, record.index + 1
        if said["action"] == "compromise":
            if not self.bindings[retired[0]].first <= said["from_index"] <= record.index:
                raise Fault("members.bad-index")
            if not is_admin and retired[0] == record.key_id:
                raise Fault("members.own-word")
            self.end(retired, said["from_index"], "compromised")
            return
        if not any(self.bindings[each].covers(after) for each in retired):
            raise Fault("members.key-revoked: no named key still speaks")
        left = [key for admin in self.admins for key in self.members[admin][2] if key not in retired]
        if not any(self.bindings[key].covers(after) for key in left):
            raise Fault("members.last-admin")
        self.end(retired, after, "revoked")

    def end(self, keys: list, end: int, reason: str) -> None:
        """End keys at an index; what ended earlier stays as it was."""
        for key in keys:
            binding = self.bindings[key]
            if binding.end is None or binding.end > end:
                binding.end, binding.reason = end, reason
                self.bind(binding)

    def bind(self, binding: Binding) -> None:
        """Write a key's binding."""
        self.bindings[binding.key.key_id] = binding
        value = {"first": binding.first, "key": b64u(binding.key.raw), "member": binding.member}
        if binding.end is not None:
            value.update(end=binding.end, reason=binding.reason)
        self.put(b"key/" + binding.key.key_id, canonical(value).encode())

    def put_member(self, member: str, value: list) -> None:
        """Write a member."""
        self.members[member] = value
        keys = [b64u(key) for key in value[2]]
        text = canonical({"admin": value[0], "keys": keys, "since": value[1]})
        self.put(b"member/" + member.encode(), text.encode())

    def put_admins(self, added: list) -> None:
        """Write that there are more admins."""
        for member in added:
            self.put(b"admin/%d" % len(self.admins), member.encode())
            self.admins.append(member)
        self.put(b"admins", b"%d" % len(self.admins))

    def put(self, key: bytes, value: bytes) -> None:
        """Write to the state."""
        if len(value) > 1024:
            raise Fault("a value of the state has at most 1,024 bytes")
        self.state.put(MEMBERS, key, value)

    def described(self) -> list:
        """All members and their keys, as the list of keys in an archive has them."""
        return [
            {
                "admin": self.members[member][0],
                "keys": [self.bindings[key].described() for key in self.members[member][2]],
                "member": member,
                "since": self.members[member][1],
            }
            for member in sorted(self.members)
        ]
