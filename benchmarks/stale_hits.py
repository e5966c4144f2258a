"""The stale-hit campaign: random mutations of everything a run can depend on, and a hunt for wrong hits. Bar: 0 wrong in 2,000.

For each of thirty scripts: record a base run; then, again and again, change something at random (code, an imported module, data, a
listing, a variable, a path that was looked for in vain, a module that could shadow another, an installed version, or something irrelevant),
ask the ledger, and run the script plainly in the same state to learn the truth. A hit whose outputs differ from the truth is a wrong hit.
A miss although some recorded run has the true outputs *and* nothing relevant differs is a missed hit; those are counted by
mutation and explained. Now and then the new state is recorded too, so that later states have more runs to be confused with.

A second part edits inputs *while* a recorded run is reading them: what is then recorded as reusable must equal the truth of the state
that is on disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness import write_result
from stale_corpus import CASES, Case

LICHEN = str(Path(sys.executable).parent / "lichen")


@dataclass
class Scene:
    """One case laid out in a project of its own."""

    case: Case
    root: Path
    rng: random.Random
    environment: dict[str, str]
    variables: dict[str, str] = field(default_factory=dict)
    truths: dict[str, tuple[int, str]] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    def path(self, name: str) -> Path:
        return self.outside / name[1:] if name.startswith("@") else self.project / name

    def lay_out(self) -> None:
        for directory in (self.project, self.outside):
            directory.mkdir(parents=True)
        for name, source in self.case.code.items():
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            self.path(name).write_text(source)
        for name, writer in self.case.data.items():
            self.path(name).parent.mkdir(parents=True, exist_ok=True)
            writer(self.path(name), 1)
        self.lichen("init", "--member", "campaign")

    def command(self) -> list[str]:
        program = self.case.program or sys.executable
        return [program, *(word.replace("{outside}", str(self.outside)) for word in self.case.argv)]

    def full_environment(self) -> dict[str, str]:
        return {**self.environment, **self.variables}

    def lichen(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [LICHEN, *words], cwd=self.project, env=self.full_environment(), capture_output=True, text=True,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip

    def record(self) -> dict[str, object]:
        """Record the present state with `lichen run`; return its report."""
        shutil.rmtree(self.project / "out", ignore_errors=True)
        report = self.root / "report.json"
        report.unlink(missing_ok=True)
        done = self.lichen("run", "--rerun", "--exit-ok", "--report", str(report), "--", *self.command())
        if not report.exists():
            raise RuntimeError(f"{self.case.name}: {done.stderr}")
        told: dict[str, object] = json.loads(report.read_text())
        return told

    def state(self) -> str:
        """Digest everything a script can see of its scene: files by name and content, variables."""
        shutil.rmtree(self.project / "out", ignore_errors=True)
        digest = hashlib.sha256(repr(sorted(self.variables.items())).encode())
        for root in (self.project, self.outside):
            for path in sorted(root.rglob("*")):
                if path.is_file() and not {".lichen", "__pycache__"} & set(path.parts):
                    digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
        return digest.hexdigest()

    def truth(self) -> tuple[int, str]:
        """Return the exit status of the plain script and a digest of what it makes; run once for each state."""
        state = self.state()
        if state not in self.truths:
            self.truths[state] = self.run_plainly()
        return self.truths[state]

    def run_plainly(self) -> tuple[int, str]:
        """Run the script without Lichen."""
        shutil.rmtree(self.project / "out", ignore_errors=True)
        done = subprocess.run(
            self.command(), cwd=self.project, env={**self.full_environment(), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        made = self.outcome()
        shutil.rmtree(self.project / "out", ignore_errors=True)
        return done.returncode, made

    def outcome(self) -> str:
        result = self.project / "out" / "result.txt"
        return hashlib.sha256(result.read_bytes()).hexdigest() if result.exists() else "nothing"


def ask(scene: Scene) -> tuple[str, int | None, str, str]:
    """Ask the ledger in process: kind of answer, record, outcome it would restore, first difference."""
    from lichen.runs.request import RunRequest
    from lichen.runs.why import explain
    from lichen.runs.workspace import Workspace

    shutil.rmtree(scene.project / "out", ignore_errors=True)
    before, directory = dict(os.environ), Path.cwd()
    os.environ.clear()
    os.environ.update(scene.full_environment())
    os.chdir(scene.project)
    try:
        with Workspace.find() as workspace:
            told = explain(workspace, RunRequest(argv=tuple(scene.command()), exit_ok=True))
            answer = told.answer
            if answer.kind != "hit" or answer.manifest is None or answer.run is None:
                return answer.kind, None, "", " ".join(told.lines)
            stored = {output.name: output.sha256 for output in answer.manifest.outputs}
            made = stored.get("{project}/out/result.txt")
            return "hit", answer.run.index, made.hex() if made else "nothing", ""
    finally:
        os.chdir(directory)
        os.environ.clear()
        os.environ.update(before)


# -- mutations: each changes the scene and returns how to take it back -------------------------------------------------

Undo = Callable[[], None]


def _rewrite(path: Path, content: bytes | None) -> Undo:
    """Write (or remove) a file; return how to put back what was there."""
    before = path.read_bytes() if path.is_file() else None

    def undo() -> None:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)

    if content is None:
        path.unlink(missing_ok=True)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return undo


def change_code(scene: Scene) -> Undo:
    names = [name for name, source in scene.case.code.items() if "K = 1" in source or "K=1" in source]
    path = scene.path(scene.rng.choice(names))
    value = scene.rng.randrange(2, 9)
    text = path.read_text()
    changed = "".join(
        line.split("=")[0] + ("= " if " = " in line else "=") + str(value) + "\n"
        if line.startswith(("K = ", "K=")) and "K +" not in line
        else line
        for line in text.splitlines(keepends=True)
    )
    return _rewrite(path, changed.encode())


def change_data(scene: Scene) -> Undo:
    name, writer = scene.rng.choice(sorted(scene.case.data.items()))
    path = scene.path(name)
    undo = _rewrite(path, path.read_bytes() if path.exists() else b"")
    writer(path, scene.rng.randrange(2, 6))
    return undo


def change_data_keeping_times(scene: Scene) -> Undo:
    """Same size when the format allows, and the old modification time: what a sloppy cache key would miss."""
    name = scene.rng.choice(sorted(scene.case.data))
    path = scene.path(name)
    info = path.stat() if path.exists() else None
    undo = change_data(scene)
    if info is not None and path.exists():
        os.utime(path, ns=(info.st_atime_ns, info.st_mtime_ns))
    return undo


def delete_data(scene: Scene) -> Undo:
    return _rewrite(scene.path(scene.rng.choice(sorted(scene.case.data))), None)


def add_to_listing(scene: Scene) -> Undo:
    directory = scene.path(scene.rng.choice(scene.case.listed))
    ending = "py" if scene.case.name == "plugins" else "txt"
    return _rewrite(directory / f"new_{scene.rng.randrange(3)}.{ending}", b"def f(x): return 1\n")


def make_absent(scene: Scene) -> Undo:
    name, content = scene.rng.choice(sorted(scene.case.absent.items()))
    return _rewrite(scene.path(name), content.encode())


def set_variable(scene: Scene) -> Undo:
    name = scene.rng.choice(scene.case.variables)
    before = dict(scene.variables)

    def undo() -> None:
        scene.variables.clear()
        scene.variables.update(before)

    if name in scene.variables and scene.rng.random() < 0.3:
        del scene.variables[name]
    else:
        scene.variables[name] = str(scene.rng.randrange(4))
    return undo


def shadow_module(scene: Scene) -> Undo:
    name = scene.rng.choice(["hashlib", "pathlib", "json", "helper2", "random"])
    return _rewrite(scene.path(f"{name}.py"), b"raise SystemExit(7)\n" if name != "helper2" else b"")


def touch_something(scene: Scene) -> Undo:
    """Irrelevant: new modification times, same content."""
    for name in (*scene.case.code, *scene.case.data):
        if scene.path(name).exists():
            os.utime(scene.path(name))
    return lambda: None


def add_unrelated(scene: Scene) -> Undo:
    """Irrelevant: files and variables nobody looks at."""
    before = dict(scene.variables)
    scene.variables[f"UNRELATED_{scene.rng.randrange(3)}"] = "x"
    undo = _rewrite(scene.root / "project" / "unrelated" / f"{scene.rng.randrange(3)}.md", b"note")

    def both() -> None:
        undo()
        scene.variables.clear()
        scene.variables.update(before)

    return both


def rewrite_equal(scene: Scene) -> Undo:
    """Irrelevant: every file written again with the same bytes."""
    for name in (*scene.case.code, *scene.case.data):
        path = scene.path(name)
        if path.exists():
            path.write_bytes(path.read_bytes())
    return lambda: None


MUTATIONS: dict[str, tuple[Callable[[Scene], Undo], Callable[[Case], bool]]] = {
    "change_code": (change_code, lambda _case: True),
    "change_data": (change_data, lambda case: bool(case.data)),
    "change_data_keeping_times": (change_data_keeping_times, lambda case: bool(case.data)),
    "delete_data": (delete_data, lambda case: bool(case.data)),
    "add_to_listing": (add_to_listing, lambda case: bool(case.listed)),
    "make_absent": (make_absent, lambda case: bool(case.absent)),
    "set_variable": (set_variable, lambda case: bool(case.variables)),
    "shadow_module": (shadow_module, lambda case: case.program is None),
    "touch_something": (touch_something, lambda _case: True),
    "add_unrelated": (add_unrelated, lambda _case: True),
    "rewrite_equal": (rewrite_equal, lambda _case: True),
}
IRRELEVANT = {"touch_something", "add_unrelated", "rewrite_equal", "nothing"}


def run_case(
    case: Case, root: Path, trials: int, seed: int, tally: Counter[str], wrong: list[dict[str, object]]
) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LICHEN_")}
    environment["LICHEN_HOME"] = str(root / "home")
    scene = Scene(case, root, random.Random(f"{seed}/{case.name}"), environment)
    scene.lay_out()
    base = scene.record()
    if not base["reusable"]:
        tally["base run not reusable"] += 1
        tally[f"not reusable: {case.name}: {base['reasons']}"] += 1
    known = {scene.truth()}
    for _ in range(trials):
        undos: list[Undo] = []
        labels = []
        for _ in range(scene.rng.choice([1, 1, 1, 2])):
            usable = [label for label, (_, applies) in MUTATIONS.items() if applies(case)]
            label = scene.rng.choice(usable)
            undos.append(MUTATIONS[label][0](scene))
            labels.append(label)
        kind, record, promised, why = ask(scene)
        truth = scene.truth()
        tally["trials"] += 1
        tally[f"answer: {kind}"] += 1
        if kind == "hit" and promised != truth[1]:
            wrong.append(
                {
                    "case": case.name,
                    "mutations": labels,
                    "record": record,
                    "truth": truth[1][:12],
                    "promised": promised[:12],
                }
            )
            tally["wrong"] += 1
        elif kind == "hit":
            tally["right hits"] += 1
        elif truth in known and set(labels) <= IRRELEVANT:
            tally["missed although nothing relevant changed"] += 1
            tally[f"missed: {'+'.join(labels)}: {case.name}: {why[:110]}"] += 1
        elif truth in known:
            tally["missed, outcome equal by chance or by an equal earlier state"] += 1
        if kind != "hit" and scene.rng.random() < 0.08:
            told = scene.record()
            if told["reusable"] and scene.outcome() != truth[1]:
                wrong.append(
                    {
                        "case": case.name,
                        "mutations": labels,
                        "recorded": told["record"],
                        "why": "recorded outcome is not the truth",
                    }
                )
            known.add(truth)
        if scene.rng.random() < 0.8:
            for undo in reversed(undos):
                undo()
    shutil.rmtree(root)


def edits_during_runs(
    root: Path, count: int, seed: int, tally: Counter[str], wrong: list[dict[str, object]]
) -> None:
    """Edit an input while a recorded run reads it slowly."""
    body = (
        "import time\nfirst = open('d.txt').read()\ntime.sleep(0.25)\nfrom helper import f\nsecond = open('d.txt').read()\n"
        "time.sleep(0.1)\nsave(first, second, f(1), sorted(os.listdir('items')))\n"
    )
    from stale_corpus import HEAD, MODULE, write_text

    case = Case(
        "edited",
        ("main.py",),
        {"main.py": HEAD + body, "helper.py": MODULE},
        data={"d.txt": write_text, "items/x.txt": write_text},
        listed=("items",),
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LICHEN_")}
    environment["LICHEN_HOME"] = str(root / "home")
    rng = random.Random(seed)
    scene = Scene(case, root, rng, environment)
    scene.lay_out()
    for number in range(count):
        delay = rng.uniform(0.2, 1.8)
        target, content = rng.choice(
            [
                ("d.txt", f"edited {number}"),
                ("helper.py", MODULE.replace("K = 1", f"K = {number + 2}")),
                (f"items/{number}.txt", "new"),
                ("main.py", case.code["main.py"] + f"# {number}\n"),
            ]
        )

        def edit(path: Path, text: str, wait: float) -> None:
            time.sleep(wait)
            path.write_text(text)

        editor = threading.Thread(target=edit, args=(scene.path(target), content, delay))
        editor.start()
        told = scene.record()
        recorded = scene.outcome()
        editor.join()
        truth = scene.truth()
        tally["edited during the run"] += 1
        tally[f"edited: {'reusable' if told['reusable'] else 'not reusable'}"] += 1
        if told["reusable"]:
            kind, _, promised, _ = ask(scene)
            if kind == "hit" and promised != truth[1]:
                wrong.append(
                    {"case": "edited during run", "target": target, "delay": delay, "recorded": recorded[:12]}
                )
    shutil.rmtree(root)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", nargs="*", help="only these")
    parser.add_argument("--no-result", action="store_true", help="print only")
    arguments = parser.parse_args()
    cases = [case for case in CASES if not arguments.cases or case.name in arguments.cases]
    tally: Counter[str] = Counter()
    wrong: list[dict[str, object]] = []
    place = Path(tempfile.mkdtemp(prefix="lichen-stale-"))
    for number, case in enumerate(cases):
        share = arguments.trials // len(cases) + (number < arguments.trials % len(cases))
        run_case(case, place / case.name, share, arguments.seed, tally, wrong)
        print(
            f"{number + 1}/{len(cases)} {case.name}: {len(wrong)} wrong so far", file=sys.stderr, flush=True
        )
    if arguments.edits:
        edits_during_runs(place / "edited", arguments.edits, arguments.seed, tally, wrong)
    shutil.rmtree(place, ignore_errors=True)
    figures = {"wrong_hits": len(wrong), "wrong": wrong[:20], "counts": dict(sorted(tally.items()))}
    if arguments.no_result:
        print(json.dumps(figures, indent=2))
    else:
        write_result("stale_hits", figures, bars={"wrong_hits": "0 in 2,000 mutations of 30 scripts"})
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
