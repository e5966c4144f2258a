"""The demo: hospitals, one chain, five practices; the report's story on real data, as commands that you can type.

Every line that starts with ``$`` is a command, run as shown in a scratch directory. What each act promises is checked,
so a demo that prints nice words over a broken ledger fails.

Usage: python demo/story.py [--keep DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path

from auditor import interlude_auditor
from stage import Broken, Stage, check, say

HOSPITAL = Path(__file__).parent / "hospital"
RUN = r"lichen run --report report.json --metric 'accuracy=held-out accuracy: ([\d.]+)'"


def act_1_publish(stage: Stage) -> None:
    """Publish AI components: every run with its joules, also those that fail."""
    say("═══ Act 1 · Publish AI components: nobody trains the same thing twice ═══")
    say("Hospital A opens a ledger: one directory, no server, no chain to pay for.")
    stage.type("lichen init --name hospitals --member hospital-a")
    stage.type("python export_clinic.py clinic.csv")
    stage.type("lichen publish data clinic.csv --title 'tumour clinic' --licence CC-BY-4.0")
    say("It trains. The script is plain: it does not know Lichen.")
    stage.type(f"{RUN} -- python train.py --max-depth 6")
    first = stage.report("report.json")
    check(
        first["status"] == "trained" and first["reusable"] is True, "the first run is recorded and reusable"
    )
    check(bool(first["energy_joules"]), "the first run has joules")
    say("An attempt that misses its target, and one that crashes: both are on record with their cost.")
    stage.type(f"{RUN} --target accuracy=0.97 -- python train.py --max-depth 1")
    check(
        stage.report("report.json")["status"] == "missed", "an attempt below its target is recorded as such"
    )
    stage.type(f"{RUN} -- python train.py --max-depth -3", expect=1, lines_max=8)
    check(stage.report("report.json")["status"] == "failed", "a crash is recorded as failed")
    say("The same command again: the model is deleted first, and comes back from the ledger.")
    shutil.rmtree(stage.directory / "model")
    started = time.monotonic()
    stage.type(f"{RUN} -- python train.py --max-depth 6")
    seconds = time.monotonic() - started
    again = stage.report("report.json")
    check(
        again["status"] == "hit" and bool(again["avoided_joules"]),
        "equal work is answered, and the joules are booked",
    )
    check((stage.directory / "model" / "forest.joblib").exists(), "the model is back")
    say(f"Answered in {seconds:.2f} s instead of {first['duration_seconds']:.1f} s, with a verified receipt.")
    _colleague(stage)
    say("One parameter changed: that is new work. The nearest earlier work is shown, then it is trained.")
    stage.type(f"{RUN} -- python train.py --max-depth 5")
    check(stage.report("report.json")["status"] == "trained", "changed work is done anew")


def _colleague(stage: Stage) -> None:
    """A colleague in another directory, with a key of her own."""
    say("A colleague has her own checkout elsewhere and her own key. Hospital A admits her.")
    home, stage.member, stage.directory = stage.directory, "ada", stage.root / "elsewhere" / "ada"
    shutil.copytree(
        home, stage.directory, ignore=shutil.ignore_patterns(".lichen", "model", "report.json", "__pycache__")
    )
    stage.type("lichen key make ada")
    key = stage.type("lichen key show ada --public").strip().splitlines()[-1]
    stage.member, stage.directory = "hospital-a", home
    stage.type(f"lichen key admit ada {key}")
    stage.member, stage.directory = "ada", stage.root / "elsewhere" / "ada"
    say("A model is code in disguise, so another author's result is taken only from those she trusts.")
    stage.type("lichen config add reuse.trust hospital-a")
    stage.type(f"{RUN} --out model -- python train.py --max-depth 6")
    hers = stage.report("report.json")
    check(hers["status"] == "hit" and hers["author"] == "hospital-a", "a trusted colleague's work answers")
    stage.member, stage.directory = "hospital-a", home


def act_2_efficient(stage: Stage) -> None:
    """Efficient publishing: hashes in the ledger, artefacts beside it."""
    say("═══ Act 2 · Efficient publishing: the ledger holds hashes, the model lies beside it ═══")
    stage.type("lichen publish model model/forest.joblib --title 'tumour forest'")
    told = json.loads(stage.type("lichen find --kind model --json", lines_max=12))
    model = told[0] if isinstance(told, list) else told["results"][0]
    entry = json.loads(stage.type(f"lichen show {model['index']} --json", lines_max=3))
    size = (stage.directory / "model" / "forest.joblib").stat().st_size
    say(
        f"In the ledger: {entry['size_bytes']} bytes. The model: {size} bytes, by its content id {model['cid']}."
    )
    check(entry["size_bytes"] <= 1280, "an entry is near one kilobyte")
    stage.type(f"lichen get {model['cid']} --output fetched.joblib")
    same = (stage.directory / "fetched.joblib").read_bytes() == (
        stage.directory / "model" / "forest.joblib"
    ).read_bytes()
    check(same, "what is fetched by its content id is the model, byte for byte")


def finale(stage: Stage) -> None:
    """What is on record, whether it holds, and what it was worth."""
    say("═══ What is on record, does it hold, was it worth it? ═══")
    stage.type("lichen log")
    stage.type("lichen verify")
    stage.type("lichen balance")
    told = json.loads(stage.type("lichen balance --json", lines_max=0))
    check(told["net_joules"] > 0, "the ledger avoided more than it spent")


ACTS = (act_1_publish, act_2_efficient, interlude_auditor, finale)


def main() -> int:
    """Play every act."""
    parser = argparse.ArgumentParser(description="Hospitals, one chain, five practices.")
    parser.add_argument("--keep", type=Path, help="play here, and leave everything for a look")
    arguments = parser.parse_args()
    root = arguments.keep or Path(tempfile.mkdtemp(prefix="lichen-demo-"))
    started = time.monotonic()
    try:
        shutil.copytree(HOSPITAL, root / "hospital-a", ignore=shutil.ignore_patterns("__pycache__"))
        stage = Stage(root)
        for act in ACTS:
            act(stage)
    except Broken as broken:
        print(f"\nThe demo is broken: {broken}", file=sys.stderr)
        return 1
    finally:
        if arguments.keep is None:
            shutil.rmtree(root, ignore_errors=True)
    say(
        f"The story took {time.monotonic() - started:.0f} s. Play it where you can look around: python demo/story.py --keep DIR"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
