"""The manifest: everything the result of a run depended on, and what came out.

The manifest is an artefact (canonical JSON, sealed with the group key in a private ledger); the run's entry names it by CID. From its
sections follow the five *parts* that stand in the entry, and from the parts the fingerprints: ``exact`` over all
five, ``same-work`` over all but the seed. Nothing in a fingerprint is believed: the contract derives both from the parts.

Names are manifest names (see ``project``), digests are SHA-256 as unpadded base64url text.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lichen.crypto.hashes import keyed_digest
from lichen.encoding.base import b64u
from lichen.encoding.canonical import canonical_json
from lichen.errors import EncodingError
from lichen.runs.work.file_table import FileTable

__all__ = ["MANIFEST_VERSION", "Manifest", "Output", "command_key", "family_key"]

MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Output:
    """A file a run made.

    Args:
        name: Manifest name of its path.
        sha256: Digest of its bytes, 32 bytes.
        cid: CID text under which the store holds it.
        size_bytes: Size.
        mode: Permission bits, as ``stat.S_IMODE`` gives them.
    """

    name: str
    sha256: bytes
    cid: str
    size_bytes: int
    mode: int

    def to_json(self) -> dict[str, Any]:
        """Return the form it has in a manifest."""
        return {
            "name": self.name, "sha256": b64u(self.sha256), "cid": self.cid, "size": self.size_bytes, "mode": self.mode
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Output:
        """Read the form it has in a manifest.

        Raises:
            EncodingError: A field is missing or not of its type.
        """
        from lichen.encoding.base import b64u_decode

        try:
            digest = b64u_decode(value["sha256"])
            fields = (str(value["name"]), digest, str(value["cid"]), int(value["size"]), int(value["mode"]))
        except (KeyError, TypeError, ValueError) as error:
            raise EncodingError(f"an output in a manifest lacks a field: {error}") from error
        return cls(*fields)


@dataclass(frozen=True)
class Manifest:
    """What a run depended on and what it made.

    Args:
        command: Canonical command line; seed values are cut out.
        cwd: Working directory as a manifest name.
        family: Script and kind of interpreter.
        seeds: Values of what is only a seed.
        parameters: Arguments by name, for people; already inside ``command``.
        code: Digest by name of every project source the run imported or executed.
        data: Digest by name of every other file read; ``{stdin}`` for piped input.
        absent: Names looked for and not found.
        present: Kind by name of what was looked at but not read: ``directory``, ``other``, a file's size in bytes, or
            ``file`` (one that the run replaced), or ``link`` and the target of a symbolic link that was read or leads to an
            input; followed by permission bits and modification time where the run looked at those.
        listings: Digest by name of directory listings read.
        imports: Top-level module names the run asked for, found or not.
        modules: By directory, which of ``imports`` could be found in it (comma separated): a new file there could stand in
            a module's place.
        variables: Environment variables that decided something, with their values; None means unset.
        environment: Interpreter, architecture and drivers.
        distributions: Versions of imported distributions.
        executables: Digest by name of programs run beside the interpreter.
        outputs: Files made.
        directories: Directories made that stood at the end.
        ignored: What the run touched and was told to ignore, by name; of very many the digest of the rules. Another request may
            pass over it only where today's rules do.
        declared_outputs: Names the user called outputs.
        detail: CID text of the deletable detail artefact, or None.
    """

    command: tuple[str, ...]
    cwd: str
    family: tuple[str, ...]
    seeds: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    data: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[str, ...] = ()
    present: Mapping[str, str] = field(default_factory=dict)
    listings: Mapping[str, str] = field(default_factory=dict)
    imports: tuple[str, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str | None] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    distributions: Mapping[str, str] = field(default_factory=dict)
    executables: Mapping[str, str] = field(default_factory=dict)
    outputs: tuple[Output, ...] = ()
    directories: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    declared_outputs: tuple[str, ...] = ()
    detail: str | None = None

    def section(self, part: str) -> dict[str, Any]:
        """Return the content one part of the fingerprint is computed from.

        Args:
            part: ``command``, ``code``, ``data``, ``rest`` or ``seed``.
        """
        if part == "command":
            return {"command": list(self.command), "cwd": self.cwd}
        if part == "code":
            return dict(self.code)
        if part == "data":
            return dict(self.data)
        if part == "seed":
            return dict(self.seeds)
        return {
            "absent": list(self.absent), "present": dict(self.present), "listings": dict(self.listings),
            "modules": dict(self.modules), "variables": dict(self.variables), "environment": dict(self.environment),
            "distributions": dict(self.distributions), "executables": dict(self.executables),
        }  # fmt: skip

    @cached_property
    def _written(self) -> dict[str, bytes]:
        """Canonical JSON of large sections, written once: parts and artefact hold the same bytes."""
        return {}

    def _canonical(self, name: str) -> bytes:
        if name not in self._written:
            self._written[name] = _table_bytes(getattr(self, name))
        return self._written[name]

    def sharing(self, other: Manifest) -> Manifest:
        """Return this manifest; what it has in common with another one is not written in canonical form again."""
        for name in _LARGE_SECTIONS:
            if name in other._written and getattr(self, name) == getattr(other, name):
                self._written[name] = other._written[name]
        return self

    def parts(self, group_key: bytes | None) -> dict[str, str]:
        """Compute the parts of the fingerprint: five, or four when nothing is a seed.

        Args:
            group_key: HMAC key of a private ledger; None in a public one.

        Returns:
            Part name to base64url digest.
        """
        found = self._parts.get(group_key)
        if found is None:
            found = self._parts[group_key] = {
                part: b64u(keyed_digest(group_key, f"lichen part {part} v1", self._section_bytes(part)))
                for part in ("command", "code", "data", "rest", "seed")
                if part != "seed" or self.seeds
            }
        return dict(found)

    @cached_property
    def _parts(self) -> dict[bytes | None, dict[str, str]]:
        return {}

    def _section_bytes(self, part: str) -> bytes:
        return self._canonical(part) if part in _LARGE_SECTIONS else canonical_json(self.section(part))

    def made(self) -> bytes:
        """Return a digest of the names and contents of the outputs, 32 bytes, for caches of this machine."""
        return hashlib.sha256(
            canonical_json([[output.name, b64u(output.sha256)] for output in self.outputs])
        ).digest()

    def shape(self) -> bytes:
        """Return a digest of what has to be looked at now to recompute the parts: names without their values.

        It stands in caches of this machine only, never in a record.
        """
        sections = (
            self.code, self.data, self.absent, self.present, self.listings, self.modules, self.imports, self.variables,
            self.environment, self.distributions, self.executables, [output.name for output in self.outputs],
            self.directories, *(names for names in (self.ignored, self.declared_outputs) if names),
        )  # fmt: skip
        whole = hashlib.sha256()
        for section in sections:
            text = _names_text(section)
            whole.update(b"%d %d\0" % (len(section), len(text)))
            whole.update(text)
        return whole.digest()

    def to_bytes(self) -> bytes:
        """Return the canonical JSON of the artefact."""
        value = {
            "manifest": MANIFEST_VERSION, "command": list(self.command), "cwd": self.cwd, "family": list(self.family),
            "seeds": dict(self.seeds), "parameters": dict(self.parameters), **self.section("rest"),
            "imports": list(self.imports), "directories": list(self.directories),
            "outputs": [output.to_json() for output in self.outputs], "detail": self.detail,
        }  # fmt: skip
        value |= {name: list(getattr(self, name)) for name in _OPTIONAL_SECTIONS if getattr(self, name)}
        members = {name: canonical_json(item) for name, item in value.items()}
        members |= {name: self._canonical(name) for name in _LARGE_SECTIONS}
        return (
            b"{"
            + b",".join([b'"%s":%s' % (name.encode("ascii"), members[name]) for name in sorted(members)])
            + b"}"
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read a manifest artefact.

        Raises:
            EncodingError: Not canonical JSON, another version, or a section of the wrong shape.
        """
        try:
            value = json.loads(str(data, "utf-8"))
        except (ValueError, RecursionError) as error:
            raise EncodingError(f"a manifest is not JSON: {str(error)[:200]}") from error
        if not isinstance(value, dict) or value.get("manifest") != MANIFEST_VERSION:
            raise EncodingError(
                f"not a manifest of version {MANIFEST_VERSION}", remedy="A newer Lichen may have written it."
            )
        sections: dict[str, Any] = {key: _strings(value, key) for key in _LIST_SECTIONS}
        sections |= {key: _strings(value, key) for key in _OPTIONAL_SECTIONS if key in value}
        sections |= {key: _mapping(value, key) for key in _MAP_SECTIONS}
        outputs = value.get("outputs")
        if not isinstance(outputs, list) or not isinstance(value.get("cwd"), str):
            raise EncodingError("a manifest lacks its outputs or working directory")
        detail = value.get("detail")
        manifest = cls(
            cwd=value["cwd"],
            outputs=tuple(Output.from_json(output) for output in outputs),
            detail=detail if isinstance(detail, str) else None,
            **sections,
        )
        if manifest.to_bytes() != data and canonical_json(value) != data:
            raise EncodingError("a manifest is not in canonical form")
        return manifest


