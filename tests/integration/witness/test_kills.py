"""A witness killed with SIGKILL at random moments, sixty times: it never forgets what it signed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.integration.witness.kills import Campaign, kill_often

from lichen.crypto.note import SignedNote


@pytest.mark.slow
def test_a_witness_killed_at_random_moments_never_signs_a_fork_or_a_smaller_tree(tmp_path: Path) -> None:
    campaign = kill_often(tmp_path, kill_count=60, seed=20)
    assert campaign.kill_count == 60
    assert len(campaign.signed) > 60, "it hardly signed anything, so this shows nothing"
    assert (campaign.fork_count, campaign.shrunk_count, campaign.behind_count) == (0, 0, 0)


def test_the_campaign_would_notice_a_fork_and_a_smaller_tree(tmp_path: Path) -> None:
    """The checker itself: two trees of one size, and one that is smaller, are counted."""
    from tests.integration.witness.kills import LOG, ORIGIN, Histories, _note_down

    from lichen.crypto.note import NoteKey, SignatureType, cosign_note
    from lichen.ledger.witness import AddCheckpoint

    histories, campaign = Histories(), Campaign()
    witness = NoteKey("w", LOG.public, SignatureType.COSIGNATURE_V1)
    for fork, size in [(0, 4), (1, 4), (0, 3)]:
        body = histories.request(fork, 0, size)
        note = SignedNote.from_text(AddCheckpoint.from_bytes(body).note)
        assert ORIGIN in note.text
        _note_down(campaign, body, cosign_note(note.text, "w", LOG, 5).line, witness)
    assert (campaign.fork_count, campaign.shrunk_count) == (1, 1)
