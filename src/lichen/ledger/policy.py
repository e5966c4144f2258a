"""Whose word makes a checkpoint valid: logs, witnesses, and a quorum over them.

::

    log <vkey> [<url>]
    witness <name> <vkey> [<url>]
    group <name> all|any|<k> <name>...
    quorum <name>|none

Rules upheld:

* The file is octets: names are compared as octets, and nothing here knows Unicode but the names inside keys.
* A name is defined before it is used, used by at most one group, and never ``none``; so groups are trees, and each
  witness counts in one way only.
* Every line that is not one of these is refused with its number; so is an end in the middle of a line.

Source: C2SP tlog-policy. Differs: a file has at most 1,024 logs, witnesses and groups each, a threshold has no leading
zeros, and keys are Ed25519 for logs (type 0x01), Ed25519 or ML-DSA-44 for witnesses (0x04, 0x06); another is refused by its line.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from lichen.crypto.note import AHEAD_SECONDS_MAX, COSIGNATURE_TYPES, NoteKey, SignatureType, SignedNote
from lichen.errors import EncodingError, VerificationError

__all__ = ["Cosigner", "Group", "Log", "Policy", "Quorum", "Witness", "cosignature_times", "parse_policy"]

POLICY_BYTES_MAX = 1_048_576
COUNT_MAX = 1_024  # of logs, of witnesses and of groups; the specification asks for 32 at least
NONE = b"none"
_BAD_OCTET = re.compile(rb"[^\t\n\x20-\x7e\x80-\xff]")
_THRESHOLD = re.compile(rb"[1-9][0-9]{0,5}")
_KEYWORDS = ("log", "witness", "group", "quorum")


@dataclass(frozen=True, slots=True)
class Log:
    """A log whose checkpoints the policy accepts.

    Attributes:
        key: Its key; the key's name is the origin.
        url: Where to reach it, or None.
    """

    key: NoteKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Witness:
    """A witness the policy knows.

    Attributes:
        name: What groups call it; means nothing outside the policy.
        key: Key of its cosignatures.
        url: Its submission prefix, or None.
    """

    name: bytes
    key: NoteKey
    url: str | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Several witnesses or groups of which enough must have cosigned.

    Attributes:
        name: What later lines call it.
        threshold: How many members are enough; 1 up to their count.
        members: Names, each defined earlier and in no other group.
    """

    name: bytes
    threshold: int
    members: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness that cosigned a checkpoint.

    Attributes:
        name: Its name in the policy, as text.
        key: Its key.
        time_unix_seconds: When it says it did.
    """

    name: str
    key: NoteKey
    time_unix_seconds: int

    @property
    def time_text(self) -> str:
        """The time in words, in UTC; a number of seconds where no calendar reaches."""
        try:
            time = datetime.datetime.fromtimestamp(self.time_unix_seconds, datetime.UTC)
        except (OverflowError, ValueError, OSError):
            return f"{self.time_unix_seconds} s after 1970"
        return time.strftime("%Y-%m-%d %H:%M:%S UTC")


@dataclass(frozen=True, slots=True)
class Quorum:
    """What a policy says of the cosignatures on one checkpoint.

    Attributes:
        cosigners: Witnesses of the policy whose cosignatures hold, in the policy's order.
        missing: Names of the others, as text.
        is_reached: Whether those that cosigned are enough.
        ahead: Those of the missing whose cosignature holds, but says to be from more than a day ahead of the reader's clock.
    """

    cosigners: tuple[Cosigner, ...]
    missing: tuple[str, ...]
    is_reached: bool
    ahead: tuple[Cosigner, ...] = ()

    def why_missing(self) -> str:
        """Tell who is missing, and of whom a cosignature was not counted."""
        early = {each.name: each for each in self.ahead}
        return ", ".join(
            f"{name} (its cosignature says {early[name].time_text}, more than a day ahead of this clock)"
            if name in early
            else name
            for name in self.missing
        )


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that was read.

    Attributes:
        logs: Accepted logs; none when they are known otherwise.
        witnesses: Known witnesses.
        groups: Groups, each after its members.
        quorum: Name of the witness or group that must have cosigned; None for ``quorum none``.
    """

    logs: tuple[Log, ...]
    witnesses: tuple[Witness, ...]
    groups: tuple[Group, ...]
    quorum: bytes | None

    def is_quorum(self, names: Collection[bytes]) -> bool:
        """Say whether these witnesses together satisfy the quorum.

        Args:
            names: Names of witnesses; others are ignored.
        """
        if self.quorum is None:
            return True
        satisfied = {witness.name for witness in self.witnesses if witness.name in names}
        for group in self.groups:  # members always come first, so one pass is enough
            if sum(member in satisfied for member in group.members) >= group.threshold:
                satisfied.add(group.name)
        return self.quorum in satisfied

    def judge(self, note: SignedNote, now_unix_seconds: int | None = None) -> Quorum:
        """Check the cosignatures on a checkpoint and say whether they are enough.

        Args:
            note: The checkpoint. The log's own signature is not looked at here.
            now_unix_seconds: The reader's clock. A cosignature from more than a day ahead of it is not counted: it would look fresh
                for as long as it is ahead. None counts cosignatures of any time.

        Raises:
            VerificationError: A line names a witness of this policy, and its cosignature does not hold.
        """
        latest = math.inf if now_unix_seconds is None else now_unix_seconds + AHEAD_SECONDS_MAX
        said = {witness.name: cosignature_times(note, witness.key) for witness in self.witnesses}
        times = {
            name: max((each for each in found if each <= latest), default=None)
            for name, found in said.items()
        }
        signed = {name for name, counted in times.items() if counted is not None}
        return Quorum(
            cosigners=tuple(
                Cosigner(shown(witness.name), witness.key, counted)
                for witness in self.witnesses
                if (counted := times[witness.name]) is not None
            ),
            missing=tuple(shown(name) for name, counted in times.items() if counted is None),
            is_reached=self.is_quorum(signed),
            ahead=tuple(
                Cosigner(shown(witness.name), witness.key, max(said[witness.name]))
                for witness in self.witnesses
                if said[witness.name] and times[witness.name] is None
            ),
        )

    def log_of(self, origin: str) -> Log | None:
        """Find the log whose key is named after an origin; None when the policy lists none."""
        return next((log for log in self.logs if log.key.name == origin), None)


