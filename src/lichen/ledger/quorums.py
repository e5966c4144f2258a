"""What a policy's quorums are worth: whether two of them always share an honest witness.

Somebody who shows two groups of readers two different logs needs a quorum of cosignatures on each. A witness that is
honest never cosigns both. So if any two quorums share more witnesses than are faulty, at least one honest witness stands
in both, and the second view gets no quorum.

With k of n witnesses, two quorums share at least 2k - n, so the condition is 2k - n > f, which is 2k > n + f. Groups are
counted the same way from the leaves up. Two sets that satisfy "k of n members" have at least m = max(0, 2k - n) members in
common; those that only one of them uses can be disjoint from the other; and since no witness stands in two members, the
smallest overlap is the sum of the m smallest overlaps among the members. In the same way a group is blocked at the least
cost by the n - k + 1 members that are easiest to block.

Source: quorum intersection as in Malkhi and Reiter, "Byzantine quorum systems", 1998, definition 3.1 (dissemination
quorums: D-consistency). Differs: only the size of the intersection is asked, as if any f witnesses could be the faulty ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from lichen.errors import UsageError
from lichen.ledger.policy import Policy, shown

__all__ = ["QuorumStrength", "check_quorums_intersect", "quorum_strength"]


@dataclass(frozen=True, slots=True)
class QuorumStrength:
    """How much a policy withstands.

    Attributes:
        witness_count: Witnesses the quorum can draw on.
        overlap_min: Fewest witnesses that two quorums share; 0 when two of them can be disjoint.
        block_min: Fewest witnesses without which there is no quorum; 0 when none is asked for.
    """

    witness_count: int
    overlap_min: int
    block_min: int

    @property
    def faulty_max(self) -> int:
        """How many witnesses may sign two views before two quorums can exist; -1 when none need to."""
        return self.overlap_min - 1

    @property
    def absent_max(self) -> int:
        """How many witnesses may be away before there is no quorum any more."""
        return max(0, self.block_min - 1)


def quorum_strength(policy: Policy) -> QuorumStrength:
    """Compute what a policy's quorums have in common, and how few witnesses stop it.

    Args:
        policy: The policy.

    Returns:
        Exact minima over all pairs of quorums, and over all sets of witnesses.
    """
    if policy.quorum is None:
        return QuorumStrength(0, 0, 0)
    leaf = QuorumStrength(1, 1, 1)
    known = {witness.name: leaf for witness in policy.witnesses}
    for group in policy.groups:
        members = [known[name] for name in group.members]
        shared_count = max(0, 2 * group.threshold - len(members))
        blocked_count = len(members) - group.threshold + 1
        known[group.name] = QuorumStrength(
            sum(member.witness_count for member in members),
            sum(sorted(member.overlap_min for member in members)[:shared_count]),
            sum(sorted(member.block_min for member in members)[:blocked_count]),
        )
    return known[policy.quorum]


def check_quorums_intersect(policy: Policy, faulty_count: int = 0) -> QuorumStrength:
    """Refuse a policy under which two views of a log could both be witnessed.

    Args:
        policy: The policy.
        faulty_count: How many of its witnesses may lie, whichever they are; from 0.

    Returns:
        What the policy withstands.

    Raises:
        UsageError: No witnesses are asked for; two quorums need not share more than ``faulty_count`` witnesses; or a
            log would be its own witness.
    """
    if faulty_count < 0:
        raise UsageError(f"the count of faulty witnesses cannot be {faulty_count}")
    if policy.quorum is None:
        raise UsageError(
            "the policy asks for no witness (quorum none), so anybody could be shown another log",
            remedy="Name witnesses, a group of them, and make it the quorum.",
        )
    own = {log.key.key.raw for log in policy.logs}
    for witness in policy.witnesses:
        if witness.key.key.raw in own:
            raise UsageError(
                f"the witness {shown(witness.name)!r} has the key of a log: a log cannot witness itself",
                remedy="Use the keys of witnesses that others run.",
            )
    strength = quorum_strength(policy)
    if strength.overlap_min <= faulty_count:
        raise UsageError(
            _disjoint(policy, strength, faulty_count), remedy=_remedy(policy, strength, faulty_count)
        )
    return strength


def _disjoint(policy: Policy, strength: QuorumStrength, faulty_count: int) -> str:
    quorum = shown(policy.quorum or b"none")
    flat = _flat_threshold(policy)
    rule = "" if flat is None else f" (2 x {flat[0]} <= {flat[1]} + {faulty_count})"
    if strength.overlap_min == 0:
        return f"two quorums of {quorum!r} need have no witness in common, so two views of a log could both be witnessed{rule}"
    return (
        f"two quorums of {quorum!r} need share only {strength.overlap_min} of {strength.witness_count} witnesses;"
        f" with {faulty_count} faulty two views of a log could both be witnessed{rule}"
    )


def _remedy(policy: Policy, strength: QuorumStrength, faulty_count: int) -> str:
    flat = _flat_threshold(policy)
    if flat is not None:
        needed = (flat[1] + faulty_count) // 2 + 1
        if needed <= flat[1]:
            return f"Ask for at least {needed} of the {flat[1]} witnesses."
    return (
        f"Ask for more witnesses, so that any two quorums share at least {faulty_count + 1};"
        f" this policy suits at most {max(strength.faulty_max, 0)} faulty."
        if strength.overlap_min > 0
        else f"Raise the thresholds, so that any two quorums share at least {faulty_count + 1} witnesses."
    )


def _flat_threshold(policy: Policy) -> tuple[int, int] | None:
    """Return k and n when the quorum is one group of witnesses, None otherwise."""
    group = next((group for group in policy.groups if group.name == policy.quorum), None)
    names = {witness.name for witness in policy.witnesses}
    if group is None or not names.issuperset(group.members):
        return None
    return group.threshold, len(group.members)
