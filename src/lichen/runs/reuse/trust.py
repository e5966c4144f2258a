"""Whose results are taken: one's own keys, and the authors that the settings name, each within one ledger.

A member's name is given by the ledger it stands in, and whoever keeps a ledger can give any name to any key. So a name counts
only together with the ledger it was trusted in, and "own" means signed with a key that lies among one's own, never
"by somebody of the same name".

An author in ``reuse.trust`` is written in one of two ways::

    hospital-a@0f1e2d3c4b5a69788796a5b4c3d2e1f0     that member of the ledger whose id begins so
    did:key:z6Mk…                                   whoever signs with that key, in any ledger
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from lichen.errors import LichenError, UsageError

if TYPE_CHECKING:
    from lichen.crypto.keys import SigningKey

__all__ = ["LEDGER_DIGITS", "Trusted", "bound", "needs_ledger", "other_keys", "own_key_ids"]

LEDGER_DIGITS = 32
"""Of a ledger id that are written down: 128 bits, more than anyone can make a second ledger for."""
_BOUND = re.compile(r"(?P<member>.+)@(?P<ledger>[0-9a-f]{32,64})", re.DOTALL)
_KEY_PREFIX = "did:key:"


@dataclass(frozen=True)
class Trusted:
    """The authors whose results may be taken from one ledger.

    Args:
        members: Their ids in that ledger.
        key_ids: Keys trusted whoever's they are.
    """

    members: frozenset[str] = frozenset()
    key_ids: frozenset[bytes] = frozenset()

    @classmethod
    def in_ledger(cls, entries: Iterable[str], ledger_id: str) -> Self:
        """Read the entries of ``reuse.trust`` that hold in a ledger; names without a ledger hold in none.

        Args:
            entries: As the settings have them.
            ledger_id: Hexadecimal, 64 digits.

        Raises:
            UsageError: A key that is none.
        """
        members, key_ids = set(), set()
        for entry in entries:
            match = _BOUND.fullmatch(entry)
            if entry.startswith(_KEY_PREFIX):
                key_ids.add(_key_id(entry))
            elif match is not None and ledger_id.startswith(match["ledger"]):
                members.add(match["member"])
        return cls(frozenset(members), frozenset(key_ids))


def needs_ledger(entries: Iterable[str]) -> bool:
    """Say whether any of them is a bare name, which means somebody only within a ledger."""
    return not all(entry.startswith(_KEY_PREFIX) or _BOUND.fullmatch(entry) for entry in entries)


def bound(entries: Sequence[str], ledger_id: str | None) -> list[str]:
    """Write authors as ``reuse.trust`` holds them.

    Args:
        entries: Names of members, names with a ledger, or keys.
        ledger_id: Of the ledger that bare names stand in; None where no ledger is near.

    Raises:
        UsageError: A bare name and no ledger, or a key that is none.
    """
    written = []
    for entry in entries:
        if entry.startswith(_KEY_PREFIX):
            _key_id(entry)
            written.append(entry)
        elif _BOUND.fullmatch(entry):
            written.append(entry)
        elif ledger_id is None:
            raise UsageError(
                f"reuse.trust: {entry} of which ledger? A name means somebody else in each",
                remedy=f"Type it in a project with the ledger, add --ledger, or give the key: did:key:… "
                f"(`lichen key members` shows it), or {entry}@ and the first {LEDGER_DIGITS} digits of the ledger's id.",
            )
        else:
            written.append(f"{entry}@{ledger_id[:LEDGER_DIGITS]}")
    return list(dict.fromkeys(written))


def _key_id(text: str) -> bytes:
    from lichen.crypto.keys import PublicKey

    try:
        return PublicKey.from_did_key(text).key_id
    except LichenError as error:
        raise UsageError(
            f"reuse.trust: {text} is no public key: {error}", remedy="Copy it from `lichen key members`."
        ) from error


def other_keys(path: Path) -> list[tuple[Path, SigningKey]]:
    """Return the other keys of a member on this machine, with their files: one that waits to take over, then those rotated out.

    Args:
        path: File of the key in use; the others lie beside it under longer names. What cannot be read is left out.
    """
    from lichen.crypto.key_file import read_key

    found = []
    retired = sorted(path.parent.glob(f"{path.name}.*.retired"), key=_changed_ns, reverse=True)
    for candidate in (path.with_name(f"{path.name}.next"), *retired):
        try:
            found.append((candidate, read_key(candidate)))
        except LichenError:
            continue  # missing, or open to others: then it is nobody's own
    return found


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_ctime_ns
    except OSError:
        return 0


def own_key_ids(path: Path) -> frozenset[bytes]:
    """Return the ids of the acting member's keys on this machine: the one in use, those that waited and those rotated out.

    Args:
        path: File of the key in use; earlier and later ones lie beside it under longer names.
    """
    from lichen.crypto.key_file import read_key

    found = {key.public.key_id for _, key in other_keys(path)}
    with suppress(LichenError):
        found.add(read_key(path).public.key_id)
    return frozenset(found)
