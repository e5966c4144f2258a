"""The system call filter: what no other means sees."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from lichen.runs.trace.agent.lichen_seccomp_launch import NUMBERS, program

if TYPE_CHECKING:
    from tests.integration.trace.conftest import Project

CALLS = ("audit", "seccomp")
ALL = ("audit", "preload", "seccomp")


@pytest.fixture(autouse=True)
def needs_filter(project: Project) -> None:
    """Skip where the kernel, or a surrounding sandbox, refuses the filter."""
    project.write("probe.txt", "x")
    if any(
        reason.startswith("seccomp: ")
        for reason in project.run("cat", "probe.txt", means=CALLS).trace.reasons
    ):
        pytest.skip("the kernel refuses the filter here")


@pytest.mark.parametrize("machine", NUMBERS)
def test_the_filter_is_short_enough_for_its_jumps(machine: str) -> None:
    code = program(machine)
    assert len(code) % 8 == 0
    assert len(code) // 8 < 256


def test_a_static_program_is_seen_and_believed(project: Project) -> None:
    source = project.write(
        "tool.c",
        """
        #include <stdio.h>
        #include <sys/stat.h>
        int main(void) {
            struct stat st;
            FILE *in = fopen("data.txt", "r"), *out = fopen("out.txt", "w");
            stat("nowhere", &st);
            fputc(fgetc(in), out);
            return 0;
        }
        """,
    )
    compiler = shutil.which("cc")
    if (
        compiler is None
        or subprocess.run(
            [compiler, "-static", "-o", project.root / "tool", source], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("no static C library here")
    project.write("data.txt", "1")
    result = project.run("./tool", means=CALLS)
    assert result.status == 0
    assert result.trace.complete, result.trace.reasons
    assert "data.txt" in result.names("read")
    assert "nowhere" in result.names("absent")
    assert result.names("write") == {"out.txt"}


@pytest.mark.parametrize("means", [CALLS, ALL], ids=["audit-seccomp", "all"])
def test_python_with_a_child_in_the_shell(project: Project, means: tuple[str, ...]) -> None:
    project.write("a.txt", "1")
    project.write("b.txt", "2")
    project.write("helper.py", "")
    result = project.script(
        """
        import helper, os, subprocess
        open('a.txt').read(); os.path.exists('nothing')
        subprocess.run('cat b.txt > copy.txt; mv copy.txt moved.txt', shell=True, check=True)
        print(os.listdir('.') != [])
        """,
        means=means,
    )
    assert result.status == 0, result.stderr
    assert result.trace.complete, result.trace.reasons
    assert {"a.txt", "b.txt"} <= result.names("read")
    assert "nothing" in result.names("absent")
    assert result.names("write") == {"moved.txt"}
    assert str(project.root) in result.names("list")
    assert result.trace.modules["helper"] == str(project.root / "helper.py")


def test_an_isolated_python_is_seen_but_not_its_variables(project: Project) -> None:
    project.write("data.txt", "1")
    project.write("main.py", "open('data.txt').read()")
    result = project.run(sys.executable, "-I", "main.py", means=CALLS)
    assert "data.txt" in result.names("read")
    assert any(reason.startswith("isolated-python: ") for reason in result.trace.reasons)


def test_status_and_errors_are_the_commands_own(project: Project) -> None:
    project.write("main.py", "import sys; print('out'); sys.exit(7)")
    result = project.run("main.py", means=CALLS)
    assert (result.status, result.stdout) == (7, "out\n")
    missing = project.run("no-such-command", means=CALLS)
    assert missing.status == 127
    assert "no-such-command" in missing.stderr


def test_a_command_started_without_its_launcher_is_not_believed(project: Project) -> None:
    result = project.run("cat", "probe.txt", means=CALLS, wrapped=False)
    assert any(reason.startswith("seccomp: ") for reason in result.trace.reasons)


def test_peers_are_seen(project: Project) -> None:
    result = project.script(
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('192.0.2.1', 9))",
        means=CALLS,
    )
    assert "192.0.2.1:9" in result.trace.network
