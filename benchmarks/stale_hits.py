"""The stale-hit campaign: random mutations of everything a run can depend on, and a hunt for wrong hits. Bar: 0 wrong in 2,000.

For each script of the corpus: record a base run; then, again and again, change something at random (code, modules, data, listings, links,
variables, standard input, installed versions, builds of the same version, path files, programs on PATH, or something irrelevant), ask
the ledger, and run the script plainly in the same state to learn the truth. A hit whose outcome differs from the truth is a wrong
hit. Some hits are really taken, and what they restore and print is compared too. Now and then the new state is recorded, so that
later states have more runs to be confused with. Of the misses, those count as missed hits whose outcome some recorded run has; they
are told by class of mutation and by the section of the manifest that differed.

A second part edits inputs *while* a recorded run is under way, at moments that are certain: see `stale_edits`.

Interrupted, the campaign goes on where it was when it is started again with the same ``--resume`` file. ``--each`` tries every mutation
of every script once instead of choosing at random.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Collection
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import commit, write_result
from stale_corpus import CASES, Case
from stale_edits import MOMENTS, SCRIPTS, edits_during_runs
from stale_hostile import HOSTILE
from stale_mutations import IRRELEVANT, mutations_of
from stale_scene import Scene, Told, Truth, campaign_environment

_TAKEN_SHARE = 0.15  # of the hits, which are really taken
_RECORDED_SHARE = 0.08  # of the misses, after which the new state is recorded
_UNDONE_SHARE = 0.8  # of the mutations, which are taken back afterwards


@dataclass
class Tally:
    """What came of some trials; tallies add up.

    Args:
        counts: Totals by name.
        classes: By class of mutation, how often each thing came of it; a trial of two mutations counts for both.
        missed: Missed hits by class of mutation and section that differed.
        wrong: Every wrong hit.
        unusable: Scripts whose base run may not answer, with the reasons.
    """

    counts: Counter[str] = field(default_factory=Counter)
    classes: dict[str, Counter[str]] = field(default_factory=dict)
    missed: Counter[str] = field(default_factory=Counter)
    wrong: list[dict[str, Any]] = field(default_factory=list)
    unusable: dict[str, str] = field(default_factory=dict)

    def count(self, labels: list[str], what: str) -> None:
        """Count one trial."""
        self.counts["trials"] += 1
        self.counts[what] += 1
        for label in dict.fromkeys(labels):
            self.classes.setdefault(label, Counter())[what] += 1

    def add(self, other: Tally) -> None:
        """Take in another tally."""
        self.counts.update(other.counts)
        for label, counter in other.classes.items():
            self.classes.setdefault(label, Counter()).update(counter)
        self.missed.update(other.missed)
        self.wrong += other.wrong
        self.unusable |= other.unusable

    def to_json(self) -> dict[str, Any]:
        """Return it for a file."""
        return {
            "wrong_hits": len(self.wrong), "wrong": self.wrong, "counts": dict(sorted(self.counts.items())),
            "classes": {label: dict(sorted(counter.items())) for label, counter in sorted(self.classes.items())},
            "missed_hits": dict(self.missed.most_common()), "scripts_that_may_not_answer": dict(sorted(self.unusable.items())),
        }  # fmt: skip

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Tally:
        """Read it from a file."""
        return cls(
            Counter(value["counts"]), {label: Counter(counter) for label, counter in value["classes"].items()},
            Counter(value["missed_hits"]), list(value["wrong"]), dict(value["scripts_that_may_not_answer"]),
        )  # fmt: skip


def judge(scene: Scene, labels: list[str], told: Told, truth: Truth, known: set[Truth], tally: Tally) -> None:
    """Compare what the ledger said with the truth."""
    if told.kind == "hit" and (told.promised, told.exit_status) != (truth.made, truth.exit_status):
        tally.count(labels, "wrong hit")
        tally.wrong.append(
            {"script": scene.case.name, "mutations": labels, "record": told.record, "by": "look-up"}
        )
    elif told.kind == "hit":
        tally.count(labels, "right hit")
    elif truth not in known:
        tally.count(labels, "right miss")
    elif set(labels) <= IRRELEVANT:
        tally.count(labels, "missed hit")
        tally.missed[f"{'+'.join(sorted(set(labels)))}: {told.section}: {told.why[:120]}"] += 1
    else:
        tally.count(labels, "miss with an outcome known by chance or from an equal state")
        tally.missed[f"(relevant change, equal outcome) {'+'.join(sorted(set(labels)))}: {told.section}"] += 1


def take(scene: Scene, labels: list[str], truth: Truth, tally: Tally) -> None:
    """Really take a hit, and compare what it restores and prints."""
    report = scene.record(rerun=False)
    scene.clear_outputs()
    tally.counts["hits really taken"] += 1
    found = Truth(
        int(str(report["exit_status"])) if "exit_status" in report else truth.exit_status,
        str(report["made"]),
        str(report["printed"]),
    )
    if report["status"] != "hit" or found != truth:
        what = [name for name in ("made", "printed") if getattr(found, name) != getattr(truth, name)]
        tally.wrong.append(
            {
                "script": scene.case.name,
                "mutations": labels,
                "record": report["record"],
                "by": f"taking it: {what}",
            }
        )


def make_scene(case: Case, root: Path, seed: str) -> Scene:
    """Lay a case out."""
    scene = Scene(case, root, random.Random(seed), campaign_environment(root))
    scene.lay_out()
    return scene


def run_case(
    case: Case, root: Path, trials: int, seed: int, *, each: bool, classes: Collection[str] = ()
) -> Tally:
    """Try a script.

    Args:
        case: The script.
        root: Directory to work in; it is removed.
        trials: How many random trials; unless ``each``.
        seed: Of the random choices.
        each: Try every mutation once from the base state instead.
        classes: Only these classes of mutation; all of them when empty.
    """
    tally = Tally()
    scene = make_scene(case, root, f"{seed}/{case.name}")
    base = scene.record()
    if not base["reusable"]:
        tally.unusable[case.name] = json.dumps(base["reasons"]).replace(str(root), "…")
    known = {scene.truth()}
    if base["made"] != scene.truth().made:
        tally.wrong.append(
            {"script": case.name, "mutations": [], "record": base["record"], "by": "recording it"}
        )
    mutations = {
        label: mutate for label, mutate in mutations_of(case).items() if not classes or label in classes
    }
    plan = [[label] for label in sorted(mutations)] if each else None
    for number in range(len(plan) if plan else trials):
        labels = (
            plan[number]
            if plan
            else [scene.rng.choice(sorted(mutations)) for _ in range(scene.rng.choice([1, 1, 1, 2]))]
        )
        undos = [mutations[label](scene) for label in labels]
        told, truth = scene.ask(), scene.truth()
        judge(scene, labels, told, truth, known, tally)
        if told.kind == "hit" and (each or scene.rng.random() < _TAKEN_SHARE):
            take(scene, labels, truth, tally)
        elif told.kind != "hit" and not each and scene.rng.random() < _RECORDED_SHARE:
            report = scene.record()
            tally.counts["states recorded"] += 1
            if report["reusable"] and report["made"] != truth.made:
                tally.wrong.append(
                    {
                        "script": case.name,
                        "mutations": labels,
                        "record": report["record"],
                        "by": "recording it",
                    }
                )
            if report["reusable"]:
                known.add(truth)
        if each or scene.rng.random() < _UNDONE_SHARE:
            for undo in reversed(undos):
                undo()
    shutil.rmtree(root)
    return tally


def try_edits(root: Path, first: int, count: int, seed: int, names: Collection[str] = ()) -> Tally:
    """Edit inputs while recorded runs are under way, and count what came of it by moment.

    Args:
        root: Directory to work in; it is removed.
        first: Number of the first edit.
        count: How many.
        seed: Of the random choices.
        names: Only these scripts; all of them when empty.
    """
    tally = Tally()
    for scene, edit, told in edits_during_runs(root, first, count, seed, names):
        answer, truth = scene.ask(), scene.truth()
        is_wrong = answer.kind == "hit" and (answer.promised, answer.exit_status) != (
            truth.made,
            truth.exit_status,
        )
        came = "wrong hit" if is_wrong else "right hit" if answer.kind == "hit" else "miss"
        counter = tally.classes.setdefault(f"edited {MOMENTS[edit.moment]}", Counter())
        counter.update(
            ["edits", came, "recorded as reusable" if told["reusable"] else "recorded as not reusable"]
        )
        if edit.back is not None:
            counter["taken back " + ("at once" if edit.back == edit.moment else MOMENTS[edit.back])] += 1
        tally.counts["edits during runs"] += 1
        if is_wrong:
            how = f"{edit.target} {edit.way} {MOMENTS[edit.moment]}" + (
                f", taken back {MOMENTS[edit.back]}" if edit.back else ""
            )
            tally.wrong.append(
                {"script": scene.case.name, "mutations": [how], "record": answer.record, "by": "look-up"}
            )
    return tally


def jobs_of(arguments: argparse.Namespace) -> dict[str, tuple[Case | None, int]]:
    """Give the units of work by name: a script with its share of the trials, or a number of edits."""
    cases = [case for case in (*CASES, *HOSTILE) if not arguments.cases or case.name in arguments.cases]
    share, rest = divmod(arguments.trials, max(1, len(cases)))
    units: dict[str, tuple[Case | None, int]] = {
        case.name: (case, share + (number < rest))
        for number, case in enumerate(cases)
        if arguments.trials or arguments.each
    }
    for number in range(0, arguments.edits, 20):
        units[f"edits {number}"] = (None, min(20, arguments.edits - number))
    return units


def work(
    name: str, case_name: str | None, count: int, arguments: argparse.Namespace
) -> tuple[str, dict[str, Any]]:
    """Do one unit in a process of its own."""
    seed = arguments.seed
    place = Path(tempfile.mkdtemp(prefix="lichen-stale-"))
    try:
        if case_name is None:
            edited = [script.name for script in SCRIPTS if script.name in (arguments.cases or ())]
            return name, try_edits(place / "w", int(name.split()[1]), count, seed, edited).to_json()
        case = next(case for case in (*CASES, *HOSTILE) if case.name == case_name)
        return name, run_case(
            case, place / "w", count, seed, each=arguments.each, classes=arguments.classes
        ).to_json()
    finally:
        shutil.rmtree(place, ignore_errors=True)


def read_progress(path: Path | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Read what an interrupted campaign of the same seed and size has done, unit by unit."""
    head = {
        "seed": arguments.seed,
        "trials": arguments.trials,
        "edits": arguments.edits,
        "each": arguments.each,
        "classes": arguments.classes,
        "commit": commit().rstrip("+"),
    }
    if path is not None and path.exists():
        progress = json.loads(path.read_text())
        if progress["head"] == head:
            return dict(progress)
        raise SystemExit(f"{path} is of another campaign: {progress['head']}; remove it or name another file")
    return {"head": head, "units": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--edits", type=int, default=120, help="edits during recorded runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", action="store_true", help="every mutation of every script once")
    parser.add_argument("--classes", nargs="*", default=[], help="only these classes of mutation")
    parser.add_argument("--cases", nargs="*", help="only these scripts")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--minutes", type=float, default=None, help="begin no script after this time")
    parser.add_argument(
        "--resume", type=Path, default=None, help="file with the progress, made when it is not there"
    )
    parser.add_argument("--no-result", action="store_true", help="print only")
    arguments = parser.parse_args()
    units, progress = jobs_of(arguments), read_progress(arguments.resume, arguments)
    begun = time.monotonic()
    left = [name for name in units if name not in progress["units"]]
    random.Random(arguments.seed).shuffle(left)  # what is done when time runs out is a fair sample
    failures: dict[str, str] = {}
    with ProcessPoolExecutor(arguments.jobs) as pool:
        waiting: dict[Future[tuple[str, dict[str, Any]]], str] = {}
        while left or waiting:
            while left and len(waiting) < arguments.jobs:
                name = left.pop()
                if arguments.minutes is not None and time.monotonic() - begun > arguments.minutes * 60:
                    left.clear()
                    break
                case, count = units[name]
                waiting[pool.submit(work, name, case.name if case else None, count, arguments)] = name
            for future in as_completed(list(waiting)):
                name = waiting.pop(future)
                try:
                    progress["units"][name] = future.result()[1]
                except Exception as error:  # one script that cannot be tried must not end the campaign
                    failures[name] = f"{type(error).__name__}: {error}"[:300]
                if arguments.resume is not None:
                    arguments.resume.write_text(json.dumps(progress, indent=1))
                wrong = sum(unit["wrong_hits"] for unit in progress["units"].values())
                print(
                    f"{len(progress['units'])}/{len(units)} {name}: {wrong} wrong so far",
                    file=sys.stderr,
                    flush=True,
                )
                break
    total = Tally()
    for name in sorted(progress["units"]):
        total.add(Tally.from_json(progress["units"][name]))
    figures = {
        **total.to_json(),
        "scripts": len(progress["units"]),
        "scripts_planned": len(units),
        "failures": failures,
    }
    if arguments.no_result:
        print(json.dumps(figures, indent=2))
    else:
        only_edits = not arguments.trials and not arguments.each
        write_result(
            "stale_edits" if only_edits else "stale_hits",
            figures,
            bars={
                "wrong_hits": "0 in 100 edits"
                if only_edits
                else "0 in 2,000 mutations of at least 30 scripts"
            },
            notes=NOTES,
        )
    raise SystemExit(1 if total.wrong or failures else 0)


NOTES = (
    "The truth of each state is learnt by running the plain command in the mutated world; that of a state already seen is remembered.",
    "A trial applies one or two mutations; in the table of classes a trial of two counts for both.",
    "Classes that begin with `edited` are edits while a recorded run was under way, by the moment at which the edit fell for certain.",
)

if __name__ == "__main__":
    main()
