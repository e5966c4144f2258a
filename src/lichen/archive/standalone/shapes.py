"""What each kind of record must look like: closed tables of fields.

A shape is a function that is true for what it accepts, or a table of required and optional fields.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from lichen.archive.standalone.texts import INTEGER_MAX

__all__ = ["CID_TEXT", "LOG_KEY", "MEMBER", "MEMBER_FIELDS", "SHAPES", "fits", "is_member_id"]

MEMBER_ID = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._@/-]{0,126}[A-Za-z0-9])?")


def matches(pattern: str) -> Callable:
    """Text that matches as a whole."""
    compiled = re.compile(pattern)
    return lambda value: type(value) is str and compiled.fullmatch(value) is not None


def text(length: int) -> Callable:
    """Text of 1 to ``length`` characters without control characters but newline and tab."""
    return lambda value: (
        type(value) is str
        and 1 <= len(value) <= length
        and (value.isprintable() or not any(ord(c) < 32 and c not in "\n\t" for c in value))
    )


def whole(least: int = 0, most: int = INTEGER_MAX) -> Callable:
    """A whole number between bounds."""
    return lambda value: type(value) is int and least <= value <= most


def number(least: float | None = None, most: float | None = None) -> Callable:
    """A number between bounds."""
    return lambda value: (
        type(value) in (int, float) and (least is None or value >= least) and (most is None or value <= most)
    )


def among(*choices: str) -> Callable:
    """One of some words."""
    return lambda value: type(value) is str and value in choices


def listed(item: Callable, most: int) -> Callable:
    """A list of items of one shape."""
    return lambda value: type(value) is list and len(value) <= most and all(item(each) for each in value)


def named(name: Callable, item: Callable, most: int) -> Callable:
    """An object with names and values of one shape each."""
    return lambda value: (
        type(value) is dict
        and len(value) <= most
        and all(name(key) and item(each) for key, each in value.items())
    )


def flag(value: object) -> bool:
    """True or false."""
    return type(value) is bool


def is_member_id(value: object) -> bool:
    """A member id; ``log`` is none."""
    return type(value) is str and MEMBER_ID.fullmatch(value) is not None and value != "log"


def fits(shape: tuple, value: object) -> bool:
    """True when an object has the fields of a table, each of its shape, and no others."""
    required, optional = shape
    if type(value) is not dict or not required.keys() <= value.keys():
        return False
    for name, each in value.items():
        check = required.get(name) or optional.get(name)
        if check is None or not (fits(check, each) if isinstance(check, tuple) else check(each)):
            return False
    return True


def energy_part(value: object) -> bool:
    """``[joules, u95]``, or ``[joules, u95, method]``."""
    if type(value) is not list or len(value) not in (2, 3):
        return False
    return all(type(each) in (int, float) and each >= 0 for each in value[:2]) and (
        len(value) == 2 or value[2] in METHODS
    )


METHODS = ("meter", "counter", "sampled", "allocated", "model", "declared")
DIGEST = matches("[A-Za-z0-9_-]{42}[AEIMQUYcgkosw048]")
SHORT_DIGEST = matches("[A-Za-z0-9_-]{21}[AQgw]")
NONCE = matches("[A-Za-z0-9_-]{16}")
CID_TEXT = matches("b[a-z2-7]{8,200}")
METRICS = named(text(64), number(), 64)
ENTRIES = listed(whole(), 64)
COMMON = {"ledger": DIGEST, "member": is_member_id, "nonce": NONCE, "time_unix_ms": whole()}
ENERGY = (
    {
        "joules": number(0),
        "u95": number(0, 100),
        "method": among(*METHODS),
        "boundary": among("process", "device", "node", "site"),
        "seconds": number(0),
    },
    {
        "device": text(64),
        "parts": named(text(64), energy_part, 16),
        "zone": text(64),
        "intensity": named(text(64), lambda _: True, 16),
        "notes": listed(text(200), 8),
    },
)
ARTEFACT = (
    {**COMMON, "cid": CID_TEXT, "size_bytes": whole()},
    {
        "title": text(200),
        "licence": text(100),
        "media_type": text(100),
        "metrics": METRICS,
        "energy": ENERGY,
        "detail": CID_TEXT,
        "run": whole(),
        "base": whole(),
        "data": ENTRIES,
    },
)
SHAPES = {
    "run": (
        {
            **COMMON,
            "status": among("trained", "missed", "failed", "interrupted"),
            "reusable": flag,
            "parts": (dict.fromkeys(("command", "code", "data", "rest"), DIGEST), {"seed": DIGEST}),
            "family": SHORT_DIGEST,
            "data": listed(DIGEST, 4),
            "metrics": METRICS,
            "energy": ENERGY,
            "manifest": CID_TEXT,
        },
        {
            "data_count": whole(0, 1000000000),
            "exit_status": whole(-255, 255),
            "reason": matches("[a-z][a-z0-9-]{0,63}"),
            "target": METRICS,
            "parent": text(64),
            "ranks": whole(1, 1000000),
        },
    ),
    "data": ARTEFACT,
    "model": ARTEFACT,
    "evaluation": (
        {**COMMON, "of": whole(), "metrics": METRICS},
        {"data": ENTRIES, "energy": ENERGY, "title": text(200), "cid": CID_TEXT, "detail": CID_TEXT},
    ),
    "reuse": (
        {
            **COMMON,
            "of": whole(),
            "credit": flag,
            "avoided_joules": number(0),
            "avoided_u95": number(0, 100),
        },
        {"level": among("exact", "same-work"), "energy": ENERGY, "restored": whole(0, 1000000000)},
    ),
    "flag": (
        {**COMMON, "of": whole()},
        {"error": text(500), "detail": CID_TEXT, "severity": among("low", "medium", "high"), "data": ENTRIES},
    ),
    "dispute": ({**COMMON, "of": whole(), "against": whole()}, {"reason": text(500), "detail": CID_TEXT}),
    "withdraw": ({**COMMON, "of": whole()}, {"reason": text(500), "detail": CID_TEXT}),
}
MEMBER = (
    {
        **COMMON,
        "action": among("admit", "add-key", "rotate", "revoke", "compromise"),
        "subject_member": is_member_id,
    },
    {"key": DIGEST, "from_index": whole(), "admin": flag},
)
SIGNATURE = matches("[A-Za-z0-9_-]{85}[AQgw]")
LOG_KEY: tuple = (
    {
        **COMMON,
        "acceptance": SIGNATURE,
        "approvals": listed(
            lambda value: fits(({"key": SHORT_DIGEST, "signature": SIGNATURE}, {}), value), 64
        ),
        "consent": SIGNATURE,
        "key": DIGEST,
        "previous": DIGEST,
    },
    {},
)
MEMBER_FIELDS = {  # which of the optional fields each action needs, and may have
    "admit": ({"key"}, {"key", "admin"}),
    "add-key": ({"key"}, {"key"}),
    "rotate": ({"key"}, {"key"}),
    "revoke": (set(), {"key"}),
    "compromise": ({"key", "from_index"}, {"key", "from_index"}),
}
