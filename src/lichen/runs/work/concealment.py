"""Keep secrets out of what is stored, without taking different work for equal.

What looks like a secret on a command line or in a variable is masked before it reaches a manifest. Equal work must still be
told from different work: in a private ledger the mask is followed by a digest under the group's key, which says nothing to
whoever lacks that key. In a public ledger there is no such key and a digest of a weak password could be guessed, so
nothing follows the mask, and the run says that it cannot be recognised again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from lichen.crypto.hashes import keyed_digest
from lichen.encoding.base import b64u
from lichen.runs.work.secrets import mask_secrets, mask_variables

__all__ = ["Concealer"]

_DIGEST_LENGTH = 16  # characters of base64url (= 96 bits)


@dataclass
class Concealer:
    """Masks secrets for one request.

    Attributes:
        group_key: Of a private ledger; None in a public one.
        hidden: What was masked without a digest, in words.
    """

    group_key: bytes | None = None
    hidden: set[str] = field(default_factory=set)

    def words(self, argv: Sequence[str]) -> tuple[str, ...]:
        """Return a command line with its secrets concealed, word by word."""
        masked, found = mask_secrets(argv)
        told = iter(found)
        return tuple(
            word if word == shown else self._conceal(word, shown, str(next(told, "a word of the command")))
            for word, shown in zip(argv, masked, strict=True)
        )

    def values(self, table: Mapping[str, str]) -> dict[str, str]:
        """Return named values with the secrets among them concealed."""
        masked, _ = mask_variables(table)
        return {
            name: value if value == masked[name] else self._conceal(value, masked[name], name)
            for name, value in table.items()
        }

    def _conceal(self, value: str, masked: str, what: str) -> str:
        if self.group_key is None:
            self.hidden.add(what)
            return masked
        digest = keyed_digest(self.group_key, "lichen secret v1", value.encode("utf-8", "surrogateescape"))
        return f"{masked}#{b64u(digest)[:_DIGEST_LENGTH]}"
