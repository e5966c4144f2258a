"""An interlude: an auditor who takes nobody's word. Witnesses, receipts of a yes and of a no, and everything in plain files."""

from __future__ import annotations

import contextlib
import json
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from stage import Broken, Stage, check, say

__all__ = ["interlude_auditor"]

START_SECONDS = 60.0
WITNESSES = ("hospital-b", "ministry", "university")


def interlude_auditor(stage: Stage) -> None:
    """Have the ledger witnessed, prove a yes and a no offline, and hand everything to somebody without Lichen."""
    say("═══ Interlude · An auditor who takes nobody's word ═══")
    say(
        "Who holds a ledger's key could show different people different histories. Three others witness that it only grows."
    )
    model = _model_of(stage)
    with _witnesses(stage):
        stage.type("lichen witness use witness.policy")
        stage.type("lichen witness request")
    stage.type(f"lichen show {model} --receipt > model.receipt")
    say("The witnesses are gone, and so is the ledger: receipt and policy are enough.")
    desk = stage.root / "auditor"
    desk.mkdir()
    for name in ("model.receipt", "witness.policy"):
        shutil.copy2(stage.directory / name, desk)
    home, member, stage.directory, stage.member = stage.directory, stage.member, desk, "auditor"
    told = stage.type("lichen verify model.receipt --policy witness.policy")
    check("witnessed" in told, "a receipt says that witnesses signed")
    stage.directory, stage.member = home, member

    say("A no can be proved as well: this model was not withdrawn.")
    stage.type(f"lichen find --prove stands.receipt --withdrawn {model}")
    stage.type("lichen verify stands.receipt")

    say(
        "And the whole ledger, for somebody who has no Lichen: plain files, and a program that needs nothing but Python."
    )
    stage.type("lichen archive for-the-auditor")
    shutil.copytree(stage.directory / "for-the-auditor", desk / "archive")
    stage.directory, stage.member = desk, "auditor"
    stage.type("python -I -S archive/verify_ledger.py archive")
    say(f"Somebody improves a figure on the way, {_embellish(desk / 'archive')}:")
    stage.type("python -I -S archive/verify_ledger.py archive", expect=1)
    stage.directory, stage.member = home, member


def _model_of(stage: Stage) -> int:
    told = json.loads(stage.type("lichen find --kind model --json", lines_max=0))
    results = told if isinstance(told, list) else told["results"]
    return int(results[0]["index"])


@contextlib.contextmanager
def _witnesses(stage: Stage) -> Iterator[None]:
    """Let three others witness the ledger: each has a key and a record of its own, and serves on a port of this machine."""
    log_key = stage.type("lichen key show --log --vkey").strip()
    lines = [f"log {log_key}"]
    home, member = stage.directory, stage.member
    running: list[subprocess.Popen[str]] = []
    try:
        for name in WITNESSES:
            stage.member, stage.directory = name, stage.root / name
            stage.directory.mkdir()
            stage.type(f"lichen witness init --name {name}.example/witness", lines_max=2)
            stage.type(f"lichen witness add {log_key}", lines_max=1)
            key = stage.type("lichen witness show", lines_max=0).strip().splitlines()[-1]
            url = _serve(stage, running)
            lines.append(f"witness {name} {key} {url}")
        stage.member, stage.directory = member, home
        say("Any two of the three make a quorum, so two quorums always share a witness: the policy says so.")
        lines += [f"group quorum-of-two 2 {' '.join(WITNESSES)}", "quorum quorum-of-two", ""]
        (home / "witness.policy").write_text("\n".join(lines), encoding="utf-8")
        yield
    finally:
        stage.member, stage.directory = member, home
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _serve(stage: Stage, running: list[subprocess.Popen[str]]) -> str:
    """Start the witness of whoever is speaking; return where it answers."""
    print(f"\n{stage.member}$ lichen witness serve --port 0 &", flush=True)
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "lichen"), "witness", "serve", "--port", "0"],
        cwd=stage.directory, env=stage.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    running.append(process)
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if ready else ""
    _, found, rest = line.partition(" at http://")
    if not found:
        raise Broken(f"the witness of {stage.member} did not start: {line!r}")
    print(f"    {line.rstrip()}", flush=True)
    return f"http://{rest.partition('/')[0]}/"


def _embellish(archive: Path) -> str:
    """Raise the first accuracy on record by a digit, in the entry's own bytes; return what was made of what."""
    for bundle in sorted(path for path in (archive / "tile" / "entries").rglob("*") if path.is_file()):
        data = bundle.read_bytes()
        found = re.search(rb'"accuracy":0\.\d\d', data)
        if found is not None:
            better = found[0][:-1] + (b"9" if not found[0].endswith(b"9") else b"8")
            bundle.chmod(0o644)
            bundle.write_bytes(data[: found.start()] + better + data[found.end() :])
            return f"{found[0].decode()}… became {better.decode()}…"
    raise Broken("no accuracy is on record")