def shown(name: bytes) -> str:
    """Return a name of the policy as text; octets that are not UTF-8 become visible."""
    return name.decode("utf-8", "backslashreplace")


def parse_policy(data: bytes) -> Policy:
    r"""Read a policy file.

    Args:
        data: The file's octets, each line ended by a newline.

    Returns:
        The policy; whether its quorums intersect is another question, see `lichen.ledger.quorums`.

    Raises:
        EncodingError: Not a policy; the message names the line.
    """
    if len(data) > POLICY_BYTES_MAX:
        raise EncodingError(f"a policy has at most {POLICY_BYTES_MAX:,} bytes, this has {len(data):,}")
    *lines, rest = data.split(b"\n")
    if rest:
        raise EncodingError(
            f"line {len(lines) + 1} of the policy is not ended by a newline; the file may have been cut",
            remedy="Compare it with its source; end the last line with a newline.",
        )
    reader = _Reader()
    for number, line in enumerate(lines, start=1):
        try:
            reader.take(line)
        except EncodingError as error:
            raise EncodingError(
                f"line {number} of the policy: {error.message}", remedy=error.remedy
            ) from error
    return reader.finish()


def cosignature_times(note: SignedNote, key: NoteKey) -> list[int]:
    """Return the times at which a witness cosigned, in seconds since 1970; none when it did not.

    Args:
        note: The checkpoint.
        key: The witness's.

    Raises:
        VerificationError: A line names the witness, and does not hold or carries no time.
    """
    lines = [line for line in note.signatures if (line.name, line.key_hash) == (key.name, key.hash)]
    if not lines:
        return []
    note.verify([key])
    times = [int.from_bytes(line.signature[:8], "big") for line in lines]
    if 0 in times:
        raise VerificationError(f"the cosignature of {key.name} carries no time")
    return times


