"""What a newcomer does in the first hour, with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.integration.cli.conftest import Terminal

RUN = ("run", "--report", "report.json", "--metrics", "metrics.json")


def report(terminal: Terminal) -> dict[str, object]:
    value = json.loads((terminal.directory / "report.json").read_text())
    assert isinstance(value, dict)
    return value


def test_the_first_run_is_recorded_and_the_second_is_answered(terminal: Terminal) -> None:
    first = terminal.type(*RUN, "--", "python", "train.py")
    assert first.stdout == "acc: 0.910 on 50 rows\n"
    assert "lichen: nothing like this is on record yet" in first.stderr
    assert "accuracy 0.91" in first.stderr
    assert first.stderr.rstrip().endswith("2 outputs, reusable")
    told = report(terminal)
    assert (told["status"], told["reusable"]) == ("trained", True), told["reasons"]
    made = (terminal.directory / "model.pkl").read_bytes()
    (terminal.directory / "model.pkl").unlink()

    second = terminal.type(*RUN, "--", "python", "train.py")
    assert second.stdout == first.stdout
    assert "receipt verified" in second.stderr
    again = report(terminal)
    assert (again["status"], again["record"]) == ("hit", told["record"])
    assert again["avoided_joules"] == pytest.approx(told["energy_joules"], rel=1e-4)
    assert (terminal.directory / "model.pkl").read_bytes() == made


def test_one_parameter_changed_is_new_work_with_the_old_beside_it(terminal: Terminal) -> None:
    terminal.type(*RUN, "--", "python", "train.py", "--depth", "6")
    second = terminal.type(*RUN, "--", "python", "train.py", "--depth", "4")
    assert "nearest earlier work: same data and code, depth 6 instead of 4: accuracy 0.97" in second.stderr
    assert "from 1 run of this script" in second.stderr
    assert report(terminal)["status"] == "trained"


def test_changed_data_is_named_as_the_reason(terminal: Terminal) -> None:
    terminal.type(*RUN, "--", "python", "train.py")
    with (terminal.directory / "measurements.csv").open("a") as file:
        file.write("new,row\n")
    why = terminal.type("why", "--", "python", "train.py")
    assert "measurements.csv changed" in why.stdout
    told = json.loads(terminal.type("why", "--json", "--", "python", "train.py").stdout)
    assert told["kind"] == "miss"
    assert told["difference"]["section"] == "data"
    assert "measurements.csv changed" in terminal.type(*RUN, "--", "python", "train.py").stderr


def test_estimate_runs_nothing(terminal: Terminal) -> None:
    done = terminal.type("run", "--estimate", "--", "python", "train.py")
    assert "nothing like this is on record yet" in done.stderr
    assert not (terminal.directory / "model.pkl").exists()
    terminal.type(*RUN, "--", "python", "train.py")
    assert (
        "the ledger has the answer: entry"
        in terminal.type("run", "--estimate", "--", "python", "train.py").stderr
    )


def test_a_missed_target_and_a_crash_are_on_record_with_their_cost(terminal: Terminal) -> None:
    missed = terminal.type(*RUN, "--target", "accuracy=0.99", "--", "python", "train.py")
    assert "target missed: accuracy is 0.91, the target was at least 0.99" in missed.stderr
    assert report(terminal)["status"] == "missed"
    crashed = terminal.type(*RUN, "--", "python", "train.py", "--crash", expect=3)
    assert "(failed)" in crashed.stderr
    told = report(terminal)
    assert (told["status"], told["exit_status"], told["reusable"]) == ("failed", 3, False)
    terminal.type(*RUN, "--", "python", "train.py", "--crash", expect=3)
    assert report(terminal)["status"] == "failed"
    balance = json.loads(terminal.type("balance", "--json").stdout)
    assert balance["run_count"] == 3
    assert balance["failed_joules"] > 0
    paper = terminal.type("report", "--paper", "--zone", "DE").stdout
    assert "3 runs" in paper
    assert "gCO2e" in paper


def test_a_seed_makes_same_work_which_is_shown_and_taken_when_accepted(terminal: Terminal) -> None:
    seeded = ("--seed", "seed")
    terminal.type(*RUN, *seeded, "--", "python", "train.py", "--seed", "1")
    shown = terminal.type(*RUN, *seeded, "--rerun", "--", "python", "train.py", "--seed", "2")
    assert report(terminal)["status"] == "trained"
    offered = terminal.type("run", "--estimate", *seeded, "--", "python", "train.py", "--seed", "3")
    assert "--accept same-work takes such answers" in offered.stderr
    terminal.type(*RUN, *seeded, "--accept", "same-work", "--", "python", "train.py", "--seed", "3")
    assert report(terminal)["status"] == "hit"
    assert "lichen: recorded" in shown.stderr
    for told in (terminal.type("log"), terminal.type("find", "seed=2"), terminal.type("show", "@last")):
        assert "--seed=2" in told.stdout
        assert "{seed}" not in told.stdout


def test_ask_show_and_verify(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type(*RUN, "--", "python", "train.py")
    index = str(report(terminal)["record"])
    found = json.loads(
        terminal.type(
            "find", "--data", "measurements.csv", "--metric", "accuracy>=0.9", "--order", "energy", "--json"
        ).stdout
    )
    assert [str(item["index"]) for item in found] == [index]
    assert json.loads(terminal.type("find", "--json", "--metric", "accuracy>=0.95").stdout) == []
    assert json.loads(terminal.type("find", "--json", "--file", "model.pkl").stdout)[0]["kind"] == "run"
    told = json.loads(terminal.type("show", "model.pkl", "--json").stdout)
    assert str(told["index"]) == index
    assert told["detail"]["stdout"] == "acc: 0.910 on 50 rows\n"
    assert told["size_bytes"] <= 1280
    shown = terminal.type("show").stdout
    assert "code         {project}/train.py" in shown
    receipt = tmp_path / "run.receipt"
    receipt.write_text(terminal.type("show", "--receipt").stdout)
    held = terminal.type("verify", str(receipt)).stdout
    assert held.startswith(f"holds: entry {index} (run) by ada")
    log_key = terminal.type("key", "show", "--log").stdout.strip()
    alone = type(terminal)(tmp_path, tmp_path / "home", "nobody")
    assert json.loads(alone.type("verify", str(receipt), "--log-key", log_key, "--json").stdout)[
        "index"
    ] == int(index)
    without = alone.type("verify", str(receipt), expect=2)
    assert "--log-key" in without.stderr
    assert terminal.type("verify").stdout.startswith("holds: 4 entries")
    log = [json.loads(line) for line in terminal.type("log", "--json").stdout.splitlines()]
    assert [entry["kind"] for entry in log] == ["run", "genesis"]


def test_publish_get_lineage_flag_withdraw(terminal: Terminal) -> None:
    terminal.type("publish", "data", "measurements.csv", "--title", "clinic A")
    terminal.type(*RUN, "--", "python", "train.py")
    made_by = report(terminal)["record"]
    model = json.loads(terminal.type("publish", "model", "model.pkl", "--json").stdout)
    assert model["run"] == made_by
    terminal.type(
        "publish", "evaluation", "model.pkl", "--metric", "accuracy=0.9", "--data", "measurements.csv"
    )
    got = terminal.type("get", model["cid"], "--output", "back.pkl")
    assert model["cid"] in got.stdout
    assert (terminal.directory / "back.pkl").read_bytes() == (terminal.directory / "model.pkl").read_bytes()
    terminal.type("get", "@last", "--name", "metrics.json", "--output", "back.json")
    assert "clinic A" in terminal.type("lineage", "model.pkl").stdout
    terminal.type("flag", "model.pkl", "--error", "wrong for the young", "--severity", "high")
    drawn = terminal.type("lineage", "model.pkl").stdout
    assert "flagged" in drawn
    assert "most suspected first" in drawn
    assert terminal.type("lineage", "model.pkl", "--format", "mermaid").stdout.startswith("flowchart LR")
    assert terminal.type("lineage", "model.pkl", "--format", "graphviz").stdout.startswith("digraph")
    refused = terminal.type("withdraw", "@last", expect=2).stderr
    assert f"@last is the newest run, entry {made_by}" in refused
    assert f"or lichen withdraw {made_by}." in refused
    terminal.type("withdraw", str(made_by), "--reason", "wrong labels")
    terminal.type(*RUN, "--", "python", "train.py")
    assert report(terminal)["status"] == "trained"
    assert terminal.type("verify").stdout.startswith("holds:")


def test_an_audit_names_what_is_missing_and_takes_no_directory_for_it(terminal: Terminal) -> None:
    (terminal.directory / "clinic").mkdir()
    for name in ("a.csv", "b.csv"):
        (terminal.directory / "clinic" / name).write_text(name * 10)
    terminal.type("publish", "data", "clinic")
    assert "not in this store" not in terminal.type("audit").stdout
    terminal.type("archive", "kept")
    assert json.loads(terminal.type("restore", "kept", "back", "--json").stdout)["missing"] == []
    kept = json.loads(terminal.type("publish", "data", "clinic/a.csv", "--json").stdout)
    objects = terminal.directory / ".lichen/store/objects"
    (gone,) = objects.rglob(kept["cid"])
    gone.unlink()
    told = terminal.type("audit").stdout
    assert "named by entries and not in this store: 2 artefacts" in told
    assert f"  {kept['cid']} (a.csv), of entry 2" in told
    assert f"  {kept['cid']}, of entry {kept['index']}" in told


def test_withdraw_asks_who_sits_at_a_terminal(terminal: Terminal) -> None:
    terminal.type("publish", "data", "measurements.csv")
    asking = [*terminal.LICHEN, "withdraw", "2"]
    for answer, status in ((b"n\n", 130), (b"y\n", 0)):
        ours, theirs = os.openpty()
        try:
            os.write(ours, answer)  # it waits in the terminal until it is read
            done = subprocess.run(
                asking, cwd=terminal.directory, env=terminal.environment, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE,
                check=False,
            )  # fmt: skip
        finally:
            os.close(theirs)
            os.close(ours)
        assert done.returncode == status
        assert (b"withdrew entry 2" in done.stdout) == (status == 0)


def test_a_colleague_elsewhere_is_answered_once_she_trusts(terminal: Terminal, tmp_path: Path) -> None:
    terminal.type(*RUN, "--", "python", "train.py")
    first = report(terminal)
    bob = terminal.colleague(tmp_path / "other" / "checkout", tmp_path / "bob-home", "bob")
    bob.type("key", "make")
    stranger = bob.type("run", "--", "python", "train.py", expect=5)
    assert "bob is not a member of this ledger" in stranger.stderr
    assert "lichen key admit bob did:key:" in stranger.stderr
    assert not (bob.directory / "model.pkl").exists()
    key = bob.type("key", "show", "--public").stdout.strip()
    assert "group.key" in terminal.type("key", "admit", "bob", key).stdout
    offered = bob.type("run", "--estimate", "--metrics", "metrics.json", "--", "python", "train.py")
    assert "lichen config add reuse.trust ada" in offered.stderr
    bob.type("config", "set", "reuse.trust", "ada")
    undeclared = bob.type(*RUN, "--estimate", "--", "python", "train.py")
    assert "--out metrics.json --out model.pkl" in undeclared.stderr
    bob.type(*RUN, "--out", "model.pkl", "--out", "metrics.json", "--", "python", "train.py")
    told = report(bob)
    assert (told["status"], told["author"], told["record"]) == ("hit", "ada", first["record"])
    assert (bob.directory / "model.pkl").exists()
    (bob.directory / "model.pkl").unlink()
    alone = bob.type(*RUN, "--", "python", "train.py")  # outputs not declared: another's answer stops nothing
    assert "not taken" in alone.stderr
    assert "--out" in alone.stderr
    assert report(bob)["status"] == "trained"


def test_one_key_replaces_another_and_old_receipts_stand(terminal: Terminal) -> None:
    terminal.type(*RUN, "--", "python", "train.py")
    rotated = json.loads(terminal.type("key", "rotate", "--json").stdout)
    assert terminal.type("key", "show", "--public").stdout.strip() == rotated["public_key"]
    terminal.type(*RUN, "--", "python", "train.py", "--depth", "5")
    assert report(terminal)["status"] == "trained"
    rows = json.loads(terminal.type("key", "members", "--json").stdout)
    assert [row["reason"] for row in rows] == ["rotated", None]
    terminal.type(*RUN, "--", "python", "train.py")
    assert report(terminal)["status"] == "hit"


def test_a_run_leaves_as_its_command_left(terminal: Terminal) -> None:
    assert terminal.type("run", "--", "bash", "-c", "exit 42", expect=42)
    assert terminal.type("run", "--", "no-such-program", expect=127).stderr
    assert terminal.type("run", "--", "./measurements.csv", expect=126).stderr
    with subprocess.Popen(
        [
            *terminal.LICHEN,
            "run",
            "--",
            "python",
            "-c",
            "import time; print('up', flush=True); time.sleep(60)",
        ],
        cwd=terminal.directory,
        env=terminal.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        assert process.returncode == -signal.SIGTERM
    assert json.loads(terminal.type("show", "--json").stdout)["status"] == "interrupted"


def test_two_runs_of_the_same_work_at_once_train_once(terminal: Terminal) -> None:
    script = terminal.directory / "slow.py"
    script.write_text("import time\ntime.sleep(3)\nopen('slow.txt', 'w').write('done')\n")
    command = [*terminal.LICHEN, "run", "--", "python", "slow.py"]
    started = [
        subprocess.Popen(
            command, cwd=terminal.directory, env=terminal.environment, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=120)[1] for process in started]
    assert sum("recorded as entry" in text for text in told) == 1, told
    assert sum("answered from entry" in text for text in told) == 1, told
    waiting = next(text for text in told if "answered from entry" in text)
    assert "equal work is in progress" in waiting


def test_quiet_says_only_what_went_wrong(terminal: Terminal) -> None:
    assert terminal.type("run", "--quiet", "--", "python", "train.py").stderr == ""
    assert terminal.type("run", "-q", "--", "python", "train.py").stderr == ""


def test_no_replay_leaves_the_recorded_output_out(terminal: Terminal) -> None:
    terminal.type("run", "--", "python", "train.py")
    assert terminal.type("run", "--no-replay", "--", "python", "train.py").stdout == ""


def test_the_record_is_shown_before_it_is_signed(terminal: Terminal) -> None:
    done = terminal.type("run", "--show-record", "--", "python", "train.py")
    assert '"predicateType": "urn:lichen:run:v1"' in done.stderr
    assert done.stdout == "acc: 0.910 on 50 rows\n"


def test_a_secret_is_named_before_the_run_and_masked_in_what_is_kept(terminal: Terminal) -> None:
    script = terminal.directory / "login.py"
    script.write_text("print('in')\n")
    words = ("python", "login.py", "--password", "correct-horse-battery")
    done = terminal.type("run", "--", *words)
    assert "looks like a secret" in done.stderr
    kept = terminal.type("show", "--json").stdout
    assert "correct-horse-battery" not in kept


def test_own_cost_is_booked_under_the_command(terminal: Terminal) -> None:
    terminal.type("run", "--", "python", "train.py")
    terminal.type("log")
    terminal.type("key", "members")
    told = json.loads(terminal.type("balance", "--json").stdout)
    assert {"init", "run", "log", "key members"} <= set(told["joules_by_command"])
    assert told["verdict"] in ("costs", "open")


def test_metrics_come_from_the_output_and_from_the_script(terminal: Terminal) -> None:
    script = terminal.directory / "logs.py"
    script.write_text(
        "import lichen\nlichen.log(step=1, loss=0.5)\nlichen.log(step=2, loss=0.25)\nprint('acc = 0.75')\n"
    )
    terminal.type(
        "run", "--report", "report.json", "--metric", r"accuracy=acc = ([\d.]+)", "--", "python", "logs.py"
    )
    assert report(terminal)["metrics"] == {"loss": 0.25, "accuracy": 0.75}


def test_settings_of_the_project_hold_for_its_runs(terminal: Terminal) -> None:
    (terminal.directory / "lichen.toml").write_text(
        'seed = ["seed"]\nmetrics = "metrics.json"\nzone = "DE"\n'
    )
    terminal.type("run", "--report", "report.json", "--", "python", "train.py", "--seed", "4")
    assert report(terminal)["metrics"] == pytest.approx({"accuracy": 0.91, "loss": 0.09})
    assert json.loads(terminal.type("show", "--json").stdout)["manifest"]["seeds"] == {"seed": "4"}
    terminal.type("run", "--", "bash", "-c", "true")  # a command without that option runs all the same


def test_the_terminal_is_left_alone(terminal: Terminal) -> None:
    """Output appears while the command runs, not after it."""
    script = "import time\nprint('first', flush=True)\ntime.sleep(30)\n"
    with subprocess.Popen(
        [*terminal.LICHEN, "run", "--", "python", "-c", script],
        cwd=terminal.directory,
        env=terminal.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        started = time.monotonic()
        assert process.stdout.readline() == "first\n"
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
        assert time.monotonic() - started < 30
