"""A record: what a member says, before it is signed.

It is an in-toto Statement v1 in canonical JSON::

    {"_type": "https://in-toto.io/Statement/v1",
     "predicate": {...},
     "predicateType": "urn:lichen:<kind>:v<version>",
     "subject": [{"digest": {"sha256": "<64 hex digits>"}, "name": "..."}]}

Rules upheld: exactly these four members; at least one subject; subjects carry a name and a SHA-256 and nothing else;
no two subjects share a name; the predicate is an object. What a predicate may hold is the business of contracts.

Source: in-toto attestation framework, Statement v1 and ResourceDescriptor v1. Differs: a subset, so that a record has
one encoding and the digests of its subjects one algorithm.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lichen.encoding.base import hex_decode
from lichen.encoding.canonical import canonical_form, parse_canonical
from lichen.errors import EncodingError

__all__ = ["STATEMENT_TYPE", "Statement", "Subject"]

STATEMENT_TYPE = "https://in-toto.io/Statement/v1"

_PREDICATE_TYPE = re.compile(r"urn:lichen:([a-z][a-z0-9-]{0,31}):v([1-9][0-9]{0,5})")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,31}")
_MEMBERS = {"_type", "predicate", "predicateType", "subject"}


@dataclass(frozen=True, slots=True)
class Subject:
    """Something a record is about, identified by its digest.

    Attributes:
        name: What the record calls it; not empty, unique within the record.
        sha256: SHA-256 of its bytes, 32 bytes.
    """

    name: str
    sha256: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise EncodingError("a subject needs a name that is not empty")
        if not isinstance(self.sha256, bytes) or len(self.sha256) != 32:
            raise EncodingError(f"subject {self.name!r} needs a SHA-256 of 32 bytes")


@dataclass(frozen=True, slots=True)
class Statement:
    """One record.

    Attributes:
        kind: What sort of fact it states, such as ``run``: a lower-case letter, then letters, digits and hyphens.
        subjects: What it is about; at least one.
        predicate: What it says, in values that JSON can hold.
        version: Version of the kind's predicate, from 1.
    """

    kind: str
    subjects: tuple[Subject, ...]
    predicate: Mapping[str, Any]
    version: int = 1
    _payload: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.kind, str) or not _KIND.fullmatch(self.kind):
            raise EncodingError(f"not the name of a kind of record: {self.kind!r}")
        if type(self.version) is not int or not 1 <= self.version <= 999_999:
            raise EncodingError(f"not a version of a predicate: {self.version!r}")
        if not self.subjects:
            raise EncodingError(f"a {self.kind} record needs at least one subject")
        if len({subject.name for subject in self.subjects}) != len(self.subjects):
            raise EncodingError(f"two subjects of a {self.kind} record share a name")
        if not isinstance(self.predicate, Mapping):
            raise EncodingError(f"the predicate of a {self.kind} record must be an object")

    @property
    def predicate_type(self) -> str:
        """The URI that names kind and version."""
        return f"urn:lichen:{self.kind}:v{self.version}"

    def to_bytes(self) -> bytes:
        """Write the payload that is signed: canonical JSON.

        Raises:
            EncodingError: The predicate holds a value JSON cannot hold.
        """
        return self._payload or self._form()[0]

    def as_read(self) -> Statement:
        """The statement that whoever reads the payload gets: lists for tuples, 1 for 1.0; it is written once.

        Its predicate is a copy, so nobody who built the statement can change what is signed any more.

        Raises:
            EncodingError: The predicate holds a value JSON cannot hold.
        """
        if self._payload is not None:
            return self
        payload, value = self._form()
        read = Statement(self.kind, self.subjects, value["predicate"], self.version)
        object.__setattr__(read, "_payload", payload)
        return read

    def _form(self) -> tuple[bytes, Any]:
        return canonical_form(
            {
                "_type": STATEMENT_TYPE,
                "predicate": self.predicate,
                "predicateType": self.predicate_type,
                "subject": [
                    {"digest": {"sha256": subject.sha256.hex()}, "name": subject.name}
                    for subject in self.subjects
                ],
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Statement:
        """Read a payload.

        Args:
            data: Canonical JSON as :meth:`to_bytes` writes it.

        Returns:
            The statement; ``from_bytes(data).to_bytes() == data``.

        Raises:
            EncodingError: Not canonical JSON, or not a Lichen statement.
        """
        return cls._of(parse_canonical(data), data)

    @classmethod
    def from_log(cls, data: bytes) -> Statement:
        """Read a payload that was found canonical before it was appended; what is not is not looked for again.

        Args:
            data: From an entry of the log.

        Raises:
            EncodingError: Not JSON, or not a Lichen statement.
        """
        try:
            value = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise EncodingError(f"not JSON: {str(error)[:200]}") from error
        return cls._of(value, data)

    @classmethod
    def _of(cls, value: Any, data: bytes) -> Statement:
        if not isinstance(value, dict) or value.keys() != _MEMBERS:
            raise EncodingError(
                "not a statement: it must have exactly _type, predicate, predicateType and subject"
            )
        if value["_type"] != STATEMENT_TYPE:
            raise EncodingError(f"not an in-toto Statement v1: _type is {value['_type']!r}")
        named = value["predicateType"]
        match = _PREDICATE_TYPE.fullmatch(named) if isinstance(named, str) else None
        if match is None:
            raise EncodingError(f"not a predicate type of Lichen: {named!r}")
        subjects = value["subject"]
        if not isinstance(subjects, list):
            raise EncodingError("the subject of a statement must be an array")
        read = cls(match[1], tuple(map(_subject, subjects)), value["predicate"], int(match[2]))
        object.__setattr__(read, "_payload", bytes(data))
        return read


def _subject(value: object) -> Subject:
    if not isinstance(value, dict) or value.keys() != {"digest", "name"}:
        raise EncodingError("a subject must have exactly a name and a digest")
    digest = value["digest"]
    if not isinstance(digest, dict) or digest.keys() != {"sha256"}:
        raise EncodingError("the digest of a subject must have exactly a sha256")
    return Subject(value["name"], hex_decode(digest["sha256"], 32))
