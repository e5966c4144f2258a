"""Programs, peers and variables: what is believed and what is not."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

from lichen.runs.trace import programs
from lichen.runs.trace.agent_log import AgentLog
from lichen.runs.trace.completeness import judge_audited, judge_preloaded
from lichen.runs.trace.network import is_loopback, outside_peers
from lichen.runs.trace.places import Places
from lichen.runs.trace.preload_log import Image, PreloadLog, Started
from lichen.runs.trace.variables import ALL_NAMES, all_names, names_in_shell_text, select_variables

TCP, LOCAL = 2, 1


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["train.py"], ""),
        (["-I", "train.py"], "-I"),
        (["-OE", "train.py"], "-OE"),
        (["-s", "-S", "train.py"], "-S"),
        (["-c", "print()", "-I"], ""),
        (["-m", "tool", "-E"], ""),
        (["-X", "dev", "-u", "train.py", "-S"], ""),
        (["-W", "error", "-I", "train.py"], "-I"),
        (["-Werror", "-Xdev", "-uI", "train.py"], "-uI"),
        (["-Wignore:E", "train.py"], ""),
        (["--check-hash-based-pycs", "always", "x.py"], ""),
    ],
)
def test_isolating_options(arguments: list[str], option: str) -> None:
    assert programs.is_isolated(["python", *arguments]) == option


def test_kinds_of_programs(tmp_path: Path) -> None:
    def make(name: str, content: bytes) -> str:
        (tmp_path / name).write_bytes(content)
        return str(tmp_path / name)

    assert programs.kind_of_program(sys.executable) == "python"
    assert programs.kind_of_program(shutil.which("sh") or "/bin/sh") == "shell"
    assert programs.kind_of_program(shutil.which("cat") or "/bin/cat") in ("native", "static", "shell")
    assert programs.kind_of_program(make("a", b"#!/usr/bin/env -S python3 -u\n")) == "python"
    assert programs.kind_of_program(make("b", b"#!/usr/bin/env bash\n")) == "shell"
    assert programs.kind_of_program(make("c", b"#! /usr/bin/perl -w\n")) == "native"
    assert programs.kind_of_program(make("d", b"plain text")) == "unknown"
    assert programs.kind_of_program(make("e", b"#!\n")) == "unknown"
    assert programs.kind_of_program(str(tmp_path / "missing")) == "unknown"
    elf = struct.pack("<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, 2, 62, 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0)
    assert programs.kind_of_program(make("f", elf)) == "static"
    assert programs.kind_of_program(make("g", elf[:30])) == "static"


def test_finding_programs(tmp_path: Path) -> None:
    tool = tmp_path / "bin/tool"
    tool.parent.mkdir()
    tool.write_text("")
    tool.chmod(0o755)
    assert programs.find_program("tool", "/", {"PATH": f"/nowhere:{tool.parent}"}) == str(tool)
    assert programs.find_program("bin/tool", str(tmp_path), {}) == str(tool)
    assert programs.find_program("other", "/", {"PATH": str(tool.parent)}) == ""


def agent(pid: int = 7, ppid: int = 1, **facts: object) -> AgentLog:
    return AgentLog({"pid": pid, "ppid": ppid, "executable": sys.executable, **facts}, pid)


def start(log: AgentLog, *argv: str, carries: bool = True) -> None:
    log.execs.append((len(log.execs) * 10**9, argv[0], argv, "/", carries, ()))


def codes(reasons: object) -> set[str]:
    return {reason.partition(":")[0] for reason in reasons}  # type: ignore[attr-defined]


def test_without_library_only_understood_programs_are_believed(tmp_path: Path) -> None:
    data = tmp_path / "a"
    data.write_text("")
    log = agent()
    start(log, "uname", "-p")
    start(log, "cat", str(data))
    start(log, "sh", "-c", f"cat {data} | wc -l")
    verdict = judge_audited([log], os.environ)
    assert not verdict.reasons
    assert verdict.operands == {str(data)}
    for command in ("cat $X", "cat < a", "sort a", "cat a; make", "echo $(cat a)"):
        log = agent()
        start(log, "sh", "-c", command)
        assert codes(judge_audited([log], os.environ).reasons) == {"exec-unobserved"}, command


def test_a_python_child_must_answer() -> None:
    parent = agent(7)
    start(parent, sys.executable, "child.py")
    assert codes(judge_audited([parent], os.environ).reasons) == {"agent-missing"}
    assert not judge_audited([parent, agent(8, 7)], os.environ).reasons
    assert codes(judge_audited([parent, agent(8, 7, forked=True)], os.environ).reasons) == {"agent-missing"}
    assert not judge_audited([parent, agent(7, 1)], os.environ).reasons, "exec keeps the number"


def test_native_readers_are_not_believed_without_the_library() -> None:
    log = agent()
    log.imports.update({"pyarrow": "", "pandas": "", "numpy": ""})
    assert not judge_audited([log], os.environ).reasons
    log.imports["pyarrow.parquet"] = ""
    assert codes(judge_audited([log], os.environ).reasons) == {"native-io"}


def image(path: str, *argv: str, pid: int = 7, time_ns: int = 1, ppid: int = 1) -> Image:
    return Image(time_ns, pid, ppid, path, argv, None, 0)


CAT = os.path.realpath(shutil.which("cat") or "/bin/cat")


def test_every_program_must_announce_itself() -> None:
    log = PreloadLog(images=[image(CAT, "cat")], starts=[Started(5, 7, "/bin/ls", ("ls",), True)])
    assert codes(judge_preloaded(log, []).reasons) == {"exec-unobserved"}
    log.images.append(image(CAT, "ls", time_ns=6))
    assert not judge_preloaded(log, []).reasons
    spawned = PreloadLog(images=[image(CAT, "cat")], starts=[Started(5, 7, "ls", ("ls",), False)])
    assert codes(judge_preloaded(spawned, []).reasons) == {"exec-unobserved"}
    spawned.images.append(image(CAT, "ls", pid=8, ppid=7, time_ns=9))
    assert not judge_preloaded(spawned, []).reasons


def test_every_python_must_have_its_agent() -> None:
    executable = os.path.realpath(sys.executable)
    log = PreloadLog(images=[image(executable, "python", "train.py")])
    assert codes(judge_preloaded(log, []).reasons) == {"agent-missing"}
    assert not judge_preloaded(log, [agent(7)]).reasons
    assert codes(judge_preloaded(log, [agent(8)]).reasons) == {"agent-missing"}
    assert codes(
        judge_preloaded(PreloadLog(images=[image(executable, "python", "-I", "x")]), []).reasons
    ) == {"isolated-python"}
    assert not judge_preloaded(PreloadLog(images=[image(executable, "python", "-V")]), []).reasons


@pytest.mark.parametrize(
    ("log", "code"),
    [
        (PreloadLog(), "not-observed"),
        (PreloadLog(images=[image(CAT, "cat")], failed=True), "log-full"),
        (PreloadLog(images=[image(CAT, "cat")], used_ring=True), "io-uring"),
        (PreloadLog(images=[image("/usr/bin/docker", "docker")]), "container"),
        (
            PreloadLog(
                images=[image("/bin/sh", "sh")], starts=[Started(0, 7, "/opt/bin/ssh", ("ssh",), True)]
            ),
            "remote",
        ),
    ],
)
def test_doubts(log: PreloadLog, code: str) -> None:
    assert code in codes(judge_preloaded(log, []).reasons)


def test_a_record_cut_off_with_its_process_is_no_doubt() -> None:
    """The process ended before it could use the answer, and whoever else asked wrote a record of their own."""
    assert not judge_preloaded(PreloadLog(images=[image(CAT, "cat")], torn=1), []).reasons


def test_programs_that_take_every_variable() -> None:
    assert judge_preloaded(PreloadLog(images=[image("/usr/bin/make", "make")]), []).whole_environment
    assert judge_preloaded(PreloadLog(images=[image("/usr/bin/env", "env")]), []).whole_environment
    assert not judge_preloaded(
        PreloadLog(images=[image("/usr/bin/env", "env", "A=1", "cat")]), []
    ).whole_environment


def test_peers() -> None:
    connects = [
        (TCP, ("127.0.0.1", 5432)), (TCP, ("127.0.0.1", 6000)), (TCP, ("198.51.100.7", 443)), (10, ("::1", 6000)),
        (LOCAL, "/run/postgresql/.s.PGSQL.5432"), (LOCAL, "/tmp/own.sock"), (LOCAL, "/var/run/nscd/socket"), (40, "2 9"), (16, ""),
    ]  # fmt: skip
    binds = [(TCP, ("0.0.0.0", 6000)), (LOCAL, "own.sock"), (LOCAL, "/tmp/own.sock")]
    assert outside_peers(connects, binds, [(TCP, ("127.0.0.1", 9)), (TCP, ("203.0.113.5", 4000))]) == (
        "127.0.0.1:5432", "198.51.100.7:443", "203.0.113.5:4000", "family-40", "unix:/run/postgresql/.s.PGSQL.5432",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.3.2.1", True),
        ("::1", True),
        ("localhost", True),
        ("10.0.0.1", False),
        ("host.example", False),
        ("fe80::1%eth0", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) == expected


BASE = {
    "HOME": "/home/ann",
    "TERM": "xterm",
    "RATE": "1",
    "KERAS_BACKEND": "jax",
    "SSH_TTY": "x",
    "USER": "ann",
}


@pytest.fixture
def places() -> Places:
    found = Places("/project", [], BASE)
    found.add_interpreter(("/venv",), "/usr/lib/python3.11", ["/venv/lib/python3.11/site-packages"])
    return found


LIBRARY = "/venv/lib/python3.11/site-packages/keras/__init__.py"


def test_libraries_count_but_not_for_places_and_terminals(places: Places) -> None:
    log = agent()
    log.variables |= {
        (name, LIBRARY) for name in ("KERAS_BACKEND", "HOME", "TERM", "UNSET", "SSH_TTY", "LICHEN_RUN_DIR")
    }
    assert select_variables([log], BASE, places) == {"KERAS_BACKEND": "jax", "UNSET": None}


def test_the_projects_own_questions_all_count(places: Places) -> None:
    log = agent()
    log.variables |= {(name, "/project/train.py") for name in ("HOME", "TERM", "LICHEN_RUN_DIR")}
    assert select_variables([log], BASE, places) == {"HOME": "/home/ann", "TERM": "xterm"}


def test_loops_take_everything(places: Places) -> None:
    log = agent()
    log.loops.add(LIBRARY)
    names = all_names(BASE)
    assert select_variables([log], BASE, places) == {"KERAS_BACKEND": "jax", "RATE": "1", ALL_NAMES: names}
    assert all_names({**BASE, "APP_NEW": "1"}) != names, "a loop would have met it"
    assert all_names({**BASE, "TERM": "vt100", "MPLCONFIGDIR": "/x"}) == names
    log.loops = {"/project/train.py"}
    assert set(select_variables([log], BASE, places)) == {"KERAS_BACKEND", "RATE", "HOME", "USER", ALL_NAMES}


def test_a_copy_counts_unless_it_was_handed_on(places: Places, tmp_path: Path) -> None:
    source = tmp_path / "train.py"
    source.write_text("env = dict(os.environ); env.get('RATE')")
    log = agent()
    log.copies.add(str(source))
    assert "KERAS_BACKEND" in select_variables([log], BASE, places)
    log.execs.append((0, "x", ("x",), "/", True, (str(source),)))
    assert select_variables([log], BASE, places) == {"RATE": "1"}


def test_native_shell_and_whole(places: Places) -> None:
    chosen = select_variables(
        [], BASE, places, native=["OMP_NUM_THREADS", "HOME", "TERM"], shell=["HOME", "TERM"]
    )
    assert chosen == {"OMP_NUM_THREADS": None, "HOME": "/home/ann"}
    whole = {"KERAS_BACKEND": "jax", "RATE": "1", ALL_NAMES: all_names(BASE)}
    assert select_variables([], BASE, places, whole=True) == whole


def test_names_in_shell_text() -> None:
    assert names_in_shell_text("echo $A ${B:-1} ${#C} '$D' \\$E $1 $? ${!F}") == set("ABCDEF")