class _Reader:
    """Takes the lines of a policy one after the other."""

    def __init__(self) -> None:
        self._logs: list[Log] = []
        self._witnesses: list[Witness] = []
        self._groups: list[Group] = []
        self._defined: set[bytes] = set()
        self._used: set[bytes] = set()
        self._quorum: bytes | None = None

    def take(self, line: bytes) -> None:
        """Read one line, without its newline."""
        if bad := _BAD_OCTET.search(line):
            remedy = "Save it with Unix line ends." if bad[0] == b"\r" else "Remove it."
            raise EncodingError(f"octet 0x{bad[0][0]:02x} may not stand in a policy", remedy=remedy)
        stripped = line.strip(b" \t")
        if not stripped or stripped.startswith(b"#"):
            return
        keyword, *items = re.split(rb"[ \t]+", stripped)
        take = {
            b"log": self._log,
            b"witness": self._witness,
            b"group": self._group,
            b"quorum": self._take_quorum,
        }
        if keyword not in take:
            raise EncodingError(f"{shown(keyword)[:40]!r} is none of {', '.join(_KEYWORDS)}")
        take[keyword](items)

    def finish(self) -> Policy:
        """Return the policy after its last line."""
        if self._quorum is None:
            raise EncodingError("the policy has no quorum line", remedy="Add one, such as: quorum none")
        quorum = None if self._quorum == NONE else self._quorum
        return Policy(tuple(self._logs), tuple(self._witnesses), tuple(self._groups), quorum)

    def _log(self, items: Sequence[bytes]) -> None:
        if len(items) not in (1, 2):
            raise EncodingError("a log line is: log <vkey> [<url>]")
        key = _key(items[0], frozenset({SignatureType.ED25519}), "a log")
        _check_new(key, {log.key.key.raw: log.key.name for log in self._logs}, "log")
        _check_count(self._logs, "logs")
        self._logs.append(Log(key, _url(items[1:])))

    def _witness(self, items: Sequence[bytes]) -> None:
        if len(items) not in (2, 3):
            raise EncodingError("a witness line is: witness <name> <vkey> [<url>]")
        key = _key(items[1], COSIGNATURE_TYPES, "a witness")
        _check_new(key, {each.key.key.raw: shown(each.name) for each in self._witnesses}, "witness")
        _check_count(self._witnesses, "witnesses")
        self._define(items[0])
        self._witnesses.append(Witness(items[0], key, _url(items[2:])))

    def _group(self, items: Sequence[bytes]) -> None:
        if len(items) < 3:
            raise EncodingError(
                "a group line is: group <name> all|any|<k> <name>..., with one member at least"
            )
        name, rule, *members = items
        threshold = {b"all": len(members), b"any": 1}.get(rule)
        if threshold is None:
            if not _THRESHOLD.fullmatch(rule):
                raise EncodingError(f"{shown(rule)[:40]!r} is no threshold: all, any, or a number from 1")
            threshold = int(rule)
        if threshold > len(members):
            raise EncodingError(f"the group asks for {threshold} of {len(members)} members")
        for position, member in enumerate(members):
            self._check_defined(member)
            if member in self._used or member in members[:position]:
                raise EncodingError(f"{shown(member)[:80]!r} is a member of a group already")
        _check_count(self._groups, "groups")
        self._define(name)
        self._used.update(members)
        self._groups.append(Group(name, threshold, tuple(members)))

    def _take_quorum(self, items: Sequence[bytes]) -> None:
        if len(items) != 1:
            raise EncodingError("a quorum line is: quorum <name>, or: quorum none")
        if self._quorum is not None:
            raise EncodingError("a policy has one quorum line, this is the second")
        if items[0] != NONE:
            self._check_defined(items[0])
        self._quorum = items[0]

    def _define(self, name: bytes) -> None:
        if name == NONE:
            raise EncodingError("'none' cannot be defined: it means no witnesses")
        if name in self._defined:
            raise EncodingError(f"{shown(name)[:80]!r} is defined already")
        self._defined.add(name)

    def _check_defined(self, name: bytes) -> None:
        if name not in self._defined:
            raise EncodingError(f"{shown(name)[:80]!r} is not defined on a line above")


def _key(text: bytes, wanted: Collection[SignatureType], whose: str) -> NoteKey:
    try:
        key = NoteKey.from_vkey(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise EncodingError("the name in the key is not UTF-8") from error
    if key.type not in wanted:
        types = " or ".join(f"0x{each:02x}" for each in sorted(wanted))
        raise EncodingError(f"the key of {whose} has signature type {types}, this has 0x{key.type:02x}")
    return key


def _check_new(key: NoteKey, known: Mapping[bytes, str], what: str) -> None:
    if key.key.raw in known:
        raise EncodingError(f"this {what} has the same public key as {known[key.key.raw][:80]!r} above")


def _check_count(items: Sequence[object], what: str) -> None:
    if len(items) >= COUNT_MAX:
        raise EncodingError(f"a policy has at most {COUNT_MAX:,} {what}")


def _url(items: Sequence[bytes]) -> str | None:
    return items[0].decode("utf-8", "surrogateescape") if items else None
