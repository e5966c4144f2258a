"""Make the mutation vectors: what each verifier must refuse, named after what was changed in something it accepts.

``python tools/mutation_vectors.py`` writes ``tests/vectors/mutations/``; ``--check`` says whether the files are what it would
write. Every vector is tried while it is made, so one that Lichen judges otherwise than its name says stops the program.

The proofs of the log's tree and of the state have their vectors in ``tests/vectors/ledger/``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from head_vectors import checkpoint_vectors, cosignature_vectors, receipt_vectors, seal_vectors
from record_vectors import Vector, ed25519_vectors, envelope_vectors, json_vectors, statement_vectors

HERE: Final = Path(__file__).resolve().parents[1] / "tests" / "vectors" / "mutations"

FAMILIES: Final[Mapping[str, Callable[[], Iterator[Vector]]]] = {
    "canonical-json": json_vectors,
    "checkpoints": checkpoint_vectors,
    "cosignatures": cosignature_vectors,
    "ed25519": ed25519_vectors,
    "envelopes": envelope_vectors,
    "receipts": receipt_vectors,
    "seals": seal_vectors,
    "statements": statement_vectors,
}


def text_of(family: str) -> str:
    """Content of a family's file."""
    return json.dumps(list(FAMILIES[family]()), indent=1, sort_keys=True) + "\n"


def main() -> int:
    """Write the files, or compare them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only compare")
    wanted = parser.parse_args()
    stale = []
    for family in FAMILIES:
        path, text = HERE / f"{family}.json", text_of(family)
        if not wanted.check:
            HERE.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(path.name)
    if stale:
        print(f"not what this program writes: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
