"""Kills a witness many times at random moments, while two histories of one log compete for its cosignature.

The tests do the same sixty times. Whatever left the witness must be on record after each restart, and no two
cosignatures may contradict each other.

    python benchmarks/witness_kills.py --kills 1000
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from harness import write_result

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> int:
    from tests.integration.witness.kills import kill_often

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        campaign = kill_often(Path(directory), options.kills, options.seed)
    write_result(
        "witness_kills",
        {
            "kill_count": campaign.kill_count,
            "answer_count": campaign.answer_count,
            "cosigned_size_count": len(campaign.signed),
            "fork_count": campaign.fork_count,
            "smaller_tree_count": campaign.shrunk_count,
            "record_behind_count": campaign.behind_count,
            "minutes": (time.perf_counter() - started) / 60,
        },
        bars={
            "fork_count": "0",
            "smaller_tree_count": "0",
            "record_behind_count": "0",
            "kill_count": "1,000",
        },
    )
    return 1 if campaign.fork_count + campaign.shrunk_count + campaign.behind_count else 0


if __name__ == "__main__":
    sys.exit(main())
