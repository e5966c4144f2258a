"""The register of work: data, runs, models, evaluations, reuses, flags, disputes and withdrawals.

Rules upheld here:

* Fingerprints are computed from the component digests in the entry, never read from it, so no record can pose as other
  work. Class ``exact`` covers all parts, class ``same-work`` all but the seed.
* A run writes two keys: how often work with its exact fingerprint, and with its same-work fingerprint, was recorded, and
  where last. Absence of a key therefore proves that such work was never recorded.
* Nothing refers to what is not there, or is of another kind.
* Joules must be possible: power has a bound, parts add up, and nobody avoids more than the earlier run cost.
* Avoided joules are credited once for a fingerprint and member, and only for a run that could be reused.
* Only its author withdraws a record; nothing is ever removed.

State, under the contract's name (numbers big-endian):

=============================== ==========================================================
``exact/`` + fingerprint        count (4 bytes) and last index (8 bytes) of such runs
``same-work/`` + fingerprint    the same for runs that differ at most in the seed
``artefact/`` + SHA-256         count and last index of data and models with this digest
``evaluated/`` + index          count and last index of evaluations of that entry
``flagged/`` + index            count and last index of flags against that entry
``disputed/`` + fingerprint     count and last index of disputes about that exact work
``withdrawn/`` + index          index (8 bytes) of the withdrawal of that entry
``credit/`` + fingerprint, member   index of the one reuse that was credited
=============================== ==========================================================
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn

from lichen.contracts.members import StateGet, is_key_in_force
from lichen.contracts.record_forms import FORMS, SUBJECT_COUNT_MAX
from lichen.crypto.hashes import keyed_digest
from lichen.encoding.canonical import canonical_json
from lichen.errors import Rejected
from lichen.ledger.ports import Record, StateReader, StateWrite

__all__ = [
    "Registry",
    "Tally",
    "exact_fingerprint",
    "fingerprints",
    "is_withdrawn",
    "same_work_fingerprint",
    "tally_of",
    "withdrawn_key",
]

NAME: Final = "registry"
POWER_WATTS_MAX: Final = (
    1e8  # more than any training has drawn; a slip of units shows, a large cluster does not
)
PARTS_TOLERANCE: Final = 1e-3
_EXACT: Final = "lichen exact v1"
_SAME_WORK: Final = "lichen same-work v1"
_TALLY: Final = struct.Struct(">IQ")
_INDEX: Final = struct.Struct(">Q")

Tally = tuple[int, int]
"""How many such records there are, and the index of the last."""


def exact_fingerprint(parts: Mapping[str, str]) -> bytes:
    """Compute the fingerprint of class ``exact`` of a run, 32 bytes.

    Args:
        parts: ``command``, ``code``, ``data``, ``rest`` and ``seed``, each 43 characters of base64url. In a private
            ledger these are keyed digests, so the fingerprint needs no key of its own.
    """
    return keyed_digest(None, _EXACT, _parts_json(parts))


def same_work_fingerprint(parts: Mapping[str, str]) -> bytes:
    """Compute the fingerprint of class ``same-work`` of a run, 32 bytes: that of all parts but ``seed``."""
    return keyed_digest(None, _SAME_WORK, _parts_json(_without_seed(parts)))


def fingerprints(parts: Mapping[str, str]) -> tuple[bytes, bytes]:
    """Both at once, `exact_fingerprint` and `same_work_fingerprint`: a run without a seed has one text for the two."""
    text = _parts_json(parts)
    exact = keyed_digest(None, _EXACT, text)
    if "seed" in parts:
        text = _parts_json(_without_seed(parts))
    return exact, keyed_digest(None, _SAME_WORK, text)


def _without_seed(parts: Mapping[str, str]) -> Mapping[str, str]:
    return {name: digest for name, digest in parts.items() if name != "seed"} if "seed" in parts else parts


def _parts_json(parts: Mapping[str, str]) -> bytes:
    """Canonical JSON of parts.

    Of text without a character that JSON escapes it is put together here, in a fifth of the time of a general writer.
    """
    text = '","'.join([f'{name}":"{parts[name]}' for name in sorted(parts)])
    if text.isascii() and text.isprintable() and "\\" not in text and text.count('"') == 4 * len(parts) - 2:
        return f'{{"{text}"}}'.encode()
    return canonical_json(dict(parts))


def tally_of(state_get: StateGet, family: str, name: bytes) -> Tally | None:
    """Read how often something was recorded, and where last.

    Args:
        state_get: Where to look.
        family: ``exact``, ``same-work``, ``artefact``, ``evaluated``, ``flagged`` or ``disputed``.
        name: A fingerprint or digest, 32 bytes, or an index as 8 bytes big-endian.

    Returns:
        The tally, or None when it never was.
    """
    value = state_get(NAME, family.encode() + b"/" + name)
    return None if value is None else _TALLY.unpack(value)


def withdrawn_key(index: int) -> bytes:
    """State key under which the withdrawal of an entry stands; its absence proves that the entry stands."""
    return b"withdrawn/" + _INDEX.pack(index)


def is_withdrawn(state_get: StateGet, index: int) -> bool:
    """True when the author of the entry at this index has withdrawn it."""
    return state_get(NAME, withdrawn_key(index)) is not None


class Registry:
    """The contract."""

    name = NAME
    version = 1
    kinds = frozenset(FORMS)

    # CHECK

    def check(self, record: Record, state: StateReader) -> None:
        """See `lichen.ledger.ports.Contract.check`."""
        self.check_form(record)
        self.check_rules(record, state)

    def check_form(self, record: Record) -> None:
        """See `lichen.ledger.ports.FormContract.check_form`."""
        statement = record.statement
        predicate = statement.predicate
        if statement.version != self.version:
            _reject("schema", f"{record.kind} records have version {self.version}, not {statement.version}")
        if wrong := FORMS[record.kind].problem(predicate):
            _reject("schema", f"the {record.kind} record {wrong}")
        _check_subjects(record)
        energy = predicate.get("energy")
        if energy is not None:
            _check_energy(energy)

    def check_rules(self, record: Record, state: StateReader) -> None:
        """See `lichen.ledger.ports.FormContract.check_rules`."""
        _CHECKS[record.kind](record, state)

    # UPDATE

    def apply(self, record: Record, state: StateReader) -> list[StateWrite]:
        """See `lichen.ledger.ports.Contract.apply`."""
        return _APPLIES[record.kind](record, state)


def _reject(rule: str, message: str, remedy: str = "") -> NoReturn:
    raise Rejected(f"{NAME}.{rule}", message, remedy=remedy)


# -- checks shared by several kinds ------------------------------------------------------------------------------------


def _check_subjects(record: Record) -> None:
    """Names stay inside the directory a result is restored to, and there are few of them."""
    subjects = record.statement.subjects
    if len(subjects) > SUBJECT_COUNT_MAX:
        _reject(
            "schema",
            f"the {record.kind} record names {len(subjects)} subjects, at most {SUBJECT_COUNT_MAX} fit",
            "name one subject 'outputs' and keep the list in the manifest",
        )
    for subject in subjects:
        name = subject.name
        if len(name) > 512 or name[0] == "/" or "\x00" in name or (".." in name and ".." in name.split("/")):
            _reject("schema", f"subject {name!r:.120} is not a relative path of at most 512 characters")


def _check_energy(energy: Mapping[str, Any]) -> None:
    joules, seconds = energy["joules"], energy["seconds"]
    if joules > POWER_WATTS_MAX * seconds and energy["method"] != "declared":
        _reject(
            "implausible-energy",
            f"{joules:g} J in {seconds:g} s is more than {POWER_WATTS_MAX:g} W",
            "check the units: kWh and Wh are not joules",
        )
    if "parts" in energy:
        total = sum(part[0] for part in energy["parts"].values())
        if abs(total - joules) > PARTS_TOLERANCE * max(joules, total) + 1e-9:
            _reject("implausible-energy", f"the parts add up to {total:g} J, the whole says {joules:g} J")


def _referenced(record: Record, state: StateReader, field: str, *kinds: str) -> Record:
    """The earlier record that a field points to, when it is of the right kind."""
    return _at(record, state, field, record.predicate[field], *kinds)


def _at(record: Record, state: StateReader, field: str, index: int, *kinds: str) -> Record:
    """The earlier record at an index that a field names, when it is of the right kind.

    Raises:
        Rejected: ``registry.unknown-reference``.
    """
    found = state.record(index)
    if found is None or found.kind not in kinds:
        wanted = " or ".join(kinds)
        what = "nothing" if found is None else f"a {found.kind} record"
        _reject(
            "unknown-reference",
            f"{field} of the {record.kind} record names entry {index}, which is {what}; {wanted} expected",
        )
    return found


# -- checks by kind ----------------------------------------------------------------------------------------------------


def _check_run(record: Record, state: StateReader) -> None:
    predicate = record.predicate
    reusable, status = predicate["reusable"], predicate["status"]
    if reusable and status not in ("trained", "missed"):
        _reject("schema", f"a run that {status} is not reusable")
    if reusable == ("reason" in predicate):
        _reject("schema", "a run has a reason exactly when it is not reusable")
    listed = len(predicate["data"])
    if predicate.get("data_count", listed) < listed:
        _reject("schema", f"data_count says {predicate['data_count']}, data lists {listed}")


def _check_artefact(record: Record, state: StateReader) -> None:
    predicate = record.predicate
    if "run" in predicate:
        _referenced(record, state, "run", "run")
    elif "energy" in predicate and predicate["energy"]["method"] != "declared":
        _reject(
            "undeclared",
            f"the {record.kind} record states measured energy but names no run that measured it",
            "name the run, or mark the energy as declared",
        )
    if "base" in predicate:
        _referenced(record, state, "base", "model", "data")
    for index in predicate.get("data", ()):
        _at(record, state, "data", index, "data")


def _check_evaluation(record: Record, state: StateReader) -> None:
    _referenced(record, state, "of", "run", "model")
    for index in record.predicate.get("data", ()):
        _at(record, state, "data", index, "data")


def _check_reuse(record: Record, state: StateReader) -> None:
    run = _referenced(record, state, "of", "run")
    index = run.place
    if not run.predicate["reusable"]:
        _reject("not-reusable", f"run {index} cannot be reused: {run.predicate.get('reason', 'it failed')}")
    if is_withdrawn(state.get, index):
        _reject("withdrawn", f"run {index} was withdrawn by its author")
    if not is_key_in_force(state.get, run.entry.key_id):
        _reject("discredited", f"the key that signed run {index} was revoked or is compromised")
    predicate = record.predicate
    level, fingerprint = _answered_by(record, run)
    if any(subject.name == level and subject.sha256 != fingerprint for subject in record.statement.subjects):
        _reject("wrong-fingerprint", f"the subject {level!r} is not the fingerprint of run {index}")
    cost_joules = run.predicate["energy"]["joules"]
    if predicate["avoided_joules"] > cost_joules:
        _reject(
            "implausible-energy",
            f"{predicate['avoided_joules']:g} J avoided is more than the {cost_joules:g} J of run {index}",
        )
    earlier = state.get(NAME, _credit_key(fingerprint, record.member)) if predicate["credit"] else None
    if earlier is not None:
        _reject(
            "double-credit",
            f"{record.member!r} was credited for this work by entry {_INDEX.unpack(earlier)[0]} already",
            "record the reuse without credit",
        )


def _check_flag(record: Record, state: StateReader) -> None:
    if "error" not in record.predicate and "detail" not in record.predicate:
        _reject("schema", "a flag needs an error, or a detail artefact that describes it")
    _referenced(record, state, "of", "model", "run", "data", "evaluation")


def _check_dispute(record: Record, state: StateReader) -> None:
    one = _referenced(record, state, "of", "run")
    other = _referenced(record, state, "against", "run")
    if one.index == other.index or _exact_of(one) != _exact_of(other):
        _reject("no-dispute", f"runs {one.index} and {other.index} are not two records of one work")
    if one.statement.subjects == other.statement.subjects:
        _reject("no-dispute", f"runs {one.index} and {other.index} have the same outputs")


def _check_withdraw(record: Record, state: StateReader) -> None:
    withdrawn = _referenced(record, state, "of", *sorted(FORMS.keys() - {"withdraw"}))
    if withdrawn.member != record.member:
        _reject("withdraw-not-author", f"entry {withdrawn.index} was written by {withdrawn.member!r}")
    if is_withdrawn(state.get, withdrawn.place):
        _reject("already-withdrawn", f"entry {withdrawn.index} was withdrawn before")


# -- writes by kind ----------------------------------------------------------------------------------------------------


def _exact_of(run: Record) -> bytes:
    return exact_fingerprint(run.predicate["parts"])


def _answered_by(record: Record, run: Record) -> tuple[str, bytes]:
    """Class and fingerprint of the earlier run by which a reuse was answered."""
    if record.predicate.get("level", "exact") == "exact":
        return "exact", exact_fingerprint(run.predicate["parts"])
    return "same-work", same_work_fingerprint(run.predicate["parts"])


def _credit_key(fingerprint: bytes, member: str) -> bytes:
    return b"credit/" + fingerprint + member.encode()


def _counted(state: StateReader, family: bytes, name: bytes, index: int) -> StateWrite:
    key = family + b"/" + name
    value = state.get(NAME, key)
    count = 0 if value is None else _TALLY.unpack(value)[0]
    return StateWrite(NAME, key, _TALLY.pack(count + 1, index))


def _apply_run(record: Record, state: StateReader) -> list[StateWrite]:
    exact, same_work = fingerprints(record.predicate["parts"])
    place = record.place
    return [_counted(state, b"exact", exact, place), _counted(state, b"same-work", same_work, place)]


def _apply_artefact(record: Record, state: StateReader) -> list[StateWrite]:
    digests = {subject.sha256 for subject in record.statement.subjects}
    return [_counted(state, b"artefact", digest, record.place) for digest in sorted(digests)]


def _apply_evaluation(record: Record, state: StateReader) -> list[StateWrite]:
    return [_counted(state, b"evaluated", _INDEX.pack(record.predicate["of"]), record.place)]


def _apply_reuse(record: Record, state: StateReader) -> list[StateWrite]:
    if not record.predicate["credit"]:
        return []
    run = _referenced(record, state, "of", "run")
    key = _credit_key(_answered_by(record, run)[1], record.member)
    return [StateWrite(NAME, key, _INDEX.pack(record.place))]


def _apply_flag(record: Record, state: StateReader) -> list[StateWrite]:
    return [_counted(state, b"flagged", _INDEX.pack(record.predicate["of"]), record.place)]


def _apply_dispute(record: Record, state: StateReader) -> list[StateWrite]:
    return [_counted(state, b"disputed", _exact_of(_referenced(record, state, "of", "run")), record.place)]


def _apply_withdraw(record: Record, _: StateReader) -> list[StateWrite]:
    return [StateWrite(NAME, withdrawn_key(record.predicate["of"]), _INDEX.pack(record.place))]


_CHECKS: Final[Mapping[str, Callable[[Record, StateReader], None]]] = {
    "run": _check_run,
    "data": _check_artefact,
    "model": _check_artefact,
    "evaluation": _check_evaluation,
    "reuse": _check_reuse,
    "flag": _check_flag,
    "dispute": _check_dispute,
    "withdraw": _check_withdraw,
}
_APPLIES: Final[Mapping[str, Callable[[Record, StateReader], list[StateWrite]]]] = {
    "run": _apply_run,
    "data": _apply_artefact,
    "model": _apply_artefact,
    "evaluation": _apply_evaluation,
    "reuse": _apply_reuse,
    "flag": _apply_flag,
    "dispute": _apply_dispute,
    "withdraw": _apply_withdraw,
}
