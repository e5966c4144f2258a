"""One process of a distributed run, as `lichen run` would be: the other ranks in the tests of the rendezvous.

Usage: rank_driver.py DIRECTORY REPORT [SECONDS]; rank 0 writes what it collected to REPORT.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from lichen.runs.distributed.ranks import detect_rank
from lichen.runs.distributed.rendezvous import RankPart, Rendezvous


def main() -> None:
    directory, report = Path(sys.argv[1]), Path(sys.argv[2])
    rank = detect_rank()
    assert rank is not None
    meeting = Rendezvous(directory, rank)
    decision = meeting.agree(f"proposed by {rank.index}")
    time.sleep(float(sys.argv[3]) if len(sys.argv) > 3 else 0.0)
    if rank.is_first:
        while len(list((meeting.path / "announced").iterdir())) < rank.count:
            time.sleep(0.01)  # in this test all of them come
        joined = meeting.collect(20)
        meeting.close("run-0", joined)
        said = {
            "ranks": [part.rank for part in joined.parts],
            "missing": joined.missing,
            "decision": decision,
        }
        said["decisions"] = sorted({part.usage["decision"] for part in joined.parts})
        report.write_text(json.dumps(said))
    else:
        meeting.leave(RankPart(rank.index, "here", 0, 1, 0, False, {"decision": decision}))


main()
