"""What each kind of the registry may say: one closed table of fields per kind.

Every predicate also carries `lichen.contracts.schema.COMMON_FIELDS`. Digests are 32 bytes as 43 characters of base64url;
in a private ledger they are keyed, so they tell outsiders nothing. A CID names an artefact in the store, ``of``, ``against``,
``run``, ``base`` and ``data`` (outside runs) name earlier entries by index; ``parent`` is the id of the run this one was
nested in, which is recorded later. Free text is optional everywhere, because in a private ledger it lies encrypted in an
artefact (``detail``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lichen.contracts.schema import (
    COMMON_FIELDS,
    Schema,
    a_digest,
    a_flag,
    a_list_of,
    a_map_of,
    a_match_of,
    a_number,
    a_short_digest,
    a_text,
    an_integer,
    one_of,
)

__all__ = ["DATA_DIGEST_COUNT_MAX", "ENERGY_METHODS", "FORMS", "PART_NAMES", "SUBJECT_COUNT_MAX"]

SUBJECT_COUNT_MAX: Final = 8
DATA_DIGEST_COUNT_MAX: Final = 4
METRIC_COUNT_MAX: Final = 64
PART_COUNT_MAX: Final = 16
ENERGY_METHODS: Final = ("meter", "counter", "sampled", "allocated", "model", "declared")
BOUNDARIES: Final = ("process", "device", "node", "site")
PART_NAMES: Final = ("command", "code", "data", "rest", "seed")
"""Components of a run's fingerprint; ``seed`` is left out of the fingerprint of class ``same-work``."""

_cid = a_match_of(r"b[a-z2-7]{8,200}", "a CID in base32")
_short_name = a_text(64)
_metrics = a_map_of(a_text(64), a_number(), count_max=METRIC_COUNT_MAX)
_entries = a_list_of(an_integer(), count_max=64)
_data_digests = a_list_of(a_digest, count_max=DATA_DIGEST_COUNT_MAX)


_NUMBERS: Final = frozenset({int, float})


def _an_energy_part(value: Any) -> str | None:
    """``[joules, u95]``, or ``[joules, u95, method]`` where the method is not that of the whole."""
    if type(value) is not list or len(value) not in (2, 3):
        return "must be [joules, u95] or [joules, u95, method]"
    joules, u95 = value[0], value[1]
    if type(joules) not in _NUMBERS or type(u95) not in _NUMBERS or joules < 0 or u95 < 0:
        return "must hold two numbers that are not negative"
    return (
        None
        if len(value) == 2 or value[2] in ENERGY_METHODS
        else f"must have one of {', '.join(ENERGY_METHODS)}"
    )


ENERGY: Final = Schema(
    required={
        "joules": a_number(0),
        "u95": a_number(0, 100),
        "method": one_of(*ENERGY_METHODS),
        "boundary": one_of(*BOUNDARIES),
        "seconds": a_number(0),
    },
    optional={
        "device": a_text(64),
        "parts": a_map_of(_short_name, _an_energy_part, count_max=PART_COUNT_MAX),
        "zone": a_text(64),
        "intensity": a_map_of(_short_name, lambda _: None, count_max=16),
        "notes": a_list_of(a_text(200), count_max=8),
    },
)
"""A measurement as `lichen.energy.measurement.Measurement.to_record` writes it."""

_PARTS: Final = Schema(
    required={name: a_digest for name in PART_NAMES if name != "seed"}, optional={"seed": a_digest}
)
"""A run without anything marked as a seed has no such part, which keeps the usual entry short."""

_RUN: Final = Schema(
    required={
        **COMMON_FIELDS,
        "status": one_of("trained", "missed", "failed", "interrupted"),
        "reusable": a_flag,
        "parts": _PARTS,
        "family": a_short_digest,
        "data": _data_digests,
        "metrics": _metrics,
        "energy": ENERGY,
        "manifest": _cid,
    },
    optional={
        "data_count": an_integer(0, 1_000_000_000),  # absent: as many as data lists
        "exit_status": an_integer(-255, 255),  # absent: 0
        "reason": a_match_of(r"[a-z][a-z0-9-]{0,63}", "a short code such as inputs-changed"),
        "target": _metrics,
        "parent": a_text(64),
        "ranks": an_integer(1, 1_000_000),
    },
)
_ARTEFACT: Final = Schema(
    required={**COMMON_FIELDS, "cid": _cid, "size_bytes": an_integer()},
    optional={
        "title": a_text(200),
        "licence": a_text(100),
        "media_type": a_text(100),
        "metrics": _metrics,
        "energy": ENERGY,
        "detail": _cid,
        "run": an_integer(),
        "base": an_integer(),
        "data": _entries,
    },
)
_EVALUATION: Final = Schema(
    required={**COMMON_FIELDS, "of": an_integer(), "metrics": _metrics},
    optional={"data": _entries, "energy": ENERGY, "title": a_text(200), "cid": _cid, "detail": _cid},
)
_REUSE: Final = Schema(
    required={
        **COMMON_FIELDS,
        "of": an_integer(),
        "credit": a_flag,
        "avoided_joules": a_number(0),
        "avoided_u95": a_number(0, 100),
    },
    optional={
        "level": one_of("exact", "same-work"),
        "energy": ENERGY,
        "restored": an_integer(0, 1_000_000_000),
    },
)
_FLAG: Final = Schema(
    required={**COMMON_FIELDS, "of": an_integer()},
    optional={
        "error": a_text(500),
        "detail": _cid,
        "severity": one_of("low", "medium", "high"),
        "data": _entries,
    },
)
_DISPUTE: Final = Schema(
    required={**COMMON_FIELDS, "of": an_integer(), "against": an_integer()},
    optional={"reason": a_text(500), "detail": _cid},
)
_WITHDRAW: Final = Schema(
    required={**COMMON_FIELDS, "of": an_integer()}, optional={"reason": a_text(500), "detail": _cid}
)

FORMS: Final[Mapping[str, Schema]] = {
    "run": _RUN,
    "data": _ARTEFACT,
    "model": _ARTEFACT,
    "evaluation": _EVALUATION,
    "reuse": _REUSE,
    "flag": _FLAG,
    "dispute": _DISPUTE,
    "withdraw": _WITHDRAW,
}
"""Form of the predicate, by kind."""