_LARGE_SECTIONS = ("code", "data")
_LIST_SECTIONS = ("command", "family", "absent", "imports", "directories")
_OPTIONAL_SECTIONS = ("ignored", "declared_outputs")
_MAP_SECTIONS = (
    "seeds", "parameters", "code", "data", "present", "listings", "modules",
    "variables", "environment", "distributions", "executables",
)  # fmt: skip


def _names_text(section: Collection[str]) -> bytes:
    """Write names in order, a zero byte between them."""
    text = section.text() if isinstance(section, FileTable) else None
    return "\0".join(sorted(section)).encode("utf-8", "surrogatepass") if text is None else text.names


def _table_bytes(table: Mapping[str, str]) -> bytes:
    """Write a table of texts as canonical JSON; where no text needs an escape that is a matter of joining them."""
    text = table.text() if isinstance(table, FileTable) else None
    if text is not None:
        return text.members
    names = sorted(table)
    values = [table[name] for name in names]
    if not names or not (_needs_no_escape("".join(names)) and _needs_no_escape("".join(values))):
        return canonical_json(dict(table))
    return ('{"' + '","'.join(map('":"'.join, zip(names, values, strict=True))) + '"}').encode("ascii")


def _needs_no_escape(text: str) -> bool:
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _strings(value: Mapping[str, Any], key: str) -> tuple[str, ...]:
    found = value.get(key)
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise EncodingError(f"section {key!r} of a manifest is not a list of strings")
    return tuple(found)


def _mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    allowed = {str, type(None)} if key == "variables" else {str}
    if not isinstance(found, dict) or not allowed.issuperset(map(type, found.values())):
        raise EncodingError(f"section {key!r} of a manifest is not a table of strings")
    return found


def command_key(command: tuple[str, ...], cwd: str, group_key: bytes | None) -> bytes:
    """Return the first-level key, 32 bytes: what was asked, before anything is known of what it reads."""
    section = {"command": list(command), "cwd": cwd}
    return keyed_digest(group_key, "lichen part command v1", canonical_json(section))


def family_key(family: tuple[str, ...], group_key: bytes | None) -> bytes:
    """Return the key of all requests for one script, 16 bytes: it groups runs and identifies nothing."""
    return keyed_digest(group_key, "lichen family v1", canonical_json(list(family)))[:16]
