"""Kills a witness at random moments while two histories of one log compete for its cosignature.

Used by the test, with few kills, and by ``benchmarks/witness_kills.py``, with many.
"""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from lichen.crypto.keys import SigningKey
from lichen.crypto.note import NoteKey, SignedNote
from lichen.ledger.checkpoint import Checkpoint, sign_checkpoint
from lichen.ledger.proof import consistency_proof
from lichen.ledger.tree import leaf_hash, node_hash, split_point
from lichen.ledger.witness import AddCheckpoint
from lichen.ledger.witness_store import WitnessStore

LOG = SigningKey.from_seed(b"k" * 32)
ORIGIN = "lichen/" + "ef" * 32
DRIVER = Path(__file__).with_name("kill_driver.py")


class Histories:
    """Two logs that part after the first entry, and proofs in both; subtree roots are kept once computed."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int], bytes] = {}

    def subtree(self, fork: int, start: int, end: int) -> bytes:
        if end - start == 1:
            return leaf_hash(b"%d" % start if start == 0 or not fork else b"fork %d" % start)
        key = (fork, start, end)
        if key not in self._known:
            middle = start + split_point(end - start)
            left, right = self.subtree(fork, start, middle), self.subtree(fork, middle, end)
            self._known[key] = node_hash(left, right)
        return self._known[key]

    def request(self, fork: int, old: int, size: int) -> bytes:
        proof = consistency_proof(old, size, lambda start, end: self.subtree(fork, start, end))
        note = sign_checkpoint(Checkpoint(ORIGIN, size, self.subtree(fork, 0, size)), LOG)
        return AddCheckpoint(old, tuple(proof), note).to_bytes()


@dataclass
class Campaign:
    """What came of it.

    Attributes:
        kill_count: How often the witness was killed.
        signed: Size to root, of every cosignature that left it.
        answer_count: Answers that left it.
        behind_count: Restarts after which the record was behind a cosignature that had left; must be 0.
        fork_count: Cosignatures that contradict an earlier one; must be 0.
        shrunk_count: Cosignatures on a smaller tree than an earlier one; must be 0.
    """

    kill_count: int = 0
    signed: dict[int, bytes] = field(default_factory=dict)
    answer_count: int = 0
    behind_count: int = 0
    fork_count: int = 0
    shrunk_count: int = 0


def kill_often(directory: Path, kill_count: int, seed: int) -> Campaign:
    """Kill a witness ``kill_count`` times, each time at a random moment of its work.

    Args:
        directory: Where the witness and its marks may lie.
        kill_count: How often.
        seed: Of the random moments and requests.
    """
    generator = random.Random(seed)
    place, home = directory / "witness", directory / "home"
    with WitnessStore.create(place, "w", home=home) as store:
        store.add_log(NoteKey(ORIGIN, LOG.public))
        witness = store.identity.note_key
    campaign, histories = Campaign(), Histories()
    for _ in range(kill_count):
        _one_life(place, home, generator, histories, campaign, witness)
        with WitnessStore.open(place, home=home) as store:
            seen = store.records()[0].seen
        largest = max(campaign.signed, default=0)
        campaign.behind_count += seen.size < largest or (
            seen.size == largest and largest > 0 and seen.root != campaign.signed[largest]
        )
    return campaign


def _one_life(
    place: Path,
    home: Path,
    generator: random.Random,
    histories: Histories,
    campaign: Campaign,
    witness: NoteKey,
) -> None:
    """Start a witness, ask it as fast as it answers, and kill it some answers later, at any point of its work.

    How many answers come first is drawn, so that a slow machine does as much as a fast one; only the last step is time.
    """
    process = subprocess.Popen(
        [sys.executable, str(DRIVER), str(place), str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    timer = threading.Thread(target=_kill_later, args=(process, generator.expovariate(1 / 0.004)))
    left_count = generator.randrange(10)
    size = max(campaign.signed, default=0)
    with contextlib.suppress(BrokenPipeError):
        while True:
            if left_count == 0:
                timer.start()
            left_count -= 1
            fork, more = generator.randrange(2), generator.randrange(4)
            body = (
                histories.request(fork, size, size + more) if size + more else histories.request(fork, 0, 1)
            )
            process.stdin.write(len(body).to_bytes(4, "big") + body)
            process.stdin.flush()
            head = process.stdout.read(6)
            text = process.stdout.read(int.from_bytes(head[2:], "big")).decode()
            if len(head) < 6 or not text.endswith("\n"):
                break  # killed while it answered: what did not arrive whole is nobody's cosignature
            campaign.answer_count += 1
            status = int.from_bytes(head[:2], "big")
            if status == 200:
                size = _note_down(campaign, body, text, witness)
            elif status == 409:
                size = int(text)
    timer.join()
    campaign.kill_count += 1
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(BrokenPipeError):
            pipe.close()
    assert process.wait() == -signal.SIGKILL


def _note_down(campaign: Campaign, body: bytes, line: str, witness: NoteKey) -> int:
    note = AddCheckpoint.from_bytes(body).note
    SignedNote.from_text(note + line).cosigned_at(witness)
    checkpoint = Checkpoint.from_body(note.partition("\n\n")[0] + "\n")
    known = campaign.signed.setdefault(checkpoint.tree_size, checkpoint.root)
    campaign.fork_count += known != checkpoint.root
    campaign.shrunk_count += checkpoint.tree_size < max(campaign.signed)
    return checkpoint.tree_size


def _kill_later(process: subprocess.Popen[bytes], delay_seconds: float) -> None:
    time.sleep(delay_seconds)
    process.kill()
