"""Rules of a ``log-key`` record: who must agree before the log has a new key.

Rules upheld here:

* The old key consents and the new key accepts, each by a signature over both keys and the ledger's id.
* A majority of the admins whose keys speak at that index approves; the record's author, an admin, is one of them. Each
  admin counts once, with any of their keys.
* The new key is one that nobody ever had, and speaks from the entry after the record on; the old key speaks for nothing after it,
  and never comes back.

State, under the name of the members contract: ``b"log-keys"`` -> how many keys the log has had, missing while it is one;
``b"log-key/" + number`` -> a key and the first index it speaks for, numbered from 1, because the first stands in the genesis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NoReturn

from lichen.crypto.keys import PublicKey
from lichen.encoding.base import b64u, b64u_decode
from lichen.encoding.canonical import canonical_json, parse_canonical
from lichen.errors import EncodingError, Rejected, VerificationError
from lichen.ledger.ports import LOG_MEMBER, Record, StateReader, StateWrite
from lichen.ledger.succession import Succession, succession_message

if TYPE_CHECKING:
    from lichen.contracts.members import KeyBinding

__all__ = ["LOG_KEY_COUNT_MAX", "AdminOfKey", "check_log_key", "log_key_writes", "read_log_keys"]

NAME: Final = "members"
LOG_KEY_COUNT_MAX: Final = 64

AdminOfKey = Callable[[bytes], tuple[str, PublicKey] | None]
"""Looks up by key id which admin a key speaks for at this index, and the key; None when it speaks for none."""


def read_log_keys(state: StateReader) -> tuple[tuple[int, PublicKey], ...]:
    """Keys that took the place of the log's first one: the first index each speaks for, rising, and the key."""
    count = state.get(NAME, b"log-keys")
    found = []
    for number in range(1, int(count or b"1")):
        value = state.get(NAME, b"log-key/%d" % number)
        if value is not None:
            fields = parse_canonical(value)
            found.append((fields["first"], PublicKey(b64u_decode(fields["key"], 32))))
    return tuple(found)


def check_log_key(
    record: Record,
    state: StateReader,
    binding_of: Callable[[bytes], KeyBinding | None],
    admin_of: AdminOfKey,
    admin_count: int,
) -> None:
    """Check a record of kind ``log-key``.

    Args:
        record: The record.
        state: State before it.
        binding_of: Looks up whom a key speaks for, by key id.
        admin_of: Whose key an approval is by.
        admin_count: How many admins have a key that speaks.

    Raises:
        Rejected: A rule said no.
    """
    try:
        said = Succession.from_statement(record.statement)
    except EncodingError as error:
        _reject("schema", error.message)
    previous = binding_of(said.previous.key_id)
    if previous is None or previous.member != LOG_MEMBER or previous.end is not None:
        _reject(
            "log-key-previous", "the record names another key than the log has now as the one it replaces"
        )
    if binding_of(said.key.key_id) is not None:
        _reject(
            "duplicate-key",
            f"key {said.key.key_id.hex()} belongs to somebody already",
            "make a new key for the log",
        )
    if len(read_log_keys(state)) + 1 >= LOG_KEY_COUNT_MAX:
        _reject("too-many-keys", f"a log has at most {LOG_KEY_COUNT_MAX} keys in its life")
    ledger_id = b64u_decode(record.predicate["ledger"], 32).hex()
    try:
        said.verify(ledger_id)
    except VerificationError as error:
        _reject(
            "log-key-consent", error.message, "sign the succession anew with both keys: `lichen key succeed`"
        )
    approving = _approving(record, said, ledger_id, admin_of)
    if 2 * len(approving) <= admin_count:
        _reject(
            "log-key-majority",
            f"{len(approving)} of {admin_count} admins agree to the log's new key, which is no majority",
            "let more admins approve: `lichen key approve FILE`",
        )


def _approving(record: Record, said: Succession, ledger_id: str, admin_of: AdminOfKey) -> set[str]:
    """Names of the admins that agree; every approval must count.

    Raises:
        Rejected: The author is no admin; or an approval is by somebody else, twice by one, or does not hold.
    """
    author = admin_of(record.entry.key_id)
    if author is None:
        _reject("not-admin", f"{record.member!r} is no admin, and may not say that the log has a new key")
    approving = {author[0]}
    message = succession_message(ledger_id, said.previous, said.key)
    for approval in said.approvals:
        admin = admin_of(approval.key_id)
        if admin is None:
            _reject(
                "log-key-approval", f"key {approval.key_id.hex()} speaks for no admin, so it cannot approve"
            )
        if admin[0] in approving:
            _reject("log-key-approval", f"{admin[0]!r} approves twice")
        try:
            admin[1].verify(message, approval.signature)
        except VerificationError as error:
            raise Rejected(
                f"{NAME}.log-key-approval",
                f"the approval of {admin[0]!r} does not hold: it is for other keys, or changed",
            ) from error
        approving.add(admin[0])
    return approving


def log_key_writes(record: Record, state: StateReader) -> list[StateWrite]:
    """Say what an accepted ``log-key`` record changes, the bindings of the keys aside."""
    key = Succession.from_statement(record.statement).key
    number = len(read_log_keys(state)) + 1
    value = canonical_json({"first": record.place + 1, "key": b64u(key.raw)})
    return [
        StateWrite(NAME, b"log-key/%d" % number, value),
        StateWrite(NAME, b"log-keys", b"%d" % (number + 1)),
    ]


def _reject(rule: str, message: str, remedy: str = "") -> NoReturn:
    raise Rejected(f"{NAME}.{rule}", message, remedy=remedy)
