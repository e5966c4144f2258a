"""A witness that answers requests from its standard input until it is killed; for the test that kills it.

Each request is its length in 4 bytes and its body; each answer is its status in 2 bytes, its length in 4 bytes and its text.
"""

from __future__ import annotations

import sys
from pathlib import Path

from lichen.ledger.witness import Refusal
from lichen.ledger.witness_store import WitnessStore


def main() -> None:
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    with WitnessStore.open(Path(sys.argv[1]), home=Path(sys.argv[2])) as store:
        sink.write(b"ready\n")
        sink.flush()
        while head := source.read(4):
            answer = store.add_checkpoint(source.read(int.from_bytes(head, "big")), 1_760_000_000)
            status, text = (int(answer.status), answer.body) if isinstance(answer, Refusal) else (200, answer)
            data = text.encode()
            sink.write(status.to_bytes(2, "big") + len(data).to_bytes(4, "big") + data)
            sink.flush()


if __name__ == "__main__":
    main()
