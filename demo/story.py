"""The demo: hospitals, one chain, five practices; the report's story on real data, as commands that you can type.

Every line that starts with ``$`` is a command, run as shown in a scratch directory. What each act promises is checked,
so a demo that prints nice words over a broken ledger fails.

Usage: python demo/story.py [--keep DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HOSPITAL = Path(__file__).parent / "hospital"
LICHEN = str(Path(sys.executable).parent / "lichen")


class Broken(Exception):
    """An act did not keep its promise."""


@dataclass
class Stage:
    """Where the story plays: a scratch directory, and who is speaking."""

    root: Path
    member: str = "hospital-a"
    directory: Path = field(init=False)

    def __post_init__(self) -> None:
        self.directory = self.root / "hospital-a"

    def environment(self) -> dict[str, str]:
        """Return the environment of the member who acts."""
        drop = ("LICHEN_", "PYTHONPATH")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        tools = str(Path(sys.executable).parent)
        return {
            **kept,
            "PATH": tools + os.pathsep + kept.get("PATH", ""),
            "LICHEN_HOME": str(self.root / "home" / self.member),
            "LICHEN_MEMBER": self.member,
            **(
                {"LICHEN_LEDGER": str(self.root / "hospital-a" / ".lichen")}
                if self.member != "hospital-a"
                else {}
            ),
        }

    def type(self, line: str, *, expect: int = 0, lines_max: int = 24) -> str:
        """Type one command, show it and what it says, and return its standard output.

        Raises:
            Broken: The exit status is not the one expected.
        """
        shown = line if len(line) < 150 else line[:147] + "…"
        print(f"\n{self.member}$ {shown}", flush=True)
        started = time.monotonic()
        done = subprocess.run(
            ["bash", "-c", line] if any(sign in line for sign in "|>;") else shlex.split(line),
            cwd=self.directory,
            env=self.environment(),
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        seconds = time.monotonic() - started
        said = [text for text in (done.stdout.rstrip(), done.stderr.rstrip()) if text]
        lines = "\n".join(said).splitlines()
        for text in lines[:lines_max]:
            print(f"    {text}")
        if len(lines) > lines_max:
            print(f"    … {len(lines) - lines_max} more lines")
        print(
            f"    ({seconds:.2f} s{f', exit status {done.returncode}' if done.returncode else ''})",
            flush=True,
        )
        if done.returncode != expect:
            raise Broken(f"{line!r} ended with status {done.returncode}, {expect} was expected")
        return done.stdout

    def report(self, name: str) -> dict[str, object]:
        """Read a report that `lichen run --report` wrote."""
        value = json.loads((self.directory / name).read_text(encoding="utf-8"))
        assert isinstance(value, dict)
        return value


def say(text: str) -> None:
    """Tell the story."""
    print(f"\n{text}", flush=True)


def check(is_kept: bool, promise: str) -> None:
    """Stop the demo when a promise is not kept."""
    if not is_kept:
        raise Broken(promise)


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
    stage.type("lichen config set reuse.trust hospital-a")
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


ACTS = (act_1_publish, act_2_efficient, finale)


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
