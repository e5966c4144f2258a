"""Who may ask: anyone where the ledger is public, members where it is private, members for everything that is kept.

A member shows who it is with a signed request; see `lichen.net.signed_request`. Which key speaks for which member is asked of
the ledger's state, now: a key that was revoked a moment ago reads nothing any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from lichen.contracts.members import KeyBinding, key_binding
from lichen.errors import LichenError
from lichen.ledger.ports import LOG_MEMBER
from lichen.net.server.limits import header
from lichen.net.server.problem import Problem
from lichen.net.signed_request import LEDGER_HEADER, WINDOW_SECONDS, NonceMemory, SignedRequest

if TYPE_CHECKING:
    from starlette.types import Scope

    from lichen.ledger.ledger import Ledger

__all__ = ["Access", "target_of"]

_CHALLENGE = 'Lichen-Signature realm="%s"'
_KNOWN_KEYS_MAX = 10_000


class Access:
    """Decides who may ask what.

    Args:
        reader: The ledger, for reading.
        clock: Seconds since 1970.
    """

    def __init__(self, reader: Ledger, clock: Callable[[], float]) -> None:
        self._reader = reader
        self._clock = clock
        self._memory = NonceMemory(clock)
        self._lock = threading.Lock()
        self._known: set[bytes] = set()
        self.is_private = reader.genesis.access != "public"

    def require_reader(self, scope: Scope) -> None:
        """Let a request read.

        Raises:
            Problem: The ledger is private and the request is not a member's.
        """
        if self.is_private:
            self.require_member(scope)

    def require_member(self, scope: Scope) -> KeyBinding:
        """Let a request through that a member signed; it counts once.

        Returns:
            Whose key signed it.

        Raises:
            Problem: Not signed, not by a member, too old, or seen before.
        """
        given = [header(scope, name) for name in (b"signature-input", b"signature", b"lichen-ledger")]
        if given[0] is None or given[1] is None or given[2] is None:
            raise self._unauthorised(
                "unsigned",
                "this is for members of the ledger: sign the request with a member's key",
            )
        said_input, said_signature, ledger_id = (
            value.decode("latin-1") for value in given if value is not None
        )
        try:
            request = SignedRequest.parse(said_input, said_signature)
        except LichenError as error:
            raise self._unauthorised("malformed-signature", error.message, remedy=error.remedy) from error
        if ledger_id != self._reader.id:
            raise self._unauthorised(
                "wrong-ledger", f"{LEDGER_HEADER} names another ledger; this is {self._reader.id}"
            )
        if not self._memory.is_timely(request.created):
            now = int(self._clock())
            raise self._unauthorised(
                "untimely",
                f"the request was signed at {request.created}, here it is {now}; {WINDOW_SECONDS} s either way count,"
                " and nothing from before this server started",
                extra={"server_time_unix_seconds": now},
            )
        binding = self._binding(request.key_id)
        try:
            request.verify(binding.key, self._reader.id, scope["method"], target_of(scope))
        except LichenError as error:
            raise self._unauthorised("bad-signature", error.message, remedy=error.remedy) from error
        self._take(request)
        return binding

    def knows(self, key_id: bytes) -> bool:
        """Say whether a key was ever a member's; remembered, so that usually nothing is looked up."""
        if key_id in self._known:
            return True
        binding = key_binding(self._reader.state_get, key_id)
        if binding is None or binding.member == LOG_MEMBER:
            return False
        if len(self._known) < _KNOWN_KEYS_MAX:
            self._known.add(key_id)
        return True

    def is_known_without_asking(self, key_id: bytes) -> bool:
        """Say whether `knows` would answer yes at once."""
        return key_id in self._known

    def _binding(self, key_id: bytes) -> KeyBinding:
        """Find the member whose key may be used now.

        Raises:
            Problem: Nobody's, or its time is over.
        """
        binding = key_binding(self._reader.state_get, key_id)
        if binding is None or binding.member == LOG_MEMBER:
            raise Problem(
                403,
                "not-a-member",
                f"key {key_id.hex()} belongs to no member of this ledger",
                remedy="ask an admin to admit it: `lichen key admit`",
            )
        if not binding.covers(self._reader.size):
            raise Problem(
                403,
                "key-ended",
                f"key {key_id.hex()} of {binding.member!r} was {binding.reason or 'ended'}",
                remedy="sign with a key that is still valid",
            )
        return binding

    def _take(self, request: SignedRequest) -> None:
        try:
            with self._lock:
                is_new = self._memory.take(request)
        except OverflowError:
            raise Problem.busy("too many signed requests lately", seconds=WINDOW_SECONDS) from None
        if not is_new:
            raise self._unauthorised(
                "replayed", "this request was answered before; sign a new one with a new nonce"
            )

    def _unauthorised(
        self, code: str, detail: str, *, remedy: str = "", extra: dict[str, object] | None = None
    ) -> Problem:
        return Problem(
            401,
            code,
            detail,
            remedy=remedy,
            headers={"WWW-Authenticate": _CHALLENGE % self._reader.id},
            extra=extra,
        )


def target_of(scope: Scope) -> str:
    """Path and query of a request as they were sent."""
    raw = scope.get("raw_path") or scope["path"].encode("utf-8")
    path = bytes(raw).partition(b"?")[0]
    query = scope.get("query_string", b"")
    text: str = (path + (b"?" + query if query else b"")).decode("utf-8", "surrogateescape")
    return text
