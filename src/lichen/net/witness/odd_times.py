"""Times of seals and cosignatures that cannot be right, as a monitor sees them.

A cosignature says when its witness saw a checkpoint, and a reader takes it for fresh by that time. A witness whose clock, or whose
honesty, is off shows it in three ways, and so does a log: a time that is more than a day ahead of the reader's clock; a larger tree
cosigned a minute or more earlier than a smaller one; a cosignature from more than a day before the seal that it covers. None of these is
a split view, and none proves who is wrong; all of them mean that the time is not to be relied on.

Source: C2SP tlog-cosignature v1, "Ed25519 signed message": the time is that of the cosigner's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from lichen.crypto.note import AHEAD_SECONDS_MAX, SignedNote
from lichen.errors import LichenError
from lichen.ledger.policy import cosignature_times, shown

if TYPE_CHECKING:
    from lichen.ledger.policy import Policy, Witness
    from lichen.net.witness.monitor import Sighting

__all__ = ["OddTime", "SealTime", "odd_times"]

SealTime = Callable[[int], int | None]
"""Time of the seal at an index, seconds since 1970; None when it is not known."""

BACKWARDS_SECONDS_MAX: Final = 60  # clocks are set now and then, by less than this
_REPORTABLE_MAX: Final = 253_402_300_799  # 9999-12-31T23:59:59Z


@dataclass(frozen=True, slots=True)
class OddTime:
    """A time that cannot be right.

    Attributes:
        who: Whose clock it is: a witness, or the log.
        kind: ``ahead`` of this clock, ``backwards`` from a smaller tree, or ``before-seal``.
        tree_size: Of the checkpoint.
        time_unix_seconds: The time.
        against_unix_seconds: What it contradicts: this clock, the time at the smaller tree, or that of the seal.
        against_size: The smaller tree's size, for ``backwards``.
    """

    who: str
    kind: str
    tree_size: int
    time_unix_seconds: int
    against_unix_seconds: int
    against_size: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as a table for JSON."""
        return asdict(self)

    def describe(self) -> str:
        """Say what is odd, in one sentence."""
        what = f"{self.who} says {_written(self.time_unix_seconds)} of {self.tree_size:,} entries"
        against = _written(self.against_unix_seconds)
        if self.kind == "ahead":
            return f"{what}, more than a day ahead of this clock ({against})"
        if self.kind == "backwards":
            return f"{what}, earlier than of the {self.against_size:,} entries before ({against})"
        return f"{what}, more than a day before the seal that it covers ({against})"


def odd_times(
    sightings: Sequence[Sighting],
    policy: Policy,
    now_unix_seconds: int,
    seal_time: SealTime = lambda _index: None,
) -> tuple[OddTime, ...]:
    """Judge the times in what was seen of a log.

    Args:
        sightings: Checkpoints that the log signed, with the cosignatures they carry.
        policy: The witnesses whose cosignatures are looked at.
        now_unix_seconds: The reader's clock.
        seal_time: Tells when a seal was made, from whoever has the log at hand.

    Returns:
        What cannot be right, each once: the log's first, then by witness and size.
    """
    sizes = sorted({each.checkpoint.tree_size for each in sightings})
    seals = {size: made for size in sizes if size and (made := seal_time(size - 1)) is not None}
    found = [
        OddTime("the log", "ahead", size, made, now_unix_seconds)
        for size, made in seals.items()
        if made > now_unix_seconds + AHEAD_SECONDS_MAX
    ]
    for witness in policy.witnesses:
        found += _odd_of(witness, sightings, now_unix_seconds, seals)
    return tuple(dict.fromkeys(found))


def _odd_of(
    witness: Witness, sightings: Sequence[Sighting], now: int, seals: dict[int, int]
) -> list[OddTime]:
    """Judge the cosignatures of one witness."""
    who = f"witness {shown(witness.name)}"
    said = sorted(
        (each.checkpoint.tree_size, time) for each in sightings for time in _times(witness, each.note)
    )
    found = []
    latest: tuple[int, int] | None = None  # size and time of the latest cosignature of a smaller tree
    pending: tuple[int, int] | None = None
    for size, time in said:
        if pending is not None and pending[0] < size:
            latest = pending if latest is None or pending[1] > latest[1] else latest
            pending = None
        if time > now + AHEAD_SECONDS_MAX:
            found.append(OddTime(who, "ahead", size, time, now))
            continue  # which the right ones after it need not follow
        if latest is not None and time < latest[1] - BACKWARDS_SECONDS_MAX:
            found.append(OddTime(who, "backwards", size, time, latest[1], latest[0]))
        if size in seals and time < seals[size] - AHEAD_SECONDS_MAX:
            found.append(OddTime(who, "before-seal", size, time, seals[size]))
        pending = (size, max(time, pending[1] if pending else 0))
    return found


def _times(witness: Witness, note: str) -> list[int]:
    try:
        return cosignature_times(SignedNote.from_text(note), witness.key)
    except LichenError:
        return []  # what does not hold says no time


def _written(time_unix_seconds: int) -> str:
    if time_unix_seconds > _REPORTABLE_MAX:
        return f"the second {time_unix_seconds:,}"
    return datetime.fromtimestamp(time_unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
