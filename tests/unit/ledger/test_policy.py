"""Policies: what they accept, what their quorums share, and who is told what when they do not share enough."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, NoteSignature, SignatureType, SignedNote, cosign_note, sign_note
from lichen.errors import EncodingError, UsageError, VerificationError
from lichen.ledger.policy import Group, Policy, Witness, parse_policy
from lichen.ledger.quorums import check_quorums_intersect, quorum_strength

KEYS = [SigningKey.from_seed(bytes([number]) * 32) for number in range(1, 9)]
LOG = SigningKey.from_seed(b"l" * 32)
BODY = "lichen/" + "ab" * 32 + "\n3\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
COSIGNERS = [
    NoteKey(f"w.example/{n}", key.public, SignatureType.COSIGNATURE_V1) for n, key in enumerate(KEYS)
]


def policy_of(rule: str, count: int, more: str = "") -> Policy:
    lines = [f"witness W{n} {COSIGNERS[n].vkey} http://127.0.0.1:{8000 + n}/" for n in range(count)]
    names = " ".join(f"W{n}" for n in range(count))
    return parse_policy("\n".join([more, *lines, f"group g {rule} {names}", "quorum g", ""]).encode())


def cosigned(*numbers: int, time: int = 1_760_000_000) -> SignedNote:
    note = SignedNote(BODY, (sign_note(BODY, "lichen/" + "ab" * 32, LOG),))
    for n in numbers:
        note = note.with_signature(cosign_note(BODY, COSIGNERS[n].name, KEYS[n], time + n))
    return note


def test_who_cosigned_and_when_is_told_in_the_order_of_the_policy() -> None:
    quorum = policy_of("2", 3).judge(cosigned(2, 0))
    assert [(each.name, each.time_unix_seconds) for each in quorum.cosigners] == [
        ("W0", 1_760_000_000),
        ("W2", 1_760_000_002),
    ]
    assert quorum.missing == ("W1",)
    assert quorum.is_reached


def test_too_few_cosignatures_are_no_quorum_and_strangers_do_not_count() -> None:
    note = cosigned(0, 5, 6)
    assert not policy_of("2", 3).judge(note).is_reached


def test_a_witness_that_signed_twice_counts_once_with_its_latest_time() -> None:
    note = cosigned(0).with_signature(cosign_note(BODY, COSIGNERS[0].name, KEYS[0], 1_770_000_000))
    quorum = policy_of("2", 3).judge(note)
    assert [each.time_unix_seconds for each in quorum.cosigners] == [1_770_000_000]
    assert not quorum.is_reached


def test_a_cosignature_from_more_than_a_day_ahead_is_not_counted_and_the_reason_is_told() -> None:
    now = 1_760_000_000
    note = cosigned(0).with_signature(cosign_note(BODY, COSIGNERS[1].name, KEYS[1], now + 86_401))
    quorum = policy_of("2", 3).judge(note, now)
    assert [each.name for each in quorum.cosigners] == ["W0"]
    assert [each.name for each in quorum.ahead] == ["W1"]
    assert quorum.missing == ("W1", "W2")
    assert not quorum.is_reached
    assert "W1 (its cosignature says 2025-10-10 08:53:21 UTC, more than a day ahead" in quorum.why_missing()
    assert quorum.why_missing().endswith(", W2")
    later = policy_of("2", 3).judge(note, now + 1)
    assert (later.is_reached, later.ahead) == (True, ())


def test_of_two_cosignatures_the_one_that_is_not_ahead_counts() -> None:
    now = 1_760_000_000
    note = cosigned(0).with_signature(cosign_note(BODY, COSIGNERS[0].name, KEYS[0], now + 946_728_000))
    quorum = policy_of("2", 3).judge(note, now)
    assert [each.time_unix_seconds for each in quorum.cosigners] == [now]
    assert quorum.ahead == ()


def test_a_false_cosignature_of_a_known_witness_spoils_the_whole_note() -> None:
    false = NoteSignature(COSIGNERS[1].name, COSIGNERS[1].hash, bytes(72))
    with pytest.raises(VerificationError):
        policy_of("2", 3).judge(cosigned(0, 2).with_signature(false))


def test_a_cosignature_without_a_time_is_refused() -> None:
    note = cosigned(0).with_signature(cosign_note(BODY, COSIGNERS[1].name, KEYS[1], 0))
    with pytest.raises(VerificationError, match="no time"):
        policy_of("2", 3).judge(note)


@pytest.mark.parametrize(
    ("rule", "count", "faulty", "holds"),
    [("any", 1, 0, True), ("any", 2, 0, False), ("1", 3, 0, False), ("2", 3, 0, True), ("2", 3, 1, False),
     ("all", 3, 1, True), ("2", 4, 0, False), ("3", 4, 1, True), ("3", 4, 2, False), ("5", 7, 2, True),
     ("5", 7, 3, False), ("4", 7, 1, False), ("4", 7, 0, True)],
)  # fmt: skip
def test_two_quorums_share_an_honest_witness_exactly_when_2k_exceeds_n_plus_f(
    rule: str, count: int, faulty: int, holds: bool
) -> None:
    policy = policy_of(rule, count)
    threshold = policy.groups[0].threshold
    assert (2 * threshold > count + faulty) == holds
    if holds:
        assert check_quorums_intersect(policy, faulty).overlap_min > faulty
        return
    with pytest.raises(UsageError, match=rf"2 x {threshold} <= {count} \+ {faulty}") as caught:
        check_quorums_intersect(policy, faulty)
    if "at least" in caught.value.remedy and "of the" in caught.value.remedy:
        needed = int(caught.value.remedy.split("at least ")[1].split()[0])
        assert check_quorums_intersect(policy_of(str(needed), count), faulty).overlap_min > faulty


def test_no_witnesses_at_all_are_no_protection() -> None:
    with pytest.raises(UsageError, match="no witness"):
        check_quorums_intersect(parse_policy(b"quorum none\n"))


def test_a_log_is_no_witness_of_itself() -> None:
    own = NoteKey("lichen/" + "ab" * 32, KEYS[1].public)
    with pytest.raises(UsageError, match="'W1' has the key of a log"):
        check_quorums_intersect(policy_of("2", 3, f"log {own.vkey}"))


def test_a_negative_count_of_faulty_witnesses_is_refused() -> None:
    with pytest.raises(UsageError, match="-1"):
        check_quorums_intersect(policy_of("2", 3), -1)


@st.composite
def trees(draw: st.DrawFn) -> Policy:
    """Policies of up to seven witnesses in groups of groups."""
    count = draw(st.integers(1, 7))
    free = [b"W%d" % n for n in range(count)]
    groups: list[Group] = []
    while len(free) > 1 and draw(st.booleans()):
        size = draw(st.integers(1, len(free)))
        members, free = free[:size], free[size:]
        threshold = draw(st.integers(1, size))
        groups.append(Group(b"g%d" % len(groups), threshold, tuple(members)))
        free.append(groups[-1].name)
        draw(st.randoms()).shuffle(free)
    witnesses = tuple(Witness(b"W%d" % n, COSIGNERS[n]) for n in range(count))
    return Policy((), witnesses, tuple(groups), free[0])


class TestStrengthLaws:
    """The smallest overlap of two quorums, and the smallest blocking set, are what trying all sets of witnesses finds."""

    @given(trees())
    def test_overlap_and_blocking_set_are_the_minima_over_all_sets(self, policy: Policy) -> None:
        names = [witness.name for witness in policy.witnesses]
        sets = [
            frozenset(chosen)
            for size in range(len(names) + 1)
            for chosen in itertools.combinations(names, size)
        ]
        quorums = [chosen for chosen in sets if policy.is_quorum(chosen)]
        strength = quorum_strength(policy)
        assert strength.overlap_min == min(len(one & two) for one in quorums for two in quorums)
        everyone = frozenset(names)
        assert strength.block_min == min(len(gone) for gone in sets if not policy.is_quorum(everyone - gone))


class TestReaderLaws:
    """Any octets are a policy, or refused as not one."""

    @given(st.binary(max_size=200))
    def test_any_octets(self, data: bytes) -> None:
        try:
            parse_policy(data)
        except EncodingError as error:
            assert error.message

    @given(
        st.lists(
            st.sampled_from(
                [b"log", b"witness", b"group", b"quorum", b"none", b"all", b"any", b"2", b"a", b"b", b" ", b"\n", b"#",
                 b"\t", b"\xff", COSIGNERS[0].vkey.encode(), COSIGNERS[1].vkey.encode(),
                 NoteKey("l", LOG.public).vkey.encode()]
            ),
            max_size=40,
        )
    )  # fmt: skip
    def test_any_sequence_of_its_words(self, words: list[bytes]) -> None:
        try:
            policy = parse_policy(b" ".join(words) + b"\n")
        except EncodingError as error:
            assert error.message
        else:
            assert policy.is_quorum([witness.name for witness in policy.witnesses])


def test_a_policy_that_is_too_large_is_refused_unread() -> None:
    with pytest.raises(EncodingError, match="at most"):
        parse_policy(b"#" * 2**20 + b"\n")


def test_too_many_witnesses_are_refused_at_their_line() -> None:
    lines = b"".join(
        b"witness w%d %s\n" % (n, NoteKey("w", SigningKey.from_seed(n.to_bytes(32, "big")).public,
                                          SignatureType.COSIGNATURE_V1).vkey.encode())
        for n in range(1, 1_026)
    )  # fmt: skip
    with pytest.raises(EncodingError, match=r"line 1025 .*at most 1,024 witnesses"):
        parse_policy(lines + b"quorum none\n")
