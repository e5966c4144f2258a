"""The contract ``registry``, version 1: the register of work, with fingerprints computed and never believed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

from lichen.archive.standalone.faults import Fault
from lichen.archive.standalone.members import Members
from lichen.archive.standalone.shapes import SHAPES, fits
from lichen.archive.standalone.texts import Record, canonical
from lichen.archive.standalone.trees import State

__all__ = ["KINDS", "Registry", "fingerprint"]

REGISTRY = "registry"
POWER_WATTS_MAX = 1e8
KINDS = tuple(SHAPES)


def fingerprint(parts: dict, level: str) -> bytes:
    """Fingerprint of a run from the digests of its parts, of class ``exact`` or ``same-work``."""
    kept = {name: digest for name, digest in parts.items() if level == "exact" or name != "seed"}
    label = b"lichen %s v1\x00" % level.encode()
    return hashlib.sha256(label + canonical(kept).encode()).digest()


def place(index: int) -> bytes:
    """An index as keys and values of the state have it."""
    return struct.pack(">Q", index)


class Registry:
    """Check records and write what they add to the state.

    Args:
        state: Where it is written.
        members: Whose keys are whose.
        record_at: Reads an earlier record; None for a seal or where there is none.
    """

    def __init__(self, state: State, members: Members, record_at: Callable) -> None:
        self.state = state
        self.members = members
        self.record_at = record_at

    def take(self, record: Record) -> None:
        """Check a record and write what it changes.

        Raises:
            Fault: A rule says no.
        """
        said = record.said
        if record.version != 1 or not fits(SHAPES[record.kind], said):
            raise Fault("registry.schema: not a %s record of version 1" % record.kind)
        if len(record.subjects) > 8:
            raise Fault("registry.schema: more than 8 subjects")
        for name, _ in record.subjects:
            if len(name) > 512 or name.startswith("/") or "\x00" in name or ".." in name.split("/"):
                raise Fault("registry.schema: subject %.80r is no relative path" % name)
        if "energy" in said:
            check_energy(said["energy"])
        getattr(self, "take_" + ("artefact" if record.kind in ("data", "model") else record.kind))(record)

    def take_run(self, record: Record) -> None:
        """A run: its fingerprints are counted."""
        said = record.said
        if said["reusable"] and said["status"] not in ("trained", "missed"):
            raise Fault("registry.schema: a run that %s is not reusable" % said["status"])
        if said["reusable"] == ("reason" in said):
            raise Fault("registry.schema: a reason stands exactly where a run is not reusable")
        if said.get("data_count", len(said["data"])) < len(said["data"]):
            raise Fault("registry.schema: data_count is less than what data lists")
        for level in ("exact", "same-work"):
            self.count(level, fingerprint(said["parts"], level), record.index)

    def take_artefact(self, record: Record) -> None:
        """Data or a model: each digest is counted."""
        said = record.said
        if "run" in said:
            self.named(said["run"], "run")
        elif "energy" in said and said["energy"]["method"] != "declared":
            raise Fault("registry.undeclared: measured energy without the run that measured it")
        if "base" in said:
            self.named(said["base"], "model", "data")
        for index in said.get("data", ()):
            self.named(index, "data")
        for digest in {digest for _, digest in record.subjects}:
            self.count("artefact", digest, record.index)

    def take_evaluation(self, record: Record) -> None:
        """An evaluation is counted for what it evaluates."""
        self.named(record.said["of"], "run", "model")
        for index in record.said.get("data", ()):
            self.named(index, "data")
        self.count("evaluated", place(record.said["of"]), record.index)

    def take_reuse(self, record: Record) -> None:
        """A reuse: credited once for a fingerprint and member."""
        said = record.said
        run = self.named(said["of"], "run")
        if not run.said["reusable"]:
            raise Fault("registry.not-reusable: run %d" % said["of"])
        if self.state.get(REGISTRY, b"withdrawn/" + place(said["of"])) is not None:
            raise Fault("registry.withdrawn: run %d" % said["of"])
        binding = self.members.bindings.get(run.key_id)
        if binding is None or binding.reason in ("revoked", "compromised"):
            raise Fault("registry.discredited: the key that signed run %d" % said["of"])
        level = said.get("level", "exact")
        digest = fingerprint(run.said["parts"], level)
        if any(name == level and other != digest for name, other in record.subjects):
            raise Fault("registry.wrong-fingerprint: not that of run %d" % said["of"])
        if said["avoided_joules"] > run.said["energy"]["joules"]:
            raise Fault("registry.implausible-energy: more avoided than run %d cost" % said["of"])
        if said["credit"]:
            key = b"credit/" + digest + said["member"].encode()
            if self.state.get(REGISTRY, key) is not None:
                raise Fault("registry.double-credit: run %d" % said["of"])
            self.state.put(REGISTRY, key, place(record.index))

    def take_flag(self, record: Record) -> None:
        """A flag is counted for what it flags."""
        if "error" not in record.said and "detail" not in record.said:
            raise Fault("registry.schema: a flag needs an error or a detail")
        self.named(record.said["of"], "model", "run", "data", "evaluation")
        self.count("flagged", place(record.said["of"]), record.index)

    def take_dispute(self, record: Record) -> None:
        """A dispute is counted for the work that it is about."""
        one, other = self.named(record.said["of"], "run"), self.named(record.said["against"], "run")
        digest = fingerprint(one.said["parts"], "exact")
        if one.index == other.index or digest != fingerprint(other.said["parts"], "exact"):
            raise Fault("registry.no-dispute: not two records of one work")
        if one.subjects == other.subjects:
            raise Fault("registry.no-dispute: the same outputs")
        self.count("disputed", digest, record.index)

    def take_withdraw(self, record: Record) -> None:
        """A withdrawal stands under the entry that is withdrawn."""
        key = b"withdrawn/" + place(record.said["of"])
        if self.named(record.said["of"], *set(KINDS) - {"withdraw"}).said["member"] != record.said["member"]:
            raise Fault("registry.withdraw-not-author: entry %d" % record.said["of"])
        if self.state.get(REGISTRY, key) is not None:
            raise Fault("registry.already-withdrawn: entry %d" % record.said["of"])
        self.state.put(REGISTRY, key, place(record.index))

    def named(self, index: int, *kinds: str) -> Record:
        """The earlier record that another names.

        Raises:
            Fault: There is none, or of another kind.
        """
        found = self.record_at(index)
        if found is None or found.kind not in kinds:
            raise Fault("registry.unknown-reference: entry %d is no %s" % (index, " or ".join(sorted(kinds))))
        return found

    def count(self, family: str, name: bytes, index: int) -> None:
        """Count one more under a key, and note that it is the last."""
        key = family.encode() + b"/" + name
        value = self.state.get(REGISTRY, key)
        count = 0 if value is None else struct.unpack(">IQ", value)[0]
        self.state.put(REGISTRY, key, struct.pack(">IQ", count + 1, index))


def check_energy(energy: dict) -> None:
    """Check that joules are possible and parts add up.

    Raises:
        Fault: They are not, or do not.
    """
    joules = energy["joules"]
    if joules > POWER_WATTS_MAX * energy["seconds"] and energy["method"] != "declared":
        raise Fault("registry.implausible-energy: more power than anything draws")
    if "parts" in energy:
        total = sum(part[0] for part in energy["parts"].values())
        if abs(total - joules) > 1e-3 * max(joules, total) + 1e-9:
            raise Fault("registry.implausible-energy: the parts do not add up")
