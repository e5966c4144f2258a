"""Times that a monitor tells of: from the future, going backwards, or from before the seal; and those it says nothing about."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, SignatureType, SignedNote, cosign_note, sign_note
from lichen.ledger.checkpoint import Checkpoint
from lichen.ledger.policy import Policy, Witness, cosignature_times
from lichen.net.witness.monitor import Memory, Sighting, compare_sightings
from lichen.net.witness.odd_times import odd_times

DAY = 86_400
NOW = 1_800_000_000
ORIGIN = "lichen.example/log"
LOG = SigningKey.from_seed(bytes([1]) * 32)
KEYS = {name: SigningKey.from_seed(name.encode().ljust(32, b".")) for name in ("w1", "w2")}
POLICY = Policy(
    (),
    tuple(
        Witness(name.encode(), NoteKey(f"{name}.example", key.public, SignatureType.COSIGNATURE_V1), None)
        for name, key in KEYS.items()
    ),
    (),
    None,
)


def seen(size: int, *times: tuple[str, int]) -> Sighting:
    """A checkpoint of a size, cosigned by witnesses at times."""
    checkpoint = Checkpoint(ORIGIN, size, bytes([size]) * 32)
    note = SignedNote(checkpoint.body(), (sign_note(checkpoint.body(), ORIGIN, LOG),))
    for name, time in times:
        note = note.with_signature(cosign_note(checkpoint.body(), f"{name}.example", KEYS[name], time))
    return Sighting("somebody", note.to_text(), checkpoint)


def told(*sightings: Sighting, seals: dict[int, int] | None = None) -> list[tuple[str, str, int]]:
    made = seals or {}
    found = odd_times(sightings, POLICY, NOW, made.get)
    assert all(each.describe() and each.to_json()["kind"] == each.kind for each in found)
    return [(each.who, each.kind, each.tree_size) for each in found]


def test_times_that_only_grow_are_not_told() -> None:
    assert told() == []
    assert told(seen(3), seen(5, ("w1", NOW - 9)), seen(9, ("w1", NOW - 9), ("w2", NOW))) == []
    assert told(seen(3, ("w1", NOW - 9)), seen(3, ("w1", NOW - 500))) == [], (
        "of one size the order says nothing"
    )
    assert told(seen(3, ("w1", NOW)), seen(5, ("w1", NOW - 60))) == [], "clocks are set now and then"
    assert told(seen(3, ("w1", NOW)), seen(5, ("w2", NOW - DAY))) == [], "each witness has a clock of its own"
    assert told(seen(3, ("w1", NOW + DAY)), seals={2: NOW + DAY}) == []


@pytest.mark.parametrize("order", [1, -1])
def test_a_larger_tree_cosigned_earlier_is_told(order: int) -> None:
    sightings = [seen(3, ("w1", NOW - 100)), seen(5, ("w1", NOW - 200)), seen(9, ("w1", NOW - 90), ("w2", 1))]
    assert told(*sightings[::order]) == [("witness w1", "backwards", 5)]
    (one,) = odd_times(sightings, POLICY, NOW)
    assert (one.against_size, one.against_unix_seconds) == (3, NOW - 100)


def test_a_time_from_the_future_is_told_and_spoils_no_other() -> None:
    sightings = [seen(3, ("w1", NOW + DAY + 1)), seen(5, ("w1", NOW))]
    assert told(*sightings) == [("witness w1", "ahead", 3)]
    assert told(seen(3, ("w1", 2**63 - 1))) == [("witness w1", "ahead", 3)]


def test_a_seal_from_the_future_is_told_of_the_log() -> None:
    assert told(seen(3), seen(5), seals={2: NOW, 4: NOW + DAY + 1}) == [("the log", "ahead", 5)]


def test_a_cosignature_from_before_the_seal_is_told() -> None:
    assert told(seen(3, ("w1", NOW - DAY - 1), ("w2", NOW - DAY)), seals={2: NOW}) == [
        ("witness w1", "before-seal", 3)
    ]


def test_a_cosignature_that_does_not_hold_says_no_time() -> None:
    good = SignedNote.from_text(seen(3, ("w1", NOW)).note)
    other = SignedNote.from_text(seen(4, ("w1", NOW + 9 * DAY)).note)
    forged = SignedNote(good.text, (good.signatures[0], other.signatures[1])).to_text()
    assert told(Sighting("somebody", forged, seen(3).checkpoint)) == []


def test_what_is_remembered_carries_the_cosignatures_of_everybody(tmp_path: Path) -> None:
    """The next time the monitor runs, each witness's time is compared with its last."""
    memory = Memory(tmp_path, ORIGIN)
    sightings = [seen(5, ("w1", NOW)), seen(3), seen(5, ("w2", NOW - 1)), seen(5, ("w1", NOW))]
    report = compare_sightings(
        ORIGIN, [LOG.public], [each for each in sightings if each.checkpoint.tree_size == 5]
    )
    memory.keep(report)
    (note,) = memory.notes()
    kept = SignedNote.from_text(note)
    assert [cosignature_times(kept, witness.key) for witness in POLICY.witnesses] == [[NOW], [NOW - 1]]
    before = Sighting("this machine before", note, seen(5).checkpoint)
    assert told(before, seen(6, ("w2", NOW - 500))) == [("witness w2", "backwards", 6)]
